"""Which models are served: opened on the right cores, found by what requests call them, replaced without a gap."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from serve.http.batching.decoding import Decoder
from serve.http.batching.models import ServedModels, open_engine, open_engines
from serve.http.errors import NotReadyError, RequestError
from serve.http.metrics import Metrics
from serve.http.settings import Settings
from serve.inference.cores import available_cores
from serve.inference.embedded import EmbeddedImage
from tests.serve.conv_model import conv_model
from tests.serve.http.conftest import encoded
from tests.support.tiny_model import tiny_model
from vssl.errors import FormatError, InputError

T = TypeVar("T")


def with_models(settings: Settings, work: Callable[[ServedModels], Awaitable[T]]) -> tuple[T, Metrics]:
    async def main() -> tuple[T, Metrics]:
        metrics = Metrics()
        models = ServedModels(
            settings, open_engines(settings, concurrent=False), metrics, Decoder(settings.limits)
        )
        try:
            return await work(models), metrics
        finally:
            await asyncio.to_thread(models.close)

    return asyncio.run(main())


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [tiny_model(tmp_path / f"{seed}.onnx", seed=seed) for seed in range(3)]


@pytest.fixture
def three(files: list[Path]) -> Settings:
    """Return settings with pets in two versions, and cars."""
    return Settings(
        "\n".join(f"{name}={f}" for name, f in zip(("pets", "pets@2", "cars"), files, strict=True))
    )


def test_a_model_is_found_by_name_version_and_id(three: Settings) -> None:
    async def work(models: ServedModels) -> None:
        pets, better, cars = models.all
        assert models.default is pets
        assert models.find(None) is pets
        assert models.find("pets") is better  # the newest version
        assert models.find("pets", "1") is pets
        assert models.find("pets@1") is pets
        assert models.find(cars.engine.model_id) is cars
        for asked, version in (("birds", None), ("pets", "3"), (7, None)):
            with pytest.raises(RequestError, match="found") as caught:
                models.find(asked, version)
            assert (caught.value.status, caught.value.code) == (404, "model_not_found")

    with_models(three, work)


def test_two_models_of_one_name_and_version_are_refused(files: list[Path]) -> None:
    with pytest.raises(InputError, match="pets"):
        open_engines(Settings(f"pets={files[0]}\npets={files[1]}"))


def test_a_replaced_file_is_taken_up_and_a_broken_one_is_not(files: list[Path]) -> None:
    async def work(models: ServedModels) -> list[bool]:
        before = models.default
        found = [await models.reload()]
        (files[0].parent / "broken").write_bytes(b"no model")
        (files[0].parent / "broken").replace(files[0])
        found += [await models.reload(), await models.reload()]  # refused once, not again
        assert models.default is before
        files[1].replace(files[0])
        found += [await models.reload(), await models.reload()]
        assert models.default.engine.model_id != before.engine.model_id
        assert isinstance((await models.default.batcher.embed([encoded(1)]))[0], EmbeddedImage)
        await models.check_ready()
        return found

    found, metrics = with_models(Settings(str(files[0])), work)
    assert found == [False, False, False, True, False]
    counts = {name: n for name, n in metrics.snapshot()["numbers"].items() if "reloads" in name}
    assert counts == {
        'vssl_model_reloads_total/outcome="refused"': 1,
        'vssl_model_reloads_total/outcome="done"': 1,
    }


def test_one_model_that_fails_its_golden_pair_makes_the_server_not_ready(
    three: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(models: ServedModels) -> None:
        def fails() -> float:
            raise FormatError("another answer")

        monkeypatch.setattr(models.all[1].engine, "check_golden", fails)
        await models.check_ready(models.all[0])
        with pytest.raises(NotReadyError, match="another answer"):
            await models.check_ready()

    with_models(three, work)


def test_a_fast_model_gets_one_core_and_a_slow_one_all_unless_threads_are_given(tmp_path: Path) -> None:
    cores = available_cores()
    if cores < 2:
        pytest.skip("one core here")
    fast, slow = tiny_model(tmp_path / "fast.onnx"), conv_model(tmp_path / "slow.onnx", size=224)
    assert open_engine(Settings("x"), str(fast)).threads == 1
    assert open_engine(Settings("x"), str(slow)).threads == cores
    assert open_engine(Settings("x", threads=2), str(fast)).threads == 2
