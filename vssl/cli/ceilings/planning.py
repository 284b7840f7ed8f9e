"""What was measured here, and a number of images -> what a job of that size takes: hours, machines, bytes, queries/s.

Each cost is measured at two sizes and taken for a line: what it costs at any size, and what each image adds. The first
part is why small runs alone foretell too much. Machines are like this one; what does not fit into the memory
of one needs many (Milvus). Shape letters: N images, D embedding dimension, E encoded dimension.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

FLOAT = 4  # bytes
MAPPED = 256 * 1024 * 1024  # vectors of more bytes are saved once more, next to the index
MEMORY_SHARE = 0.7  # of a machine's memory that an index may take


@dataclass(frozen=True)
class Line:
    """A cost: what it is at any size, and what each image adds."""

    fixed: float
    each: float

    @classmethod
    def through(cls, few: tuple[int, float], many: tuple[int, float]) -> Self:
        """Return the line through two measurements (images, cost), of unlike sizes.

        Where scatter gives a line that begins below nothing or falls, the cost is in proportion to the larger.
        """
        (n, cost), (more, larger) = few, many
        each = (larger - cost) / (more - n)
        fixed = cost - each * n
        return cls(fixed, each) if each > 0 and fixed > 0 else cls(0.0, larger / more)

    def at(self, images: int) -> float:
        """Return the cost of N images."""
        return self.fixed + self.each * images


@dataclass(frozen=True)
class Costs:
    """What was measured on one machine.

    extraction: seconds, wall time; building: CPU seconds of a gallery; search: milliseconds of one core, an exact
    query in batches; speedup: how many times as fast all cores search; part, gallery: bytes on the disk an image.
    """

    extraction: Line
    building: Line
    search: Line
    speedup: float
    part: float
    gallery: float


@dataclass(frozen=True)
class Plan:
    """What N images take on machines like this one.

    hours: of extraction on one machine; machines: that extract within `within_hours`; building: hours until the
    gallery stands; embeddings, gallery, index: bytes of the Parquet folder, the gallery and the search's memory;
    shards: machines that hold the index; milliseconds: of one core, an exact query over all items in batches;
    queries: a second, of all cores of those machines together.
    """

    images: int
    within_hours: float
    hours: float
    machines: int
    building: float
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
            f"  gallery               {self.building:10.3g} h of a core to build, with its distance named",
            f"  on the disk           embeddings {shown_bytes(self.embeddings)}, gallery {shown_bytes(self.gallery)}",
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
    images: int, costs: Costs, *, dim: int, width: float, memory: float, within_hours: float = 24.0
) -> Plan:
    """Take what was measured to N images.

    width: E / D, how much longer the encoding is than the mean; memory: bytes of one machine.
    """
    hours = costs.extraction.at(images) / 3600
    index = images * dim * width * FLOAT
    shards = max(1, math.ceil(index / (MEMORY_SHARE * memory)))
    vectors = images * 2 * dim * FLOAT
    milliseconds = costs.search.at(images)
    on_each = costs.search.at(math.ceil(images / shards))  # a query asks every shard
    return Plan(
        images=images,
        within_hours=within_hours,
        hours=hours,
        machines=max(1, math.ceil(hours / within_hours)),
        building=costs.building.at(images) / 3600,
        embeddings=images * costs.part,
        gallery=images * costs.gallery + (vectors if vectors > MAPPED else 0),
        index=index,
        shards=shards,
        milliseconds=milliseconds,
        queries=1000 * costs.speedup / on_each,
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
