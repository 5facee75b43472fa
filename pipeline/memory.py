"""How `--memory` is kept: what is planned with, and the least that a preparation can do with.

Peaks were measured with `benchmarks/memory.py`. A plan is kept if no peak is above 1.2 times the
limit: allocators keep some of what they are given back.
"""

from __future__ import annotations

import ctypes
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pyarrow as pa

from schemas.errors import UsageError

MIB = 1 << 20
PAGE = resource.getpagesize()
# The interpreter and the libraries, with what their allocators keep.
RESIDENT = 384 * MIB
# What a thread has under way, whatever the size of its bucket: blocks of text, a query, blocks of
# rows.
A_WORKER = 240 * MIB
_SMALL_BUCKET = 48 * MIB
# However much there is to take: what a run does not need, others have.
_LARGE_BUCKET = 512 * MIB
# glibc's mallopt: a parameter, by its number in malloc.h, and a value.
_KEEPING = (
    (-8, 1),  # M_ARENA_MAX: what one thread frees, every other can take
    (-3, 32 * MIB),  # M_MMAP_THRESHOLD: the largest that it allows
    (-1, 2**31 - 1),  # M_TRIM_THRESHOLD: nothing is given back of itself
)
_TOP_PAD = -2  # M_TOP_PAD: what the heap grows by beyond what is asked for
_HUGE = 2 * MIB
# Address space alone: memory is taken as it is touched. With half of it a run was slower.
_HEAP = 512 * MIB
_MADV_HUGEPAGE = 14


def least(fixed: int) -> int:
    """The fewest bytes of `--memory` that can be kept, of which `fixed` are held all along."""
    return RESIDENT + A_WORKER + fixed


def workers(memory: int, fixed: int, threads: int) -> int:
    """How many of `threads` threads, one at least, can be at work within `memory` bytes."""
    return max(1, min(threads, (memory - RESIDENT - fixed) // A_WORKER))


def bucket_bytes(memory: int, fixed: int, at_once: int) -> int:
    """What the working set of one bucket may take.

    Args:
        memory: bytes to stay within.
        fixed: bytes held all along.
        at_once: buckets worked on at once.
    """
    each = (memory - RESIDENT - fixed) // at_once
    return max(min(each // 2, each - A_WORKER, _LARGE_BUCKET), _SMALL_BUCKET)


def check(memory: int, fixed: int) -> None:
    """Refuse a limit that cannot be kept.

    Raises:
        UsageError: `memory` is less than `least`.
    """
    if memory < least(fixed):
        wanted = f"{-(-least(fixed) // MIB)}MB"
        raise UsageError(
            "--memory is less than this data needs.",
            where="--memory",
            expected=f"at least {wanted}",
            got=f"{memory // MIB}MB",
            do=f"give --memory {wanted} or more",
        )


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def keep_freed() -> None:
    """Let the allocator keep what is freed, for the next array, until `give_back`.

    Blocks are made of many arrays of some MB each. Where the system has to map them anew, page by
    page, that takes as long as the arithmetic. What it does map, it maps 2 MiB at a time.
    """
    libc = _libc()
    if not hasattr(libc, "mallopt"):  # glibc has it, other systems' libraries do not
        return
    for parameter, value in _KEEPING:
        libc.mallopt(parameter, value)
    _ask_for_huge_pages(libc)


@contextmanager
def keeping_freed() -> Iterator[None]:
    """`keep_freed`, and meanwhile have Arrow take its memory from the same allocator."""
    keep_freed()
    before = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(before)


def _ask_for_huge_pages(libc: ctypes.CDLL) -> None:
    """Let the heap grow to `_HEAP` now, where it has not yet, and advise huge pages for it.

    Where the heap cannot grow, or the system has no huge pages, all stays as it is.
    """
    libc.sbrk.restype = libc.malloc.restype = ctypes.c_void_p
    libc.sbrk.argtypes = [ctypes.c_ssize_t]
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    start = libc.sbrk(0)
    libc.mallopt(_TOP_PAD, _HEAP)
    libc.free(libc.malloc(16 * MIB))  # less than the threshold for a mapping of its own
    libc.mallopt(_TOP_PAD, MIB)
    first, end = -(-start // _HUGE) * _HUGE, libc.sbrk(0)
    if end > first:
        libc.madvise(first, end - first, _MADV_HUGEPAGE)


def give_back(limit: int) -> None:
    """Return to the system what allocators hold and nobody uses.

    It is mapped again, page by page, when it is wanted: so only where half of `limit`, in bytes, is
    taken.
    """
    statm = Path("/proc/self/statm")
    if statm.exists() and int(statm.read_text().split()[1]) * PAGE < limit // 2:
        return
    pa.default_memory_pool().release_unused()
    trim = getattr(_libc(), "malloc_trim", None)
    if trim is not None:  # glibc has it, other systems' libraries do not
        trim(0)
