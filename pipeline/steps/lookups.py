"""Lookups: what is known of a key's values, read once, and held as ids by place."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from pipeline.description import USER, Lookup
from pipeline.engines.tally import Tally
from pipeline.readers.line_count import estimate_lines
from pipeline.steps import lists, refused, shards
from pipeline.steps.lists import Lists
from pipeline.steps.sql import arrow
from pipeline.steps.vocabulary import Encoder, count_values
from pipeline.workspace import Run
from schemas import tables
from schemas.arrays import Int32s, Int64s
from schemas.errors import ByDescription, InputError
from schemas.manifest import FIRST_ID, UNKNOWN_ID, Share

UNKNOWN = "events/unknown.{}.parquet"
"""What is looked up for values of a key that have no id, by their raw values."""
_LAST, _LINES = "last row", "lines alike"
# Rows that are held before those are left out that differ in nothing but their line.
_HELD = 1 << 20
# Up to here an array with a place for every key is small (64 MB a column).
_MOST_KEYS = 1 << 23


@dataclass(frozen=True)
class Lines:
    """The rows of a lookup's file.

    Attributes:
        rows: all of them, in the file's order, where every line counts; else none.
        read: how many lines the file has, those refused too.
        first: one row a key, or a key and time: the first one, in the order of these. Times are in
            the data set's unit, rounded down, which leaves what is before a whole time before it;
            of a key the last row of one time holds.
        repeated: how many rows are of a key, or key and time, that had one.
        unlike: how many of those say something else than it.
        kept: how many rows there are.
    """

    rows: pl.DataFrame
    read: int
    first: pl.DataFrame
    repeated: int
    unlike: int
    kept: int


def read(run: Run, lookup: Lookup, wanted: pl.Series | None) -> Lines:
    """Read a lookup's file, of all or some keys; lines refused go to a file of theirs."""
    empty = tables.empty(_model(lookup))
    found, rows_of = Distinct(lookup), [empty]
    lines = 0
    path = lookup.path
    if path is not None:
        name = f"read {lookup.file}"
        with run.step(name) as rows:
            about = estimate_lines(path)
            with (
                refused.RefusedLines.within(run.work / refused.kind(lookup.file)) as left,
                closing(lookup.read(path, wanted)) as stream,
            ):
                for parsed in stream:
                    some = lists.cut(parsed.rows.select(empty.columns), lookup.lists)
                    if wanted is not None:  # readers need not leave others out
                        some = some.filter(pl.col(lookup.key).is_in(wanted.implode()))
                    found.add(some)
                    if lookup.all_lines:
                        rows_of.append(some)
                    left.append(parsed.rejected)
                    lines += parsed.lines if wanted is not None else parsed.read
                    run.told(name, lines, max(about, lines))
            left.summary.check([path], lines, run.config.max_rejected)
            rows[:] = lines, found.kept
    return _lines(lookup, found.rows(), pl.concat(rows_of), lines)


def of_table(lookup: Lookup, distinct: pl.DataFrame, wanted: pl.Series) -> Lines:
    """The rows of a lookup of a table of events, which is dealt out by now."""
    some = distinct.filter(pl.col(lookup.key).is_in(wanted.implode()))
    return _lines(lookup, some, some.clear(), int(distinct[_LINES].sum()))


def _lines(lookup: Lookup, distinct: pl.DataFrame, frame: pl.DataFrame, lines: int) -> Lines:
    """Find the first row of each key."""
    raw = _model(lookup)
    columns = tables.columns(raw)
    frame = frame.select(columns)
    for some in (frame, distinct.select(columns)):
        tables.check(raw, some, lookup.path or f"no {lookup.file}", 1 + lookup.header)
    _require_rule(lookup, distinct)
    new = pl.any_horizontal(pl.col(n).ne_missing(pl.col(n).shift()) for n in lookup.by)
    first = distinct.sort(*lookup.by, "row").filter(new)
    kept = int(distinct[_LINES].sum())
    alike = int(first[_LINES].sum())
    first = first.select(columns)
    if lookup.tick is not None:
        first = first.with_columns(pl.col("time") // lookup.tick)
    return Lines(frame, lines, first, kept - first.height, kept - alike, kept)


def _model(lookup: Lookup) -> Any:
    """The contract of a lookup's rows that follows from its columns."""
    names = (*lookup.by, *lookup.given)
    return tables.lines(lookup.lines, lookup.key, {name: lookup.columns[name] for name in names})


class Distinct:
    """The rows of a lookup that differ in more than their line; held in bounded memory.

    Rows may be added by several threads.
    """

    def __init__(self, lookup: Lookup) -> None:
        self.kept = 0
        empty = tables.empty(_model(lookup))
        self._columns = [name for name in empty.columns if name != "row"]
        self._order = [*empty.columns, _LAST, _LINES]
        self._held = [_each(empty)]
        self._most = _HELD
        self._lock = threading.Lock()
        numbers = all(empty.schema[name] == pl.Int64 for name in self._columns)
        # Of repeated lines, which are refused, both have to be known.
        usual = numbers and lookup.repeated_rule != "refuse" and not lookup.timed
        self._usual = _Usual(lookup.key, self._columns) if usual else None

    def add(self, rows: pl.DataFrame) -> None:
        """Take in some rows, in any order."""
        self._take(_each(rows), rows.height)

    def merge(self, rows: pl.DataFrame) -> None:
        """Take in what `rows` returned."""
        self._take(rows, int(rows[_LINES].sum()))

    def _take(self, rows: pl.DataFrame, kept: int) -> None:
        with self._lock:
            self.kept += kept
            rows = rows if self._usual is None else self._usual.left(rows)
        if not rows.height:
            return
        some = _alike(rows.select(self._order), self._columns)
        with self._lock:
            self._held.append(some)
            if sum(some.height for some in self._held) > self._most:
                self._held = [_alike(pl.concat(self._held), self._columns)]
                # So that what is known already is not counted over and over.
                self._most = _HELD + 2 * self._held[0].height

    def rows(self) -> pl.DataFrame:
        """Each with the first row of its kind, the last one, and how many there are."""
        found = _alike(pl.concat([some.select(self._order) for some in self._held]), self._columns)
        return found if self._usual is None else pl.concat([found, self._usual.rows(self._order)])


class _Usual:
    """Of each key, if it is a small number, one kind of rows: that which was seen first.

    Nearly all rows say of their key what is known of it. To look that up in an array takes a
    twentieth of the time that it takes to group them, and a fraction of the memory.

    Args:
        key: the column of keys, whole numbers from 0.
        columns: that tell rows apart; whole numbers from 0, or missing.
    """

    def __init__(self, key: str, columns: Sequence[str]) -> None:
        self.key, self.given = key, [name for name in columns if name != key]
        # By key, of which most may have none: its first row and 1; how many rows; what they say.
        self.of = {name: np.zeros(0, np.int64) for name in ("row", _LINES, *self.given)}

    def left(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Take in rows, with `_LINES`; returns those of other kinds, and of large keys."""
        small = rows[self.key] < _MOST_KEYS
        large, rows = rows.filter(~small), rows.filter(small)
        if not rows.height:
            return large
        key, row = rows[self.key].to_numpy(), rows["row"].to_numpy() + 1
        size = 1 << int(key.max()).bit_length()
        for name, known in self.of.items():
            if size > len(known):  # what is not written to takes no memory
                self.of[name] = np.zeros(size, np.int64)
                self.of[name][: len(known)] = known
        first, given = self.of["row"], {n: rows[n].fill_null(-1).to_numpy() for n in self.given}
        new = np.flatnonzero(first[key] == 0)[::-1]  # of a key the first one is written last
        first[key[new]] = row[new]
        same = np.ones(len(key), np.bool_)
        for name, values in given.items():
            self.of[name][key[new]] = values[new]
            same &= self.of[name][key] == values
        if not same.all():
            large = pl.concat([large, rows.filter(~same)])
            rows, key, row = rows.filter(same), key[same], row[same]
        np.add.at(self.of[_LINES], key, rows[_LINES].to_numpy())
        earlier = row < first[key]
        np.minimum.at(first, key[earlier], row[earlier])
        return large

    def rows(self, order: Sequence[str]) -> pl.DataFrame:
        """One of each key, with the columns `order`; the last row of its kind is not known."""
        key = np.flatnonzero(self.of["row"])
        of = {name: pl.Series(values[key]) for name, values in self.of.items()}
        of |= {name: of[name].set(of[name] < 0, None) for name in self.given}
        first = of["row"] - 1
        return pl.DataFrame({**of, self.key: key, "row": first, _LAST: first}).select(order)


def _each(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows that are one of their kind, each."""
    return rows.with_columns(pl.col("row").alias(_LAST), pl.lit(1, pl.Int64).alias(_LINES))


def _alike(rows: pl.DataFrame, columns: list[str]) -> pl.DataFrame:
    """One row of each kind, which `columns` tell."""
    found = rows.group_by(columns).agg(
        pl.col("row").min(), pl.col(_LAST).max(), pl.col(_LINES).sum()
    )
    return found.select(rows.columns)


def _require_rule(lookup: Lookup, distinct: pl.DataFrame) -> None:
    """Refuse lines that repeat a key where they may not, or say something else."""
    if lookup.repeated_rule == "first":
        return
    refused_all = lookup.repeated_rule == "refuse"
    others = pl.col("row").sort().slice(1, 1).first()
    if refused_all:  # the second of its kind is at the latest the last one
        others = pl.min_horizontal(others, pl.col(_LAST).filter(pl.col(_LINES) > 1).min())
    found = distinct.group_by(lookup.by).agg(first=pl.col("row").min(), second=others)
    found = found.drop_nulls("second").sort("second")
    if not found.height:
        return
    value, *_, first, second = found.row(0)
    line, of = 1 + lookup.header, "a key and time" if lookup.timed else "a key"
    what = f"repeats {of}" if refused_all else f"says something else of {of} than an earlier one"
    raise InputError(
        f"A line {what}.",
        where=lookup.path or lookup.file,
        line=second + line,
        expected=f"one line of a {' and '.join(lookup.by)}"
        if refused_all
        else f"lines of one {' and '.join(lookup.by)} that say the same",
        got=f"{lookup.key} {value!r} in the lines {first + line} and {second + line}; "
        f"{found.height:,} such {'pairs' if lookup.timed else 'keys'}",
        do=ByDescription('mend the file, or have the first line count: repeated = "first"'),
    )


def named(lookup: Lookup, lines: Lines, keys: pl.Series) -> Lines:
    """Of lines that were read of all keys, those of some."""
    return replace(lines, first=lines.first.filter(pl.col(lookup.key).is_in(keys.implode())))


def lacking(lookup: Lookup, first: pl.DataFrame, keys: int) -> dict[str, Share]:
    """Of so many keys those without a line, and those whose line has no value of a field.

    Where every line counts, the keys are those of the lines; `first` has the first line of each.
    Of what is timed, lines count as keys.
    """
    if lookup.path is None:
        return {}
    lines = first[lookup.key].n_unique() if lookup.timed else first.height
    found = {} if lookup.early else {lookup.without: Share(keys - lines, keys)}
    keys = first.height if lookup.timed else keys
    for name in lookup.fields:
        found[lookup.lacks.format(name)] = Share(first[name].null_count(), keys)
    return found


@dataclass(frozen=True)
class Since:
    """From when each place holds for its key: places lie by the key's id, then by time.

    Attributes:
        first: (ids + 1,) where the places of each id begin.
        time: (places,) from when each holds.
    """

    first: Int32s
    time: Int64s

    def place(self, ids: npt.NDArray[Any], time: npt.NDArray[Any]) -> Int32s:
        """The last place of each id strictly before a time; as many as there are for none."""
        begin = self.first[ids]
        lines = self.first[ids + 1] - begin
        before = np.zeros(np.broadcast_shapes(lines.shape, time.shape), np.int32)
        # Bit by bit of the most lines that a key has: one search over all takes four times as long.
        for bit in reversed(range(int(lines.max(initial=0)).bit_length())):
            more = before + np.int32(1 << bit)
            fits = more <= lines
            fits &= self.time[np.where(fits, begin + more - 1, 0)] < time
            before = np.where(fits, more, before)
        return np.where(before > 0, begin + before - 1, np.int32(len(self.time)))


@dataclass(frozen=True)
class Encoded:
    """What is looked up, by place: places are of keys in their order, the last of all others.

    Attributes:
        ids: column -> (places,) ids; 1 at the last one.
        raw_numbers: column -> (places,) as in the file; NaN where there is none.
        lists: column -> (places,) lists of ids; empty at the last one.
        place_of_id: (ids,) the place of each id of the key in the ordered events, at any time.
        place_of: the place of a key's raw value, at any time; None of a bucket's part.
        since: from when places hold; None for any time.
        of_whole: (places,) which places of the whole lookup a bucket's part holds; None of a whole.
        numbers: of a bucket's part, column -> (places,) as rows have them.
    """

    ids: dict[str, npt.NDArray[np.int32]]
    raw_numbers: dict[str, npt.NDArray[np.float64]]
    lists: dict[str, Lists]
    place_of_id: npt.NDArray[np.int32]
    place_of: Encoder | None
    places: int
    since: Since | None
    of_whole: Int32s | None = None
    numbers: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)

    def place_of_raw(self, values: pl.Series) -> Int32s:
        """(values,) the place of each raw value of the key."""
        assert self.place_of is not None
        return self.place_of.of(values)

    def whole(self, places: Int32s) -> Int32s:
        """Places of the whole lookup, of places here."""
        return places if self.of_whole is None else self.of_whole[places]

    def held(self, places: Int32s) -> Int32s:
        """Places here, of places of the whole lookup, by which a part is asked for."""
        return places if self.of_whole is None else self.place_of_id[places]

    def place(self, ids: npt.NDArray[Any], time: npt.NDArray[Any]) -> Int32s:
        """Where keys are looked up, by their ids in the ordered events, as of times."""
        return self.place_of_id[ids] if self.since is None else self.since.place(ids, time)

    def of(self, names: Iterable[str], ids: Int32s, time: Int64s) -> dict[str, Int32s]:
        """What columns have for keys, by their ids in the ordered events, as of times."""
        if self.since is None:  # one step in place of two
            return {name: self._by_id[name][ids] for name in names}
        at = self.since.place(ids, time)
        return {name: self.ids[name][at] for name in names}

    @cached_property
    def _by_id(self) -> dict[str, Int32s]:
        """Column -> (ids,) its id by the key's id."""
        return {name: ids[self.place_of_id] for name, ids in self.ids.items()}


def encode(
    lookup: Lookup,
    lines: Lines,
    named: Mapping[str, pa.Table],
    words: Mapping[str, pa.Table],
    run: Run | None = None,
) -> Encoded:
    """Give a lookup its ids.

    Args:
        named: the vocabularies that events are ordered with: where keys are looked up.
        words: those of rows: the ids of what is looked up; what has none here is left out.
        run: writes those of keys that have an id in rows; None: they are not written.
    """
    first = lines.first
    if not (lookup.all_lines or lookup.timed):  # every key that events name has a place
        keys = pl.DataFrame(named[lookup.key].select(["value"])).rename({"value": lookup.key})
        first = keys.join(first, on=lookup.key, how="left", maintain_order="left")
    of_key = Encoder(named[lookup.key]).of(first[lookup.key])
    since = None
    if lookup.timed:
        by = np.argsort(of_key, kind="stable")  # new users have ids behind all others
        first, of_key = first[by], of_key[by]
        begins = np.searchsorted(of_key, np.arange(len(named[lookup.key]) + FIRST_ID + 1))
        since = Since(begins.astype(np.int32), first["time"].to_numpy())
    values = arrow(first.select(lookup.key)).column(0)
    places = pa.table({"value": values, "id": np.arange(len(first), dtype=np.int32)})
    ids = {name: Encoder(words[name]).of(first[name]) for name in lookup.ids if name in words}
    raw = {name: first[name].cast(pl.Float64) for name in lookup.numbers}
    of_lists = {
        name: lists.encode(first[name].fill_null([]), Encoder(words[name]), most)
        for name, most in lookup.lists.items()
        if name in words
    }
    known = of_key >= FIRST_ID
    place_of_id = np.full(len(named[lookup.key]) + FIRST_ID, len(first), np.int32)
    place_of_id[of_key[known]] = np.flatnonzero(known)
    if run is not None:
        in_rows = Encoder(words[lookup.key]).of(first[lookup.key])
        time = {"time": first["time"]} if lookup.timed else {}
        columns = {lookup.key: in_rows, **time, **ids, **raw}
        at = np.flatnonzero(in_rows >= FIRST_ID)
        at = at[np.argsort(in_rows[at], kind="stable")]
        name = f"lookups/{lookup.key}.parquet"
        contract = tables.encoded(lookup.lines, lookup.by, lookup.ids, lookup.numbers, lookup.lists)
        _write(run, name, contract, columns, of_lists, at)
        if run.config.keep_events:  # what has no id is still looked up
            columns |= {lookup.key: first[lookup.key]}
            unknown = (in_rows < FIRST_ID) & first[lookup.key].is_not_null().to_numpy()
            name = UNKNOWN.format(lookup.key)
            _write(run, name, None, columns, of_lists, np.flatnonzero(unknown))
    last = np.full(1, UNKNOWN_ID, np.int32)
    return Encoded(
        {name: np.append(of, last) for name, of in ids.items()},
        {name: np.append(of.fill_null(np.nan).to_numpy(), np.nan) for name, of in raw.items()},
        {name: of.with_empty() for name, of in of_lists.items()},
        place_of_id,
        Encoder(places, len(first)),
        len(first) + 1,
        since,
    )


def _write(
    run: Run,
    name: str,
    contract: Any,
    columns: Mapping[str, Any],
    of_lists: Mapping[str, Lists],
    some: Int64s,
) -> None:
    """Write what is looked up at some places; a contract of None holds it to nothing."""
    rows = {name: of.take(some).array(pa.list_(pa.int32())) for name, of in of_lists.items()}
    table, path = pl.DataFrame(columns)[some], run.config.out / name
    if contract is not None:
        whole = table.with_columns(pl.Series(name, of) for name, of in rows.items())
        tables.check(contract, whole, path)
    written = arrow(table)
    for column, of in rows.items():
        written = written.append_column(column, of)
    shards.write_table(path, written)


def dense(tally: Tally, size: int) -> npt.NDArray[np.int64]:
    """(size,) how often each number below `size` was counted."""
    counted = tally.counts()
    found = np.zeros(size, np.int64)
    found[counted["value"].to_numpy()] = counted["count"].to_numpy()
    return found


def counts(lookup: Lookup, rows: pl.DataFrame, of_key: pa.Table | None) -> dict[str, pl.DataFrame]:
    """How often the values of each column occur: once a line, or as often as events name the key.

    Args:
        rows: its rows; those that are first of their keys, where only what events name counts.
            Timed ones may have a `count` of their own: how often events look each up.
        of_key: the key's vocabulary; wanted where only what events name counts.
    """
    if lookup.all_lines:
        keys = () if lookup.key == USER else (lookup.key,)
        found = {name: count_values(rows, name) for name in (*keys, *lookup.ids)}
        return found | {name: lists.count_values(rows, name) for name in lookup.lists}
    once = lookup.timed and "count" not in rows.columns  # what several lines of a key say alike
    if "count" not in rows.columns:
        events = pl.DataFrame(of_key).select(pl.col("value").alias(lookup.key), "count")
        rows = rows.join(events, on=lookup.key)
    found = {}
    for name in (*lookup.ids, *lookup.lists):
        each = rows.select(lookup.key, pl.col(name).alias("value"), "count")
        each = each.explode("value") if name in lookup.lists else each
        each = each.unique() if once else each
        found[name] = each.select("value", "count").drop_nulls("value")
    return found
