"""Reviews to rows: one bucket of users and the fitted state to the rows of every split.

Targets are behaviours, chosen by leave-one-out; negatives are drawn. A pure function of both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import histories, negatives, rows, split
from pipeline.buckets import Behaviours
from pipeline.tally import Tally
from schemas.manifest import FIRST_ID, SPLITS

Int64s = npt.NDArray[np.int64]

TOUCHED_EVERY_ITEM = "touched every item"


class Reviews(NamedTuple):
    """One bucket's behaviours, each of which may be a target.

    Attributes:
        behaviours: in order; their first field is the item.
        row: (behaviours,) line of the raw file.
    """

    behaviours: Behaviours
    row: Int64s

    @property
    def item(self) -> npt.NDArray[np.int32]:
        """(behaviours,) ids."""
        return self.behaviours.fields["item"]


@dataclass(frozen=True)
class Fitted:
    """What transform needs to know of the whole data set.

    Attributes:
        item_fields: (items + 2,) each other field's id by item id, e.g. category.
        stored: how histories are stored, with the fitted edges.
        released: (raw rows,) parity's negative item 0..items-1 for each behaviour, or None.
    """

    item_fields: dict[str, npt.NDArray[np.int32]]
    stored: rows.Stored
    released: Int64s | None

    @property
    def items(self) -> int:
        """Number of items."""
        return len(next(iter(self.item_fields.values()))) - FIRST_ID


@dataclass(frozen=True)
class Rules:
    """The settings that transform needs."""

    split: str
    negatives: int
    seed: int


@dataclass(frozen=True)
class Bucket:
    """A bucket's targets, with their negatives and what was left out.

    Attributes:
        targets: which behaviours are targets.
        drawn: (targets, negatives) item ids.
        left_out: raw rows of targets whose user leaves no item to draw.
    """

    targets: split.Targets
    drawn: npt.NDArray[np.int32]
    left_out: Int64s


def touched_every_item(seq: Reviews, items: int) -> npt.NDArray[np.bool_]:
    """(users,) whether the user leaves no item to draw as a negative; such users give no rows."""
    offsets = seq.behaviours.offsets
    full = np.diff(offsets) >= items
    for user in np.flatnonzero(full):
        full[user] = len(np.unique(seq.item[offsets[user] : offsets[user + 1]])) == items
    return full


def count_intervals(seq: Reviews, rule: str, max_len: int, items: int, into: Tally) -> None:
    """Count the intervals of the train split's histories as stored."""
    offsets = seq.behaviours.offsets
    targets = split.leave_one_out(offsets, rule)
    left_out = np.repeat(touched_every_item(seq, items), np.diff(offsets))[targets.at]
    train = (targets.split == split.TRAIN) & ~left_out
    windows = rows.Windows(targets.start[train], targets.at[train])
    time = seq.behaviours.time[windows.end]
    rows.count_intervals(seq.behaviours, windows, time, max_len, into)


def prepare(seq: Reviews, rules: Rules, fitted: Fitted) -> Bucket:
    """Choose the bucket's targets and draw their negatives."""
    offsets = seq.behaviours.offsets
    targets = split.leave_one_out(offsets, rules.split)
    users = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    # Sorting beats np.unique's hashing several times here, as the users are in order already.
    pairs = np.sort(users * np.int64(fitted.items) + (seq.item - FIRST_ID), kind="stable")
    pairs = pairs[np.diff(pairs, prepend=-1) > 0]
    touched_offsets = np.searchsorted(pairs, np.arange(len(offsets)) * fitted.items)
    owner = users[targets.at]
    full = touched_every_item(seq, fitted.items)[owner]
    left_out = seq.row[targets.at[full]]
    kept = ~full
    targets = split.Targets(targets.at[kept], targets.start[kept], targets.split[kept])
    if fitted.released is not None:
        drawn = fitted.released[seq.row[targets.at]][:, None]
    else:
        drawn = negatives.draw(
            rules.seed,
            seq.behaviours.user[targets.at].astype(np.int64),
            targets.at - targets.start,
            owner[kept],
            pairs % fitted.items,
            touched_offsets,
            fitted.items,
            rules.negatives,
        )
    return Bucket(targets, (drawn + FIRST_ID).astype(np.int32), left_out)


def split_rows(
    seq: Reviews, bucket: Bucket, which: int, rules: Rules, fitted: Fitted, schema: pa.Schema
) -> Iterator[rows.Block]:
    """The rows of one split in blocks: each positive, then its negatives."""
    chosen = np.flatnonzero(bucket.targets.split == which)
    behaviours, stored = seq.behaviours, fitted.stored
    breaks = histories.session_breaks(behaviours.time, behaviours.offsets, stored.session_gap)
    each = 1 + rules.negatives
    histories_of = rows.Windows(bucket.targets.start[chosen], bucket.targets.at[chosen])
    for block in stored.blocks(histories_of, each):
        at, drawn = histories_of.end[block], bucket.drawn[chosen[block]]
        windows = rows.Windows(np.repeat(histories_of.start[block], each), np.repeat(at, each))
        items = np.concatenate([seq.item[at][:, None], drawn], axis=1).ravel()
        scalars: dict[str, npt.NDArray[Any]] = {
            "row": seq.row[windows.end],
            "user": behaviours.user[windows.end],
            "target_item": items,
            **{f"target_{name}": ids[items] for name, ids in fitted.item_fields.items()},
            "target_time": behaviours.time[windows.end],
            "label": np.tile(np.arange(each) == 0, len(at)),
        }
        yield rows.table(behaviours, windows, scalars, stored, breaks, schema)


def history_lengths(bucket: Bucket, rules: Rules, max_len: int) -> dict[str, list[int]]:
    """Rows of each split by history length 0..max_len."""
    lengths = np.minimum(bucket.targets.at - bucket.targets.start, max_len)
    return {
        name: [
            int(n) * (1 + rules.negatives)
            for n in np.bincount(lengths[bucket.targets.split == k], minlength=max_len + 1)
        ]
        for k, name in enumerate(SPLITS)
    }
