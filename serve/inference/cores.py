"""The machine -> the number of cores this process may really use.

`os.cpu_count()` answers the host's cores inside a container; a runtime that starts that many
threads on a share of two spends its time switching between them.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def available_cores(cgroup: Path = _CGROUP) -> int:
    """Return the usable cores, at least 1: the affinity mask, capped by the cgroup's CPU quota.

    A quota of 1.5 cores counts as 2: a thread that must wait costs less than a core that idles.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroup)
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def _quota(cgroup: Path) -> float | None:
    """Return the CPU quota in cores, of cgroup version 2 or 1, or None when there is no limit."""
    try:
        limit, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            limit = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if not limit.isdecimal() or not period.isdecimal() or int(period) == 0:
        return None  # "max" or -1: unlimited
    return int(limit) / int(period)
