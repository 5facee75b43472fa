"""Whether a user's histories follow from each other, by hashes that depend on the order of cells.

The hash of cells c_1 (the oldest) to c_n is the sum of h(c_k) times M^(n - k), modulo 2^64: another
cell appended multiplies it by M and adds the cell's own hash.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from pipeline.verify.blocks import Block
from pipeline.verify.contract import Contract

Int64s = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ODD = np.uint64(0xD6E8FEB86659FD93)
_BASE = 0xA0761D6478BD642F
_INVERSE = pow(_BASE, -1, 1 << 64)
# Cells at a time, so that they stay in the processor's cache.
_STEP = 1 << 15


def links(block: Block, contract: Contract, last: bool) -> Hashes:
    """What each target adds to its user's chain, which comes to 0 where all histories agree.

    A history with its target appended, and cut to the latest max_len, is the history of the user's
    next target. So the numbers of all such are those of all histories but the first one's, whatever
    the order of rows: what is appended counts below 0, what is stored above.

    Args:
        block: some rows.
        contract: what they are held to.
        last: whether these are users' last targets, which nothing follows.

    Returns:
        (targets,) numbers to be summed up by user, modulo 2^64.
    """
    each, most = contract.each, contract.made.max_len
    lengths = block.lengths[::each]
    if most == 1:  # a first history is like any other one
        return np.zeros(len(lengths), np.uint64)
    item, time = block.history["item"], block.history["time"]
    if each > 1:
        # A negative's history is its positive's.
        own = np.repeat(np.arange(block.rows) % each == 0, block.lengths)
        item, time = item[own], time[own]
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    stored = sequences(item, time, offsets)
    link = np.where(lengths > 1, _spread(stored, lengths), np.uint64(0))
    if last:
        return link
    target = mixed(block.scalars["target_item"][::each], block.scalars["target_time"][::each])
    longer = stored * np.uint64(_BASE) + target
    if (full := np.flatnonzero(lengths == most)).size:
        oldest = offsets[full]
        gone = mixed(item[oldest], time[oldest]) * np.uint64(_pow(_BASE, most))
        longer[full] -= gone
    appended: Hashes = link - _spread(longer, np.minimum(lengths + 1, most))
    return appended


def sequences(item: npt.NDArray[np.int32], time: Int64s, offsets: Int64s) -> Hashes:
    """(rows,) the hash of each row's cells.

    Args:
        item: (cells,) ids.
        time: (cells,) seconds.
        offsets: (rows + 1,) where each row's cells begin.
    """
    # Cell k weighs M^-k, so that a row's share of one running sum is its hash, times a power of M.
    down, step = _powers(_INVERSE, _STEP), 1
    running = np.zeros(len(item) + 1, np.uint64)
    for begin in range(0, len(item), _STEP):
        cells = mixed(item[begin : begin + _STEP], time[begin : begin + _STEP])
        cells *= down[: len(cells)]
        cells *= np.uint64(step)
        running[begin + 1 : begin + 1 + len(cells)] = cells
        step = step * _pow(_INVERSE, _STEP) % (1 << 64)
    np.cumsum(running, out=running)
    sums = running[offsets[1:]] - running[offsets[:-1]]
    ends = np.maximum(offsets[1:] - 1, 0)
    low, high = _powers(_BASE, _STEP), _powers(_pow(_BASE, _STEP), len(item) // _STEP + 1)
    hashed: Hashes = sums * low[ends % _STEP] * high[ends // _STEP]
    return hashed


def mixed(item: npt.NDArray[np.int32], time: Int64s) -> Hashes:
    """(cells,) a number for each behaviour, which sums of others do not make."""
    hashes = item.astype(np.uint64)
    hashes *= _GOLDEN
    hashes ^= time.astype(np.uint64) * _ODD
    hashes ^= hashes >> np.uint64(31)
    hashes *= _GOLDEN
    hashes ^= hashes >> np.uint64(29)
    return hashes


def _spread(hashes: Hashes, lengths: Int64s) -> Hashes:
    """(rows,) hashes of whole histories such that no sum of some is that of others."""
    return mixed(lengths.astype(np.int32), hashes.view(np.int64))


def _pow(base: int, exponent: int) -> int:
    return pow(base, exponent, 1 << 64)


@cache
def _powers(base: int, count: int) -> Hashes:
    """(count,) powers of an odd number modulo 2^64, from 1 on."""
    powers = np.full(count, base, np.uint64)
    powers[:1] = 1
    result: Hashes = np.cumprod(powers)
    return result
