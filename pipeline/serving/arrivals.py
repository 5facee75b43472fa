"""Events as they arrive, read as a preparation reads the lines of their table.

The reader is that of JSON lines, with the columns, conditions and types that the description gives
the table: SQL is evaluated by the same engine, over as many events at once as wait. So an event
enters just those histories that its line would enter, or is left out for the same reason. What is
looked up is taken as of the event's own time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from annotated_types import Len

from pipeline.description import USER, Table, in_history
from pipeline.description import language as told
from pipeline.description.binding import Binding
from pipeline.presets.transformed import KINDS, described_by
from pipeline.readers.conditions import Sql, Unfit, may_name, types_of
from pipeline.readers.json_table import JsonBlock, JsonSource
from pipeline.readers.own_tables import SQL_TYPES, TableReader
from pipeline.readers.values import NULLS, Column
from pipeline.serving.requests import Features
from schemas.checked import STRICT
from schemas.errors import InputError, UsageError
from schemas.manifest import Manifest
from schemas.plain import meant

WHERE, NO_HISTORY = "left out by where", "in no history"
EARLY = "before the data set's other events begin"
_TYPED = (".json", ".parquet")  # files in which a missing value has no spelling


@dataclass(frozen=True)
class Event:
    """An event as it is posted.

    Attributes:
        id: what the application calls it. Of two of one id the second adds nothing.
        columns: name -> value, as in a line of its table's raw files.
        table: of the description; None where only one has histories.
    """

    __pydantic_config__ = STRICT
    id: Annotated[str, Len(1, 200)]
    columns: dict[str, Any]
    table: str | None = None


class Arrived(NamedTuple):
    """An event as histories hold it.

    Attributes:
        user: as vocabularies have it.
        time: in the data set's unit.
        ids: history -> the ids of its fields there, in the order of the manifest.
        own: the raw values of the table's own fields: of two with the same, one repeats the other.
    """

    user: int | str
    time: int
    ids: Mapping[str, tuple[int, ...]]
    own: str


def _opened(
    said: told.Table,
    seen: Mapping[str, str],
    name: str,
    columns: Sequence[Column],
    where: str | None,
    unit: str,
) -> TableReader:
    """The reader of posted events.

    `seen` are the columns of their table's raw files, and how SQL sees them, as `Kept` has it;
    empty where it does not say.

    Raises:
        UsageError: SQL sees a column of a type that JSON does not have.
    """
    names = [*seen] or _named([column.source for column in columns], where)
    sql = {c.name: Sql.of(c.source, names) for c in columns if c.source not in names}
    condition = None if where is None else Sql.of(where, names)
    every = [*sql.values(), *([] if condition is None else [condition])]
    used = {name: seen.get(name, "") for one in every for name in one.columns}
    types = {name: kind for name, kind in used.items() if kind} or _fitting([*used], every)
    if wrong := [f"{name} ({kind})" for name, kind in types.items() if kind not in SQL_TYPES]:
        raise UsageError(
            "A condition sees a type that JSON does not have, so no event can be posted.",
            where=f"tables.{name}",
            expected="conditions over numbers, text, true or false, and lists of text",
            got=", ".join(wrong),
            do="write the column as text to the raw files, and prepare them again",
        )
    files = (said.files,) if isinstance(said.files, str) else said.files or ()
    typed = any(end in file for end in _TYPED for file in files)
    typed = typed if said.format is None else said.format in ("jsonl", "parquet")
    typed |= said.query is not None
    spelled = NULLS if said.csv is None or said.csv.nulls is None else said.csv.nulls
    keys = {name: (name,) for name in names}
    posted = JsonSource(keys, nulls=frozenset(() if typed else spelled))
    return TableReader(posted, tuple(columns), condition, sql, types, unit=unit)


def _named(sources: Sequence[str], where: str | None) -> list[str]:
    """The columns that a description can mean, where the files' are not known."""
    plain = [one for one in sources if one.strip().replace(".", "_").isidentifier()]
    others = [*(one for one in sources if one not in plain), *([] if where is None else [where])]
    return list(dict.fromkeys([*plain, *(name for one in others for name in may_name(one))]))


def _fitting(names: list[str], said: Sequence[Sql]) -> dict[str, str]:
    """Types of columns with which all expressions can be evaluated: text where it can be."""
    expressions = {str(k): one for k, one in enumerate(said)}
    for kinds in product(("text", "number"), repeat=len(names)):
        found = dict(zip(names, kinds, strict=True))
        try:
            types_of({name: SQL_TYPES[kind] for name, kind in found.items()}, expressions)
        except Unfit:
            continue
        return found
    raise UsageError(
        "It is not known what the conditions' columns hold.",
        expected="a data set of this version",
        do="make it again, with --keep-events",
    )


class _Table:
    """A table whose events may be posted; one without a line in a `refusing` lookup is none."""

    def __init__(self, table: Table, made: Manifest, refusing: Sequence[str]) -> None:
        assert isinstance(table.reader, TableReader)
        self.name, self.reader, self.fields = table.name, table.reader, table.fields
        self.target = table.name == made.target.table
        self.refusing = [n for n in refusing if self.target and n in (USER, *table.ids)]
        self.histories = {n: one for n, one in made.histories.items() if one.table == table.name}
        self.looked_up = {
            name: [
                (n, key)
                for key in table.fields
                if key in made.lookups
                for n in made.lookups[key].fields
                if n in one.fields and n not in table.fields
            ]
            for name, one in self.histories.items()
        }
        needed = {*table.fields, USER, "time", "label", "weight"}
        plain = {c.source for c in self.reader.wanted if c.name in needed}
        used = {n for one in self.reader.expressions for n in one.columns}
        # A name that an event lacks may be misspelt: what may be missing has to be null.
        self.columns = [n for n in self.reader.needed if n in plain | used]

    def lacks(self, event: Event) -> str | None:
        """A column that an event does not have."""
        return next((name for name in self.columns if name not in event.columns), None)

    def entered(self, row: Mapping[str, Any]) -> list[str]:
        """The histories that a row of the reader enters."""
        masks = {name: in_history(name) for name in self.histories}
        return [name for name, mask in masks.items() if row.get(mask, True)]


def own_of(row: Mapping[str, Any], fields: Sequence[str]) -> str:
    """The raw values of a row's own fields, as `Arrived` has them."""
    return json.dumps([row[name] for name in fields])


class Arrivals:
    """Reads posted events.

    Raises:
        UsageError: which of its events count cannot be told of one event alone.
    """

    def __init__(self, data: Path, made: Manifest, features: Features) -> None:
        self.made, self.features = made, features
        source, spec = described_by(data, made)
        assert made.kept is not None
        self.since = made.kept.since
        kept = made.kept

        def opens(name: str, *how: Any) -> TableReader:
            return _opened(spec.tables[name], kept.columns.get(name, {}), name, *how)

        plain = {name: replace(one, reader=None) for name, one in spec.tables.items()}
        fixed = {
            "types": {n: "whole" if of.whole else "text" for n, of in features.words.items()},
            "unit": made.time_unit,
            "kept": {name: KINDS[kind] for name, kind in made.keep.items()},
            "opens": opens,
        }
        files = {("tables", name): [Path(f"{name}.jsonl")] for name in plain}  # of which none is
        bound = Binding(replace(spec, tables=plain), source, files, fixed=fixed)
        tables = dict.fromkeys(one.table for one in made.histories.values())
        for name in tables:
            drops = spec.tables[name].duplicates == "drop"
            of = [n for n, one in made.histories.items() if one.table == name and one.where]
            if made.target.k_core or (drops and of):
                raise UsageError(
                    "Which events count cannot be told of one event alone.",
                    where=f"tables.{name}",
                    expected='no `k_core`, and no `duplicates = "drop"` with a history\'s `where`',
                    got=f"k_core = {made.target.k_core}" if made.target.k_core else "both",
                    do="prepare the data set without, or score by `tinprep transform` and `score`",
                )
        refusing = [name for name, one in spec.lookups.items() if one.missing == "refuse"]
        self.tables = {name: _Table(bound.table(name), made, refusing) for name in tables}

    @cached_property
    def only(self) -> str | None:
        """The only table; None where there are several."""
        return next(iter(self.tables)) if len(self.tables) == 1 else None

    def require(self, event: Event) -> None:
        """Refuse what no line of a table could be.

        Raises:
            InputError: its table is none, or it lacks a column.
        """
        name = event.table or self.only
        if name is None or name not in self.tables:
            raise InputError(
                "An event is of no table whose events are in histories.",
                where=f"event {event.id!a}",
                expected="table: " + " or ".join(self.tables),
                got=f"{event.table!a}"[:100] + meant(event.table or "", self.tables),
            )
        if (lacks := self.tables[name].lacks(event)) is not None:
            raise InputError(
                f"An event lacks the column {lacks}.",
                where=f"event {event.id!a}",
                expected=", ".join(self.tables[name].columns),
                got=", ".join(f"{n!a}" for n in event.columns)[:200],
                do="add it; null where there is no value",
            )

    def __call__(self, events: Sequence[Event]) -> list[Arrived | str]:
        """What each event is; text says why it is none of a history."""
        found: list[Arrived | str] = [WHERE] * len(events)
        for name, table in self.tables.items():
            at = [k for k, event in enumerate(events) if (event.table or self.only) == name]
            if not at:
                continue
            lines = [json.dumps(events[k].columns).encode() + b"\n" for k in at]
            parsed = table.reader.parse(name, JsonBlock(0, b"".join(lines), len(lines)))
            for line, reason in parsed.rejected.select("line", "reason").iter_rows():
                found[at[line - 1]] = f"refused: {reason}"
            for row in parsed.rows.iter_rows(named=True):
                found[at[row["row"]]] = self._arrived(table, row)
        return found

    def _arrived(self, table: _Table, row: Mapping[str, Any]) -> Arrived | str:
        time = row["time"]
        if not table.target and time < self.since:
            return EARLY
        for key in table.refusing:
            # What the bundle does not know at all may well have a line by now.
            known, at = (
                self.features.lookups[key],
                (np.array([self._id(key, row[key])]), [row[key]]),
            )
            late, early = (known.lines(*at, when)[0] for when in (1 << 62, time))
            if row[key] is None or (early == known.none != late):
                return f"refused: {key} is not in lookups.{key}"
        if not (entered := table.entered(row)):
            return NO_HISTORY
        ids = {name: self._id(name, row[name]) for name in table.fields}
        of = {}
        for name in entered:
            for n, key in table.looked_up[name]:
                if n not in ids:
                    known = self.features.lookups[key]
                    line = known.lines(np.array([ids[key]]), [row[key]], time)[0]
                    ids[n] = int(known.columns[n][""][line])
            of[name] = tuple(ids[n] for n in self.made.histories[name].fields)
        return Arrived(self.user(row[USER]), time, of, own_of(row, table.fields))

    def _id(self, name: str, value: Any) -> int:
        return self.features.words[name].of(value)

    def user(self, value: Any) -> int | str:
        """A user as the vocabulary has it."""
        found = self.features.words[USER].value(value)
        assert found is not None
        return found
