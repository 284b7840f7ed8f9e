"""What is written opens in the tools people have."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from serve.extraction.extract import extract
from vssl.embeddings.store import Embeddings, read_embeddings
from vssl.errors import InputError, MismatchError


@pytest.fixture(scope="module", params=["float32", "float16"])
def out(
    request: pytest.FixtureRequest, photos: Path, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("out") / "embeddings"
    extract(
        photos,
        folder,
        model=model,
        part_rows=12,
        dtype=request.param,
        digests=True,
        features=True,
        arrays=True,
    )
    return folder


@pytest.fixture(scope="module")
def expected(out: Path) -> Embeddings:
    return read_embeddings(out)


def test_pandas(out: Path, expected: Embeddings) -> None:
    frame = pd.concat([pd.read_parquet(p) for p in sorted(out.glob("part-*.parquet"))])
    assert list(frame["id"]) == expected.rows.ids
    assert np.array_equal(np.stack(frame["mean"]).astype(np.float32), expected.rows.gaussians.mean)
    assert len(pd.read_parquet(out / "failures.parquet")) == 3


def test_polars(out: Path, expected: Embeddings) -> None:
    polars = pytest.importorskip("polars")
    frame = polars.read_parquet(out / "part-*.parquet")
    assert frame["id"].to_list() == expected.rows.ids
    assert np.array_equal(np.array(frame["variance"].to_list(), np.float32), expected.rows.gaussians.variance)


def test_duckdb(out: Path, expected: Embeddings) -> None:
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect() as connection:
        query = f"select id, mean, uncertainty from '{out}/part-*.parquet' order by filename, file_row_number"
        rows = connection.sql(query).fetchall()
    assert [row[0] for row in rows] == expected.rows.ids
    assert np.array_equal(np.array([row[1] for row in rows], np.float32), expected.rows.gaussians.mean)


def test_scikit_learn(out: Path, expected: Embeddings) -> None:
    neighbors = pytest.importorskip("sklearn.neighbors")
    table = pq.read_table(sorted(out.glob("part-*.parquet")))
    mean = table["mean"].combine_chunks().flatten().to_numpy().astype(np.float32).reshape(len(table), -1)
    assert np.array_equal(mean, expected.rows.gaussians.mean)
    found = neighbors.NearestNeighbors(n_neighbors=1, metric="cosine").fit(mean).kneighbors(mean)[1]
    assert found.shape == (len(table), 1)


DATASETS = """
import json, sys
import datasets
datasets.disable_progress_bars()
files = sys.argv[1] + "/part-*.parquet"
found = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=sys.argv[2])
found.add_faiss_index("mean")
query = datasets.Dataset.from_parquet(sorted(__import__("glob").glob(files))[0], cache_dir=sys.argv[2])[1]
scores, near = found.get_nearest_examples("mean", __import__("numpy").array(query["mean"], "float32"), k=2)
picture = found[1].get("image")
print(json.dumps([found["id"][:], found["mean"][:], near["id"], query["id"], picture and picture.size,
                  {name: repr(kind) for name, kind in found.features.items()}]))
"""


def test_hugging_face_datasets(
    out: Path, photos: Path, model: Path, expected: Embeddings, tmp_path: Path
) -> None:
    pytest.importorskip("datasets")
    shown = tmp_path / "with pictures"
    extract(photos, shown, model=model, pictures=True, part_rows=12)
    stored = expected.manifest["plan"]["dtype"]
    for folder, dtype in ((out, stored), (shown, "float32")):
        found = subprocess.run(
            [sys.executable, "-c", DATASETS, str(folder), str(tmp_path / folder.name)],
            check=True,
            capture_output=True,
            text=True,
            env={"HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)},
        )
        ids, mean, near, asked, picture, features = json.loads(found.stdout)
        assert ids == expected.rows.ids
        assert near[0] == asked
        assert f"'{dtype}'" in features["mean"]
        assert "length=" in features["mean"]
        if folder is out:
            assert np.array_equal(np.array(mean, np.float32), expected.rows.gaussians.mean)
        else:
            with Image.open(photos / ids[1]) as file:
                assert picture == list(file.size)
            assert features["image"].startswith("Image(")


def test_embedding_atlas_finds_its_columns(photos: Path, model: Path, tmp_path: Path) -> None:
    """It takes a vector column of lists of floats (`--vector mean`) and shows a column of {bytes, path} as pictures."""
    extract(photos, tmp_path / "out", model=model, pictures=True)
    schema = pq.read_schema(tmp_path / "out" / "part-00000.parquet")
    assert pa.types.is_fixed_size_list(schema.field("mean").type)
    assert [field.name for field in schema.field("image").type] == ["bytes", "path"]
    first = pq.read_table(tmp_path / "out" / "part-00000.parquet").to_pylist()[0]
    assert first["image"] == {"bytes": (photos / first["id"]).read_bytes(), "path": first["path"]}


def test_pictures_stay_through_an_update(photos: Path, model: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    extract(tmp_path / "photos", tmp_path / "out", model=model, pictures=True)
    gone = read_embeddings(tmp_path / "out").rows.ids[0]
    (tmp_path / "photos" / gone).unlink()
    summary = extract(tmp_path / "photos", tmp_path / "out", model=model, pictures=True, update=True)
    assert summary.reused > 0
    for row in pq.read_table(tmp_path / "out" / "part-00000.parquet").to_pylist():
        assert row["image"]["bytes"] == (tmp_path / "photos" / row["id"]).read_bytes()
    with pytest.raises(MismatchError, match="pictures stored: was True, now False"):
        extract(tmp_path / "photos", tmp_path / "out", model=model, update=True)


def test_arrays_lie_as_clip_retrieval_lays_them(out: Path, expected: Embeddings) -> None:
    means = [np.load(p) for p in sorted((out / "img_emb").glob("img_emb_*.npy"))]
    variances = [np.load(p) for p in sorted((out / "img_var").glob("img_var_*.npy"))]
    metadata = pd.concat([pd.read_parquet(p) for p in sorted((out / "metadata").glob("metadata_*.parquet"))])
    assert len(means) == len(variances) == 3
    assert np.array_equal(np.concatenate(means).astype(np.float32), expected.rows.gaussians.mean)
    assert np.array_equal(np.concatenate(variances).astype(np.float32), expected.rows.gaussians.variance)
    assert list(metadata["image_path"]) == expected.rows.paths
    assert list(metadata["id"]) == expected.rows.ids


def test_digests_are_those_of_the_files(out: Path, expected: Embeddings, photos: Path) -> None:
    assert expected.rows.digests == [
        hashlib.sha256((photos / name).read_bytes()).hexdigest() for name in expected.rows.ids
    ]


def test_float16_is_close_and_outside_its_range_refused(photos: Path, model: Path, tmp_path: Path) -> None:
    extract(photos, tmp_path / "a", model=model)
    extract(photos, tmp_path / "b", model=model, dtype="float16")
    whole, half = (read_embeddings(tmp_path / name).rows.gaussians for name in "ab")
    np.testing.assert_allclose(half.mean, whole.mean, rtol=2**-11, atol=1e-7)
    np.testing.assert_allclose(half.variance, whole.variance, rtol=2**-11)
    with pytest.raises(InputError, match="found dtype 'float64'"):
        extract(photos, tmp_path / "c", model=model, dtype="float64")


def test_arrays_can_be_added_to_a_finished_folder_and_go_with_it(
    photos: Path, model: Path, tmp_path: Path
) -> None:
    extract(photos, tmp_path / "out", model=model)
    extract(photos, tmp_path / "out", model=model, resume=True, arrays=True)
    assert (tmp_path / "out" / "img_emb" / "img_emb_00000.npy").exists()
    extract(photos, tmp_path / "out", model=model, overwrite=True)
    assert not (tmp_path / "out" / "img_emb").exists()
