"""What a shard's rows leave behind for the checks over all shards, and the targets' own checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.verify.blocks import Block, place
from pipeline.verify.chain import links
from pipeline.verify.contract import Contract
from schemas.manifest import SPLITS

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_COLUMNS = {
    "row": np.int64,
    "user": np.int32,
    "time": np.int64,
    "item": np.int32,
    "length": np.int16,
    "newest_item": np.int32,
    "link": np.uint64,
    "negative": np.int32,
}
# Of an impression; the others are of reviews, where targets are behaviours too.
_OF_EVERY_TARGET = ("row", "user", "time")


@dataclass
class Seen:
    """What one shard holds, in short.

    Attributes:
        path: of the shard.
        split: which it is of.
        each: rows of a target.
        rows: rows read.
        whole: whether all could be read and cut.
        lengths: (max_len + 1,) rows by history length.
        bins: (256,) behaviours by interval bin.
        at_edges: (256,) those of them whose interval is their bin's upper edge.
        in_history: (2, 2) by label: rows whose target is in their history; all rows.
        groups: (row groups,) one after the last row of each.
        ids: field -> (vocabulary,) which the targets hold, and of train the histories.
        own: column of impressions themselves -> (vocabulary,) how often each id occurs.
        sums: float column of train -> values other than 0, their sum and that of their squares.
        parts: column -> its values by target, a part a block.
    """

    path: str
    split: str
    each: int
    lengths: Int64s
    bins: Int64s
    at_edges: Int64s
    in_history: Int64s
    groups: Int64s = field(default_factory=lambda: np.zeros(0, np.int64))
    rows: int = 0
    whole: bool = True
    ids: dict[str, Bools] = field(default_factory=dict)
    own: dict[str, Int64s] = field(default_factory=dict)
    sums: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    parts: dict[str, list[npt.NDArray[Any]]] = field(default_factory=dict)

    @classmethod
    def nothing(cls, path: str, split: str, contract: Contract) -> Seen:
        """Of a shard without rows."""
        lengths = np.zeros(contract.made.max_len + 1, np.int64)
        names = _COLUMNS if contract.leave_one_out else _OF_EVERY_TARGET
        return cls(
            path,
            split,
            contract.each,
            lengths,
            np.zeros(256, np.int64),
            np.zeros(256, np.int64),
            np.zeros((2, 2), np.int64),
            ids={n: np.zeros(contract.made.vocabulary[n], np.bool_) for n in contract.made.fields},
            own={n: np.zeros(contract.made.vocabulary[n], np.int64) for n in contract.own},
            sums={name: np.zeros(3) for name in contract.made.numbers},
            parts={name: [] for name in names},
        )

    def add(self, block: Block, contract: Contract, intervals: Int64s) -> None:
        """Take in a block; `intervals` as in `check_history`."""
        self.rows += block.rows
        self.lengths += np.bincount(block.lengths, minlength=len(self.lengths))
        if self.split == "train" and len(intervals):
            bins = block.history["interval_bin"]
            self.bins += np.bincount(bins, minlength=256)
            at_edge = intervals == contract.bounds[1][bins]
            self.at_edges += np.bincount(bins[at_edge], minlength=256)
        again = _in_history(block, contract)
        for label, held in enumerate(self.in_history):
            rows = block.scalars["label"] == label
            held += np.count_nonzero(rows & again), np.count_nonzero(rows)
        if self.split == "train":
            for name, sums in self.sums.items():
                numbers = block.scalars[name].astype(np.float64)
                squares = np.square(numbers)  # and no dot product: BLAS would start threads
                with np.errstate(invalid="ignore"):  # infinities are found elsewhere
                    sums += np.count_nonzero(numbers), numbers.sum(), squares.sum()
        for name, of_field in self.ids.items():
            columns = [block.scalars[f"target_{name}"]]
            if self.split == "train":
                columns.append(block.history[name])
            for ids in columns:
                of_field[ids[(ids >= 0) & (ids < len(of_field))]] = True
        for name, occurs in self.own.items():
            ids = block.scalars[name]
            within = ids[(ids >= 0) & (ids < len(occurs))]
            occurs += np.bincount(within, minlength=len(occurs))
        every = slice(None, None, self.each)
        found = {
            "row": block.scalars["row"][every],
            "user": block.scalars["user"][every],
            "time": block.scalars["target_time"][every],
        }
        if contract.leave_one_out:
            some = block.lengths[every] > 0
            newest = np.maximum(block.offsets[1:][every], 1) - 1
            items = block.scalars["target_item"]
            found |= {
                "item": items[every],
                "length": block.lengths[every],
                "newest_item": np.where(some, _at(block.history["item"], newest), 0),
                "link": links(block, contract, self.split == "test"),
                "negative": items.reshape(-1, self.each)[:, 1:].ravel(),
            }
        for name, values in found.items():
            self.parts[name].append(values.astype(_COLUMNS[name]))

    def column(self, name: str) -> npt.NDArray[Any]:
        """(targets,) values; of `negative`, those of a target one after the other."""
        return np.concatenate([np.zeros(0, _COLUMNS[name]), *self.parts[name]])

    def where(self, target: int) -> str:
        """A target's first row, for people."""
        return place(self.path, self.groups, target * self.each)


def _in_history(block: Block, contract: Contract) -> Bools:
    """(rows,) whether all fields of the target are those of one behaviour of its history."""
    same = np.ones(int(block.offsets[-1]), np.bool_)
    for name in contract.made.fields:
        target = np.repeat(block.scalars[f"target_{name}"], block.lengths)
        same &= block.history[name] == target
    before = np.concatenate([[0], np.cumsum(same)])[block.offsets]
    return np.diff(before) > 0


class Targets:
    """The targets of all shards, one after the other.

    Args:
        seen: what each shard holds.
    """

    def __init__(self, seen: Sequence[Seen]) -> None:
        self.seen = list(seen)
        self.ends = np.cumsum([len(s.column("row")) for s in seen], dtype=np.int64)
        self.split = np.repeat(
            np.array([SPLITS.index(s.split) for s in seen], np.int8), np.diff(self.ends, prepend=0)
        )

    def column(self, name: str) -> npt.NDArray[Any]:
        """(targets,) values."""
        return np.concatenate([np.zeros(0, _COLUMNS[name]), *(s.column(name) for s in self.seen)])

    def where(self, target: int) -> str:
        """A target, for people."""
        shard = int(np.searchsorted(self.ends, target, side="right"))
        return self.seen[shard].where(target - int(self.ends[shard - 1] if shard else 0))


def check_negatives(block: Block, contract: Contract) -> None:
    """Each positive is followed by its negatives, which share all but the target with it."""
    each = contract.each
    nth = np.arange(block.rows) % each
    label = block.scalars["label"]
    block.rows_are(
        label == (nth == 0),
        "order of labels",
        "label",
        lambda row: f"{int(row % each == 0)}: each positive, then its {each - 1} negatives",
    )
    before = np.maximum(np.arange(block.rows) - 1, 0)
    for name in ("row", "user", "target_time", "history_length"):
        values = block.scalars[name]
        same = (values == values[before]) | (nth == 0)
        block.rows_are(
            same,
            "negative unlike its positive",
            name,
            lambda row, values=values: f"its positive's {values[row - 1]}",  # type: ignore[misc]
        )
    item, lengths = block.scalars["target_item"], block.lengths
    positive = item[np.arange(block.rows) - nth]
    negative = nth > 0
    block.rows_are(
        ~negative | (item != positive),
        "negative",
        "target_item",
        "another item than its positive's",
    )
    of_cell = np.repeat(np.where(negative, item, -1), lengths)
    block.cells_are(
        block.history["item"] != of_cell,
        "negative",
        "item",
        "no item that is a negative of its row",
    )
    follows = negative & (lengths == lengths[before])
    shift = lengths[np.flatnonzero(follows)]
    cells = np.flatnonzero(np.repeat(follows, lengths))
    back = cells - np.repeat(shift, shift)
    for name in (*contract.made.fields, "time"):
        values = block.history[name]
        differs = values[cells] != values[back]
        if differs.any():
            good = np.ones(len(values), np.bool_)
            good[cells[differs]] = False
            block.cells_are(good, "negative unlike its positive", name, "its positive's history")


def _at(values: npt.NDArray[Any], index: Int64s) -> npt.NDArray[Any]:
    """Values at `index`; 0 everywhere where there are none at all."""
    return values[index] if len(values) else np.zeros(len(index), values.dtype)
