"""Transform: a bucket's ordered events and the fitted state to the rows of every split.

A pure function of both. A target's row is followed by those of its negatives, which share its
history.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.description import USER, Description
from pipeline.description.split import NO_TARGET, Split, Splits
from pipeline.engines.buckets import Behaviours
from pipeline.steps import columns, histories, rows
from pipeline.steps.columns import Columns
from pipeline.steps.drawing import Drawing
from pipeline.steps.finish import Made
from pipeline.steps.ids_held import ids_held
from pipeline.steps.lookups import Encoded
from pipeline.steps.numbers import scaled
from pipeline.steps.order import Bucket, load, of_nobodies
from pipeline.steps.spread import Held, of_bucket
from schemas.arrays import Int32s, Int64s
from schemas.manifest import FIRST_ID, UNKNOWN_ID, unknown_behaviours, unknown_targets
from schemas.shards import Shape, schema_of


@dataclass(frozen=True)
class Rows:
    """The rows of a bucket's splits.

    Attributes:
        looked_up: the lookups as ids, by key.
        numbers: column of numbers that is looked up -> (places,) as rows have them.
        scales: column of numbers -> how it is scaled.
        stored: history -> how it is stored, with the fitted edges.
        drawing: of the negatives; None for none.
        final: column -> the id that each of its ids in the ordered events becomes in rows, where
            it is another one.
        released: (raw rows,) the negative 0..values-1 of each event where a stream draws them.
    """

    d: Description
    split: Split
    looked_up: Mapping[str, Held]
    numbers: Mapping[str, npt.NDArray[np.float32]]
    scales: Mapping[str, dict[str, Any]]
    stored: Mapping[str, rows.Stored]
    drawing: Drawing | None
    final: Mapping[str, Int32s]
    released: Int64s | None

    @property
    def schema(self) -> pa.Schema:
        """The schema of the shards."""
        d = self.d
        shapes = {
            name: Shape(d.carried(d.table(one.table)), self.stored[name].max_len, one.sessions)
            for name, one in d.histories.items()
        }
        return schema_of(
            d.fields,
            shapes,
            d.layout,
            weight=d.target.weight,
            features=d.features,
            numbers=tuple(d.numbers),
            lists=d.lists,
            keep=d.keep,
        )

    def __call__(self, folder: Path, bucket: int, schema: pa.Schema) -> Made:
        """The blocks of each split, and the bucket's summary."""
        own = columns.load(folder, bucket, self.d.target)
        looked_up = of_bucket(self.looked_up, folder, bucket)
        bucket_of = load(folder, bucket, self.d, looked_up, self.split, self.final)
        targets = _Targets(self, looked_up, bucket_of, own)
        chosen = targets.bucket.targets
        split = chosen.split[targets.at]
        blocks = {
            name: targets.blocks(targets.at[split == k], targets.drawn[split == k], schema)
            for k, name in enumerate(self.d.splits)
            if (split == k).any()
        }
        windows = {name: of.take(targets.at) for name, of in chosen.windows.items()}
        ids = {name: targets.ids(name, targets.at, targets.drawn) for name in self.d.fields}
        cut_from = [
            (windows[name], behaviours, self.stored[name].max_len)
            for name, behaviours in targets.bucket.behaviours.items()
        ]
        some = np.any([of.lengths > 0 for of in windows.values()], axis=0)
        counts_unknown = self.d.vocabulary_from == "train" or self.d.continues is not None
        summary = {
            "lengths": {name: self._lengths(name, of, split) for name, of in windows.items()},
            "ids": ids_held(split, ids, cut_from) if self.d.continues is None else {},
            "left_out": targets.left_out.tolist(),
            "targets": len(targets.at),
            "no_history": int(np.count_nonzero(~some)),
            "unknown": self._unknown(targets, split) if counts_unknown else {},
        }
        kept = {name: _kept(of) for name, of in targets.bucket.behaviours.items()}
        if self.d.keeps:
            others = of_nobodies(folder, bucket, self.d, looked_up, self.final)
            for name, of in others.items():
                kept[name] = pa.concat_tables([kept[name], _kept(of)])
        return Made(blocks, summary, kept if self.d.keeps else {})

    def _unknown(self, targets: _Targets, split: Splits) -> dict[str, tuple[int, int]]:
        """How many targets, and behaviours of them, have no id; of how many."""
        found, none = {}, np.zeros((len(targets.at), 0), np.int32)
        for name in (*self.d.fields, *self.d.features):
            unknown = targets.ids(name, targets.at, none)[:, 0] == UNKNOWN_ID
            for k, of in enumerate(self.d.splits):
                counts = int((unknown & (split == k)).sum()), int((split == k).sum())
                found[unknown_targets(of, name)] = counts
        for history, behaviours in targets.bucket.behaviours.items():
            windows = targets.bucket.targets.windows[history].take(targets.at)
            stored = windows.latest(self.stored[history].max_len)
            for name, ids in behaviours.fields.items():
                before = np.append(0, np.cumsum(ids == UNKNOWN_ID))
                unknown = before[stored.end] - before[stored.start]
                for k, of in enumerate(self.d.splits):
                    some = split == k
                    counts = int(unknown[some].sum()), int(stored.lengths[some].sum())
                    found[unknown_behaviours(of, history, name)] = counts
        return found

    def _lengths(self, name: str, windows: rows.Windows, split: Splits) -> dict[str, list[int]]:
        """Rows of each split by the length 0..max_len of a history."""
        most, each = self.stored[name].max_len, self.d.rows_of_a_target
        lengths = np.minimum(windows.lengths, most)
        return {
            of: (each * np.bincount(lengths[split == k], minlength=most + 1)).tolist()
            for k, of in enumerate(self.d.splits)
        }


def _kept(behaviours: Behaviours) -> pa.Table:
    """Behaviours as they are kept: no value is null."""
    columns = {"user": behaviours.user, "time": behaviours.time, **behaviours.fields}
    arrays = {name: pa.array(values) for name, values in columns.items()}
    fields = [pa.field(name, of.type, nullable=False) for name, of in arrays.items()]
    return pa.table(list(arrays.values()), pa.schema(fields))


class _Targets:
    """The targets of a bucket."""

    def __init__(
        self, fitted: Rows, looked_up: Mapping[str, Encoded], bucket: Bucket, own: Columns
    ) -> None:
        self.fitted, self.looked_up, self.bucket, self.own = fitted, looked_up, bucket, own
        self.numbers = {**fitted.numbers}
        for one in looked_up.values():
            self.numbers |= one.numbers
        d, targets = fitted.d, bucket.targets
        self.at: Int64s = np.flatnonzero(targets.split != NO_TARGET)
        self.left_out = np.zeros(0, np.int64)
        self.drawn = np.zeros((len(self.at), 0), np.int32)
        self.breaks = {
            name: histories.session_breaks(of.time, of.offsets, fitted.stored[name].session_gap)
            for name, of in bucket.behaviours.items()
        }
        if d.negatives is None:
            return
        assert fitted.drawing is not None
        left = fitted.drawing.some_left(bucket, self.at)
        self.left_out = targets.row[self.at[~left]]
        self.at = self.at[left]
        if fitted.released is not None:
            self.drawn = (fitted.released[targets.row[self.at]] + FIRST_ID).astype(np.int32)[
                :, None
            ]
        else:
            self.drawn = fitted.drawing.negatives(bucket, self.at)

    def ids(self, name: str, at: Int64s, drawn: Int32s) -> Int32s:
        """(targets, rows of each) an id column of some targets, and of their negatives."""
        d, looked_up = self.fitted.d, self.looked_up
        field = d.negatives.field if d.negatives is not None else ""
        if name == field:
            others = self._renamed(name, drawn)
        elif name in (lookup.ids if (lookup := d.by_key.get(field)) is not None else ()):
            time = self.bucket.targets.events.time[at]
            others = looked_up[field].of([name], drawn, time[:, None])[name]
        else:
            return np.repeat(self._own(name, at)[:, None], 1 + drawn.shape[1], axis=1)
        return np.concatenate([self._own(name, at)[:, None], others], axis=1)

    def _renamed(self, name: str, ids: Int32s) -> Int32s:
        """Ids of a column of events, as rows have them."""
        final = self.fitted.final
        return final[name][ids] if name in final else ids

    def _own(self, name: str, at: Int64s) -> Int32s:
        """(targets,) an id column of some targets."""
        d, targets = self.fitted.d, self.bucket.targets
        if name in d.target.fields:
            return self._renamed(name, targets.events.fields[name][at])
        if name in targets.events.fields:
            return targets.events.fields[name][at]
        if name in targets.features:
            return self._renamed(name, targets.features[name][at])
        key = next(key for key, one in d.by_key.items() if name in one.ids)
        return self.looked_up[key].ids[name][targets.place[key][at]]

    def _places(self, key: str, at: Int64s, drawn: Int32s) -> Int32s:
        """(rows,) where some targets, and their negatives, look up what a key has."""
        d, own = self.fitted.d, self.bucket.targets.place[key][at]
        if d.negatives is None or key != d.negatives.field:
            return np.repeat(own, 1 + drawn.shape[1])
        time = self.bucket.targets.events.time[at]
        others = self.looked_up[key].place(drawn, time[:, None])
        return np.concatenate([own[:, None], others], axis=1).ravel()

    def _more(
        self, at: Int64s, drawn: Int32s, schema: pa.Schema
    ) -> tuple[dict[str, npt.NDArray[Any]], dict[str, pa.Array]]:
        """Weights, numbers, lists and what is passed through, of some targets and negatives."""
        fitted, own, again = self.fitted, self.own, np.repeat(at, 1 + drawn.shape[1])
        d = fitted.d
        keys = {name: key for key, one in d.by_key.items() for name in (*one.numbers, *one.lists)}
        places = {key: self._places(key, at, drawn) for key in {*keys.values()}}
        flat: dict[str, npt.NDArray[Any]] = {}
        if own.weight is not None:
            flat["weight"] = own.weight[again]
        for name, scale in d.numbers.items():
            if name in own.numbers:
                flat[name] = scaled(own.numbers[name][again], scale, fitted.scales[name])
            else:
                flat[name] = self.numbers[name][places[keys[name]]]
        arrays = {name: own.keep[name].take(pa.array(again)).combine_chunks() for name in d.keep}
        for name in d.lists:
            if name in own.lists:
                of = own.lists[name].take(again)
                of = of._replace(ids=self._renamed(name, of.ids))
            else:
                of = self.looked_up[keys[name]].lists[name].take(places[keys[name]])
            flat[f"{name}_length"] = of.length
            arrays[name] = of.array(schema.field(name).type)
        return flat, arrays

    def blocks(self, at: Int64s, drawn: Int32s, schema: pa.Schema) -> Iterator[rows.Block]:
        """The rows of some targets in blocks: each positive, then its negatives."""
        d, targets, each = self.fitted.d, self.bucket.targets, 1 + drawn.shape[1]
        of = {
            name: rows.History(
                self.bucket.behaviours[name],
                targets.windows[name].take(at),
                stored,
                self.breaks[name],
            )
            for name, stored in self.fitted.stored.items()
        }
        for block in rows.blocks(list(of.values()), each):
            some = at[block]
            again = np.repeat(some, each)
            flat, arrays = self._more(some, drawn[block], schema)
            label = (
                np.tile(np.arange(each) == 0, len(some))
                if targets.label is None
                else targets.label[again]
            )
            scalars: dict[str, npt.NDArray[Any]] = {
                "row": targets.row[again],
                USER: targets.events.user[again],
                **{f"target_{n}": self.ids(n, some, drawn[block]).ravel() for n in d.fields},
                "target_time": targets.events.time[again],
                "label": label,
                **{n: self.ids(n, some, drawn[block]).ravel() for n in d.features},
                **flat,
            }
            windows = {
                n: one.take(np.repeat(np.arange(block.start, block.stop), each))
                for n, one in of.items()
            }
            yield rows.table(windows, scalars, arrays, schema)
