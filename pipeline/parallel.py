"""Work for several threads: over a list of numbers, and over a stream."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import TypeVar

# Polars asks for it at the first array it is given; where two threads are the first to import it,
# NumPy's own import of it recurses without end.
import numpy.ma  # noqa: F401

from schemas.interrupts import FOR_EVER

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_buckets(
    work: Callable[[int], Result],
    buckets: Iterable[int],
    threads: int,
    done: Callable[[], None] = lambda: None,
) -> list[Result]:
    """Run `work` for each bucket, `threads` at once; results in the order of `buckets`.

    The first error ends it: buckets that have not begun are left out. `done` is called after each
    bucket, in the caller's thread.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="bucket") as pool:
        futures = [pool.submit(work, bucket) for bucket in buckets]
        try:
            for future in as_completed(futures, timeout=FOR_EVER):
                future.result()
                done()
        finally:
            for future in futures:
                future.cancel()
    return [future.result() for future in futures]


def map_stream(
    work: Callable[[Item], Result], items: Iterator[Item], threads: int
) -> Generator[Result]:
    """Run `work` for each item of a stream, `threads` at once; results in the stream's order.

    At most one item more than there are threads is held, so memory stays bounded. Leaving early
    stops the threads, and closes the stream. Items are taken one by one, in the caller's thread.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="block")
    waiting: deque[Future[Result]] = deque()
    wait = True
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > threads:
                yield waiting.popleft().result(FOR_EVER)
        while waiting:
            yield waiting.popleft().result(FOR_EVER)
    except GeneratorExit:
        # Perhaps the garbage collector's, while some thread starts: to wait for another thread
        # there would never end.
        wait = False
        raise
    finally:
        pool.shutdown(wait=wait, cancel_futures=True)
        if isinstance(items, Generator):
            items.close()
