"""The gallery view: filters keep what they say, the grid scrolls through all of it, a picture opens."""

from __future__ import annotations

import re

from playwright.sync_api import Locator, Page, expect

from tests.serve.page.conftest import COUNT, World
from tests.serve.running import Running


def grid(page: Page) -> Locator:
    return page.get_by_role("listbox", name="Pictures of the gallery")


def shown(page: Page) -> Locator:
    return page.locator(".toolbar p")


def test_the_grid_shows_all_and_makes_only_what_is_in_sight(page: Page, page_server: Running) -> None:
    page.goto(f"{page_server.url}/ui#gallery")
    expect(shown(page)).to_have_text(f"{COUNT} pictures")
    expect(grid(page).get_by_role("option").first).to_have_attribute("aria-setsize", str(COUNT))
    assert grid(page).get_by_role("option").count() < COUNT / 2
    grid(page).evaluate("grid => { grid.scrollTop = grid.scrollHeight }")
    last = page.locator(f"[aria-posinset='{COUNT}']")
    expect(last.locator("img")).to_be_visible()
    expect(last).to_have_attribute("title", re.compile(rf"/{COUNT - 1}\.png$"))


def test_filters_of_every_kind_join_and_stand_in_the_address(page: Page, page_server: Running) -> None:
    page.goto(f"{page_server.url}/ui#gallery")
    page.get_by_role("checkbox", name="ann").check()
    expected = len(range(0, COUNT, 3))
    expect(shown(page)).to_have_text(f"{expected} of {COUNT} pictures")
    page.get_by_role("slider", name="year: at least").fill("200")  # the right end: the year 2024
    both = len([n for n in range(0, COUNT, 3) if 2000 + n % 25 == 2024])
    expect(shown(page)).to_have_text(f"{both} of {COUNT} pictures")
    expect(page).to_have_url(re.compile(r"\.maker=ann"))
    page.reload()
    expect(shown(page)).to_have_text(f"{both} of {COUNT} pictures")
    expect(page.get_by_role("checkbox", name="ann")).to_be_checked()
    page.get_by_role("button", name="No filter").click()
    expect(shown(page)).to_have_text(f"{COUNT} pictures")


def test_the_least_sure_come_first_when_asked(page: Page, page_server: Running) -> None:
    page.goto(f"{page_server.url}/ui#gallery?sort=-uncertainty")
    first = page.locator("[aria-posinset='1']")
    expect(first).to_have_attribute("aria-label", re.compile("uncertainty"))
    values = page.evaluate(
        """async () => [...new Float32Array(await (await fetch('columns/uncertainty')).arrayBuffer())]"""
    )
    said = float(re.search(r"uncertainty ([\d.]+)", first.get_attribute("aria-label") or "")[1])  # type: ignore[index]
    assert abs(said - max(values)) < 0.01 * max(values)


def test_a_picture_opens_with_what_is_known_and_its_neighbours(
    page: Page, page_server: Running, page_world: World
) -> None:
    page.goto(f"{page_server.url}/ui#gallery")
    page.locator("[aria-posinset='5']").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(page_world.ids[4])
    expect(dialog).to_contain_text("maker")
    expect(dialog).to_contain_text("% of the gallery")
    expect(dialog.locator(".near button")).to_have_count(8)
    dialog.get_by_role("link", name="Search with this").click()
    expect(page).to_have_url(re.compile("#search.like="))
    expect(page.get_by_role("article")).to_have_count(12)


def test_keys_move_choose_and_open(page: Page, page_server: Running, page_world: World) -> None:
    page.goto(f"{page_server.url}/ui#gallery")
    expect(page.locator("[aria-posinset='1'] img")).to_be_visible()
    grid(page).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    expect(page.locator("[aria-posinset='2']")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    expect(page.get_by_text("3 chosen")).to_be_visible()
    page.keyboard.press("End")
    expect(page.locator(f"[aria-posinset='{COUNT}']")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text(page_world.ids[-1])
    page.keyboard.press("Escape")
    expect(grid(page)).to_be_focused()
