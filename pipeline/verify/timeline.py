"""Whether the histories of a user's impressions are of one and the same past."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.verify.blocks import Block
from pipeline.verify.contract import Contract

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Rows:
    """Some rows, as far as they tell of a past.

    Attributes:
        user: (rows,) ids.
        time: (rows,) of the target.
        offsets: (rows + 1,) where each row's history begins.
        cells: (cells,) each: times, then the ids of each field.
    """

    user: npt.NDArray[np.int32]
    time: Int64s
    offsets: Int64s
    cells: list[npt.NDArray[Any]]

    @classmethod
    def of(cls, block: Block, contract: Contract) -> Rows:
        """Those of a block."""
        columns = [block.history[name] for name in ("time", *contract.made.fields)]
        return cls(block.scalars["user"], block.scalars["target_time"], block.offsets, columns)

    def take(self, rows: Int64s) -> Rows:
        """Some of the rows."""
        begin, lengths = self.offsets[rows], np.diff(self.offsets)[rows]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        at = np.repeat(begin - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Rows(self.user[rows], self.time[rows], offsets, [c[at] for c in self.cells])

    @classmethod
    def joined(cls, parts: list[Rows]) -> Rows:
        """The last row of each user in parts that follow each other, by user."""
        lengths = np.concatenate([np.diff(part.offsets) for part in parts])
        every = cls(
            np.concatenate([part.user for part in parts]),
            np.concatenate([part.time for part in parts]),
            np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
            [np.concatenate(column) for column in zip(*(p.cells for p in parts), strict=True)],
        )
        order = np.argsort(every.user, kind="stable")
        users = every.user[order]
        return every.take(order[np.append(users[1:] != users[:-1], True)])


class Timeline:
    """Holds each impression's history to that of the impression before, of the same user.

    What a later history has from before the earlier impression is the earlier history's newest
    part, and all of it where the later one is not cut to max_len. A shard's rows lie by user and
    time; the shards of a bucket hold the same users, one split after the other. So each user's
    latest row is kept until the bucket's end.

    Args:
        contract: what the rows are held to.
    """

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        self.of_splits: Rows | None = None
        self.of_blocks: list[Rows] = []

    def begin_split(self) -> None:
        """Go on with the bucket's shard of the next split."""
        parts = [*([] if self.of_splits is None else [self.of_splits]), *self.of_blocks]
        self.of_splits, self.of_blocks = Rows.joined(parts) if parts else None, []

    def check(self, block: Block) -> None:
        """Hold some rows to each other, and to those before them."""
        if not block.rows:
            return
        most = self.contract.made.max_len
        rows = Rows.of(block, self.contract)
        good, since = np.ones(block.rows, np.bool_), np.roll(rows.time, 1)
        changes = rows.user[1:] != rows.user[:-1]
        first = np.flatnonzero(np.append(True, changes))
        later = np.flatnonzero(np.append(False, ~changes))
        good[later] = _agree(rows, later - 1, rows, later, most)
        if self.of_blocks and self.of_blocks[-1].user[-1] == rows.user[0]:
            before, at = self.of_blocks[-1], np.array([len(self.of_blocks[-1].user) - 1])
            good[first[:1]] = _agree(before, at, rows, first[:1], most)
            since[0], first = before.time[-1], first[1:]
        if self.of_splits is not None:
            before = self.of_splits
            at = np.searchsorted(before.user, rows.user[first])
            at = np.minimum(at, len(before.user) - 1)
            known = before.user[at] == rows.user[first]
            at, first = at[known], first[known]
            good[first] = _agree(before, at, rows, first, most)
            since[first] = before.time[at]
        block.rows_are(
            good,
            "histories of a user",
            "history_time",
            lambda row: f"the past of the user's impression before, of second {since[row]}",
            lambda row: "another past",
        )
        self.of_blocks.append(rows.take(np.flatnonzero(np.append(changes, True))))


def _agree(one: Rows, earlier: Int64s, other: Rows, later: Int64s, most: int) -> Bools:
    """(pairs,) whether rows `later` of one are of the past that rows `earlier` of another are of.

    Those that are not later after all are.
    """
    ends, has = one.offsets[1:][earlier], np.diff(one.offsets)[earlier]
    begins, lengths = other.offsets[later], np.diff(other.offsets)[later]
    steps = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    cells = np.repeat(begins - steps[:-1], lengths) + np.arange(steps[-1])
    shared = other.cells[0][cells] < np.repeat(one.time[earlier], lengths)
    running = np.concatenate([np.zeros(1, np.int64), np.cumsum(shared)])
    count = running[steps[1:]] - running[steps[:-1]]
    good = np.where(lengths < most, count == has, count <= has)
    shared &= np.repeat(good, lengths)
    # The shared part ends the earlier history, and begins the later one.
    to_earlier = np.repeat(ends - count - begins, lengths)[shared]
    at = cells[shared]
    differs = np.zeros(len(at), np.bool_)
    for column, values in zip(one.cells, other.cells, strict=True):
        differs |= values[at] != column[np.minimum(at + to_earlier, len(column) - 1)]
    if differs.any():
        good[np.searchsorted(steps, np.flatnonzero(shared)[differs], side="right") - 1] = False
    agree: Bools = good | (other.time[later] < one.time[earlier])
    return agree
