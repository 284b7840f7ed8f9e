"""RUN + calibration images -> model.onnx: verified, calibrated, with card and golden pair inside.

The file is written under a temporary name and renamed once every check has passed.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import helper

from export.calibration import CalibrationConfig, calibrate, shrink
from export.graph import to_onnx
from export.served import ServedEncoder
from export.verification import Agreement, run_model, verify
from train.bank import ImageBank, load_bank
from train.checkpoint import Checkpoint, load_checkpoint
from train.encoder import build_encoder
from train.views import Views
from vssl import __version__
from vssl.card import CARD_KEY, GOLDEN_KEY, ModelCard
from vssl.golden import Golden, golden_images
from vssl.identity import sha256_bytes
from vssl.seal import check_seal, sealed
from vssl.sources import open_source

Report = Callable[[str], None]


@dataclass(frozen=True)
class ExportOptions:
    """space: `features` or `projector`; branch: `student` or `teacher`; name: what lists call the model;
    calibration_source: a source spec, or None for the run's own images; licence: of the weights.
    """

    space: str = "features"
    branch: str = "student"
    name: str | None = None
    calibration_source: str | None = None
    licence: str = "unspecified"
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)


@dataclass(frozen=True)
class Exported:
    """What was written: path, model id, size in bytes, card, agreement with torch."""

    path: Path
    model_id: str
    size: int
    card: ModelCard
    agreement: Agreement


def export_run(run: Path, out: Path, options: ExportOptions, report: Report = lambda _: None) -> Exported:
    """Export a run's encoder. Raises InputError or FormatError; `out` appears only when all is well."""
    checkpoint = load_checkpoint(run)
    torch.manual_seed(options.calibration.seed)
    encoder = build_encoder(checkpoint, options.branch)
    preprocess = checkpoint.preprocess
    bank = calibration_bank(checkpoint, options, report)
    views = Views(checkpoint.config.augment, preprocess.size)
    last = -1

    def progress(done: int, total: int) -> None:
        nonlocal last
        tenth = 10 * done // total
        if tenth != last:
            report(f"calibrating the variance: {done} of {total} images x {options.calibration.views} views")
            last = tenth

    head, calibration = calibrate(
        encoder, views, bank.images, options.space, preprocess.size, options.calibration, progress
    )
    model = ServedEncoder(encoder, head, options.space).eval()
    report("exporting the graph")
    proto = to_onnx(model, preprocess.size)
    golden = golden_images(preprocess.size)
    with torch.inference_mode():
        output = model(torch.from_numpy(golden))
    card = ModelCard(
        name=options.name or out.stem,
        method=checkpoint.config.method,
        backbone=checkpoint.config.network.backbone,
        space=options.space,
        branch=options.branch,
        dim=int(output.mean.shape[1]),
        feature_dim=int(output.features.shape[1]),
        preprocess=preprocess,
        calibration=calibration,
        training=dict(checkpoint.summary),
        licence=options.licence,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        vssl_version=__version__,
    )
    pair = Golden(golden, *(x.float().numpy() for x in (output.mean, output.variance, output.features)))
    helper.set_model_props(proto, {CARD_KEY: card.to_json(), GOLDEN_KEY: pair.to_json()})
    data = sealed(proto.SerializeToString())
    report("verifying the file against torch")
    agreement = verify(data, model, np.concatenate([golden, served_pictures(bank, preprocess.size)]))
    found = run_model(data, golden)
    pair.check(found["mean"], found["variance"], found["features"], card.precision)
    write_bytes(data, out)
    check_seal(out.read_bytes())
    return Exported(out, sha256_bytes(data), len(data), card, agreement)


def calibration_bank(checkpoint: Checkpoint, options: ExportOptions, report: Report) -> ImageBank:
    """Decode as many calibration images as the fit uses: the run's own unless others are named."""
    spec = options.calibration_source or str(checkpoint.summary["source"])
    source = open_source(spec)
    wanted = min(len(source.items), options.calibration.images)
    report(f"reading {wanted} of {len(source.items)} calibration images from {spec}")
    rows = np.random.default_rng(options.calibration.seed).permutation(len(source.items))[:wanted]
    return load_bank(source, checkpoint.preprocess, checkpoint.config.cache_size, rows=sorted(rows.tolist()))


def served_pictures(bank: ImageBank, size: int, count: int = 29) -> NDArray[np.uint8]:
    """Return up to `count` real pictures (n, S, S, 3) uint8 at the network's size."""
    some = torch.from_numpy(np.ascontiguousarray(bank.images[:count])).float()
    pictures: NDArray[np.uint8] = shrink(some, size).round().to(torch.uint8).contiguous().numpy()
    return pictures


def write_bytes(data: bytes, out: Path) -> None:
    """Write under a temporary name in the same folder, flush to the disk, rename."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.tmp")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
