"""The documents name places in the code that exist, and the README's map names every folder."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("vssl", "train", "export", "serve", "index")
MENTION = re.compile(r"`((?:vssl|train|export|serve|index)/[\w/]+\.py):([\w.]+)`")
ARCHITECTURE = ROOT / "docs" / "explanation" / "architecture.md"


def names(body: list[ast.stmt], prefix: str = "") -> set[str]:
    """Return the functions and classes of a module, methods as `Class.method`."""
    found = set()
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found.add(prefix + node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {prefix + node.name} | names(node.body, f"{prefix}{node.name}.")
    return found


@pytest.mark.parametrize(
    "document", sorted({ARCHITECTURE, ROOT / "README.md", *(ROOT / "docs").rglob("*.md")})
)
def test_what_a_document_names_is_there(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    missing = []
    for path, name in MENTION.findall(text):
        file = ROOT / path
        if not file.is_file() or name not in names(ast.parse(file.read_text(encoding="utf-8")).body):
            missing.append(f"{path}:{name}")
    paths = re.findall(r"`((?:vssl|train|export|serve|index|tests)/[\w/]*(?:\.py|/))`", text)
    missing += [path for path in paths if not (ROOT / path).exists()]
    assert missing == []


@pytest.mark.parametrize("section", ["POST /embed", "loop to the loss", "through a search"])
def test_a_path_is_ten_steps_that_each_name_a_place(section: str) -> None:
    text = ARCHITECTURE.read_text(encoding="utf-8")
    (walk,) = [part for part in text.split("\n## ")[1:] if section in part.splitlines()[0]]
    steps = re.findall(r"^(\d+)\. (.*)$", walk, re.MULTILINE)
    assert [int(number) for number, _ in steps] == list(range(1, 11))
    assert [step for _, step in steps if not re.search(r"\w+/[\w/]+\.py:", step)] == []


def test_the_ten_things_each_have_a_place() -> None:
    table = ARCHITECTURE.read_text(encoding="utf-8").partition("## Ten things to find")[2]
    rows = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| what |")]
    assert len(rows) == 10
    assert all(MENTION.search(row) for row in rows)


def test_the_readme_maps_every_folder() -> None:
    house = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Where things are")[2]
    house = house.partition("\n## ")[0]
    folders = {
        path.parent.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for name in ("*.py", "index.html")
        for path in (ROOT / package).rglob(name)
    }
    mapped, above = set(), ""
    for line in house.splitlines():
        found = re.match(r"^    (?:(\w+)/|  (\w[\w/]*)/) ", line)
        if found is None:
            continue
        if found[1]:
            above = found[1]
            mapped.add(above)
        else:
            mapped.add(f"{above}/{found[2]}")
    assert folders - mapped == set()
    assert {folder for folder in mapped if folder.split("/")[0] in PACKAGES} - folders == set()
