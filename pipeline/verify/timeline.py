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

_NEVER = np.iinfo(np.int64).min


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
    time, which is checked, too; the shards of a bucket hold the same users, one split after the
    other. So each user's latest row is kept until the bucket's end.

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
        self._check_order(block, rows)
        changes = rows.user[1:] != rows.user[:-1]
        since = np.where(np.append(False, ~changes), np.roll(rows.time, 1), _NEVER)
        good = _agree(rows, np.arange(-1, block.rows - 1), since, rows, most)
        first = np.flatnonzero(np.append(True, changes))
        for before in (self.of_splits, *self.of_blocks[-1:]):
            if before is not None:
                at = np.searchsorted(before.user, rows.user[first])
                at = np.minimum(at, len(before.user) - 1)
                known = before.user[at] == rows.user[first]
                at, of = at[known], first[known]
                since[of] = before.time[at]
                good[of] &= _agree(before, at, since[of], rows.take(of), most)
        block.rows_are(
            good,
            "histories of a user",
            "history_time",
            lambda row: f"the past of the user's impression before, of second {since[row]}",
            lambda row: "another past",
        )
        self.of_blocks.append(rows.take(np.flatnonzero(np.append(changes, True))))

    def _check_order(self, block: Block, rows: Rows) -> None:
        """The block's rows follow each other, and those of the block before, by user and time."""
        before = self.of_blocks[-1] if self.of_blocks else rows.take(np.zeros(1, np.int64))
        user = np.append(before.user[-1], rows.user)
        time = np.append(before.time[-1], rows.time)
        good = (user[1:] > user[:-1]) | ((user[1:] == user[:-1]) & (time[1:] >= time[:-1]))
        block.rows_are(
            good,
            "order of rows",
            "user",
            lambda row: f"user {user[row]} from second {time[row]} on, or a later user",
            lambda row: f"user {rows.user[row]} at second {rows.time[row]}",
        )


def _agree(one: Rows, at: Int64s, since: Int64s, rows: Rows, most: int) -> Bools:
    """(rows,) whether each is of the past that another one is of.

    Args:
        one: has the others.
        at: (rows,) which of them.
        since: (rows,) their times; `_NEVER` where there is no other.
        rows: the rows.
        most: behaviours kept of a history.
    """
    lengths, ends, has = np.diff(rows.offsets), one.offsets[1:][at], np.diff(one.offsets)[at]
    # A row that is not later after all has nothing to agree with.
    since = np.where(rows.time < since, _NEVER, since)
    shared = rows.cells[0] < np.repeat(since, lengths)
    running = np.concatenate([np.zeros(1, np.int64), np.cumsum(shared)])
    count = running[rows.offsets[1:]] - running[rows.offsets[:-1]]
    good: Bools = np.where(lengths < most, count == has, count <= has) | (since == _NEVER)
    if not good.all():
        shared &= np.repeat(good, lengths)
        count[~good] = 0
    # The shared part begins this history, and ends the other one.
    cells = np.flatnonzero(shared)
    others = cells + np.repeat(ends - count - rows.offsets[:-1], count)
    differs = np.zeros(len(cells), np.bool_)
    for values, column in zip(rows.cells, one.cells, strict=True):
        differs |= values[cells] != column.take(others, mode="clip")
    if differs.any():
        good[np.searchsorted(rows.offsets, cells[differs], side="right") - 1] = False
    return good
