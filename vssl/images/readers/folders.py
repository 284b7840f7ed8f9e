"""A folder, one image file or a list of paths -> an ImageSource of files on this machine."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from vssl.errors import ImageError, InputError, shown, shown_path
from vssl.files import is_leftover, parse_json, read_text
from vssl.images.items import ImageItem, check_size, natural_key, one_text, printable


class FileSource:
    """Image files on disk."""

    def __init__(self, items: list[ImageItem], files: Sequence[Path | str]) -> None:
        self.items = items
        self._files = files

    def read(self, row: int) -> bytes:
        """Return the file's bytes; a pipe or a device is refused, and so is one that is too large."""
        try:
            # Without O_NONBLOCK, opening a pipe that nobody writes to would wait forever.
            handle = os.open(self._files[row], os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
            with os.fdopen(handle, "rb") as file:
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode):
                    raise ImageError("unreadable", "not a regular file")
                check_size(found.st_size)
                return file.read()
        except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
            reason = getattr(error, "strerror", None) or error
            raise ImageError("unreadable", f"cannot be read: {reason}") from error

    def stamp(self, row: int) -> str:
        """Return the file's size and time of change, empty when it is not there."""
        try:
            found = os.stat(self._files[row])  # noqa: PTH116
        except (OSError, ValueError):
            return ""
        return f"{found.st_size}:{found.st_mtime_ns}"


def open_file(path: Path) -> FileSource:
    """Return one image file as a source of one image without a label."""
    return FileSource([ImageItem(printable(path.name), None, printable(str(path.absolute())))], [path])


def open_folder(root: Path) -> FileSource:
    """List a folder of images and the folders below. Raises InputError when it holds no files."""
    # Plain strings: a million Path objects would take seconds and most of a gigabyte.
    base = os.path.join(os.path.abspath(root), "")  # noqa: PTH100, PTH118  # paths that hold from any folder
    files = list(_walk(base))
    if not files:
        raise InputError(
            f"no images in {str(root)!r}: the folder holds no files; expected a folder of images"
        )
    items = []
    for file in files:
        relative = file[len(base) :].replace(os.sep, "/")
        label = relative.rpartition("/")[0].rpartition("/")[2] or None
        items.append(ImageItem(printable(relative), label and printable(label), printable(file)))
    if len({item.id for item in items}) < len(items):
        twice = next(name for name, count in Counter(item.id for item in items).items() if count > 1)
        raise InputError(f"two names below {str(root)!r} read as {shown(twice)}: one is no UTF-8; rename it")
    return FileSource(items, files)


def _walk(base: str) -> Iterator[str]:
    """Files first, then folders, each in natural order; a folder that cannot be listed stands for itself."""
    folders = [base]  # no recursion: there is no bound to how deep folders nest
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as scanned:
                entries = [e for e in scanned if not e.name.startswith(".") and not is_leftover(e.name)]
        except OSError as error:
            if folder == base:
                raise InputError(f"cannot list {shown_path(folder)}: {error.strerror}") from error
            yield folder
            continue
        entries.sort(key=lambda e: (natural_key(e.name), e.name))
        inner = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False) and not _links_to_folder(entry):
                yield entry.path
        folders += [os.path.join(entry.path, "") for entry in reversed(inner)]  # noqa: PTH118


def _links_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_symlink() and entry.is_dir()
    except OSError:  # a link to itself, or to where one may not look: an item that cannot be read
        return False


def open_list(file: Path) -> FileSource:
    """Paths relative to the list's folder; in a plain list ids are the lines, labels their folders."""
    lines = read_text(file, "the list", errors="surrogateescape").split("\n")
    entries = [_entry(line, number, file) for number, line in enumerate(lines, 1) if line.strip()]
    if not entries:
        raise InputError(f"the list {str(file)!r} is empty; expected one image path a line")
    if len({id_ for _, id_, _ in entries}) != len(entries):
        raise InputError(f"the list {str(file)!r} names an id twice; expected each once")
    files = [file.absolute().parent / path for path, _, _ in entries]
    items = [
        ImageItem(id_, label, printable(str(path)))
        for (_, id_, label), path in zip(entries, files, strict=True)
    ]
    return FileSource(items, files)


def _entry(line: str, number: int, file: Path) -> tuple[str, str, str | None]:
    """One line -> (path, id, label)."""
    if file.suffix != ".jsonl":
        return line, printable(line), printable(Path(line).parent.name) or None
    try:
        entry = parse_json(line)
        path, id_, label = entry["path"], entry["id"], entry.get("label")
        for what, given in (("path", path), ("id", id_)):
            if not one_text(given, what):
                raise ValueError(f"the {what} is empty")
        return str(path), str(one_text(id_, "id")), one_text(label, "label")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f'{str(file)!r}: line {number}: found {shown(line)}, expected {{"path": ..., "id": ..., "label": ...}} '
            f"({reason})"
        ) from None
