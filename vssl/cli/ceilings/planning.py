"""What was measured here, and a number of images -> what a job of that size takes: hours, machines, bytes, queries/s.

Extraction and exact search cost the same an image and an item at every size, so that both are scaled in
proportion; machines are like this one. What does not fit into the memory of one machine needs many (Milvus).
Shape letters: N images, D embedding dimension, E encoded dimension.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FLOAT = 4  # bytes
ROW_BYTES = 300  # of ids, paths, labels and checksums in a gallery's store, an image
MEMORY_SHARE = 0.7  # of a machine's memory that an index may take


@dataclass(frozen=True)
class Plan:
    """What N images take on machines like this one.

    hours: of extraction on one machine; machines: that extract within `within_hours`; embeddings, gallery,
    index: bytes of the Parquet folder, the store and the search's memory; shards: machines that hold the
    index; milliseconds: of one core, an exact query over all items in batches; queries: a second, of all
    cores of those machines together.
    """

    images: int
    within_hours: float
    hours: float
    machines: int
    embeddings: float
    gallery: float
    index: float
    shards: int
    milliseconds: float
    queries: float

    def lines(self) -> list[str]:
        """Return the plan for a person, and what to type for it."""
        engine = "vssl extract" if self.machines == 1 else "vssl extract --engine ray"
        where = (
            "one gallery folder" if self.shards == 1 else f"Milvus on {self.shards} machines like this one"
        )
        found = [
            f"plan for {self.images:.3g} images on machines like this one",
            f"  extraction            {self.hours:10.3g} h on one; {self.machines} for {self.within_hours:g} h, "
            f"with {engine}",
            f"  embeddings            {shown_bytes(self.embeddings)}, gallery {shown_bytes(self.gallery)}",
            f"  exact index           {shown_bytes(self.index)} of memory: {where}",
            f"  exact search          {self.milliseconds:10.3g} ms of a core a query; in batches {self.queries:.3g} "
            "queries/s",
        ]
        if self.milliseconds > 100:
            found.append(
                "  nearer than that: an approximate index, vssl index --budget latency=10ms,recall=0.95"
            )
        return found


def make_plan(
    images: int,
    *,
    dim: int,
    extract_rate: float,
    search_ms: float,
    searched: int,
    width: float,
    cores: int,
    memory: float,
    within_hours: float = 24.0,
) -> Plan:
    """Scale what was measured to N images.

    extract_rate: images a second of one machine; search_ms: of one core, a query over `searched` items in batches;
    width: E / D, how much longer the encoding is than the mean; memory: bytes of one machine.
    """
    hours = images / extract_rate / 3600
    index = images * dim * width * FLOAT
    shards = max(1, math.ceil(index / (MEMORY_SHARE * memory)))
    milliseconds = search_ms * images / searched
    return Plan(
        images=images,
        within_hours=within_hours,
        hours=hours,
        machines=max(1, math.ceil(hours / within_hours)),
        embeddings=images * 2 * dim * FLOAT,  # numbers hardly compress, ids and paths almost wholly
        gallery=images * (2 * dim * FLOAT + ROW_BYTES),
        index=index,
        shards=shards,
        milliseconds=milliseconds,
        queries=1000 * cores * shards / milliseconds,
    )


def memory_bytes() -> int:
    """Return this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def shown_bytes(count: float) -> str:
    """Return a size for a person: 1.5 GB."""
    power = min(4, max(0, int(math.log10(max(count, 1)) // 3)))
    return f"{count / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"


def limits(found: Mapping[str, Any]) -> list[str]:
    """Return what bounds this machine in what was measured, and what to change."""
    lines = []
    if "extract" in found:
        e = found["extract"]
        if e["inference"] < e["decode"]:
            lines.append(
                "the model bounds extraction: try --engine openvino, or vssl export --precision int8"
            )
        else:
            lines.append(
                "decoding bounds extraction: more cores, or smaller files; a faster model changes little"
            )
        if e["reached"] < 0.8:
            lines.append(
                f"extraction reaches {e['reached']:.0%} of its bound: a slow disk, or other work on the cores"
            )
    searched: Sequence[Mapping[str, Any]] = found.get("search", ())
    slow = [cost["distance"] for cost in searched if cost["batch"] > 1 and cost["width"] > 1.5]
    if slow:
        lines.append(
            f"{', '.join(slow)} read a longer encoding than cosine: choose it where it pays (vssl evaluate)"
        )
    if "train" in found and found["train"]["reached"] < 0.8:
        lines.append("views bound the training step: fewer workers beside it, or a smaller train.cache_size")
    return lines
