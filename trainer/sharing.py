"""Threads of OpenMP on a machine that they share with other work.

Between two parallel operations OpenMP's threads wait by spinning. On free cores nothing is faster.
Where other work wants the cores, a thread that spins takes one from the thread that it waits for:
training beside eight busy processes was measured to be over 100 times slower than it need be.

libgomp, the OpenMP of PyTorch's Linux wheels, hardly spins while it has more threads than there are
cores (its manual, under GOMP_SPINCOUNT). So while cores are taken, a team of threads that do
nothing makes them more. As many threads compute as before, so the results are the same to the bit.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

# Share of a look's time that a computing thread stood in line for a core: above it cores are taken.
# Measured on 2 cores: up to 0.26, beside a third of a core's work, spinning is faster; from 0.38
# on, beside a process that never rests, sleeping is.
_TAKEN = 0.3
# Seconds of a look; and between looks while cores are taken, twice as many after each.
_LOOK, _REST, _LONGEST_REST = 0.2, 2.0, 60.0
# Whoever sets one of these has decided how threads wait.
_DECIDED = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
_one_at_a_time = threading.Lock()


@contextmanager
def sharing() -> Iterator[None]:
    """Have OpenMP's threads wait asleep meanwhile, whenever other work wants their cores.

    Without libgomp, or where the system does not tell how long a thread stood in line (both are
    there on Linux), nothing changes. Inside another such block nothing does either.
    """
    line = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
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
    """Look how long a thread stands in line for a core, and have it not spin while that is long."""
    rest = _REST
    stood, since = _stood(line), time.perf_counter()
    while not ended.wait(_LOOK):
        now, at = _stood(line), time.perf_counter()
        if now - stood < _TAKEN * (at - since):
            rest = _REST
        else:
            # Only while threads spin does it show whether cores are taken: so look again later.
            with _idle_team():
                ended.wait(rest)
            rest = min(2 * rest, _LONGEST_REST)
        stood, since = _stood(line), time.perf_counter()


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
