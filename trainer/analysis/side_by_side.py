"""Work done side by side in processes of its own: trainings that need nothing of each other.

One training gains little from a second core (its steps are small), two trainings gain a second one
almost wholly.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from threading import Thread
from typing import Any, TypeVar

import torch

from schemas.errors import EnvironmentFault
from schemas.interrupts import NUMBERS, held
from schemas.machine import total_memory, usable_cores
from trainer.training.events import Event, OnEvent

Task = TypeVar("Task")
# Does a task in a process of its own, telling what happens. A function at a module's top level.
Work = Callable[[Task, OnEvent], None]

# What a training takes beside its data: libraries, weights, optimizer, a step's activations.
_BESIDE_DATA = 1 << 30


@held()
def side_by_side(
    work: Work[Task], tasks: Sequence[Task], jobs: int, begins: Callable[[int], OnEvent]
) -> None:
    """Do all tasks, `jobs` of them at a time, and return when the last one is done.

    A process does one task after another. Where one fails, where this process is interrupted, or
    where it ends in any other way, all of them end: a training is made to be gone on with. `work`
    is sent by name. `begins` is told the index of the task that begins, and gives what is told of
    its events.

    Raises:
        EnvironmentFault: a process has ended before its work.
        Exception: whatever `work` raised.
    """
    context = get_context("spawn")  # threads of PyTorch and Polars do not survive a fork
    left = iter(range(len(tasks)))
    workers: dict[Connection, tuple[SpawnProcess, OnEvent]] = {}
    try:
        for _, index in zip(range(jobs), left, strict=False):
            ours, theirs = context.Pipe()
            with _interrupts_held():
                process = context.Process(target=_serve, args=(work, theirs), daemon=True)
                process.start()
            theirs.close()
            workers[ours] = process, begins(index)
            ours.send(tasks[index])
        while workers:
            for connection in wait(list(workers)):
                assert isinstance(connection, Connection)
                process, on_event = workers[connection]
                found = _received(connection, process)
                if isinstance(found, Exception):
                    raise found
                if found is not None:
                    on_event(found)
                elif (following := next(left, None)) is not None:
                    workers[connection] = process, begins(following)
                    connection.send(tasks[following])
                else:
                    connection.close()
                    workers.pop(connection)
                    process.join()
    finally:
        for process, _ in workers.values():
            process.kill()
            process.join()


def jobs_for(device: str, threads: int | None, memory_mb: int) -> int:
    """How many trainings this machine does at a time: one on a GPU, else one for each core.

    Args:
        device: `cpu`, `cuda`, or `auto` for CUDA where there is one.
        threads: of each training; None for one.
        memory_mb: what the data of each may take.
    """
    if device != "cpu" and torch.cuda.is_available():
        return 1
    by_memory = total_memory() // (_BESIDE_DATA + (memory_mb << 20))
    return max(1, min(usable_cores() // (threads or 1), by_memory))


def _received(connection: Connection, process: SpawnProcess) -> Event | Exception | None:
    """What a process says: an event, what its work raised, or None where the work is done."""
    try:
        found: Event | Exception | None = connection.recv()
    except (EOFError, ConnectionResetError):
        process.join()
        raise EnvironmentFault(
            "A training's process has ended before its training.",
            got=f"exit code {process.exitcode}",
            do="look whether the system ran out of memory, and give the command again, perhaps "
            "with fewer --jobs: it goes on from here",
        ) from None
    return found


def _serve(work: Work[Any], connection: Connection) -> None:
    """Do the tasks that come, in a process of its own."""
    Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, BrokenPipeError):  # the parent wants no more
        while True:
            task = connection.recv()
            try:
                work(task, connection.send)
            except Exception as error:
                error.add_note(traceback.format_exc())
                connection.send(error)
                return
            connection.send(None)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Have what is started here see no Ctrl-C and the like: it is this process that ends it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, NUMBERS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
