"""A started server's state: which gallery it opens, who may write to it, when it is ready, what is checked first."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from index.gallery.folder.build import build_gallery
from index.gallery.folder.gallery import FolderGallery
from serve.http.errors import NotReadyError, RequestError
from serve.http.settings import Settings
from serve.http.state import Runtime, check, open_gallery
from tests.serve.http.conftest import World, make_gallery
from tests.support.tiny_model import tiny_model
from vssl.errors import InputError, MismatchError

T = TypeVar("T")


def with_runtime(settings: Settings, work: Callable[[Runtime], Awaitable[T]]) -> T:
    async def main() -> T:
        runtime = Runtime.start(settings)
        try:
            return await work(runtime)
        finally:
            await asyncio.to_thread(runtime.stop)

    return asyncio.run(main())


@pytest.fixture
def settings(world: World, tmp_path: Path) -> Settings:
    """With a gallery of its own: the one of `world` may be open for writing in a server."""
    make_gallery(tmp_path, world.engine)
    return Settings(str(world.model), gallery=tmp_path / "gallery", threads=1)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "other.onnx", seed=1)


async def write(runtime: Runtime) -> str:
    """Try to write to the gallery; return `written`, or the code of the refusal."""
    try:
        return await runtime.write_gallery(lambda gallery: "written")
    except RequestError as error:
        return error.code


@pytest.mark.parametrize(("workers", "expected"), [(1, "written"), (2, "gallery_read_only")])
def test_one_worker_writes_and_several_only_read(settings: Settings, workers: int, expected: str) -> None:
    async def work(runtime: Runtime) -> tuple[str, int]:
        return await write(runtime), await runtime.with_gallery(len)

    assert with_runtime(replace(settings, workers=workers), work) == (expected, 12)


def test_a_gallery_that_another_process_writes_is_read(settings: Settings) -> None:
    async def work(runtime: Runtime) -> tuple[str, int]:
        return await write(runtime), await runtime.with_gallery(len)

    assert settings.gallery is not None
    with FolderGallery.open(settings.gallery):
        assert with_runtime(settings, work) == ("gallery_read_only", 12)


def test_searches_use_the_model_of_the_gallery(settings: Settings, world: World, other: Path) -> None:
    async def work(runtime: Runtime) -> tuple[str, str]:
        return runtime.gallery_model.name, runtime.models.default.name

    several = replace(settings, model=f"first={other}\nsecond={world.model}")
    assert with_runtime(several, work) == ("second", "first")


def test_a_gallery_of_no_model_here_is_refused(settings: Settings, other: Path) -> None:
    with pytest.raises(MismatchError):
        check(replace(settings, model=str(other)))


def test_without_a_gallery_there_is_nothing_to_search(world: World) -> None:
    async def work(runtime: Runtime) -> tuple[bool, list[str]]:
        with pytest.raises(RequestError, match="vssl serve --gallery") as caught:
            await runtime.with_gallery(len)
        assert (caught.value.status, caught.value.code) == (404, "no_gallery")
        return runtime.has_gallery, runtime.distances

    assert with_runtime(Settings(str(world.model), threads=1), work) == (False, [])
    assert open_gallery(Settings(str(world.model)), [], read_only=True) is None


def test_a_draining_server_is_not_ready(settings: Settings) -> None:
    async def work(runtime: Runtime) -> None:
        await runtime.check_ready()
        runtime.draining = True
        with pytest.raises(NotReadyError, match="ending"):
            await runtime.check_ready()

    with_runtime(settings, work)


def test_the_check_tells_what_will_be_served(settings: Settings, world: World, tmp_path: Path) -> None:
    checked = check(replace(settings, model=f"pets={world.model}"))
    assert [(m.name, m.model_id) for m in checked.models] == [("pets", world.engine.model_id)]
    assert (checked.items, checked.answered) == (12, None)
    (tmp_path / "keys").write_text("# none\n")
    with pytest.raises(InputError, match="no API key"):
        check(replace(settings, api_key_file=tmp_path / "keys"))
    with pytest.raises(InputError, match="--gallery"):
        check(replace(settings, gallery=None, max_risk=0.05))


def test_means_from_elsewhere_are_served_by_a_model_of_their_dimension(world: World, tmp_path: Path) -> None:
    async def work(runtime: Runtime) -> list[tuple[float | None, float | None]]:
        queries = runtime.gallery_model.engine.infer(np.zeros((1, 16, 16, 3), np.uint8)).gaussians
        model_id = runtime.gallery_model.engine.model_id
        (found,) = await runtime.with_gallery(lambda gallery: gallery.search(queries, 2, model_id=model_id))
        return [(n.variance_score, n.uncertainty) for n in found.neighbours]

    means = np.random.default_rng(0).normal(size=(5, world.engine.card.dim + 1))
    np.save(tmp_path / "m.npy", means[:, :-1])
    np.save(tmp_path / "wide.npy", means)
    for name in ("m", "wide"):
        build_gallery(tmp_path / f"{name}.npy", tmp_path / name)
    settings = Settings(str(world.model), gallery=tmp_path / "m", threads=1)
    assert with_runtime(settings, work) == [(None, None)] * 2
    with pytest.raises(MismatchError, match="serve the model that made them"):
        check(replace(settings, gallery=tmp_path / "wide"))
