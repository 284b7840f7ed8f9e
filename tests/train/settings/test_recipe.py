"""Settings are merged in order, and "auto" is derived from the images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from train.settings.recipe import load_recipe, merge, plan, read_settings
from vssl.errors import InputError
from vssl.images.items import ImageSource
from vssl.images.sources import open_source


def folder(root: Path, side: int, count: int = 64) -> ImageSource:
    root.mkdir()
    for number in range(count):
        picture = np.full((side, side + number % 5, 3), number % 256, np.uint8)
        Image.fromarray(picture).save(root / f"{number}.png")
    return open_source(root)


def test_later_settings_win(tmp_path: Path) -> None:
    source = folder(tmp_path / "a", 32)
    settings = {"epochs": 7, "augment": {"rotate": 5}, "network": {"dim": 9}}
    config = plan(source, "small", settings, {"epochs": 3})
    assert config.epochs == 3
    assert config.network.dim == 9
    assert config.network.width == load_recipe("small")["network"]["width"]
    assert config.recipe == "small"


def test_the_second_view_states_what_differs(tmp_path: Path) -> None:
    config = plan(folder(tmp_path / "a", 32), "small", {"augment": {"rotate": 5}})
    assert config.augment.rotate == config.augment_second.rotate == 5.0
    assert config.augment.solarise == 0.0
    assert config.augment_second.solarise == 0.2


@pytest.mark.parametrize(("side", "size", "cache"), [(8, 16, 16), (30, 32, 32), (60, 32, 48), (300, 32, 48)])
def test_the_size_follows_the_images(tmp_path: Path, side: int, size: int, cache: int) -> None:
    config = plan(folder(tmp_path / "a", side, 9), "folder")
    assert (config.size, config.cache_size) == (size, cache)


def test_many_large_images_are_seen_larger(tmp_path: Path) -> None:
    folder(tmp_path / "a", 300, 1)
    entries = [json.dumps({"path": "a/0.png", "id": str(n), "label": None}) for n in range(4000)]
    (tmp_path / "many.jsonl").write_text("\n".join(entries))
    config = plan(open_source(f"list:{tmp_path / 'many.jsonl'}"), "folder")
    assert (config.size, config.cache_size) == (64, 96)


def test_small_sets_get_small_batches_and_more_epochs(tmp_path: Path) -> None:
    small, large = (plan(folder(tmp_path / str(n), 16, n), "folder") for n in (70, 600))
    assert small.batch_size == 8
    assert large.batch_size == 64
    assert small.epochs > large.epochs


def test_merging_goes_down_into_tables() -> None:
    assert merge({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 4}, "d": 5}) == {"a": {"b": 4, "c": 2}, "d": 5}


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="recipe: found 'none', expected one of"):
        load_recipe("none")
    with pytest.raises(InputError, match="cannot read the settings"):
        read_settings(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("epochs = = 3")
    with pytest.raises(InputError, match="not valid TOML"):
        read_settings(tmp_path / "bad.toml")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").write_text("no picture")
    with pytest.raises(InputError, match="none of 1 images looked at can be read"):
        plan(open_source(tmp_path / "b"), "folder")
