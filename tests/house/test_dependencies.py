"""What the packages import is declared in pyproject.toml, with bounds, in an extra that its users install."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
OURS = {"vssl", "train", "export", "serve", "index", "tests", "benchmarks"}
NOT_INSTALLED = {
    "triton_python_backend_utils": "Triton gives it to the models that it runs",
    "tensorrt_libs": "found when it is there; docs/reference/dependencies.md says how to get it",
    "hnswlib": "a rival that one benchmark compares with",
    "usearch": "a rival that one benchmark compares with",
    "litserve": "a rival that one benchmark compares with",
    "atheris": "one benchmark fuzzes with it",
}
USERS = {
    "vssl": ["cpu", "openvino", "client", "hf", "train", "demo", "heif", "plots", "map"],
    "train": ["train", "backbones", "plots"],
    "export": ["train", "cpu", "backbones"],
    "serve": ["cpu", "openvino", "triton", "ray"],
    "index": ["cpu", "milvus", "plots", "map"],
    "tests": list(EXTRAS),
    "benchmarks": list(EXTRAS),
}


def name(requirement: str) -> str:
    """Return a requirement's distribution as it is compared: `PyYAML>=6` -> `pyyaml`."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0].lower())  # type: ignore[index]


def imported(package: str) -> dict[str, str]:
    """Return the foreign modules that a package imports, also inside functions, and a file of each."""
    found = {}
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                full = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                full = [node.module]
            else:
                continue
            found |= {module.partition(".")[0]: path.relative_to(ROOT).as_posix() for module in full}
    return {
        k: path for k, path in found.items() if k not in {*OURS, *sys.stdlib_module_names, *NOT_INSTALLED}
    }


@pytest.mark.parametrize("package", list(USERS))
def test_every_import_is_declared_where_its_users_install_it(package: str) -> None:
    requirements = [*PROJECT["dependencies"], *(r for extra in USERS[package] for r in EXTRAS[extra])]
    declared = {name(requirement) for requirement in requirements}
    providers = packages_distributions()
    undeclared = {
        f"{module} ({path})"
        for module, path in imported(package).items()
        if not declared & {name(provider) for provider in providers.get(module, ["nothing installed"])}
    }
    assert undeclared == set()


def test_what_people_install_is_bounded_on_both_sides() -> None:
    people = [*PROJECT["dependencies"], *(r for extra, of in EXTRAS.items() if extra != "dev" for r in of)]
    open_ended = [r for r in people if ">=" not in r or "<" not in r.partition(";")[0]]
    assert open_ended == []
    assert [r for r in EXTRAS["dev"] if ">=" not in r] == []


def test_one_requirement_has_one_range_in_all_extras() -> None:
    ranges: dict[str, set[str]] = {}
    for requirement in [*PROJECT["dependencies"], *(r for of in EXTRAS.values() for r in of)]:
        ranges.setdefault(name(requirement), set()).add(requirement.partition("]")[2] or requirement)
    assert {key: found for key, found in ranges.items() if len(found) > 1} == {}
