"""STL-10's pictures stand upright and carry the right labels."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.tiny_model import picture
from vssl.errors import InputError
from vssl.images.items import ImageSource
from vssl.images.sources import open_source


def pixels(source: ImageSource, row: int) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(source.read(row))))


def pictures(count: int, side: int = 32) -> np.ndarray:
    return np.stack([picture(seed, (side, side)) for seed in range(count)])


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
