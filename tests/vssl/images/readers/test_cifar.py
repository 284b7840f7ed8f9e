"""CIFAR is read in every version its makers publish, and a hostile pickle is refused."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.tiny_model import picture
from vssl.errors import FormatError, InputError
from vssl.images.items import ImageSource
from vssl.images.sources import open_source

DATA = Path(__file__).resolve().parents[4] / ".." / "shared" / "data" / "cifar10"


def pixels(source: ImageSource, row: int) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(source.read(row))))


def pictures(count: int, side: int = 32) -> np.ndarray:
    return np.stack([picture(seed, (side, side)) for seed in range(count)])


def by_channel(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


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

    def test_hundred_classes_of_the_python_version_are_named_by_its_meta_file(self, tmp_path: Path) -> None:
        inner = tmp_path / "cifar-100-python"
        inner.mkdir()
        images = pictures(3)
        values = {b"data": by_channel(images), b"fine_labels": [5, 0, 99], b"coarse_labels": [0, 0, 0]}
        (inner / "test").write_bytes(pickle.dumps(values))
        names = [f"fine{n}".encode() for n in range(100)]
        (inner / "meta").write_bytes(pickle.dumps({b"fine_label_names": names}))
        source = open_source(f"cifar100:{tmp_path}:test")
        assert [item.label for item in source.items] == ["fine5", "fine0", "fine99"]
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

    @pytest.mark.skipif(not DATA.is_dir(), reason="needs the CIFAR-10 Parquet files next to the checkout")
    def test_the_real_set_in_two_halves(self) -> None:
        source = open_source(f"cifar10:{DATA}")
        assert len(source.items) == 50_000
        assert len({item.id for item in source.items}) == 50_000
        assert source.items[0].label == "frog"
        assert pixels(source, 49_999).shape == (32, 32, 3)
        assert len(open_source(f"cifar10:{DATA}:test").items) == 10_000
