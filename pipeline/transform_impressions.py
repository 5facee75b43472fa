"""Impressions to rows: one bucket of users and the fitted state to the rows of every split.

Targets are impressions with labels of their own; a history is what the user did strictly before.
Pure functions of both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import histories, rows
from pipeline.buckets import Behaviours
from pipeline.split import TRAIN, Days
from pipeline.tally import Tally
from schemas.manifest import SPLITS

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]


class Impressions(NamedTuple):
    """One bucket's impressions, ordered by user, time and line.

    Attributes:
        row: (impressions,) row of the raw file.
        user: (impressions,) ids.
        time: (impressions,) unix seconds.
        ad_place: (impressions,) index into the table of ads.
        context: (impressions,) ids of each field of the impression itself.
        label: (impressions,) 0 or 1.
        windows: (impressions,) the behaviours before each.
    """

    row: Int64s
    user: Int32s
    time: Int64s
    ad_place: Int32s
    context: dict[str, Int32s]
    label: npt.NDArray[np.int8]
    windows: rows.Windows


@dataclass(frozen=True)
class Fitted:
    """What transform needs to know of the whole data set.

    Attributes:
        days: where the splits meet.
        target: field -> (ads,) ids, by place.
        ads: other column of an ad -> (ads,) values, by place.
        profiles: column of a profile -> (users + 2,) ids, by user id.
        stored: how histories are stored, with the fitted edges.
    """

    days: Days
    target: dict[str, Int32s]
    ads: dict[str, npt.NDArray[Any]]
    profiles: dict[str, Int32s]
    stored: rows.Stored


def order(
    user: Int32s, time: Int64s, category: Int32s, brand: Int32s
) -> tuple[Int32s, Int64s, Int32s, Int32s]:
    """Sort behaviours by user, time, category and brand.

    Behaviours that agree in all four are the same in every stored column, so nothing more is
    needed for an order that does not depend on the input's.

    Args:
        user: (behaviours,) ids.
        time: (behaviours,) unix seconds.
        category: (behaviours,) ids.
        brand: (behaviours,) ids.
    """
    if not len(user):
        return user, time, category, brand
    low = int(time.min())
    time_bits = int(time.max() - low).bit_length()
    row_bits = len(user).bit_length()
    if int(user.max()).bit_length() + time_bits + row_bits > 64:
        by = np.lexsort((brand, category, time, user))
        return user[by], time[by], category[by], brand[by]
    # One sort of plain numbers: user, time, and the row, which then tells where the rest is.
    key = user.astype(np.uint64) << np.uint64(time_bits)
    key |= (time - low).astype(np.uint64)
    key <<= np.uint64(row_bits)
    key |= np.arange(len(user), dtype=np.uint64)
    key.sort()
    by = (key & np.uint64((1 << row_bits) - 1)).astype(np.int64)
    key >>= np.uint64(row_bits)
    same = np.flatnonzero(key[1:] == key[:-1])
    if len(same):
        tied = np.zeros(len(key), np.bool_)
        tied[same] = tied[same + 1] = True
        at = np.flatnonzero(tied)
        among = by[at]
        by[at] = among[np.lexsort((brand[among], category[among], key[at]))]
    times = (key & np.uint64((1 << time_bits) - 1)).astype(np.int64) + low
    users = (key >> np.uint64(time_bits)).astype(np.int32)
    return users, times, category[by], brand[by]


def repeated(behaviours: Behaviours) -> npt.NDArray[np.bool_]:
    """(behaviours,) which are as the one before them in all that is stored."""
    found = np.ones(len(behaviours.user), np.bool_)
    found[:1] = False
    columns: list[npt.NDArray[Any]] = [behaviours.time, behaviours.user]
    for column in [*columns, *behaviours.fields.values()]:
        found[1:] &= column[1:] == column[:-1]
    return found


def windows(behaviours: Behaviours, user: Int32s, time: Int64s) -> rows.Windows:
    """The behaviours of each impression's user strictly before it.

    Args:
        behaviours: of the bucket.
        user: (impressions,) ids, ascending.
        time: (impressions,) unix seconds, ascending within a user.
    """
    ends = np.append(behaviours.time, time)
    low, high = int(ends.min(initial=0)), int(ends.max(initial=0))
    # Ascending over the whole bucket: a user's keys lie together. Users are int32, seconds < 2^31
    # apart or so; wider ones would need more than 63 bits.
    span = high - low + 1
    keys = behaviours.user * np.int64(span) + (behaviours.time - low)
    of_user = user * np.int64(span)
    start = np.searchsorted(keys, of_user)
    return rows.Windows(start, np.searchsorted(keys, of_user + (time - low)))


def count_intervals(
    behaviours: Behaviours, seen: Impressions, days: Days, max_len: int, into: Tally
) -> None:
    """Count the intervals of the train split's histories as stored."""
    train = days.split(seen.time) == TRAIN
    windows = seen.windows.take(train)
    rows.count_intervals(behaviours, windows, seen.time[train], max_len, into)


def split_rows(
    behaviours: Behaviours, seen: Impressions, which: int, fitted: Fitted, schema: pa.Schema
) -> Iterator[rows.Block]:
    """The rows of one split in blocks."""
    chosen = np.flatnonzero(fitted.days.split(seen.time) == which)
    stored = fitted.stored
    breaks = histories.session_breaks(behaviours.time, behaviours.offsets, stored.session_gap)
    for block in stored.blocks(seen.windows.take(chosen)):
        part = chosen[block]
        ad, user = seen.ad_place[part], seen.user[part]
        scalars: dict[str, npt.NDArray[Any]] = {
            "row": seen.row[part],
            "user": user,
            **{f"target_{name}": ids[ad] for name, ids in fitted.target.items()},
            "target_time": seen.time[part],
            "label": seen.label[part],
            **{name: values[ad] for name, values in fitted.ads.items()},
            **{name: ids[part] for name, ids in seen.context.items()},
            **{name: ids[user] for name, ids in fitted.profiles.items()},
        }
        yield rows.table(behaviours, seen.windows.take(part), scalars, stored, breaks, schema)


def history_lengths(seen: Impressions, days: Days, max_len: int) -> dict[str, list[int]]:
    """Rows of each split by history length 0..max_len."""
    lengths = np.minimum(seen.windows.end - seen.windows.start, max_len)
    which = days.split(seen.time)
    return {
        name: np.bincount(lengths[which == k], minlength=max_len + 1).tolist()
        for k, name in enumerate(SPLITS)
    }
