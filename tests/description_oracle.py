"""An independent, slow and obvious account of any described data set, to hold the pipeline against.

It reads the description and the files itself: `tomllib`, `csv`, `json`, and pyarrow for Parquet
alone. SQL is SQLite's. Rows are dictionaries, one target at a time, each history found by going
through all events of its user. Nothing of the pipeline is imported.

The oracle does not draw. It says what a negative may be; given the item that was drawn, it says
every other column of its row.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import sqlite3
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq

PADDING, UNKNOWN, FIRST = 0, 1, 2
SPLITS = ("train", "valid", "test")
NULLS = (
    *("", "NULL", "Null", "null", "NaN", "nan", "NAN", "None", "none", "\\N"),
    *("NA", "N/A", "n/a", "<NA>"),
)
PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000}
MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15

Row = dict[str, Any]


class Refused(Exception):
    """A record that cannot be read."""


# --- random numbers -----------------------------------------------------------------------------


def mix(x: int) -> int:
    """SplitMix64's finaliser."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def counter_hash(seed: int, *keys: int) -> int:
    """64 bits that depend on the seed and the keys alone."""
    state = mix((seed + GOLDEN) & MASK)
    for key in keys:
        state = mix((state + GOLDEN + mix((key + GOLDEN) & MASK)) & MASK)
    return state


def tie(seed: int, row: int) -> int:
    """What events of one time are ordered by, with `order = "hash"`: as a signed number."""
    bits = counter_hash(seed, row)
    return bits - (1 << 64) if bits >> 63 else bits


# --- files --------------------------------------------------------------------------------------


def files_of(spec: str | Sequence[str], folder: Path) -> list[Path]:
    """The files that a table's `files` names, in order: a name, names, a folder or a glob."""
    found: list[Path] = []
    for one in [spec] if isinstance(spec, str) else spec:
        path = folder / one
        if any(c in one for c in "*?["):
            found += sorted(p for p in folder.glob(one) if p.is_file())
        elif path.is_dir():
            found += sorted(p for p in path.rglob("*") if p.is_file() and p.name[0] not in "._")
        else:
            found.append(path)
    return found


def opened(path: Path) -> bytes:
    """What a file holds, unpacked, whatever its name says."""
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        return gzip.decompress(data)
    if data[:4] == b"\x28\xb5\x2f\xfd":
        with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
            return bytes(stream.read())
    return data


def format_of(path: Path) -> str:
    """csv, tsv, jsonl or parquet, by the name without what it is packed as."""
    name = path.name.lower()
    for packed in (".gz", ".zst"):
        name = name.removesuffix(packed)
    end = name.rsplit(".", 1)[-1]
    return {"json": "jsonl", "ndjson": "jsonl", "pq": "parquet"}.get(end, end)


def records(table: Mapping[str, Any], folder: Path) -> list[Row]:
    """Every record of a table's files as a dictionary of text, numbers, lists and None."""
    found: list[Row] = []
    told = table.get("csv", {})
    for path in files_of(table["files"], folder):
        kind = table.get("format") or format_of(path)
        if kind == "parquet":
            found += pq.read_table(path, partitioning=None).to_pylist()
        elif kind == "jsonl":
            lines = opened(path).decode("utf-8-sig").split("\n")
            found += [json.loads(line) for line in lines if line.strip()]
        else:
            delimiter = told.get("delimiter", "\t" if kind == "tsv" else ",")
            text = opened(path).decode("utf-8-sig")
            rows = [r for r in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if r]
            names = told.get("columns") or rows.pop(0)
            nulls = told.get("nulls", NULLS)
            for row in rows:
                values = [None if v.strip(" \t") in nulls else v for v in row]
                found.append(dict(zip(names, values, strict=True)))
    every = dict.fromkeys(name for row in found for name in row)
    return [{name: row.get(name) for name in every} for row in found]


# --- values -------------------------------------------------------------------------------------


def missing(value: Any) -> bool:
    """Whether there is no value: null, or not a number."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def whole(value: Any) -> int:
    """A whole number however it is spelled: `4`, `4.0`, `" 4"`."""
    if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()):
        return int(value)
    number = Fraction(str(value).strip(" \t"))
    if number.denominator != 1:
        raise Refused(value)
    return int(number)


def is_whole(value: Any) -> bool:
    """Whether it can be read as a whole number."""
    try:
        whole(value)
    except (ValueError, Refused):
        return False
    return True


def number(value: Any) -> float | None:
    """A float; None where there is none."""
    return None if missing(value) else float(value)


def as_sql(values: Sequence[Any]) -> list[Any]:
    """A column as SQL sees it: whole numbers if all are, else floats if all are, else text."""
    there = [v for v in values if not missing(v)]
    if there and all(isinstance(v, int) or (isinstance(v, str) and is_whole(v)) for v in there):
        return [None if missing(v) else whole(v) for v in values]
    try:
        return [None if missing(v) else float(v) for v in values]
    except (ValueError, TypeError):
        return [None if missing(v) else str(v) for v in values]


def sql(rows: Sequence[Row], expression: str) -> list[Any]:
    """An SQL expression over each record."""
    if not rows:
        return []
    scalars = [n for n in rows[0] if not any(isinstance(r.get(n), list | dict) for r in rows)]
    columns = {name: as_sql([row.get(name) for row in rows]) for name in scalars}
    names = ", ".join(f'"{name}"' for name in columns)
    with sqlite3.connect(":memory:") as db:
        db.execute(f"CREATE TABLE t (_row, {names})")
        marks = ", ".join("?" * (len(columns) + 1))
        values = [(n, *(column[n] for column in columns.values())) for n in range(len(rows))]
        db.executemany(f"INSERT INTO t VALUES ({marks})", values)
        return [got for (got,) in db.execute(f"SELECT ({expression}) FROM t ORDER BY _row")]


def evaluated(rows: Sequence[Row], told: str) -> list[Any]:
    """A column by its name, or an SQL expression over the columns."""
    if not rows or told in rows[0]:
        return [row.get(told) for row in rows]
    return sql(rows, told)


def time_of(value: Any, told: Mapping[str, Any], unit: str) -> int:
    """A time in `unit`, as a whole number; with a zone, where the value has none."""
    if "unit" in told:
        return whole(value) * PER_SECOND[unit] // PER_SECOND[told["unit"]]
    if isinstance(value, str):
        value = datetime.fromisoformat(value.strip())
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if value.tzinfo is None:
        value = value.replace(tzinfo=ZoneInfo(told["timezone"]))
    micro = (value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    return micro * PER_SECOND[unit] // PER_SECOND["us"]


def ordered(values: Iterable[Any]) -> list[Any]:
    """Values of a vocabulary in the order of their ids: numbers by size, text by its bytes."""
    return sorted(values, key=lambda v: v.encode() if isinstance(v, str) else v)


# --- fitted -------------------------------------------------------------------------------------


def quantile_edges(intervals: Sequence[int], bins: int) -> list[int]:
    """The `bins - 1` equal-frequency edges, each an interval that occurs (inverted_cdf), or 0."""
    if not intervals:
        return [0] * (bins - 1)
    line = sorted(intervals)
    return [line[math.ceil(Fraction(k * len(line), bins)) - 1] for k in range(1, bins)]


def interval_bin(interval: int, edges: Sequence[int]) -> int:
    """b(t) = 1 + (number of edges < t)."""
    return 1 + sum(edge < interval for edge in edges)


def session_numbers(times: Sequence[int], gap: int) -> list[int]:
    """The session of each behaviour, oldest first: 1 is the latest; a new one after > `gap`."""
    numbers = [1] * len(times)
    for k in range(len(times) - 2, -1, -1):
        numbers[k] = numbers[k + 1] + (times[k + 1] - times[k] > gap)
    return numbers


# --- what the description says ------------------------------------------------------------------


def column_of(told: Any) -> Mapping[str, Any]:
    """What is said of a column, where its name alone may stand for it."""
    return {"column": told} if isinstance(told, str) else told


@dataclass
class Events:
    """The events of a table, in the order of their rows.

    Each is a dictionary: `row`, `user`, `time`, and what else the description names, by the
    names it gives.

    Attributes:
        rows: those that count.
        left_out: those that the table's `where` leaves out; of these, user and fields count.
        every: those that count, and those that repeat others.
        refused: the rows that cannot be read.
        no_line: by lookup, the rows whose value has no line where it must have one.
        said: how many are of users that targets have, repeated ones too.
        repeated: how many of them say what an earlier one says.
        both: how many records have both labels.
        cut: how many are outside the core.
    """

    rows: list[Row]
    left_out: list[Row]
    refused: list[int]
    no_line: dict[str, list[int]]
    every: list[Row] = field(default_factory=list)
    said: int = 0
    repeated: int = 0
    both: int = 0
    cut: int = 0


@dataclass
class Target:
    """A target: its event, its split, what stands before it, and what is no negative of it."""

    event: Row
    split: str
    history: dict[str, list[Row]]
    before: dict[str, list[Row]]
    excluded: set[Any] = field(repr=False)


class Oracle:
    """What the data set of a description must hold.

    Attributes:
        targets: those that rows are made of, in the order of their rows.
        vocabulary: field -> value -> id.
        edges: history -> the edges of its bins.
        pool: what negatives are drawn from -> how often each occurs.
        scales: column of numbers -> (mean, standard deviation), of its logarithms or itself.
    """

    def __init__(self, description: Path | Mapping[str, Any], folder: Path) -> None:
        if isinstance(description, Path):
            description = tomllib.loads(description.read_text(encoding="utf-8"))
        self.told: Mapping[str, Any] = description
        self.folder = folder
        self.of_target = description["target"]
        self.name = self.of_target["table"]
        self.drawn = self.of_target.get("negatives")
        of_all = description.get("bins", 10)
        self.bins = {n: h.get("bins", of_all) for n, h in description["histories"].items()}
        self.of_lookups: dict[str, list[Row]] = {}
        self.lines: dict[str, list[tuple[Any, Row]]] = {}
        self.unlike: defaultdict[str, list[tuple[Any, bool]]] = defaultdict(list)
        self.raw = {name: records(table, folder) for name, table in description["tables"].items()}
        self.unit = self._unit()
        self.whole = self._types()
        self.events = {name: self._events(name) for name in self.raw}
        self.lookups = {key: self._lookup(key) for key in description.get("lookups", {})}
        self._refuse()
        self._repeats(self.name)
        self._core()
        for name in self.events:
            if name != self.name:  # of users that targets have by now
                self._repeats(name)
        self.order = {name: self._by_user(name) for name in self.events}
        self._touched: dict[Any, set[Any]] = {}
        self.targets = self._targets()
        self.pool = self._pool()
        self.edges = {name: self._edges(name) for name in description["histories"]}
        self.counts = self._counts()
        self.vocabulary = self._vocabulary()
        self.scales = {name: self._scale(name) for name in self.numbers}

    # The language.

    def _table(self, name: str) -> Mapping[str, Any]:
        table: Mapping[str, Any] = self.told["tables"][name]
        return table

    @property
    def fields(self) -> list[str]:
        """The fields of a target: its own, then those of lookups."""
        own = list(self._table(self.name).get("fields", {}))
        for key in self._keys():
            own += [f for f in self.told["lookups"][key].get("fields", {}) if f not in own]
        return own

    def _keys(self) -> list[str]:
        """The lookups of a target, in the order of its columns, that of its user last."""
        table = self._table(self.name)
        names = [*table.get("fields", {}), *table.get("features", {}), "user"]
        return [key for key in names if key in self.told.get("lookups", {})]

    def _named(self, part: str) -> list[str]:
        """The columns of a target of one kind: `features`, `numbers` or `lists`."""
        table = self._table(self.name)
        found = list(table.get(part, {}))
        for key in self._keys():
            found += [n for n in self.told["lookups"][key].get(part, {}) if n not in found]
        return found

    @property
    def features(self) -> list[str]:
        """The id features of a target."""
        return self._named("features")

    @property
    def numbers(self) -> list[str]:
        """The numbers of a target."""
        return self._named("numbers")

    @property
    def lists(self) -> dict[str, int]:
        """The multi-valued features of a target, with how many values are kept of each."""
        found = {}
        for owner in (self._table(self.name), *(self.told["lookups"][k] for k in self._keys())):
            for name, told in owner.get("lists", {}).items():
                found.setdefault(name, told["max_len"])
        return found

    @property
    def keep(self) -> list[str]:
        """The columns passed through."""
        return list(self._table(self.name).get("keep", ()))

    def carried(self, table: str) -> list[str]:
        """The fields of a table's behaviours: their own, and those that a lookup gives them."""
        own = list(self._table(table).get("fields", {}))
        for key in list(own):
            if key in self.told.get("lookups", {}):
                own += [f for f in self.told["lookups"][key].get("fields", {}) if f not in own]
        return own

    def _unit(self) -> str:
        """The unit of all times: the finest of the tables'."""
        told = [column_of(table["time"]).get("unit", "s") for table in self.told["tables"].values()]
        return max(told, key=lambda unit: PER_SECOND[unit])

    # Reading.

    def _id_columns(self) -> Iterable[tuple[str, str, Any, list[Row]]]:
        """(field, owner, what is said of the column, the records), for each column of ids."""
        for name, table in self.told["tables"].items():
            yield "user", name, table["user"], self.raw[name]
            for part in ("fields", "features", "lists"):
                for one, told in table.get(part, {}).items():
                    yield one, name, told, self.raw[name]
        for key, lookup in self.told.get("lookups", {}).items():
            rows = self._lookup_records(key)
            yield key, key, lookup["key"], rows
            for part in ("fields", "features", "lists"):
                for one, told in lookup.get(part, {}).items():
                    yield one, key, told, rows

    def _lookup_records(self, key: str) -> list[Row]:
        lookup = self.told["lookups"][key]
        if "table" in lookup:
            return self.raw[lookup["table"]]
        if key not in self.of_lookups:
            self.of_lookups[key] = records(lookup, self.folder)
        return self.of_lookups[key]

    def _types(self) -> dict[str, bool]:
        """field -> whether its ids are whole numbers, in all its columns."""
        found: dict[str, bool] = {}
        for name, _, told, rows in list(self._id_columns()):
            column = column_of(told)
            if name in self.told.get("types", {}):
                found[name] = self.told["types"][name] == "whole"
                continue
            cells = evaluated(rows, column["column"])
            values = [v for cell in cells for v in self._several(cell, column)]
            there = [v for v in values if not missing(v)]
            here = all(not isinstance(v, bool) and is_whole(v) for v in there)
            found[name] = found.get(name, True) and here
        return found

    def _several(self, value: Any, told: Mapping[str, Any]) -> list[Any]:
        """The values of a cell: of a list, all that are there."""
        if isinstance(value, list):
            return [v for v in value if not missing(v)]
        if missing(value):
            return []
        if "separator" in told:
            return [v for v in str(value).split(told["separator"]) if v not in NULLS]
        return [value]

    def _id(self, name: str, value: Any) -> Any:
        """A value as its vocabulary has it; None where there is none."""
        if missing(value):
            return None
        if self.whole[name]:
            return whole(value)
        return str(value)

    def _events(self, name: str) -> Events:
        table = self._table(name)
        raw = self.raw[name]
        inside = [True] * len(raw)
        if "where" in table:
            inside = [bool(got) for got in sql(raw, table["where"])]
        columns: dict[str, list[Any]] = {
            "user": evaluated(raw, column_of(table["user"])["column"]),
            "time": evaluated(raw, column_of(table["time"])["column"]),
        }
        for part in ("label", "weight"):
            if part in table:
                columns[part] = evaluated(raw, column_of(table[part])["column"])
        for part in ("fields", "features", "numbers", "lists"):
            for one, told in table.get(part, {}).items():
                columns[one] = evaluated(raw, column_of(told)["column"])
        target = self.of_target
        if name == self.name:
            for one in self.keep:
                columns["keep " + one] = as_sql([row.get(one) for row in raw])
            if target["split"]["by"] == "column":
                columns["split"] = evaluated(raw, target["split"]["column"])
            if "where" in target:
                columns["is_target"] = sql(raw, target["where"])
        for one, history in self.told["histories"].items():
            if history["table"] == name and "where" in history:
                columns["in " + one] = sql(raw, history["where"])
        found = Events([], [], [], {})
        for n in range(len(raw)):
            event = {one: values[n] for one, values in columns.items()}
            event["row"] = n
            try:
                self._typed(event, table, inside[n])
            except (Refused, ValueError):
                if inside[n]:
                    found.refused.append(n)
                continue
            (found.rows if inside[n] else found.left_out).append(event)
        return found

    def _repeats(self, name: str) -> None:
        """Count the events that say what an earlier one says, and leave them out if asked to.

        Of those with both labels the first one with the label 1 stays. Of tables but the targets'
        only users count that targets have.
        """
        table, events = self._table(name), self.events[name]
        by = list(table.get("fields") or table.get("features", {}))
        of_target = {event["user"] for event in self.events[self.name].rows}
        found: defaultdict[Any, list[Row]] = defaultdict(list)
        for event in events.rows:
            if event["user"] in of_target:
                found[event["user"], event["time"], *(event[f] for f in by)].append(event)
        events.every = events.rows
        events.said = sum(map(len, found.values()))
        events.repeated = events.said - len(found)
        events.both = sum(len({e.get("label") for e in same}) > 1 for same in found.values())
        if table.get("duplicates", "keep") == "drop":
            stays = [max(same, key=lambda e: e.get("label", 1)) for same in found.values()]
            stays += [event for event in events.rows if event["user"] not in of_target]
            events.rows = sorted(stays, key=lambda event: event["row"])

    def _typed(self, event: Row, table: Mapping[str, Any], inside: bool) -> None:
        """Give each column of an event its type, in place; of one left out just those that count.

        Raises:
            Refused: it cannot have it.
        """
        if not inside:
            if missing(event["user"]):
                raise Refused("user")
            event["user"] = self._id("user", event["user"])
            for name in table.get("fields", {}):
                event[name] = self._id(name, event[name])
            return
        for name in ("user", "time", *(["label"] if "label" in table else [])):
            if missing(event[name]):
                raise Refused(name)
        event["user"] = self._id("user", event["user"])
        event["time"] = time_of(event["time"], column_of(table["time"]), self.unit)
        if "label" in table:
            event["label"] = whole(event["label"])
            if event["label"] not in (0, 1):
                raise Refused("label")
        if "weight" in table:
            event["weight"] = number(event["weight"])
            if event["weight"] is None or not 0 <= event["weight"] < math.inf:
                raise Refused("weight")
        self._typed_ids(event, table)

    def _typed_ids(self, row: Row, owner: Mapping[str, Any]) -> None:
        for part in ("fields", "features"):
            for name in owner.get(part, {}):
                row[name] = self._id(name, row[name])
        for name in owner.get("numbers", {}):
            row[name] = number(row[name])
        for name, told in owner.get("lists", {}).items():
            values = self._several(row[name], column_of(told))
            row[name] = [self._id(name, value) for value in values][: told["max_len"]]

    def known(self, key: str, value: Any, time: int) -> Row | None:
        """What a lookup says of a value at a time: of lines with times the latest one before it."""
        if "time" not in self.told["lookups"][key]:
            return self.lookups[key].get(value)
        before = [
            (at, row)
            for (other, at), row in self.lookups[key].items()
            if other == value and at * PER_SECOND[self.unit] < time * PER_SECOND["us"]
        ]
        return max(before, key=lambda one: one[0])[1] if before else None

    def _lookup(self, key: str) -> dict[Any, Row]:
        """The rows of a lookup by key; by key and microsecond where lines have times."""
        lookup = self.told["lookups"][key]
        raw = self._lookup_records(key)
        wanted: set[int] | None = None
        if "table" in lookup:
            wanted = {event["row"] for event in self.events[lookup["table"]].rows}
        elif "where" in lookup:
            wanted = {n for n, got in enumerate(sql(raw, lookup["where"])) if got}
        columns = {
            one: evaluated(raw, column_of(told)["column"])
            for part in ("fields", "features", "numbers", "lists")
            for one, told in lookup.get(part, {}).items()
        }
        keys = evaluated(raw, column_of(lookup["key"])["column"])
        times = evaluated(raw, lookup["time"]["column"]) if "time" in lookup else []
        found: dict[Any, Row] = {}
        self.lines[key] = []
        for n, value in enumerate(keys):
            if (wanted is not None and n not in wanted) or missing(value):
                continue
            row = {one: values[n] for one, values in columns.items()}
            try:
                self._typed_ids(row, lookup)
                of = self._id(key, value)
                by = (of, time_of(times[n], lookup["time"], "us")) if times else of
                self.lines[key].append((of, row))
                if found.setdefault(by, row) is not row:
                    self.unlike[key].append((of, row != found[by]))
            except (Refused, ValueError):
                continue
        return found

    # Making.

    def _refuse(self) -> None:
        """Refuse events whose value has no line in a lookup that must have one."""
        events = self.events[self.name]
        for key in self._keys():
            if self.told["lookups"][key].get("missing", "unknown") == "refuse":
                known = [self.known(key, e[key], e["time"]) is not None for e in events.rows]
                both = list(zip(events.rows, known, strict=True))
                events.no_line[key] = [e["row"] for e, there in both if not there]
                events.rows = [e for e, there in both if there]

    def _core(self) -> None:
        """Leave out events of users and items that have too few, until none has."""
        least = self.told.get("filters", {}).get("k_core", 0)
        events, item = self.events[self.name], self._key
        while least:
            users = Counter(event["user"] for event in events.rows)
            items = Counter(event[item] for event in events.rows)
            kept = [
                event
                for event in events.rows
                if users[event["user"]] >= least and items[event[item]] >= least
            ]
            if len(kept) == len(events.rows):
                return
            events.cut += len(events.rows) - len(kept)
            events.rows = kept

    @property
    def _key(self) -> str:
        """The first field of the targets' table: what an item is."""
        return next(iter(self._table(self.name)["fields"]))

    @property
    def item(self) -> str:
        """What negatives are of."""
        fields = list(self._table(self.name)["fields"])
        looked_up = [name for name in fields if name in self.told.get("lookups", {})]
        return str((self.drawn or {}).get("field") or (looked_up or fields)[0])

    def _by_user(self, name: str) -> dict[Any, list[Row]]:
        """The events of each user in their order."""
        how = self._table(name).get("order", "file")
        ranks: dict[str, dict[Any, int]] = {}
        fields = list(self._table(name).get("fields", {}))
        for one in fields:
            values = ordered({e[one] for e in self.events[name].rows} - {None})
            ranks[one] = {value: n + FIRST for n, value in enumerate(values)} | {None: UNKNOWN}

        def key(event: Row) -> tuple[Any, ...]:
            if how == "hash":
                return event["time"], tie(self.seed, event["row"]), event["row"]
            if how == "fields":
                return event["time"], *(ranks[f][event[f]] for f in fields), event["row"]
            return event["time"], event["row"]

        found: defaultdict[Any, list[Row]] = defaultdict(list)
        for event in sorted(self.events[name].rows, key=key):
            event["rank"] = len(found[event["user"]])
            found[event["user"]].append(event)
        return dict(found)

    @property
    def seed(self) -> int:
        """Of the hash and of the draws."""
        return int(self.told.get("seed", 1234))

    def _targets(self) -> list[Target]:
        """Every target with its split and history, in the order of their rows."""
        candidates = {
            user: [e for e in events if self._may_be_target(e, events)]
            for user, events in self.order[self.name].items()
        }
        split = self._split(candidates)
        found = []
        for events in candidates.values():
            for event in events:
                name = split(event)
                if name is None:
                    continue
                before = {h: self._before(event, h) for h in self.told["histories"]}
                history = {
                    h: past[-self.told["histories"][h].get("max_len", 50) :]
                    for h, past in before.items()
                }
                found.append(Target(event, name, history, before, self._excluded(event, history)))
        self.candidates = candidates
        self.splits = sorted(found, key=lambda target: target.event["row"])
        least = self.told.get("filters", {}).get("min_history", 0)
        return [t for t in self.splits if sum(map(len, t.history.values())) >= least]

    def _may_be_target(self, event: Row, events: Sequence[Row]) -> bool:
        if "where" in self.of_target and not event["is_target"]:
            return False
        if self.of_target.get("only_new", False):
            return all(e[self._key] != event[self._key] for e in events[: event["rank"]])
        return True

    def _split(self, candidates: Mapping[Any, Sequence[Row]]) -> Callable[[Row], str | None]:
        rule = self.of_target["split"]
        if rule["by"] == "column":
            return lambda event: event["split"]
        if rule["by"] == "order":
            place: dict[int, str | None] = {}
            for events in candidates.values():
                for n, event in enumerate(events):
                    left = len(events) - n
                    place[event["row"]] = (
                        None
                        if event["rank"] == 0
                        else "test"
                        if left == 1
                        else "valid"
                        if left == 2 and rule.get("valid", True)
                        else "train"
                    )
            return lambda event: place[event["row"]]
        self.cuts = valid, test = self._cuts()
        return lambda event: (
            "test" if event["time"] >= test else "valid" if event["time"] >= valid else "train"
        )

    def _cuts(self) -> tuple[int, int]:
        """When valid and test begin."""
        rule = self.of_target["split"]
        zone = ZoneInfo(rule.get("timezone", "UTC"))
        per = PER_SECOND[self.unit]
        if rule["by"] == "day":
            # Of all that pass `where`, new or not.
            events = (e for of_user in self.order[self.name].values() for e in of_user)
            last = max((e["time"] for e in events if e.get("is_target", True)), default=0)
            day = datetime.fromtimestamp(last // per, zone).date()
            starts = [
                datetime(d.year, d.month, d.day, tzinfo=zone)
                for d in (day - timedelta(days=1), day)
            ]
            valid, test = (int(start.timestamp()) * per for start in starts)
            return valid, test
        told = {"timezone": rule.get("timezone", "UTC")}
        test = self._cut(rule["test"], told)
        return (self._cut(rule["valid"], told) if "valid" in rule else test), test

    def _cut(self, value: Any, told: Mapping[str, Any]) -> int:
        if isinstance(value, int):
            return value
        return time_of(value, told, self.unit)

    def _before(self, event: Row, name: str) -> list[Row]:
        """All behaviours that a history may hold, oldest first."""
        history = self.told["histories"][name]
        events = self.order[history["table"]].get(event["user"], [])
        if "where" in history:
            events = [e for e in events if e["in " + name]]
        if history.get("window", "before") == "order":
            events = [e for e in events if e["rank"] < event["rank"]]
        else:
            events = [e for e in events if e["time"] < event["time"]]
        for e in list(events):
            passed = event["time"] - e["time"]
            too_new = "delay" in history and passed < duration(history["delay"], self.unit)
            too_old = "within" in history and passed > duration(history["within"], self.unit)
            if too_new or too_old:
                events = [other for other in events if other is not e]
        return events

    # Negatives.

    def _excluded(self, event: Row, history: Mapping[str, Sequence[Row]]) -> set[Any]:
        """What is no negative of a target."""
        if self.drawn is None:
            return set()
        how, item, user = self.drawn.get("exclude", "ever"), self.item, event["user"]
        if how == "history":
            stored = {e.get(item) for events in history.values() for e in events}
            return {event[item], *stored}
        if not self._touched:
            events = self.events[self.name]
            for e in events.rows + (events.left_out if how == "unfiltered" else []):
                self._touched.setdefault(e["user"], set()).add(e[item])
        return self._touched[user]

    def _pool(self) -> Counter[Any]:
        """What negatives are drawn from, with how often each occurs in what the pool is of."""
        if self.drawn is None:
            return Counter()
        found: Counter[Any] = Counter()
        seen = self._by_the_end_of_train()
        uniform = self.drawn.get("weight", "uniform") == "uniform"
        every = self.drawn.get("pool", "train") == "all" and uniform  # popular is what train has
        for name, events in self.events.items():
            if self.item in self._table(name).get("fields", {}):
                rows = events.rows if every else self.of_known_users(name)
                found.update(e[self.item] for e in rows if every or seen(name, e))
        del found[None]
        return found

    def _by_the_end_of_train(self) -> Callable[[str, Row], bool]:
        """Whether an event of a table is seen by the end of train.

        By time: what is before valid. By order, where train has no end: all but what is to be
        guessed. By column: what is of train. Of other tables just what is of users whom train has
        seen by then in that of the targets.
        """
        own = self._seen_itself()
        known = {e["user"] for e in self.events[self.name].rows if own(self.name, e)}
        return lambda name, e: own(name, e) and (name == self.name or e["user"] in known)

    def _seen_itself(self) -> Callable[[str, Row], bool]:
        """The same by the event alone."""
        rule = self.of_target["split"]
        if rule["by"] == "order":
            guessed = {t.event["row"] for t in self.targets if t.split != "train"}
            return lambda name, e: name != self.name or e["row"] not in guessed
        if rule["by"] == "column":
            return lambda name, e: name == self.name and e["split"] == "train"
        return lambda name, e: e["time"] < self.cuts[0]

    def of_known_users(self, table: str) -> list[Row]:
        """The events of a table whose user the targets' table has: of others nothing is made."""
        return [e for e in self.events[table].rows if e["user"] in self.order[self.name]]

    def may_be_drawn(self, target: Target) -> set[Any]:
        """What may be a negative of a target."""
        return self.pool.keys() - target.excluded

    @cached_property
    def rows_of(self) -> list[Target]:
        """The targets that rows are made of: with negatives, where there is one to draw."""
        if self.drawn is None:
            return self.targets
        return [t for t in self.targets if any(v not in t.excluded for v in self.pool)]

    @property
    def wrong(self) -> list[str]:
        """Why no data set can be made of it."""
        rule, rows = self.of_target["split"], self.rows_of
        with_valid = rule.get("valid", rule["by"] in ("order", "day")) is not False
        if rule["by"] == "column":
            with_valid = any(e["split"] == "valid" for e in self.events[self.name].rows)
        splits = {target.split for target in rows}
        needed = [name for name in SPLITS if name != "valid" or with_valid]
        found = [f"{name} is empty" for name in needed if name not in splits]
        labels = {target.event.get("label") for target in rows}
        if len(labels - {None}) == 1:
            found.append("the label is constant")
        names = self.told["histories"]
        return found + [f"{h} is empty" for h in names if not any(t.history[h] for t in rows)]

    # What is fitted.

    @cached_property
    def train(self) -> list[Target]:
        """The targets of train."""
        return [target for target in self.rows_of if target.split == "train"]

    def _edges(self, name: str) -> list[int]:
        intervals = [
            target.event["time"] - e["time"] for target in self.train for e in target.history[name]
        ]
        return quantile_edges(intervals, self.bins[name])

    def values(self, target: Target, drawn: Any = None) -> Row:
        """What a row has, in values: its fields, features, numbers and lists.

        Args:
            target: the positive.
            drawn: what takes the place of the field that negatives are of.
        """
        table, event = self._table(self.name), target.event
        own = list(table.get("fields", {}))
        row: Row = {"user": event["user"]}
        row |= {name: event[name] for name in own}
        if drawn is not None:
            row |= dict.fromkeys(own)
            row[self.item] = drawn
        for part in ("features", "numbers", "lists"):
            row |= {name: event[name] for name in table.get(part, {})}
        for key in self._keys():
            lookup = self.told["lookups"][key]
            known = self.known(key, row[key], event["time"])
            for part in ("fields", "features", "numbers", "lists"):
                for name in lookup.get(part, {}):
                    if name in table.get(part, {}) and not (drawn is not None and part == "fields"):
                        continue  # the event's own column wins
                    empty = [] if part == "lists" else None
                    row[name] = known[name] if known is not None else empty
        return row

    def behaviour(self, event: Row, table: str) -> Row:
        """The fields of a behaviour, in values."""
        own = list(self._table(table).get("fields", {}))
        row = {name: event[name] for name in own}
        for key in own:
            lookup = self.told.get("lookups", {}).get(key)
            if lookup is None:
                continue
            known = self.known(key, row[key], event["time"])
            for name in lookup.get("fields", {}):
                if name not in own:
                    row[name] = known[name] if known is not None else None
        return row

    def encoded(self, name: str, value: Any) -> int:
        """The id of a value."""
        return UNKNOWN if value is None else self.vocabulary[name].get(value, UNKNOWN)

    def columns(self, target: Target, drawn: Any = None) -> Row:
        """Every column of a row, lists without padding."""
        event, values = target.event, self.values(target, drawn)
        row: Row = {
            "row": event["row"],
            "user": self.encoded("user", event["user"]),
            "target_time": event["time"],
            "label": event.get("label", 1) if drawn is None else 0,
        }
        row |= {f"target_{name}": self.encoded(name, values[name]) for name in self.fields}
        row |= {name: self.encoded(name, values[name]) for name in self.features}
        row |= {name: self.scaled(name, values[name]) for name in self.numbers}
        for name in self.lists:
            row[name] = [self.encoded(name, value) for value in values[name]]
            row[f"{name}_length"] = len(row[name])
        if "weight" in event:
            row["weight"] = event["weight"]
        row |= {name: event["keep " + name] for name in self.keep}
        for name, told in self.told["histories"].items():
            row |= self._history(target, name, told)
        return row

    def _history(self, target: Target, name: str, told: Mapping[str, Any]) -> Row:
        events = target.history[name]
        behaviours = [self.behaviour(e, told["table"]) for e in events]
        times = [e["time"] for e in events]
        intervals = [target.event["time"] - time for time in times]
        row: Row = {
            f"{name}_{one}": [self.encoded(one, b[one]) for b in behaviours]
            for one in self.carried(told["table"])
        }
        gap = duration(told.get("session_gap", "30m"), self.unit)
        return row | {
            f"{name}_length": len(events),
            f"{name}_position": [len(events) - k for k in range(len(events))],
            f"{name}_interval_bin": [interval_bin(t, self.edges[name]) for t in intervals],
            f"{name}_time": times,
            f"{name}_session": session_numbers(times, gap),
            **self._sessions(target, name, told, gap),
        }

    def _sessions(self, target: Target, name: str, told: Mapping[str, Any], gap: int) -> Row:
        """The columns of the latest sessions of all that stands before the target, latest first."""
        if "sessions" not in told:
            return {}
        most, length = told["sessions"]
        events = target.before[name]
        of = session_numbers([e["time"] for e in events], gap)
        runs = [[e for e, n in zip(events, of, strict=True) if n == k] for k in sorted(set(of))]
        runs = [run[-length:] for run in runs if len(run) > 2][:most]
        prefix = session_prefix(name)
        behaviours = [self.behaviour(e, told["table"]) for run in runs for e in run]
        return {f"{prefix}_length": [len(run) for run in runs]} | {
            f"{prefix}_{one}": [self.encoded(one, b[one]) for b in behaviours]
            for one in self.carried(told["table"])
        }

    def scaled(self, name: str, value: float | None) -> float:
        """A number as its column has it: of no value, the mean, 0."""
        how = self._scale_of(name)
        if how == "none":
            return 0.0 if value is None else value
        if value is None or (how == "log" and value <= 0):
            return 0.0
        mean, deviation = self.scales[name]
        return ((math.log(value) if how == "log" else value) - mean) / (deviation or 1.0)

    def _scale_of(self, name: str) -> str:
        owners = [self._table(self.name), *(self.told["lookups"][k] for k in self._keys())]
        told = next(o["numbers"][name] for o in owners if name in o.get("numbers", {}))
        return str(column_of(told).get("scale", "standard"))

    def _scale(self, name: str) -> tuple[float, float]:
        """Mean and standard deviation over the positives of train."""
        how = self._scale_of(name)
        values = [v for t in self.train if (v := self.values(t)[name]) is not None]
        if how == "log":
            values = [math.log(v) for v in values if v > 0]
        if not values:
            return 0.0, 1.0
        mean = math.fsum(values) / len(values)
        return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values))

    def _holds(self, pool: str) -> Callable[[str, str], list[Row]]:
        """Of a column and a table the events that count, once each.

        With `from = "all"` all do, else those that a row of train holds, or may as a negative:
        its targets, what is stored in their histories, and what negatives are drawn from, which
        are of `train` or `all`.
        """
        if self.told.get("vocabulary", {}).get("from", "train") == "all":
            return lambda name, table: self._all(table)
        held: dict[str, set[int]] = {table: set() for table in self.events}
        held[self.name] |= {target.event["row"] for target in self.train}
        for target in self.train:
            for one, events in target.history.items():
                held[self.told["histories"][one]["table"]] |= {e["row"] for e in events}
        targets = {target.event["row"] for target in self.train}
        seen = self._by_the_end_of_train() if self.drawn is not None else None

        def of(name: str, table: str) -> list[Row]:
            rows, own = self.of_known_users(table), self._table(table).get("fields", {})
            if name not in own:
                return [e for e in rows if table == self.name and e["row"] in targets]
            drawn = seen if seen is not None and name == self.item else None
            if drawn is not None and pool == "all":
                return self._all(table)
            return [e for e in rows if e["row"] in held[table] or (drawn and drawn(table, e))]

        return of

    def _all(self, table: str) -> list[Row]:
        """All events of a table that count in a vocabulary of all; of others repeated ones do."""
        events = self.events[table]
        return events.rows if table == self.name else events.every

    def _said(self, key: str, name: str) -> bool:
        """Whether all events that have a lookup's key say themselves what it gives."""
        naming = [table for table in self.events if key in self._ids_of(table)]
        lists = {table: self._table(table).get("lists", {}) for table in naming}
        return bool(naming) and all(name in {**self._ids_of(t), **lists[t]} for t in naming)

    def _counts(self) -> dict[str, Counter[Any]]:
        """Field -> value -> how often events have it.

        What is looked up counts as often as events name the key; where they say it themselves,
        that is what counts, and only what negatives alone can have is looked up.
        """
        found: defaultdict[str, Counter[Any]] = defaultdict(Counter)
        pool = (self.drawn or {}).get("pool", "train")
        holds = self._holds(pool)
        for name in self.events:
            table = self._table(name)
            for part in ("fields", "features", "lists"):
                for one in table.get(part, {}):
                    for event in holds(one, name):
                        found[one].update(event[one] if part == "lists" else [event[one]])
        users = Counter(event["user"] for event in self.events[self.name].rows)
        of_users = Counter(event["user"] for event in holds("user", self.name))
        for key, lookup in self.told.get("lookups", {}).items():
            times = of_users if key == "user" else found[key]
            for part in ("fields", "features", "lists"):
                for one in lookup.get(part, {}):
                    own = {*found[one]} if self._said(key, one) else set()
                    found[one].update([])  # though nothing may be there
                    if "time" in lookup:
                        more = self._counts_at(key, one, part == "lists", times)
                        found[one].update({v: n for v, n in more.items() if v not in own})
                        continue
                    for value, row in self.lookups[key].items():
                        for of in row[one] if part == "lists" else [row[one]]:
                            found[one][of] += times[value] if of not in own else 0
        for counts in found.values():
            counts.pop(None, None)
        return {"user": users, **{name: +counts for name, counts in found.items()}}

    def _counts_at(self, key: str, one: str, several: bool, times: Counter[Any]) -> Counter[Any]:
        """Value -> how often a lookup whose lines have times gives it to events.

        With `from = "all"` each value that some line says of a key counts as often as events name
        the key. Else each event that counts has what is known at its time; and what a negative of
        train may have, as its line is before train's last target, counts once at the least.
        """
        lines = self.lookups[key]

        def said(row: Row) -> list[Any]:
            return row[one] if several else [row[one]]

        found: Counter[Any] = Counter()
        if self.told.get("vocabulary", {}).get("from", "train") == "all":
            pairs = {(value, of) for (value, _), row in lines.items() for of in said(row)}
            for value, of in pairs:
                found[of] += times[value]
            return found
        by_line: Counter[int] = Counter()
        holds = self._holds("train")
        naming = [name for name in self.events if key in self._ids_of(name)]
        for name in [self.name] if key == "user" else naming:
            for event in holds(key, name):
                by_line[id(self.known(key, event[key], event["time"]))] += 1
        last = max((target.event["time"] for target in self.train), default=0)
        for (value, at), row in lines.items():
            may = self.drawn is not None and key == self.item and times[value] > 0
            may = may and at * PER_SECOND[self.unit] // PER_SECOND["us"] < last
            for of in said(row):
                found[of] += max(by_line[id(row)], int(may))
        return found

    def _vocabulary(self) -> dict[str, dict[Any, int]]:
        """Field -> value -> id."""
        told = self.told.get("vocabulary", {})
        least = told.get("min_count", 1)
        found = {}
        for name, counts in self.counts.items():
            values = {v for v, times in counts.items() if name == "user" or times >= least}
            found[name] = {value: n + FIRST for n, value in enumerate(ordered(values))}
        return found

    # What is told of it.

    def shares(self, rows: Sequence[Row]) -> dict[str, tuple[int, int]]:
        """What the manifest tells as a part of a whole, by its name there.

        Args:
            rows: those that were made, where what was drawn counts; they are held to `columns`.
        """
        name, events = self.name, self.events[self.name]
        found = self._of_events() | self._of_lookups() | self._of_made(rows)
        if self.before:
            none = sum(not any(t.history.values()) for t in self.rows_of)
            found[self.before] = none, len(self.rows_of)
        filters = self.told.get("filters", {})
        if filters.get("k_core", 0):
            found[f"{name} outside the k-core"] = events.cut, len(events.rows) + events.cut
        if least := filters.get("min_history", 0):
            short = len(self.splits) - len(self.targets)
            what = f"{name} with fewer than {least} behaviours before them"
            found[what] = short, len(self.splits)
        if self.of_target.get("only_new", False):
            may = [e for e in events.rows if e.get("is_target", True)]
            new = sum(map(len, self.candidates.values()))
            found[f"{name} of what the user had touched before"] = len(may) - new, len(may)
        return found

    @property
    def before(self) -> str:
        """What targets with nothing before them are called; nothing where there always is some."""
        told = self.told["histories"].values()
        names = [
            one["table"]
            for one in told
            if one.get("window", "before") == "before" or one.keys() & {"within", "delay"}
        ]
        if names and {*names} == {self.name}:
            return f"targets of {self.name} with nothing in any history"
        of = " or ".join("earlier " * (one == self.name) + one for one in dict.fromkeys(names))
        return f"{self.name} without {of}" if of else ""

    def _of_events(self) -> dict[str, tuple[int, int]]:
        """Of what is read: repeats, users that targets lack, numbers and lists without a value."""
        found: dict[str, tuple[int, int]] = {}
        for name, events in self.events.items():
            dropped = self._table(name).get("duplicates", "keep") == "drop"
            found[f"repeated {name}{', dropped' * dropped}"] = events.repeated, events.said
            if name != self.name:
                of_nobody = len(events.every) - events.said
                what = f"{name} of users without {self.name}"
                found[what] = of_nobody, len(events.every)
        name, table, events = self.name, self._table(self.name), self.events[self.name]
        if "label" in table:
            records = events.said - events.repeated
            found[f"{name} both clicked and not"] = events.both, records
        for one in table.get("numbers", {}):
            values = [event[one] for event in events.rows]
            found[f"{name} without a {one}"] = values.count(None), len(values)
            found |= self._out_of_scale(name, one, values)
        for one in table.get("lists", {}):
            none = sum(not event[one] for event in events.rows)
            found[f"{name} without a {one}"] = none, len(events.rows)
        return found

    def _out_of_scale(
        self, what: str, name: str, values: Sequence[float | None]
    ) -> dict[str, tuple[int, int]]:
        how = self._scale_of(name)
        if how == "standard":
            return {}
        if how == "log":
            low = sum(value is not None and value <= 0 for value in values)
            return {f"{what} with a {name} of 0 or less": (low, len(values))}
        return {f"{what} with a {name} that 32 bits cannot hold": (0, len(values))}

    def _of_lookups(self) -> dict[str, tuple[int, int]]:
        """Of lookups: values without a line, lines without a value, lines that say two things."""
        found: dict[str, tuple[int, int]] = {}
        for key, lookup in self.told.get("lookups", {}).items():
            refuses = lookup.get("missing", "unknown") == "refuse"
            timed, words = "time" in lookup, self.vocabulary[key]
            first = self.lookups[key].items()
            there = [row for by, row in first if (by[0] if timed else by) in words]
            values, of = f"{key} values", len(words)
            if timed:
                values, of = f"lines of lookups.{key}", len(there)
            if refuses:
                lost, said = len(self.events[self.name].no_line[key]), self.events[self.name].said
                without = lost, lost + said
            else:
                without = len(words) - len(there), len(words)
            if timed and not refuses:
                rows = [target.event for target in self.rows_of]
                none = [e for e in rows if self.known(key, e[key], e["time"]) is None]
                without = len(none), len(rows)
            what = f"{key} values that are not in"
            if timed and key in self._keys():
                what = f"{self.name} without an earlier line in"
            found[f"{what} lookups.{key}"] = without
            for part in ("fields", "numbers", "lists"):
                for one in lookup.get(part, {}):
                    none = sum(row[one] is None or row[one] == [] for row in there)
                    found[f"{values} without a {one}"] = none, of
                    if part == "numbers":
                        numbers = [row[one] for row in there]
                        found |= self._out_of_scale(f"lines of lookups.{key}", one, numbers)
            named = self._named_by_events(key)
            every = [one for one in self.lines[key] if refuses or one[0] in named]
            others = [unlike for one, unlike in self.unlike[key] if refuses or one in named]
            if any(others):
                by = key + " and time" * timed
                what = f"lines of lookups.{key} that differ from the first one of their {by}"
                found[what] = sum(others), len(every)
        return found

    def _named_by_events(self, key: str) -> set[Any]:
        """The values of a lookup's key that events have."""
        if key == "user":
            return {event["user"] for event in self.events[self.name].rows}
        tables = [name for name in self.events if key in {**self._ids_of(name)}]
        return {event[key] for name in tables for event in self._all(name)} - {None}

    def _ids_of(self, name: str) -> Row:
        table = self._table(name)
        return {**table.get("fields", {}), **table.get("features", {})}

    def _of_made(self, rows: Sequence[Row]) -> dict[str, tuple[int, int]]:
        """Of rows: targets in their own history, ids that train lacks, and unknown ones."""
        found: dict[str, tuple[int, int]] = {}
        fields = [f"target_{one}" for one in self.fields]
        whole = {
            h: [f"{h}_{one}" for one in self.fields]
            for h, told in self.told["histories"].items()
            if {*self.fields} <= {*self.carried(told["table"])}
        }
        held: dict[str, set[int]] = {one: set() for one in self.fields}
        for row in rows:
            if row["split"] == "train":
                for one in self.fields:
                    held[one] |= {row[f"target_{one}"]}
                    for h, told in self.told["histories"].items():
                        if one in self.carried(told["table"]):
                            held[one] |= {*row[f"{h}_{one}"]}
        for split in SPLITS:
            of = [row for row in rows if row["split"] == split]
            for label, what in enumerate(("negatives", "positives")):
                some = [row for row in of if row["label"] == label]
                again = sum(
                    row[fields[0]] != UNKNOWN
                    and any(
                        tuple(row[one] for one in fields)
                        in zip(*(row[c] for c in columns), strict=True)
                        for columns in whole.values()
                    )
                    for row in some
                )
                found[f"{split} {what} in own history"] = again, len(some)
            for one in self.fields if split != "train" else ():
                ids = {row[f"target_{one}"] for row in of} - {UNKNOWN}
                found[f"{split} {one} ids not in train"] = len(ids - held[one]), len(ids)
            if self.told.get("vocabulary", {}).get("from", "train") == "train":
                own = [row for row in of if self.drawn is None or row["label"]]
                for one in (*self.fields, *self.features):
                    ids = [row[f"target_{one}" if one in self.fields else one] for row in own]
                    found[f"{split} targets of unknown {one}"] = ids.count(UNKNOWN), len(ids)
                for h, told in self.told["histories"].items():
                    for one in self.carried(told["table"]):
                        ids = [x for row in own for x in row[f"{h}_{one}"]]
                        what = f"{split} {h} behaviours of unknown {one}"
                        found[what] = ids.count(UNKNOWN), len(ids)
        return found

    def tallies(self) -> dict[str, int]:
        """What the manifest tells as counts, by its name there."""
        name, found = self.name, {}
        for one, events in self.events.items():
            found[f"{one} read"] = len(self.raw[one])
            lost = len(events.refused) + sum(map(len, events.no_line.values()))
            left_out = len(self.raw[one]) - lost - len(events.every)
            if one != name:
                found[f"{one} kept"] = events.said
                found[f"{one} of users without {name}"] = len(events.every) - events.said
            if one != name or left_out:
                found[f"{one} left out by where"] = left_out
        if self.before:
            found[self.before] = sum(not any(t.history.values()) for t in self.rows_of)
        return found

    def refused(self) -> dict[str, int]:
        """By file of `rejected`, how many records are in it."""
        found = {
            name: len(events.refused) + sum(map(len, events.no_line.values()))
            for name, events in self.events.items()
        }
        return found | {"targets": len(self.targets) - len(self.rows_of)}

    def bin_counts(self, name: str) -> list[int]:
        """How many behaviours stored in rows of train fall in each bin of a history."""
        of_train = [
            interval_bin(target.event["time"] - e["time"], self.edges[name])
            for target in self.train
            for e in target.history[name]
        ]
        each = 1 + (self.drawn.get("per_positive", 1) if self.drawn is not None else 0)
        return [each * of_train.count(k + 1) for k in range(self.bins[name])]


def duration(told: str | int, unit: str) -> int:
    """A span such as `1d`, `30m` or a whole number of seconds, in a unit."""
    seconds = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
    if isinstance(told, int):
        return told * PER_SECOND[unit]
    return int(told[:-1]) * seconds[told[-1]] * PER_SECOND[unit]


# --- what was made ------------------------------------------------------------------------------


def made_rows(out: Path) -> list[Row]:
    """Every row of a data set, with its split; lists without padding."""
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    found = []
    for shard in manifest["shards"]:
        table = pq.read_table(out / shard["path"], partitioning=None)
        fixed = [f.name for f in table.schema if pa.types.is_fixed_size_list(f.type)]
        of = {name: history_of(name, manifest) for name in table.column_names}
        for row in table.to_pylist():
            lengths = {name: row[name] for name in row if name.endswith("_length")}
            for name in fixed:
                cells = row[name]
                history, part = of[name]
                if part == "session":
                    told = manifest["histories"][history]["sessions"]
                    lengths_of = lengths[f"{session_prefix(history)}_length"]
                    row[name] = []
                    for k, length in enumerate(lengths_of):
                        run = [length] if name.endswith("_length") else cells[k * told[1] :]
                        size = bool(length) if name.endswith("_length") else length
                        row[name] += run[:size]
                    assert sum(map(bool, cells)) == sum(map(bool, row[name])), (name, row)
                else:
                    length = lengths[f"{history or name}_length"]
                    assert not any(cells[length:]), (name, row)
                    row[name] = cells[:length]
            row["split"] = shard["path"].split("/")[0]
            found.append(row)
    return found


def session_prefix(history: str) -> str:
    """What the names of the columns of a history's sessions begin with."""
    return "session" if history == "history" else f"{history}_session"


def history_of(column: str, manifest: Mapping[str, Any]) -> tuple[str, str]:
    """The history that a column is of, and which of its parts; nothing where it is of none."""
    for name, told in manifest["histories"].items():
        prefix = session_prefix(name)
        if told["sessions"] and column in (f"{prefix}_{f}" for f in (*told["fields"], "length")):
            return name, "session"
        parts = (*told["fields"], "length", "position", "interval_bin", "time", "session")
        if column in (f"{name}_{part}" for part in parts):
            return name, "history"
    return "", ""


def made_vocabulary(out: Path, name: str) -> list[Row]:
    """The rows of a vocabulary."""
    found: list[Row] = pq.read_table(out / "vocabulary" / f"{name}.parquet").to_pylist()
    return found


def differences(oracle: Oracle, out: Path) -> list[str]:
    """What of a data set is not as the oracle says, a line each."""
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    found: list[str] = []
    for name, words in oracle.vocabulary.items():
        made = {row["value"]: row["id"] for row in made_vocabulary(out, name)}
        if made != words:
            found.append(f"vocabulary {name}: {made} for {words}")
            continue
        counted = {row["value"]: row["count"] for row in made_vocabulary(out, name)}
        counts = {value: oracle.counts[name][value] for value in words}
        if counted != counts:
            found.append(f"counts {name}: {counted} for {counts}")
    extra = set(manifest["vocabulary"]) - set(oracle.vocabulary)
    found += [f"vocabulary {name}: is there" for name in extra]
    for name, edges in oracle.edges.items():
        bins = manifest["histories"][name]["bins"]
        if bins["edges_s"] != edges:
            found.append(f"edges {name}: {bins['edges_s']} for {edges}")
        if bins["train_counts"] != oracle.bin_counts(name):
            found.append(f"bins {name}: {bins['train_counts']} for {oracle.bin_counts(name)}")
    rows_made = made_rows(out)
    found += other_rows(oracle, rows_made)
    told = {name: (one["count"], one["of"]) for name, one in manifest["shares"].items()}
    found += unequal("share", told, oracle.shares(rows_made))
    found += unequal("count", manifest["counts"], oracle.tallies())
    refused = {
        path.stem: pq.read_metadata(path).num_rows for path in (out / "rejected").glob("*.parquet")
    }
    return found + unequal("refused", refused, {k: n for k, n in oracle.refused().items() if n})


def other_rows(oracle: Oracle, rows_made: Sequence[Row]) -> list[str]:
    """What of the rows that were made is not as the oracle says, a line each."""
    words = {name: {i: v for v, i in ids.items()} for name, ids in oracle.vocabulary.items()}
    made: defaultdict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in rows_made:
        made[row["split"], row["row"]].append(row)
    each = oracle.drawn.get("per_positive", 1) if oracle.drawn is not None else 0
    wanted_rows = {}
    for target in oracle.rows_of:
        wanted_rows[target.split, target.event["row"]] = target
    other = sorted(set(made) ^ set(wanted_rows))
    found = [f"{key}: {'is there' if key in made else 'is missing'}" for key in other]
    for key in sorted(set(made) & set(wanted_rows)):
        target, rows = wanted_rows[key], made[key]
        if len(rows) != 1 + each:
            found.append(f"{key}: {len(rows)} rows")
        for n, row in enumerate(rows):
            may: list[Any] = [None]
            if n:
                drawn = words[oracle.item].get(row[f"target_{oracle.item}"])
                # What has no id may be any of those that are too rare for one.
                known = oracle.vocabulary[oracle.item]
                may = [
                    v for v in oracle.may_be_drawn(target) if drawn == (v if v in known else None)
                ]
                if not may:
                    found.append(f"{key}: drew {drawn!r}")
                    continue
            wrong = [differing(f"{key} {n}", oracle.columns(target, one), row) for one in may]
            found += min(wrong, key=len)
    return found


def unequal(what: str, made: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Under which names something is another than it should be."""
    names = [name for name in {**made, **wanted} if made.get(name) != wanted.get(name)]
    return [f"{what} {name}: {made.get(name)} for {wanted.get(name)}" for name in names]


def differing(where: str, wanted: Row, row: Row) -> list[str]:
    """The columns in which a row is another than it should be."""
    found = [f"{where} {name}: only one has it" for name in set(row) ^ {*wanted, "split"}]
    for name in set(row) & set(wanted):
        ours, theirs = wanted[name], row[name]
        if isinstance(ours, float) and theirs is not None:
            if not math.isclose(ours, theirs, rel_tol=1e-5, abs_tol=1e-6):
                found.append(f"{where} {name}: {theirs} for {ours}")
        elif ours != theirs:
            found.append(f"{where} {name}: {theirs} for {ours}")
    return found
