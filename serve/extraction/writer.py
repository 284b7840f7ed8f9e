"""Embedded blocks -> parts on the disk, in whatever order the blocks arrive.

A part is written when all of its images are there: first its failures, then the part.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from serve.extraction.blocks import BlockResult, Task, join
from serve.extraction.output import OutputFolder
from serve.extraction.plan import stamps
from vssl.embeddings import store
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.manifest import INPUTS, read_file, read_manifest, read_part
from vssl.embeddings.store import Rows
from vssl.errors import InputError
from vssl.images.items import ImageItem
from vssl.model.card import ModelCard


@dataclass(frozen=True)
class Progress:
    """How far a run is: images done and in total, failures and mean uncertainty so far.

    `earlier` of the images were not computed by this run; `seconds` count this one.
    """

    done: int
    total: int
    failures: int
    earlier: int
    seconds: float
    uncertainty: float | None

    @property
    def rate(self) -> float:
        """Images per second of this run."""
        return (self.done - self.earlier) / self.seconds if self.seconds > 0 else 0.0


class PartWriter:
    """Writes the parts of one folder and counts what becomes of the images."""

    def __init__(
        self,
        folder: OutputFolder,
        items: Sequence[ImageItem],
        card: ModelCard,
        earlier: EarlierRows | None,
        max_failures: int | None,
        report: Callable[[Progress], None],
        started: float,
    ) -> None:
        self._folder, self._items, self._card, self._earlier = folder, items, card, earlier
        self._max_failures, self._report, self._started = max_failures, report, started
        self.total = self.fresh = self.reused = self.resumed = 0
        self.reasons: Counter[str] = Counter()
        self._spread, self._embedded = 0.0, 0

    @property
    def uncertainty(self) -> float | None:
        """Mean uncertainty of what this run has seen."""
        return self._spread / self._embedded if self._embedded else None

    def run(
        self,
        numbers: range,
        mapper: Callable[[Iterable[Task]], Generator[tuple[Task, BlockResult]]],
    ) -> None:
        """Write every part of `numbers` that is not there yet; raises InputError beyond max_failures."""
        plan, folder = self._folder.plan, self._folder
        self.total = sum(len(plan.rows(number)) for number in numbers)
        for number in numbers:
            if folder.is_done(number):
                self.resumed += len(plan.rows(number))
                column = read_part(folder.failures(number), ["error"]).column("error")
                self.reasons.update(column.to_pylist())
        self._check_failures(None)
        open_parts: dict[int, list[BlockResult]] = {}
        with closing(mapper(self._tasks(numbers, open_parts))) as results:
            for task, block in results:
                open_parts[task.part].append(block)
                self.fresh += len(block)
                self._count(block)
                self._finish(task.part, open_parts)
        for number in list(open_parts):  # parts that an update could take over whole
            self._finish(number, open_parts)

    def _tasks(self, numbers: range, open_parts: dict[int, list[BlockResult]]) -> Iterator[Task]:
        plan = self._folder.plan
        for number in numbers:
            if self._folder.is_done(number):
                continue
            rows = list(plan.rows(number))
            open_parts[number] = []
            if self._earlier:
                taken = self._earlier.take(self._items, rows)
                open_parts[number].append(taken)
                self.reused += len(taken)
                self._count(taken)
                known = set(taken.numbers)
                rows = [row for row in rows if row not in known]
            for start in range(0, len(rows), plan.batch_size):
                yield Task(number, tuple(rows[start : start + plan.batch_size]))

    def _finish(self, number: int, open_parts: dict[int, list[BlockResult]]) -> None:
        """Write a part when it is whole."""
        folder = self._folder
        if sum(map(len, open_parts[number])) < len(folder.plan.rows(number)):
            return
        block = join(open_parts.pop(number))
        store.write_failures_file(block.failures, folder.failures(number))
        table = store.to_table(
            block.rows or self._no_rows(), self._card, folder.plan.model_id, dtype=folder.plan.dtype
        )
        store.write_table(table, folder.part(number))

    def _count(self, block: BlockResult) -> None:
        self.reasons.update(f.error for f in block.failures)
        if block.rows is not None:
            self._spread += float(block.rows.gaussians.uncertainty.sum())
            self._embedded += len(block.rows)
        self._check_failures(block)
        earlier = self.resumed + self.reused
        seconds = time.perf_counter() - self._started
        failed = sum(self.reasons.values())
        self._report(Progress(earlier + self.fresh, self.total, failed, earlier, seconds, self.uncertainty))

    def _check_failures(self, latest: BlockResult | None) -> None:
        failed = sum(self.reasons.values())
        if self._max_failures is not None and failed > self._max_failures:
            last = latest.failures[-1] if latest and latest.failures else None
            example = f", the last one {last.path}: {last.reason}" if last else ""
            raise InputError(
                f"stopped: {failed} of {self.resumed + self.reused + self.fresh} images failed, expected at most "
                f"{self._max_failures}{example}. Go on with --resume and a larger --max-failures"
            )

    def _no_rows(self) -> store.Rows:
        plan, card = self._folder.plan, self._card
        empty = np.empty((0, card.dim), np.float32)
        features = np.empty((0, card.feature_dim), np.float32) if plan.features else None
        digests: list[str] | None = [] if plan.digests else None
        pictures: list[bytes] | None = [] if plan.pictures else None
        return store.Rows([], [], [], GaussianEmbedding(empty, empty), features, digests, pictures)


class EarlierRows:
    """The rows of a complete folder that an update takes over; holds two parts in memory at a time.

    A row is taken over when its id is the same and so is its stamp (size and time of the file, or
    the object's tag); images that failed before are tried again.
    """

    def __init__(self, out: Path, listing: pa.Table) -> None:
        manifest = read_manifest(out)
        before, now = stamps(read_file(out, manifest, INPUTS)), stamps(listing)
        same = {name for name, stamp in now.items() if stamp and before.get(name) == stamp}
        self._places: dict[str, tuple[str, int]] = {}
        for part in manifest["parts"]:
            names = read_file(out, manifest, part, ["id"]).column("id").to_pylist()
            self._places |= {name: (part, row) for row, name in enumerate(names) if name in same}
        self._part = lru_cache(maxsize=2)(
            lambda name: store.from_table(read_file(out, manifest, name), pictures=True)
        )

    def take(self, items: Sequence[ImageItem], numbers: Sequence[int]) -> BlockResult:
        """Return what is known of the given source rows, with the paths and labels they have now."""
        known = [n for n in numbers if items[n].id in self._places]
        parts: dict[str, list[int]] = {}
        for n in known:
            parts.setdefault(self._places[items[n].id][0], []).append(n)
        taken = [
            self._part(part).take([self._places[items[n].id][1] for n in rows])
            for part, rows in parts.items()
        ]
        order = [n for rows in parts.values() for n in rows]
        if not taken:
            return BlockResult(None, [], [], [])
        rows = Rows.concatenate(taken)
        paths, labels = [items[n].path for n in order], [items[n].label for n in order]
        fresh = replace(rows, paths=paths, labels=labels)
        return BlockResult(fresh, order, [], [])
