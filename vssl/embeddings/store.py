"""Gaussian embeddings <-> a folder of Parquet parts that any Parquet reader opens.

    embeddings/
      part-00000.parquet ...   id, path, label, mean, variance, uncertainty, optional features,
                               sha256 of the file, and image, the file itself
      failures.parquet         path, reason, error
      manifest.json            written last (vssl.embeddings.manifest): a folder without it is unfinished

Parts are written under a temporary name and renamed, so a part that exists is whole. The schema's metadata
carries the ModelCard, the model id, and what `datasets` reads (vssl.embeddings.hugging_face).
Shape letters: N rows, D embedding dimension, F feature dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vssl.embeddings.gaussian import Floats, GaussianEmbedding
from vssl.embeddings.hugging_face import PICTURE, features_entry
from vssl.embeddings.manifest import FAILURES, read_file, read_manifest
from vssl.errors import FormatError, InputError, MismatchError, raise_lack
from vssl.files import atomic_write
from vssl.model.card import CARD_KEY, ModelCard

FORMAT_KEY = "vssl.format"
STORE_FORMAT = 1  # of a part; a folder's is in vssl.embeddings.manifest
MODEL_ID_KEY = "vssl.model_id"
DTYPES = ("float32", "float16")
REPEATED = ["label", "reason", "error"]  # columns whose values come again and again
FAILURE_SCHEMA = pa.schema([("path", pa.string()), ("reason", pa.string()), ("error", pa.string())])


@dataclass(frozen=True)
class Failure:
    """One image that could not be embedded: path, reason for a person, error code."""

    path: str
    reason: str
    error: str


@dataclass(frozen=True, eq=False)
class Rows:
    """N embedded images: ids, paths and labels of length N, and their Gaussians.

    features (N, F), digests (the sha256 of each file, hex) and pictures (the bytes of each file) are optional.
    """

    ids: list[str]
    paths: list[str]
    labels: list[str | None]
    gaussians: GaussianEmbedding
    features: Floats | None = None
    digests: list[str] | None = None
    pictures: list[bytes] | None = None

    def __post_init__(self) -> None:
        optional = (self.features, self.digests, self.pictures)
        columns = (self.ids, self.paths, self.labels, self.gaussians, *optional)
        lengths = {len(column) for column in columns if column is not None}
        if len(lengths) != 1:
            raise InputError(f"rows: columns differ in length: {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, which: Sequence[int]) -> Rows:
        """Return the rows at these places, in this order."""
        places = np.asarray(which, dtype=np.int64)
        return Rows(
            [self.ids[i] for i in which],
            [self.paths[i] for i in which],
            [self.labels[i] for i in which],
            self.gaussians[places],
            None if self.features is None else self.features[places],
            None if self.digests is None else [self.digests[i] for i in which],
            None if self.pictures is None else [self.pictures[i] for i in which],
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Rows]) -> Rows:
        """Stack rows; an optional column is there when every part has it."""
        features = [r.features for r in parts if r.features is not None]
        digests = [r.digests for r in parts if r.digests is not None]
        pictures = [r.pictures for r in parts if r.pictures is not None]
        return cls(
            [i for r in parts for i in r.ids],
            [p for r in parts for p in r.paths],
            [x for r in parts for x in r.labels],
            GaussianEmbedding.concatenate([r.gaussians for r in parts]),
            np.concatenate(features) if len(features) == len(parts) else None,
            [d for column in digests for d in column] if len(digests) == len(parts) else None,
            [p for column in pictures for p in column] if len(pictures) == len(parts) else None,
        )


@dataclass(frozen=True, eq=False)
class Embeddings:
    """A whole embeddings folder in memory."""

    rows: Rows
    card: ModelCard
    model_id: str
    failures: list[Failure]
    manifest: dict[str, Any]


def to_table(rows: Rows, card: ModelCard, model_id: str, *, dtype: str = "float32") -> pa.Table:
    """Return rows as the Arrow table of a part, with the card and the model id in its metadata.

    dtype: of mean, variance and features, `float32` or `float16`. Raises InputError for `float16` when a mean or a
    feature exceeds its largest number (65504) or a variance lies outside of its normal numbers (6.1e-5 to
    65504), below which it would keep fewer than its 11 bits.
    """
    if dtype == "float16":
        _check_range(rows)
        mean, variance = (
            a.astype(np.float16).astype(np.float32) for a in (rows.gaussians.mean, rows.gaussians.variance)
        )
        # An uncertainty that is derived is that of the numbers as they are stored.
        predicted = rows.gaussians.predicted_uncertainty
        rows = replace(rows, gaussians=GaussianEmbedding(mean, variance, predicted))

    def matrix(values: NDArray[np.float32], width: int) -> pa.Array:
        flat = values.reshape(-1).astype(dtype)
        return pa.FixedSizeListArray.from_arrays(pa.array(flat), width)

    columns = {
        "id": pa.array(rows.ids, pa.string()),
        "path": pa.array(rows.paths, pa.string()),
        "label": pa.array(rows.labels, pa.string()),
        "mean": matrix(rows.gaussians.mean, card.dim),
        "variance": matrix(rows.gaussians.variance, card.dim),
        "uncertainty": pa.array(rows.gaussians.uncertainty, pa.float32()),
    }
    if rows.features is not None:
        columns["features"] = matrix(rows.features, card.feature_dim)
    if rows.digests is not None:
        columns["sha256"] = pa.array(rows.digests, pa.string())
    if rows.pictures is not None:
        files = [pa.array(rows.pictures, pa.binary()), columns["path"]]
        columns["image"] = pa.StructArray.from_arrays(files, fields=list(PICTURE))
    table = pa.table(columns)
    metadata = {CARD_KEY: card.to_json(), MODEL_ID_KEY: model_id, FORMAT_KEY: str(STORE_FORMAT)}
    return table.replace_schema_metadata({**metadata, **features_entry(table.schema)})


def _check_range(rows: Rows) -> None:
    half = np.finfo(np.float16)
    smallest, largest = float(half.smallest_normal), float(half.max)
    variance = rows.gaussians.variance
    too_large = np.abs(rows.gaussians.mean).max(axis=1, initial=0) > largest
    outside = (variance.min(axis=1, initial=largest) < smallest) | (variance.max(axis=1, initial=0) > largest)
    if rows.features is not None:
        too_large |= np.abs(rows.features).max(axis=1, initial=0) > largest
    for name, wrong in (("mean or features", too_large), ("variance", outside)):
        if wrong.any():
            raise InputError(
                f"{rows.ids[int(wrong.argmax())]}: its {name} lies outside of float16's normal range "
                f"({smallest:.3g} to {largest:g}); write float32, the default"
            )


def from_table(table: pa.Table, *, pictures: bool = False) -> Rows:
    """Return the rows of an Arrow table of `to_table`; its pictures only when asked for."""
    return Rows(
        table.column("id").to_pylist(),
        table.column("path").to_pylist(),
        table.column("label").to_pylist(),
        gaussians_of(table, card_of(table)),
        _matrix(table, "features") if "features" in table.column_names else None,
        table.column("sha256").to_pylist() if "sha256" in table.column_names else None,
        [value["bytes"] for value in table.column("image").to_pylist()]
        if pictures and "image" in table.column_names
        else None,
    )


def card_of(table: pa.Table) -> ModelCard | None:
    """Return the card in the table's metadata, None where there is none."""
    text = (table.schema.metadata or {}).get(CARD_KEY.encode())
    return None if text is None else ModelCard.from_json(text.decode())


def gaussians_of(table: pa.Table, card: ModelCard | None) -> GaussianEmbedding:
    """Return the Gaussians of a table; their uncertainty where the card says that the model predicts it."""
    predicted = None
    if card is not None and card.uncertainty_fit is not None:
        predicted = np.asarray(table.column("uncertainty").combine_chunks(), dtype=np.float32)
    return GaussianEmbedding(_matrix(table, "mean"), _matrix(table, "variance"), predicted)


def _matrix(table: pa.Table, name: str) -> Floats:
    column = table.column(name).combine_chunks()
    return np.asarray(column.flatten(), dtype=np.float32).reshape(len(table), column.type.list_size)


def part_name(number: int) -> str:
    """Return the zero-padded name of a part, so that names sort as text."""
    return f"part-{number:05d}.parquet"


def write_table(table: pa.Table, path: Path) -> None:
    """Write a Parquet file, whole or not at all."""
    with atomic_write(path) as file:
        # Dictionaries of floats and of ids only cost: a sixth of the time and two thirds of the size without.
        pq.write_table(table, file, compression="zstd", use_dictionary=REPEATED, write_page_checksum=True)


def write_failures(failures: Sequence[Failure], folder: Path) -> None:
    """Write `failures.parquet` (an empty table when there are none)."""
    write_failures_file(failures, folder / FAILURES)


def write_failures_file(failures: Sequence[Failure], path: Path) -> None:
    """Write failures in the form of `failures.parquet` to any path."""
    rows = [{"path": f.path, "reason": f.reason, "error": f.error} for f in failures]
    write_table(pa.Table.from_pylist(rows, schema=FAILURE_SCHEMA), path)


def iter_parts(folder: Path) -> Iterator[tuple[Rows, ModelCard, str]]:
    """Yield (rows, card, model id) of each part in order; raises FormatError for a damaged part."""
    manifest = read_manifest(folder)
    for name in manifest["parts"]:
        try:
            table = read_file(folder, manifest, name)
            metadata = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
            card, model_id = ModelCard.from_json(metadata[CARD_KEY]), metadata[MODEL_ID_KEY]
            found = metadata[FORMAT_KEY]
            rows = from_table(table) if found == str(STORE_FORMAT) else None
        except (pa.ArrowException, KeyError, ValueError, AttributeError) as error:
            raise_lack(error)
            raise FormatError(f"{folder / name} is damaged ({error}); extract the folder again") from error
        if rows is None:
            raise FormatError(
                f"{folder / name}: found format {found}, expected {STORE_FORMAT}; it was written by another version of "
                "vssl: extract the folder again"
            )
        if model_id != manifest["model_id"]:
            raise MismatchError(
                f"{folder / name} is of model {model_id[:12]}, its manifest of {manifest['model_id'][:12]}; "
                "extract the folder again"
            )
        yield rows, card, model_id


def read_failures(folder: Path) -> list[Failure]:
    """Read `failures.parquet` of a finished folder; a folder without one has none."""
    manifest = read_manifest(folder)
    if FAILURES not in manifest["files"]:
        return []
    return [Failure(**row) for row in read_file(folder, manifest, FAILURES).to_pylist()]


def read_embeddings(folder: Path) -> Embeddings:
    """Read a whole folder. Raises InputError, FormatError or MismatchError (see `iter_parts`)."""
    parts = list(iter_parts(folder))
    if not parts:
        raise InputError(f"{str(folder)!r} holds no embeddings: every image failed; see its {FAILURES}")
    rows = Rows.concatenate([rows for rows, _, _ in parts])
    _, card, model_id = parts[0]
    return Embeddings(rows, card, model_id, read_failures(folder), read_manifest(folder))
