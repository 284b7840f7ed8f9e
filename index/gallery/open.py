"""Where a gallery is -> the gallery: a folder, or `milvus:URI#NAME`.

URI is a server's address (`http://host:19530`) or the path of a Milvus Lite file. A move copies
every item with its metadata, raw Gaussian, fitted constants and match calibration.
"""

from __future__ import annotations

from pathlib import Path

from index.gallery.folder.gallery import FolderGallery, check_outside
from index.gallery.folder.store import STORE
from index.gallery.milvus.gallery import MilvusGallery
from index.gallery.protocol import Gallery
from vssl.errors import ExistsError, InputError
from vssl.files import require_local

SCHEME = "milvus:"


def is_gallery(place: str | Path) -> bool:
    """Say whether a place is a gallery's: in Milvus, or a folder that holds one."""
    return str(place).startswith(SCHEME) or (Path(place) / STORE).is_file()


def open_gallery(place: str | Path, *, read_only: bool = False, device: str = "auto") -> Gallery:
    """Open a gallery wherever it is. Raises InputError when it is not there.

    device: where a folder's exact searches run (`FolderGallery.open`); Milvus searches where it runs.
    """
    if str(place).startswith(SCHEME):
        return MilvusGallery.open(*_address(str(place)), read_only=read_only)
    return FolderGallery.open(Path(place), read_only=read_only, device=device)


def move_gallery(source: str, target: str, *, distance: str | None = None, overwrite: bool = False) -> int:
    """Copy a gallery from one place to another; returns the number of items.

    distance: the copy's own distance, the source's by default. The source stays. Raises
    ExistsError when something is at `target` (a folder is never overwritten).
    """
    with open_gallery(source, read_only=True) as old:
        own = distance or old.distance
        fitting = old.fitting
        if fitting is not None and own != fitting.distance:
            fitting = fitting.renamed(own)
        rows, metadata = old.contents()
        if target.startswith(SCHEME):
            uri, name = _address(target)
            with MilvusGallery.create(
                uri,
                name,
                card=old.card,
                model_id=old.model_id,
                distance=own,
                normalise=old.normalise,
                overwrite=overwrite,
                fitting=fitting,
            ) as remote:
                remote.add(rows, metadata=metadata)
                match = old.match_model(own)
                if match is not None:
                    remote.set_match(own, match)
                return len(remote)
        require_local(Path(target))
        if not source.startswith(SCHEME):
            check_outside(Path(target), Path(source))
        if Path(target).exists():
            raise ExistsError(f"{target} exists already; choose another folder")
        with FolderGallery.create(
            Path(target), card=old.card, model_id=old.model_id, distance=own, normalise=old.normalise
        ) as local:
            local.add(rows, metadata=metadata)
            if fitting is not None:
                local.adopt(fitting.moved(local.generation, len(local)))
            return len(local)


def _address(place: str) -> tuple[str, str]:
    uri, found, name = place.removeprefix(SCHEME).rpartition("#")
    if not found or not uri or not name.replace("_", "a").isalnum() or name[0].isdigit():
        raise InputError(
            f"found {place!r}, expected milvus:URI#NAME with a name of letters, digits and '_', such as "
            "milvus:http://localhost:19530#photos or milvus:./photos.db#photos"
        )
    return uri, name
