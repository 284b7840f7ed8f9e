"""The demo's pictures: every digit, a split that never moves, copies that are corrupted and repeatable."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.tiny_model import picture
from vssl.cli import demo_images
from vssl.images.items import ImageItem
from vssl.images.sources import open_source


def test_the_digits_are_written_as_class_folders_of_real_pictures(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    assert demo_images.write_digits(tmp_path) == 1797
    source = open_source(tmp_path)
    assert len(source.items) == 1797
    assert {item.label for item in source.items} == set("0123456789")
    digits = load_digits()
    for item, row in [(item, int(Path(item.id).stem.split("_")[1])) for item in source.items[::97]]:
        assert item.label == str(digits.target[row])
        pixels = np.asarray(Image.open(item.path))
        assert np.array_equal(np.rint(pixels / (255 / 16)), digits.images[row])


def test_one_in_five_is_held_out_by_its_id_alone() -> None:
    held = [demo_images.is_held_out(f"folder/{n}.png") for n in range(2000)]
    assert 0.17 < np.mean(held) < 0.23
    assert held == [demo_images.is_held_out(f"folder/{n}.png") for n in range(2000)]


def test_corrupted_copies_keep_ids_and_labels_and_leave_out_what_is_no_image(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "cats"
    folder.mkdir(parents=True)
    Image.fromarray(picture(1)).save(folder / "a.png")
    (folder / "b.png").write_bytes(b"no image")
    source = open_source(tmp_path / "in")
    assert demo_images.write_corrupted(source, [0, 1], tmp_path / "out", tmp_path / "out.jsonl") == 1
    copies = open_source(f"list:{tmp_path / 'out.jsonl'}")
    assert [(i.id, i.label) for i in copies.items] == [("cats/a.png", "cats")]
    assert json.loads((tmp_path / "out.jsonl").read_text())["id"] == "cats/a.png"


def test_corrupting_is_repeatable_and_differs_by_id() -> None:
    original = Image.fromarray(picture(2, (64, 64)))
    first, again, other = (demo_images.corrupt(original, ImageItem(i, None, i)) for i in ("a", "a", "b"))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()
    difference = np.abs(np.asarray(first, float) - np.asarray(original, float)).mean()
    assert difference > 5


def test_tiny_pictures_are_enlarged_before_they_are_turned_and_large_ones_reduced() -> None:
    item = ImageItem("x", None, "x")
    assert demo_images.corrupt(Image.new("RGB", (8, 8)), item).size == (64, 64)
    assert demo_images.corrupt(Image.new("RGB", (512, 1024)), item).size == (128, 256)
