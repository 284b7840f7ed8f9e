"""A source spec -> images with ids and labels, in a stable order.

Specs: a folder, one image file, `list:FILE` (one path a line; a file that ends in .jsonl has one
object `{"path", "id", "label"}` a line), `parquet:FILE` (image bytes in a column; a folder of
shards, a pattern or a range too),
`cifar10:DIR[:train|:test]`, `cifar100:DIR[...]`, `stl10:DIR[...]`, `hf-datasets:DIR_OR_NAME[:SPLIT]`
(`vssl.images.readers.hugging_face`), tar shards (`vssl.images.readers.archives`: `photos.tar`,
`shard-{000..012}.tar`) and URLs (`vssl.images.readers.remote`: `s3://bucket/photos`).

The id of a file is its path below the folder, with `/`; its label is the name of the folder
that holds it, and none at the top. Folders are walked in numeric-aware order (`img_2` before
`img_10`). Hidden files and folders are passed over, and so is what systems leave behind
(vssl.files.LEFTOVERS); links to files are followed, links to folders are not. Every other file is an
item: what is no image is reported when it is read, and so is a folder that may not be listed.
"""

from __future__ import annotations

from difflib import get_close_matches
from itertools import islice
from pathlib import Path

from vssl.errors import InputError, shown, shown_path
from vssl.files import user_path
from vssl.images.items import ImageSource
from vssl.images.readers.folders import open_file, open_folder, open_list

LOOKED_AT, LONGEST_NAME = 1000, 80
"""Entries of a folder that a file of another name may be taken for, and characters of a name to compare."""


def open_source(spec: str | Path) -> ImageSource:
    """Open a source by its spec (module docstring). Raises InputError when there is nothing there.

    Readers are imported when a spec asks for them: pyarrow and fsspec take their time.
    """
    text = str(spec)
    kind, _, rest = text.partition(":")
    if kind == "list" and rest:
        return open_list(user_path(rest))
    if kind in ("cifar10", "cifar100", "stl10", "parquet") and rest:
        return _open_dataset(kind, rest)
    if kind == "hf-datasets" and rest:
        from vssl.images.readers.hugging_face import open_hugging_face

        return open_hugging_face(rest)
    if "://" in text:
        from vssl.images.readers.remote import open_remote

        return open_remote(text)
    from vssl.images.readers.archives import is_tar, local_shards, open_shards

    if text.startswith("data:"):
        raise InputError(
            f"found the data URI {shown(text)}, expected a path: write its bytes to a file, or send it to the "
            "server (POST /v1/embeddings)"
        )
    path = user_path(text)
    if path.is_dir():
        return open_folder(path)
    if is_tar(text):
        return open_shards(local_shards(text))
    if path.suffix == ".parquet" and path.is_file():
        return _open_dataset("parquet", text)
    if path.is_file():
        return open_file(path)
    found = "a pipe or a device" if path.exists() else f"no such file or folder{_beside(path)}"
    raise InputError(
        f"no images at {shown_path(text)}: found {found}; expected an image folder, "
        "an image file, list:FILE, parquet:FILE, hf-datasets:DIR, cifar10:DIR, cifar100:DIR, stl10:DIR, tar shards "
        "or a URL"
    )


def check_outside(out: Path, images: str | Path) -> None:
    """Refuse an output within the folder of its images: whoever reads that again would find it among them."""
    try:
        folder, target = user_path(images).resolve(), out.resolve()
    except InputError:  # a spec that is no path
        return
    if folder.is_dir() and target.is_relative_to(folder):
        raise InputError(f"{out} lies inside {images}; choose an output folder outside of the images")


def _beside(path: Path) -> str:
    """Return what lies where a file was looked for, and is named most like it; nothing where no folder is there."""
    try:
        names = [entry.name for entry in islice(path.parent.iterdir(), LOOKED_AT)]
    except (OSError, ValueError):
        return ""
    alike = get_close_matches(path.name, names, n=1) or sorted(n for n in names if not n.startswith("."))[:1]
    return f" (there is {str(path.parent / alike[0])!r})" if alike and len(path.name) < LONGEST_NAME else ""


def _open_dataset(kind: str, rest: str) -> ImageSource:
    if kind == "parquet":
        from vssl.images.readers.parquet import ParquetSource, parquet_files

        return ParquetSource(parquet_files(rest))
    if kind == "stl10":
        from vssl.images.readers.stl10 import open_stl10

        return open_stl10(rest)
    from vssl.images.readers.cifar import open_cifar

    return open_cifar(kind, rest)
