"""Processors by quota: what a container may use, not what its host has."""

import os
from pathlib import Path

import pytest

from gateway.runtime.processors import available_cpus

HOST = len(os.sched_getaffinity(0))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The process's groups: of version 2, then of version 1."""
    path = tmp_path / "own"
    path.write_text("0::/pod/box\n5:cpu,cpuacct:/old\n")
    return path


def write(folder: Path, name: str, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def test_no_quota_is_the_affinity(tmp_path: Path, own: Path) -> None:
    """Also where there are no control groups at all."""
    write(tmp_path / "fs", "cpu.max", "max 100000\n")

    assert available_cpus(tmp_path / "fs", own) == HOST
    assert available_cpus(tmp_path / "none", tmp_path / "none") == HOST


@pytest.mark.parametrize("group", [".", "pod", "pod/box"])
@pytest.mark.parametrize(("quota", "cpus"), [(50_000, 1), (100_000, 1), (150_000, 2)])
def test_quota_of_version_2_on_any_level_counts(
    tmp_path: Path, own: Path, group: str, quota: int, cpus: int
) -> None:
    """The tightest; a broken processor is a whole one."""
    write(tmp_path / "fs" / group, "cpu.max", f"{quota} 100000\n")
    write(tmp_path / "fs", "cpu.max" if group != "." else "other", "max 100000\n")

    assert available_cpus(tmp_path / "fs", own) == min(cpus, HOST)


def test_tightest_quota_on_the_way_to_the_root_counts(tmp_path: Path, own: Path) -> None:
    """Whichever level it is on."""
    write(tmp_path / "fs", "cpu.max", "50000 100000\n")
    write(tmp_path / "fs" / "pod", "cpu.max", "6400000 100000\n")

    assert available_cpus(tmp_path / "fs", own) == 1


def test_quota_of_version_1_counts(tmp_path: Path, own: Path) -> None:
    """-1 means none."""
    write(tmp_path / "fs" / "cpu" / "old", "cpu.cfs_period_us", "100000\n")
    write(tmp_path / "fs" / "cpu" / "old", "cpu.cfs_quota_us", "-1\n")
    assert available_cpus(tmp_path / "fs", own) == HOST

    write(tmp_path / "fs" / "cpu" / "old", "cpu.cfs_quota_us", "100000\n")
    assert available_cpus(tmp_path / "fs", own) == 1
