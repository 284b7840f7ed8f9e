"""Data set files are read as their makers write them, and hostile ones are refused."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.tiny_model import picture
from vssl.errors import FormatError, ImageError, InputError
from vssl.images.items import ImageSource
from vssl.images.sources import open_source

DATA = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "cifar10"


def pixels(source: ImageSource, row: int) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(source.read(row))))


def png(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(seed)).save(file, "png")
    return file.getvalue()


def pictures(count: int, side: int = 32) -> np.ndarray:
    return np.stack([picture(seed, (side, side)) for seed in range(count)])


def by_channel(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


class TestParquet:
    def write(self, path: Path, columns: dict[str, object], features: object = None) -> str:
        table = pa.table(columns)
        if features is not None:
            table = table.replace_schema_metadata(
                {"huggingface": json.dumps({"info": {"features": features}})}
            )
        pq.write_table(table, path, row_group_size=3)
        return f"parquet:{path}"

    def test_struct_with_paths_and_named_classes(self, tmp_path: Path) -> None:
        images = [{"bytes": png(seed), "path": f"p{seed}.png"} for seed in range(8)]
        names = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
        spec = self.write(tmp_path / "a.parquet", {"image": images, "label": [0, 1] * 4}, names)
        source = open_source(spec)
        assert [item.id for item in source.items] == [f"p{seed}.png" for seed in range(8)]
        assert [item.label for item in source.items] == ["cat", "dog"] * 4
        for row in (7, 0, 4, 1, 7):
            assert np.array_equal(pixels(source, row), picture(row))

    def test_plain_bytes_without_labels(self, tmp_path: Path) -> None:
        source = open_source(self.write(tmp_path / "a.parquet", {"image": [png(0), png(1)]}))
        assert [item.id for item in source.items] == ["a.parquet/0", "a.parquet/1"]
        assert source.items[0].label is None

    def test_text_and_unnamed_labels(self, tmp_path: Path) -> None:
        columns: dict[str, object] = {"image": [png(0), png(1)], "label": ["red", None]}
        source = open_source(self.write(tmp_path / "a.parquet", columns))
        assert [item.label for item in source.items] == ["red", None]
        source = open_source(self.write(tmp_path / "b.parquet", {"image": [png(0)], "label": [3]}))
        assert source.items[0].label == "3"

    def test_paths_that_repeat_are_no_ids(self, tmp_path: Path) -> None:
        images = [{"bytes": png(seed), "path": "same.png"} for seed in range(2)]
        source = open_source(self.write(tmp_path / "a.parquet", {"image": images}))
        assert [item.id for item in source.items] == ["a.parquet/0", "a.parquet/1"]

    def test_a_row_without_bytes_is_that_image_alone(self, tmp_path: Path) -> None:
        source = open_source(self.write(tmp_path / "a.parquet", {"image": [png(0), None]}))
        assert np.array_equal(pixels(source, 0), picture(0))
        with pytest.raises(ImageError, match="no image bytes"):
            source.read(1)

    def test_what_is_no_such_file(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no Parquet file"):
            open_source(f"parquet:{tmp_path / 'none.parquet'}")
        (tmp_path / "text.parquet").write_text("hello")
        with pytest.raises(FormatError, match="not a readable Parquet"):
            open_source(f"parquet:{tmp_path / 'text.parquet'}")
        with pytest.raises(InputError, match="column `image`"):
            open_source(self.write(tmp_path / "a.parquet", {"picture": [png(0)]}))
        with pytest.raises(InputError, match="column `image`"):
            open_source(self.write(tmp_path / "b.parquet", {"image": [1, 2]}))
        empty = self.write(tmp_path / "c.parquet", {"image": pa.array([], pa.binary())})
        with pytest.raises(InputError, match="no rows"):
            open_source(empty)


class TestCifar:
    def binary(self, folder: Path, head: int, names: list[str], each: int = 3) -> np.ndarray:
        images = pictures(each * len(names))
        for number, name in enumerate(names):
            rows = slice(number * each, (number + 1) * each)
            labels = np.arange(each * head, dtype=np.uint8).reshape(each, head) % 10
            np.concatenate([labels, by_channel(images[rows])], axis=1).tofile(folder / name)
        return images

    def test_binary_version(self, tmp_path: Path) -> None:
        images = self.binary(tmp_path, 1, [f"data_batch_{n}.bin" for n in range(1, 6)])
        source = open_source(f"cifar10:{tmp_path}")
        assert len(source.items) == 15
        assert source.items[4].id == "train/4"
        assert [item.label for item in source.items[:4]] == ["airplane", "automobile", "bird", "airplane"]
        for row in (0, 3, 14):
            assert np.array_equal(pixels(source, row), images[row])

    def test_hundred_classes_take_the_fine_label(self, tmp_path: Path) -> None:
        inner = tmp_path / "cifar-100-binary"
        inner.mkdir()
        images = self.binary(inner, 2, ["test.bin"])
        (inner / "fine_label_names.txt").write_text("\n".join(f"fine{n}" for n in range(100)))
        source = open_source(f"cifar100:{tmp_path}:test")
        assert [item.label for item in source.items] == ["fine1", "fine3", "fine5"]
        assert np.array_equal(pixels(source, 2), images[2])

    @pytest.mark.parametrize("protocol", [0, 2, 4])
    def test_python_version(self, tmp_path: Path, protocol: int) -> None:
        images = pictures(3)
        values = {b"data": by_channel(images), b"labels": [1, 2, 3], b"filenames": [b"a", b"b", b"c"]}
        (tmp_path / "test_batch").write_bytes(pickle.dumps(values, protocol=protocol))
        source = open_source(f"cifar10:{tmp_path}:test")
        assert [item.label for item in source.items] == ["automobile", "bird", "cat"]
        assert np.array_equal(pixels(source, 1), images[1])

    def test_a_pickle_that_calls_is_refused(self, tmp_path: Path) -> None:
        mark = tmp_path / "mark"

        class Hostile:
            def __reduce__(self) -> tuple[object, ...]:
                return os.mkdir, (str(mark),)

        (tmp_path / "test_batch").write_bytes(pickle.dumps({b"data": Hostile()}))
        with pytest.raises(FormatError, match="refused to load"):
            open_source(f"cifar10:{tmp_path}:test")
        assert not mark.exists()

    def test_damaged_and_absent_files(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no cifar10 train files"):
            open_source(f"cifar10:{tmp_path}")
        with pytest.raises(InputError, match="no folder"):
            open_source(f"cifar10:{tmp_path / 'none'}:test")
        (tmp_path / "test_batch.bin").write_bytes(b"x" * 5000)
        with pytest.raises(FormatError, match="damaged or incomplete"):
            open_source(f"cifar10:{tmp_path}:test")
        (tmp_path / "test_batch.bin").unlink()
        (tmp_path / "test_batch").write_bytes(pickle.dumps({b"data": [1, 2]}))
        with pytest.raises(FormatError, match="not a batch"):
            open_source(f"cifar10:{tmp_path}:test")

    @pytest.mark.skipif(not DATA.is_dir(), reason="needs the CIFAR-10 Parquet files beside the checkout")
    def test_the_real_set_in_two_halves(self) -> None:
        source = open_source(f"cifar10:{DATA}")
        assert len(source.items) == 50_000
        assert len({item.id for item in source.items}) == 50_000
        assert source.items[0].label == "frog"
        assert pixels(source, 49_999).shape == (32, 32, 3)
        assert len(open_source(f"cifar10:{DATA}:test").items) == 10_000


class TestStl10:
    def test_pictures_are_upright_and_labels_start_at_one(self, tmp_path: Path) -> None:
        images = pictures(3, 96)
        images.transpose(0, 3, 2, 1).tofile(tmp_path / "train_X.bin")
        np.array([1, 10, 2], np.uint8).tofile(tmp_path / "train_y.bin")
        source = open_source(f"stl10:{tmp_path}")
        assert [item.label for item in source.items] == ["airplane", "truck", "bird"]
        assert np.array_equal(pixels(source, 1), images[1])

    def test_unlabelled_split(self, tmp_path: Path) -> None:
        pictures(2, 96).transpose(0, 3, 2, 1).tofile(tmp_path / "unlabeled_X.bin")
        source = open_source(f"stl10:{tmp_path}:unlabeled")
        assert [item.label for item in source.items] == [None, None]
        with pytest.raises(InputError, match="no train_X"):
            open_source(f"stl10:{tmp_path}")


TWO_READERS = """
import sys, threading
import pyarrow as pa
from pathlib import Path
from vssl.images.datasets.parquet import ParquetSource

pa.set_cpu_count(1)
source = ParquetSource([Path(sys.argv[1])])

def read(turn):
    for step in range(1000):
        row = (step * 37 + turn * 191) % 400
        assert source.read(row) == bytes([row % 256]) * 3000

readers = [threading.Thread(target=read, args=(turn,), daemon=True) for turn in range(4)]
for reader in readers:
    reader.start()
for reader in readers:
    reader.join(20)
sys.exit(any(reader.is_alive() for reader in readers))
"""


def test_several_threads_read_where_arrow_has_one(tmp_path: Path) -> None:
    """As on a machine of one core: Arrow's readers there wait for each other for ever."""
    file = tmp_path / "images.parquet"
    images = [bytes([row % 256]) * 3000 for row in range(400)]
    pq.write_table(pa.table({"image": images, "label": [0] * 400}), file, row_group_size=20)
    done = subprocess.run([sys.executable, "-c", TWO_READERS, str(file)], check=False, timeout=100)
    assert done.returncode == 0
