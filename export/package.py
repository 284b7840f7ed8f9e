"""RUN + calibration images -> model.onnx: verified, calibrated, with card and golden pair inside.

The file is written under a temporary name and renamed once every check has passed.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper

from export.calibration.head import CalibrationConfig, calibrate
from export.calibration.whitening import fit_mean, shrink
from export.evaluation.accuracy import MIN_LABELLED, accuracy
from export.evaluation.fidelity import Fidelity, compare, embed, open_session
from export.graph import OUTPUTS, to_onnx
from export.precision import PRECISIONS, lower_precision
from export.served_encoder import ServedEncoder
from export.verify import Agreement, run_model, verify
from train.augment.views import Views
from train.data.image_cache import ImageCache, load_images
from train.methods import build_encoder
from train.state.checkpoint import Checkpoint, load_checkpoint
from vssl import __version__
from vssl.errors import InputError
from vssl.files import write_bytes
from vssl.images.items import ImageSource
from vssl.images.sources import open_source
from vssl.model.card import CARD_KEY, GOLDEN_KEY, Calibration, ModelCard
from vssl.model.golden import Golden, golden_images
from vssl.model.identity import sha256_bytes
from vssl.model.seal import check_seal, sealed

Report = Callable[[str], None]
CHECKED, CALIBRATING, COMPARED = 29, 256, 1000
"""Real pictures compared with torch; calibrating int8; comparing a lower precision with fp32."""


@dataclass(frozen=True)
class ExportOptions:
    """What to write.

    space: `features` or `projector`; branch: `student` or `teacher`; name: what lists call the
    model; calibration_source: a source spec, or None for the run's own images; evaluation_source:
    labelled images on which the written model is measured, and a lower precision compared with
    fp32; whitening: 0 to 1, how far the means' spread is evened out over directions; licence: of
    the weights; precision: fp32, fp16 or int8; accept_loss: write a lower precision whatever it
    loses.
    """

    space: str = "projector"
    branch: str = "student"
    name: str | None = None
    calibration_source: str | None = None
    evaluation_source: str | None = None
    whitening: float = 0.5
    licence: str = "unspecified"
    precision: str = "fp32"
    accept_loss: bool = False
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)


@dataclass(frozen=True)
class Exported:
    """What was written: path, model id, size in bytes, card, agreement with torch."""

    path: Path
    model_id: str
    size: int
    card: ModelCard
    agreement: Agreement
    fidelity: Fidelity | None


def export_run(run: Path, out: Path, options: ExportOptions, report: Report = lambda _: None) -> Exported:
    """Export a run's encoder. Raises InputError or FormatError; `out` appears only when all is well."""
    if options.precision not in PRECISIONS:
        raise InputError(f"precision: found {options.precision!r}, expected one of {', '.join(PRECISIONS)}")
    checkpoint = load_checkpoint(run)
    size = checkpoint.preprocess.size
    labelled = labelled_rows(options)  # a wrong name is refused before minutes of calibration
    fitted = fit_served(checkpoint, options, report)
    report("exporting the graph")
    proto = to_onnx(fitted.model, size)
    golden = golden_images(size)
    pictures = served_pictures(fitted.bank, size, CHECKED if options.precision == "fp32" else COMPARED)
    report("verifying the graph against torch")
    agreement = verify(proto.SerializeToString(), fitted.model, np.concatenate([golden, pictures[:CHECKED]]))
    judged = None
    if labelled is not None:
        source, rows = labelled
        report(f"reading {len(rows)} images to judge the model on from {options.evaluation_source}")
        judged = load_images(source, checkpoint.preprocess, rows=rows)  # as the file will see them
    fidelity = None
    if options.precision != "fp32":
        report(f"lowering the precision to {options.precision}")
        images = (judged.images, judged.labels) if judged else (pictures, fitted.bank.labels[:COMPARED])
        proto, fidelity = lowered(proto, pictures[:CALIBRATING], *images, options)
    pair = golden_pair(proto, fitted.model, golden, options.precision)
    card = make_card(checkpoint, fitted, pair, options, out.stem)
    if judged is not None:
        card = replace(card, measured=measured(proto.SerializeToString(), judged, options))
    helper.set_model_props(proto, {CARD_KEY: card.to_json(), GOLDEN_KEY: pair.to_json()})
    data = sealed(proto.SerializeToString())
    found = run_model(data, golden)
    pair.check(found["mean"], found["variance"], found["features"], card.precision)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(out, data)
    check_seal(out.read_bytes())
    return Exported(out, sha256_bytes(data), len(data), card, agreement, fidelity)


def make_card(
    checkpoint: Checkpoint, fitted: Fitted, pair: Golden, options: ExportOptions, name: str
) -> ModelCard:
    """Return what the file says about itself; `name` is used where the options give none."""
    model = fitted.model
    source = Path(str(checkpoint.summary["source"])).name  # not the whole path
    return ModelCard(
        name=options.name or name,
        method=checkpoint.config.method,
        backbone=checkpoint.config.network.backbone,
        space=options.space,
        branch=options.branch,
        centred=model.mean.centre is not None,
        whitening=options.whitening if model.mean.matrix is not None else 0.0,
        dim=int(pair.mean.shape[1]),
        feature_dim=int(pair.features.shape[1]),
        preprocess=checkpoint.preprocess,
        calibration=fitted.calibration,
        training={**checkpoint.summary, "source": source},
        licence=options.licence,
        precision=options.precision,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        vssl_version=__version__,
    )


def golden_pair(
    proto: onnx.ModelProto, model: ServedEncoder, images: NDArray[np.uint8], precision: str
) -> Golden:
    """Return images and expected outputs: torch's own in fp32; a lower precision answers for itself."""
    if precision == "fp32":
        with torch.inference_mode():
            output = model(torch.from_numpy(images))
        return Golden(images, *(getattr(output, name).float().numpy() for name in OUTPUTS))
    found = run_model(proto.SerializeToString(), images)
    return Golden(images, *(found[name] for name in OUTPUTS))


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
    fidelity = compare(proto.SerializeToString(), lower.SerializeToString(), images, labels)
    if not options.accept_loss:
        fidelity.require(options.precision)
    return lower, fidelity


@dataclass(frozen=True, eq=False)
class Fitted:
    """What is served of a checkpoint, how well its variance fits, and the pictures it was fitted on."""

    model: ServedEncoder
    calibration: Calibration
    bank: ImageCache


def fit_served(checkpoint: Checkpoint, options: ExportOptions, report: Report = lambda _: None) -> Fitted:
    """Fit the served mean and its variance on the calibration images. Raises InputError."""
    torch.manual_seed(options.calibration.seed)
    encoder = build_encoder(checkpoint, options.branch)
    size = checkpoint.preprocess.size
    bank = calibration_bank(checkpoint, options, report)
    views = Views(checkpoint.config.augment, size)
    progress = _progress(report, options.calibration.views)
    mean = fit_mean(encoder, bank.images, options.space, size, options.whitening)
    variance, calibration = calibrate(encoder, views, bank.images, mean, size, options.calibration, progress)
    return Fitted(ServedEncoder(encoder, mean, variance).eval(), calibration, bank)


def _progress(report: Report, views: int) -> Callable[[int, int], None]:
    """Report each fifth of the calibration, with the minutes that are left."""
    started, told = time.monotonic(), 0

    def progress(done: int, total: int) -> None:
        nonlocal told
        if 5 * done // total > told:
            told = 5 * done // total
            left = (time.monotonic() - started) * (total - done) / done
            report(f"calibrating the variance: {done} of {total} pictures x {views} views, {left:.0f} s left")

    return progress


def calibration_bank(checkpoint: Checkpoint, options: ExportOptions, report: Report) -> ImageCache:
    """Decode as many calibration images as the fit uses: the run's own unless others are named."""
    spec = options.calibration_source or str(checkpoint.summary["source"])
    source = open_source(spec)
    wanted = min(len(source.items), options.calibration.images)
    report(f"reading {wanted} of {len(source.items)} calibration images from {spec}")
    rows = np.random.default_rng(options.calibration.seed).permutation(len(source.items))[:wanted]
    return load_images(
        source, checkpoint.preprocess, checkpoint.config.cache_size, rows=sorted(rows.tolist())
    )


def labelled_rows(options: ExportOptions) -> tuple[ImageSource, list[int]] | None:
    """Return the images to judge the file on, those with a label; None when none are named. Raises InputError."""
    if options.evaluation_source is None:
        return None
    source = open_source(options.evaluation_source)
    rows = [row for row, item in enumerate(source.items) if item.label is not None]
    labels = {source.items[row].label for row in rows}
    if len(rows) < MIN_LABELLED or len(labels) < 2:
        raise InputError(
            f"evaluation: found {len(rows)} labelled images of {len(labels)} classes in "
            f"{options.evaluation_source!r}, expected at least {MIN_LABELLED} of 2; labels are the names of "
            "the folders that hold the images"
        )
    return source, rows


def measured(data: bytes, bank: ImageCache, options: ExportOptions) -> dict[str, str | int | float | None]:
    """Return what a graph reaches on labelled images, as the card tells it."""
    found = accuracy(embed(open_session(data), bank.images), bank.labels)
    if found is None:
        raise InputError(f"evaluation: too few readable images in {options.evaluation_source!r}")
    source = Path(str(options.evaluation_source)).name
    return {"source": source, **asdict(found)}


def served_pictures(bank: ImageCache, size: int, count: int) -> NDArray[np.uint8]:
    """Return up to `count` of the bank's pictures, (n, S, S, 3) uint8 at the network's size."""
    some = np.ascontiguousarray(bank.images[:count])
    parts = [
        shrink(part.float(), size).round().to(torch.uint8) for part in torch.split(torch.from_numpy(some), 64)
    ]
    pictures: NDArray[np.uint8] = torch.cat(parts).contiguous().numpy()
    return pictures
