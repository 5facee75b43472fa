"""What of this machine a process may use."""

from __future__ import annotations

import os
from pathlib import Path


def usable_cores() -> int:
    """Cores that this process may run on: a container or a job scheduler may allow fewer."""
    usable = getattr(os, "sched_getaffinity", None)  # macOS has none
    return len(usable(0)) if usable else os.cpu_count() or 1


def group_limit() -> int | None:
    """The bytes of memory that a container allows; None where there is no limit."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = Path("/sys/fs/cgroup", name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        return int(text) if text.isdigit() else None
    return None


def total_memory() -> int:
    """Bytes of memory that there are for this process and all beside it, free or not."""
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(installed, group_limit() or installed)
