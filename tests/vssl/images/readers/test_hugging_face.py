"""Data sets of Hugging Face from a copy on this machine: splits, labels, pictures as they are stored."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.tiny_model import picture
from vssl.errors import ImageError, InputError
from vssl.images.sources import open_source

datasets: Any = pytest.importorskip("datasets")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two splits of labelled pictures, saved to disk; the third picture of the second is missing."""
    features = datasets.Features(
        {"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    )
    datasets.disable_progress_bars()
    pictures = [Image.fromarray(picture(number)) for number in range(4)]
    train = datasets.Dataset.from_dict({"img": pictures, "label": [0, 1, 0, 1]}, features=features)
    test = datasets.Dataset.from_dict({"img": [*pictures[:2], None], "label": [1, 1, 0]}, features=features)
    folder = tmp_path_factory.mktemp("data") / "pets"
    datasets.DatasetDict({"train": train, "test": test}).save_to_disk(folder)
    return folder


def test_the_training_split_comes_first_with_the_names_of_its_classes(saved: Path) -> None:
    source = open_source(f"hf-datasets:{saved}")
    assert [item.label for item in source.items] == ["cat", "dog", "cat", "dog"]
    assert [item.id for item in source.items] == [f"train/{row}" for row in range(4)]
    with Image.open(io.BytesIO(source.read(2))) as found:
        np.testing.assert_array_equal(np.asarray(found), picture(2))


def test_another_split_is_named_and_a_row_without_a_picture_is_a_failure(saved: Path) -> None:
    source = open_source(f"hf-datasets:{saved}:test")
    assert [item.label for item in source.items] == ["dog", "dog", "cat"]
    with pytest.raises(ImageError, match="holds no image bytes"):
        source.read(2)
    with pytest.raises(InputError, match="found the splits"):
        open_source(f"hf-datasets:{saved}:validation")


def test_one_split_alone_and_a_folder_of_parquet_are_read_too(saved: Path, tmp_path: Path) -> None:
    assert len(open_source(f"hf-datasets:{saved / 'test'}").items) == 3
    (tmp_path / "repository").mkdir()
    datasets.load_from_disk(str(saved))["train"].to_parquet(tmp_path / "repository" / "train-00000.parquet")
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        source = open_source(f"hf-datasets:{tmp_path / 'repository'}")
    assert [item.label for item in source.items] == ["cat", "dog", "cat", "dog"]


def test_what_is_no_data_set_says_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="expected a folder that save_to_disk wrote"):
        open_source(f"hf-datasets:{tmp_path / 'empty'}")
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "texts")
    with pytest.raises(InputError, match="none of pictures"):
        open_source(f"hf-datasets:{tmp_path / 'texts'}")
