"""`available_cpus` counts what a container may use, not what its host has."""

import os
from pathlib import Path

import pytest

from gateway.runtime.processors import available_cpus

HOST = len(os.sched_getaffinity(0))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A list of the process's groups: one of version 2, one of version 1."""
    path = tmp_path / "own"
    path.write_text("0::/pod/box\n5:cpu,cpuacct:/old\n")
    return path


def write(folder: Path, name: str, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def test_affinity_counts_without_a_quota(tmp_path: Path, own: Path) -> None:
    """Without a quota, or without control groups, the affinity counts."""
    write(tmp_path / "fs", "cpu.max", "max 100000\n")

    assert available_cpus(tmp_path / "fs", own) == HOST
    assert available_cpus(tmp_path / "none", tmp_path / "none") == HOST


@pytest.mark.parametrize("group", [".", "pod", "pod/box"])
@pytest.mark.parametrize(("quota", "cpus"), [(50_000, 1), (100_000, 1), (150_000, 2)])
def test_quota_of_version_2_on_any_level_counts(
    tmp_path: Path, own: Path, group: str, quota: int, cpus: int
) -> None:
    """A quota of the group or any group above counts, rounded up to whole processors."""
    write(tmp_path / "fs" / group, "cpu.max", f"{quota} 100000\n")
    write(tmp_path / "fs", "cpu.max" if group != "." else "other", "max 100000\n")

    assert available_cpus(tmp_path / "fs", own) == min(cpus, HOST)


def test_lowest_quota_counts(tmp_path: Path, own: Path) -> None:
    """Of quotas on several levels, the lowest counts."""
    write(tmp_path / "fs", "cpu.max", "50000 100000\n")
    write(tmp_path / "fs" / "pod", "cpu.max", "6400000 100000\n")

    assert available_cpus(tmp_path / "fs", own) == 1


def test_quota_of_version_1_counts(tmp_path: Path, own: Path) -> None:
    """A quota of version 1 counts, and -1 means no quota."""
    write(tmp_path / "fs" / "cpu" / "old", "cpu.cfs_period_us", "100000\n")
    write(tmp_path / "fs" / "cpu" / "old", "cpu.cfs_quota_us", "-1\n")
    assert available_cpus(tmp_path / "fs", own) == HOST

    write(tmp_path / "fs" / "cpu" / "old", "cpu.cfs_quota_us", "100000\n")
    assert available_cpus(tmp_path / "fs", own) == 1
