"""Histories: the latest behaviours before each target, and sessions, as flat rows with offsets."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]

# DSIN keeps sessions of more than two behaviours.
_SHORTEST_SESSION = 3


class Histories(NamedTuple):
    """The behaviours of many targets, one after the other, oldest first within a target.

    Attributes:
        offsets: (targets + 1,) where each target's behaviours begin.
        source: (behaviours,) index into the bucket's behaviours.
        position: (behaviours,) target-relative position H-i+1 (3.2.1): the newest is 1.
    """

    offsets: Int64s
    source: Int64s
    position: Int64s


def latest(start: Int64s, end: Int64s, max_len: int) -> Histories:
    """The latest `max_len` behaviours of each window `[start, end)`; both (targets,)."""
    first = np.maximum(start, end - max_len)
    lengths = end - first
    offsets = np.zeros(len(end) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    source = np.arange(offsets[-1]) + np.repeat(first - offsets[:-1], lengths)
    return Histories(offsets, source, np.repeat(end, lengths) - source)


class Breaks(NamedTuple):
    """Where sessions begin in a bucket.

    Attributes:
        session: (behaviours,) number of the session of each behaviour, from 0, over the bucket.
        first: (sessions + 1,) index of each session's first behaviour, and the end of the last.
    """

    session: Int64s
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
    return Breaks(np.cumsum(begins) - 1, np.append(np.flatnonzero(begins), len(time)))


def sessions(histories: Histories, breaks: Breaks) -> Int64s:
    """(behaviours,) session of each behaviour; 1 is the session of the target's newest one."""
    lengths = np.diff(histories.offsets)
    newest = histories.source[histories.offsets[1:][lengths > 0] - 1]
    latest_session = np.repeat(breaks.session[newest], lengths[lengths > 0])
    return latest_session - breaks.session[histories.source] + 1


def latest_sessions(
    start: Int64s, end: Int64s, breaks: Breaks, most: int, length: int
) -> tuple[Int64s, Histories]:
    """DSIN's sessions of each window `[start, end)`, without its look into the future.

    A window's behaviours are cut into sessions; those of more than two behaviours before `end`
    are kept, the latest `most` of them, and the latest `length` behaviours of each.

    Args:
        start: (targets,) the first behaviour of the target's user.
        end: (targets,) one after the last behaviour before the target.
        breaks: where sessions begin.
        most: sessions kept.
        length: behaviours of a session kept.

    Returns:
        (targets + 1,) where each target's sessions begin, the latest first; and the sessions as
        histories.
    """
    whole = np.flatnonzero(np.diff(breaks.first) >= _SHORTEST_SESSION)
    some = end > start
    # The session that a window ends in may go on after the target: only what is before counts.
    last = np.where(some, breaks.session[np.maximum(end, 1) - 1] if len(breaks.session) else 0, 0)
    cut_keeps = some & (end - breaks.first[last] >= _SHORTEST_SESSION)
    first = breaks.session[start[some]]
    low = np.zeros(len(end), np.int64)
    low[some] = np.searchsorted(whole, first)
    high = np.zeros(len(end), np.int64)
    high[some] = np.searchsorted(whole, last[some])
    earlier = np.minimum(high - low, most - cut_keeps)
    counts = earlier + cut_keeps
    rows = np.zeros(len(end) + 1, np.int64)
    np.cumsum(counts, out=rows[1:])
    target = np.repeat(np.arange(len(end)), counts)
    nth = np.arange(rows[-1]) - rows[target]
    is_cut = (nth == 0) & cut_keeps[target]
    back = nth - cut_keeps[target]
    number = np.where(is_cut, last[target], 0)
    number[~is_cut] = whole[(high[target] - 1 - back)[~is_cut]]
    stop = np.where(is_cut, end[target], breaks.first[number + 1])
    return rows, latest(breaks.first[number], stop, length)


def pad(values: npt.NDArray[Any], offsets: Int64s, max_len: int) -> npt.NDArray[Any]:
    """(rows, max_len, ...) of flat `values`, right-padded with 0.

    Args:
        values: (values, ...) of all rows, one after the other.
        offsets: (rows + 1,) where each row's values begin.
        max_len: the longest that a row may be.
    """
    lengths = np.diff(offsets)
    padded = np.zeros((len(lengths) * max_len, *values.shape[1:]), values.dtype)
    rows = np.arange(len(lengths)) * max_len - offsets[:-1]
    padded[np.arange(len(values)) + np.repeat(rows, lengths)] = values
    return padded.reshape(len(lengths), max_len, *values.shape[1:])
