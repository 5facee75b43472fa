"""What of this machine a process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

# Where the kernel shows groups of processes, and which groups this process is in.
_GROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Cores that this process may run on: a container or a job scheduler may allow fewer.

    Of a quota of time on the cores, e.g. 2.5 cores', whole cores count: threads that wait for each
    other gain nothing by a part of one.
    """
    usable = getattr(os, "sched_getaffinity", None)  # macOS has none
    cores = len(usable(0)) if usable else os.cpu_count() or 1
    for folder in _groups("cpu"):
        quota, period = _quota(folder)
        if quota > 0 and period > 0:
            cores = min(cores, max(1, quota // period))
    return cores


def group_limit() -> int | None:
    """The bytes of memory that a container allows; None where there is no limit."""
    names = ("memory.max", "memory.limit_in_bytes")
    texts = [_text(folder / name) for folder in _groups("memory") for name in names]
    return min((int(text) for text in texts if text.isdigit()), default=None)


def total_memory() -> int:
    """Bytes of memory that there are for this process and all beside it, free or not."""
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(installed, group_limit() or installed)


def _groups(controller: str) -> Iterator[Path]:
    """Folders that may limit this process's share of something, its own group's and those above.

    Args:
        controller: `cpu` or `memory`: in version 1 of control groups each has its own tree.
    """
    for line in _text(_OWN).splitlines():
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        root = _GROUPS / names
        # Seen from within a container, the path may be the host's, and is not there.
        inside = PurePosixPath(path).relative_to("/") if path.startswith("/") else PurePosixPath()
        yield from (root / part for part in (inside, *inside.parents) if (root / part).is_dir())


def _quota(folder: Path) -> tuple[int, int]:
    """Microseconds on all cores, and in which time; (0, 0) for any."""
    both = _text(folder / "cpu.max").split()  # version 2
    both = both or [_text(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
    with suppress(ValueError):
        quota, period = map(int, both)
        return quota, period
    return 0, 0


def _text(path: Path) -> str:
    """What a file of the system says, an empty text where it is not there."""
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
