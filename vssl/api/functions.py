"""A model to load, images to embed or train on, an encoder to export -> what each verb of the pipeline makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vssl.errors import require_path, require_text, require_whole
from vssl.model.shipped import shipped_model

if TYPE_CHECKING:
    from export.package import Exported, ExportOptions
    from export.sources.named import EncoderOptions
    from serve.extraction.extract import Summary
    from serve.inference.encoder import Encoder
    from train.loop.run import Display
    from train.loop.trainer import Outcome


def load(
    model: str | Path | None = None,
    *,
    device: str = "auto",
    engine: str = "onnxruntime",
    precision: str | None = None,
    threads: int | None = None,
) -> Encoder:
    """Load a model: the photo encoder that comes with vssl, a model.onnx or triton://HOST:PORT/MODEL.

    Options: `serve.inference.engine.Engine.open`. Raises InputError or FormatError.
    """
    from serve.inference.encoder import Encoder
    from serve.inference.engine import Engine

    path = shipped_model() if model is None else model
    require_path(model=path)
    require_text(device=device, engine=engine, precision=precision)
    if threads is not None:
        require_whole(threads=threads)
    return Encoder(Engine.open(path, device=device, engine=engine, precision=precision, threads=threads))


def extract(
    images: str | Path, out: str | Path, *, model: str | Path | None = None, resume: bool = False
) -> Summary:
    """Embed every image of a source into the folder `out`, in parallel and resumable.

    `serve.extraction.extract.extract` has more options. Raises InputError, ExistsError or MismatchError.
    """
    from serve.extraction.extract import extract as run

    require_path(images=images, out=out, model=model or shipped_model())
    return run(images, Path(out), model=model or shipped_model(), resume=resume)


def train(
    images: str | Path,
    out: str | Path,
    *,
    method: str | None = None,
    recipe: str = "folder",
    settings: Mapping[str, Any] | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    batch_size: int | None = None,
    size: int | None = None,
    seed: int | None = None,
    device: str = "auto",
    threads: int = 0,
    init: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    display: Display | None = None,
) -> Outcome:
    """Train an encoder on unlabelled images and leave the run in folder `out`.

    recipe, settings: where settings come from (`train.settings.recipe.plan`); method, epochs, batch_size,
    size, seed: over them, None for theirs; the others as in `train.loop.run.train_images`.
    Raises InputError, ExistsError, MismatchError, FormatError or TrainingError.
    """
    from train.loop.run import train_images

    require_path(images=images, out=out, init=init or "")
    given = {"method": method, "epochs": epochs, "batch_size": batch_size, "size": size, "seed": seed}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if size is not None:
        options["cache_size"] = "auto"
    return train_images(
        str(images), Path(out), recipe=recipe, settings=settings, options=options, device=device, threads=threads,
        minutes=minutes, init=None if init is None else Path(init), resume=resume, overwrite=overwrite,
        display=display,
    )  # fmt: skip


def export(
    encoder: str | Path,
    model: str | Path,
    *,
    calibration: str | Path | None = None,
    hf: str | Path | None = None,
    options: ExportOptions | None = None,
    source: EncoderOptions | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Write one verified, calibrated model.onnx of a run, a network of torchvision or timm, or an encoder.onnx.

    calibration: images that calibrate the variance, the run's own when None; hf: a folder for timm and the
    Hugging Face hub, too; options, source: what is written and what is expected of a picture, at length.
    Existing outputs are replaced.
    Raises InputError or FormatError.
    """
    from export.package import ExportOptions, export_encoder
    from export.sources.named import EncoderOptions, find_encoder

    require_path(encoder=encoder, model=model, calibration=calibration or "", hf=hf or "")
    asked = options or ExportOptions()
    if calibration is not None:
        asked = replace(asked, calibration_source=str(calibration))
    found = find_encoder(str(encoder), source or EncoderOptions())
    written = export_encoder(found, Path(model), asked, report)
    if hf is not None:
        from export.repositories.hugging_face import write_folder

        report(write_folder(Path(model), Path(hf), found, overwrite=True).describe())
    return written
