"""Blocks: some source rows, each embedded or failed, and put together in order."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from serve.extraction.blocks import MapOptions, embed_block, join
from serve.inference.engine import Engine
from tests.serve.photo_folder import photo_folder
from tests.support.tiny_model import tiny_model
from vssl.images.decode import DecodeLimits
from vssl.images.items import ImageSource
from vssl.images.sources import open_source


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine.open(tiny_model(tmp_path_factory.mktemp("model") / "model.onnx"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ImageSource:
    return open_source(photo_folder(tmp_path_factory.mktemp("photos"), 10))


def test_every_row_is_embedded_or_failed(engine: Engine, source: ImageSource) -> None:
    numbers = list(range(len(source.items)))[::-1]
    block = embed_block(engine, source, numbers, MapOptions())
    assert sorted(block.numbers + block.failed) == sorted(numbers)
    assert block.rows is not None
    assert block.rows.ids == [source.items[n].id for n in block.numbers]
    assert [f.path for f in block.failures] == [source.items[n].path for n in block.failed]
    assert (len(block), len(block.failures)) == (13, 3)


def test_blocks_join_in_the_order_of_the_source(engine: Engine, source: ImageSource) -> None:
    whole = embed_block(engine, source, range(13), MapOptions(features=True))
    pieces = [
        embed_block(engine, source, n, MapOptions(features=True))
        for n in ([9, 3, 0, 12], [1, 2], [11, 10], [8, 7, 6, 5, 4])
    ]
    for order in (pieces, pieces[::-1]):
        joined = join(order)
        assert (joined.numbers, joined.failed) == (whole.numbers, whole.failed)
        assert joined.failures == whole.failures
        assert joined.rows is not None
        assert whole.rows is not None
        assert joined.rows.ids == whole.rows.ids
        assert joined.rows.gaussians.mean.tolist() == whole.rows.gaussians.mean.tolist()
        assert joined.rows.features.tolist() == whole.rows.features.tolist()  # type: ignore[union-attr]


def test_a_block_of_failures_has_no_rows(engine: Engine, source: ImageSource) -> None:
    block = embed_block(engine, source, [1, 2], MapOptions(limits=DecodeLimits(max_bytes=1)))
    assert (block.rows, len(block.failures)) == (None, 2)
    assert join([block]).rows is None
    assert join([]).rows is None


def test_digests_stay_with_their_files_despite_failures(engine: Engine, source: ImageSource) -> None:
    block = embed_block(engine, source, range(13), MapOptions(digests=True))
    assert block.rows is not None
    assert block.rows.digests == [hashlib.sha256(source.read(n)).hexdigest() for n in block.numbers]


def test_a_source_that_cannot_read_one_still_gives_the_others(engine: Engine, tmp_path: Path) -> None:
    folder = photo_folder(tmp_path, 6, bad=False)
    found = open_source(folder)
    (folder / "cats" / "img_2.png").unlink()
    block = embed_block(engine, found, range(6), MapOptions(digests=True))
    assert ([f.error for f in block.failures], block.failed) == (["unreadable"], [1])
    assert block.rows is not None
    assert block.rows.digests is not None
    assert all(len(digest) == 64 for digest in block.rows.digests)


def test_the_lane_is_held_while_the_model_runs_and_not_while_decoding(
    engine: Engine, source: ImageSource
) -> None:
    lane = threading.Lock()
    held: list[bool] = []

    class Watched:
        items = source.items

        def read(self, row: int) -> bytes:
            held.append(lane.locked())
            return source.read(row)

    embed_block(engine, Watched(), [3, 4], MapOptions(), lane)
    assert held == [False, False]
    with lane:
        worker = threading.Thread(target=embed_block, args=(engine, source, [3], MapOptions(), lane))
        worker.start()
        worker.join(0.2)
        assert worker.is_alive()
    worker.join()
