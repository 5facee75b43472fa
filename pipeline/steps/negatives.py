"""Random negatives: values of a pool that are not touched, each as likely as its weight."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.arrays import Bools, Int32s, Int64s
from schemas.manifest import FIRST_ID

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


@dataclass(frozen=True)
class Pool:
    """What negatives are drawn from.

    Attributes:
        ids: (values,) ascending.
        place: (vocabulary,) index into `ids` of each id, -1 of those that are not in the pool.
        upto: (values + 1,) what all before each value weigh, and all; None where each weighs 1.
    """

    ids: Int32s
    place: Int32s
    upto: Int64s | None = None

    @staticmethod
    def every(values: int) -> Pool:
        """All values of a vocabulary, which has so many."""
        return Pool.of(np.ones(values, np.int64), weighted=False)

    @staticmethod
    def of(weights: Int64s, *, weighted: bool) -> Pool:
        """The values of a vocabulary that weigh something.

        Args:
            weights: (values,) of each, in the order of ids.
            weighted: whether they are drawn by their weights; else all are as likely.
        """
        there = weights > 0
        place = np.full(len(weights) + FIRST_ID, -1, np.int32)
        place[FIRST_ID:][there] = np.arange(np.count_nonzero(there))
        upto = np.append(0, np.cumsum(weights[there])) if weighted else None
        return Pool((np.flatnonzero(there) + FIRST_ID).astype(np.int32), place, upto)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def weights(self) -> Int64s:
        """(values,) how often each is drawn, beside the others."""
        return np.ones(len(self), np.int64) if self.upto is None else np.diff(self.upto)


class Touched(NamedTuple):
    """What may not be drawn: of each owner distinct places in the pool, ascending.

    Attributes:
        places: owner by owner.
        offsets: (owners + 1,) where those of each begin.
    """

    places: Int64s
    offsets: Int64s

    @staticmethod
    def of(pool: Pool, owner: Int64s, ids: Int32s, owners: int) -> Touched:
        """What some owners have touched.

        Args:
            pool: what is drawn from; other values do not matter.
            owner: (touches,) below `owners`.
            ids: (touches,) what was touched.
        """
        place = pool.place[ids]
        if place.size and place.min() < 0:
            owner, place = owner[place >= 0], place[place >= 0]
        size = np.int64(max(len(pool), 1))
        # Sorting beats np.unique's hashing several times here, as the owners are in order already.
        pairs = np.sort(owner * size + place, kind="stable")
        pairs = pairs[np.diff(pairs, prepend=-1) > 0]
        return Touched(pairs % size, np.searchsorted(pairs, np.arange(owners + 1) * size))

    def leave_nothing(self, pool: Pool) -> Bools:
        """(owners,) whether an owner leaves nothing to draw."""
        nothing: Bools = np.diff(self.offsets) >= len(pool)
        return nothing


def draw(
    seed: int,
    users: npt.NDArray[np.integer],
    positions: Int64s,
    owner: Int64s,
    touched: Int64s,
    touched_offsets: Int64s,
    items: int,
    count: int,
    upto: Int64s | None = None,
) -> Int64s:
    """Draw `count` untouched items for each target, independently, in one step without rejection.

    Let a user have touched d of n items. A rank r, uniform below n - d, is the r-th untouched
    item, which is r plus the number of touched items h_j (sorted, j from 0) with h_j - j <= r.
    With weights it is the same for their units: of an item of weight w there are w.

    Args:
        users: (targets,) whole numbers that stand for users, for the random number.
        positions: (targets,) 0-based position of the target in its user's behaviours.
        owner: (targets,) index of whose touched items are not drawn, see `touched_offsets`.
        touched: distinct items 0..items-1 of each owner, ascending within an owner.
        touched_offsets: (owners + 1,) where each owner's touched items begin.
        items: number of items; each owner must leave one untouched.
        upto: (items + 1,) what all items before each weigh, and all, each above 0; None: 1 each.

    Returns:
        (targets, count) items, 0..items-1.
    """
    first, last = touched_offsets[owner], touched_offsets[owner + 1]
    owner_of = np.repeat(np.arange(len(touched_offsets) - 1), np.diff(touched_offsets))
    if upto is None:
        total, begins, heavy = items, touched, np.arange(len(touched) + 1)
    else:
        total, begins = int(upto[-1]), upto[touched]
        heavy = np.append(0, np.cumsum(upto[touched + 1] - begins))
    left = total - (heavy[last] - heavy[first])
    bits = counter_hash(seed, users[:, None], positions[:, None], np.arange(count)[None, :])
    rank = (bits % left[:, None].astype(np.uint64)).astype(np.int64)
    # Ascending over the whole bucket: an owner's keys lie in [owner * total, (owner + 1) * total).
    keys = owner_of * total + (begins - (heavy[:-1] - heavy[touched_offsets[owner_of]]))
    before = np.searchsorted(keys, owner[:, None] * total + rank, side="right")
    unit: Int64s = rank + heavy[before] - heavy[first][:, None]
    return unit if upto is None else np.searchsorted(upto, unit, side="right") - 1


def released_stream(histories: Sequence[Sequence[int]], items: int) -> list[int]:
    """The negatives that the released preprocessing draws, one a behaviour, for `--parity`.

    One stream of Python's `random.seed(1234)`, users in sorted order, one draw a position (the
    first too), repeated while the draw is among the user's items.

    Args:
        histories: every user's items 0..items-1 by time, users in the order of their ids.
    """
    randint = random.Random(1234).randint  # noqa: S311
    drawn = []
    for history in histories:
        touched = set(history)
        for _ in history:
            item = randint(0, items - 1)
            while item in touched:
                item = randint(0, items - 1)
            drawn.append(item)
    return drawn
