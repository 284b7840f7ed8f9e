"""Embeddings that another tool made, in one file -> rows like those of an embeddings folder.

    FILE.npy       means (N, D)
    FILE.npz       arrays `mean` or `embedding` (N, D), and if wanted `variance` (N, D), `id`, `label`, `path` (N,)
    FILE.parquet   columns of the same names; vectors are lists of one length

Without ids, an id is the number of the row. Nothing says which model made the numbers: such rows belong
together when their dimension is the same and both, or neither, have variances, and their model id says that.
Shape letters: N rows, D embedding dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vssl.embeddings.gaussian import Floats, GaussianEmbedding
from vssl.embeddings.store import Rows, iter_parts, read_embeddings
from vssl.errors import InputError, raise_lack, shown_path
from vssl.images.preprocess import Preprocess
from vssl.model.card import Calibration, ModelCard

SUFFIXES = (".npy", ".npz", ".parquet")
EXPECTED = "expected `mean` or `embedding`, and if wanted `variance`, `id`, `label` and `path`"
BLOCK = 50_000  # rows at once
Part = tuple[Rows, ModelCard, str]
Block = Mapping[str, Any]


def is_array_file(place: Path) -> bool:
    """Say whether a place is a file of embeddings by its name, and no folder."""
    return place.suffix in SUFFIXES and not place.is_dir()


def iter_embeddings(place: Path) -> Iterator[Part]:
    """Yield (rows, card, model id) of an embeddings folder, part by part, or of a file of embeddings, block by block.

    Raises InputError for a file that holds no embeddings, and what `iter_parts` raises for a folder.
    """
    return _iter_file(place) if is_array_file(place) else iter_parts(place)


def read_rows(place: Path) -> Part:
    """Read a whole embeddings folder, or file of embeddings. Raises as `iter_embeddings` does."""
    if not is_array_file(place):
        stored = read_embeddings(place)
        return stored.rows, stored.card, stored.model_id
    parts = list(_iter_file(place))
    return (Rows.concatenate([rows for rows, _, _ in parts]), *parts[0][1:])


def card_of(dim: int, *, variances: bool) -> tuple[ModelCard, str]:
    """Return the card and the model id of embeddings from elsewhere."""
    name = f"{dim} dimensions from elsewhere, {'with' if variances else 'without'} variances"
    card = ModelCard(
        name=name,
        method="elsewhere",
        backbone="unknown",
        space="features",
        dim=dim,
        feature_dim=dim,
        preprocess=Preprocess(size=1, resize=1),  # nobody knows; nothing reads it without a model
        calibration=Calibration(kind="none" if variances else "absent"),
    )
    return card, f"{'gaussians' if variances else 'means'}-{dim}"


def is_elsewhere(model_id: str) -> bool:
    """Say whether a model id is one of `card_of`."""
    return model_id.startswith(("means-", "gaussians-"))


def _iter_file(path: Path) -> Iterator[Part]:
    start, dim = 0, 0
    for block in _blocks(path):
        mean = _matrix(path, block, "mean" if "mean" in block else "embedding", start)
        dim = dim or mean.shape[1]
        if mean.shape[1] != dim:
            raise InputError(
                f"{path}: found vectors of {dim} and of {mean.shape[1]} numbers, expected one length"
            )
        gaussians = GaussianEmbedding.of_means(mean)
        if "variance" in block:
            gaussians = GaussianEmbedding(mean, _matrix(path, block, "variance", start))
        labels, paths = (_texts(path, block, name, len(mean)) for name in ("label", "path"))
        numbers = [str(start + i) for i in range(len(mean))]
        ids = [i or "" for i in _texts(path, block, "id", len(mean))] if "id" in block else numbers
        if "" in ids:
            row = start + ids.index("")
            raise InputError(f"{path}: row {row} has no id; give every row one, or leave out the ids")
        rows = Rows(ids, [p or "" for p in paths], labels, gaussians)
        yield rows, *card_of(dim, variances="variance" in block)
        start += len(mean)
    if not start:
        raise InputError(f"{path} holds no rows")


def _blocks(path: Path) -> Iterator[Block]:
    """Yield some thousands of rows at once: columns by name."""
    if not path.is_file():
        raise InputError(f"no embeddings at {shown_path(str(path))}: found no such file")
    try:
        if path.suffix == ".parquet":
            yield from _parquet_blocks(path)
            return
        held = np.load(path, mmap_mode="r" if path.suffix == ".npy" else None, allow_pickle=False)
        columns = {"mean": held} if isinstance(held, np.ndarray) else dict(held)
    except (OSError, ValueError, EOFError, pa.ArrowException) as error:
        raise_lack(error)
        pickled = (
            "Python objects are not read"
            if "pickle" in str(error) or "Python objects" in str(error)
            else error
        )
        raise InputError(f"{path} is not readable as {path.suffix} ({pickled}); {EXPECTED}") from error
    _check_names(path, list(columns))
    lengths = {name: len(np.atleast_1d(column)) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"{path}: found arrays of different lengths: {lengths}")
    for start in range(0, next(iter(lengths.values())), BLOCK):
        yield {name: column[start : start + BLOCK] for name, column in columns.items()}


def _parquet_blocks(path: Path) -> Iterator[Block]:
    with pq.ParquetFile(pa.memory_map(str(path))) as file:
        _check_names(path, file.schema_arrow.names)
        known = [
            n
            for n in file.schema_arrow.names
            if n in ("mean", "embedding", "variance", "id", "label", "path")
        ]
        for batch in file.iter_batches(BLOCK, columns=known):
            yield dict(zip(batch.schema.names, batch.columns, strict=True))


def _check_names(path: Path, names: Sequence[str]) -> None:
    if ("mean" in names) == ("embedding" in names):
        raise InputError(f"{path}: found {', '.join(names) or 'nothing'}; {EXPECTED}")


def _matrix(path: Path, block: Block, name: str, start: int) -> Floats:
    """Return a column of vectors as float32 (N, D); its first is row `start`. Raises InputError for anything else."""
    column: Any = block[name]
    if isinstance(column, pa.Array):
        column = _stacked(path, column, name)
    found = np.asarray(column)
    if found.ndim != 2 or not found.shape[1] or found.dtype.kind not in "fiu":
        raise InputError(
            f"{path}: {name}: found {found.dtype} of shape {found.shape}, expected numbers of shape (N, D)"
        )
    with np.errstate(over="ignore"):  # infinity is refused, with its row
        values = np.ascontiguousarray(found, np.float32)
    bad = ~np.isfinite(values) if name != "variance" else ~(np.isfinite(values) & (values > 0))
    if bad.any():
        row, place = np.unravel_index(int(bad.argmax()), bad.shape)
        wanted = "positive numbers" if name == "variance" else "finite numbers of float32"
        raise InputError(
            f"{path}: row {start + row}: {name}: found {found[row, place]}, expected {wanted} only"
        )
    return values


def _stacked(path: Path, column: pa.Array, name: str) -> NDArray[Any]:
    """Return lists of one length as (N, D)."""
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise InputError(f"{path}: {name}: found a column of {kind}, expected lists of numbers")
    lengths = pc.unique(pc.list_value_length(column)).to_pylist()
    if len(lengths) != 1 or None in lengths:
        raise InputError(
            f"{path}: {name}: found lists of {', '.join(map(str, lengths[:5]))} numbers, expected one length"
        )
    return np.asarray(pc.list_flatten(column).to_numpy(zero_copy_only=False)).reshape(len(column), lengths[0])


def _texts(path: Path, block: Block, name: str, count: int) -> list[str | None]:
    """Return a column of texts, or of whole numbers as texts; None where there is no value."""
    column = block.get(name)
    if column is None:
        return [None] * count
    values = column.to_pylist() if isinstance(column, pa.Array) else np.asarray(column).tolist()
    if len(values) != count or not all(isinstance(v, str | int | None) for v in values):
        raise InputError(f"{path}: {name}: expected {count} texts or whole numbers")
    return [None if v is None or v == "" else str(v) for v in values]
