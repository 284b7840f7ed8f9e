"""Images + model.onnx -> an embeddings folder: parallel, bounded in memory, resumable.

Each image of the source ends in exactly one of the parts and `failures.parquet`. See
`serve.resume` for what is on the disk at which moment and `vssl.store` for the format.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from serve import resume as resuming
from serve.cores import available_cores
from serve.engine import Engine
from serve.mapping import BlockResult, embed_block, join
from serve.pipeline import ordered
from vssl import store
from vssl.decode import DEFAULT_LIMITS, DecodeLimits
from vssl.errors import InputError
from vssl.gaussian import Floats, GaussianEmbedding
from vssl.sources import ImageSource, open_source

PART_ROWS = 4096
GPU_LANES = 2  # one batch computes while the next is copied

Failures = list[store.Failure]


@dataclass(frozen=True)
class Progress:
    """How far a run is: images done and in total, failures and mean uncertainty so far.

    `resumed` of the images were done by an earlier run; `seconds` count this one.
    """

    done: int
    total: int
    failures: int
    resumed: int
    seconds: float
    uncertainty: float | None

    @property
    def rate(self) -> float:
        """Images per second of this run."""
        return (self.done - self.resumed) / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True)
class Summary:
    """What a finished run has written; `reasons` counts failures by error code."""

    out: str
    model_id: str
    images: int
    rows: int
    failures: int
    reasons: dict[str, int]
    resumed: int
    seconds: float
    images_per_second: float
    mean_uncertainty: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def extract(
    images: str | Path | ImageSource,
    out: Path,
    *,
    model: Path | Engine,
    resume: bool = False,
    overwrite: bool = False,
    batch_size: int | None = None,
    workers: int | None = None,
    features: bool = False,
    device: str = "auto",
    max_failures: int | None = None,
    limits: DecodeLimits = DEFAULT_LIMITS,
    part_rows: int = PART_ROWS,
    report: Callable[[Progress], None] = lambda _: None,
) -> Summary:
    """Embed every image of a source into the folder `out`.

    images: a source or its spec (`vssl.sources`); model: the file, or an engine opened before.
    batch_size: images a thread takes through the model at once; the engine's largest bucket
        when None. workers: threads; the usable cores when None.
    max_failures: stop with an InputError as soon as more images have failed.
    report: called after each batch, in the caller's thread.

    Raises InputError, ExistsError, MismatchError or FormatError; whatever is raised, the folder
    can be resumed.
    """
    for name, value in (("batch_size", batch_size), ("workers", workers), ("part_rows", part_rows)):
        if value is not None and value < 1:
            raise InputError(f"{name}: found {value}, expected at least 1")
    out = Path(out)
    refuse_nested(images, out)
    source = open_source(images) if isinstance(images, (str, Path)) else images
    # One core a call: the threads of the pipeline are the parallelism.
    engine = model if isinstance(model, Engine) else Engine.open(Path(model), device=device, threads=1)
    plan = resuming.Plan(
        model_id=engine.model_id,
        images=len(source.items),
        items=resuming.hash_items(source.items),
        part_rows=part_rows,
        batch_size=batch_size or engine.buckets[-1],
        features=features,
        max_pixels=limits.max_pixels,
        max_bytes=limits.max_bytes,
    )
    with resuming.locked(out):
        complete = resuming.prepare(out, plan, source.items, resume=resume, overwrite=overwrite)
        run = _Run(engine, source, out, plan, limits, max_failures, report)
        try:
            if not complete:
                run.parts(workers or available_cores() + (GPU_LANES if engine.on_gpu else 0))
                run.close()
        except OSError as error:
            raise InputError(
                f"cannot write to {out}: {error.strerror or error}; then go on with --resume"
            ) from error
        return run.summary()


def refuse_nested(images: object, out: Path) -> None:
    """Raise InputError when the output would become part of the input folder."""
    if isinstance(images, (str, Path)):
        folder, target = Path(images).expanduser().resolve(), out.resolve()
        if folder.is_dir() and (target == folder or folder in target.parents):
            raise InputError(f"{out} lies inside {images}; choose an output folder outside of the images")


class _Run:
    """One run over a prepared folder."""

    def __init__(
        self,
        engine: Engine,
        source: ImageSource,
        out: Path,
        plan: resuming.Plan,
        limits: DecodeLimits,
        max_failures: int | None,
        report: Callable[[Progress], None],
    ) -> None:
        self.engine, self.source, self.out, self.plan, self.limits = engine, source, out, plan, limits
        self.max_failures, self.report = max_failures, report
        self.started = time.perf_counter()
        self.resumed = self.done = self.failed = 0
        self.spread, self.embedded = 0.0, 0

    def parts(self, workers: int) -> None:
        """Write every part that is not there yet."""
        plan = self.plan
        finished = {part for part in range(plan.parts) if resuming.is_done(self.out, part)}
        for part in sorted(finished):
            self.failed += pq.read_metadata(resuming.failures_file(self.out, part)).num_rows
            self.done += len(plan.rows(part))
        self.resumed = self.done
        self._heed_failures([])
        lane = threading.Semaphore(GPU_LANES) if self.engine.on_gpu else None
        tasks = (
            (part, rows[i : i + plan.batch_size])
            for part in range(plan.parts)
            if part not in finished
            for rows in [plan.rows(part)]
            for i in range(0, len(rows), plan.batch_size)
        )

        def work(task: tuple[int, range]) -> tuple[int, BlockResult]:
            part, rows = task
            return part, embed_block(
                self.engine, self.source, rows, limits=self.limits, features=plan.features, lane=lane
            )

        blocks: list[BlockResult] = []
        results = ordered(work, tasks, workers=workers, ahead=4 * workers)
        try:
            for part, block in results:
                blocks.append(block)
                self._count(block)
                if sum(map(len, blocks)) == len(plan.rows(part)):
                    self._write(part, join(blocks))
                    blocks = []
        finally:
            results.close()

    def close(self) -> None:
        """Write failures.parquet, then the manifest, which completes the folder."""
        failures = [
            store.Failure(**row)
            for part in range(self.plan.parts)
            for row in pq.read_table(resuming.failures_file(self.out, part)).to_pylist()
        ]
        store.write_failures(failures, self.out)
        names = [store.part_name(part) for part in range(self.plan.parts)]
        spread = np.concatenate([_uncertainties(self.out / name) for name in names])
        store.write_manifest(
            self.out,
            model_id=self.plan.model_id,
            parts=names,
            rows=self.plan.images - len(failures),
            failures=len(failures),
            reasons=dict(sorted(Counter(f.error for f in failures).items())),
            mean_uncertainty=float(spread.mean(dtype=np.float64)) if len(spread) else None,
            plan=asdict(self.plan),
        )
        resuming.finish(self.out)

    def summary(self) -> Summary:
        """Return the counts of the finished folder."""
        manifest = store.read_manifest(self.out)
        seconds = time.perf_counter() - self.started
        fresh = self.done - self.resumed
        return Summary(
            out=str(self.out),
            model_id=self.plan.model_id,
            images=self.plan.images,
            rows=manifest["rows"],
            failures=manifest["failures"],
            reasons=manifest["reasons"],
            resumed=self.plan.images - fresh,
            seconds=seconds,
            images_per_second=fresh / seconds,
            mean_uncertainty=manifest["mean_uncertainty"],
        )

    def _count(self, block: BlockResult) -> None:
        self.done += len(block)
        self.failed += len(block.failures)
        if block.rows is not None:
            self.spread += float(block.rows.gaussians.uncertainty.sum())
            self.embedded += len(block.rows)
        self._heed_failures(block.failures)
        self.report(
            Progress(
                self.done,
                self.plan.images,
                self.failed,
                self.resumed,
                time.perf_counter() - self.started,
                self.spread / self.embedded if self.embedded else None,
            )
        )

    def _heed_failures(self, latest: Failures) -> None:
        if self.max_failures is not None and self.failed > self.max_failures:
            example = f", the last one {latest[-1].path}: {latest[-1].reason}" if latest else ""
            raise InputError(
                f"stopped: {self.failed} of {self.done} images failed, expected at most "
                f"{self.max_failures}{example}. Go on with --resume and a larger --max-failures"
            )

    def _write(self, part: int, block: BlockResult) -> None:
        """Write a part's failures, then the part."""
        rows = block.rows or _no_rows(self.engine, features=self.plan.features)
        store.write_failures_file(block.failures, resuming.failures_file(self.out, part))
        store.write_table(
            store.to_table(rows, self.engine.card, self.engine.model_id), self.out / store.part_name(part)
        )


def _no_rows(engine: Engine, *, features: bool) -> store.Rows:
    empty = np.empty((0, engine.card.dim), np.float32)
    columns = np.empty((0, engine.card.feature_dim), np.float32)
    return store.Rows([], [], [], GaussianEmbedding(empty, empty), columns if features else None)


def _uncertainties(path: Path) -> Floats:
    column: Floats = pq.read_table(path, columns=["uncertainty"]).column("uncertainty").to_numpy()
    return column
