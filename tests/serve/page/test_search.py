"""The search view: pictures in, neighbours and one honest sentence out, all of it in the address."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from tests.serve.page.conftest import World, noise
from tests.serve.running import Running

PASTE = """async ([id, type]) => {
  const files = new DataTransfer();
  files.items.add(new File([await (await fetch('thumbnails/' + id)).blob()], 'given.jpg', {type: 'image/jpeg'}));
  const event = type === 'paste'
    ? new ClipboardEvent('paste', {clipboardData: files, bubbles: true})
    : new DragEvent('drop', {dataTransfer: files, bubbles: true, cancelable: true});
  document.body.dispatchEvent(event);
}"""


def neighbours(page: Page) -> Locator:
    return page.get_by_role("list", name="Neighbours, nearest first").get_by_role("article")


def sentence(page: Page) -> Locator:
    return page.locator(".sentence")


def ids(page: Page) -> list[str]:
    return neighbours(page).locator("b[title]").evaluate_all("all => all.map(one => one.title)")


def level(page: Page) -> str:
    return (page.locator(".answer").get_attribute("class") or "").rsplit(maxsplit=1)[-1]


def test_a_chosen_picture_finds_its_neighbours(page: Page, page_server: Running, page_world: World) -> None:
    page.goto(f"{page_server.url}/ui")
    page.locator("input[type=file]").set_input_files(page_world.folder / "images" / page_world.ids[3])
    expect(neighbours(page)).to_have_count(12)
    assert ids(page)[0] == page_world.ids[3]
    first = neighbours(page).first
    expect(first.locator("img")).to_be_visible()
    expect(first).to_contain_text("match")
    expect(first).to_contain_text("distance 0")
    expect(first).to_contain_text("variance")
    expect(page.locator(".answer")).to_contain_text(
        re.compile(r"(less sure|surer) than .*\d+ % of the gallery")
    )


@pytest.mark.parametrize("how", ["paste", "drop"])
def test_a_picture_is_pasted_or_dropped(
    page: Page, page_server: Running, page_world: World, how: str
) -> None:
    page.goto(f"{page_server.url}/ui")
    page.get_by_role("button", name="Search for pictures similar").first.wait_for()
    page.evaluate(PASTE, [page_world.ids[5], how])
    expect(neighbours(page)).to_have_count(12)
    expect(page.get_by_role("list", name="What is searched for")).to_contain_text("×")


def test_a_picture_of_the_gallery_is_searched_with_and_left_out(page: Page, page_server: Running) -> None:
    page.goto(f"{page_server.url}/ui")
    page.get_by_role("button", name="Search for pictures similar").first.click()
    expect(neighbours(page)).to_have_count(12)
    start = ids(page)
    page.get_by_role("button", name=re.compile("^Similar to 2:")).click()
    expect(page).to_have_url(re.compile("like="))
    page.wait_for_function("id => !document.querySelector(`b[title='${id}']`)", arg=start[1])
    assert start[1] not in ids(page)


def test_plus_and_minus_move_the_question(page: Page, page_server: Running, page_world: World) -> None:
    red, blue = page_world.ids[0], page_world.ids[1]
    page.goto(f"{page_server.url}/ui#search?like={red}&k=20")
    expect(neighbours(page)).to_have_count(20)
    alone = ids(page)
    both = f"{page_server.url}/ui#search?like={red}&like={blue}&k=20"
    page.goto(both)
    page.wait_for_function("ids => document.querySelector('.hit b[title]').title !== ids[0]", arg=alone)
    assert "purple" in {one.split("/")[0] for one in ids(page)}  # what lies between red and blue
    page.get_by_role("button", name=f"Less like this: {blue}").click()
    page.wait_for_function(
        "() => [...document.querySelectorAll('.hit b[title]')].every(one => one.title.startsWith('red'))"
    )
    expect(page).to_have_url(re.compile("unlike=blue"))


def test_sliders_answer_as_they_move_and_a_link_shows_the_same(
    page: Page, page_server: Running, page_world: World
) -> None:
    page.goto(f"{page_server.url}/ui")
    page.locator("input[type=file]").set_input_files(page_world.folder / "images" / page_world.ids[3])
    expect(neighbours(page)).to_have_count(12)
    page.get_by_role("slider", name="Neighbours").fill("5")
    expect(neighbours(page)).to_have_count(5)
    page.get_by_label("Distance").select_option("wasserstein")
    expect(page).to_have_url(re.compile("k=5.*distance=wasserstein|distance=wasserstein.*k=5"))
    page.wait_for_function("() => !document.querySelector('.busy')")
    found, said = ids(page), sentence(page).inner_text()
    page.reload()
    expect(neighbours(page)).to_have_count(5)
    assert (ids(page), sentence(page).inner_text()) == (found, said)


def test_back_shows_the_question_before(page: Page, page_server: Running, page_world: World) -> None:
    page.goto(f"{page_server.url}/ui#search?like={page_world.ids[0]}")
    expect(neighbours(page)).to_have_count(12)
    before = ids(page)
    page.get_by_role("button", name=re.compile("^Similar to 3:")).click()
    page.wait_for_function("id => !document.querySelector(`b[title='${id}']`)", arg=before[2])
    page.go_back()
    page.wait_for_function("id => document.querySelector('.hit b[title]').title === id", arg=before[0])
    assert ids(page) == before


def given(page: Page, picture: np.ndarray) -> None:
    sink = io.BytesIO()
    Image.fromarray(picture).save(sink, "PNG")
    page.locator("input[type=file]").set_input_files(
        {"name": "given.png", "mimeType": "image/png", "buffer": sink.getvalue()}
    )


def test_a_clear_case_is_called_likely(page: Page, page_server: Running) -> None:
    page.goto(f"{page_server.url}/ui")
    given(page, noise(np.random.default_rng(7), "red", 10))
    expect(sentence(page)).to_contain_text(re.compile(r"^Likely “red”: .*12 neighbours agree"))
    assert level(page) == "sure"


def test_labels_that_mix_are_never_called_sure(page: Page, page_server: Running) -> None:
    page.goto(f"{page_server.url}/ui")
    given(page, noise(np.random.default_rng(3), "purple"))
    expect(page.locator(".vote")).to_have_count(2)
    assert level(page) in ("middling", "unsure")
    expect(sentence(page)).not_to_contain_text("Likely")
    expect(sentence(page)).to_contain_text(re.compile("several labels lie near|is unclear to the model"))


def test_an_answer_beyond_the_risk_is_marked(page: Page, page_server: Running) -> None:
    page.goto(f"{page_server.url}/ui#search?risk=1")
    given(page, noise(np.random.default_rng(3), "purple"))
    expect(sentence(page)).to_contain_text("Not to be trusted at a risk of 1 %")
    page.get_by_role("slider", name="Risk").fill("51")
    expect(sentence(page)).not_to_contain_text("Not to be trusted")


def test_a_disturbed_picture_is_asked_about_anew(page: Page, page_server: Running, page_world: World) -> None:
    page.goto(f"{page_server.url}/ui")
    page.locator("input[type=file]").set_input_files(page_world.folder / "images" / page_world.ids[3])
    expect(neighbours(page)).to_have_count(12)
    first = page.locator(".answer p.small").inner_text()
    page.get_by_text("Disturb it").click()
    page.get_by_label("Noise").fill("80")
    page.wait_for_function("text => document.querySelector('.answer p.small').innerText !== text", arg=first)
    page.get_by_role("button", name="Restore the original").click()
    page.wait_for_function("text => document.querySelector('.answer p.small').innerText === text", arg=first)


def test_a_server_without_a_gallery_shows_the_embedding(
    page: Page, page_world: World, tmp_path: Path
) -> None:
    from tests.serve.running import running

    with running(["--model", str(page_world.model)], tmp_path) as server:
        page.goto(f"{server.url}/ui")
        page.locator("input[type=file]").set_input_files(page_world.folder / "images" / page_world.ids[3])
        expect(sentence(page)).to_contain_text("Uncertainty")
        expect(page.get_by_role("img", name="Mean and standard deviation")).to_be_visible()
