"""Histories: the latest L behaviours before each target, as flat rows with offsets."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]


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


def session_breaks(time: Int64s, offsets: Int64s, gap: int) -> Int64s:
    """(behaviours,) how many sessions began up to each behaviour, over the bucket.

    A session begins where the time to the behaviour before is strictly more than `gap` seconds.
    """
    breaks = np.zeros(len(time), np.int64)
    breaks[1:] = np.diff(time) > gap
    firsts = offsets[:-1]
    breaks[firsts[firsts < len(time)]] = 1
    return np.cumsum(breaks)


def sessions(histories: Histories, breaks: Int64s) -> Int64s:
    """(behaviours,) session of each behaviour; 1 is the session of the target's newest one."""
    lengths = np.diff(histories.offsets)
    newest = histories.source[histories.offsets[1:][lengths > 0] - 1]
    latest_session = np.repeat(breaks[newest], lengths[lengths > 0])
    return latest_session - breaks[histories.source] + 1


def pad(values: npt.NDArray[Any], histories: Histories, max_len: int) -> npt.NDArray[Any]:
    """(targets, max_len) of flat `values`, right-padded with 0."""
    lengths = np.diff(histories.offsets)
    padded = np.zeros(len(lengths) * max_len, values.dtype)
    rows = np.arange(len(lengths)) * max_len - histories.offsets[:-1]
    padded[np.arange(len(values)) + np.repeat(rows, lengths)] = values
    return padded.reshape(-1, max_len)
