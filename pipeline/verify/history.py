"""Each history against its contract: ids, times, positions, interval bins and sessions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.verify.blocks import Block, Sessions
from pipeline.verify.contract import LAST_SECOND, Contract

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

# DSIN keeps sessions of more than two behaviours.
_SHORTEST_SESSION = 3


def check_scalars(block: Block, contract: Contract) -> None:
    """Ids, labels and numbers of each row."""
    for name, (low, size) in contract.ids().items():
        ids = block.scalars[name]
        good = (ids >= low) & (ids < size)
        block.rows_are(good, "id outside its vocabulary", name, f"{low} to {size - 1}")
    label = block.scalars["label"]
    block.rows_are((label == 0) | (label == 1), "label", "label", "0 or 1")
    block.rows_are(block.scalars["row"] >= 0, "row number", "row", "0 or more")
    time = block.scalars["target_time"]
    block.rows_are(
        (time >= 0) & (time <= LAST_SECOND), "time", "target_time", f"0 to {LAST_SECOND}"
    )
    for name in contract.made.numbers:
        block.rows_are(np.isfinite(block.scalars[name]), "number", name, "a finite number")


def check_history(block: Block, contract: Contract, intervals: Int64s) -> None:
    """Every behaviour of every row.

    Args:
        block: the rows.
        contract: what they are held to.
        intervals: (cells,) seconds from each behaviour to its target.
    """
    _check_ids(block, contract)
    time = block.history["time"]
    if len(time) == 0:
        if block.sessions is not None:
            held = np.diff(block.sessions.rows)
            what, column = "sessions", "session_length"
            block.rows_are(held == 0, what, column, "none", lambda row: f"{held[row]} sessions")
        return
    least, rule = (0, "not after") if contract.leave_one_out else (1, "before")
    if intervals.min() < least:
        target = block.scalars["target_time"]
        block.cells_are(
            intervals >= least,
            "future behaviour",
            "time",
            lambda cell: f"{rule} the target's {target[_row(block, cell)]}",
        )
    earliest = 0 if contract.leave_one_out else 1
    if time.min() < earliest:
        block.cells_are(time >= earliest, "time", "time", f"{earliest} or later")
    gaps = np.diff(time)
    inside = _inside(block)
    ordered = (gaps >= 0) | ~inside
    if not contract.leave_one_out:
        _order_ties(block, contract, np.flatnonzero(inside & (gaps == 0)), ordered)
    block.cells_are(_from_second(ordered), "time order", "time", "not before the one it follows")
    newest = block.offsets[1:][block.lengths > 0] - 1
    position = block.history["position"]
    good = _to_last((position[:-1] - position[1:] == 1) | ~inside)
    good[newest] &= position[newest] == 1
    block.cells_are(
        good,
        "history position",
        "position",
        lambda cell: block.offsets[_row(block, cell) + 1] - cell,
    )
    breaks = gaps > contract.session_gap
    session = block.history["session"]
    good = _to_last((session[:-1] - session[1:] == breaks) | ~inside)
    good[newest] &= session[newest] == 1
    block.cells_are(
        good,
        "history session",
        "session",
        f"1 at the newest, one more before each gap over {contract.session_gap} s",
    )
    above, up_to = contract.bounds
    bins = block.history["interval_bin"]
    block.cells_are(
        (intervals > above[bins]) & (intervals <= up_to[bins]),
        "interval bin",
        "interval_bin",
        lambda cell: f"{contract.bin_of(int(intervals[cell]))}, of {intervals[cell]} s",
    )
    if block.sessions is not None:
        _check_sessions(block, contract, block.sessions, breaks & inside)


def _order_ties(block: Block, contract: Contract, tied: Int64s, ordered: Bools) -> None:
    """Impressions' behaviours of one second follow each other by their ids, field by field.

    Args:
        block: the rows.
        contract: what they are held to.
        tied: behaviours of the next one's second.
        ordered: (cells - 1,) whether a behaviour and the next are in order; where not is set here.
    """
    for name in contract.made.fields:
        ids = block.history[name]
        one, other = ids[tied], ids[tied + 1]
        ordered[tied[one > other]] = False
        tied = tied[one == other]


def _check_ids(block: Block, contract: Contract) -> None:
    for name in contract.made.fields:
        ids, size = block.history[name], contract.made.vocabulary[name]
        if len(ids) and (ids.min() < 1 or ids.max() >= size):
            good = (ids >= 1) & (ids < size)
            block.cells_are(good, "id outside its vocabulary", name, f"1 to {size - 1}")
        if block.sessions is None:
            continue
        ids = block.sessions.ids[name]
        good = (ids >= 1) & (ids < size)
        if not good.all():
            cell = int(np.argmin(good))
            row = _row_of_session_cell(block.sessions, cell)
            block.findings.add(
                "id outside its vocabulary",
                f"{block.where(row)}, session_{name}",
                f"1 to {size - 1}",
                ids[cell],
                int((~good).sum()),
            )


def _check_sessions(block: Block, contract: Contract, stored: Sessions, breaks: Bools) -> None:
    """Hold DSIN's sessions against the stored history, as far back as that goes.

    A history of max_len behaviours may begin within a session: that one is known from its newest
    behaviours only, and older ones not at all.

    Args:
        block: the rows.
        contract: what they are held to.
        stored: the session columns.
        breaks: (cells - 1,) whether a session ends between a behaviour and the next of its row.
    """
    assert contract.sessions is not None
    most, longest = contract.sessions
    lengths, offsets = block.lengths, block.offsets
    begins = np.concatenate([[True], breaks])
    begins[offsets[:-1][lengths > 0]] = True
    first = np.flatnonzero(begins)
    size = np.diff(np.append(first, offsets[-1]))
    of_row = np.searchsorted(first, offsets)
    row = np.repeat(np.arange(block.rows), np.diff(of_row))
    cut = (first == offsets[row]) & (lengths[row] == contract.made.max_len)
    kept = np.flatnonzero(size >= _SHORTEST_SESSION)
    of_row = np.searchsorted(kept, of_row)
    count = np.diff(of_row)
    held = np.diff(stored.rows)
    whole = lengths < contract.made.max_len
    wanted = np.minimum(count, most)
    good = np.where(whole, held == wanted, held >= wanted)
    block.rows_are(
        good,
        "sessions",
        "session_length",
        lambda r: f"{'' if whole[r] else 'at least '}{wanted[r]} sessions, as in the history",
        lambda r: f"{held[r]} sessions",
    )
    row, first, size, cut = row[kept], first[kept], size[kept], cut[kept]
    rank = of_row[row + 1] - 1 - np.arange(len(kept))
    shown = (rank < most) & good[row]
    row, first, size, cut, rank = (x[shown] for x in (row, first, size, cut, rank))
    at = stored.rows[row] + rank
    held = np.diff(stored.cells)[at]
    wanted = np.minimum(size, longest)
    fine = np.where(cut, held >= wanted, held == wanted)
    same = np.minimum(size, held)
    places = np.arange(same.sum()) - np.repeat(np.cumsum(same) - same, same)
    ours = np.repeat(stored.cells[at + 1] - same, same) + places
    theirs = np.repeat(first + size - same, same) + places
    for name, ids in stored.ids.items():
        differs = ids[ours] != block.history[name][theirs]
        if differs.any():
            fine[np.searchsorted(np.cumsum(same), np.flatnonzero(differs), side="right")] = False
    if not fine.all():
        right = np.ones(block.rows, np.bool_)
        right[row[~fine]] = False
        block.rows_are(
            right,
            "sessions",
            "session_length",
            "the history's latest sessions, the latest first",
            lambda r: f"sessions of {np.diff(stored.cells)[stored.rows[r] : stored.rows[r + 1]]}",
        )


def _inside(block: Block) -> Bools:
    """(cells - 1,) whether a behaviour and the next are of one row."""
    inside = np.ones(int(block.offsets[-1]) - 1, np.bool_)
    ends = block.offsets[1:-1]
    inside[ends[(ends > 0) & (ends <= len(inside))] - 1] = False
    return inside


def _from_second(good: Bools) -> Bools:
    """What holds for each behaviour and the one before it, by behaviour."""
    return np.concatenate([[True], good])


def _to_last(good: Bools) -> Bools:
    """What holds for each behaviour and the one after it, by behaviour."""
    return np.concatenate([good, [True]])


def _row(block: Block, cell: int) -> int:
    return int(np.searchsorted(block.offsets, cell, side="right")) - 1


def _row_of_session_cell(sessions: Sessions, cell: int) -> int:
    session = int(np.searchsorted(sessions.cells, cell, side="right")) - 1
    return int(np.searchsorted(sessions.rows, session, side="right")) - 1
