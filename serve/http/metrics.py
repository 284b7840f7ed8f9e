"""What happens -> Prometheus text, with the units in the names.

With several workers the counts of all of them are added up (prometheus_client's multi-process
mode, in the folder that BentoML sets up for its workers).
"""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
UNCERTAINTIES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7)
STAGES = ("read", "decode", "queue", "inference", "serialise", "search")


class Metrics:
    """The server's counters; every method may be called from any thread."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        registry = self._registry
        self._requests = Counter(
            "vssl_requests_total", "Requests answered", ("route", "status"), registry=registry
        )
        self._duration = Histogram(
            "vssl_request_duration_seconds",
            "From the first byte of a request to the last of its answer",
            ("route",),
            buckets=SECONDS,
            registry=registry,
        )
        stages = Histogram(
            "vssl_stage_duration_seconds",
            "One stage of one request (read, decode, serialise, search) or batch (queue, inference)",
            ("stage",),
            buckets=SECONDS,
            registry=registry,
        )
        self.stage = {name: stages.labels(name).observe for name in STAGES}
        self._images = Counter("vssl_images_total", "Images by outcome", ("outcome",), registry=registry)
        self.batch_size = Histogram(
            "vssl_batch_size_images", "Images in one run of the model", buckets=SIZES, registry=registry
        )
        self.queue = Gauge(
            "vssl_queue_images",
            "Images accepted and not yet answered",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.uncertainty = Histogram(
            "vssl_uncertainty",
            "Uncertainty of the answered images; a shift of this histogram is a drift of the inputs",
            buckets=UNCERTAINTIES,
            registry=registry,
        )
        self._request_children: dict[tuple[str, int], Counter] = {}
        self._duration_children: dict[str, Histogram] = {}
        self._outcomes = {name: self._images.labels(name) for name in ("embedded",)}

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        child = self._request_children.get((route, status))
        if child is None:
            child = self._request_children[route, status] = self._requests.labels(route, str(status))
            self._duration_children.setdefault(route, self._duration.labels(route))
        child.inc()
        self._duration_children[route].observe(seconds)

    def images(self, outcome: str, count: int) -> None:
        """Count images by outcome: `embedded` or an error's code."""
        child = self._outcomes.get(outcome)
        if child is None:
            child = self._outcomes[outcome] = self._images.labels(outcome)
        child.inc(count)

    def render(self) -> bytes:
        """Return the Prometheus text of this process, or of all workers together."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)
