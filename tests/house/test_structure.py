"""How the packages are built: what holds for every module of them, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Collection
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import LONG, TESTS, pytest_collection_modifyitems

ROOT = Path(__file__).parents[2]
PACKAGES = ("vssl", "train", "export", "serve", "index")


def modules(package: str) -> dict[str, Path]:
    """Return the modules of a package by name."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, own: Collection[str]) -> set[str]:
    """Return which of the modules `own` a module imports, also inside functions and for types only."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                names.add(inner if inner in own else node.module)
    return names & set(own)


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """Return the modules of one cycle, the first again at the end; none where there is no cycle."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_modules_import_each_other_in_a_circle(package: str) -> None:
    own = modules(package)
    graph = {name: imported(path, own) - {name} for name, path in own.items()}
    assert cycle(graph) == []


def test_a_circle_is_found() -> None:
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": set()}) != []
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


FOREIGN_PRIVATE = {
    "torch._foreach_": "one kernel for all tensors of a list; torch's own optimisers are built on it",
    "torch.nn.modules.batchnorm._BatchNorm": "the one base of batch norms of any rank",
}
PUBLIC_BY_PROMISE = {
    "_asdict",
    "_replace",
    "_fields",
    "_make",
}  # of named tuples, which cannot have other names


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def defined(tree: ast.AST) -> set[str]:
    """Return the names that a module defines or assigns, attributes included."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def foreign_private(tree: ast.AST, own: Collection[str]) -> list[str]:
    """Return the private names of other projects that a module uses, as dotted names.

    Modules and names that begin with an underscore in an import; such attributes of what is imported;
    and such attributes of any object when none of our packages defines one of that name (`own`).
    """
    found, imports = [], dict[str, str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            full = {alias.asname or alias.name.partition(".")[0]: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            full = {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        else:
            continue
        foreign = {k: name for k, name in full.items() if name.partition(".")[0] not in PACKAGES}
        imports |= foreign
        found += [name for name in foreign.values() if any(map(is_private, name.split(".")))]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in PUBLIC_BY_PROMISE:
            root = ast.unparse(node).partition(".")[0].partition("(")[0]
            if root in imports or node.attr not in own:
                found.append(ast.unparse(node))
    return found


def test_no_private_name_of_another_project_is_used() -> None:
    trees = {
        path: ast.parse(path.read_text(encoding="utf-8"))
        for package in PACKAGES
        for path in modules(package).values()
    }
    own = set().union(*map(defined, trees.values()))
    found = {
        f"{path.relative_to(ROOT)}: {name}"
        for path, tree in trees.items()
        for name in foreign_private(tree, own)
        if not name.startswith(tuple(FOREIGN_PRIVATE))
    }
    assert found == set()
    assert len(FOREIGN_PRIVATE) <= 3


def test_private_names_are_found() -> None:
    def found(source: str) -> list[str]:
        return foreign_private(ast.parse(source), own={"_mine"})

    assert found("from lib._inner import thing") == ["lib._inner.thing"]
    assert found("import lib._inner as inner") == ["lib._inner"]
    assert found("import lib\nlib.sub._call(1)") == ["lib.sub._call"]
    assert found("from lib import make\nmake()._state = 1") == ["make()._state"]
    assert found("def run(server):\n    return server._state") == ["server._state"]
    assert found("from vssl.x import _y\nself._mine = row._asdict()") == []


def test_no_module_is_longer_than_300_lines() -> None:
    long = {
        path.relative_to(ROOT).as_posix(): lines
        for folder in (*PACKAGES, "tests", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 300
    }
    assert long == {}


ALIKE = {"train/methods", "train/losses", "train/settings/recipes", "index/distances", "vssl/cli"}
"""Folders that list things of one kind, and may be as long as the list."""


def test_no_folder_holds_more_than_nine_entries() -> None:
    crowded = {}
    for package in PACKAGES:
        for folder in (ROOT / package, *(p for p in (ROOT / package).rglob("*") if p.is_dir())):
            name = folder.relative_to(ROOT).as_posix()
            entries = {p.name for p in folder.iterdir()} - {
                "__init__.py",
                "__main__.py",
                "__pycache__",
                "py.typed",
            }
            if folder.name != "__pycache__" and name not in ALIKE and len(entries) > 9:
                crowded[name] = sorted(entries)
    assert crowded == {}


def test_fewer_than_eight_functions_are_longer_than_fifty_lines() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.name} {lines}"
        for package in PACKAGES
        for path in modules(package).values()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > 50
    ]
    assert len(long) < 8, "\n".join(sorted(long))


def test_the_files_of_tests_that_come_first_are_there_and_come_first() -> None:
    assert [name for name in LONG if not (TESTS / name).is_file()] == []
    assert len(set(LONG)) == len(LONG)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "--no-loadscope-reorder" in makefile  # xdist would sort files by their number of tests
    found = [TESTS / "vssl/test_errors.py", TESTS / LONG[4], TESTS / "index/test_digits.py", TESTS / LONG[0]]
    items: Any = [SimpleNamespace(path=path) for path in found]
    pytest_collection_modifyitems(items)
    assert [item.path for item in items] == [found[3], found[1], found[0], found[2]]
