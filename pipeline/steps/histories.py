"""Histories: the latest behaviours before each target, and sessions, as flat rows with offsets."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.arrays import Int32s, Int64s

# DSIN keeps sessions of more than two behaviours.
_SHORTEST_SESSION = 3


class Histories(NamedTuple):
    """The behaviours of many targets, one after the other, oldest first within a target.

    Attributes:
        offsets: (targets + 1,) where each target's behaviours begin.
        target: (behaviours,) index of the target of each.
        source: (behaviours,) index into the bucket's behaviours.
    """

    offsets: Int64s
    target: Int64s
    source: Int64s


def latest(start: Int64s, end: Int64s, max_len: int) -> Histories:
    """The latest `max_len` behaviours of each window `[start, end)`; both (targets,)."""
    first = np.maximum(start, end - max_len)
    offsets, target = runs(end - first)
    return Histories(offsets, target, np.arange(len(target)) + (first - offsets[:-1])[target])


def runs(lengths: Int64s) -> tuple[Int64s, Int64s]:
    """(runs + 1,) where runs of these lengths begin, one after the other; the run of each value."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets, np.repeat(np.arange(len(lengths)), lengths)


def positions(histories: Histories) -> Int64s:
    """(behaviours,) target-relative position H-i+1 (3.2.1): the newest is 1."""
    return histories.offsets[1:][histories.target] - np.arange(len(histories.target))


class Breaks(NamedTuple):
    """Where sessions begin in a bucket.

    Attributes:
        session: (behaviours,) number of the session of each behaviour, from 0, over the bucket.
        first: (sessions + 1,) index of each session's first behaviour, and the end of the last.
    """

    session: Int32s
    first: Int64s


def session_breaks(time: Int64s, offsets: Int64s, gap: int) -> Breaks:
    """Cut each user's behaviours where the gap is strictly more than `gap` seconds.

    Args:
        time: (behaviours,) ascending within a user.
        offsets: (users + 1,) where each user's behaviours begin.
        gap: seconds.
    """
    begins = np.zeros(len(time), np.bool_)
    begins[1:] = np.diff(time) > gap
    firsts = offsets[:-1]
    begins[firsts[firsts < len(time)]] = True
    session = np.cumsum(begins, dtype=np.int32)
    session -= 1
    return Breaks(session, np.append(np.flatnonzero(begins), len(time)))


def sessions(histories: Histories, breaks: Breaks) -> Int64s:
    """(behaviours,) session of each behaviour; 1 is the session of the target's newest one."""
    some = np.flatnonzero(np.diff(histories.offsets))
    newest = np.zeros(len(histories.offsets) - 1, np.int64)
    newest[some] = breaks.session[histories.source[histories.offsets[1:][some] - 1]]
    return newest[histories.target] - breaks.session[histories.source] + 1


def latest_sessions(
    start: Int64s, end: Int64s, breaks: Breaks, most: int, length: int
) -> tuple[Int64s, Histories]:
    """DSIN's sessions of each window `[start, end)`, without its look into the future.

    A window's behaviours are cut into sessions; those of more than two behaviours in it are kept,
    the latest `most` of them, and the latest `length` behaviours of each.

    Args:
        start: (targets,) the first behaviour of the target's user that counts.
        end: (targets,) one after the last behaviour before the target that does.
        most: sessions kept.
        length: behaviours of a session kept.

    Returns:
        (targets + 1,) where each target's sessions begin, the latest first; and the sessions as
        histories.
    """
    whole = np.flatnonzero(np.diff(breaks.first) >= _SHORTEST_SESSION)
    some = end > start
    # The session that a window ends in may go on after the target: only what is before counts.
    first, last = np.zeros(len(end), np.int64), np.zeros(len(end), np.int64)
    first[some], last[some] = breaks.session[start[some]], breaks.session[end[some] - 1]
    begin = np.maximum(start, breaks.first[last])
    cut_keeps = some & (end - begin >= _SHORTEST_SESSION)
    # So may the one that it begins in have begun before: it counts after all that are whole.
    is_head = some & (breaks.first[first] < start) & (first < last)
    head_keeps = is_head.copy()
    head_keeps[is_head] = breaks.first[first[is_head] + 1] - start[is_head] >= _SHORTEST_SESSION
    low, high = np.zeros(len(end), np.int64), np.zeros(len(end), np.int64)
    low[some] = np.searchsorted(whole, (first + is_head)[some])
    high[some] = np.searchsorted(whole, last[some])
    counts = np.minimum(cut_keeps + (high - low) + head_keeps, most)
    rows, target = runs(counts)
    nth = np.arange(rows[-1]) - rows[target]
    back = nth - cut_keeps[target]
    is_cut, is_whole = back < 0, (back >= 0) & (back < (high - low)[target])
    number = np.where(is_cut, last[target], first[target])
    number[is_whole] = whole[(high[target] - 1 - back)[is_whole]]
    stop = np.where(is_cut, end[target], breaks.first[number + 1])
    return rows, latest(np.maximum(breaks.first[number], start[target]), stop, length)


def cells(offsets: Int64s, row: Int64s, max_len: int) -> Int64s:
    """(values,) where each value of a run goes in a matrix of rows of `max_len`, from the left.

    Args:
        offsets: (rows + 1,) where each row's values begin.
        row: (values,) the row of each.
        max_len: the longest that a row may be.
    """
    return np.arange(len(row)) + (np.arange(len(offsets) - 1) * max_len - offsets[:-1])[row]


def pad(values: npt.NDArray[Any], places: Int64s, rows: int, max_len: int) -> npt.NDArray[Any]:
    """(rows, max_len) of flat `values` at `places`, from `cells`, and 0 elsewhere."""
    padded = np.zeros(rows * max_len, values.dtype)
    padded[places] = values
    return padded.reshape(rows, max_len)
