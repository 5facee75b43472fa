"""Lookups that no task is to hold as a whole: each bucket gets the lines of the keys it asks for.

A bucket asks by the ids of keys that its events and its negatives have, or by places where events
hold those. The engine brings it these lines, and what is made of them stands for the whole lookup:
its places are other numbers, and `Encoded.of_whole` says which they are of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.description import Description
from pipeline.description.split import NO_TARGET, Split
from pipeline.engines.buckets import AT, bucket_path, load_columns, read_spilled, save_columns
from pipeline.steps.drawing import Drawing
from pipeline.steps.lists import Lists
from pipeline.steps.lookups import Encoded, Since
from pipeline.steps.order import load, ordered, ordered_others, place_of
from pipeline.workspace import Run
from schemas.manifest import UNKNOWN_ID

_PLACE, _TIME, _ID, _NUMBER, _LIST = "place", "time", "id of ", "number ", "list of "


@dataclass(frozen=True)
class Spread:
    """Stands for a lookup in a task, until it is known of which bucket.

    Attributes:
        kind: of the files with its lines.
        keys: how many ids of the key there are, or places where it is asked by these.
        places: of the whole lookup; the last is of all other keys.
        schema: of its lines, serialized: pickled, it would be another.
        others: column of numbers -> what other keys have.
        most: column of lists -> how many ids each has at most.
    """

    key: str
    kind: str
    keys: int
    places: int
    schema: bytes
    others: Mapping[str, np.float32]
    most: Mapping[str, int]

    def of(self, folder: Path, bucket: int) -> Encoded:
        """What is looked up for a bucket's keys."""
        path = bucket_path(folder / self.kind, bucket)
        schema = pa.ipc.read_schema(pa.py_buffer(self.schema))
        lines = read_spilled(path) if path.exists() else schema.empty_table()
        lines = lines.sort_by([(AT, "ascending"), (_PLACE, "ascending")]).combine_chunks()
        at, place = (lines[name].to_numpy() for name in (AT, _PLACE))
        n, asked = len(at), np.arange(self.keys + 1)
        place_of_id = np.full(self.keys, n, np.int32)
        place_of_id[at] = np.arange(n)
        since = None
        if _TIME in lines.column_names:
            since = Since(np.searchsorted(at, asked).astype(np.int32), lines[_TIME].to_numpy())

        def named(what: str) -> dict[str, npt.NDArray[Any]]:
            names = [name for name in lines.column_names if name.startswith(what)]
            return {name.removeprefix(what): lines[name].to_numpy() for name in names}

        last = np.int32(UNKNOWN_ID)
        return Encoded(
            {name: np.append(ids, last) for name, ids in named(_ID).items()},
            {},
            {name: _lists(lines[_LIST + name], most) for name, most in self.most.items()},
            place_of_id,
            None,
            n + 1,
            since,
            np.append(place, np.int32(self.places - 1)),
            {name: np.append(of, self.others[name]) for name, of in named(_NUMBER).items()},
        )


def _lists(column: pa.ChunkedArray, most: int) -> Lists:
    length = column.combine_chunks().value_lengths().to_numpy(zero_copy_only=False)
    found = Lists(np.zeros((len(length), most), np.int32), length.astype(np.int16))
    found.ids[found.real] = column.combine_chunks().flatten().to_numpy()
    return found.with_empty()


Held = Encoded | Spread
"""A lookup as a task has it before its bucket is known."""


def of_bucket(looked_up: Mapping[str, Held], folder: Path, bucket: int) -> dict[str, Encoded]:
    """Lookups as a bucket has them."""
    return {
        key: one.of(folder, bucket) if isinstance(one, Spread) else one
        for key, one in looked_up.items()
    }


def for_order(looked_up: Mapping[str, Encoded], d: Description, some: list[str]) -> dict[str, Any]:
    """What ordering wants of lookups: of those that are spread, where a raw value's place is."""
    whole = {key: one for key, one in looked_up.items() if key not in some}
    return whole | {
        key: replace(one, ids={}, raw_numbers={}, lists={}, place_of_id=np.zeros(0, np.int32))
        for key, one in looked_up.items()
        if key in some and d.lookup(key).has_place
    }


@dataclass(frozen=True)
class Ask:
    """Finds what a bucket's events, and their negatives, look up.

    Attributes:
        drawing: of the negatives; None for none.
    """

    d: Description
    split: Split
    drawing: Drawing | None
    keys: tuple[str, ...]

    def __call__(self, folder: Path, bucket: int) -> None:
        """Leave the files of the kinds `asked`."""
        kinds = [*map(ordered, self.d.tables)]
        kinds += map(ordered_others, self.d.tables[1:]) if self.d.keeps else []
        files = [load_columns(bucket_path(folder / kind, bucket)) for kind in kinds]
        for key in self.keys:
            name = place_of(key) if self.d.lookup(key).has_place else key
            some = [columns[name] for columns in files if name in columns]
            drawn = self.drawing
            if drawn is not None and drawn.rule.field == key:
                found = load(folder, bucket, self.d, {}, self.split)
                at = np.flatnonzero(found.targets.split != NO_TARGET)
                at = at[drawn.some_left(found, at)]
                some.append(drawn.negatives(found, at).ravel())
            distinct = np.unique(np.concatenate(some)).astype(np.int32)
            save_columns(bucket_path(folder / asked(key), bucket), {AT: distinct})


def asked(key: str) -> str:
    """What the files are called with what a bucket looks up."""
    return f"asked-{key}"


def bring(
    run: Run,
    d: Description,
    looked_up: Mapping[str, Encoded],
    numbers: Mapping[str, npt.NDArray[np.float32]],
    some: list[str],
    when: str,
) -> tuple[dict[str, Held], list[str]]:
    """Have each bucket get the lines that it has asked for.

    Args:
        numbers: column of numbers -> (places,) as rows have them; none before they are known.
        some: the keys of those that are spread.
        when: what the files are called by.

    Returns:
        What tasks are to have of all lookups, and the kinds of files that they need.
    """
    found: dict[str, Held] = dict(looked_up)
    kinds = []
    for key in (key for key in some if key in looked_up):
        kind, one = f"looked-up-{key}-{when}", looked_up[key]
        of = {name: numbers[name] for name in d.lookup(key).numbers if name in numbers}
        by_place = d.lookup(key).has_place
        lines = _lines(one, of, by_place)
        run.engine.spread(kind, asked(key), lines, run.count)
        found[key] = Spread(
            key,
            kind,
            one.places if by_place else len(one.place_of_id),
            one.places,
            lines.schema.serialize().to_pybytes(),
            {name: values[-1] for name, values in of.items()},
            {name: lists.ids.shape[1] for name, lists in one.lists.items()},
        )
        kinds.append(kind)
    return found, kinds


def _lines(of: Encoded, numbers: Mapping[str, npt.NDArray[np.float32]], by_place: bool) -> pa.Table:
    """The lines of a lookup, by what they are asked by."""
    if by_place:
        at = place = np.arange(of.places - 1, dtype=np.int32)
    elif of.since is None:
        at = np.flatnonzero(of.place_of_id != of.places - 1).astype(np.int32)
        place = of.place_of_id[at]
    else:
        lines = np.diff(of.since.first)
        at = np.repeat(np.arange(len(lines), dtype=np.int32), lines)
        place = np.arange(len(at), dtype=np.int32)
    columns: dict[str, Any] = {AT: at, _PLACE: place}
    if of.since is not None:
        columns[_TIME] = of.since.time
    columns |= {_ID + name: ids[place] for name, ids in of.ids.items()}
    columns |= {_NUMBER + name: values[place] for name, values in numbers.items()}
    kind = pa.list_(pa.int32())
    columns |= {_LIST + n: lists.take(place).array(kind) for n, lists in of.lists.items()}
    return pa.table(columns)
