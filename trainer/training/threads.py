"""Threads of OpenMP on a machine that they share with other work.

Between two parallel operations OpenMP's threads wait by spinning. On free cores nothing is faster.
Where other work wants the cores, a thread that spins takes one from the thread that it waits for:
training beside eight busy processes was measured to be over 100 times slower than it need be.

libgomp, the OpenMP of PyTorch's Linux wheels, hardly spins while it has more threads than there are
cores (its manual, under GOMP_SPINCOUNT). So while cores are taken, a team of threads that do
nothing makes them more.

A thread that sleeps has to be woken on a core that other work holds. Threads spread over all cores
then wait for the unluckiest of them, so meanwhile they run on no more cores than their share makes.
As many threads compute as before, so the results are the same to the bit.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import torch

# Share of a look's time that a computing thread stood in line for a core: above it cores are taken.
# Measured on 2 cores: up to 0.26, beside a third of a core's work, spinning is faster; from 0.38
# on, beside a process that never rests, sleeping is.
_TAKEN = 0.3
# Seconds of a look, and between looks while cores are taken.
_LOOK, _REST = 0.2, 30.0
# Seconds between two glances at the cores given up, and the share of them that one may stand idle.
_GLANCE, _UNUSED = 1.0, 0.5
# Whoever sets one of these has decided how threads wait, or where they run.
_DECIDED = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY")
_TASKS = Path("/proc/self/task")
_one_at_a_time = threading.Lock()


@contextmanager
def sharing() -> Iterator[None]:
    """Have OpenMP's threads wait asleep, on few cores, whenever other work wants their cores.

    Without libgomp, or where the system does not tell how long a thread stood in line (both are
    there on Linux), nothing changes. Inside another such block nothing does either.
    """
    line = _TASKS / str(threading.get_native_id()) / "schedstat"
    alone = torch.get_num_threads() == 1 or any(name in os.environ for name in _DECIDED)
    if alone or _libgomp() is None or not line.exists() or not _one_at_a_time.acquire(False):
        yield
        return
    ended = threading.Event()
    watch = threading.Thread(target=_watch, args=(line, ended), name="sharing", daemon=True)
    try:
        watch.start()
        yield
    finally:
        ended.set()
        if watch.ident is not None:
            watch.join()
        _one_at_a_time.release()


def _watch(line: Path, ended: threading.Event) -> None:
    """Look how long a thread stands in line for a core, and give way while that is long."""
    stood, since = _stood(line), time.perf_counter()
    while not ended.wait(_LOOK):
        now, at = _stood(line), time.perf_counter()
        if (in_line := (now - stood) / (at - since)) > _TAKEN:
            # Only while threads spin does it show whether cores are taken: so look again later.
            with _idle_team(), _few_cores(line, 1 - in_line) as others:
                _rest(others, ended)
        stood, since = _stood(line), time.perf_counter()


def _rest(others: set[int], ended: threading.Event) -> None:
    """Wait, until a core is not taken any more at the longest."""
    end = time.perf_counter() + _REST
    while (since := time.perf_counter()) < end:
        before = _idle()
        if ended.wait(min(_GLANCE, end - since)):
            return
        after, most = _idle(), _UNUSED * (time.perf_counter() - since)
        if any(after[core] - before[core] > most for core in others & before.keys() & after.keys()):
            return


def _idle() -> dict[int, float]:
    """Seconds that each core had nothing to run, since the machine began; none where hidden."""
    found, tick = {}, os.sysconf("SC_CLK_TCK")
    try:
        texts = Path("/proc/stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    for text in texts:
        name, *times = text.split()
        if name.startswith("cpu") and name != "cpu":
            found[int(name[3:])] = (int(times[3]) + int(times[4])) / tick
    return found


@contextmanager
def _few_cores(line: Path, share: float) -> Iterator[set[int]]:
    """Keep this process's threads to `share` of its cores, at least one; yields the other cores."""
    usable = os.sched_getaffinity(int(line.parent.name))
    # The core that the computing thread has found comes first: another training beside this one
    # has likely found another.
    found = int((line.parent / "stat").read_text(encoding="ascii").rpartition(")")[2].split()[36])
    nearest = sorted(usable, key=lambda core: (core - found) % (1 + max(usable)))
    few = set(nearest[: max(1, int(share * len(usable)))])
    _move(usable, few)
    try:
        yield usable - few
    finally:
        # Threads that began meanwhile too; and those that began while these were moved.
        while _move(few, usable):
            pass


def _move(before: set[int], after: set[int]) -> int:
    """Have the threads that may run on the cores `before` run on `after`; returns how many.

    Whoever gave a thread other cores than the rest has decided where it runs.
    """
    moved = 0
    for task in _TASKS.iterdir():
        with suppress(OSError):  # it has ended, or the system allows nobody to move it
            if before != after and os.sched_getaffinity(int(task.name)) == before:
                os.sched_setaffinity(int(task.name), after)
                moved += 1
    return moved


def _stood(line: Path) -> float:
    """Seconds that a thread was ready to run and had no core, since it began."""
    return int(line.read_text(encoding="ascii").split()[1]) / 1e9


@contextmanager
def _idle_team() -> Iterator[None]:
    """Threads of libgomp, more than there are cores, asleep until the block ends."""
    libgomp = _libgomp()
    assert libgomp is not None
    ended = threading.Event()

    def lead() -> None:
        # Each thread of the team calls any function that does nothing; the team stays as long as
        # the thread that made it.
        nothing = ctypes.cast(libgomp.omp_get_thread_num, ctypes.c_void_p)
        libgomp.GOMP_parallel(nothing, None, ctypes.c_uint(libgomp.omp_get_num_procs() + 1), 0)
        ended.wait()

    leader = threading.Thread(target=lead, name="idle-team", daemon=True)
    leader.start()
    try:
        yield
    finally:
        ended.set()
        leader.join()


@cache
def _libgomp() -> ctypes.CDLL | None:
    """The libgomp that PyTorch has loaded; None where it has another OpenMP."""
    try:
        return ctypes.CDLL("libgomp.so.1", mode=os.RTLD_NOLOAD)
    except (OSError, AttributeError):
        return None
