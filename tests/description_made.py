"""Descriptions with made-up logs, and the files that they are of, in every format and packing."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from tests.conftest import zstd

DAY = 86_400
BEGIN = 18_519 * DAY  # 2020-09-14 00:00 UTC
PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000}
NULLS = ("", "NULL", "nan", "\\N", "N/A")

Row = dict[str, Any]


def toml(told: Mapping[str, Any], at: str = "") -> str:
    """A description as TOML."""
    plain, tables = [], []
    for name, value in told.items():
        key = f"{at}.{name}" if at else name
        if isinstance(value, Mapping) and (not at or at in _OF_TABLES):
            tables.append(f"\n[{key}]\n" * bool(at or name in _PLAIN) + toml(value, key))
        else:
            plain.append(f"{name} = {inline(value)}\n")
    return "".join(plain + tables)


_OF_TABLES = ("connections", "tables", "lookups", "histories")
_PLAIN = ("target", "vocabulary", "filters", "train", "types", "parameters")


def inline(value: Any) -> str:
    """A value as TOML has it."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{k} = {inline(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(inline, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


@dataclass
class Log:
    """The records of a table or lookup, and how they are written.

    Attributes:
        columns: their names, in order.
        rows: the records; None is no value, a list several.
        format: csv, tsv, jsonl or parquet.
        packing: "", gz or zst.
        parts: how many files they are in.
        header: whether a CSV file has one.
        odd: numbers that choose among spellings of nothing and of whole numbers.
        separator: between the values of a list, in CSV.
    """

    columns: Sequence[str]
    rows: list[Row]
    format: str = "csv"
    packing: str = ""
    parts: int = 1
    header: bool = True
    odd: Sequence[int] = (0,)
    separator: str = "|"

    def write(self, folder: Path, name: str) -> Any:
        """Write the files; what `files` is to say of them."""
        size = -(-len(self.rows) // self.parts) or 1
        names = []
        for n in range(self.parts):
            rows = self.rows[n * size : (n + 1) * size]
            file = f"{name}-{n}.{self.format}" if self.parts > 1 else f"{name}.{self.format}"
            data = self._data(rows)
            if self.format != "parquet" and self.packing:
                file += f".{self.packing}"
                data = gzip.compress(data) if self.packing == "gz" else zstd(data)
            (folder / file).write_bytes(data)
            names.append(file)
        if self.parts == 1:
            return names[0]
        return f"{name}-*" if self.odd[0] % 2 else names

    def told(self) -> Row:
        """What the description has to say of the format."""
        if self.header or self.format not in ("csv", "tsv"):
            return {}
        return {"csv": {"columns": list(self.columns)}}

    def _data(self, rows: list[Row]) -> bytes:
        if self.format == "jsonl":
            some = [  # the first one has every key
                {k: v for k, v in row.items() if v is not None or self.odd[0] % 3 or not n}
                for n, row in enumerate(rows)
            ]
            lines = [json.dumps(row, ensure_ascii=bool(self.odd[0] % 2)) + "\n" for row in some]
            return "".join(lines).encode()
        if self.format == "parquet":
            fields = [pa.field(name, self._type(name)) for name in self.columns]
            table = pa.Table.from_pylist(rows, pa.schema(fields))
            sink = io.BytesIO()
            pq.write_table(table, sink, row_group_size=3 + self.odd[0] % 5)
            return sink.getvalue()
        text = io.StringIO()
        ending = "\r\n" if self.odd[0] % 5 == 1 else "\n"
        quoting = csv.QUOTE_ALL if self.odd[0] % 7 == 1 else csv.QUOTE_MINIMAL
        delimiter = "\t" if self.format == "tsv" else ","
        writer = csv.writer(text, delimiter=delimiter, lineterminator=ending, quoting=quoting)
        if self.header:
            writer.writerow(self.columns)
        for n, row in enumerate(rows):
            writer.writerow([self._cell(row.get(name), n) for name in self.columns])
        return text.getvalue().encode()

    def _cell(self, value: Any, n: int) -> Any:
        odd = self.odd[n % len(self.odd)]
        if value is None:
            return NULLS[odd % len(NULLS)]
        if isinstance(value, list):
            return self.separator.join(map(str, value))
        if isinstance(value, int) and odd % 11 == 1:
            return f"{value}.0"
        return value

    def _type(self, name: str) -> pa.DataType:
        values = [row[name] for row in self.rows if row.get(name) is not None]
        if any(isinstance(v, list) for v in values):
            inner = [x for v in values for x in v]
            whole = bool(inner) and all(isinstance(x, int) for x in inner)
            return pa.list_(pa.int64() if whole else pa.string())
        if any(isinstance(v, str) for v in values):
            return (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string()))[
                self.odd[0] % 3
            ]
        if any(isinstance(v, float) for v in values):
            return pa.float64()
        return pa.int64()


@dataclass
class Made:
    """A description, and the logs that it is of, by the table's or lookup's name."""

    description: Row
    logs: dict[str, Log] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        """Write the files and the description of them; where that is."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, log in self.logs.items():
            kind, _, one = name.partition(".")
            owner = self.description[kind][one]
            owner["files"] = log.write(folder, f"{kind}_{one}")
            owner |= log.told()
        path = folder / "made.toml"
        path.write_text(toml(self.description), encoding="utf-8")
        return path

    def __repr__(self) -> str:
        logs = "\n".join(f"{name}: {log}" for name, log in self.logs.items())
        return f"{toml(self.description)}\n{logs}"


def logs_as(
    draw: Callable[[Any], Any], columns: Sequence[str], rows: list[Row], most: int = 3
) -> Log:
    """Records in a format, a packing and a number of files."""
    return Log(
        columns,
        rows,
        draw(st.sampled_from(["csv", "csv", "tsv", "jsonl", "parquet"])),
        draw(st.sampled_from(["", "", "gz", "zst"])),
        draw(st.sampled_from([1, 1, 2, 3][: most + 1])),
        draw(st.booleans()),
        draw(st.lists(st.integers(0, 1_000), min_size=1, max_size=7)),
    )


# A user's events at one of few moments: ties are the normal case.
_EVENTS = st.lists(
    st.tuples(
        st.integers(0, 4),  # user
        st.integers(0, 9),  # item
        st.sampled_from(["pv", "pv", "buy", "cart"]),
        st.integers(0, 3),  # day
        st.sampled_from([0, 1, 43_200, 43_201, 86_399]),  # second
        st.sampled_from([0, 0, 0, 1]),  # of the unit
        st.integers(0, 11),  # of what else there is
        st.integers(0, 40),  # which value is missing, if any
    ),
    max_size=40,
)
_SINCE = st.lists(
    st.tuples(
        st.integers(-1, 3),  # day
        st.sampled_from([0, 1, 3_600, 7_200, 43_200, 86_399]),  # second
        st.sampled_from([0, 0, 1, -1]),  # of the unit
    ),
    max_size=4,
)
# Two users who make sure that each split has rows, and each item of theirs two events.
_SURE = [
    (user, item, kind, day, second, 0, user + day, 0)
    for user in (8, 9)
    for day in range(4)
    for item, kind, second in ((10, "pv", 3_600), (11 + day, "buy", 7_200))
]


@st.composite
def descriptions(draw: Callable[[Any], Any], **fixed: Any) -> Made:
    """Any description of one to three histories that can be made, with its logs.

    Args:
        draw: of Hypothesis.
        fixed: choices that are made already, by name.
    """

    def one_of(name: str, *choices: Any) -> Any:
        return fixed[name] if name in fixed else draw(st.sampled_from(choices))

    unit = one_of("unit", "s", "s", "ms", "us")
    texts = {name: one_of(f"text_{name}", True, False) for name in ("user", "item", "category")}
    times = one_of("times", "unit", "unit", "unit", "iso") if unit == "s" else "unit"
    labels = one_of("labels", False, False, True)
    events = [*_SURE, *draw(_EVENTS)]
    # The order of the lines is any.
    shuffled = draw(st.permutations(range(len(events)))) if len(events) < 60 else None
    events = [events[n] for n in shuffled] if shuffled is not None else events

    def moment(day: int, second: int, more: int) -> Any:
        time = (BEGIN + day * DAY + second) * PER_SECOND[unit] + more * (unit != "s")
        if times == "iso":
            return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%dT%H:%M:%S}"
        return time

    def named(name: str, value: int) -> Any:
        return f"{name[0]}{'é' * (value % 3 == 0)}{value}" if texts.get(name) else 3 * value + 7

    own_category = one_of("own_category", True, False)
    lookup = one_of("lookup", "none", "file", "file", "table")
    if lookup == "none":
        own_category = own_category and labels
    # Some events happen again, just so or with something else about them.
    for n, other in draw(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 11)), max_size=5)):
        events.append((*events[n % len(events)][:6], other, 0))
    rows = []
    for u, i, kind, day, second, more, other, lacks in events:
        rows.append(
            {
                "uid": named("user", u) if lacks != 1 else None,
                "what": named("item", i),
                "cat": None if other == 7 else named("category", (i + (other == 3)) % 4),
                "kind": kind,
                "ts": moment(day, second, more) if lacks != 2 else None,
                "stars": other % 5 + 0.5 if lacks != 3 else None,
                "device": None if other == 5 else f"d{other % 3}",
                "price": None if other == 4 else float(other) * 1.5 - 1.5 * (other == 11),
                "tags": [f"t{x}" for x in range(other % 4)] or None,
                "clicked": int(other % 2),
                "loss": other / 4,
                "request": f"r{u}-{other}",
                "part": ("train", "train", "valid", "test")[day],
            }
        )
    columns = list(rows[0])
    log = logs_as(draw, columns, rows)
    if log.format != "jsonl" and log.format != "parquet" and not log.header and not rows:
        log.header = True
    table: Row = {
        "user": "uid",
        "time": {"column": "ts"} | ({"unit": unit} if times == "unit" else {"timezone": "UTC"}),
        "fields": {"item": "what"} | ({"category": "cat"} if own_category else {}),
    }
    description: Row = {"name": "made", "tables": {"log": table}, "lookups": {}}
    if one_of("where", True, False):
        table["where"] = one_of("where_is", "stars >= 1", "kind <> 'cart' and stars < 4")
    table["order"] = one_of("order", "file", "hash")
    table["duplicates"] = one_of("duplicates", "keep", "drop")
    if one_of("device", True, False):
        table["features"] = {"device": one_of("device_is", "device", "'of ' || what")}
    if one_of("number", True, False):
        scale = one_of("scale", "log", "standard", "none")
        table["numbers"] = {"cost": {"column": "price", "scale": scale}}
    if one_of("list", True, False):
        table["lists"] = {"tag": {"column": "tags", "max_len": 2}}
        if log.format in ("csv", "tsv"):
            table["lists"]["tag"]["separator"] = log.separator
    if one_of("keep", True, False):
        table["keep"] = ["request", "clicked"]
    if one_of("weight", True, False):
        table["weight"] = "loss"
    if labels:
        table["label"] = one_of("label", "clicked", "clicked = 1")
    target: Row = {"table": "log"}
    target["split"] = one_of(
        "split",
        {"by": "order"},
        {"by": "order", "valid": False},
        {"by": "day", "timezone": "UTC"},
        {"by": "day", "timezone": "Asia/Shanghai"},
        {"by": "time", "valid": "2020-09-16", "test": "2020-09-17", "timezone": "UTC"},
        {"by": "time", "test": "2020-09-16T12:00:00", "timezone": "UTC"},
        {"by": "column", "column": "part"},
    )
    if one_of("target_where", True, False):
        target["where"] = "kind = 'buy'"
    if one_of("only_new", True, False, False):
        target["only_new"] = True
    drawn = not labels
    if drawn:
        target["negatives"] = {
            "per_positive": one_of("per_positive", 1, 2, 3),
            "exclude": one_of("exclude", "ever", "unfiltered", "history"),
            "pool": one_of("pool", "train", "all"),
            "weight": one_of("popularity", "uniform", "popularity"),
        }
    if drawn and own_category and lookup == "none":
        lookup = "table"
    description["target"] = target
    logs = {"tables.log": log}
    first = one_of("history", "history", "past")
    names = [first, "seen", "log_session"][: one_of("histories", 1, 2, 3)]
    others = [one_of("other_table", True, False, False) for _ in names]
    if any(others):
        seen = [
            {
                "uid": named("user", u),
                "what": named("item", i) if other != 8 else None,
                "cat": None if other == 7 else named("category", (i + (other == 3)) % 4),
                "kind": kind,
                "at": moment(day, second, more),
            }
            for u, i, kind, day, second, more, other, _ in (*_SURE, *draw(_EVENTS))
        ]
        views: Row = {
            "user": "uid",
            "time": table["time"] | {"column": "at"},
            "fields": {"item": "what"},
            "order": one_of("views_order", "file", "hash", "fields"),
            "duplicates": one_of("views_duplicates", "keep", "drop"),
        }
        if one_of("views_where", True, False):
            views["where"] = "kind <> 'cart'"
        if own_category and one_of("views_category", True, True, False):
            views["fields"]["category"] = "cat"
        if len(names) > 1 and own_category and one_of("views_item", True, True, False):
            views["fields"] = {"category": "cat"}  # they lack what a target is of
        description["tables"]["views"] = views
        logs["tables.views"] = logs_as(draw, list(seen[0]), seen)
    timed, since_unit = False, one_of("since_unit", "s", "ms", "us", "iso")
    a_unit = 1_000_000 // PER_SECOND.get(since_unit, 1)  # text is of whole seconds
    since_told = {"timezone": "UTC"} if since_unit == "iso" else {"unit": since_unit}

    def since(of: int) -> list[Any]:
        """From when lines of a value hold: around the times of events, no time twice."""
        found = {0} if of in (10, 11, 12, 13, 14) else set()
        for day, second, step in draw(_SINCE) or [(0, 0, 0)]:
            found.add((BEGIN + day * DAY + second) * 1_000_000 + step * a_unit)
        if since_unit == "iso":
            return [f"{datetime.fromtimestamp(t / 1_000_000, UTC):%Y-%m-%d %X}" for t in found]
        return [time // a_unit for time in found]

    description["histories"] = {}
    for name, other in zip(names, others, strict=True):
        history: Row = {"table": "views" if other else "log"}
        history["max_len"] = one_of("max_len", 1, 2, 3, 5)
        if not other:
            history["window"] = one_of("window", "before", "order")
        if one_of("history_where", True, False):
            history["where"] = one_of("history_where_is", "kind = 'pv'", "kind in ('pv', 'cart')")
        if one_of("within", True, False, False):
            history["within"] = one_of("within_is", "1d", 90_000, "2d", "3d")
        if one_of("delay", True, False, False):
            history["delay"] = one_of("delay_is", 1, "1h", "12h", 43_201)
        if one_of("gap", True, False):
            history["session_gap"] = one_of("gap_is", "1h", "12h", "1d", 0)
            history["bins"] = one_of("own_bins", 3, 5)
        if one_of("sessions", True, False, False, False):
            history["sessions"] = [2, 3]
        description["histories"][name] = history
    if lookup == "table":
        description["lookups"]["item"] = {
            "table": "log",
            "key": "what",
            "repeated": "first",
            "fields": {"category": "cat"},
        }
        if one_of("table_timed", True, False):
            description["lookups"]["item"]["time"] = table["time"]
        if one_of("table_more", True, False):  # that events do not say themselves
            description["lookups"]["item"]["features"] = {"maker": "device"}
            size = {"column": "price", "scale": one_of("size_scale", "log", "standard", "none")}
            description["lookups"]["item"]["numbers"] = {"size": size}
    elif lookup == "file":
        known = draw(st.lists(st.integers(0, 16), unique=True, min_size=1))
        lacking = one_of("missing", "unknown", "unknown", "refuse")
        if lacking == "refuse":
            known = [*known, *({10, 11, 12, 13, 14} - {*known})]
        timed = one_of("timed", True, False)
        items = [
            {
                "id": named("item", i),
                "group": None if j == 3 else named("category", j % 4 + (j == 5)),
                "maker": f"m{j % 3}",
                "size": None if j == 4 else float(j),
                "words": [f"w{x}" for x in range(j % 4)] or None,
            }
            | ({"from": at} if timed else {})
            for i in known
            for j, at in enumerate(since(i) if timed else [None], i)
        ]
        described: Row = {"key": "id", "repeated": one_of("repeated", "refuse", "first", "equal")}
        if timed:
            described["time"] = {"column": "from", **since_told}
        if described["repeated"] != "refuse" and one_of("again", True, False):
            items += items[: 1 + len(items) // 2]
            if described["repeated"] == "first" and timed:
                items[-1] = items[-1] | {"maker": "m9"}
        described["fields"] = {"category": "group"}
        if one_of("maker", True, False):
            described["features"] = {"maker": "maker"}
        if one_of("size", True, False):
            how = one_of("size_scale", "log", "standard", "none")
            described["numbers"] = {"size": {"column": "size", "scale": how}}
        written = logs_as(draw, list(items[0]), items, 1)
        if one_of("words", True, False):
            described["lists"] = {"word": {"column": "words", "max_len": one_of("words_len", 1, 2)}}
            if written.format in ("csv", "tsv"):
                described["lists"]["word"]["separator"] = written.separator
        if lacking == "unknown" and one_of("lookup_where", True, False, False):
            described["where"] = "size <> 6 or size is null"
        described["missing"] = lacking
        description["lookups"]["item"] = described
        logs["lookups.item"] = written
    if one_of("people", True, False, False):
        people = [
            {"who": named("user", u), "age": f"a{j % 3}" if u != 2 else None, "since": float(j)}
            | ({"from": at} if timed else {})
            for u in draw(st.lists(st.integers(0, 9), unique=True, min_size=1))
            for j, at in enumerate(since(u) if timed else [None], u)
        ]
        description["lookups"]["user"] = {
            "key": "who",
            "repeated": one_of("repeated", "refuse", "first", "equal"),
            "features": {"age": "age"},
            "numbers": {"since": {"column": "since", "scale": "standard"}},
        }
        if timed:
            description["lookups"]["user"]["time"] = {"column": "from", **since_told}
        logs["lookups.user"] = logs_as(draw, list(people[0]), people, 1)
    description["vocabulary"] = {
        "from": one_of("from", "train", "all"),
        "min_count": one_of("min_count", 1, 1, 2, 3),
    }
    if one_of("filter", True, False, False):
        description["filters"] = {
            "k_core": one_of("k_core", 0, 2, 3),
            "min_history": one_of("min_history", 0, 1, 2),
        }
    description["bins"] = one_of("bins", 1, 2, 4)
    description["layout"] = one_of("layout", "padded", "ragged")
    return Made(description, logs)
