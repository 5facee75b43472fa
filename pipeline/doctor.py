"""`tinprep doctor`: what this machine has, and what to do where that is not enough."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from pipeline import memory
from schemas.errors import TinprepError
from schemas.machine import group_limit, usable_cores
from schemas.manifest import NAME, load

_NEEDED = ("tinprep", "polars", "duckdb", "pyarrow", "numpy", "torch")
_OLDEST_PYTHON = (3, 11)
_GIB = 1 << 30
# An Amazon category with its default memory; the disk that Electronics takes, raw files and all.
_LEAST_MEMORY = 3 * _GIB
_LEAST_DISK = 5 * _GIB
# Buckets are files, all open at once while raw files are dealt out.
_LEAST_FILES = 1_024
_SECONDS = 2


class Line(NamedTuple):
    """One thing looked at.

    Attributes:
        name: what it is.
        found: what was found.
        ok: whether it will do.
        do: what to do where it will not; nothing where it will.
    """

    name: str
    found: str
    ok: bool = True
    do: str = ""


def doctor(data: Path = Path("data")) -> list[Line]:
    """Look at versions, hardware, limits, and the data sets below a folder.

    Nothing that is optional is needed, nothing is written, and no network is touched.

    Args:
        data: folder whose data sets are named; its disk is the one that is asked for space.
    """
    return [
        _python(),
        *map(_package, _NEEDED),
        Line("cores", f"{usable_cores()} usable of {os.cpu_count() or 1}"),
        _memory(),
        _disk(data),
        _open_files(),
        _java(),
        _gpu(),
        *_data_sets(data),
    ]


def _python() -> Line:
    good = sys.version_info >= _OLDEST_PYTHON
    do = "" if good else "make the environment with Python 3.11 or newer"
    return Line("Python", f"{platform.python_version()}, {platform.platform()}", good, do)


def _package(name: str) -> Line:
    try:
        return Line(name, version(name))
    except PackageNotFoundError:
        do = "install tinprep again: `pip install -c constraints.txt .`"
        return Line(name, "not installed", ok=False, do=do)


def _memory() -> Line:
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        told = f"{total / _GIB:.1f} GiB, {free / _GIB:.1f} GiB of it unused"
    except (ValueError, OSError):  # macOS does not count unused pages
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        told = f"{total / _GIB:.1f} GiB"
    if (limit := group_limit()) is not None and limit < total:
        total, told = limit, f"{told}; limited to {limit / _GIB:.1f} GiB for this process's group"
    good = total >= _LEAST_MEMORY
    half = max(memory.least(0), total // 2) // memory.MIB
    do = "" if good else f"give --memory about half of it, e.g. {half}MB"
    return Line("memory", told, good, do)


def _disk(data: Path) -> Line:
    at = next(path for path in (data.absolute(), *data.absolute().parents) if path.exists())
    free = shutil.disk_usage(at).free
    good = free >= _LEAST_DISK
    do = "" if good else "free some, or give --out on another disk; --dry-run says what is needed"
    return Line("free disk", f"{free / _GIB:.1f} GiB at {at}", good, do)


def _open_files() -> Line:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = sys.maxsize if hard == resource.RLIM_INFINITY else hard
    good = most >= _LEAST_FILES
    do = "" if good else f"raise it, `ulimit -n {_LEAST_FILES}`, or give fewer --buckets"
    unlimited = "unlimited" if hard == resource.RLIM_INFINITY else f"{hard:,}"
    now = "unlimited" if soft == resource.RLIM_INFINITY else f"{soft:,}"
    return Line("open files", f"{now}, may be raised to {unlimited}", good, do)


def _java() -> Line:
    path = shutil.which("java")
    if path is None:
        return Line("Java", "none; only a distributed engine needs one")
    try:
        done = subprocess.run(  # noqa: S603
            [path, "-version"],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Line("Java", f"{path} does not run: {type(error).__name__}", False, "see to it")
    said = (done.stderr or done.stdout).splitlines()
    if done.returncode or not said:
        return Line("Java", f"{path} ends with code {done.returncode}", False, "see to it")
    return Line("Java", f"{said[0].strip()}, {path}")


def _gpu() -> Line:
    try:
        # Loading PyTorch takes seconds, and a build for CPUs says so itself.
        if version("torch").endswith("+cpu"):
            return Line("GPU", "none: this PyTorch is for CPUs; training runs on the CPU")
        import torch
    except (PackageNotFoundError, ImportError, OSError) as error:
        do = "install PyTorch again; preparation does without, training does not"
        return Line("GPU", f"PyTorch cannot be loaded: {error}", ok=False, do=do)
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
        return Line("GPU", ", ".join(names))
    return Line("GPU", f"none that PyTorch {torch.__version__} can use; training runs on the CPU")


def _data_sets(data: Path) -> Iterator[Line]:
    paths = sorted(data.glob(f"*/{NAME}"))
    for path in paths:
        out = path.parent
        try:
            made = load(out)
        except (TinprepError, OSError) as error:
            what = error.what if isinstance(error, TinprepError) else str(error)
            yield Line(f"{out}", what, ok=False, do="make it again, with --force")
            continue
        rows = ", ".join(f"{split} {count:,}" for split, count in made.rows.items())
        kind = f"{made.dataset} (synthetic data)" if made.synthetic else made.dataset
        yield Line(f"{out}", f"{kind}: rows {rows}")
    if not paths:
        yield Line("data sets", f"none in {data}; `tinprep amazon --demo` makes one")
