"""A gallery holds what was added, replaced and removed, through closing, damage and other processes."""

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index.gallery.folder.gallery import FolderGallery
from index.gallery.folder.locks import LockedError
from tests.index.brute import brute, ids, new
from tests.index.samples import MODEL, card, gaussians, part, sample
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.store import Rows
from vssl.errors import ExistsError, InputError, MismatchError


def test_another_model_is_refused_with_what_to_run(tmp_path: Path) -> None:
    with new(tmp_path, sample(5)) as gallery:
        with pytest.raises(MismatchError, match=r"bbbbbbbbbbbb.*aaaaaaaaaaaa.*vssl extract .* vssl index"):
            gallery.search(gaussians(1), 1, model_id="b" * 64)
        with pytest.raises(MismatchError):
            gallery.add(sample(1, prefix="j"), model_id="b" * 64)
        with pytest.raises(InputError, match=r"found vectors of 4 dimensions.*holds 8"):
            gallery.search(gaussians(1, 4), 1)
        with pytest.raises(InputError, match="4 dimensions"):
            gallery.add(sample(1, 4, prefix="j"))
        gallery.search(gaussians(1), 1, model_id=MODEL)


def test_what_has_no_direction_is_refused_before_it_is_stored(tmp_path: Path) -> None:
    rows = sample(3)
    rows.gaussians.mean[1] = 0
    with new(tmp_path) as gallery:
        with pytest.raises(InputError, match="zero vector"):
            gallery.add(rows)
        assert len(gallery) == 0
    with FolderGallery.create(
        tmp_path / "raw", card=card(), model_id=MODEL, normalise=False, distance="expected"
    ) as raw:
        raw.add(rows)
        assert len(raw.search(gaussians(1), 3)[0].neighbours) == 3


def test_nan_never_reaches_a_gallery() -> None:
    mean = np.ones((1, 8), np.float32)
    with pytest.raises(InputError, match="NaN"):
        GaussianEmbedding(np.full((1, 8), np.nan, np.float32), mean)


def test_a_gallery_opens_as_it_was_closed(tmp_path: Path) -> None:
    rows, queries = sample(100), gaussians(5, seed=5)
    with new(tmp_path, rows, distance="expected") as gallery:
        before = gallery.search(queries, 5)
    for read_only in (True, False):
        with FolderGallery.open(tmp_path / "gallery", read_only=read_only) as gallery:
            assert gallery.search(queries, 5) == before
            assert gallery.model_id == MODEL
            assert gallery.card == card()
            assert gallery.distance == "expected"
            assert gallery.damage is None


def test_a_second_writer_is_refused_and_readers_are_not(tmp_path: Path) -> None:
    with new(tmp_path, sample(5)) as gallery:
        with pytest.raises(LockedError, match="being written by this process"):
            FolderGallery.open(tmp_path / "gallery")
        with FolderGallery.open(tmp_path / "gallery", read_only=True) as reader:
            assert len(reader) == 5
            with pytest.raises(InputError, match="reading only"):
                reader.add(sample(1, prefix="j"))
        gallery.add(sample(1, prefix="j"))
    FolderGallery.open(tmp_path / "gallery").close()


def test_creating_over_a_gallery_is_refused(tmp_path: Path) -> None:
    new(tmp_path).close()
    with pytest.raises(ExistsError, match="--overwrite"):
        new(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ExistsError):
        FolderGallery.create(tmp_path / "file", card=card(), model_id=MODEL)
    with pytest.raises(InputError, match="vssl index"):
        FolderGallery.open(tmp_path / "nowhere")


WRITE = """
import sys
from index.gallery.folder.gallery import FolderGallery
from tests.index.samples import sample
with FolderGallery.open(sys.argv[1]) as gallery:
    gallery.add(sample(30, seed=4, prefix="j"))
    gallery.remove([f"i{i}" for i in range(10)])
    if sys.argv[2] == "compact":
        gallery.compact()
"""


@pytest.mark.parametrize("then", ["", "compact"])
def test_a_reader_follows_a_writer_in_another_process(tmp_path: Path, then: str) -> None:
    rows, queries = sample(50), gaussians(5, seed=5)
    new(tmp_path, rows).close()
    with FolderGallery.open(tmp_path / "gallery", read_only=True) as reader:
        assert ids(reader.search(queries, 5)) == brute(rows, queries, 5)
        subprocess.run(
            [sys.executable, "-c", WRITE, str(tmp_path / "gallery"), then], check=True, timeout=200
        )
        fresh, kept = sample(30, seed=4, prefix="j"), part(rows, slice(10, 50))
        both = Rows(
            kept.ids + fresh.ids,
            kept.paths + fresh.paths,
            kept.labels + fresh.labels,
            GaussianEmbedding.concatenate([kept.gaussians, fresh.gaussians]),
        )
        assert len(reader) == 70
        assert ids(reader.search(queries, 8)) == brute(both, queries, 8)


def test_many_threads_search_while_one_writes(tmp_path: Path) -> None:
    rows, queries = sample(400), gaussians(2, seed=5)
    trouble: list[BaseException] = []
    with new(tmp_path, part(rows, slice(0, 100))) as gallery:
        done = threading.Event()

        def search() -> None:
            try:
                while not done.is_set():
                    for result in gallery.search(queries, 10):
                        assert len(result.neighbours) == 10
            except BaseException as error:
                trouble.append(error)

        threads = [threading.Thread(target=search) for _ in range(3)]
        for thread in threads:
            thread.start()
        for start in range(100, 400, 20):
            gallery.add(part(rows, slice(start, start + 20)))
            gallery.remove([rows.ids[start - 100]])
        done.set()
        for thread in threads:
            thread.join(timeout=30)
        assert trouble == []
        left = np.ones(400, bool)
        left[0:300:20] = False
        assert ids(gallery.search(queries, 10)) == brute(rows, queries, 10, keep=left)


def test_a_snapshot_is_one_moment_of_a_gallery_in_use(tmp_path: Path) -> None:
    rows, queries = sample(100), gaussians(4, seed=5)
    with new(tmp_path, rows) as gallery:
        gallery.save()
        gallery.snapshot(tmp_path / "copy")
        gallery.remove(rows.ids[:50])
        with pytest.raises(ExistsError):
            gallery.snapshot(tmp_path / "copy")
        with FolderGallery.open(tmp_path / "copy") as copy:
            assert ids(copy.search(queries, 5)) == brute(rows, queries, 5)
            assert copy.damage is None
            copy.add(sample(1, prefix="own"))
        with FolderGallery.open(tmp_path / "gallery", read_only=True) as reader:
            reader.snapshot(tmp_path / "second")
            assert len(gallery) == 50
    with FolderGallery.open(tmp_path / "second") as second:
        assert ids(second.search(queries, 5)) == brute(rows, queries, 5, keep=np.arange(100) >= 50)


operations = st.lists(
    st.tuples(
        st.sampled_from(["add", "replace", "remove", "where", "save", "compact", "reopen"]),
        st.sets(st.integers(0, 30), min_size=1, max_size=12),
        st.integers(0, 5),
    ),
    max_size=12,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(operations)
def test_any_history_ends_in_what_a_dictionary_holds(tmp_path: Path, history) -> None:
    folder = tmp_path / "history"
    shutil.rmtree(folder, ignore_errors=True)
    gallery, model = new(folder), {}
    for name, numbers, seed in history:
        rows = sample(31, seed=seed)
        chosen = sorted(numbers)
        batch = Rows(
            [rows.ids[i] for i in chosen],
            [rows.paths[i] for i in chosen],
            [f"group{i % 6}" for i in chosen],
            rows.gaussians[chosen],
        )
        entries = {rows.ids[i]: (f"group{i % 6}", rows.gaussians.mean[i]) for i in chosen}
        if name == "add" and model.keys() & entries.keys():
            with pytest.raises(ExistsError):
                gallery.add(batch)
        elif name in ("add", "replace"):
            gallery.add(batch, replace=name == "replace")
            model.update(entries)
        elif name == "remove":
            assert gallery.remove(batch.ids) == len(model.keys() & entries.keys())
            model = {key: value for key, value in model.items() if key not in entries}
        elif name == "where":
            label = f"group{seed}"
            there = [key for key, value in model.items() if value[0] == label]
            assert gallery.remove_where({"label": label}) == len(there)
            model = {key: value for key, value in model.items() if key not in there}
        elif name == "reopen":
            gallery.close()
            gallery = FolderGallery.open(folder / "gallery")
        else:
            getattr(gallery, name)()
        assert len(gallery) == len(model)
        (result,) = gallery.search(gaussians(1, seed=7), 50)
        assert {n.id for n in result.neighbours} == model.keys()
    for key, (label, mean) in model.items():
        assert gallery.get(key).label == label
        np.testing.assert_array_equal(gallery.get(key).mean, mean)
    gallery.close()
