"""What a process may use of its machine, as control groups of either version limit it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from schemas import machine

# version, the groups of the process, what the files say -> cores, bytes
CASES = {
    "version 2, within a container": ("0::/", {"cpu.max": "150000 100000"}, 1, None),
    "version 2, no limit": ("0::/", {"cpu.max": "max 100000", "memory.max": "max"}, 64, None),
    "version 2, less than a core": ("0::/", {"cpu.max": "20000 100000"}, 1, None),
    "version 2, the tightest of the groups above": (
        "0::/slice/job",
        {"slice/cpu.max": "300000 100000", "slice/job/cpu.max": "800000 100000"}
        | {"slice/memory.max": "4096", "slice/job/memory.max": "8192"},
        3,
        4096,
    ),
    "version 1, the host's path": (
        "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/",
        {"cpu,cpuacct/cpu.cfs_quota_us": "250000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}
        | {"memory/memory.limit_in_bytes": "1024"},
        2,
        1024,
    ),
    "version 1, no limit": (
        "4:cpu:/",
        {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
        64,
        None,
    ),
    "unreadable": ("0::/", {"cpu.max": "garbage", "memory.max": "\ufffd"}, 64, None),
}


@pytest.mark.parametrize(("own", "files", "cores", "memory"), CASES.values(), ids=CASES)
def test_limits_of_control_groups(tmp_path, monkeypatch, own, files, cores, memory):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n", encoding="utf-8")
    (tmp_path / "own").write_text(own + "\n", encoding="utf-8")
    monkeypatch.setattr(machine, "_GROUPS", tmp_path)
    monkeypatch.setattr(machine, "_OWN", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    assert (machine.usable_cores(), machine.group_limit()) == (cores, memory)


def test_a_real_quota_is_asked():
    group = Path("/sys/fs/cgroup/cpu", f"tinprep-test-{os.getpid()}")
    quota, text = group / "cpu.cfs_quota_us", "100000"
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        group = Path("/sys/fs/cgroup", group.name)
        quota, text = group / "cpu.max", "100000 100000"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no group can be made here: {error}")
    try:
        if not quota.exists():
            pytest.skip("groups have no quota here")
        quota.write_text(text)
        code = (
            "import os, pathlib, sys; from schemas.machine import usable_cores;"
            "pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); print(usable_cores())"
        )
        told = subprocess.run(
            [sys.executable, "-c", code, group / "cgroup.procs"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert told.stdout == "1\n"
    finally:
        group.rmdir()
