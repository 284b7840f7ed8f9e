"""Embedded images -> a gallery that is searched, grows and is evaluated, in a few calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vssl.embeddings.batch import Embedded
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.errors import (
    ExistsError,
    InputError,
    require,
    require_path,
    require_real,
    require_text,
    require_whole,
)

if TYPE_CHECKING:
    from index.answers.results import SearchResult
    from index.evaluation.dataset import Dataset
    from index.gallery.protocol import Gallery as AnyGallery


class Gallery:
    """A gallery of embedded images: a folder, or a collection in Milvus. Close it, or use it in a `with` block."""

    def __init__(self, opened: AnyGallery) -> None:
        self._opened, self._place, self._closed = opened, opened.place, False

    @property
    def opened(self) -> AnyGallery:
        """The gallery itself, with all that it can do (`index.gallery.protocol.Gallery`).

        Raises InputError once it is closed.
        """
        if self._closed:
            raise InputError(f"{self._place} is closed; open it again: vssl.Gallery.open({self._place!r})")
        return self._opened

    @classmethod
    def open(cls, place: str | Path, *, read_only: bool = False) -> Gallery:
        """Open a gallery folder or `milvus:URI#NAME`. Raises InputError when it is not there."""
        from index.gallery.open import open_gallery

        require_path(place=place)
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

        require_path(path=path)
        require_text(distance=distance)
        require("normalise", normalise, "True or False", bool)
        path = Path(path)
        _require_embedded(images, str, Path)
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
        self, images: Embedded, *, metadata: Iterable[Mapping[str, Any]] | None = None, replace: bool = False
    ) -> None:
        """Add embedded images durably; their names are their ids.

        metadata: one flat mapping an image, for `where`. Raises ExistsError for an id that is there
        when `replace` is false, MismatchError for images of another model.
        """
        _require_embedded(images)
        require("replace", replace, "True or False", bool)
        if metadata is not None:
            require("metadata", metadata, "a list of one mapping an image", Iterable)
            metadata = list(metadata)
            for entry in metadata:
                require("metadata", entry, "one mapping an image; pass [{'year': 2026}, ...]", Mapping)
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
        _require_embedded(queries, GaussianEmbedding)
        require_whole(k=k)
        require_text(distance=distance)
        require_real(max_uncertainty=max_uncertainty, max_risk=max_risk)
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

        require_whole(k=k, resamples=resamples)
        require_text(distance=distance)
        require_real(max_risk=max_risk)
        settings = Settings(k=k, distance=distance, max_risk=max_risk, resamples=resamples)
        side = None if ood is None else SideData(_dataset(ood))
        return evaluate(read_dataset(self.opened.place), _dataset(queries), settings, side)

    def close(self) -> None:
        """Let go of the gallery; a second time does nothing."""
        if not self._closed:
            self._closed = True
            self._opened.close()

    def __len__(self) -> int:
        return len(self.opened)

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _require_embedded(images: object, *also: type) -> None:
    """Refuse images that are not embedded, such as a list of paths; kinds in `also` are taken too."""
    if not isinstance(images, (Embedded, *also)):
        found = type(images).__name__
        raise InputError(f"found {found}, expected embedded images: vssl.load().embed([...]) returns them")


def _dataset(images: Embedded | str | Path) -> Dataset:
    from index.evaluation.dataset import Dataset, read_dataset

    _require_embedded(images, str, Path)
    if not isinstance(images, Embedded):
        return read_dataset(images)
    if images.card is None:
        raise InputError(
            "found embedded images without the card of their model; embed them with: vssl.load(...)"
        )
    rows = images.rows()
    return Dataset("images in memory", rows.ids, rows.labels, rows.gaussians, images.card, images.model_id)
