"""Pictures with captions -> one PNG: a row a query, its neighbours to the right.

Pure Pillow; the caller decides what the captions say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from vssl.errors import ImageError
from vssl.images.decode import decode

TILE, GAP, CAPTION, MARGIN, HEADER = 112, 10, 34, 20, 58
INK, PALE, PAPER, GOOD, BAD, QUERY = "#1c1f24", "#6b7280", "#ffffff", "#15803d", "#b91c1c", "#1d4ed8"
GREY = "#d1d5db"
Font = ImageFont.ImageFont | ImageFont.FreeTypeFont
FRAMES = {"good": GOOD, "bad": BAD, "query": QUERY, "": GREY}


@dataclass(frozen=True, eq=False)
class Tile:
    """One picture (any RGB size; None is drawn grey) with up to two caption lines; mark: see FRAMES."""

    picture: Image.Image | None
    lines: tuple[str, ...] = ()
    mark: str = ""


def read_picture(read: Callable[[], bytes]) -> Image.Image | None:
    """Return the picture of a file, as large as a tile needs it; None for one that cannot be read."""
    try:
        return decode(read(), min_side=2 * TILE)
    except (ImageError, OSError):
        return None


def contact_sheet(title: str, subtitle: str, rows: Sequence[Sequence[Tile]]) -> Image.Image:
    """Draw rows of tiles under a title; the first tile of a row stands apart as its query."""
    columns = max((len(row) for row in rows), default=1)
    width = 2 * MARGIN + columns * (TILE + GAP) + GAP
    height = HEADER + MARGIN + len(rows) * (TILE + CAPTION + GAP)
    title_font, small = ImageFont.load_default(18), ImageFont.load_default(12)
    width = max(width, 2 * MARGIN + int(max(title_font.getlength(title), small.getlength(subtitle))))
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, 12), title, fill=INK, font=title_font)
    draw.text((MARGIN, 36), subtitle, fill=PALE, font=small)
    for line, row in enumerate(rows):
        top = HEADER + line * (TILE + CAPTION + GAP)
        for column, tile in enumerate(row):
            left = MARGIN + column * (TILE + GAP) + (2 * GAP if column else 0)
            _draw_tile(sheet, draw, tile, left, top, small)
    return sheet


def _draw_tile(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, tile: Tile, left: int, top: int, font: Font
) -> None:
    picture = tile.picture or Image.new("RGB", (1, 1), GREY)
    scale = TILE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    # Small pictures are shown as the pixels they are.
    how = Image.Resampling.NEAREST if max(picture.size) <= 40 else Image.Resampling.LANCZOS
    shown = picture.resize(size, how)
    sheet.paste(shown, (left + (TILE - size[0]) // 2, top + (TILE - size[1]) // 2))
    draw.rectangle((left - 2, top - 2, left + TILE + 1, top + TILE + 1), outline=FRAMES[tile.mark], width=2)
    for number, text in enumerate(tile.lines[:2]):
        draw.text(
            (left, top + TILE + 3 + 15 * number),
            _fit(text, font),
            fill=INK if not number else PALE,
            font=font,
        )


def _fit(text: str, font: Font) -> str:
    """Shorten a caption from the left, where paths say least."""
    if font.getlength(text) <= TILE:
        return text
    while text and font.getlength("…" + text) > TILE:
        text = text[1:]
    return "…" + text
