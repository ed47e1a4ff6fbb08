"""How many processors this process may use: by affinity, and by its control group's quota.

A container limited to two processors on a host of sixty-four sees all of them in `os.cpu_count`.
"""

import math
import os
from pathlib import Path
from typing import Final

_CGROUPS: Final = Path("/sys/fs/cgroup")
_OWN_CGROUP: Final = Path("/proc/self/cgroup")


def available_cpus(cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUP) -> int:
    """Whole processors, at least one; a quota of one and a half counts as two."""
    cpus = len(os.sched_getaffinity(0))
    quota = _quota(cgroups, own)
    return cpus if quota is None else max(1, min(cpus, math.ceil(quota)))


def _quota(cgroups: Path, own: Path) -> float | None:
    """Processors' worth of time that the kernel grants, of version 2 or else 1; none for no limit.

    The tightest limit on the way from the process's own group to the root counts.
    """
    quotas = [
        quota
        for group in _groups(own)
        for folder in (cgroups / group, cgroups / "cpu" / group)
        if (quota := _version_2(folder) or _version_1(folder)) is not None
    ]
    return min(quotas, default=None)


def _groups(own: Path) -> list[str]:
    """The process's groups and all above them, relative to the mount; the root is `.`."""
    found = {"."}
    try:
        lines = own.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        path = Path(line.rpartition(":")[2].lstrip("/"))
        found |= {str(group) for group in (path, *path.parents)}
    return sorted(found)


def _version_2(folder: Path) -> float | None:
    words = _words(folder / "cpu.max")
    return None if len(words) != 2 or words[0] == "max" else int(words[0]) / int(words[1])


def _version_1(folder: Path) -> float | None:
    quota, period = _words(folder / "cpu.cfs_quota_us"), _words(folder / "cpu.cfs_period_us")
    return None if not (quota and period) or int(quota[0]) < 0 else int(quota[0]) / int(period[0])


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []
