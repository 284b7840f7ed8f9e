"""Folders, files and machines as they are: what a command makes of them, as a person sees it."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.support.deep_folder import deep_folder
from tests.support.hostile_pictures import bmp_with_empty_alpha, scan_bomb
from tests.support.plain_user import as_a_plain_user
from tests.support.tiny_model import picture
from tests.vssl.cli.command import jpeg, one_sentence, started, vssl
from vssl.embeddings.store import Embeddings, read_embeddings, read_failures


def extract(spec: object, out: Path, model: Path) -> Embeddings:
    done = vssl("extract", spec, out, "--model", model)
    assert done.returncode == 0, done.stderr
    return read_embeddings(out)


class TestFolders:
    def test_a_link_to_itself_is_a_failure_and_the_rest_is_done(self, tmp_path: Path, model: Path) -> None:
        for seed in range(3):
            jpeg(tmp_path / "in" / f"{seed}.jpg", seed)
        (tmp_path / "in" / "loop").symlink_to("loop")
        found = extract(tmp_path / "in", tmp_path / "out", model)
        assert found.rows.ids == ["0.jpg", "1.jpg", "2.jpg"]
        assert [(f.error, "symbolic links" in f.reason) for f in found.failures] == [("unreadable", True)]

    def test_eleven_hundred_nested_folders_are_walked(self, tmp_path: Path, model: Path) -> None:
        data = jpeg(tmp_path / "a.jpg", 1).read_bytes()
        with deep_folder(tmp_path / "deep", 1100, data) as deep:
            assert len(extract(deep, tmp_path / "out", model).rows) == 2

    def test_a_folder_that_may_not_be_read_is_named_and_the_rest_is_done(
        self, model: Path, tmp_path: Path
    ) -> None:
        for name in ("a.jpg", "shut/b.jpg", "z/c.jpg"):
            jpeg(tmp_path / "in" / name, 1)
        (tmp_path / "in" / "shut").chmod(0o000)
        done = started(
            "extract", tmp_path / "in", tmp_path / "out", "--model", model, before=as_a_plain_user()
        )
        assert done.returncode == 0, done.stderr
        found = read_embeddings(tmp_path / "out")
        assert found.rows.ids == ["a.jpg", "z/c.jpg"]
        assert [f.path.rstrip("/") for f in found.failures] == [str(tmp_path / "in" / "shut")]
        assert "Permission denied" in found.failures[0].reason

    def test_what_systems_leave_in_an_output_does_not_count(
        self, good: Path, model: Path, extracted: Path, tmp_path: Path
    ) -> None:
        out, gallery = tmp_path / "out", tmp_path / "gallery"
        for folder in (out, gallery):
            (folder / "lost+found").mkdir(parents=True)
            for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
                (folder / name).write_bytes(b"of the system")
        for flag in ([], ["--update"], ["--overwrite"]):
            assert vssl("extract", good, out, "--model", model, *flag).returncode == 0
        built = vssl("index", extracted, gallery)
        assert built.returncode == 0, built.stderr
        assert vssl("index", extracted, gallery, "--overwrite").returncode == 0
        assert (out / "lost+found").is_dir()
        assert (out / "Thumbs.db").read_bytes() == b"of the system"

    def test_what_a_person_left_there_does(self, good: Path, model: Path, tmp_path: Path) -> None:
        (tmp_path / "thesis.txt").write_text("years of work")
        said = one_sentence(vssl("extract", good, tmp_path, "--model", model, "--overwrite"))
        assert "thesis.txt" in said
        assert (tmp_path / "thesis.txt").read_text() == "years of work"

    def test_a_folder_without_one_image_says_what_lies_there(self, model: Path, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "index.jpg").write_text("<html>not found</html>")
        said = one_sentence(vssl("extract", tmp_path / "in", tmp_path / "out", "--model", model))
        assert "not one image could be read" in said
        assert "index.jpg': found a web page in place of an image" in said
        assert len(read_failures(tmp_path / "out")) == 1


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (2, ["extract", "", "out"]),
        (5, ["extract", "in", "out", "--model", ""]),
        (3, ["info", "in", "--model="]),
    ],
)
def test_an_unset_variable_is_no_folder_and_no_default(place: int, words: list[str]) -> None:
    done = vssl(*words)
    assert done.returncode == 2
    assert f"argument {place} " in done.stderr
    assert "is empty" in done.stderr


@pytest.mark.parametrize(
    "path", ["data:image/png;base64,AAAA", "data:image/png;base64," + "A" * 6000, "~nosuchuser/x", "a" * 5000]
)
class TestWhatIsNoPath:
    def test_as_images(self, path: str, model: Path, tmp_path: Path) -> None:
        one_sentence(vssl("extract", path, tmp_path / "out", "--model", model))

    def test_as_an_output(
        self, path: str, good: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        done = vssl("extract", good, path, "--model", model)
        if path == "data:image/png;base64,AAAA":  # a strange name, but a name
            assert len(read_embeddings(Path(path)).rows) == 12
        else:
            one_sentence(done)

    def test_as_a_model(self, path: str, good: Path, tmp_path: Path) -> None:
        one_sentence(vssl("extract", good, tmp_path / "out", "--model", path))

    def test_as_a_gallery_or_a_query(self, path: str, good: Path, extracted: Path, tmp_path: Path) -> None:
        one_sentence(vssl("search", path, next(good.rglob("*.jpg"))))
        one_sentence(vssl("inspect", path))


@pytest.mark.parametrize("path", ["s3://bucket/out", "file:///tmp/out", "milvus:./photos.db#a"])
def test_an_address_is_no_output(
    path: str, house: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = (
        ("extract", house / "images", path, "--model", house / "model.onnx"),
        ("index", house / "embeddings", path),
        ("gallery", "snapshot", house / "gallery", path),
        ("gallery", "move", house / "gallery", path),
        ("train", house / "images", "--out", path, "--epochs", 0),
        ("export", house / "nothing", f"{path}/model.onnx"),
    )
    for line in words:
        if line[1] != "move" or not path.startswith("milvus"):
            assert "expected a place on a disk of this machine" in one_sentence(vssl(*line))
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_is_no_folder(model: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    said = one_sentence(vssl("extract", tmp_path / "pipe", tmp_path / "out", "--model", model))
    assert "found a pipe or a device; expected an image folder" in said


class TestTexts:
    def test_a_list_with_a_byte_order_mark(self, good: Path, model: Path, tmp_path: Path) -> None:
        names = [str(path) for path in sorted(good.rglob("*.jpg"))[:2]]
        (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*names, ""]).encode())
        assert extract(f"list:{tmp_path / 'list.txt'}", tmp_path / "out", model).rows.ids == names

    @pytest.mark.parametrize("label", [3, 2.5, True])
    def test_labels_that_are_numbers(
        self, good: Path, model: Path, tmp_path: Path, label: float | bool
    ) -> None:
        row = {"path": str(next(good.rglob("*.jpg"))), "id": "a", "label": label}
        (tmp_path / "list.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(row).encode())
        found = extract(f"list:{tmp_path / 'list.jsonl'}", tmp_path / "out", model)
        assert found.rows.labels == [json.dumps(label)]

    @pytest.mark.parametrize(
        "wrong", [{"label": ["cat", "pet"]}, {"path": "\ud83d.jpg"}, {"label": "\ud83d"}]
    )
    def test_what_cannot_be_a_label_or_a_path_names_its_line(
        self, model: Path, tmp_path: Path, wrong: dict[str, object]
    ) -> None:
        rows = [{"path": "a.jpg", "id": "a"}, {"path": "b.jpg", "id": "b", **wrong}]
        (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
        assert "line 2" in one_sentence(
            vssl("extract", f"list:{tmp_path / 'list.jsonl'}", tmp_path / "out", "--model", model)
        )

    def test_a_key_given_twice_in_a_line_is_named(self, model: Path, tmp_path: Path) -> None:
        (tmp_path / "list.jsonl").write_text('{"path": "a.jpg", "id": "a", "label": "x", "label": "y"}\n')
        done = vssl("extract", f"list:{tmp_path / 'list.jsonl'}", tmp_path / "out", "--model", model)
        assert "the key 'label' is given twice" in one_sentence(done)

    def test_settings_with_a_byte_order_mark(self, good: Path, tmp_path: Path) -> None:
        (tmp_path / "run.toml").write_bytes(b"\xef\xbb\xbfepochs = 0\r\nsize = 16\r\n")
        done = vssl("train", good, "--out", tmp_path / "run", "--config", tmp_path / "run.toml")
        assert done.returncode == 0, done.stderr

    def test_parquet_as_hugging_face_names_it(self, model: Path, tmp_path: Path) -> None:
        images = [{"bytes": jpeg(tmp_path / "x.jpg", n).read_bytes(), "path": None} for n in range(4)]
        (tmp_path / "shards").mkdir()
        for shard in range(2):
            table = pa.table({"img": images[shard::2], "label": [shard, 1]})
            pq.write_table(table, tmp_path / f"shards/train-{shard:05d}-of-00002.parquet")
        for number, spec in enumerate(
            ["shards", "shards/*.parquet", "shards/train-{00000..00001}-of-00002.parquet"]
        ):
            assert len(extract(f"parquet:{tmp_path / spec}", tmp_path / f"out{number}", model).rows) == 4


class TestGoingOn:
    def test_a_run_goes_on_with_its_own_pictures_only(self, good: Path, tmp_path: Path) -> None:
        words = ("--epochs", 0, "--size", 16)
        assert vssl("train", good, "--out", tmp_path / "run", *words).returncode == 0
        assert vssl("train", good, "--out", tmp_path / "run", "--resume").returncode == 0
        for path in sorted(good.rglob("*.jpg")):
            jpeg(tmp_path / "other" / path.relative_to(good), 100 + int(path.stem[4:]))
        said = one_sentence(vssl("train", tmp_path / "other", "--out", tmp_path / "run", "--resume"))
        assert "begun on other images" in said


class TestPictures:
    def test_a_bmp_with_empty_alpha_embeds_as_its_reference(self, model: Path, tmp_path: Path) -> None:
        pixels = picture(3, (96, 72))
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "a.bmp").write_bytes(bmp_with_empty_alpha(pixels))
        Image.fromarray(pixels).save(tmp_path / "in" / "b.png")
        means = extract(tmp_path / "in", tmp_path / "out", model).rows.gaussians.mean
        assert np.array_equal(means[0], means[1])

    def test_a_png_with_a_large_profile_embeds_as_without(self, model: Path, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        image = Image.fromarray(picture(5))
        sink = io.BytesIO()
        image.save(sink, "PNG", icc_profile=bytes(3_000_000))
        (tmp_path / "in" / "a.png").write_bytes(sink.getvalue())
        image.save(tmp_path / "in" / "b.png")
        means = extract(tmp_path / "in", tmp_path / "out", model).rows.gaussians.mean
        assert np.array_equal(means[0], means[1])

    def test_a_scan_bomb_is_a_failure(self, model: Path, tmp_path: Path) -> None:
        jpeg(tmp_path / "in" / "a.jpg", 1)
        (tmp_path / "in" / "bomb.jpg").write_bytes(scan_bomb(8000, 7992, 8000))
        found = extract(tmp_path / "in", tmp_path / "out", model)
        assert (found.rows.ids, [f.error for f in found.failures]) == (["a.jpg"], ["too_many_pixels"])
