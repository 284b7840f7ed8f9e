"""`hf-datasets:DIR_OR_NAME[:SPLIT]` -> an ImageSource: a data set of Hugging Face from a copy on this machine.

DIR is what `save_to_disk` wrote, or a folder that `load_dataset` reads; NAME is in its cache. Nothing is
fetched.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vssl.errors import ImageError, InputError, MissingExtraError, shown
from vssl.files import user_path
from vssl.images.items import ImageItem, one_text
from vssl.images.readers.parquet import IMAGES, LABELS

FIRST = "train"  # the split that is read unless another is named


class HuggingFaceSource:
    """Pictures of one split, as the bytes that it stores.

    Ids are the stored paths where all are present and differ, else `SPLIT/ROW`.
    """

    def __init__(self, dataset: Any, spec: str, split: str) -> None:
        import datasets

        pictures = [n for n, kind in dataset.features.items() if isinstance(kind, datasets.Image)]
        usual = [name for name in (*IMAGES, *pictures) if name in pictures]
        if not usual:
            raise InputError(f"{spec}: found the columns {list(dataset.features)}, none of pictures")
        self._column = usual[0]
        self._rows = dataset.cast_column(self._column, datasets.Image(decode=False))
        label = next((name for name in LABELS if name in dataset.features), None)
        names = getattr(dataset.features[label], "names", None) if label else None
        labels = self._rows[label][:] if label else [None] * len(self._rows)
        known = [names[value] if names and value is not None and value >= 0 else value for value in labels]
        # As Arrow, so that the bytes beside the paths stay on the disk.
        stored = self._rows.select_columns([self._column]).with_format("arrow")[:].column(self._column)
        paths = [path for chunk in stored.chunks for path in chunk.field("path").to_pylist()]
        unique = all(paths) and len(set(paths)) == len(paths)
        self.items = [
            ImageItem(
                paths[row] if unique else f"{split}/{row}", one_text(value, "label"), f"{spec}:{split}#{row}"
            )
            for row, value in enumerate(known)
        ]

    def read(self, row: int) -> bytes:
        """Return the encoded bytes of one row; raises ImageError where there are none."""
        value = self._rows[row][self._column] or {}
        try:
            data: bytes | None = value.get("bytes") or (
                Path(value["path"]).read_bytes() if value.get("path") else None
            )
        except OSError as error:
            raise ImageError("unreadable", f"cannot be read: {error.strerror}") from error
        if data is None:
            raise ImageError("unreadable", "the row holds no image bytes")
        return data


def open_hugging_face(rest: str) -> HuggingFaceSource:
    """Open `DIR_OR_NAME` or `DIR_OR_NAME:SPLIT`. Raises InputError where there is no copy on this machine."""
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise MissingExtraError("datasets", "hf") from error
    place, split = rest, None
    if not user_path(rest).exists() and ":" in rest:
        place, _, split = rest.rpartition(":")
    found = _load(datasets, place)
    if isinstance(found, datasets.DatasetDict):
        split = split or (FIRST if FIRST in found else next(iter(found)))
        if split not in found:
            raise InputError(f"hf-datasets:{place}: found the splits {list(found)}, not {shown(split)}")
        found = found[split]
    return HuggingFaceSource(found, f"hf-datasets:{place}", split or str(found.split or FIRST))


def _load(datasets: Any, place: str) -> Any:
    folder = user_path(place)
    try:
        if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
            return datasets.load_from_disk(str(folder))
        local = datasets.DownloadConfig(local_files_only=True)
        return datasets.load_dataset(str(folder) if folder.is_dir() else place, download_config=local)
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"hf-datasets: no data set at {shown(place)} ({reason}); expected a folder that save_to_disk wrote, one "
            "that load_dataset reads, or a name in its cache; append :SPLIT for another split"
        ) from None
