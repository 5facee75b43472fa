"""One bucket of users and the fitted state to rows of every split: a pure function."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from pipeline import histories, intervals, negatives, split
from pipeline.buckets import Sequences
from schemas.manifest import FIRST_ID, SPLITS

Int64s = npt.NDArray[np.int64]

TOUCHED_EVERY_ITEM = "touched every item"
# Cells of one padded column made at a time: 8 MB of the widest, so a block of all is some 30 MB.
_BLOCK_CELLS = 1 << 20


@dataclass(frozen=True)
class Fitted:
    """What transform needs to know of the whole data set.

    Attributes:
        item_fields: (items + 2,) each other field's id by item id, e.g. category.
        edges: (bins - 1,) interval-bin edges in seconds.
        max_len: behaviours kept.
        released: (raw rows,) parity's negative item 0..items-1 for each behaviour, or None.
    """

    item_fields: dict[str, npt.NDArray[np.int32]]
    edges: Int64s
    max_len: int
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
    session_gap: int
    layout: str


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


def touched_every_item(seq: Sequences, items: int) -> npt.NDArray[np.bool_]:
    """(users,) whether the user leaves no item to draw as a negative; such users give no rows."""
    full = np.diff(seq.offsets) >= items
    for user in np.flatnonzero(full):
        own = seq.fields["item"][seq.offsets[user] : seq.offsets[user + 1]]
        full[user] = len(np.unique(own)) == items
    return full


def interval_counts(seq: Sequences, rule: str, max_len: int, items: int) -> pl.DataFrame:
    """The intervals of the train split's histories as stored: a small, mergeable summary."""
    targets = split.leave_one_out(seq.offsets, rule)
    left_out = np.repeat(touched_every_item(seq, items), np.diff(seq.offsets))[targets.at]
    train = (targets.split == split.TRAIN) & ~left_out
    counts = []
    step = max(1, _BLOCK_CELLS // min(max_len, 512))
    at, start = targets.at[train], targets.start[train]
    for low in range(0, len(at), step):
        ends = at[low : low + step]
        found = histories.latest(start[low : low + step], ends, max_len)
        times = np.repeat(seq.time[ends], np.diff(found.offsets))
        counts.append(intervals.count(times - seq.time[found.source]))
    return intervals.merge([intervals.count(np.zeros(0, np.int64)), *counts])


def prepare(seq: Sequences, rules: Rules, fitted: Fitted) -> Bucket:
    """Choose the bucket's targets and draw their negatives."""
    targets = split.leave_one_out(seq.offsets, rules.split)
    users = np.repeat(np.arange(len(seq.offsets) - 1), np.diff(seq.offsets))
    # Sorting beats np.unique's hashing several times here, as the users are in order already.
    pairs = np.sort(users * np.int64(fitted.items) + (seq.fields["item"] - FIRST_ID), kind="stable")
    pairs = pairs[np.diff(pairs, prepend=-1) > 0]
    touched_offsets = np.searchsorted(pairs, np.arange(len(seq.offsets)) * fitted.items)
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
            seq.user[targets.at].astype(np.int64),
            targets.at - targets.start,
            owner[kept],
            pairs % fitted.items,
            touched_offsets,
            fitted.items,
            rules.negatives,
        )
    return Bucket(targets, (drawn + FIRST_ID).astype(np.int32), left_out)


def split_rows(
    seq: Sequences, bucket: Bucket, which: int, rules: Rules, fitted: Fitted, schema: pa.Schema
) -> Iterator[pa.Table]:
    """The rows of one split in blocks: each positive, then its negatives."""
    chosen = np.flatnonzero(bucket.targets.split == which)
    breaks = histories.session_breaks(seq.time, seq.offsets, rules.session_gap)
    width = fitted.max_len if rules.layout == "padded" else min(fitted.max_len, 512)
    step = max(1, _BLOCK_CELLS // (width * (1 + rules.negatives)))
    for low in range(0, len(chosen), step):
        yield _block(seq, bucket, chosen[low : low + step], breaks, rules, fitted, schema)


def _block(
    seq: Sequences,
    bucket: Bucket,
    chosen: Int64s,
    breaks: Int64s,
    rules: Rules,
    fitted: Fitted,
    schema: pa.Schema,
) -> pa.Table:
    rows = 1 + rules.negatives
    at = bucket.targets.at[chosen]
    every_at = np.repeat(at, rows)
    found = histories.latest(
        np.repeat(bucket.targets.start[chosen], rows), every_at, fitted.max_len
    )
    lengths = np.diff(found.offsets)
    items = np.concatenate([seq.fields["item"][at][:, None], bucket.drawn[chosen]], axis=1).ravel()
    time = seq.time[every_at]
    behaviour_time = seq.time[found.source]
    to_target = np.repeat(time, lengths) - behaviour_time
    scalars: dict[str, npt.NDArray[Any]] = {
        "row": seq.row[every_at],
        "user": seq.user[every_at],
        "target_item": items,
        **{f"target_{name}": ids[items] for name, ids in fitted.item_fields.items()},
        "target_time": time,
        "label": np.tile(np.arange(rows) == 0, len(at)),
        "history_length": lengths,
    }
    flat: dict[str, npt.NDArray[Any]] = {
        **{name: ids[found.source] for name, ids in seq.fields.items()},
        "position": found.position,
        "interval_bin": intervals.bin_of(to_target, fitted.edges),
        "time": behaviour_time,
        "session": histories.sessions(found, breaks),
    }
    arrays = []
    for column in schema:
        if column.name in scalars:
            kind = column.type.to_pandas_dtype()
            arrays.append(pa.array(scalars[column.name].astype(kind, copy=False)))
        else:
            values = flat[column.name.removeprefix("history_")]
            arrays.append(_lists(values, found, column.type, fitted.max_len))
    return pa.Table.from_arrays(arrays, schema=schema)


def _lists(
    values: npt.NDArray[Any], found: histories.Histories, kind: pa.DataType, max_len: int
) -> pa.Array:
    values = values.astype(kind.value_type.to_pandas_dtype(), copy=False)
    if pa.types.is_fixed_size_list(kind):
        padded = histories.pad(values, found, max_len)
        return pa.FixedSizeListArray.from_arrays(pa.array(padded.ravel()), type=kind)
    return pa.ListArray.from_arrays(
        pa.array(found.offsets.astype(np.int32)), pa.array(values), type=kind
    )


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
