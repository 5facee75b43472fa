"""Batches on their way to a GPU: the next ones are read and copied while one is computed.

On the CPU batches are used as they are made: there the reader would take its time from the
training.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from schemas.interrupts import FOR_EVER
from trainer.data.batches import Batch

Made = TypeVar("Made")
Ready = TypeVar("Ready")

# Batches that are read before they are asked for.
AHEAD = 4


def on_device(batches: Iterator[list[Batch]], device: torch.device) -> Iterator[list[Batch]]:
    """The same batches on a device, in their order.

    On a GPU they are read in another thread.
    """
    if device.type == "cpu":
        yield from batches
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    for groups, copied in ahead(batches, lambda groups: _copied(groups, device, stream)):
        computing = torch.cuda.current_stream(device)
        computing.wait_event(copied)
        for group in groups:
            for tensor in group.values():
                # Else its memory might be given to a later copy while it is still in use.
                tensor.record_stream(computing)
        yield groups


def ahead(made: Iterator[Made], ready: Callable[[Made], Ready]) -> Iterator[Ready]:
    """What `ready` makes of each element, up to `AHEAD` of them before they are asked for.

    Both are called in a thread of their own, one element after the other. What they raise is raised
    here, where the element would have come. When the iterator is closed the thread has ended.
    """

    def one() -> tuple[Ready] | None:
        for element in made:
            return (ready(element),)
        return None

    waiting: deque[Future[tuple[Ready] | None]] = deque()
    thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
    try:
        waiting.extend(thread.submit(one) for _ in range(AHEAD))
        while (found := waiting.popleft().result(FOR_EVER)) is not None:
            waiting.append(thread.submit(one))
            yield found[0]
    finally:
        thread.shutdown(cancel_futures=True)


def _copied(
    groups: list[Batch], device: torch.device, stream: torch.cuda.Stream
) -> tuple[list[Batch], torch.cuda.Event]:
    """Copies of a batch's tensors that are under way, and the event of their arrival."""
    with torch.cuda.stream(stream):
        copies = [
            {
                # Only from pinned memory does a copy go on beside the computing.
                name: tensor.pin_memory().to(device, non_blocking=True)
                for name, tensor in group.items()
            }
            for group in groups
        ]
        return copies, stream.record_event()
