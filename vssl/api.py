"""The Python API: what `import vssl` offers, and what the command line calls.

    encoder = vssl.load()                                  # or vssl.load("model.onnx")
    photos = encoder.embed("photos/")                      # names, mean, variance, uncertainty
    with vssl.Gallery.create("gallery", photos) as gallery:
        answers = gallery.search(encoder.embed(["query.jpg"]), k=5)

Each function imports the packages that it needs when it is called: loading a model needs no torch.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vssl.embeddings.batch import Embedded
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.errors import ExistsError, InputError
from vssl.model.shipped import shipped_model

if TYPE_CHECKING:
    from export.package import Exported, ExportOptions
    from export.sources.named import EncoderOptions
    from index.answers.results import SearchResult
    from index.evaluation.dataset import Dataset
    from index.gallery.protocol import Gallery as AnyGallery
    from serve.extraction.extract import Summary
    from serve.inference.encoder import Encoder
    from train.loop.run import Display
    from train.loop.trainer import Outcome

PACKAGES = ("train", "export", "serve", "index")


def find_own_packages() -> None:
    """Make the names of our packages mean ours, also where a person's own train.py lies beside a script.

    Raises InputError where such a module of a person's is loaded already.
    """
    home = Path(__file__).resolve().parent.parent
    for name in PACKAGES:
        ours, loaded = home / name / "__init__.py", sys.modules.get(name)
        if loaded is None:
            folder = [str(ours.parent)]
            spec = importlib.util.spec_from_file_location(name, ours, submodule_search_locations=folder)
            if spec is None or spec.loader is None or not ours.is_file():
                continue  # not part of this installation
            sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])
        elif Path(loaded.__file__ or "").resolve() != ours:
            raise InputError(
                f"found a module {name} of your own ({loaded.__file__}), where vssl has a package of that name; "
                "rename yours, or import vssl before it"
            )


find_own_packages()


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
    return Encoder(Engine.open(path, device=device, engine=engine, precision=precision, threads=threads))


def extract(
    images: str | Path, out: str | Path, *, model: str | Path | None = None, resume: bool = False
) -> Summary:
    """Embed every image of a source into the folder `out`, in parallel and resumable.

    `serve.extraction.extract.extract` has more options. Raises InputError, ExistsError or MismatchError.
    """
    from serve.extraction.extract import extract as run

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

    asked = options or ExportOptions()
    if calibration is not None:
        asked = replace(asked, calibration_source=str(calibration))
    found = find_encoder(str(encoder), source or EncoderOptions())
    written = export_encoder(found, Path(model), asked, report)
    if hf is not None:
        from export.repositories.hugging_face import write_folder

        report(write_folder(Path(model), Path(hf), found, overwrite=True).describe())
    return written


class Gallery:
    """A gallery of embedded images: a folder, or a collection in Milvus. Close it, or use it in a `with` block.

    `opened` is the gallery itself, with all that it can do (`index.gallery.protocol.Gallery`).
    """

    def __init__(self, opened: AnyGallery) -> None:
        self.opened = opened

    @classmethod
    def open(cls, place: str | Path, *, read_only: bool = False) -> Gallery:
        """Open a gallery folder or `milvus:URI#NAME`. Raises InputError when it is not there."""
        from index.gallery.open import open_gallery

        return cls(open_gallery(place, read_only=read_only))

    @classmethod
    def create(
        cls,
        path: str | Path,
        images: Embedded | str | Path,
        *,
        distance: str | None = None,
        normalise: bool = True,
    ) -> Gallery:
        """Build a gallery folder of embedded images, fit its distances to them, and open it.

        images: what `Encoder.embed` returned, or a folder that `extract` wrote. distance: its own; None for the
        one that ranks held-out labelled images best. normalise: compare means of length one.
        Raises ExistsError when something is at `path`, InputError for no images.
        """
        from index.calibration.fit import BEST
        from index.gallery.folder.build import build_gallery
        from index.gallery.folder.gallery import FolderGallery
        from vssl.files import atomic_folder, is_free

        path = Path(path)
        if not isinstance(images, Embedded):
            build_gallery(Path(images), path, distance=distance, normalise=normalise)
            return cls.open(path)
        if not is_free(path):
            raise ExistsError(f"{path} exists already; choose another folder, or open it with: Gallery.open")
        if images.card is None or not len(images):
            raise InputError(
                f"found {len(images)} embedded images, expected at least one, and the card of their model"
            )
        with (
            atomic_folder(path) as partial,
            FolderGallery.create(
                partial, card=images.card, model_id=images.model_id, normalise=normalise
            ) as made,
        ):
            made.add(images.rows())
            made.fit(distance or BEST)
        return cls.open(path)

    def add(
        self, images: Embedded, *, metadata: Sequence[Mapping[str, Any]] | None = None, replace: bool = False
    ) -> None:
        """Add embedded images durably; their names are their ids.

        metadata: one flat mapping an image, for `where`. Raises ExistsError for an id that is there
        when `replace` is false, MismatchError for images of another model.
        """
        self.opened.add(images.rows(), replace=replace, metadata=metadata, model_id=images.model_id)

    def search(
        self,
        queries: Embedded | GaussianEmbedding,
        k: int = 10,
        *,
        distance: str | None = None,
        max_uncertainty: float | None = None,
        where: Mapping[str, object] | None = None,
        max_risk: float | None = None,
    ) -> list[SearchResult]:
        """Return the `k` nearest images of each query, as `index.gallery.protocol.Gallery.search` does."""
        model_id = None
        if isinstance(queries, Embedded):
            model_id, queries = queries.model_id, queries.gaussians
        return self.opened.search(
            queries,
            k,
            distance=distance,
            max_uncertainty=max_uncertainty,
            where=where,
            model_id=model_id,
            max_risk=max_risk,
        )

    def evaluate(
        self,
        queries: Embedded | str | Path,
        *,
        k: int = 20,
        distance: str | None = None,
        max_risk: float | None = None,
        resamples: int = 1000,
        ood: Embedded | str | Path | None = None,
    ) -> dict[str, Any]:
        """Return the report of `vssl evaluate`; its `metrics` are numbers with `_low` and `_high` beside them.

        queries, ood: embedded images, or an embeddings folder. Raises MismatchError for another model.
        """
        from index.evaluation.dataset import read_dataset
        from index.evaluation.evaluate import Settings, SideData, evaluate

        settings = Settings(k=k, distance=distance, max_risk=max_risk, resamples=resamples)
        side = None if ood is None else SideData(_dataset(ood))
        return evaluate(read_dataset(self.opened.place), _dataset(queries), settings, side)

    def close(self) -> None:
        """Let go of the gallery."""
        self.opened.close()

    def __len__(self) -> int:
        return len(self.opened)

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _dataset(images: Embedded | str | Path) -> Dataset:
    from index.evaluation.dataset import Dataset, read_dataset

    if not isinstance(images, Embedded):
        return read_dataset(images)
    if images.card is None:
        raise InputError(
            "found embedded images without the card of their model; embed them with: vssl.load(...)"
        )
    rows = images.rows()
    return Dataset("images in memory", rows.ids, rows.labels, rows.gaussians, images.card, images.model_id)
