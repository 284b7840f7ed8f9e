"""The embeddings folder: exact, complete or refused, and open to any Parquet reader."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vssl.embeddings import store
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.manifest import write_manifest
from vssl.embeddings.store import Failure, Rows
from vssl.errors import FormatError, InputError, MismatchError
from vssl.images.preprocess import Preprocess
from vssl.model.card import ModelCard, UncertaintyFit

DIM, WIDTH = 4, 6
CARD = ModelCard("m", "vssl", "b", "projector", DIM, WIDTH, Preprocess(8, 8))
ID = "ab" * 32


def rows(count: int, seed: int = 0, *, features: bool = False) -> Rows:
    random = np.random.default_rng(seed)
    names = [f"{seed}/{i}.png" for i in range(count)]
    return Rows(
        names,
        [f"/data/{name}" for name in names],
        [None if i % 3 == 0 else f"class é{i % 2}" for i in range(count)],
        GaussianEmbedding(
            random.normal(size=(count, DIM)).astype(np.float32),
            np.exp(random.normal(size=(count, DIM))).astype(np.float32),
        ),
        random.normal(size=(count, WIDTH)).astype(np.float32) if features else None,
    )


def folder(path: Path, *counts: int, features: bool = False) -> Path:
    path.mkdir(exist_ok=True)
    names = [store.part_name(n) for n in range(len(counts))]
    for seed, (name, count) in enumerate(zip(names, counts, strict=True)):
        store.write_table(store.to_table(rows(count, seed, features=features), CARD, ID), path / name)
    store.write_failures([Failure("/data/x", "why", "undecodable")], path)
    write_manifest(path, model_id=ID, parts=names, rows=sum(counts), failures=1, note="more")
    return path


@pytest.mark.parametrize("features", [False, True])
def test_what_is_written_is_read_bit_for_bit(tmp_path: Path, features: bool) -> None:
    found = store.read_embeddings(folder(tmp_path, 5, 0, 3, features=features))
    expected = [rows(5, 0, features=features), rows(3, 2, features=features)]
    assert found.rows.ids == [i for r in expected for i in r.ids]
    assert found.rows.paths == [p for r in expected for p in r.paths]
    assert found.rows.labels == [x for r in expected for x in r.labels]
    assert np.array_equal(found.rows.gaussians.mean, np.concatenate([r.gaussians.mean for r in expected]))
    assert np.array_equal(
        found.rows.gaussians.variance, np.concatenate([r.gaussians.variance for r in expected])
    )
    if features:
        assert np.array_equal(found.rows.features, np.concatenate([r.features for r in expected]))  # type: ignore[arg-type]
    else:
        assert found.rows.features is None
    assert (found.card, found.model_id) == (CARD, ID)
    assert found.failures == [Failure("/data/x", "why", "undecodable")]
    assert (found.manifest["rows"], found.manifest["note"]) == (8, "more")


@given(names=st.lists(st.text(st.characters(codec="utf-8"), max_size=8), unique=True, max_size=5))
@settings(max_examples=40, deadline=None)
def test_any_text_survives_a_table(names: list[str]) -> None:
    some = rows(len(names))
    found = store.from_table(store.to_table(Rows(names, names, list(names), some.gaussians), CARD, ID))
    assert found.ids == found.paths == found.labels == names


def test_digests_and_order_survive() -> None:
    some = rows(4, features=True)
    whole = Rows(some.ids, some.paths, some.labels, some.gaussians, some.features, ["a", "b", "c", "d"])
    found = store.from_table(store.to_table(whole, CARD, ID))
    assert found.digests == ["a", "b", "c", "d"]
    backwards = found.take([3, 1])
    assert (backwards.ids, backwards.digests) == ([some.ids[3], some.ids[1]], ["d", "b"])
    assert np.array_equal(backwards.gaussians.variance, some.gaussians.variance[[3, 1]])
    joined = Rows.concatenate([found.take([0]), found.take([1, 2, 3])])
    assert joined.digests == whole.digests
    assert Rows.concatenate([found, rows(1, features=True)]).digests is None


class TestFloat16:
    def test_numbers_keep_eleven_bits(self, tmp_path: Path) -> None:
        some = rows(50, features=True)
        store.write_table(store.to_table(some, CARD, ID, dtype="float16"), tmp_path / "part.parquet")
        found = store.from_table(pq.read_table(tmp_path / "part.parquet"))
        for name in ("mean", "variance"):
            expected = getattr(some.gaussians, name)
            np.testing.assert_allclose(getattr(found.gaussians, name), expected, rtol=2**-11, atol=1e-7)
        np.testing.assert_allclose(found.features, some.features, rtol=2**-11, atol=1e-7)  # type: ignore[arg-type]
        assert found.gaussians.mean.dtype == np.float32

    def test_what_is_read_writes_the_same_again(self) -> None:
        once = store.to_table(rows(50, features=True), CARD, ID, dtype="float16")
        assert store.to_table(store.from_table(once), CARD, ID, dtype="float16") == once

    @pytest.mark.parametrize(
        ("mean", "variance", "feature", "message"),
        [
            (7e4, 1.0, 1.0, "mean or features"),
            (1.0, 1.0, -7e4, "mean or features"),
            (1.0, 7e4, 1.0, "variance"),
            (1.0, 6e-5, 1.0, "variance"),
        ],
    )
    def test_numbers_outside_its_range_are_refused(
        self, mean: float, variance: float, feature: float, message: str
    ) -> None:
        some = rows(3, features=True)
        arrays = [some.gaussians.mean.copy(), some.gaussians.variance.copy(), some.features.copy()]  # type: ignore[union-attr]
        for array, value in zip(arrays, (mean, variance, feature), strict=True):
            array[1, 2] = value
        wrong = Rows(some.ids, some.paths, some.labels, GaussianEmbedding(*arrays[:2]), arrays[2])
        with pytest.raises(InputError, match=f"0/1.png: its {message} lies outside"):
            store.to_table(wrong, CARD, ID, dtype="float16")
        store.to_table(wrong, CARD, ID)


def test_uncertainty_is_stored_with_the_gaussian(tmp_path: Path) -> None:
    table = pq.read_table(folder(tmp_path, 5) / "part-00000.parquet")
    assert np.array_equal(table["uncertainty"].to_numpy(), rows(5).gaussians.uncertainty)


def test_pandas_reads_it_without_us(tmp_path: Path) -> None:
    frame = pd.read_parquet(folder(tmp_path, 5) / "part-00000.parquet")
    assert list(frame.columns) == ["id", "path", "label", "mean", "variance", "uncertainty"]
    assert np.array_equal(np.stack(frame["mean"]), rows(5).gaussians.mean)


def test_names_of_parts_sort_as_text() -> None:
    names = [store.part_name(n) for n in (0, 2, 10, 99_999)]
    assert names == sorted(names)
    assert names[0] == "part-00000.parquet"


def test_nothing_half_written_is_left_to_read(tmp_path: Path) -> None:
    folder(tmp_path, 2)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(InputError, match="columns differ in length"):
        Rows(["a"], ["a", "b"], [None], rows(1).gaussians)


class TestReading:
    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(
            InputError, match="found no such folder; embed images with: vssl extract IMAGES EMBEDDINGS"
        ):
            store.read_embeddings(tmp_path / "absent")

    def test_an_unfinished_folder(self, tmp_path: Path) -> None:
        (folder(tmp_path, 2) / "manifest.json").unlink()
        with pytest.raises(InputError, match=r"has not finished.*--resume"):
            store.read_embeddings(tmp_path)

    def test_a_folder_of_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "cat.jpg").write_bytes(b"no part")
        with pytest.raises(InputError, match=r"no embeddings at .*: vssl extract IMAGES EMBEDDINGS$"):
            store.read_embeddings(tmp_path)

    @pytest.mark.parametrize("text", ["{", '{"format": 9}', "[]", "null", '{"format": 2}', "[" * 100_000])
    def test_a_manifest_of_another_kind(self, tmp_path: Path, text: str) -> None:
        (folder(tmp_path, 2) / "manifest.json").write_text(text)
        with pytest.raises(FormatError):
            store.read_embeddings(tmp_path)

    @pytest.mark.parametrize("damage", ["truncate", "remove", "no card"])
    def test_a_damaged_part(self, tmp_path: Path, damage: str) -> None:
        part = folder(tmp_path, 2, 2) / "part-00001.parquet"
        if damage == "truncate":
            part.write_bytes(part.read_bytes()[:-20])
        elif damage == "remove":
            part.unlink()
        else:
            pq.write_table(pq.read_table(part).replace_schema_metadata(None), part)
        with pytest.raises(FormatError, match=r"part-00001.parquet (is damaged|is not there).*extract"):
            store.read_embeddings(tmp_path)

    def test_a_part_of_another_model(self, tmp_path: Path) -> None:
        part = folder(tmp_path, 2) / "part-00000.parquet"
        store.write_table(store.to_table(rows(2), CARD, "cd" * 32), part)
        write_manifest(tmp_path, model_id=ID, parts=[part.name], rows=2, failures=0)
        with pytest.raises(MismatchError, match="is of model cdcdcdcdcdcd, its manifest of abababababab"):
            store.read_embeddings(tmp_path)

    def test_only_failures(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"every image failed; see its failures\.parquet"):
            store.read_embeddings(folder(tmp_path))

    def test_a_failures_file_that_went_is_missed(self, tmp_path: Path) -> None:
        (folder(tmp_path, 1) / "failures.parquet").unlink()
        with pytest.raises(FormatError, match=r"failures.parquet is not there"):
            store.read_failures(tmp_path)


def test_the_manifest_is_plain_json(tmp_path: Path) -> None:
    values = json.loads((folder(tmp_path, 2) / "manifest.json").read_text())
    assert values["parts"] == ["part-00000.parquet"]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_predicted_uncertainty_is_read_as_it_was_written(dtype: str) -> None:
    plain = rows(4).gaussians
    said = np.array([0.25, 1.0, 0.0, 0.7], np.float32)
    predicted = replace(rows(4), gaussians=GaussianEmbedding(plain.mean, plain.variance, said))
    card = replace(CARD, uncertainty_fit=UncertaintyFit(images=100))
    found = store.from_table(store.to_table(predicted, card, ID, dtype=dtype)).gaussians
    assert np.array_equal(found.uncertainty, said)
    assert store.from_table(store.to_table(rows(4), CARD, ID)).gaussians.predicted_uncertainty is None
