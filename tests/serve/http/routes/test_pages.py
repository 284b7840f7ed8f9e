"""The pages: every file has a route, nothing stands in them that a strict policy forbids, nothing else is read."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[4] / "serve" / "page"
FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.*"))
SCRIPTS = [name for name in FILES if name.endswith(".js")]


@pytest.mark.parametrize("path", ["/", "/ui", "/docs"])
def test_a_page_allows_scripts_and_styles_of_this_server_only(http: httpx.Client, path: str) -> None:
    answer = http.get(path)
    assert answer.headers["content-type"].startswith("text/html")
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert not re.search(r"""(src|href)=["'](https?:)?//""", answer.text)
    assert not re.search(r"<style|<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=", answer.text)


@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith(".html")])
def test_what_pages_load_is_served_with_its_type(http: httpx.Client, name: str) -> None:
    answer = http.get(f"/ui/{name}")
    assert answer.status_code == 200
    assert answer.content == (ROOT / name).read_bytes()
    assert answer.headers["content-type"].startswith(
        "text/javascript" if name.endswith(".js") else "text/css"
    )


def test_a_page_names_only_files_that_are_there(http: httpx.Client) -> None:
    for path in ("/ui", "/docs"):
        for name in re.findall(r'(?:src|href)="(ui/[^"]+)"', http.get(path).text):
            assert http.get(f"/{name}").status_code == 200


def test_a_browser_that_has_a_file_is_told_so(http: httpx.Client) -> None:
    first = http.get("/ui/app/main.js")
    etag = first.headers["etag"]
    for known in (etag, f"W/{etag}", f'"another", {etag}'):  # a proxy that compresses makes it W/
        again = http.get("/ui/app/main.js", headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
    for other in ('"another"', etag[:-2] + '"', ""):
        assert http.get("/ui/app/main.js", headers={"If-None-Match": other}).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/ui/../service.py", "/ui/%2e%2e/service.py", "/ui/app/../../service.py", "/ui/app/", "/ui/app/none.js"],
)
def test_no_other_file_is_served(http: httpx.Client, path: str) -> None:
    assert http.get(path).status_code == 404


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_whole_modules_of_a_readable_length(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert text.startswith("// ")
    assert len(text.splitlines()) <= 300
    assert not re.search(r"\beval\(|new Function|innerHTML|document\.write|https?://", text)


def test_a_folder_of_the_page_has_at_most_nine_entries() -> None:
    assert all(
        len(list(folder.iterdir())) <= 9 for folder in (ROOT, *(p for p in ROOT.rglob("*") if p.is_dir()))
    )
