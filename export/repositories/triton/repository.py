"""model.onnx -> one version of a model in a Triton model repository.

    REPOSITORY/NAME/config.pbtxt     shapes, batching, warm-up; card and golden pair of each version
    REPOSITORY/NAME/1/model.onnx     the file as it was exported, byte for byte
    REPOSITORY/NAME/1/model.py       for the Python backend only

Nothing is ever half there under its own name: a new model appears by one rename, and so does a
new version, once the configuration names its card.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from export.repositories.triton.config import BACKENDS, config_text, differences, model_ids, with_version
from vssl.errors import ExistsError, FormatError, InputError
from vssl.files import is_free, put_in_place, write_bytes
from vssl.model.card import CARD_KEY, GOLDEN_KEY, ModelCard
from vssl.model.golden import Golden
from vssl.model.identity import sha256_bytes
from vssl.model.seal import read_metadata, read_sealed

CONFIG = "config.pbtxt"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_PYTHON_MODEL = Path(__file__).with_name("backend.py")


@dataclass(frozen=True)
class RepositoryEntry:
    """Where a model stands in a repository; `added` is false when it stood there already."""

    path: Path
    name: str
    version: int
    model_id: str
    backend: str
    added: bool


def write_repository(
    model: Path,
    repository: Path,
    *,
    name: str | None = None,
    backend: str = "onnxruntime",
    overwrite: bool = False,
) -> RepositoryEntry:
    """Put a model file into a repository, as version 1 of a new model or the next version of one.

    name: the model's in the repository, the card's by default.
    backend: `onnxruntime`, or `python` for a Triton without that backend.
    overwrite: replace a model of this name that cannot take the file as one more version.

    A file that is there already is left alone. Raises InputError (no model, an unusable name),
    FormatError (a damaged model) or ExistsError (another model has the name).
    """
    if backend not in BACKENDS:
        raise InputError(f"backend: found {backend!r}, expected one of {', '.join(BACKENDS)}")
    data, card_text, golden_text = _read(model)
    card, model_id = ModelCard.from_json(card_text), sha256_bytes(data)
    Golden.from_json(golden_text)  # a repository that cannot be checked is not written
    name = _servable(name or card.name)
    target = repository / name
    versions, old = _versions(target), _config(target)
    if old is None and not is_free(target):
        raise ExistsError(
            f"{target} is there and is no model of a repository; choose another name with --name"
        )
    if old is not None:
        known = model_ids(old)
        reasons = differences(old, card, backend) if known else ["it was not written by vssl"]
        if not reasons:
            if same := [v for v in versions if known.get(v) == model_id]:
                return RepositoryEntry(target, name, same[-1], model_id, backend, added=False)
            version = max(versions, default=0) + 1
            text = with_version(old, version, model_id, card_text, golden_text, keep=versions)
            _add_version(target, version, text, data, backend)
            return RepositoryEntry(target, name, version, model_id, backend, added=True)
        if not overwrite:
            raise ExistsError(
                f"{target} holds another model ({'; '.join(reasons)}); choose another name with --name, or replace "
                "it with --overwrite"
            )
    text = config_text(name, card, backend)
    text = with_version(text, 1, model_id, card_text, golden_text, keep=())
    _put_model(target, text, data, backend)
    return RepositoryEntry(target, name, 1, model_id, backend, added=True)


def _servable(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InputError(
            f"name: found {name!r}, which Triton cannot serve; expected letters, digits, '.', '_' and '-'; "
            "give another: --name NAME"
        )
    return name


def _add_version(target: Path, version: int, config: str, data: bytes, backend: str) -> None:
    """Write the configuration first: whatever Triton loads next, its card is there."""
    with _staged(target) as staging:
        _fill(staging / str(version), data, backend)
        write_bytes(target / CONFIG, config.encode())
        put_in_place(staging / str(version), target / str(version))


def _put_model(target: Path, config: str, data: bytes, backend: str) -> None:
    """Write a whole model under a temporary name, then rename it into place; what was there is removed."""
    with _staged(target.parent) as staging:
        _fill(staging / target.name / "1", data, backend)
        write_bytes(staging / target.name / CONFIG, config.encode())
        if target.exists():
            target.rename(staging / "replaced")
        put_in_place(staging / target.name, target)


def _read(model: Path) -> tuple[bytes, str, str]:
    """Return the bytes, the card and the golden pair of an undamaged model file."""
    data = read_sealed(model)
    try:
        entries = read_metadata(data)
    except FormatError as error:
        raise FormatError(f"{model}: {error}") from error
    for key, what in ((CARD_KEY, "model card"), (GOLDEN_KEY, "golden pair")):
        if key not in entries:
            raise FormatError(f"{model} carries no {what}; export it with: vssl export RUN model.onnx")
    return data, entries[CARD_KEY], entries[GOLDEN_KEY]


def _versions(target: Path) -> list[int]:
    """Return the numbers of a model's version folders, ascending."""
    if not target.is_dir():
        return []
    return sorted(int(p.name) for p in target.iterdir() if p.is_dir() and p.name.isdecimal())


def _config(target: Path) -> str | None:
    """Return a model's configuration, or None where there is none."""
    try:
        return (target / CONFIG).read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None


@contextmanager
def _staged(parent: Path) -> Iterator[Path]:
    """Give a temporary folder next to its goal, on the same file system; it is removed at the end."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".vssl-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fill(folder: Path, data: bytes, backend: str) -> None:
    """Write a version folder and see it to the disk; it is readable by the user Triton runs as."""
    folder.mkdir(parents=True)
    files = {"model.onnx": data}
    if backend == "python":
        files["model.py"] = _PYTHON_MODEL.read_bytes()
    for name, content in files.items():
        write_bytes(folder / name, content)
