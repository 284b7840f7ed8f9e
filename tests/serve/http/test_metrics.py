"""Metrics: Prometheus text that a Prometheus parser reads, summed over workers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from serve.http.metrics import Histogram, Metrics


def values(text: bytes) -> dict[str, float]:
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            found[f"{sample.name}{sorted(sample.labels.items())}"] = sample.value
    return found


@given(st.lists(st.floats(0, 2), max_size=50))
def test_a_histogram_counts_by_upper_bound(observed: list[float]) -> None:
    histogram = Histogram((0.5, 1.0))
    for value in observed:
        histogram.observe(value)
    assert histogram.counts == [
        sum(v <= 0.5 for v in observed),
        sum(0.5 < v <= 1 for v in observed),
        sum(v > 1 for v in observed),
    ]
    assert histogram.total == pytest.approx(sum(observed))


def test_a_prometheus_parser_reads_the_text() -> None:
    metrics = Metrics()
    metrics.request("/embed", 200, 0.003, {})
    metrics.request("/embed", 200, 7.0, {})
    metrics.request("/embed", 429, 0.0001, {})
    metrics.images("embedded", 32)
    metrics.stage["decode"].observe(0.002)
    metrics.queue = 5
    found = values(metrics.render())
    assert found["vssl_requests_total[('route', '/embed'), ('status', '200')]"] == 2
    assert found["vssl_request_duration_seconds_count[('route', '/embed')]"] == 3
    assert found["vssl_request_duration_seconds_bucket[('le', '0.005'), ('route', '/embed')]"] == 2
    assert found["vssl_request_duration_seconds_bucket[('le', '+Inf'), ('route', '/embed')]"] == 3
    assert found["vssl_images_total[('outcome', 'embedded')]"] == 32
    assert found["vssl_stage_duration_seconds_sum[('stage', 'decode')]"] == pytest.approx(0.002)
    assert found["vssl_queue_images[]"] == 5
    assert found["vssl_workers[]"] == 1


def test_workers_are_added_up_and_dead_ones_are_counted(tmp_path: Path) -> None:
    mine = Metrics(tmp_path)
    mine.request("/embed", 200, 0.1, {})
    other = Metrics()
    other.request("/embed", 200, 0.1, {})
    other.queue = 9
    ended = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    dead = int(ended.stdout)
    (tmp_path / f"vssl-{os.getppid()}-{dead}.json").write_bytes(orjson.dumps(other.snapshot()))
    (tmp_path / f"vssl-{os.getppid()}-{os.getpid() + 10**7}.ended").write_bytes(
        orjson.dumps(other.snapshot())
    )
    (tmp_path / f"vssl-{os.getppid() + 1}-{dead}.json").write_bytes(b"of another server")
    (tmp_path / f"vssl-{os.getppid()}-77.json.tmp").write_bytes(b"half")
    found = values(mine.render())
    assert found["vssl_requests_total[('route', '/embed'), ('status', '200')]"] == 3
    assert found["vssl_worker_deaths_total[]"] == 1
    assert found["vssl_workers[]"] == 1
    assert found["vssl_queue_images[]"] == 0


def test_counts_are_shared_whole_or_not_at_all(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    metrics.images("embedded", 3)
    metrics.save()
    (file,) = tmp_path.iterdir()
    assert orjson.loads(file.read_bytes()) == orjson.loads(orjson.dumps(metrics.snapshot()))
    metrics.retire()
    assert [f.suffix for f in tmp_path.iterdir()] == [".ended"]
