"""Batches handed to a training loop, with the time that it takes over them.

Imports nothing but the standard library, so that a peer's Python can import it too.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Plan:
    """How long to measure: `warm` batches unmeasured, then `repeats` stretches of `steps` each."""

    warm: int
    steps: int
    repeats: int

    @property
    def batches(self) -> int:
        """All batches."""
        return self.warm + self.steps * self.repeats


class Feed(Generic[Batch]):
    """An epoch of a fixed number of batches, for whatever loop iterates over it.

    The time of a batch runs from when it is asked for to when the next one is: reading included.

    Args:
        epoch: begins another pass over the data; called as often as it takes.
        rows: counts the rows of a batch.
        plan: how many batches.
    """

    def __init__(
        self, epoch: Callable[[], Iterable[Batch]], rows: Callable[[Batch], int], plan: Plan
    ) -> None:
        self.epoch, self.rows_of, self.plan = epoch, rows, plan
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self.rows: list[int] = []

    def __len__(self) -> int:
        return self.plan.batches

    def __iter__(self) -> Iterator[Batch]:
        batches = self._endless()
        for _ in range(self.plan.batches):
            self._mark()
            batch = next(batches)
            self.rows.append(self.rows_of(batch))
            yield batch
        self._mark()

    def told(self) -> str:
        """Rows per second, and per second of this process's CPU time: the best stretch, as JSON."""
        wall = cpu = 0.0
        for i in range(self.plan.repeats):
            a = self.plan.warm + i * self.plan.steps
            b = a + self.plan.steps
            rows = sum(self.rows[a:b])
            wall = max(wall, rows / (self.wall[b] - self.wall[a]))
            cpu = max(cpu, rows / (self.cpu[b] - self.cpu[a]))
        return json.dumps({"per_second": wall, "per_cpu_second": cpu})

    def _mark(self) -> None:
        self.wall.append(time.perf_counter())
        self.cpu.append(time.process_time())

    def _endless(self) -> Iterator[Batch]:
        while True:
            yield from self.epoch()
