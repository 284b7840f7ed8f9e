"""A contact sheet shows every tile, framed by what it is, and never runs out of its picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageFont

from vssl.images.contact_sheet import FRAMES, GREY, TILE, Tile, _fit, contact_sheet, read_picture


def colours(sheet: Image.Image) -> set[str]:
    pixels = np.asarray(sheet).reshape(-1, 3)
    return {"#{:02x}{:02x}{:02x}".format(*p) for p in np.unique(pixels, axis=0)}


def test_pictures_and_frames_of_every_mark_are_drawn() -> None:
    flat = {name: Image.new("RGB", (10, 20), name) for name in ("#123456", "#654321", "#0a0b0c")}
    marks = ("query", "good", "bad")
    row = [Tile(p, ("caption", "more"), mark) for p, mark in zip(flat.values(), marks, strict=True)]
    found = colours(contact_sheet("title", "subtitle", [row]))
    assert set(flat) <= found
    assert {FRAMES[mark] for mark in marks} <= found


def test_rows_of_different_length_and_no_rows_are_fine() -> None:
    tile = Tile(Image.new("RGB", (5, 5)))
    assert contact_sheet("t", "s", [[tile], [tile] * 4]).width > contact_sheet("t", "s", [[tile]]).width
    assert contact_sheet("t", "s", []).height > 0


def test_a_file_that_cannot_be_read_is_a_grey_tile(tmp_path: Path) -> None:
    (tmp_path / "torn.jpg").write_bytes(b"no picture")
    pictures = [read_picture((tmp_path / name).read_bytes) for name in ("torn.jpg", "gone.jpg")]
    assert pictures == [None, None]
    sheet = np.asarray(contact_sheet("t", "s", [[Tile(None, ("not readable",))]]))
    grey = tuple(bytes.fromhex(GREY[1:]))
    assert int((sheet == grey).all(axis=2).sum()) >= TILE * TILE


def test_long_captions_are_cut_from_the_left_to_the_tile() -> None:
    font = ImageFont.load_default(12)
    cut = _fit("a/very/long/path/that/does/not/fit/picture.png", font)
    assert cut.startswith("…")
    assert cut.endswith("picture.png")
    assert font.getlength(cut) <= TILE
    assert _fit("short", font) == "short"
