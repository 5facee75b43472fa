"""Drawing: the negatives of a bucket's targets, by the rule of what may not be drawn for each."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.description import Description, Negatives
from pipeline.steps import histories, rows
from pipeline.steps.negatives import Pool, Touched, draw
from pipeline.steps.order import Bucket
from schemas.arrays import Bools, Int32s, Int64s
from schemas.bounds import MOST_BEHAVIOURS


@dataclass(frozen=True)
class Drawing:
    """How negatives are drawn.

    Attributes:
        pool: what is drawn from, by the ids that the ordered events have.
        who: (users' vocabulary,) a whole number for each user by its id, for the random number.
    """

    d: Description
    rule: Negatives
    pool: Pool
    who: npt.NDArray[np.uint64]

    def some_left(self, bucket: Bucket, at: Int64s) -> Bools:
        """(targets,) whether there is anything to draw for the events `at`."""
        few = len(self.pool)
        if self.rule.exclude == "history":
            left, stored = np.ones(len(at), np.bool_), self._cells(bucket, at)
            long = np.flatnonzero(stored + 1 >= few)
            for block in rows.cut(stored[long]):
                some = long[block]
                left[some] = ~self._by_target(bucket, at[some]).leave_nothing(self.pool)
            return left
        user, ids = self._of_users(bucket)
        users = len(bucket.targets.events.offsets) - 1
        many = np.bincount(user, minlength=users) >= few
        if not many.any():
            return np.ones(len(at), np.bool_)
        of_many = many[user]
        touched = Touched.of(self.pool, user[of_many], ids[of_many], users)
        full = many & touched.leave_nothing(self.pool)
        found: Bools = ~full[bucket.targets.events.place_of_user[at]]
        return found

    def negatives(self, bucket: Bucket, at: Int64s) -> Int32s:
        """(targets, negatives of each) ids, drawn for the events `at`, which have some left."""
        drawn = np.zeros((len(at), self.rule.each), np.int32)
        if self.rule.exclude == "history":
            for block in rows.cut(self._cells(bucket, at)):
                touched = self._by_target(bucket, at[block])
                drawn[block] = self._draw(bucket, at[block], np.arange(len(at[block])), touched)
            return drawn
        users = len(bucket.targets.events.offsets) - 1
        touched = Touched.of(self.pool, *self._of_users(bucket), users)
        return self._draw(bucket, at, bucket.targets.events.place_of_user[at], touched)

    def _draw(self, bucket: Bucket, at: Int64s, owner: Int64s, touched: Touched) -> Int32s:
        """Of some targets; what each may not have is that of its owner."""
        events, pool = bucket.targets.events, self.pool
        position = at - events.offsets[events.place_of_user[at]]
        drawn = draw(
            self.rule.seed,
            self.who[events.user[at]],
            position,
            owner,
            touched.places,
            touched.offsets,
            len(pool),
            self.rule.each,
            pool.upto,
        )
        ids: Int32s = pool.ids[drawn]
        return ids

    def _of_users(self, bucket: Bucket) -> tuple[Int64s, Int32s]:
        """(touches,) the user, as its place in the bucket, and what was touched at any time."""
        events = bucket.targets.events
        user, ids = events.place_of_user, events.fields[self.rule.field]
        if bucket.outside is None:
            return user, ids
        others, of_others = bucket.outside
        there = np.searchsorted(events.user[events.offsets[:-1]], others)
        return np.append(user, there), np.append(ids, of_others)

    def _stored(self, bucket: Bucket, name: str, at: Int64s) -> rows.Windows:
        """(targets,) the history of this name as it is stored."""
        most = self.d.histories[name].max_len or MOST_BEHAVIOURS
        return bucket.targets.windows[name].take(at).latest(most)

    def _cells(self, bucket: Bucket, at: Int64s) -> Int64s:
        """(targets,) how many behaviours are stored of each."""
        cells = np.zeros(len(at), np.int64)
        for name in bucket.drawn:
            cells += self._stored(bucket, name, at).lengths
        return cells

    def _by_target(self, bucket: Bucket, at: Int64s) -> Touched:
        """What each of some targets may not have: what is stored in its histories, and itself."""
        owner = [np.arange(len(at))]
        ids = [bucket.targets.events.fields[self.rule.field][at]]
        for name, behaviours in bucket.drawn.items():
            window = self._stored(bucket, name, at)
            found = histories.latest(window.start, window.end, MOST_BEHAVIOURS)
            owner.append(found.target)
            ids.append(behaviours[found.source])
        return Touched.of(self.pool, np.concatenate(owner), np.concatenate(ids), len(at))


def numbers_of(users: pa.Table, rule: Negatives) -> npt.NDArray[np.uint64]:
    """(users' vocabulary,) what stands for each user in the random numbers, by its id.

    Where all values are drawn from, it is the id. Else it is of the user's value alone, so that no
    user of a later time changes what is drawn for another.
    """
    values = users["value"].to_pylist() if rule.pool != "all" else []
    if not values:
        return np.arange(len(users) + 2, dtype=np.uint64)
    hashed = [
        int.from_bytes(hashlib.blake2b(str(value).encode(), digest_size=8).digest(), "little")
        for value in values
    ]
    return np.array([0, 0, *hashed], np.uint64)
