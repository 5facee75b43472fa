"""Whether the histories of a user's impressions are of one and the same past."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.verify.blocks import Block
from pipeline.verify.contract import Contract

_EVER = np.iinfo(np.int64).min


@dataclass(frozen=True)
class Last:
    """The last row of a block, to which the next block's first one is held.

    Attributes:
        user: id.
        time: of the target.
        cells: (columns, behaviours) times, and ids of each field.
    """

    user: int
    time: int
    cells: npt.NDArray[np.int64]


def check_timeline(block: Block, contract: Contract, before: Last | None) -> Last | None:
    """Hold each impression's history to that of the row before, of the same user.

    What a later history has from before the earlier impression is the earlier history's newest
    part, and all of it where the later one is not cut to max_len. Rows are held to each other
    within a shard, where they lie by user and time.

    Args:
        block: some rows.
        contract: what they are held to.
        before: the last row of the block before; None for none.

    Returns:
        This block's last row.
    """
    if not block.rows:
        return before
    most, offsets, lengths = contract.made.max_len, block.offsets, block.lengths
    user, time = block.scalars["user"], block.scalars["target_time"]
    columns = [block.history[name] for name in ("time", *contract.made.fields)]
    pairs = np.zeros(block.rows, np.bool_)
    pairs[1:] = (user[1:] == user[:-1]) & (time[1:] >= time[:-1])
    since = np.where(pairs, np.roll(time, 1), _EVER)
    shared = columns[0] < np.repeat(since, lengths)
    running = np.concatenate([np.zeros(1, np.int64), np.cumsum(shared)])
    count = running[offsets[1:]] - running[offsets[:-1]]
    has = np.roll(lengths, 1)
    good = ~pairs | np.where(lengths < most, count == has, count <= has)
    if not good.all():
        shared &= np.repeat(good, lengths)
        count[~good] = 0
    # The earlier history ends where the later one begins.
    later = np.flatnonzero(shared)
    earlier = later - np.repeat(count, count)
    differs = np.zeros(len(later), np.bool_)
    for values in columns:
        differs |= values[later] != values[earlier]
    if differs.any():
        good[np.searchsorted(offsets, later[differs], side="right") - 1] = False
    if before is not None:
        good[0] = _agree(before, _row(block, columns, 0), most)
    block.rows_are(
        good,
        "histories of a user",
        "history_time",
        lambda row: f"up to its target, the past of {block.where(row - 1)}",
        lambda row: "another past",
    )
    return _row(block, columns, block.rows - 1)


def _row(block: Block, columns: list[npt.NDArray[np.int64]], row: int) -> Last:
    part = slice(block.offsets[row], block.offsets[row + 1])
    cells = np.stack([values[part].astype(np.int64) for values in columns])
    scalars = block.scalars
    return Last(int(scalars["user"][row]), int(scalars["target_time"][row]), cells)


def _agree(one: Last, other: Last, most: int) -> bool:
    """Whether two rows are of one past, the later one second; those of two users are."""
    if one.user != other.user or one.time > other.time:
        return True
    cells = other.cells[:, other.cells[0] < one.time]
    count, has = cells.shape[1], one.cells.shape[1]
    if count > has or (count < has and other.cells.shape[1] < most):
        return False
    return np.array_equal(cells, one.cells[:, has - count :])
