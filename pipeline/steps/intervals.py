"""Time intervals from behaviour to target, and their equal-frequency bins (3.2.1, TTE-T).

Intervals are whole numbers, so a count for each distinct interval (`engines.tally`) is a summary
that merges by addition and gives exact quantiles. Of seconds it is small; those of a finer unit are
counted by the second first, and then by the unit in just those seconds that hold an edge.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.engines.tally import Tally
from schemas.arrays import Int64s

# To compare with each of so few edges is faster than a search: five times so at 9 edges.
_FEW = 32


def counted(tally: Tally) -> pl.DataFrame:
    """How often each interval occurs: columns interval, count, ascending."""
    return tally.counts().rename({"value": "interval"})


def edges(counts: pl.DataFrame, bins: int) -> Int64s:
    """The `bins - 1` equal-frequency edges: quantiles k/bins of kind `inverted_cdf`.

    An edge is the smallest interval with at least k/bins of all at or below it, in integers, so
    no rounding moves it. Very common intervals make equal edges: they stay, and the bins between
    them are empty. Without any interval there is nothing to cut, and every edge is 0.
    """
    if counts.is_empty():
        return np.zeros(bins - 1, np.int64)
    below = np.cumsum(counts["count"].to_numpy())
    wanted = np.arange(1, bins) * int(below[-1])
    at = np.searchsorted(below * bins, wanted, side="left")
    result: Int64s = counts["interval"].to_numpy()[at]
    return result


def cells(counts: pl.DataFrame, bins: int) -> Int64s:
    """The seconds that hold an edge, ascending: of those counted by whole seconds, rounded down."""
    return np.unique(edges(counts, bins))


def refined(counts: pl.DataFrame, within: pl.DataFrame, a_second: int) -> pl.DataFrame:
    """Counts by whole seconds, but for the seconds that hold an edge: those by the unit.

    Edges and counts of bins are the same as those of counts by the unit throughout, which would
    take far more memory: where no edge is, one interval of a second is as good as another.

    Args:
        counts: by whole seconds, rounded down.
        within: by the unit, those of `cells`.
        a_second: how many of the unit.
    """
    known = within["interval"] // a_second
    rest = counts.filter(~pl.col("interval").is_in(known.implode()))
    rest = rest.with_columns(pl.col("interval") * a_second)
    return pl.concat([rest, within]).sort("interval")


def bin_of(intervals: Int64s, cuts: Int64s) -> npt.NDArray[np.uint8]:
    """b(t) = 1 + (number of edges < t): bin k holds the intervals in (edge k-1, edge k]."""
    if len(cuts) > _FEW:
        return (np.searchsorted(cuts, intervals, side="left") + 1).astype(np.uint8)
    bins = np.ones(len(intervals), np.uint8)
    for cut in cuts:
        bins += cut < intervals
    return bins


def bin_counts(counts: pl.DataFrame, cuts: Int64s) -> list[int]:
    """How many of the counted intervals fall in each bin."""
    bins = bin_of(counts["interval"].to_numpy(), cuts)
    totals = np.bincount(bins, counts["count"].to_numpy(), len(cuts) + 2)[1:]
    return [int(n) for n in totals]
