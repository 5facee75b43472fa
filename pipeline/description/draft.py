"""A first draft of a description, from the files alone: what it guesses, it says.

A sample of each file's first records is looked at. Nothing is sure that a person has not checked.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.description import language as told
from pipeline.description.binding import MOST, Whence, are_listed, in_lists, naive
from pipeline.description.checks import is_reserved, spec_of
from pipeline.description.files import bases, by_name, files_of
from pipeline.description.toml import Source, written
from pipeline.readers.conditions import WORDS
from pipeline.readers.csv_text import DELIMITERS
from pipeline.readers.lines import blocks
from pipeline.readers.own_tables import SAMPLED, first_odd
from pipeline.readers.values import DECIMAL
from schemas.bounds import MAX_LEN
from schemas.errors import InputError, UsageError
from schemas.plain import printable
from schemas.shards import UNITS

_SHOWN, _LOOKED_AT = 3, 100
_SNIFFED_LINES = 200
_HEAD_BYTES = 1 << 18
# What columns are called, by what they are; the first that fits.
_NAMES = {
    "user": r"user|member|customer|^cust(?!om)|visitor|reviewer|account|client|buyer|uid|person",
    "visit": r"session|device",  # of a user, and a user where nothing else is one
    "label": r"label|click|clk|convert|conversion|purchased|bought|liked?$|is_(?!valid)",
    "time": r"time|date|second|_at$|^ts$|_ts$|when|day$",
    "item": r"item|movie|film|product|asin|sku|\bad\b|^ad_|adgroup|video|song|track|article|news|"
    r"book|goods|good|listing|recipe|game|^iid$|business|place|poi|merchant|photo|page|url",
    "category": r"categ|cate|brand|genre|author|artist|publisher|shop|store|seller|dep(ar)?t|topic|"
    r"tag",
    "kind": r"^type$|kind|event|action|behaviou?r|btag|interaction",
    "rating": r"rating|score|stars|overall|grade",
    "number": r"price|amount|count|quantity|qty|duration|length|age$|value|cost",
    "split": r"^split$|^fold$",
}
_SECONDS = (631_152_000, 4_102_444_800)  # 1990 to 2100
_FEW = 20  # distinct values of a kind
_HISTORIES = 6  # of a kind each
_LIKED = 4
_ISO = r"^\d{4}-\d\d-\d\d([T ]\d\d:\d\d.*)?$"
# Dates of day, month and year, in either order, and a time of day: SQL tells them as years first.
_DAY_LAST = r"^(\d\d)[./-](\d\d)[./-](\d{4})([ T]\d\d:\d\d.*)?$"
_YEAR_FIRST = (
    "concat(substr({0}, 7, 4), '-', substr({0}, {1}, 2), '-', substr({0}, {2}, 2), substr({0}, 11))"
)
_PATTERNS = {
    "number": r"^[ \t]*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?[ \t]*$",
    "time as 2026-01-31 10:00": _ISO,
}


@dataclass
class Column:
    """A column of a file, as far as a sample tells.

    Attributes:
        name: as the file has it.
        values: what is there of the first records, without what is odd.
        missing: whether some record has none.
        odd: what few values are not that nearly all are, and where; empty for nothing.
        sql: how `values` are had of what the file has, which is {}; empty for as they are.
    """

    name: str
    values: pl.Series
    missing: bool
    odd: str = ""
    sql: str = ""

    @property
    def distinct(self) -> int:
        """How many values differ."""
        return self.values.n_unique() if self.values.dtype != pl.List else 0

    @property
    def unique(self) -> bool:
        """Whether each record has a value of its own."""
        return not self.missing and self.distinct == len(self.values) > 1

    @property
    def numbers(self) -> pl.Series | None:
        """The values as numbers; None where some is none."""
        if self.values.dtype.is_numeric():
            return self.values.cast(pl.Float64)
        if self.values.dtype != pl.String:
            return None
        found = self.values.cast(pl.Float64, strict=False)
        return found if len(found) and not found.null_count() else None

    def named(self, role: str) -> bool:
        """Whether it is called as what has this role is."""
        plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", self.name).lower()
        return re.search(_NAMES[role], plain) is not None

    def shown(self) -> str:
        """Some values, for people, on one line."""
        first = dict.fromkeys(str(value) for value in self.values.head(_LOOKED_AT).to_list())
        return ", ".join(" ".join(text.split())[:30] for text in [*first][:_SHOWN]) or "no value"

    @property
    def time(self) -> tuple[str | None, bool] | None:
        """(unit, whether it names no zone) of times; None where it holds none."""
        if self.values.dtype in (pl.Date, pl.Datetime):
            return None, naive(self.values) is not None
        numbers = self.numbers
        if numbers is not None and len(numbers):
            low, high = _SECONDS
            for unit, size in UNITS.items():
                if numbers.is_between(low * size, high * size).mean() > 0.99:  # type: ignore[operator]
                    return unit, False
            return None
        text = self.values.dtype == pl.String and len(self.values)
        if text and self.values.str.contains(_ISO).all():
            return None, naive(self.values) is not None
        return None


@dataclass
class Table:
    """A file, or files of one kind, and what its columns may be.

    Attributes:
        pattern: as `files` has it.
        said: `format` and `csv`, where they have to be told.
        notes: what is not sure.
        guesses: what is not sure if it holds events.
        in_part: whether there are more records than were looked at.
        user: the column of users; None where there seems to be none.
        time: likewise.
        item: likewise.
    """

    name: str
    pattern: str
    whence: Whence
    said: dict[str, Any]
    columns: dict[str, Column]
    notes: list[str] = field(default_factory=list)
    guesses: list[str] = field(default_factory=list)
    in_part: bool = False
    user: str | None = None
    time: str | None = None
    item: str | None = None

    @property
    def kind(self) -> Column | None:
        """What tells kinds of events apart; None where nothing seems to."""
        return next((column for column in self.left("kind") if _is_kind(column)), None)

    def left(self, *roles: str) -> Iterator[Column]:
        """Columns of none of the parts yet, called as what has one of the roles is."""
        for column in self.columns.values():
            if column.name in (self.user, self.time, self.item):
                continue
            if any(column.named(role) for role in roles):
                yield column


def draft(patterns: Sequence[str], folder: Path) -> str:
    """The TOML of a description of files, with comments on what was not sure.

    Raises:
        InputError: a file cannot be read, or none holds events.
    """
    tables = [_table(pattern, folder) for pattern in patterns]
    events = [t for t in tables if t.user is not None and t.time is not None]
    # Beside a file that names its users one that does not is of items, say, with a date of each.
    events = [t for t in events if _names_user(t.columns[t.user or ""])] or events
    if not events:
        seen = tuple(f"{t.name}: {', '.join(t.columns)}; {_lack(t)}"[:500] for t in tables)
        raise InputError(
            "No file tells who did what, and when.",
            where=", ".join(patterns),
            expected="a file with a column of users, one of items, and one of times, which are "
            "numbers since 1970 or as 2026-01-31T10:00:00Z",
            got=seen,
            do="mend these values, or name the columns yourself: "
            + (
                "csv = { columns = [...] } in a description"
                if "columns" in tables[0].said.get("csv", {})
                else "`tinprep prepare FILE --user ... --item ... --time ... --split order"
                f"{_delimiter_option(tables[0])}`"
            ),
        )
    for one, other in combinations(events, 2):
        _agree(one, other)
    text = _Writer(events, [table for table in tables if table not in events]).text()
    try:
        spec_of(Source("the draft", text))
    except UsageError as error:
        first, _, rest = text.partition("\n")
        return f"{first}\n# It does not hold together so far: {error.what}\n{rest}"
    return text


def _delimiter_option(table: Table) -> str:
    found = table.said.get("csv", {}).get("delimiter")
    return "" if found is None else f' --delimiter "{found}"'.replace("\t", "\\t")


def _lack(table: Table) -> str:
    """Why a table seems to hold no events."""
    if table.time is not None:
        return f"{table.time} are times, but no column seems to be of users"
    called = [c for c in table.columns.values() if c.named("time")]
    for column in called or list(table.columns.values()):
        if column.values.dtype == pl.String:
            tests = ((kind, column.values.str.contains(of)) for kind, of in _PATTERNS.items())
            kind, fits = max(tests, key=lambda one: one[1].sum())
            if (called or fits.any()) and not fits.all():
                line = _first(table.whence, column.name, _PATTERNS[kind])
                return _odd(column.name, column.values, fits, kind, line)
        if called:
            return f"{column.name} holds numbers that are no times of 1990 to 2100"
    return "no column seems to hold times"


def _odd(name: str, values: pl.Series, fits: pl.Series, kind: str, at: str) -> str:
    some = int((~fits).sum())
    verb = "is" if some == 1 else "are"
    return f"{name}: {some:,} of {len(values):,} sampled values {verb} no {kind}, {at}"


def _first(whence: Whence, name: str, pattern: str) -> str:
    """The first value that fits no pattern, and its line."""
    gone = [*whence.source.nulls, ""]

    def odd(values: pl.Series) -> pl.Series:
        text = values.cast(pl.String, strict=False).str.strip_chars(" \t")
        return (~text.str.contains(pattern) & ~text.is_in(gone)).fill_null(value=False)

    found = first_odd(whence.source, whence.paths[0], name, odd)
    assert found is not None
    return f"line {found[0]:,}: {found[1]!r}"


# Reading.


def _table(pattern: str, folder: Path) -> Table:
    paths = files_of([pattern], folder, "FILES")
    said: dict[str, Any] = {}
    notes: list[str] = []
    found = _format(paths[0])
    if found != by_name(paths[0]):
        said["format"] = found
    if found in ("csv", "tsv"):
        how, notes = _csv(paths[0], found)
        if how:
            said["csv"] = how
    csv_ = told.Csv(**said["csv"]) if "csv" in said else None
    of = told.Table(user="", time=told.Time(""), format=found, csv=csv_)  # type: ignore[arg-type]
    whence = Whence.of("tables", paths[0].name, of, paths)
    columns = {}
    frame = whence.head()
    for name in frame.columns:
        values = frame[name]
        there = values.drop_nulls()
        if there.dtype == pl.String:
            there = there.filter(~there.str.strip_chars(" \t").is_in([*whence.source.nulls, ""]))
        missing, odd = len(there) < len(values), ""
        there, sql = _years_first(there)
        for kind, usual in _PATTERNS.items() if there.dtype == pl.String else ():
            fits = there.str.contains(usual)
            if len(there) and not fits.all() and fits.mean() >= MOST:  # type: ignore[operator]
                odd = _odd(name, there, fits, kind, _first(whence, name, usual))
                there = there.filter(fits)
                break
        columns[name] = Column(name, there, missing, odd, sql)
    base = bases([pattern], folder)[0]
    base = base if base.is_dir() else paths[0]
    name = re.sub(r"\W+", "_", base.name.partition(".")[0].lower()).strip("_") or "events"
    name = name if name[0].isalpha() else f"t_{name}"
    in_part = len(paths) > 1 or len(frame) == SAMPLED
    table = Table(name, pattern, whence, said, columns, notes, in_part=in_part)
    _roles(table)
    if "columns" in said.get("csv", {}):
        _name_columns(table)
    return table


def _years_first(values: pl.Series) -> tuple[pl.Series, str]:
    """Dates such as 31.01.2026 or 01/31/2026 as 2026-01-31, and SQL for it; others as they are."""
    if values.dtype != pl.String or not len(values) or not values.str.contains(_DAY_LAST).all():
        return values, ""
    first, second = (values.str.slice(at, 2).cast(pl.Int64) for at in (0, 3))
    # Where both may be months: 01.02. is the first of February, 01/02 the second of January.
    month_first = first.max() <= 12 and (second.max() > 12 or "/" in values[0])  # type: ignore[operator]
    month, day = (1, 4) if month_first else (4, 1)
    order = r"${3}-${1}-${2}${4}" if month_first else r"${3}-${2}-${1}${4}"
    return values.str.replace(_DAY_LAST, order), _YEAR_FIRST.format("{0}", month, day)


def _name_columns(table: Table) -> None:
    """Give the columns of a file without a header names by what they seem to be."""
    roles = {table.user: "user", table.item: "item", table.time: "time"}
    new = {name: role for name, role in roles.items() if name is not None}
    for column in table.columns.values():
        if column.name in new:
            continue
        if table.item is not None and _follows(column, table.columns[table.item]):
            new[column.name] = "category"
        elif _is_kind(column):
            new[column.name] = "kind" if column.numbers is None else "rating"
    taken: set[str] = set()
    names = []
    for name in table.columns:
        given = new.get(name, name)
        names.append(name if given in taken else given)
        taken.add(names[-1])
    table.columns = {
        given: replace(column, name=given)
        for given, column in zip(names, table.columns.values(), strict=True)
    }
    table.said["csv"]["columns"] = names
    assert table.whence.csv is not None
    table.whence = replace(table.whence, csv=replace(table.whence.csv, columns=tuple(names)))
    table.user, table.item, table.time = (
        None if one is None else new[one] for one in (table.user, table.item, table.time)
    )
    table.notes[:] = [
        f"{table.whence.paths[0].name} seems to have no header: its columns got names by "
        "what they seem to hold"
    ]


def _follows(column: Column, item: Column) -> bool:
    """Whether an item always has the same value in a column, which several items share."""
    if column.missing or item.missing or not 1 < column.distinct < item.distinct:
        return False
    if len(column.values) != len(item.values) or are_listed(column.values):
        return False
    pairs = pl.DataFrame({"item": item.values, "other": column.values}).unique()
    return len(pairs) <= item.distinct * 1.01 and column.distinct > _FEW


def _format(path: Path) -> str:
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"PAR1":
        return "parquet"
    lines = _lines(path)
    if lines and lines[0].lstrip().startswith(("{", "[{")):  # of an array it is said that it is one
        return "jsonl"
    return "tsv" if by_name(path) == "tsv" else "csv"


def _lines(path: Path) -> list[str]:
    """The first lines, read as latin-1 where they are not UTF-8."""
    with closing(blocks(path, _HEAD_BYTES)) as stream:
        data = next((block.data for block in stream), b"")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return [line for line in text.splitlines()[:_SNIFFED_LINES] if line.strip()]


def _csv(path: Path, found: str) -> tuple[dict[str, Any], list[str]]:
    """How a text is written, as far as that is not the default; and what is not sure."""
    lines = _lines(path)
    if not lines:
        raise InputError("The file is empty.", where=path, expected="lines", got="none")
    how: dict[str, Any] = {}
    delimiter = _delimiter(lines)
    if delimiter != ("\t" if found == "tsv" else ","):
        how["delimiter"] = delimiter
    rows = [_fields(line, delimiter) for line in lines]
    if _is_header(rows):
        return how | _encoding(path), []
    how["columns"] = [f"c{n}" for n in range(1, len(rows[0]) + 1)]
    note = (
        f"{path.name} seems to have no header, so its columns are numbered: give them better names"
    )
    return how | _encoding(path), [note]


def _encoding(path: Path) -> dict[str, str]:
    with closing(blocks(path)) as stream:
        try:
            next(stream).data.decode("utf-8-sig")
        except UnicodeDecodeError:
            return {"encoding": "latin-1"}
    return {}


def _fields(line: str, delimiter: str) -> list[str]:
    if len(delimiter) > 1:
        return line.split(delimiter)
    return next(csv.reader(io.StringIO(line), delimiter=delimiter), [])


def _delimiter(lines: Sequence[str]) -> str:
    """What cuts most lines into the same number of fields, above one."""
    best, found = (0.0, 0), ","
    for one in DELIMITERS:
        counts = [len(_fields(line, one)) for line in lines]
        most = max(set(counts), key=counts.count)
        share = counts.count(most) / len(counts)
        if most > 1 and (round(share, 1), most) > best:
            best, found = (round(share, 1), most), one
    return found


def _is_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first line names columns: no number in it, and names that differ."""
    first, rest = rows[0], rows[1:]
    if len(set(first)) < len(first) or any(map(_is_number, first)):
        return False
    if not rest:
        return True
    numeric = [n for n in range(len(first)) if all(n < len(r) and _is_number(r[n]) for r in rest)]
    return bool(numeric) or all(re.fullmatch(r"[A-Za-z_][\w .:-]*", cell) for cell in first)


def _is_number(text: str) -> bool:
    return DECIMAL.fullmatch(text.strip()) is not None


# Guessing.


def _roles(table: Table) -> None:
    columns = list(table.columns.values())
    times = [c for c in columns if c.time is not None]
    called = [c for c in times if c.named("time")]
    if (time := next(iter(called or times), None)) is not None:
        table.time = time.name
        if len(times) > 1:
            others = ", ".join(c.name for c in times if c is not time)
            table.guesses.append(f"{table.name}: the time may also be {others}")
    ids = [c for c in columns if c.name != table.time and _may_be_id(c)]
    users = [c for c in ids if _names_user(c) and not c.named("label")]
    # Of few values it is rather a kind of user, or of device.
    user = min(users, key=lambda c: (c.distinct <= _FEW, not c.named("user")), default=None)
    item = next((c for c in ids if c.named("item") and c is not user), None)
    if table.time is not None and (user is None or item is None):
        # By place: who, then what.
        rest = [c for c in ids if c not in (user, item) and c.distinct > _FEW]
        if user is None and rest:
            user = rest.pop(0)
            table.guesses.append(
                f"{table.name}: no column is called as users are; {user.name} is a guess"
            )
        if item is None and rest:
            item = max(rest, key=lambda c: c.distinct)
            table.guesses.append(
                f"{table.name}: no column is called as items are; {item.name} is a guess"
            )
    if table.time is not None or user is not None:
        table.user = user.name if user is not None else None
    table.item = item.name if item is not None else None


def _names_user(column: Column) -> bool:
    return column.named("user") or column.named("visit")


def _agree(one: Table, other: Table) -> None:
    """Where the users of two tables share no value, take the column of one that does."""
    pairs = [(one, other), (other, one)]
    mine, theirs = (t.columns[t.user or ""] for t in (one, other))
    if _shared(mine, theirs):
        return
    for table, beside in pairs:
        known = beside.columns[beside.user or ""]
        free = [c for c in table.columns.values() if c.name not in (table.time, table.item)]
        best = max(free, key=lambda c: _shared(c, known))
        if known.distinct > _FEW and _shared(best, known) > 0.5:
            table.user = best.name
            return
    one.guesses.append(
        f"no sampled value of {one.name}.{mine.name} is one of {other.name}.{theirs.name}: "
        "users have to be spelt alike in both"
    )


def _shared(one: Column, other: Column) -> float:
    """How many of the values of the column that has fewer of them are values of the other, too."""
    if not (_may_be_id(one) and _may_be_id(other)):
        return 0.0
    mine, theirs = (set(c.values.cast(pl.String).unique()) for c in (one, other))
    return len(mine & theirs) / max(1, min(len(mine), len(theirs)))


def _may_be_id(column: Column) -> bool:
    if column.values.dtype == pl.String or column.values.dtype.is_integer():
        numbers = column.numbers
        return numbers is None or bool(((numbers >= 0) & (numbers == numbers.floor())).all())
    return False


class _Writer:
    """Writes the draft: events first, the largest share of guesses in comments."""

    def __init__(self, events: list[Table], others: list[Table]) -> None:
        self.events, self.others = events, others
        self.notes = [note for table in (*events, *others) for note in table.notes]
        self.notes += [note for table in events for note in table.guesses]
        self.comments: dict[str, list[str]] = {}

    def text(self) -> str:
        """The TOML."""
        target = self._target()
        keys: dict[str, Any] = {
            "tables": {t.name: self._events(t, t is target) for t in (target,)},
            "lookups": {},
            "target": {"table": target.name},
            "histories": {},
        }
        behaviours = [t for t in self.events if t is not target]
        label = keys["tables"][target.name].get("label")
        history = behaviours[0] if behaviours and label else target
        if history is not target:
            keys["tables"][history.name] = self._events(history, False)
        for one in self.events:
            if one is not target and one is not history:
                self.notes.append(f"{one.pattern} also looks like events: it is left out")
        self._lookups(keys, target)
        if history is not target:
            self._share(keys, target, history)
        self._histories(keys, target, history)
        keys["target"]["split"] = self._split(target)
        if label is None:
            self._negatives(keys, target)
        return self._with_comments(keys)

    def _target(self) -> Table:
        """The events that targets are of: those with labels, else those that stand first."""
        labelled = [t for t in self.events if self._label(t) is not None]
        return (labelled or self.events)[0]

    def _label(self, table: Table) -> Column | None:
        for column in table.left("label"):
            if re.match(r"(?i)non|not|un|no_", column.name):
                continue
            numbers = column.numbers
            if column.values.dtype == pl.Boolean and column.distinct == 2:
                return column
            if numbers is not None and set(numbers.unique()) == {0.0, 1.0}:
                return column
        return None

    def _events(self, table: Table, targets: bool) -> dict[str, Any]:
        assert table.time is not None
        time = table.columns[table.time]
        unit, naive = time.time or (None, False)
        found: dict[str, Any] = {
            "files": table.pattern,
            **table.said,
            "user": table.user,
            "time": {"column": table.time, "unit": unit, "timezone": "UTC" if naive else None},
        }
        at = f"tables.{table.name}"
        numbers = time.numbers
        sql = time.sql
        if unit is not None and numbers is not None and bool((numbers != numbers.floor()).any()):
            sql = "floor({0})"
            self._say(at, "time", "fractions are cut off")
        if sql:
            found["time"]["column"] = sql.format(_sql(time.name))
        if time.sql:
            said = "month, day" if time.sql.index(" 1,") < time.sql.index(" 4,") else "day, month"
            self._say(at, "time", f"read as {said}, year")
        if naive:
            self._say(at, "time", "the zone is a guess: these times name none")
        else:
            self._say(at, "time", f"from {self._moment(time, 0.0)} to {self._moment(time, 1.0)}")
        self._slips(at, time)
        fields, taken = {}, {table.user, table.time, table.item}
        if table.kind is not None:
            taken.add(table.kind.name)
        if table.item is not None:
            fields["item"] = table.item
        for column in table.left("category"):
            if _may_be_id(column) and column.name not in taken and column.distinct > 1:
                fields[_bare(column.name)] = column.name
                taken.add(column.name)
        found["fields"] = fields
        label = self._label(table) if targets else None
        if label is not None:
            found["label"] = label.name
            taken.add(label.name)
            self._slips(at, label)
            ones = int((label.values.cast(pl.Float64) == 1).sum())
            self._say(at, "label", f"{ones / len(label.values):.1%} are 1")
        for column in table.left("rating"):
            numbers = column.numbers
            if targets and label is None and numbers is not None and column.distinct <= _FEW:
                low, top = min(numbers, default=0), max(numbers, default=0)
                if top >= _LIKED:
                    value = f"try_cast({column.name} as double)" if column.odd else column.name
                    self.comments.setdefault(at, []).append(
                        f'# where = "{value} >= {_LIKED}"   # {column.name} is from '
                        f"{low:g} to {top:g}: say what counts as liked"
                    )
                    self._slips(at, column, "left out")
        needed = [time, table.columns[table.user or ""], *([] if label is None else [label])]
        if lacking := [_sql(column.name) for column in needed if column.missing]:
            self.comments.setdefault(at, []).append(
                f"# where = '{' and '.join(f'{name} is not null' for name in lacking)}'   "
                "# leaves out lines without; else each is refused, and many are an error"
            )
        found["order"] = "file"
        self._say(at, "order", 'of events of one time; "hash" where the lines stand in no order')
        rest = [c for c in table.columns.values() if c.name not in taken]
        if rest:
            self._unused(at, rest)
        return found

    def _unused(self, at: str, columns: Sequence[Column]) -> None:
        told_ = "; ".join(f"{' '.join(c.name.split())} ({c.shown()})" for c in columns)
        self.comments.setdefault(at, []).append(f"# not used: {told_}"[:500])

    def _moment(self, column: Column, share: float) -> str:
        """The day by which a share of the sample was over."""
        unit = (column.time or (None, False))[0]
        numbers = column.numbers if unit is not None else None
        values = (column.values if numbers is None else numbers).sort()
        value = values[min(int(len(values) * share), len(values) - 1)]
        if unit is None:
            return str(value)[:10]
        return f"{datetime.fromtimestamp(value / UNITS[unit], UTC):%Y-%m-%d}"

    def _split(self, target: Table) -> dict[str, Any]:
        assert target.time is not None
        split = next((c for c in target.left("split") if c.values.dtype == pl.String), None)
        if split is not None and set(split.values.unique()) <= {"train", "valid", "test"}:
            return {"by": "column", "column": split.name}
        time = target.columns[target.time]
        if target.in_part and time.values.is_sorted():
            self._say(
                "target",
                "split",
                "the last day is test, the one before valid: only the log's begin was sampled; "
                '{ by = "time", valid = "2026-01-31", ... } says when each begins',
            )
            return {"by": "day", "timezone": "UTC"}
        valid, test = (self._moment(time, share) for share in (0.8, 0.9))
        first, last = (self._moment(time, share) for share in (0.0, 1.0))
        if first < valid < test <= last:
            self._say(
                "target",
                "split",
                "by a sample some 10% each are valid and test; "
                '{ by = "order" } leaves one out of each user',
            )
            return {"by": "time", "valid": valid, "test": test, "timezone": "UTC"}
        self._say("target", "split", "the last event of each user is test, the one before valid")
        return {"by": "order"}

    def _lookups(self, keys: dict[str, Any], target: Table) -> None:
        """Files whose lines tell of an item, of a user, or of another field."""
        fields = keys["tables"][target.name]["fields"]
        for table in self.others:
            of = {"user": target.user, **fields}
            found = self._key(table, of, target)
            if found is None:
                self.notes.append(f"{table.pattern}: no column looks like one of {target.name}")
                continue
            name, column = found
            sides = [side for one in keys["tables"].values() for side in one["fields"].items()]
            done = {name for one, of in sides for name in (one, _bare(of))}
            told_ = self._looked_up(table, name, column, done)
            if not any(kind in told_ for kind in ("fields", "features", "numbers", "lists")):
                self.notes.append(f"{table.pattern} tells nothing that could be used")
                continue
            keys["lookups"][name] = told_

    def _key(
        self, table: Table, of: Mapping[str, str | None], target: Table
    ) -> tuple[str, Column] | None:
        """The field whose values a file tells of, and its column of them."""
        for name, source in of.items():
            for column in table.columns.values():
                if source is not None and column.name.lower() == source.lower():
                    return name, column
        for name, source in of.items():
            known = target.columns.get(source or "")
            for column in table.columns.values():
                if known is None or not _may_be_id(column) or not column.unique:
                    continue
                both = known.values.cast(pl.String).unique()
                if (both.is_in(column.values.cast(pl.String).implode()).mean() or 0) > 0.5:  # type: ignore[operator]
                    return name, column
        return None

    def _looked_up(
        self, table: Table, name: str, key: Column, done: Collection[str]
    ) -> dict[str, Any]:
        """What a file tells of a field's values; of it what `done` names is a field in any case."""
        found: dict[str, Any] = {"files": table.pattern, **table.said, "key": key.name}
        parts: dict[str, dict[str, Any]] = {}
        at = f"lookups.{name}"
        if not key.unique:
            found["repeated"] = "first"
            self._say(at, "repeated", "some keys have several lines")
        left = []
        for column in table.columns.values():
            plain = _plain(column.name)
            if column is key or not len(column.values):
                continue
            if (several := _several(column)) is not None:
                one = re.sub(r"(?<=[^s])s$", "", plain)
                parts.setdefault("lists", {})[_free(one)] = {"column": column.name, **several}
            elif column.time is None and _is_measure(column):
                parts.setdefault("numbers", {})[_free(plain)] = {"column": column.name}
                self._slips(at, column)
            elif _may_be_id(column) and (
                1 < column.distinct <= len(column.values) / 2 or _bare(plain) in done
            ):
                kind = "features" if name == "user" else "fields"
                of = plain if name == "user" else _bare(plain)
                parts.setdefault(kind, {})[_free(of)] = column.name
            else:
                left.append(column)
        if left:
            self._unused(at, left)
        return found | parts

    def _share(self, keys: dict[str, Any], target: Table, history: Table) -> None:
        """Leave behaviours the fields that targets have, and targets those that behaviours have."""
        mine = keys["tables"][target.name]
        looked_up = {f for one in keys["lookups"].values() for f in one.get("fields", {})}
        theirs = keys["tables"][history.name]["fields"]
        if history.item is not None and not history.columns[history.item].named("item"):
            theirs.pop("item", None)
            theirs[_bare(history.item)] = history.item
        shared = {name: of for name, of in theirs.items() if name in {*mine["fields"], *looked_up}}
        # What is looked up by what behaviours have, they have, too.
        by = [one for name, one in keys["lookups"].items() if name not in shared]
        keys["tables"][history.name]["fields"] = shared
        if not shared:
            self.notes.append(f"{history.name} and {target.name} share no field: name what is one")
        features = {n: of for n, of in mine["fields"].items() if n not in shared}
        if shared and features:
            mine["features"] = features
            mine["fields"] = {n: of for n, of in mine["fields"].items() if n in shared}
        for one in by:
            rest = {n: of for n, of in one.get("fields", {}).items() if n not in shared}
            one["fields"] = {n: of for n, of in one.get("fields", {}).items() if n in shared}
            one["features"] = {**one.get("features", {}), **rest}

    def _histories(self, keys: dict[str, Any], target: Table, history: Table) -> None:
        """One history; of a log of several kinds of event one of each, and targets of one kind."""
        found = history.kind
        if found is None:
            keys["histories"]["history"] = {"table": history.name, "max_len": MAX_LEN}
            return
        counts: list[tuple[str, int]] = found.values.value_counts(sort=True).rows()
        column = _sql(found.name)
        # SQL sees text that is all numbers as numbers, where the file does not say that it is text.
        numbers = found.numbers is not None and not found.odd
        if numbers and history.whence.source.schema is None:
            where = {kind: f"{column} = {kind.strip()}" for kind, _ in counts}
        else:
            where = {
                kind: f"{column} = '{kind.replace(chr(39), chr(39) * 2)}'" for kind, _ in counts
            }
        if history is target and "label" not in keys["tables"][target.name]:
            keys["target"]["where"] = where[counts[-1][0]]
            kinds = ", ".join(f"{kind} {n:,}" for kind, n in counts)
            self._say("target", "where", f"a guess, the rarest kind; in the sample: {kinds}")
        plain = [_plain(kind) for kind, _ in counts]
        for n, (kind, _) in enumerate(counts[:_HISTORIES]):
            name = plain[n]
            if is_reserved(name) or name in plain[:n] or not name.isascii():
                name = f"kind_{n + 1}"
            keys["histories"][name] = {
                "table": history.name,
                "where": where[kind],
                "max_len": MAX_LEN,
            }
            if not n:
                said = "a history for each kind; one without where would hold all"
                self._say(f"histories.{name}", "where", said)
        if rest := counts[_HISTORIES:]:
            self.notes.append(
                f"{len(rest)} rarer kinds of {found.name} are in no history: "
                + ", ".join(kind for kind, _ in rest)
            )

    def _negatives(self, keys: dict[str, Any], target: Table) -> None:
        keys["target"]["negatives"] = {"per_positive": 1}
        self._say("target", "negatives", "no column looks like a label of 0 and 1")
        fields = dict(keys["tables"][target.name]["fields"])
        item = next(iter(fields), None)
        others = {k: v for k, v in fields.items() if k != item}
        known = keys["lookups"].get(item, {}).get("fields", {})
        lacking = {k: v for k, v in others.items() if k not in known}
        if not lacking:
            return
        if item in keys["lookups"]:
            for name in lacking:
                del keys["tables"][target.name]["fields"][name]
            self.notes.append(
                f"{', '.join(lacking)} of {target.name}: left out, as no lookup of {item} has them"
            )
            return
        keys["lookups"][item] = {
            "table": target.name,
            "key": fields[item],
            "repeated": "first",
            "fields": lacking,
        }
        self._say(f"lookups.{item}", "table", "so that drawn negatives have these fields too")

    # Writing.

    def _slips(self, at: str, column: Column, dropped: str = "refused") -> None:
        """Tell of values that a column of times or numbers does not take."""
        if column.odd:
            self.comments.setdefault(at, []).append(f"# {column.odd}; such lines are {dropped}")

    def _say(self, table: str, key: str, what: str) -> None:
        self.comments.setdefault(f"{table}/{key}", []).append(what)

    def _with_comments(self, keys: dict[str, Any]) -> str:
        keys = {name: value for name, value in keys.items() if value}
        for kind in ("tables", "lookups"):
            for one in keys.get(kind, {}).values():
                for name in ("fields", "features"):
                    if not one.get(name, True):
                        del one[name]
        lines = ["# A draft by `tinprep describe`, from the first records of each file."]
        lines += [f"# Not sure: {printable(note)}." for note in self.notes]
        lines += ["# Check it: tinprep describe THIS_FILE --check", ""]
        at = ""
        for line in written(keys).split("\n"):
            if line.startswith("["):
                at = line.strip("[]").replace('"', "")
            key = line.partition(" = ")[0]
            said = printable("; ".join(self.comments.get(f"{at}/{key}", [])))
            lines.append(f"{line}   # {said}" if said and " = " in line else line)
            if line.startswith("["):
                lines += map(printable, self.comments.get(at, []))
        return "\n".join(lines).rstrip("\n") + "\n"


def _is_kind(column: Column) -> bool:
    """Whether it tells kinds of events apart: a few words."""
    return column.values.dtype == pl.String and 1 < column.distinct <= _FEW


def _sql(name: str) -> str:
    """A column's name in SQL."""
    plain = name.isidentifier() and name.lower() not in WORDS
    return name if plain else f'"{name}"'


def _bare(name: str) -> str:
    """A column's name without what says that it is an id."""
    return re.sub(r"_?ids?$", "", _plain(name)) or _plain(name)


def _free(name: str) -> str:
    """A name, or another one where it is that of a column that every row has, such as weight."""
    return f"its_{name}" if is_reserved(name) else name


def _plain(name: str) -> str:
    found = re.sub(r"\W+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)).strip("_").lower()
    return found if found and found[0].isalpha() else f"f_{found}"


def _is_measure(column: Column) -> bool:
    """Whether it is a number that says how much, not which."""
    numbers = column.numbers
    if numbers is None or column.distinct < 3:
        return False
    return column.named("number") or not bool((numbers == numbers.floor()).all())


def _several(column: Column) -> dict[str, Any] | None:
    """How a column of several values is cut; None where it is none."""
    values = column.values
    if are_listed(values):
        values = in_lists(values)
    if isinstance(values.dtype, pl.List):
        parts = values.explode()
        if parts.dtype != pl.String and not parts.dtype.is_integer():
            return None
        return {"max_len": _length(values.list.len())}
    if values.dtype != pl.String:
        return None
    for separator in ("|", ";", ","):
        parts = values.str.split(separator)
        lengths = parts.list.len()
        words = parts.explode()
        share = (lengths > 1).mean()
        # Words that come again, not sentences.
        if share is not None and share > 0.2 and words.n_unique() < len(words) / 3:  # type: ignore[operator]
            return {"separator": separator, "max_len": _length(lengths)}
    return None


def _length(lengths: pl.Series) -> int:
    most = lengths.max()
    return max(1, min(most, 20)) if isinstance(most, int) else 1
