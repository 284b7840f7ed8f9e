"""The curation view: lists to look at, and what is done with a choice, which can be undone."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from index.gallery.folder.gallery import FolderGallery
from tests.serve.page.conftest import COUNT, World
from tests.serve.running import Running, running
from vssl.images.sources import open_source


@pytest.fixture(scope="module")
def gallery(page_world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(page_world.gallery, tmp_path_factory.mktemp("curate") / "gallery")


@pytest.fixture(scope="module")
def server(page_world: World, gallery: Path) -> Iterator[Running]:
    with running(page_world.arguments(gallery), gallery.parent) as it:
        yield it


def items(page: Page) -> Locator:
    return page.locator("main ol").get_by_role("article")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Duplicates", "the same"),
        ("Least sure", "uncertainty"),
        ("Outliers", "farther than"),
        ("Label suspects", "neighbours say"),
        ("Label next", "uncertainty"),
    ],
)
def test_each_list_says_why_something_is_on_it(page: Page, server: Running, name: str, told: str) -> None:
    page.goto(f"{server.url}/ui#curate")
    page.get_by_role("navigation", name="Lists").get_by_role("link", name=name).click()
    expect(items(page).first).to_be_visible()
    expect(page.locator("main ol li").first).to_contain_text(told)
    expect(page.get_by_role("link", name=name)).to_have_attribute("aria-current", "page")


def test_keeping_one_of_a_pair_chooses_the_other(page: Page, server: Running) -> None:
    page.goto(f"{server.url}/ui#curate")
    pair = page.locator(".pair").first
    pair.get_by_role("button", name="Keep").first.click()
    boxes = pair.get_by_role("checkbox")
    expect(boxes.nth(0)).not_to_be_checked()
    expect(boxes.nth(1)).to_be_checked()
    expect(page.get_by_text("1 chosen")).to_be_visible()


def test_a_removal_asks_first_and_is_undone(page: Page, server: Running, gallery: Path) -> None:
    def stored() -> int:
        with FolderGallery.open(gallery, read_only=True) as opened:
            return len(opened)

    page.goto(f"{server.url}/ui#curate?list=outliers")
    first = items(page).first.locator("b").get_attribute("title")
    items(page).first.get_by_role("checkbox").check()
    page.get_by_role("button", name="Remove").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    assert stored() == COUNT
    page.get_by_role("button", name="Remove").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    undo = page.get_by_role("button", name="Undo: put 1 back")
    expect(undo).to_be_visible()
    page.wait_for_function("id => document.querySelector('main ol b')?.title !== id", arg=first)
    assert stored() == COUNT - 1
    undo.click()
    page.wait_for_function("id => document.querySelector('main ol b')?.title === id", arg=first)
    expect(undo).to_be_hidden()
    assert stored() == COUNT


def test_a_tag_becomes_a_filter(page: Page, server: Running) -> None:
    page.goto(f"{server.url}/ui#gallery")
    grid = page.get_by_role("listbox")
    expect(page.locator("[aria-posinset='3'] img")).to_be_visible()
    page.get_by_role("button", name="Choose", exact=True).click()
    page.locator("[aria-posinset='1']").click()
    page.locator("[aria-posinset='3']").click()
    expect(page.get_by_text("2 chosen")).to_be_visible()
    page.locator("summary", has_text="Tag").click()
    page.get_by_role("textbox", name="Tag").fill("later")
    page.get_by_role("button", name="Add to the chosen").click()
    page.locator(".facets details", has_text="tag.later").get_by_role("checkbox", name="true").check()
    expect(page.locator(".toolbar p")).to_have_text(f"2 of {COUNT} pictures")
    expect(grid.get_by_role("option")).to_have_count(2)


def test_a_choice_is_exported_as_a_list_that_extract_reads(
    page: Page, server: Running, tmp_path: Path
) -> None:
    page.goto(f"{server.url}/ui#gallery?.maker=bob")
    shown = len(range(1, COUNT, 3))
    expect(page.locator(".toolbar p")).to_have_text(f"{shown} of {COUNT} pictures")
    page.get_by_role("button", name="All shown").click()
    page.locator("summary", has_text="Export").click()
    with page.expect_download() as download:
        page.get_by_role("button", name=re.compile("^List for")).click()
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    assert len(open_source(f"list:{file}").items) == shown


def test_a_read_only_gallery_stays_so(
    page: Page, server: Running, page_world: World, gallery: Path, tmp_path: Path
) -> None:
    with running(page_world.arguments(gallery), tmp_path) as second:  # the first one holds the right to write
        page.goto(f"{second.url}/ui#curate?list=outliers")
        expect(items(page).first).to_be_visible()
        expect(page.get_by_text("read-only")).to_be_visible()
        expect(page.get_by_role("button", name="Remove")).to_be_hidden()
        expect(page.locator("summary", has_text="Tag")).to_be_hidden()
