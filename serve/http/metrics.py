"""What happens -> Prometheus text, with the units in the names; cheap enough for a small image.

Counts are plain numbers changed by the event loop's thread alone. Each worker writes its own
to a small file once a second, and whichever worker is asked adds all of them up; the file of a
worker that died stays, so nothing counted is lost and its death can be seen.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
UNCERTAINTIES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7)
BATCH_STAGES = ("queue", "inference")
STAGES = ("read", "decode", *BATCH_STAGES, "serialise", "search")

HELP = {
    "vssl_requests_total": ("counter", "Requests answered"),
    "vssl_images_total": ("counter", "Images by outcome: embedded, or the code of their error"),
    "vssl_worker_deaths_total": ("counter", "Worker processes that ended without being asked to"),
    "vssl_model_reloads_total": ("counter", "Times a replaced model file was taken up, by outcome"),
    "vssl_workers": ("gauge", "Worker processes that are alive"),
    "vssl_queue_images": ("gauge", "Images accepted and not yet answered"),
    "vssl_request_duration_seconds": ("histogram", "From a request's head to the last byte of its answer"),
    "vssl_stage_duration_seconds": (
        "histogram",
        "One stage of a request (read, decode, serialise, search) or of a batch (queue, inference)",
    ),
    "vssl_batch_size_images": ("histogram", "Images in one run of the model"),
    "vssl_uncertainty": ("histogram", "Uncertainty of answered images; a shift is a drift of the inputs"),
}


@dataclass(eq=False)
class Histogram:
    """Counts by upper bound (the last one: beyond all bounds) and the sum of what was observed."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def observe_all(self, values: Sequence[float]) -> None:
        """Count several values."""
        counts, bounds = self.counts, self.bounds
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        self.total += sum(values)


class Metrics:
    """One worker's counts, by metric and label text. Only the event loop's thread may change them."""

    def __init__(self, folder: Path | None = None) -> None:
        """Count; with a folder, share the counts there with the other workers of this server."""
        self._file = None if folder is None else folder / f"vssl-{os.getppid()}-{os.getpid()}.json"
        self._numbers: Counter[str] = Counter()
        self.stage = {name: Histogram(SECONDS) for name in STAGES}
        self.batch_size = Histogram(SIZES)
        self.uncertainty = Histogram(UNCERTAINTIES)
        self._histograms = {f'vssl_stage_duration_seconds/stage="{n}"': h for n, h in self.stage.items()}
        self._histograms |= {
            "vssl_batch_size_images/": self.batch_size,
            "vssl_uncertainty/": self.uncertainty,
        }
        self.queue = 0

    def request(self, route: str, status: int, seconds: float, stages: Mapping[str, float]) -> None:
        """Count one answered request, and the seconds of its stages; those of a batch are counted with it."""
        self._numbers[f'vssl_requests_total/route="{route}",status="{status}"'] += 1
        name = f'vssl_request_duration_seconds/route="{route}"'
        if name not in self._histograms:
            self._histograms[name] = Histogram(SECONDS)
        self._histograms[name].observe(seconds)
        for stage, spent in stages.items():
            if stage not in BATCH_STAGES:
                self.stage[stage].observe(spent)

    def images(self, outcome: str, count: int) -> None:
        """Count images by outcome: `embedded` or an error's code."""
        self._numbers[f'vssl_images_total/outcome="{outcome}"'] += count

    def reload(self, outcome: str) -> None:
        """Count one attempt to take up a replaced model file."""
        self._numbers[f'vssl_model_reloads_total/outcome="{outcome}"'] += 1

    def snapshot(self) -> dict[str, Any]:
        """Return the counts as plain values."""
        return {
            "numbers": {**self._numbers, "vssl_queue_images/": self.queue},
            "histograms": {name: [h.bounds, h.counts, h.total] for name, h in self._histograms.items()},
        }

    def save(self) -> None:
        """Write the counts where the other workers find them."""
        if self._file is None:
            return
        with suppress(OSError):  # a full disk must not stop the server
            partial = self._file.with_suffix(".tmp")
            partial.write_bytes(orjson.dumps(self.snapshot()))
            partial.replace(self._file)

    def retire(self) -> None:
        """Leave the counts behind as those of a worker that was asked to end."""
        self.save()
        if self._file is not None:
            with suppress(OSError):
                self._file.rename(self._file.with_suffix(".ended"))

    def render(self) -> bytes:
        """Return the Prometheus text of all workers together."""
        snapshots, alive, deaths = [self.snapshot()], 1, 0
        for file in self._others():
            with suppress(OSError, ValueError):
                snapshot = orjson.loads(file.read_bytes())
                ended = file.suffix == ".ended"
                if ended or not _is_alive(int(file.stem.split("-")[-1])):
                    snapshot["numbers"]["vssl_queue_images/"] = 0
                    deaths += not ended
                else:
                    alive += 1
                snapshots.append(snapshot)
        merged = _merge(snapshots)
        merged["numbers"]["vssl_workers/"] = alive
        merged["numbers"]["vssl_worker_deaths_total/"] = deaths
        return _text(merged)

    def _others(self) -> Iterable[Path]:
        if self._file is None:
            return []
        mine = self._file.stem
        files = self._file.parent.glob(f"vssl-{os.getppid()}-*.*")
        return [f for f in files if f.suffix in (".json", ".ended") and f.stem != mine]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _merge(snapshots: list[dict[str, Any]]) -> dict[str, Any]:
    numbers: Counter[str] = Counter()
    histograms: dict[str, list[Any]] = {}
    for snapshot in snapshots:
        numbers.update(snapshot["numbers"])
        for name, (bounds, counts, total) in snapshot["histograms"].items():
            known = histograms.get(name, [bounds, [0] * len(counts), 0.0])
            summed = [a + b for a, b in zip(known[1], counts, strict=True)]
            histograms[name] = [bounds, summed, known[2] + total]
    return {"numbers": numbers, "histograms": histograms}


def _text(merged: dict[str, Any]) -> bytes:
    lines: list[str] = []
    for metric, (kind, about) in HELP.items():
        lines += [f"# HELP {metric} {about}", f"# TYPE {metric} {kind}"]
        for name, value in merged["numbers"].items():
            family, _, labels = name.partition("/")
            if family == metric:
                lines.append(f"{metric}{{{labels}}} {value}" if labels else f"{metric} {value}")
        for name, (bounds, counts, total) in merged["histograms"].items():
            family, _, labels = name.partition("/")
            if family != metric:
                continue
            running, comma, own = 0, "," if labels else "", f"{{{labels}}}" if labels else ""
            for bound, count in zip([*(f"{b:g}" for b in bounds), "+Inf"], counts, strict=True):
                running += count
                lines.append(f'{metric}_bucket{{{labels}{comma}le="{bound}"}} {running}')
            lines += [f"{metric}_sum{own} {total}", f"{metric}_count{own} {running}"]
    return ("\n".join(lines) + "\n").encode()
