"""Images + model.onnx -> an embeddings folder: parallel, bounded in memory, resumable.

Each image of the source ends in exactly one of the parts and `failures.parquet`. See
`serve.extraction.output` for what is on the disk at which moment and `vssl.embeddings.store` for the format.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from serve.extraction.blocks import BlockResult, MapOptions, Task, embed_block
from serve.extraction.clip_layout import write_arrays
from serve.extraction.output import OutputFolder, locked, make, prepare
from serve.extraction.plan import Plan, hash_listing, list_source
from serve.extraction.workers import ordered
from serve.extraction.writer import EarlierRows, PartWriter, Progress
from serve.inference.backends.providers import ENGINES
from serve.inference.cores import available_cores
from serve.inference.engine import Engine
from vssl.embeddings import store
from vssl.embeddings.manifest import PROGRESS, read_manifest
from vssl.errors import FormatError, InputError
from vssl.files import require_local, user_path
from vssl.images.decode import DEFAULT_LIMITS, DecodeLimits
from vssl.images.items import ImageSource
from vssl.images.sources import check_outside, open_source

PART_ROWS = 4096
GPU_LANES = 2  # one batch computes while the next is copied
REMOTE_WORKERS = 16  # per core: threads that wait for the network cost nothing
AHEAD = 4  # blocks a worker may be ahead of the writer

Mapper = Callable[[Iterable[Task]], Generator[tuple[Task, BlockResult]]]


@dataclass(frozen=True)
class Summary:
    """What is in the folder after a run; `reasons` counts failures by error code.

    complete: false when other shards are still missing; the counts are then this shard's.
    resumed, reused: images done by an earlier run, and taken over unchanged by an update.
    """

    out: str
    model_id: str
    complete: bool
    images: int
    rows: int
    failures: int
    reasons: dict[str, int]
    resumed: int
    reused: int
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
    model: Path | str | Engine,
    resume: bool = False,
    overwrite: bool = False,
    update: bool = False,
    shard: tuple[int, int] | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    features: bool = False,
    digests: bool = False,
    pictures: bool = False,
    dtype: str = "float32",
    arrays: bool = False,
    device: str = "auto",
    engine: str = "local",
    precision: str | None = None,
    max_failures: int | None = None,
    limits: DecodeLimits = DEFAULT_LIMITS,
    part_rows: int = PART_ROWS,
    report: Callable[[Progress], None] = lambda _: None,
) -> Summary:
    """Embed every image of a source into the folder `out`.

    images: a source or its spec (`vssl.images.sources`); model: the file, triton://HOST:PORT/MODEL, or an
        engine opened before.
    resume goes on with a stopped run; overwrite replaces what is there; update embeds only the
        images that are new or changed and drops those that vanished.
    shard: (i, n), i from 0: do every n-th part from the i-th; the process that finds all parts
        done completes the folder.
    batch_size: images a thread takes through the model at once, the engine's largest bucket when
        None; workers: threads, the usable cores when None.
    features, digests, pictures: further columns; dtype: `float32` or `float16` (`vssl.embeddings.store.to_table` checks
        the range); arrays: write clip-retrieval's layout too (`serve.extraction.clip_layout`).
    engine: `local`, `openvino` or `tensorrt` (the same, computed by these in the `precision` they are
        asked for, see `serve.inference.engine.Engine.open`), or `ray` for Ray Data on this machine or the cluster
        that ray is connected to.
    max_failures: stop with an InputError as soon as more images have failed.
    report: called after each batch, in the caller's thread.

    Raises InputError, ExistsError, MismatchError or FormatError; whatever is raised, the folder
    can be resumed.
    """
    out = user_path(out)
    _check(images, out, shard=shard, batch_size=batch_size, workers=workers, part_rows=part_rows)
    _check_choices(dtype, engine)
    if shard and (overwrite or update):
        raise InputError("a shard shares its folder with others: remove the folder yourself to start over")
    started = time.perf_counter()
    source = open_source(images) if isinstance(images, (str, Path)) else images
    runner = model if isinstance(model, Engine) else _open(model, engine, device, precision)
    listing = list_source(source)
    plan = Plan(
        model_id=runner.model_id,
        images=len(source.items),
        items=hash_listing(listing),
        part_rows=part_rows,
        batch_size=batch_size or runner.buckets[-1],
        features=features,
        digests=digests,
        dtype=dtype,
        max_pixels=limits.max_pixels,
        max_bytes=limits.max_bytes,
        lowered=runner.lowered,
        pictures=pictures,
    )
    options = MapOptions(limits, features, digests, pictures)
    mapper = _mapper(engine, runner, source, options, workers)
    make(out)
    try:
        with locked(out, shared=shard is not None):
            with _gate(out) if shard else nullcontext():
                folder = prepare(
                    out, plan, listing, resume=resume or shard is not None, overwrite=overwrite, update=update
                )
            earlier = EarlierRows(out, listing) if folder.staged else None
            writer = PartWriter(folder, source.items, runner.card, earlier, max_failures, report, started)
            numbers = range(shard[0], plan.parts, shard[1]) if shard else range(plan.parts)
            if not folder.complete:
                _write_parts(folder, writer, numbers, mapper, shard)
            if arrays and folder.complete:
                write_arrays(out, dtype)
            return _summary(folder, writer, numbers, started)
    except OSError as error:
        raise InputError(
            f"cannot write to {out}: {error.strerror or error}; then go on with --resume"
        ) from error


def _write_parts(
    folder: OutputFolder, writer: PartWriter, numbers: range, mapper: Mapper, shard: tuple[int, int] | None
) -> None:
    """Write the parts of this process, and close the folder when no other's is missing."""
    name = f"shard-{shard[0]:05d}-of-{shard[1]:05d}.lock" if shard else ""
    try:
        with locked(folder.progress / name) if shard else nullcontext():
            writer.run(numbers, mapper)
        _complete(folder)
    except (FileNotFoundError, FormatError):
        if not folder.complete:  # else another shard has closed it meanwhile
            raise


def _open(model: Path | str, engine: str, device: str, precision: str | None) -> Engine:
    """Open a model with one core a call: the threads of the pipeline are the parallelism."""
    runs = engine if engine in ENGINES else "onnxruntime"
    return Engine.open(model, device=device, engine=runs, precision=precision, threads=1)


def _mapper(
    name: str, engine: Engine, source: ImageSource, options: MapOptions, workers: int | None
) -> Mapper:
    if name != "ray":
        return local_mapper(engine, source, options, workers)
    from serve.extraction.ray import ray_mapper

    return ray_mapper(engine, source, options, workers)


def local_mapper(engine: Engine, source: ImageSource, options: MapOptions, workers: int | None) -> Mapper:
    """Return a mapper over threads of this process."""
    slow = getattr(source, "remote", False)
    cores, away = available_cores(), engine.on_gpu or engine.remote
    held = engine.graph.lanes if engine.remote else GPU_LANES if engine.on_gpu else 0
    threads = workers or cores * (REMOTE_WORKERS if slow else 1) + held
    # A device, and cores behind a slow network, should see no more batches than they can work on.
    lanes = held if away else cores if threads > cores else 0
    lane = threading.Semaphore(lanes) if lanes else None

    def work(task: Task) -> tuple[Task, BlockResult]:
        return task, embed_block(engine, source, task.rows, options, lane)

    return lambda tasks: ordered(work, tasks, workers=threads, ahead=AHEAD * threads)


def _check_choices(dtype: str, engine: str) -> None:
    if dtype not in store.DTYPES or engine not in ("local", "openvino", "tensorrt", "ray"):
        raise InputError(
            f"found dtype {dtype!r} and engine {engine!r}, expected {' or '.join(store.DTYPES)}, and local, openvino, "
            "tensorrt or ray"
        )


def _check(images: object, out: Path, *, shard: tuple[int, int] | None, **counts: int | None) -> None:
    require_local(out)
    for name, value in counts.items():
        if value is not None and value < 1:
            raise InputError(f"{name}: found {value}, expected at least 1")
    if shard and not 0 <= shard[0] < shard[1]:
        raise InputError(f"shard: found {shard[0]}/{shard[1]}, expected i/n with i from 0 to n - 1")
    if isinstance(images, (str, Path)):
        check_outside(out, images)


@contextmanager
def _gate(out: Path) -> Iterator[None]:
    """Let one shard at a time prepare the folder."""
    (out / PROGRESS).mkdir(exist_ok=True)
    try:
        with locked(out / PROGRESS, wait=True):
            yield
    finally:
        with suppress(OSError):
            (out / PROGRESS).rmdir()  # holds the plan, unless it was refused


def _complete(folder: OutputFolder) -> None:
    """Close the folder when every part is there, whichever process wrote it."""
    with locked(folder.progress, wait=True):
        if all(folder.is_done(number) for number in range(folder.plan.parts)):
            folder.close()


def _summary(folder: OutputFolder, writer: PartWriter, numbers: range, started: float) -> Summary:
    seconds = time.perf_counter() - started
    if folder.complete:
        manifest = read_manifest(folder.path)
        images, rows, reasons = folder.plan.images, manifest["rows"], manifest["reasons"]
        uncertainty = manifest["mean_uncertainty"]
    else:
        images = sum(len(folder.plan.rows(number)) for number in numbers)
        rows = sum(pq.read_metadata(folder.part(number)).num_rows for number in numbers)
        reasons, uncertainty = dict(sorted(writer.reasons.items())), writer.uncertainty
    return Summary(
        out=str(folder.path),
        model_id=folder.plan.model_id,
        complete=folder.complete,
        images=images,
        rows=rows,
        failures=images - rows,
        reasons=reasons,
        resumed=max(0, images - writer.fresh - writer.reused) if folder.complete else writer.resumed,
        reused=writer.reused,
        seconds=seconds,
        images_per_second=writer.fresh / seconds,
        mean_uncertainty=uncertainty,
    )
