"""How the page behaves: errors that say what to do, keys, keyboards, screen readers, and no request elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.serve.page.conftest import Visit, Visitor, World
from tests.serve.running import PATIENCE_S, Running, running

BROKEN = {"name": "broken.png", "mimeType": "image/png", "buffer": b"\x89PNG\r\n\x1a\n and no more"}
TEXT = {"name": "notes.png", "mimeType": "image/png", "buffer": b"no picture at all, only words"}
LARGE = {"name": "large.png", "mimeType": "image/png", "buffer": b"\x89PNG\r\n\x1a\n" + bytes(400_000)}
SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}


def addresses(world: World) -> dict[str, str]:
    return {
        "empty": "#search",
        "answer": f"#search?like={world.ids[4]}&unlike={world.ids[9]}",
        "gallery": "#gallery?.maker=ann&sort=-uncertainty",
        "map": f"#map?colour=label&like={world.ids[4]}",
        "duplicates": "#curate",
        "suspects": "#curate?list=suspects",
    }


def settle(page: Page) -> None:
    """Wait until what a view loads is there."""
    page.wait_for_function("() => document.querySelector('main').childElementCount > 0")
    page.wait_for_load_state("networkidle")


@pytest.mark.parametrize(
    ("file", "told"),
    [
        (BROKEN, "broken.png: The picture is damaged"),
        (TEXT, "notes.png: That is no picture this server reads"),
        (LARGE, "large.png: The picture is too large for this server"),
    ],
    ids=["broken", "text", "large"],
)
def test_a_bad_picture_is_named_and_nothing_else_is_lost(
    page: Page, page_server: Running, page_world: World, file: dict[str, object], told: str
) -> None:
    page.goto(f"{page_server.url}/ui#search?like={page_world.ids[0]}")
    expect(page.get_by_role("article")).to_have_count(12)
    page.locator("input[type=file]").set_input_files(file)  # type: ignore[arg-type]
    expect(page.get_by_role("alert")).to_contain_text(told)
    expect(page.get_by_role("article")).to_have_count(12)
    page.get_by_role("button", name="Close").or_(page.get_by_role("button", name="Try again")).click()


def test_a_server_that_is_gone_is_told_and_tried_again(page: Page, page_world: World, tmp_path: Path) -> None:
    with running(page_world.arguments(), tmp_path) as server:
        page.goto(f"{server.url}/ui")
        page.get_by_role("button", name="Search for pictures similar").first.wait_for()
        server.terminate()
        page.get_by_role("button", name="Search for pictures similar").first.click()
        expect(page.get_by_role("alert")).to_contain_text(
            "The server does not answer. Start it again (vssl serve)"
        )
        expect(page.get_by_role("button", name="Try again")).to_be_visible()


def test_a_key_is_asked_for_once(visitor: Visitor, page_world: World, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("right\n")
    with running([*page_world.arguments(), "--api-key-file", str(keys)], tmp_path) as server:
        page = visitor().page
        page.goto(f"{server.url}/ui#search?like={page_world.ids[0]}")
        key = page.get_by_label("API key", exact=True)
        key.fill("wrong")
        page.get_by_role("button", name="Use this key").click()
        expect(page.get_by_text("The server does not accept that key")).to_be_visible()
        key.fill("right")
        page.get_by_role("button", name="Use this key").click()
        expect(page.get_by_role("article")).to_have_count(12)
        expect(page.locator(".hit img").first).to_be_visible()
        page.reload()
        expect(page.get_by_role("article")).to_have_count(12)
        expect(key).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", list(SIZES))
def test_no_serious_accessibility_faults(
    visitor: Visitor, page_server: Running, page_world: World, size: str, scheme: str
) -> None:
    page = visitor(viewport=SIZES[size], color_scheme=scheme).page
    for name, address in addresses(page_world).items():
        page.goto(f"{page_server.url}/ui{address}")
        settle(page)
        found = Axe().run(page).response["violations"]
        serious = [
            f"{one['id']}: {one['nodes'][0]['html'][:160]}"
            for one in found
            if one["impact"] in ("serious", "critical")
        ]
        assert serious == [], name
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{name} is wider than the screen by {wide} px"


def test_everything_comes_from_this_server_and_nothing_is_refused(
    visit: Visit, page_server: Running, page_world: World
) -> None:
    for address in addresses(page_world).values():
        visit.page.goto(f"{page_server.url}/ui{address}")
        settle(visit.page)
    visit.page.goto(f"{page_server.url}/docs")
    settle(visit.page)
    allowed = (f"{page_server.url}/", f"blob:{page_server.url}/", "data:,")
    assert [url for url in visit.requests if not url.startswith(allowed)] == []
    assert visit.complaints == []


def focused(page: Page) -> str:
    return str(
        page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.innerText")
    )


def tab_to(page: Page, wanted: str) -> None:
    for _ in range(80):
        page.keyboard.press("Tab")
        if re.search(wanted, focused(page)):
            return
    pytest.fail(f"{wanted} is not reached with Tab")


def test_the_keyboard_is_enough(page: Page, page_server: Running) -> None:
    page.goto(f"{page_server.url}/ui")
    page.get_by_role("button", name="Search for pictures similar").first.wait_for()
    tab_to(page, "^Skip to the content")
    tab_to(page, "^Drop a picture")
    tab_to(page, "^Search for pictures similar")
    page.keyboard.press("Enter")
    expect(page.get_by_role("article")).to_have_count(12)
    page.get_by_role("slider", name="Neighbours").focus()
    page.keyboard.press("Home")
    expect(page.get_by_role("article")).to_have_count(1)
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("article")).to_have_count(2)
    tab_to(page, "^Similar to 2")
    page.keyboard.press("Enter")
    expect(page.get_by_role("list", name="What is searched for").get_by_role("listitem")).to_have_count(2)


@pytest.mark.parametrize(
    "id_", ["../../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "/etc/passwd"]
)
def test_thumbnails_show_no_other_file(page_server: Running, id_: str) -> None:
    target = httpx.URL(page_server.url).copy_with(raw_path=f"/thumbnails/{id_}".encode())
    with httpx.Client(timeout=PATIENCE_S) as client:
        answer = client.get(target)
    assert answer.status_code == 404
    assert b"root:" not in answer.content


def test_an_id_with_dots_leads_to_no_other_item(page: Page, page_server: Running) -> None:
    page.goto(f"{page_server.url}/ui")
    asked = """async (id) => {
        const { itemPath } = await import("/ui/app/server.js");
        return await (await fetch(itemPath("gallery", id))).json();
    }"""
    (item,) = httpx.get(f"{page_server.url}/items?rows=0").json()["items"]
    assert page.evaluate(asked, item["id"])["id"] == item["id"]
    dotted = f"dots/../{item['id']}"
    assert repr(dotted) in page.evaluate(asked, dotted)["error"]["message"]
