"""A URL (s3://, gs://, az://, memory://, ...) -> an ImageSource, through fsspec.

Folders, single files and tar shards in object stores list in the order, with the ids and labels,
that the same files have on a disk. fsspec brings the protocols: `pip install s3fs` for s3://,
`gcsfs` for gs://. Reading waits on the network, so extraction runs more threads over such a source.
"""

from __future__ import annotations

from functools import partial
from pathlib import PurePosixPath
from typing import Any, cast

from vssl.errors import ImageError, InputError, MissingExtraError
from vssl.images.items import ImageItem, ImageSource, check_size, expand, is_hidden, natural_key, printable
from vssl.images.readers.archives import Shard, TarSource, is_tar, open_shards


class RemoteSource:
    """Files behind an fsspec file system."""

    remote = True

    def __init__(self, items: list[ImageItem], files: list[dict[str, Any]], system: Any) -> None:
        self.items = items
        self._files = files
        self._system = system

    def read(self, row: int) -> bytes:
        """Return the object's bytes; ImageError when it is too large or cannot be fetched."""
        info = self._files[row]
        check_size(info.get("size") or 0)
        try:
            return cast(bytes, self._system.cat_file(info["name"]))
        except Exception as error:  # each protocol has its own
            raise ImageError("unreadable", f"cannot be fetched: {error} ({type(error).__name__})") from error

    def stamp(self, row: int) -> str:
        """Return what changes when the object changes: its size and tag or time."""
        return _stamp(self._files[row])


def open_remote(url: str) -> ImageSource:
    """Open a URL. Raises InputError when there is nothing there or the protocol is not installed."""
    try:
        import fsspec  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise MissingExtraError("fsspec", "cpu") from error
    try:
        system, path = fsspec.core.url_to_fs(url)
        if is_tar(url):
            return _tars(system, path, url)
        found = system.find(path, detail=True)
    except (ImportError, ValueError) as error:
        raise InputError(f"cannot open {url!r}: {error}") from error
    except OSError as error:
        raise InputError(f"cannot list {url!r}: {error}") from error
    files = [info for info in found.values() if info.get("type") == "file"]
    scheme = url.partition("://")[0]
    root, items, kept = path.strip("/"), [], []
    for info in files:
        full = info["name"].strip("/")
        relative = PurePosixPath(full[len(root) :].strip("/") or PurePosixPath(full).name)
        if is_hidden(relative):
            continue
        label = printable(relative.parent.name) or None
        items.append(ImageItem(printable(relative.as_posix()), label, printable(f"{scheme}://{full}")))
        kept.append(info)
    if not items:
        raise InputError(f"no images at {url!r}: found no files there; expected a folder or a file")
    order = sorted(range(len(items)), key=lambda row: walk_key(items[row].id))
    return RemoteSource([items[row] for row in order], [kept[row] for row in order], system)


def walk_key(name: str) -> tuple[Any, ...]:
    """Return a key that sorts paths as a folder is walked: files first, then folders, in natural order."""
    parts = name.split("/")
    return tuple((depth < len(parts) - 1, natural_key(part), part) for depth, part in enumerate(parts))


def _tars(system: Any, path: str, url: str) -> TarSource:
    names = [name for pattern in expand(path) for name in sorted(system.glob(pattern))]
    if not names:
        raise InputError(
            f"no tar file at {url!r}; expected a file, a pattern (*.tar) or a range ({{000..012}})"
        )
    scheme, shards = url.partition("://")[0], []
    for name in names:
        info = system.info(name)
        shown = f"{scheme}://{name.lstrip('/')}"
        shards.append(
            Shard(
                PurePosixPath(name).name,
                shown,
                info["size"],
                _stamp(info),
                partial(system.open, name, "rb"),
                partial(system.cat_file, name),
            )
        )
    return open_shards(shards, remote=True)


def _stamp(info: dict[str, Any]) -> str:
    known = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "created")
    tag = next((info[key] for key in known if info.get(key)), "")
    return f"{info.get('size')}:{tag}"
