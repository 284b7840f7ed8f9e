"""Encoder + calibration images -> model.onnx: verified, calibrated, with card and golden pair inside.

The file is written under a temporary name and renamed once every check has passed.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper

from export.calibration.head import CalibrationConfig, Fit, calibrate
from export.calibration.whitening import embedded, served_map, shrink
from export.evaluation.fidelity import Fidelity, compare
from export.evaluation.labelled import labelled_rows, measured
from export.graph import to_onnx
from export.precision import PRECISIONS, half_weights, lower_precision
from export.served_encoder import ServedEncoder, ServedHeads
from export.sources.encoder_graph import OnnxEncoder
from export.sources.encoder_source import EncoderSource
from export.sources.run import run_encoder
from export.verify import Agreement, run_model, verify
from train.augment.views import Views
from train.data.image_cache import ImageCache, load_images
from train.models.encoder import EncoderOutput
from train.state.checkpoint import load_checkpoint
from vssl.errors import InputError
from vssl.files import require_local, write_bytes
from vssl.images.sources import open_source
from vssl.model.card import CARD_KEY, GOLDEN_KEY, PREDICTED_UNCERTAINTY, UNCERTAINTY, ModelCard
from vssl.model.golden import Golden, golden_images
from vssl.model.identity import VERSION, sha256_bytes
from vssl.model.seal import check_seal, sealed

Report = Callable[[str], None]
CHECKED, CALIBRATING, COMPARED = 29, 256, 1000
"""Real pictures compared with torch; calibrating int8; comparing a lower precision with fp32."""


@dataclass(frozen=True)
class ExportOptions:
    """What to write.

    space: `features` or `projector`, None for the projector where one was trained; branch: `student` or
    `teacher`; name: what lists call the model; calibration_source: a source spec, or None for the run's
    own images; evaluation_source: labelled images on which the written model is measured, and a lower
    precision compared with fp32; whitening: 0 to 1, how far the means' spread is evened out over
    directions, and dim: how many principal directions are served; None for what suits the encoder;
    licence: of the weights; precision: fp32, fp16 or int8; accept_loss: write a lower precision
    whatever it loses; half_weights: store large weights in half precision, whatever the file computes in.
    """

    space: str | None = None
    branch: str = "student"
    name: str | None = None
    calibration_source: str | None = None
    evaluation_source: str | None = None
    whitening: float | None = None
    dim: int | None = None
    licence: str | None = None
    precision: str = "fp32"
    accept_loss: bool = False
    half_weights: bool = False
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)


@dataclass(frozen=True)
class Exported:
    """What was written: path, model id, size in bytes, card, agreement with the encoder's own framework."""

    path: Path
    model_id: str
    size: int
    card: ModelCard
    agreement: Agreement
    fidelity: Fidelity | None


def export_run(run: Path, out: Path, options: ExportOptions, report: Report = lambda _: None) -> Exported:
    """Export a run's encoder. Raises InputError or FormatError; `out` appears only when every check passes."""
    check_options(options)
    return export_encoder(run_encoder(load_checkpoint(run), options.branch), out, options, report)


def check_options(options: ExportOptions) -> None:
    """Raise InputError for what can be refused before anything is loaded."""
    if options.precision not in PRECISIONS:
        raise InputError(f"precision: found {options.precision!r}, expected one of {', '.join(PRECISIONS)}")


def export_encoder(
    source: EncoderSource, out: Path, options: ExportOptions, report: Report = lambda _: None
) -> Exported:
    """Export an encoder from anywhere. Raises InputError or FormatError; `out` appears only when every check passes."""
    require_local(out)
    check_options(options)
    size = source.preprocess.size
    # A wrong name is refused before minutes of calibration.
    labelled = labelled_rows(options.evaluation_source)
    fitted = fit_served(source, options, report)
    report("exporting the graph")
    proto = to_onnx(fitted.model, source.graph, size)
    golden = golden_images(size)
    is_lowered = options.precision != "fp32" or options.half_weights
    pictures = served_pictures(fitted.cache, size, COMPARED if is_lowered else CHECKED)
    report("verifying the graph against the encoder itself")
    agreement = verify(proto.SerializeToString(), fitted.model, np.concatenate([golden, pictures[:CHECKED]]))
    judged = None
    if labelled is not None:
        images, rows = labelled
        report(f"reading {len(rows)} images to judge the model on from {options.evaluation_source}")
        judged = load_images(images, source.preprocess, rows=rows)  # as the file will see them
    fidelity = None
    if is_lowered:
        report(f"lowering the precision to {precision_name(options)}")
        compared = (judged.images, judged.labels) if judged else (pictures, fitted.cache.labels[:COMPARED])
        proto, fidelity = lowered(proto, pictures[:CALIBRATING], *compared, options)
    pair = golden_pair(proto, None if is_lowered else fitted.model, golden)
    card = make_card(source, fitted, pair, options, out.stem)
    if judged is not None:
        card = replace(
            card, measured=measured(proto.SerializeToString(), judged, str(options.evaluation_source))
        )
    helper.set_model_props(proto, {CARD_KEY: card.to_json(), GOLDEN_KEY: pair.to_json()})
    data = sealed(proto.SerializeToString())
    found = run_model(data, golden)
    pair.check(found["mean"], found["variance"], found["features"], card.precision, found.get("uncertainty"))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(out, data)
    check_seal(out.read_bytes())
    return Exported(out, sha256_bytes(data), len(data), card, agreement, fidelity)


def make_card(
    source: EncoderSource, fitted: Fitted, pair: Golden, options: ExportOptions, name: str
) -> ModelCard:
    """Return what the file says about itself; `name` is used where the options give none."""
    mean, fit = fitted.model.heads.mean, fitted.fit
    return ModelCard(
        name=options.name or name,
        method=source.method,
        backbone=source.name,
        space=mean.space,
        branch=source.branch,
        centred=mean.centre is not None,
        whitening=fitted.whitening if mean.matrix is not None else 0.0,
        dim=int(pair.mean.shape[1]),
        feature_dim=int(pair.features.shape[1]),
        preprocess=source.preprocess,
        calibration=fit.calibration,
        training=dict(source.training),
        licence=options.licence or source.licence,
        precision=options.precision,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        vssl_version=VERSION,
        uncertainty=UNCERTAINTY if fit.uncertainty_fit is None else PREDICTED_UNCERTAINTY,
        weights=_rounded(source.weights) if options.half_weights else source.weights,
        supervision=source.supervision,
        pixel_mean=source.pixel_mean,
        pixel_std=source.pixel_std,
        uncertainty_fit=fit.uncertainty_fit,
    )


def _rounded(weights: str) -> str:
    """Return where weights come from that are stored in half precision; those of a file may have been so before."""
    said = ", rounded to half precision"
    return weights.removesuffix(said) + said


def golden_pair(proto: onnx.ModelProto, model: ServedEncoder | None, images: NDArray[np.uint8]) -> Golden:
    """Return images and expected outputs: the model's own; without one, as in a lower precision, the file's."""
    if model is not None:
        with torch.inference_mode():
            output = model(torch.from_numpy(images))
        return Golden(images, *(value.float().numpy() for value in output if value is not None))
    found = run_model(proto.SerializeToString(), images)
    return Golden(images, found["mean"], found["variance"], found["features"], found.get("uncertainty"))


def lowered(
    proto: onnx.ModelProto,
    calibrating: NDArray[np.uint8],
    images: NDArray[np.uint8],
    labels: list[str | None],
    options: ExportOptions,
) -> tuple[onnx.ModelProto, Fidelity]:
    """Return the graph in the precision asked for, and what it loses on images (N, S, S, 3).

    calibrating: the images that int8's ranges come from. Raises FormatError when too much is lost.
    """
    lower = lower_precision(proto, options.precision, calibrating)
    if options.half_weights:
        lower = half_weights(lower)
    fidelity = compare(proto.SerializeToString(), lower.SerializeToString(), images, labels)
    if not options.accept_loss:
        fidelity.require(precision_name(options))
    return lower, fidelity


def precision_name(options: ExportOptions) -> str:
    """Return what a message calls the precision asked for."""
    return options.precision + (" with weights in half precision" if options.half_weights else "")


@dataclass(frozen=True, eq=False)
class Fitted:
    """What is served of an encoder, how well it was fitted, and the pictures that was done on."""

    model: ServedEncoder
    fit: Fit
    whitening: float
    cache: ImageCache


def fit_served(source: EncoderSource, options: ExportOptions, report: Report = lambda _: None) -> Fitted:
    """Fit mean, variance and uncertainty on the calibration images. Raises InputError."""
    torch.manual_seed(options.calibration.seed)
    space = served_space(source, options.space)
    size = source.preprocess.size
    cache = calibration_images(source, options, report)
    encoder, views = OnnxEncoder(source.graph), Views(source.augment, size)
    whitening = source.whitening if options.whitening is None else options.whitening
    dim = source.dim if options.dim is None else options.dim
    report(f"embedding {len(cache.images)} images")
    own = embedded(encoder, cache.images, space, size)
    mean = served_map(own, space, whitening, dim)
    progress = _progress(report, options.calibration.pictures)
    means = mean(EncoderOutput(own.float(), own.float(), None))
    fit = calibrate(encoder, views, cache.images, mean, size, options.calibration, progress, means)
    heads = ServedHeads(mean, fit.variance, fit.uncertainty)
    return Fitted(ServedEncoder(source.encode, heads).eval(), fit, whitening, cache)


def served_space(source: EncoderSource, asked: str | None) -> str:
    """Return the space to serve. Raises InputError for a projector that was never trained."""
    if asked == "projector" and not source.is_projector_trained:
        raise InputError(
            f"space: found projector, but {source.name} has none here that was trained; serve --space features, or "
            "train one: vssl train IMAGES"
        )
    return asked or ("projector" if source.is_projector_trained else "features")


def _progress(report: Report, pictures: int) -> Callable[[int, int], None]:
    """Report the first images and each tenth of the calibration, with the seconds that are left at most."""
    started, reported = time.monotonic(), -1

    def progress(done: int, total: int) -> None:
        nonlocal reported
        if 10 * done // total > reported:
            reported = 10 * done // total
            left = (time.monotonic() - started) * (total - done) / done
            report(f"calibrating: {done} of at most {total} images x {pictures} pictures, {left:.0f} s left")

    return progress


def calibration_images(source: EncoderSource, options: ExportOptions, report: Report) -> ImageCache:
    """Decode as many calibration images as the fit uses: the run's own unless others are named."""
    spec = options.calibration_source or source.images
    if spec is None:
        raise InputError(
            f"{source.name} needs images to calibrate on, some hundreds like those that it will see; "
            "add --calibration IMAGES"
        )
    images, config = open_source(spec), options.calibration
    wanted = min(len(images.items), max(config.images, config.cluster_images))
    report(f"reading {wanted} of {len(images.items)} calibration images from {spec}")
    rows = np.random.default_rng(config.seed).permutation(len(images.items))[:wanted]
    return load_images(images, source.preprocess, source.cache_size, rows=sorted(rows.tolist()))


def served_pictures(cache: ImageCache, size: int, count: int) -> NDArray[np.uint8]:
    """Return up to `count` of the cache's pictures, (n, S, S, 3) uint8 at the network's size."""
    some = np.ascontiguousarray(cache.images[:count])
    parts = [
        shrink(part.float(), size).round().to(torch.uint8) for part in torch.split(torch.from_numpy(some), 64)
    ]
    pictures: NDArray[np.uint8] = torch.cat(parts).contiguous().numpy()
    return pictures
