"""The documents: each block of commands or code runs as it is written, each flag exists, links lead somewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
import typer.main

from serve.http.app import DESCRIBED
from tests.serve.running import free_port
from vssl.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = {
    "README.md": ROOT / "README.md",
    "ten-minutes.md": DOCS / "start" / "ten-minutes.md",
    "everyday.md": DOCS / "how-to" / "everyday.md",
    "curation.md": DOCS / "how-to" / "curation.md",
    "scale-out.md": DOCS / "how-to" / "scale-out.md",
    "upgrading.md": DOCS / "how-to" / "upgrading.md",
}
KINDS = {"start", "how-to", "reference", "explanation", "measurements"}
GENERATED = {"docs/reference/commands.md", "docs/reference/python.md"}
"""Made for the site, not kept."""
SERVED_S = 120


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return the fenced blocks of a page that run: (sh or python, text)."""
    return re.findall(
        r"^```(sh|python)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


def commands_of_pages() -> Iterator[str]:
    """Yield every `vssl VERB ...` that a page shows, without what follows it in its line."""
    for page in [ROOT / "README.md", *DOCS.rglob("*.md")]:
        if page.name in ("commands.md", "python.md"):
            continue
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for found in re.findall(r"^(?:    )?(vssl [a-z].*)$|`(vssl [a-z][^`]*)`", text, re.MULTILINE):
            yield re.split(r" #|\s\||&&|;| \(", found[0] or found[1])[0].strip()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A checkout as a reader has it: photos in three class folders, the start page's script, `vssl` on the path."""
    with tarfile.open(ROOT / "vssl" / "cli" / "demo_photos.tar") as archive:
        members = [m for m in archive.getmembers() if m.isfile()]
        kinds = sorted({m.name.split("/")[0] for m in members})[:3]
        assert "dress" in kinds
        for kind in kinds:
            (tmp_path / "photos" / kind).mkdir(parents=True)
            for number, member in enumerate([m for m in members if m.name.startswith(kind)][:12], start=1):
                file = archive.extractfile(member)
                assert file is not None
                (tmp_path / "photos" / kind / f"{number}.jpg").write_bytes(file.read())
    (tmp_path / "docs" / "start").mkdir(parents=True)
    shutil.copy(DOCS / "start" / "search.py", tmp_path / "docs" / "start")
    (tmp_path / "bin").mkdir()
    for name, words in (("vssl", "-m vssl"), ("python", "")):
        script = tmp_path / "bin" / name
        script.write_text(f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n')
        script.chmod(0o755)
    return tmp_path


def run(block: str, kind: str, home: Path) -> None:
    """Run one block as a reader would; a server is asked whether it is ready, and stopped."""
    environment = {**os.environ, "PATH": f"{home / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    if kind == "python":
        (home / "block.py").write_text(block)
        block = "python block.py"
    lines = block.splitlines()
    served = [line for line in lines if line.startswith("vssl serve")]
    commands = "\n".join(line for line in lines if line not in served)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=home, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{commands}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    for line in served:
        with serving(line.partition("#")[0].strip(), home, environment):
            pass


@contextmanager
def serving(command: str, home: Path, environment: dict[str, str]) -> Iterator[str]:
    """Run a server as a reader would, and stop it at the end; its address."""
    port = free_port()
    with (home / "server.log").open("w") as log:
        server = subprocess.Popen(
            ["bash", "-c", f"exec {command} --port {port}"], cwd=home, env=environment, stdout=log, stderr=log
        )
        try:
            ends = time.monotonic() + SERVED_S
            ask = ["curl", "-sf", f"http://127.0.0.1:{port}/readyz"]
            while subprocess.run(ask, check=False, capture_output=True).returncode:
                assert server.poll() is None, (home / "server.log").read_text()
                assert time.monotonic() < ends, (home / "server.log").read_text()
                with pytest.raises(subprocess.TimeoutExpired):
                    server.wait(timeout=0.5)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(timeout=60)


@pytest.mark.timeout(900)  # a dozen commands, each a process of its own
@pytest.mark.parametrize("page", list(PAGES))
def test_each_command_block_runs_as_it_is_written(page: str, home: Path) -> None:
    if page == "scale-out.md":
        pytest.importorskip("milvus_lite", reason="Milvus Lite is not installed")
    found = blocks(PAGES[page])
    assert found
    for kind, block in found:
        run(block, kind, home)


@pytest.mark.timeout(900)
def test_what_the_page_about_serving_asks_a_server_is_answered(home: Path) -> None:
    run("vssl extract photos embeddings\nvssl index embeddings gallery\n", "sh", home)
    environment = {**os.environ, "PATH": f"{home / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    found = blocks(DOCS / "reference" / "serving.md")
    assert [kind for kind, _ in found] == ["sh", "python"]
    with serving("vssl serve --gallery gallery", home, environment) as url:
        for kind, block in found:
            failing = block.replace("curl ", "curl -sS --fail-with-body ")
            run(failing.replace("http://127.0.0.1:3000", url), kind, home)


def test_a_broken_command_is_found(home: Path) -> None:
    with pytest.raises(AssertionError, match="no images at 'nowhere'"):
        run("vssl extract nowhere out\n", "sh", home)


def test_each_command_that_a_page_names_exists() -> None:
    known = {
        command.name or command.callback.__name__ for command in app.registered_commands if command.callback
    }
    known |= {str(group.name) for group in app.registered_groups}
    named = {
        verb
        for page in [ROOT / "README.md", *DOCS.rglob("*.md")]
        for verb in re.findall(
            r"^(?:    |\| `)?vssl ([a-z]+)\b", page.read_text(encoding="utf-8"), re.MULTILINE
        )
    }
    assert len(named) > 8
    assert named - known == set()


@pytest.mark.parametrize("line", sorted({*commands_of_pages()}))
def test_each_flag_that_a_page_gives_a_command_exists(line: str) -> None:
    """Of a command in a block or between backticks; what stands for a reader's own word is passed over."""
    words = line.split()[1:]
    command = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]  # type: ignore[attr-defined]
    flags = {word.partition("=")[0].strip("[],") for word in words if re.match(r"\[?--?[a-z]", word)}
    known = {flag for p in command.params for flag in (*p.opts, *p.secondary_opts)}
    assert flags - known - {"--help"} == set()


def pages() -> Iterator[Path]:
    yield ROOT / "README.md"
    yield from sorted(DOCS.rglob("*.md"))


def told(pattern: str) -> set[str]:
    """Return what a pattern finds in the pages, continued lines joined."""
    texts = [page.read_text(encoding="utf-8").replace("\\\n", " ") for page in pages()]
    return {found for text in texts for found in re.findall(pattern, text)}


@pytest.mark.parametrize("line", sorted(told(r"\bpython (?:-m benchmarks\.|benchmarks/)[^`|#\n]*")))
def test_each_benchmark_that_a_page_names_exists_with_its_flags(line: str) -> None:
    """The flags stand in the source of the benchmark; a package's are those of all its modules."""
    module = re.split(r"benchmarks[./]", line, maxsplit=1)[1].split()[0].removesuffix(".py").rstrip(".,;:)")
    file = ROOT / "benchmarks" / Path(*module.split(".")).with_suffix(".py")
    sources = [file] if file.exists() else sorted(file.with_suffix("").rglob("*.py"))
    assert sources, line
    written = "\n".join(source.read_text(encoding="utf-8") for source in sources)
    assert {flag for flag in re.findall(r" (--[a-z][\w-]*)", line) if f'"{flag}"' not in written} == set()


def test_each_target_of_make_and_each_extra_that_a_page_names_exists() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    named = told(r"(?:`|^    )make ([a-z]+)")
    assert {"demo", "test", "site"} <= named
    assert named - set(targets) == set()
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    asked = {
        extra
        for listed in told(r"pip install[^`\n]*'(?:vssl|\.)\[([\w,]+)\]'")
        for extra in listed.split(",")
    }
    assert asked <= extras
    table = (DOCS / "reference" / "dependencies.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == extras


@pytest.mark.parametrize("page", list(pages()), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_each_link_of_a_page_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_documents_are_of_four_kinds_and_the_records() -> None:
    entries = {path.name for path in DOCS.iterdir()} - {"__pycache__"}
    assert entries >= KINDS
    assert len(entries) <= 9
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
    linked = set(re.findall(r"\]\((docs/[\w/-]+\.md)\)", (ROOT / "README.md").read_text(encoding="utf-8")))
    there = {path.relative_to(ROOT).as_posix() for path in DOCS.rglob("*.md")} - GENERATED
    assert there - linked == set()


def test_the_site_is_built_with_every_page_and_link_in_its_place(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    made = {
        page.parent.relative_to(tmp_path / "site").as_posix()
        for page in (tmp_path / "site").rglob("index.html")
    }
    assert {"start/ten-minutes", "reference/commands", "reference/python", "explanation/variance"} <= made


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["glossary.md", "http.md", "http-types.md"])
def test_a_kept_page_of_the_reference_is_what_the_program_says(page: str) -> None:
    kept = (DOCS / "reference" / page).read_text(encoding="utf-8")
    assert kept == generator().PAGES[page](), "write it again: python docs/generate.py"


def test_every_verb_and_every_route_is_documented() -> None:
    made = generator()
    text = made.commands()
    for command in app.registered_commands:
        assert f"## `vssl {command.name or command.callback.__name__}`" in text  # type: ignore[union-attr]
    routes = re.findall(r"^### `(\w+ .*)`$", made.http(), re.MULTILINE)
    assert {"POST /embed", "POST /search", "PUT /gallery/{id}", "GET /readyz"} <= set(routes)
    assert len(routes) == len(set(routes)) == len(DESCRIBED)


def test_each_page_that_a_person_wrote_is_short() -> None:
    made = set(generator().PAGES)
    long = {
        page.relative_to(DOCS).as_posix(): lines
        for page in DOCS.rglob("*.md")
        if page.name not in made and "measurements" not in page.parts
        if (lines := len(page.read_text(encoding="utf-8").splitlines())) > 150
    }
    assert long == {}
