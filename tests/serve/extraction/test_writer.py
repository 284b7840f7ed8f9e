"""Blocks in any order become parts: each written when it is whole, its failures first."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from serve.extraction.blocks import BlockResult, MapOptions, Task, embed_block
from serve.extraction.output import OutputFolder, prepare
from serve.extraction.plan import Plan, hash_listing, list_source
from serve.extraction.writer import PartWriter, Progress
from serve.inference.engine import Engine
from vssl.errors import InputError
from vssl.images.items import ImageSource
from vssl.images.sources import open_source


@pytest.fixture
def source(photos: Path) -> ImageSource:
    return open_source(photos)


@pytest.fixture(scope="module")
def engine(model: Path) -> Engine:
    return Engine.open(model)


@pytest.fixture
def folder(engine: Engine, source: ImageSource, tmp_path: Path) -> OutputFolder:
    """An empty folder for 33 images in parts of 10, which go through the model four at a time."""
    listing = list_source(source)
    plan = Plan(
        model_id=engine.model_id, images=33, items=hash_listing(listing), part_rows=10, batch_size=4,
        features=False, digests=False, dtype="float32", max_pixels=10**8, max_bytes=10**8, lowered=None,
    )  # fmt: skip
    (tmp_path / "out").mkdir()
    return prepare(tmp_path / "out", plan, listing, resume=False, overwrite=False, update=False)


class Run:
    """Embeds every task it is given and hands the results over last first; keeps what it saw."""

    def __init__(
        self, engine: Engine, source: ImageSource, folder: OutputFolder, most: int | None = None
    ) -> None:
        self.engine, self.source = engine, source
        self.tasks: list[Task] = []
        self.reports: list[Progress] = []
        self.writer = PartWriter(
            folder, source.items, engine.card, None, most, self.reports.append, time.perf_counter()
        )

    def backwards(self, tasks: Iterable[Task]) -> Generator[tuple[Task, BlockResult]]:
        self.tasks = list(tasks)
        for task in reversed(self.tasks):
            yield task, embed_block(self.engine, self.source, task.rows, MapOptions())


def test_parts_hold_their_rows_in_the_order_of_the_source(
    engine: Engine, source: ImageSource, folder: OutputFolder
) -> None:
    run = Run(engine, source, folder)
    run.writer.run(range(4), run.backwards)
    assert [len(task.rows) for task in run.tasks] == [4, 4, 2, 4, 4, 2, 4, 4, 2, 3]
    for number in range(4):
        names = [item.id for item in source.items[10 * number : 10 * number + 10]]
        found = pq.read_table(folder.part(number))["id"].to_pylist()
        failed = pq.read_table(folder.failures(number))["path"].to_pylist()
        assert found == [name for name in names if name in found]
        assert len(found) + len(failed) == len(names)
    assert (run.writer.fresh, run.writer.total, sum(run.writer.reasons.values())) == (33, 33, 3)
    last = run.reports[-1]
    assert (last.done, last.total, last.failures) == (33, 33, 3)
    assert last.uncertainty == pytest.approx(run.writer.uncertainty)


def test_what_is_done_is_not_done_again(engine: Engine, source: ImageSource, folder: OutputFolder) -> None:
    first = Run(engine, source, folder)
    first.writer.run(range(2), first.backwards)
    second = Run(engine, source, folder)
    second.writer.run(range(4), second.backwards)
    assert {task.part for task in second.tasks} == {2, 3}
    assert (second.writer.resumed, second.writer.fresh) == (20, 13)
    assert sum(second.writer.reasons.values()) == 3  # those of the earlier parts count


def test_too_many_failures_stop_it_and_name_the_last(
    engine: Engine, source: ImageSource, folder: OutputFolder
) -> None:
    run = Run(engine, source, folder, most=1)
    with pytest.raises(InputError, match=r"images failed, expected at most 1, the last one .*--max-failures"):
        run.writer.run(range(4), run.backwards)
    assert not all(folder.is_done(number) for number in range(4))
