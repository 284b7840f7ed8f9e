"""The path recorded for an item, and the folders that pictures may come from -> the bytes of its file, or why not.

A gallery names files by absolute path, and may have been made by someone else. With folders given
(`vssl serve --images FOLDER`), only files that truly lie below one of them are read. Without, a file must
truly lie in the folder that its own path names: no link leads out of it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from serve.http.errors import RequestError
from vssl.errors import ImageError, shown
from vssl.images.readers.folders import open_file

if TYPE_CHECKING:
    from serve.http.state import Runtime


def check_paths_told(runtime: Runtime, param: str) -> None:
    """Raise RequestError 403 where the operator shows no pictures: then nothing says where their files lie."""
    if not runtime.settings.show_images:
        raise RequestError(
            403,
            "images_hidden",
            f"{param}: this server does not say where its images lie; start it with: vssl serve --show-images",
            param=param,
        )


def read_picture(id_: str, path: str, folders: Sequence[Path]) -> bytes:
    """Return the bytes of the file recorded for an item; raises RequestError 404 that says why there is none."""
    if not path:
        raise no_picture(id_, "its picture was sent, and not kept")
    file = true_place(path)
    allowed = folders or [source_folder(id_, path)]
    if file is None or not any(file.is_relative_to(true_place(folder) or folder) for folder in allowed):
        reason = (
            "its file lies outside of the folders that this server shows pictures of; name its folder as well: "
            if folders
            else "its file is a link that leads out of the folder it was embedded from; name the folder it leads to: "
        )
        raise no_picture(id_, reason + "vssl serve --images FOLDER")
    try:
        return open_file(file).read(0)
    except ImageError as error:
        if Path(path).is_absolute():
            raise no_picture(id_, f"the file it was embedded from {error}") from None
        raise no_picture(
            id_,
            f"the file {shown(path)}, looked for in the folder that the server was started in, {error}; start it "
            "where the images were extracted, or extract them again",
        ) from None


def source_folder(id_: str, path: str) -> Path:
    """Return the folder that an item was embedded from, as far as its id and its path tell.

    >>> source_folder("cats/1.jpg", "/photos/cats/1.jpg").as_posix()
    '/photos'
    >>> source_folder("first", "/photos/cats/1.jpg").as_posix()
    '/photos/cats'
    """
    given = Path(path)
    root = given.as_posix().removesuffix(f"/{id_}")
    if ".." in given.parts or root in ("", given.as_posix()):
        return given.parent
    return Path(root)


def true_place(path: str | Path) -> Path | None:
    """Return where a path leads, with every link followed; None for one that no file can have."""
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError):  # a zero byte, or a name that is too long
        return None


def no_picture(id_: str, reason: str) -> RequestError:
    """Return the 404 of an item without a file to show."""
    return RequestError(404, "no_image", f"{shown(id_)} cannot be shown: {reason}", param="id")
