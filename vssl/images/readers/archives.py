"""Tar shards -> an ImageSource that reads members in place, without unpacking.

A spec names one shard or many: `photos.tar`, `shards/*.tar`, `shard-{000..012}.tar`. Ids are the
members' names, with the shard's name before them when there are several shards, or its path when names
of shards repeat. Of two members of one name the later counts, as when unpacking; links stand for the
members that they name. In a WebDataset
shard the files of one sample share a key (the name up to its first dot): `0001.cls` next to
`0001.jpg` is its label, and whatever else belongs to an image is passed over. Elsewhere the label
is the folder's name, as for files on disk.
"""

from __future__ import annotations

import glob
import posixpath
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from vssl.errors import ImageError, InputError
from vssl.files import decoded_text, user_path
from vssl.images.formats import SUFFIXES
from vssl.images.items import ImageItem, check_size, expand, is_hidden, printable

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4", ".tar.Z")
OTHER_ARCHIVES = (".zip", ".7z", ".rar")
MAX_LINKS = 8  # links that name links
NOWHERE = -1  # where a link's target is, when it is not in the archive
LABEL_BYTES = 1024


@dataclass(frozen=True)
class Shard:
    """One tar file: its name for ids, path to show, size and stamp; how to open it and to read a range."""

    name: str
    path: str
    size: int
    stamp: str
    open: Callable[[], IO[bytes]]
    fetch: Callable[[int, int], bytes]


@dataclass(frozen=True)
class _Member:
    """target: the member that a link names; empty for a file."""

    name: str
    start: int
    size: int
    target: str = ""


class TarSource:
    """Members of tar shards, read by offset."""

    def __init__(
        self, items: list[ImageItem], places: list[tuple[Shard, int, int]], *, remote: bool = False
    ) -> None:
        """remote: whether reading waits on a network."""
        self.items = items
        self._places = places
        self.remote = remote

    def read(self, row: int) -> bytes:
        """Return the member's bytes; ImageError when it is too large or the shard cannot be read."""
        shard, start, size = self._places[row]
        if start == NOWHERE:
            raise ImageError("unreadable", "a link to what is not in the archive")
        check_size(size)
        try:
            return shard.fetch(start, start + size)
        except Exception as error:  # file systems of fsspec have errors of their own
            raise ImageError("unreadable", f"cannot be read: {error} ({type(error).__name__})") from error

    def stamp(self, row: int) -> str:
        """Return what changes when the member changes: its shard's stamp, its place and size."""
        shard, start, size = self._places[row]
        return f"{shard.stamp}:{start}:{size}"


def is_tar(spec: str) -> bool:
    """Return whether a spec names tar shards; refuses other archives, which cannot be read in place."""
    if spec.endswith(COMPRESSED):
        raise InputError(
            f"{spec!r} is a compressed archive, which has no random access; expected a plain .tar "
            "(images hardly compress): unpack it, or pack it again with: tar cf"
        )
    if spec.lower().endswith(OTHER_ARCHIVES):
        raise InputError(
            f"{spec!r} is an archive that is not read in place; expected a folder or a .tar: unpack it"
        )
    return spec.endswith(".tar")


def local_shards(spec: str) -> list[Shard]:
    """Return the shards on this machine that a spec names, in order; InputError when there are none."""
    paths = []
    for pattern in expand(str(user_path(spec))):
        paths += [pattern] if Path(pattern).is_file() else sorted(glob.glob(pattern))  # noqa: PTH207
    if not paths:
        raise InputError(
            f"no tar file at {spec!r}; expected a file, a pattern (*.tar) or a range ({{000..012}})"
        )
    shards = []
    for path in map(Path, paths):
        found = path.stat()
        stamp = f"{found.st_size}:{found.st_mtime_ns}"
        shown = printable(str(path))
        shards.append(
            Shard(path.name, shown, found.st_size, stamp, partial(_open, path), partial(_fetch, path))
        )
    return shards


def open_shards(shards: Sequence[Shard], *, remote: bool = False) -> TarSource:
    """List the images of shards. Raises InputError for a shard that is damaged or cut short."""
    items: dict[str, ImageItem] = {}
    places: dict[str, tuple[Shard, int, int]] = {}
    alike = len({shard.name for shard in shards}) < len(shards)
    for shard in shards:
        members, labels = _scan(shard)
        keyed = {_key(m.name) for m in members if _suffix(m.name) in SUFFIXES}
        for member in members:
            key, shown = _key(member.name), printable(member.name)
            if _suffix(member.name) not in SUFFIXES and key in keyed:
                continue  # belongs to an image
            label = labels.get(key) or printable(PurePosixPath(member.name).parent.name) or None
            name = shown if len(shards) == 1 else f"{shard.path if alike else shard.name}/{shown}"
            items[name] = ImageItem(name, label, f"{shard.path}/{shown}")
            places[name] = (shard, member.start, member.size)
    if not items:
        raise InputError(f"{', '.join(s.path for s in shards[:3])}: found no files in the archive")
    return TarSource(list(items.values()), list(places.values()), remote=remote)


def _scan(shard: Shard) -> tuple[list[_Member], dict[str, str]]:
    """Read a shard's headers -> its files and the labels of its .cls members by key."""
    members, labels = [], {}
    try:
        with shard.open() as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for info in _infos(tar):
                if is_hidden(PurePosixPath(info.name)):
                    continue
                if info.islnk() or info.issym():
                    folder = "" if info.islnk() else posixpath.dirname(info.name)
                    target = posixpath.normpath(posixpath.join(folder, info.linkname))
                    members.append(_Member(info.name, NOWHERE, 0, target))
                    continue
                if not info.isreg():
                    continue
                if info.offset_data + info.size > shard.size:
                    raise InputError(f"{shard.path} is cut short within {info.name!r}; fetch it again")
                if _suffix(info.name) == "cls" and info.size <= LABEL_BYTES:
                    text = tar.extractfile(info)
                    labels[_key(info.name)] = _label(
                        text.read() if text else b"", f"{shard.path}/{info.name}"
                    )
                members.append(_Member(info.name, info.offset_data, info.size))
            # tarfile takes a damaged header for the end; the true end is a block of zeros.
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise InputError(
                    f"{shard.path} is cut short or damaged after {len(members)} members; fetch it again"
                )
    except (tarfile.TarError, OSError) as error:
        raise InputError(
            f"{shard.path} is no readable tar file after {len(members)} members: {error}; fetch it again"
        ) from error
    return list(_followed(members)), labels


def _label(data: bytes, path: str) -> str:
    """Return the label that a .cls member holds, in whichever encoding an editor saved it."""
    try:
        label = decoded_text(data, "replace").strip()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text: {error.reason}; save it as UTF-8") from None
    if "\0" in label:
        raise InputError(f"{path} holds zero bytes and is no text; save it as UTF-8")
    return label


def _followed(members: Sequence[_Member]) -> Iterator[_Member]:
    """Put links where their targets are; what no image could be named after and leads nowhere is left out."""
    known = {posixpath.normpath(member.name): member for member in members}
    for member in members:
        found = member
        for _ in range(MAX_LINKS):
            if not found.target:
                break
            found = known.get(found.target, found)
        if not found.target:
            yield _Member(member.name, found.start, found.size)
        elif _suffix(member.name) in SUFFIXES:
            yield _Member(member.name, NOWHERE, 0)


def _infos(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (info := tar.next()) is not None:
        yield info
        tar.members = []  # type: ignore[attr-defined]  # tarfile keeps every header it has seen


def _open(path: Path) -> IO[bytes]:
    return path.open("rb")


def _fetch(path: Path, start: int, stop: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(stop - start)


def _key(name: str) -> str:
    """Return a WebDataset key: the path with the name up to its first dot."""
    path = PurePosixPath(name)
    return str(path.parent / path.name.partition(".")[0])


def _suffix(name: str) -> str:
    return PurePosixPath(name).name.rpartition(".")[2].lower()
