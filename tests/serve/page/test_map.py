"""The map: a point is the picture that is stored, what is circled is listed, a question lands amid its own."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from index.curation.projection import GalleryMap, read_map
from tests.serve.page.conftest import COUNT, World
from tests.serve.running import Running, running, until


@pytest.fixture
def known(page_world: World) -> GalleryMap:
    found = read_map(page_world.gallery)
    assert found is not None
    return found


def on_screen(page: Page, known: GalleryMap) -> np.ndarray:
    """Return where the points stand on the page (N, 2), as the map shows all of them."""
    box = page.locator(".map-canvas").bounding_box()
    assert box is not None
    low, high = known.places.min(axis=0), known.places.max(axis=0)
    inner = page.locator(".map-canvas").evaluate("it => [it.clientWidth, it.clientHeight]")
    zoom = 0.94 * min(np.array(inner) / (high - low))
    apart = (known.places - (low + high) / 2) * zoom * (1, -1)
    return apart + np.array([box["x"] + box["width"] / 2, box["y"] + box["height"] / 2])


def lone(points: np.ndarray) -> int:
    """Return the point that is farthest from any other."""
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    return int(apart.min(axis=1).argmax())


def opened(page: Page, url: str) -> None:
    page.goto(url)
    expect(page.locator(".toolbar p").first).to_have_text(f"{COUNT} of {COUNT} pictures on the map")


def test_pointing_shows_the_picture_and_a_press_opens_it(
    page: Page, page_server: Running, page_world: World, known: GalleryMap
) -> None:
    opened(page, f"{page_server.url}/ui#map")
    points = on_screen(page, known)
    row = lone(points)
    page.mouse.move(*points[row])
    expect(page.locator(".preview img")).to_be_visible()
    page.mouse.down()
    page.mouse.up()
    expect(page.get_by_role("dialog")).to_contain_text(known.ids[row])


def test_points_are_drawn_where_they_stand(page: Page, page_server: Running, known: GalleryMap) -> None:
    opened(page, f"{page_server.url}/ui#map?colour=label")
    points = on_screen(page, known)
    x, y = points[lone(points)]
    left, top = points.min(axis=0) - 8

    def shown(left: float, top: float) -> bytes:
        return page.screenshot(clip={"x": left, "y": top, "width": 4, "height": 4})

    until(lambda: shown(x - 2, y - 2) != shown(left, top))  # there is nothing beyond the outermost points


def test_what_is_circled_becomes_a_grid(page: Page, page_server: Running, known: GalleryMap) -> None:
    opened(page, f"{page_server.url}/ui#map")
    points = on_screen(page, known)
    middle = float(np.median(points[:, 0])) + 0.5
    left = points[:, 0] < middle
    page.get_by_role("button", name="Circle").click()
    corners = [(points[:, 0].min() - 6, points[:, 1].min() - 6), (middle, points[:, 1].min() - 6)]
    corners += [(middle, points[:, 1].max() + 6), (points[:, 0].min() - 6, points[:, 1].max() + 6)]
    page.mouse.move(*corners[0])
    page.mouse.down()
    for corner in corners[1:]:
        page.mouse.move(*corner, steps=4)
    page.mouse.up()
    listed = page.get_by_role("listbox", name=f"Circled pictures: {int(left.sum())}")
    expect(listed.get_by_role("option").first.locator("img")).to_be_visible()
    title = listed.get_by_role("option").first.get_attribute("title")
    assert left[known.ids.index(title or "")]
    page.get_by_role("button", name="Close the list").click()
    expect(listed).to_be_hidden()


def test_colours_have_a_legend_and_stand_in_the_address(page: Page, page_server: Running) -> None:
    opened(page, f"{page_server.url}/ui#map")
    expect(page.get_by_label("Colour", exact=True)).to_have_value("match risk")
    page.get_by_label("Colour", exact=True).select_option("maker")
    expect(page.locator(".legend li")).to_have_count(3)
    expect(page).to_have_url(re.compile("colour=maker"))
    page.reload()
    expect(page.locator(".legend li")).to_have_count(3)


def test_filters_count_and_a_question_lands_on_it(
    page: Page, page_server: Running, page_world: World
) -> None:
    red = next(id_ for id_ in page_world.ids if id_.startswith("red"))
    page.goto(f"{page_server.url}/ui#search?like={red}")
    page.get_by_role("link", name="Show where it lands on the map").click()
    expect(page.get_by_text(re.compile("^The question lands amid red"))).to_be_visible()
    page.get_by_role("checkbox", name="ann").check()
    shown = len(range(0, COUNT, 3))
    expect(page.locator(".toolbar p").first).to_have_text(f"{shown} of {COUNT} pictures on the map")


def test_keys_move_the_map(page: Page, page_server: Running, known: GalleryMap) -> None:
    opened(page, f"{page_server.url}/ui#map?colour=label")
    before = page.locator(".map-canvas").screenshot()
    page.locator(".map-canvas").focus()
    page.keyboard.press("+")
    page.keyboard.press("ArrowLeft")
    until(lambda: page.locator(".map-canvas").screenshot() != before)


def test_a_gallery_without_a_map_says_how_to_make_one(page: Page, page_world: World, tmp_path: Path) -> None:
    gallery = shutil.copytree(page_world.gallery, tmp_path / "gallery")
    (gallery / "derived" / "map.parquet").unlink()
    with running(page_world.arguments(gallery), tmp_path) as server:
        page.goto(f"{server.url}/ui#map")
        expect(page.get_by_text("vssl gallery map GALLERY")).to_be_visible()
