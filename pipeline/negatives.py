"""Random negatives: uniform over the items that the user never touches, the future included."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(x: UInt64s) -> UInt64s:
    """Scramble 64 bits: the finaliser of SplitMix64 (Steele et al. 2014), a bijection."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def counter_hash(seed: int, *keys: npt.ArrayLike) -> UInt64s:
    """64 random bits for each tuple of keys: a pure function of (seed, keys), no shared stream."""
    with np.errstate(over="ignore"):
        state = mix(np.asarray([seed & 0xFFFFFFFFFFFFFFFF], np.uint64) + _GOLDEN)
        for key in keys:
            state = mix(state + _GOLDEN + mix(np.asarray(key).astype(np.uint64) + _GOLDEN))
    return state


def draw(
    seed: int,
    users: Int64s,
    positions: Int64s,
    owner: Int64s,
    touched: Int64s,
    touched_offsets: Int64s,
    items: int,
    count: int,
) -> Int64s:
    """Draw `count` untouched items for each target, independently, in one step without rejection.

    Let a user have touched d of n items. A rank r, uniform below n - d, is the r-th untouched
    item, which is r plus the number of touched items h_j (sorted, j from 0) with h_j - j <= r.

    Args:
        seed: of the data set.
        users: (targets,) user ids, for the random number.
        positions: (targets,) 0-based position of the target in its user's behaviours.
        owner: (targets,) index of the target's user among the users of `touched_offsets`.
        touched: distinct items 0..items-1 of each user, ascending within a user.
        touched_offsets: (users + 1,) where each user's touched items begin.
        items: number of items; each user must leave one untouched.
        count: negatives a target.

    Returns:
        (targets, count) items, 0..items-1.
    """
    first = touched_offsets[owner]
    left = items - (touched_offsets[owner + 1] - first)
    bits = counter_hash(seed, users[:, None], positions[:, None], np.arange(count)[None, :])
    rank = (bits % left[:, None].astype(np.uint64)).astype(np.int64)
    user_of = np.repeat(np.arange(len(touched_offsets) - 1), np.diff(touched_offsets))
    within = np.arange(len(touched)) - touched_offsets[user_of]
    # Ascending over the whole bucket: a user's keys lie in [user * items, (user + 1) * items).
    keys = user_of * items + (touched - within)
    below = np.searchsorted(keys, owner[:, None] * items + rank, side="right") - first[:, None]
    result: Int64s = rank + below
    return result


def released_stream(histories: Sequence[Sequence[int]], items: int, seed: int = 1234) -> list[int]:
    """The negatives that the released preprocessing draws, one a behaviour, for `--parity`.

    One stream of Python's `random.seed(1234)`, users in sorted order, one draw a position (the
    first too), repeated while the draw is among the user's items.

    Args:
        histories: every user's items 0..items-1 by time, users in the order of their ids.
        items: number of items.
        seed: of the stream.
    """
    randint = random.Random(seed).randint  # noqa: S311
    drawn = []
    for history in histories:
        touched = set(history)
        for _ in history:
            item = randint(0, items - 1)
            while item in touched:
                item = randint(0, items - 1)
            drawn.append(item)
    return drawn
