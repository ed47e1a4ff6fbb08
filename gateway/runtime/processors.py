"""Count the processors that this process may use, by affinity and by its control group's quota.

A container limited to two processors on a host of sixty-four sees all of them in `os.cpu_count`.
"""

import math
import os
from pathlib import Path
from typing import Final

_CGROUPS: Final = Path("/sys/fs/cgroup")
_OWN_CGROUP: Final = Path("/proc/self/cgroup")


def available_cpus(cgroups: Path = _CGROUPS, own_groups: Path = _OWN_CGROUP) -> int:
    """Number of processors, at least 1. A quota of 1.5 processors counts as 2."""
    cpus = len(os.sched_getaffinity(0))
    quota = _quota(cgroups, own_groups)
    return cpus if quota is None else max(1, min(cpus, math.ceil(quota)))


def _quota(cgroups: Path, own_groups: Path) -> float | None:
    """The control groups' limit in processors, by version 2 or else version 1; None for no limit.

    The lowest limit of the process's own group and of all groups above it counts.
    """
    quotas = [
        quota
        for group in _groups(own_groups)
        for folder in (cgroups / group, cgroups / "cpu" / group)
        if (quota := _quota_version_2(folder) or _quota_version_1(folder)) is not None
    ]
    return min(quotas, default=None)


def _groups(own_groups: Path) -> list[str]:
    """Paths of the process's groups and of all groups above, relative to the mount."""
    found = {"."}
    try:
        lines = own_groups.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        path = Path(line.rpartition(":")[2].lstrip("/"))
        found |= {str(group) for group in (path, *path.parents)}
    return sorted(found)


def _quota_version_2(folder: Path) -> float | None:
    words = _read_words(folder / "cpu.max")
    return None if len(words) != 2 or words[0] == "max" else int(words[0]) / int(words[1])


def _quota_version_1(folder: Path) -> float | None:
    quota = _read_words(folder / "cpu.cfs_quota_us")
    period = _read_words(folder / "cpu.cfs_period_us")
    return None if not (quota and period) or int(quota[0]) < 0 else int(quota[0]) / int(period[0])


def _read_words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []
