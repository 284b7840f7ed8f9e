"""Embeddings that another tool made: what files are read, what a gallery of them answers, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from tests.vssl.cli.command import vssl
from vssl.embeddings.arrays import is_elsewhere, iter_embeddings, read_rows
from vssl.errors import InputError

N, D = 240, 8
RANDOM = np.random.default_rng(3)
CLASSES = RANDOM.integers(0, 4, N)
MEANS = (RANDOM.normal(size=(4, D))[CLASSES] + 0.9 * RANDOM.normal(size=(N, D))).astype(np.float32)
VARIANCES = np.exp(RANDOM.normal(size=(N, D))).astype(np.float32)
NAMES = [f"shop/{row}.jpg" for row in range(N)]
LABELS = [f"c{code}" for code in CLASSES]


def write(path: Path, **columns: Any) -> Path:
    """Write columns as the ending of `path` says."""
    if path.suffix == ".npy":
        np.save(path, columns["mean"])
    elif path.suffix == ".npz":
        np.savez(path, **columns)
    else:
        pq.write_table(pa.table({n: list(c) for n, c in columns.items()}), path)
    return path


@pytest.fixture(scope="module")
def means(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of labelled means without variances."""
    folder = tmp_path_factory.mktemp("means")
    done = vssl(
        "index", write(folder / "m.parquet", embedding=MEANS, id=NAMES, label=LABELS), folder / "gallery"
    )
    assert done.returncode == 0, done.stderr
    return folder / "gallery"


def nearest(query: NDArray[np.float32]) -> list[str]:
    """The names by cosine, written out."""
    unit = MEANS / np.linalg.norm(MEANS, axis=1, keepdims=True)
    return [NAMES[i] for i in np.argsort(-unit @ (query / np.linalg.norm(query)), kind="stable")]


@pytest.mark.parametrize("number", ["f2", "f4", "f8"])
@pytest.mark.parametrize("ending", ["npy", "npz", "parquet"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, ending: str, number: str) -> None:
    rows, card, model_id = read_rows(write(tmp_path / f"e.{ending}", mean=MEANS.astype(number)))
    np.testing.assert_array_equal(rows.gaussians.mean, MEANS.astype(number).astype(np.float32))
    assert rows.ids == [str(row) for row in range(N)]
    assert (card.dim, card.has_variance, is_elsewhere(model_id)) == (D, False, True)


@pytest.mark.parametrize("ending", ["npz", "parquet"])
def test_ids_labels_and_variances_come_with_the_means(tmp_path: Path, ending: str) -> None:
    file = write(tmp_path / f"e.{ending}", mean=MEANS, variance=VARIANCES, id=np.arange(N) + 7, label=LABELS)
    rows, card, _ = read_rows(file)
    np.testing.assert_array_equal(rows.gaussians.variance, VARIANCES)
    assert (rows.ids[0], rows.labels, card.has_variance) == ("7", LABELS, True)


def test_lists_of_fixed_length_are_read_as_well(tmp_path: Path) -> None:
    column = pa.FixedSizeListArray.from_arrays(pa.array(MEANS.ravel()), D)
    pq.write_table(pa.table({"mean": column, "label": [None, *LABELS[1:]]}), tmp_path / "e.parquet")
    rows, _, _ = read_rows(tmp_path / "e.parquet")
    np.testing.assert_array_equal(rows.gaussians.mean, MEANS)
    assert rows.labels[:2] == [None, LABELS[1]]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "one.npy": ({"mean": MEANS[0]}, "expected numbers of shape"),
    "text.npy": ({"mean": np.array([["a"]])}, "expected numbers of shape"),
    "pickle.npy": ({"mean": np.array([{}], object)}, "not readable as .npy (Python objects are not read)"),
    "nan.npy": ({"mean": [[0.0, 1.0], [1.0, np.nan]]}, "row 1: mean: found nan, expected finite"),
    "huge.npy": ({"mean": [[1e300, 1.0]]}, "row 0: mean: found 1e+300, expected finite numbers of float32"),
    "null.parquet": ({"mean": [[1.0, 2.0], [1.0, None]]}, "row 1: mean: found nan"),
    "none.npy": ({"mean": np.empty((0, 4))}, "holds no rows"),
    "names.npz": ({"vectors": MEANS}, "found vectors; expected `mean` or `embedding`"),
    "twice.npz": ({"mean": MEANS, "embedding": MEANS}, "expected `mean` or `embedding`"),
    "short.npz": ({"mean": MEANS, "label": LABELS[1:]}, "different lengths"),
    "zero.npz": ({"mean": MEANS, "variance": 0 * VARIANCES}, "row 0: variance: found 0.0, expected positive"),
    "float.npz": ({"mean": MEANS, "id": MEANS[:, 0]}, "id: expected"),
    "ragged.parquet": ({"mean": [[1.0, 2.0], [3.0]]}, "found lists of 2, 1 numbers"),
    "scalar.parquet": ({"mean": [1.0, 2.0]}, "expected lists of numbers"),
    "anonymous.parquet": ({"mean": [[1.0], [2.0]], "id": ["a", None]}, "row 1 has no id"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_embedding_is_refused_by_name(tmp_path: Path, name: str) -> None:
    columns, message = WRONG[name]
    if name == "pickle.npy":
        np.save(tmp_path / name, columns["mean"], allow_pickle=True)
    else:
        write(tmp_path / name, **columns)
    done = vssl("index", tmp_path / name, tmp_path / "gallery")
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "gallery").exists()


def test_a_file_of_another_kind_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("1,2\n")
    done = vssl("index", tmp_path / "e.csv", tmp_path / "gallery")
    assert (done.returncode, "found a file that is no .npy, .npz or .parquet" in done.stderr) == (1, True)


def test_an_absent_file_is_no_folder_either(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found no such file"):
        list(iter_embeddings(tmp_path / "no.npy"))


def test_an_item_or_a_vector_finds_its_neighbours(means: Path, tmp_path: Path) -> None:
    done = vssl("search", means, "--id", NAMES[5], "-k", 4, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [n["id"] for n in found["neighbours"]] == nearest(MEANS[5])[1:5]
    done = vssl("search", means, write(tmp_path / "q.npy", mean=MEANS[:2] + 0.1), "-k", 3, "--json")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [[n["id"] for n in a["neighbours"]] for a in answers] == [
        nearest(m + np.float32(0.1))[:3] for m in MEANS[:2]
    ]
    for answer in (found, *answers):
        assert answer["uncertainty"] is None
        assert {n["variance_score"] for n in answer["neighbours"]} == {None}
        assert all(0 < n["match_probability"] < 1 for n in answer["neighbours"])  # by labels and distance
    assert vssl("search", means).returncode == 2  # nothing is asked


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("search", "GALLERY", "--id", NAMES[0], "--distance", "posterior"), "use cosine or euclidean"),
        (("search", "GALLERY", "--id", NAMES[0], "--max-uncertainty", "0.5"), "no uncertainty"),
        (("search", "GALLERY", "--id", NAMES[0], "--where", '{"not": {"uncertainty": 0}}'), "no uncertainty"),
        (("gallery", "uncertain", "GALLERY"), "no uncertainty"),
        (("gallery", "refit", "GALLERY", "--distance", "mls"), "use cosine or euclidean"),
        (("evaluate", "GALLERY", "GALLERY", "--distance", "kl"), "use cosine or euclidean"),
        (("evaluate", "GALLERY", "GALLERY", "--corrupted", "GALLERY"), "no uncertainty"),
    ],
)
def test_what_needs_variances_is_refused_with_what_to_type(
    means: Path, words: tuple[str, ...], message: str
) -> None:
    done = vssl(*(means if word == "GALLERY" else word for word in words))
    assert done.returncode == 1
    assert message in done.stderr
    assert "vssl index FILE.npz GALLERY" in done.stderr


def test_curation_and_a_risk_go_by_the_neighbours(means: Path) -> None:
    for verb in ("suspects", "outliers"):
        done = vssl("gallery", verb, means, "-n", 3, "--json")
        assert done.returncode == 0, done.stderr
        assert [json.loads(line)["uncertainty"] for line in done.stdout.splitlines()] == [None] * 3
    assert vssl("gallery", "duplicates", means, "--json").returncode == 0
    done = vssl("search", means, "--id", NAMES[0], "--max-risk", "0.5", "--json")
    assert json.loads(done.stdout)["abstain"] in (False, True)
    assert "of 180 images of the gallery that search it, " in done.stderr


def test_the_gallery_says_what_it_lacks(means: Path) -> None:
    facts = json.loads(vssl("gallery", "info", means, "--json").stdout)
    assert (facts["variance"], facts["uncertainty"], facts["labels"]) == ("absent", None, 4)
    assert facts["model"] == f"{D} dimensions from elsewhere, without variances"
    assert list(facts["fitting"]["trials"]) == ["cosine", "euclidean"]
    assert vssl("inspect", means).returncode == 0


def test_evaluation_measures_what_means_allow(means: Path, tmp_path: Path) -> None:
    others = MEANS + np.random.default_rng(4).normal(size=MEANS.shape)
    queries = write(tmp_path / "q.npz", mean=others, label=LABELS, id=NAMES)  # other images of the same ids
    done = vssl(
        *("evaluate", means, queries, "--resamples", 20, "--compare", "--one-class", "--max-risk", "0.4"),
        *("--ood", write(tmp_path / "o.npy", mean=-MEANS), "--json"),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    metrics = {name for name in report["metrics"] if not name.endswith(("_low", "_high"))}
    assert {
        "knn_top1",
        "recall_at_1",
        "map_at_r",
        "r_auroc_distance",
        "ood_auroc_knn",
        "one_class_knn",
    } <= metrics
    assert {"coverage_distance", "recall_at_1:euclidean", "ece"} <= metrics
    assert not metrics & {"r_auroc", "aurc", "uncertainty_mean", "ood_auroc", "coverage_uncertainty"}
    assert not [name for name in metrics if "likelihood" in name or "posterior" in name]
    assert report["counts"]["queries_in_gallery"] == 0
    assert "without variances" in " ".join(report["notes"])
    assert "uncertainty" not in report["curves"]["risk_coverage"]


def test_given_variances_are_used_and_kept_apart_from_means(tmp_path: Path) -> None:
    both = write(tmp_path / "v.npz", mean=MEANS, variance=VARIANCES, label=LABELS)
    assert vssl("index", both, tmp_path / "g", "--distance", "posterior").returncode == 0
    found = json.loads(vssl("search", tmp_path / "g", "--id", "3", "-k", 2, "--json").stdout)
    assert 0 < found["uncertainty"] < 1
    assert all(0 < n["variance_score"] < 1 for n in found["neighbours"])
    alone = write(tmp_path / "m.npy", mean=MEANS)
    done = vssl("gallery", "add", tmp_path / "g", alone, "--replace")
    assert done.returncode == 1
    assert f"{D} dimensions from elsewhere, with variances" in done.stderr
    done = vssl("search", tmp_path / "g", write(tmp_path / "q.npy", mean=MEANS[:, :3]))
    assert done.returncode == 1


def test_more_of_the_same_kind_can_be_added(means: Path, tmp_path: Path) -> None:
    assert vssl("gallery", "snapshot", means, tmp_path / "g").returncode == 0
    more = write(tmp_path / "more.npz", embedding=MEANS[:2], id=["new/1", "new/2"])
    done = vssl("gallery", "add", tmp_path / "g", more)
    assert f"added 2, now {N + 2} images" in done.stdout, done.stderr
    done = vssl("gallery", "add", tmp_path / "g", write(tmp_path / "wide.npy", mean=np.ones((2, D + 1))))
    assert done.returncode == 1
    assert f"{D} dimensions from elsewhere" in done.stderr
