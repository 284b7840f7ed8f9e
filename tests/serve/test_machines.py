"""A server on another machine: no home folder, no right to write, a person's own files around it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serve.http.conftest import World, encoded, world
from tests.serve.running import VSSL, Running, delete, get, post, put, running
from tests.support.plain_user import as_a_plain_user

__all__ = ["world"]  # the fixture
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def elsewhere(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with no writable home, a gallery that may not be written, and modules of a person's own."""
    folder = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(world.gallery, folder / "gallery")
    for path in (folder / "gallery", *(folder / "gallery").rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    for name in ("serve", "train", "index", "export"):
        (folder / f"{name}.py").write_text("raise SystemExit('this is not vssl')\n")
    before = as_a_plain_user()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with running(
            ["--model", str(world.model), "--gallery", "gallery", "--threads", "1"],
            folder,
            environment={"HOME": "/proc", "PYTHONPATH": str(ROOT)},
            command=[*before, *VSSL, "serve"],
        ) as server:
            yield server
    for path in (folder / "gallery", *(p for p in (folder / "gallery").rglob("*") if p.is_dir())):
        path.chmod(0o755)


def test_it_searches(elsewhere: Running) -> None:
    found = post(f"{elsewhere.url}/search", params={"k": 3}, content=encoded(1))
    assert found.json()["results"][0]["neighbours"][0]["id"] == "set/1.png"


def test_a_write_is_a_conflict(elsewhere: Running) -> None:
    for answer in (
        put(f"{elsewhere.url}/gallery/a", content=encoded(1)),
        delete(f"{elsewhere.url}/gallery/set/1.png"),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "gallery_read_only")
    assert get(f"{elsewhere.url}/gallery/set/1.png").status_code == 200
