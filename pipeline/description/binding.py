"""A description and its files, brought together: tables with readers, and what only files say.

The types of ids and the unit of times are told by samples, unless the description tells them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from pipeline.description import (
    IS_TARGET,
    OUTSIDE,
    Description,
    History,
    Lookup,
    Negatives,
    Table,
    in_history,
)
from pipeline.description import language as told
from pipeline.description.checks import USER, drawn_field, moment, seconds
from pipeline.description.files import format_of
from pipeline.description.split import ByColumn, ByDay, ByOrder, ByTime, Rule
from pipeline.description.toml import Source, canonical
from pipeline.readers.apart import Apart
from pipeline.readers.csv_text import CsvFormat
from pipeline.readers.lines import Block, Part
from pipeline.readers.own_tables import SQL_TYPES, head, joined, open_source, open_table
from pipeline.readers.own_tables import Source as FileSource
from pipeline.readers.parsed import Parsed, Reader, read
from pipeline.readers.values import CANONICAL, NULLS, OLD_S, Column, Refusal, listed
from schemas.errors import TinprepError, UsageError
from schemas.plain import quoted
from schemas.shards import UNITS

_WHOLE = r"^[+-]?[0-9]+(\.0*)?$"
_FRACTION = r"[0-9]:[0-9]{2}[.,]([0-9]+)"
_ZONED = r"(Z|z|UTC|[+-][0-9]{2}(:?[0-9]{2})?)$"
_SAMPLED_FILES = 3
# Vocabularies, and what is known of items, of a log that has a new item in 25 lines; measured.
_FIXED_BYTES_A_LINE = 4
# Dates as digits: 20260131, as far as seconds, 20260131235959; and 26013123, up to the hour.
_DIGITS_OF_DATE = (
    r"^((19|20)[0-9]{2}MD(H([0-5][0-9]){0,2})?|[0-9]{2}MDH)(\.0*)?$".replace("M", "(0[1-9]|1[0-2])")
    .replace("D", "(0[1-9]|[12][0-9]|3[01])")
    .replace("H", "([01][0-9]|2[0-3])")
)
_LISTED = r"^\s*\[[^\[\]]*\]\s*$"
_DATED = r"^[0-9]{4}-"
# What is no number of a unit, and what to do about it.
_DATES = (
    (_DATED, "Times that are text have no unit.", "leave `unit` (--unit) out"),
    (
        _DIGITS_OF_DATE,
        "Times look like dates written as digits.",
        "write them as text such as 2026-01-31 23:00, without a unit: in the file, or as SQL, "
        "which may stand for a column",
    ),
)
_NUMBERS = r"^[+-]?[0-9]+(\.[0-9]*)?$"

MOST = 0.95
"""What so many values of a sample are, their column is: lines with others are refused."""

Said = told.Table | told.Lookup


@dataclass(frozen=True)
class Whence:
    """Files of one table or lookup.

    Attributes:
        kind: `tables` or `lookups`.
        paths: its files, in the order that rows are counted in.
        format: csv, jsonl, parquet, or query: Parquet that a query became.
    """

    kind: str
    name: str
    said: Said
    paths: list[Path]
    format: str
    csv: CsvFormat | None

    @classmethod
    def of(cls, kind: str, name: str, said: Said, paths: list[Path]) -> Whence:
        """Find what is in the files.

        Raises:
            UsageError: it cannot be told.
        """
        if said.query is not None:
            return cls(kind, name, said, paths, "query", None)
        found = format_of(paths, said.format, name)
        csv = None
        if found in ("csv", "tsv"):
            given = said.csv or told.Csv()
            csv = CsvFormat(
                delimiter=given.delimiter or ("\t" if found == "tsv" else ","),
                quote=given.quote or None,
                columns=given.columns,
                nulls=given.nulls if given.nulls is not None else NULLS,
                encoding=given.encoding,
            )
        return cls(kind, name, said, paths, "csv" if found == "tsv" else found, csv)

    @property
    def row(self) -> str | None:
        """The column that numbers the rows; None where their places do."""
        return getattr(self.said, "row", None)

    @property
    def header(self) -> int:
        """Lines of a file before its first row."""
        return int(self.csv is not None and self.csv.has_header)

    @cached_property
    def source(self) -> FileSource:
        """Of the files' columns."""
        return open_source(self.paths, self.format, self.csv, row=self.row)

    def head(self) -> pl.DataFrame:
        """The first records of the first file."""
        return head(self.source, self.paths[0], self.source.names)

    def sample(self, expression: str) -> pl.Series:
        """The first values of a column, or of SQL, of the first files; nulls left out."""
        if expression not in self.source.names:
            return self._computed(expression)
        paths = self.paths[:_SAMPLED_FILES]
        self.source.require(paths, [expression])
        found = [head(self.source, path, [expression]) for path in paths]
        some = [one[expression] for one in found if one.width]
        values = some[0] if len(some) == 1 else joined(some, expression)
        if values.dtype == pl.String:
            values = values.str.strip_chars(" \t")
            values = values.filter(~values.is_in([*self.source.nulls, ""]))
        return values.drop_nulls()

    def _computed(self, expression: str) -> pl.Series:
        """The first values of SQL as text; none where it cannot be read, which is told later."""
        column = Column("value", expression, "text", nullable=True)
        try:
            reader = open_table(self.paths, self.format, [column], csv=self.csv, row=self.row)
            with closing(read(reader, self.paths[0])) as stream:
                first = next(stream, None)
        except TinprepError:
            first = None
        return pl.Series([], dtype=pl.String) if first is None else first.rows["value"].drop_nulls()

    def open(
        self,
        columns: list[Column],
        where: str | None,
        unit: str,
        source: Source,
        *,
        outside: bool = False,
        types: Mapping[str, str] | None = None,
    ) -> Reader:
        """The reader of rows with these columns.

        `types` of columns that SQL names, as `open_table` has it: the files tell those of others.

        Raises:
            UsageError: SQL of the description cannot be read, or does not fit.
            InputError: a file cannot be read, or lacks a column.
        """
        try:
            return open_table(
                self.paths,
                self.format,
                columns,
                where=where,
                csv=self.csv,
                unit=unit,
                outside=outside,
                types=types,
                row=self.row,
            )
        except UsageError as error:
            told_at = str(error.where or "")
            name, _, sql = told_at.partition(": ")
            at: tuple[str, ...] = (self.kind, self.name, "where" if name == "where" else name)
            if name == IS_TARGET:
                at = ("target", "where")
            elif name.startswith(in_history("")):
                at = ("histories", name.removeprefix(in_history("")), "where")
            got = [sql or told_at, *([error.got] if isinstance(error.got, str) else [])]
            expected = error.expected if isinstance(error.expected, str) else None
            do = error.do if isinstance(error.do, str) else None
            source.refuse(at, error.what, expected, ": ".join(dict.fromkeys(got)), do)


@dataclass(frozen=True)
class Fast:
    """What a fast reader of its own puts in the place of the generic one.

    Attributes:
        names: the columns that rows have besides `row`, `user`, `time` and `label`.
        types: of ids, by field: `whole` or `text`.
        puts: attributes of `Table` or `Lookup`, with the reader among them.
        where: whether it follows the description's `where`.
        hooks: attributes of `Description`.
    """

    names: tuple[str, ...]
    types: Mapping[str, str]
    puts: Mapping[str, Any]
    where: bool = False
    hooks: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Head:
    """A reader of the first rows of each file; see `parsed.Reader`.

    Attributes:
        rows: how many, at least.
    """

    reader: Reader
    rows: int

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        """As `Reader.columns`."""
        return self.reader.columns

    def blocks(self, part: Part) -> Generator[Block]:
        """As `Reader.blocks`."""
        seen = 0
        with closing(self.reader.blocks(part)) as stream:
            for block in stream:
                yield block
                seen += block.lines
                if seen >= self.rows:
                    return

    def parse(self, file: str, block: Block) -> Parsed:
        """As `Reader.parse`."""
        return self.reader.parse(file, block)


Known = Mapping[str, Callable[[Said, Mapping[str, Any]], Fast | str]]


@dataclass
class Binding:
    """A description, where its keys stand, and its files.

    Attributes:
        files: (kind, name) of each table and lookup -> its files.
        known: `tables` and `lookups` -> the fast readers of them, by name.
        rows: how many of each table of events are read, at least; None for all.
        fixed: what is known without a sample: `types` of ids by field, how SQL has `seen` columns
            by their table, the `unit` of times, what columns hold that are passed through, `kept`,
            the `readers` of tables by name that have
            no files of their own, the files of targets that are read `apart`, as they may have
            other columns, and whether they are `unlabelled`; what `opens` a table in place of its
            files, by its name, columns, condition and unit. It is empty where samples tell.
    """

    spec: told.Spec
    source: Source
    files: Mapping[tuple[str, str], list[Path]]
    known: Mapping[str, Known] = field(default_factory=dict)
    rows: int | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)
    whences: dict[tuple[str, str], Whence] = field(init=False)

    def __post_init__(self) -> None:
        """Find what is in the files."""
        apart = self.fixed.get("apart", ())
        self.whences = {}
        for at, paths in self.files.items():
            own = [path for path in paths if path not in apart] or paths
            self.whences[at] = Whence.of(*at, self.spec.sources[at], own)
        self.fast = {at: fast for at in self.whences if (fast := self._fast(*at)) is not None}

    def _fast(self, kind: str, name: str) -> Fast | None:
        """The fast reader of a table or lookup; None where none is named.

        Raises:
            UsageError: there is none of this name, or it does not read what is wanted.
        """
        said = self.whences[kind, name].said
        if said.reader is None:
            return None
        at, known = (kind, name, "reader"), self.known.get(kind, {})
        reader = told.Reader(said.reader) if isinstance(said.reader, str) else said.reader
        if reader.name not in known:
            self.source.refuse(
                at,
                "There is no reader of this name.",
                expected=" or ".join(known) or "no reader, as there is none",
                got=reader.name,
                do="leave it out: CSV, JSON lines and Parquet are read without",
            )
        fast = known[reader.name](said, reader.options)
        if len(self.files[kind, name]) > 1 and not self.fixed:
            self.source.refuse(
                at,
                "The reader reads one file.",
                expected="one file",
                got=f"{len(self.files[kind, name])} files",
                do="leave `reader` out: the generic one reads several",
            )
        wanted = [*said.fields, *said.features, *said.numbers]
        more = [n for n in ("lists", "keep", "weight") if getattr(said, n, None)]
        if isinstance(fast, str):
            self.source.refuse(at, "The reader cannot follow the description.", expected=fast)
        lacks = [one for one in wanted if one not in fast.names]
        more += ["where"] if getattr(said, "where", None) and not fast.where else []
        more += ["time"] if isinstance(said, told.Lookup) and said.time is not None else []
        if isinstance(said, told.Table):
            spec = self.spec
            more += ["where of the target"] if spec.target.where else []
            more += ["where of a history"] if any(h.where for h in spec.histories.values()) else []
        if lacks or more:
            self.source.refuse(
                at,
                "The reader does not read all that is described.",
                expected=f"no more than {', '.join(fast.names)}",
                got=", ".join([*lacks, *more]),
                do="leave `reader` out: the generic one does",
            )
        return fast

    def whence(self, kind: str, name: str) -> Whence:
        """Where a table or a lookup is read from; of a lookup of a table, where that is."""
        if kind == "lookups" and self.spec.lookups[name].table is not None:
            return self.whences["tables", str(self.spec.lookups[name].table)]
        return self.whences[kind, name]

    # What the files say.

    def _ids(self) -> Iterator[tuple[str, pl.Series]]:
        """Each column of ids: its field, and the first of its values."""
        for (kind, name), one in self.spec.sources.items():
            at = self.whence(kind, name)
            if (kind, name) in self.fast:
                continue
            key = {USER: one.user} if isinstance(one, told.Table) else {name: one.key}
            for field_, column in {**key, **one.fields, **one.features}.items():
                yield field_, at.sample(column)
            for field_, several in one.lists.items():
                values = at.sample(several.column)
                if several.separator is not None and are_listed(values):
                    self.source.refuse(
                        (kind, name, "lists", field_),
                        "Lists in brackets need no separator.",
                        expected="values alone, the separator between them",
                        got=f"{several.column} = {values[0]}",
                        do="leave `separator` out, or cut the brackets off with SQL",
                    )
                yield field_, _several(values, several.separator)

    @cached_property
    def types(self) -> dict[str, str]:
        """Of each field: `whole` where each value of the samples is a whole number, else `text`."""
        if self.fixed:
            return dict(self.fixed["types"])
        found: dict[str, str] = dict(self.spec.types)
        for fast in self.fast.values():
            found |= fast.types
        whole: dict[str, Any] = {}
        odd: dict[str, Any] = {}
        for name, values in self._ids():
            if name in self.spec.types or not len(values):
                found.setdefault(name, "whole")
                continue
            if _are_whole(values):
                whole.setdefault(name, values[0])
                found.setdefault(name, "whole")
                continue
            found[name] = "text"
            if values.dtype == pl.String and len(of := values.filter(_are_odd(values))):
                odd.setdefault(name, of[0])
        for name in whole.keys() & odd.keys():
            self.source.refuse(
                ("types",),
                f"The ids of {name} are of two types.",
                expected=f"the same {name} written alike in every column of it",
                got=f"{whole[name]} in one column, {odd[name]} in another",
                do=f'say what they are: types = {{ {name} = "whole" }} takes 007 for 7, '
                '"text" takes them for two',
            )
        return found

    @cached_property
    def unit(self) -> str:
        """The finest unit of the tables' times."""
        if self.fixed:
            return str(self.fixed["unit"])
        found = ["s"]
        for name, table in self.spec.tables.items():
            if ("tables", name) in self.fast:
                found.append(table.time.unit or "s")
            else:
                found.append(self._unit_of("tables", name, table.time))
        return max(found, key=lambda unit: UNITS[unit])

    def _unit_of(self, kind: str, name: str, time: told.Time) -> str:
        """The unit of a table's or lookup's times: the one told, or that text or timestamps need.

        Raises:
            UsageError: they are numbers, or are naive and no zone is told.
        """
        at = (kind, name, "time")
        values = self.whence(kind, name).sample(time.column)
        if time.unit is not None and not values.dtype.is_temporal():
            return time.unit
        values = _mostly(values, _NUMBERS, _DATED)
        if values.dtype.is_numeric() or (
            values.dtype == pl.String and len(values) and values.str.contains(_NUMBERS).all()
        ):
            self.source.refuse(
                at,
                "Times that are numbers need a unit.",
                expected='unit = "s", "ms" or "us" since 1970',
                got=f"{time.column} = {values[0] if len(values) else '...'}",
                do=f'add unit = "{(unit := _likely_unit(values))}" (--unit {unit}), if so'
                if len(values)
                else None,
            )
        if time.timezone is None and (found := naive(values)) is not None:
            self.source.refuse(
                at,
                "A time without a zone may mean any of 24.",
                expected='timezone = "UTC", or the one of the clock that wrote it',
                got=f"{time.column} = {found}",
                do='add timezone = "UTC" (--timezone UTC), or that one',
            )
        return max(_finest(values), time.unit or "s", key=lambda unit: UNITS[unit])

    def check_times(self) -> None:
        """Refuse times that look like those of another unit, or are dates written as digits.

        Raises:
            UsageError: a table's or lookup's are.
        """
        for (kind, name), one in self.spec.sources.items():
            time = one.time
            there = kind == "lookups" or name not in self.fixed.get("readers", ())
            there &= (kind, name) not in self.fast  # which reads columns of its own
            if time is None or time.unit is None or not there:
                continue
            found = self.whence(kind, name).sample(time.column)
            if found.dtype.is_temporal():  # which says its unit itself
                continue
            texts = found.cast(pl.String).drop_nulls()
            for like, what, do in _DATES:
                if len(texts) and texts.str.contains(like).all():
                    self.source.refuse(
                        (kind, name, "time"),
                        what,
                        expected="numbers since 1970",
                        got=f'unit = "{time.unit}" and {time.column} = {texts[0]}',
                        do=do,
                    )
            found = found.cast(pl.Float64, strict=False).drop_nulls()
            likely = _likely_unit(found) if len(found) else time.unit
            if likely != time.unit and float(found.max() or 0) > OLD_S:  # type: ignore[arg-type]
                self.source.refuse(
                    (kind, name, "time"),
                    "Times look like those of another unit.",
                    expected=f'unit = "{likely}"',
                    got=f'unit = "{time.unit}" and {time.column} = {found[0]:.0f}',
                    do=f'say unit = "{likely}" (--unit {likely}), if so',
                )

    # What is made of it.

    def description(self) -> Description:
        """The description that steps know.

        Raises:
            UsageError: a column is not there, or something cannot be made.
            InputError: a file cannot be read.
        """
        spec, target = self.spec, self.spec.target
        names = [target.table, *(history.table for history in spec.histories.values())]
        said = canonical(spec)
        hooks = {k: v for fast in self.fast.values() for k, v in fast.hooks.items()}
        try:
            return Description(
                name=spec.name or "own",
                tables=tuple(self.table(name) for name in dict.fromkeys(names)),
                lookups=tuple(self._lookup(name) for name in spec.lookups),
                split=self._split(),
                histories={name: self._history(one, name) for name, one in spec.histories.items()},
                layout=spec.layout or ("padded" if len(spec.histories) == 1 else "ragged"),
                bins=spec.bins,
                negatives=self._negatives(),
                min_count=spec.vocabulary.min_count,
                seed=self.spec.seed,
                unit=self.unit,
                vocabulary_from=spec.vocabulary.from_,
                only_new=target.only_new,
                k_core=spec.filters.k_core,
                min_history=spec.filters.min_history,
                strict=self.rows is None,
                train={k: v for k, v in said["train"].items() if v is not None},
                timezone=getattr(target.split, "timezone", None) or "UTC",
                said=said,
                **{"fixed_bytes_a_line": _FIXED_BYTES_A_LINE, **hooks},
            )
        except ValueError as error:
            self.source.refuse((), str(error), got="a description that no step can make so far")

    def _column(self, name: str, source: str, *, nullable: bool = True) -> Column:
        return Column(name, source, self.types[name], nullable=nullable)

    def _more(self, one: Said) -> list[Column]:
        """The columns of features, numbers and lists."""
        found = [self._column(name, source) for name, source in one.features.items()]
        for name, number in one.numbers.items():
            found.append(Column(name, number.column, "number", nullable=True))
        for name, several in one.lists.items():
            of, separator = self.types[name], several.separator
            found.append(
                Column(name, several.column, "list", nullable=True, of=of, separator=separator)
            )
        return found

    def table(self, name: str) -> Table:
        """A table of events, with its reader.

        Raises:
            UsageError: as `description`.
            InputError: likewise.
        """
        spec, table = self.spec, self.spec.tables[name]
        at = self.whence("tables", name)
        own = name == spec.target.table
        drawn = spec.target.negatives
        columns = [self._column(USER, table.user, nullable=False), _time(table.time)]
        for one, source in table.fields.items():
            columns.append(
                self._column(one, source, nullable=not (own and one == drawn_field(spec)))
            )
        columns += self._more(table)
        known = {column.name for column in columns}
        for key, lookup in spec.lookups.items():
            if lookup.table == name and self._is_of_table(key):
                more = [
                    self._column(n, source)
                    for n, source in {key: lookup.key, **lookup.fields}.items()
                ]
                columns += [c for c in (*more, *self._more(lookup)) if c.name not in known]
                known |= {column.name for column in columns}
        masks = {in_history(h): one.where for h, one in spec.histories.items() if one.table == name}
        if own:
            masks[IS_TARGET] = spec.target.where
            split = spec.target.split
            if table.label is not None:
                columns.append(Column("label", table.label, "label"))
            if table.weight is not None:
                columns.append(Column("weight", table.weight, "weight"))
            if isinstance(split, told.ByColumn):
                columns.append(Column("split", split.column, "split", nullable=True))
            for one in table.keep:
                columns.append(Column(one, one, "keep", nullable=True, of=self._kept(at, one)))
        conditions = {mask: where for mask, where in masks.items() if where is not None}
        columns += [Column(mask, where, "mask") for mask, where in conditions.items()]
        outside = own and drawn is not None and drawn.exclude == "unfiltered"
        outside = outside and table.where is not None
        made: dict[str, Any] = {"file": name, "header": at.header}
        if (fast := self.fast.get(("tables", name))) is not None:
            made |= fast.puts
        if name in self.fixed.get("readers", ()):
            made["reader"] = self.fixed["readers"][name]
        elif fast is None:
            made["reader"] = self._opened(at, columns, table.where, outside)
        if self.rows is not None:
            made["reader"] = Head(made["reader"], self.rows)
        return Table(
            name=name,
            paths=tuple(self.files["tables", name]),
            fields=tuple(table.fields),
            features=tuple(table.features),
            label=own and table.label is not None,
            order=table.order or "file",
            numbers={n: of.scale for n, of in table.numbers.items()},
            lists={name: one.max_len for name, one in table.lists.items()},
            keep=table.keep if own else (),
            weight=own and table.weight is not None,
            masks=(*conditions, *((OUTSIDE,) if outside else ())),
            split=own and isinstance(spec.target.split, told.ByColumn),
            drop=table.duplicates == "drop",
            **made,
        )

    def _opened(
        self, at: Whence, columns: list[Column], where: str | None, outside: bool
    ) -> Reader:
        """The reader of a table; files that are read apart have one of their own."""
        if "opens" in self.fixed:
            found: Reader = self.fixed["opens"](at.name, columns, where, self.unit)
            return found
        paths = self.files["tables", at.name]
        apart = [path for path in paths if path in self.fixed.get("apart", ())]
        others, own = [path for path in paths if path not in apart], columns
        if self.fixed.get("unlabelled"):
            # Nobody's label: SQL has to name a column, and all rows that count have a user.
            user = quoted(self.spec.tables[at.name].user)
            zero = Column("label", f"{user} is null", "label")
            own = [zero if one.name == "label" else one for one in columns]
        seen: Mapping[str, str] = self.fixed.get("seen", {}).get(at.name, {})
        types = {column: kind for column, kind in seen.items() if kind in SQL_TYPES}
        readers: dict[Path, Reader] = {}
        for some, said in ((others, columns), (apart, own)):
            if some:
                of = Whence.of(at.kind, at.name, at.said, some)
                reader = of.open(said, where, self.unit, self.source, outside=outside, types=types)
                readers |= dict.fromkeys(some, reader)
        return Apart.of(readers)

    def _kept(self, at: Whence, column: str) -> str:
        """What a column that is passed through holds."""
        if self.fixed:
            return str(self.fixed["kept"][column])
        values = at.sample(column)
        if values.dtype.is_integer():
            return "whole"
        if values.dtype.is_float():
            return "number"
        if values.dtype == pl.String and len(values):
            if values.str.contains(CANONICAL).all():
                return "whole"
            if values.cast(pl.Float64, strict=False).is_not_null().all():
                return "number"
        return "text"

    def _is_of_table(self, name: str) -> bool:
        """Whether a lookup's rows are those that a table's reader gives anyhow.

        They are not where one name stands for two columns of the file: then it is read again.
        """
        spec, one = self.spec, self.spec.lookups[name]
        used = {spec.target.table, *(history.table for history in spec.histories.values())}
        if one.table not in used or one.missing == "refuse":
            return False
        if {("lookups", name), ("tables", one.table)} & self.fast.keys():
            return False
        table = spec.tables[str(one.table)]
        if one.time not in (None, table.time):
            return False
        others = [other for key, other in spec.lookups.items() if other.table == one.table]
        whence: dict[str, Any] = {}
        said: list[Said] = [table, *others]
        for of in said:
            columns: dict[str, Any] = {**of.fields, **of.features}
            columns |= {n: number.column for n, number in of.numbers.items()}
            columns |= {n: (several.column, several.separator) for n, several in of.lists.items()}
            if any(whence.setdefault(n, source) != source for n, source in columns.items()):
                return False
        kept = {*table.keep, "label", "weight", "split"}
        keys = all(
            whence.get(key, other.key) == other.key
            for key, other in spec.lookups.items()
            if other.table == one.table
        )
        return keys and not kept & whence.keys()

    def _lookup(self, name: str) -> Lookup:
        one = self.spec.lookups[name]
        at = self.whence("lookups", name)
        columns = [self._column(name, one.key, nullable=False)]
        columns += [self._column(n, source) for n, source in one.fields.items()]
        columns += self._more(one)
        where = one.where if one.table is None else self.spec.tables[one.table].where
        unit, tick, target = self.unit, None, self.spec.tables[self.spec.target.table]
        told_of, none = f"line of lookups.{name} whose {name}", f"is not in lookups.{name}"
        without, lacks = f"{name} values that are not in lookups.{name}", f"{name} values"
        lines = f"lines of lookups.{name}"
        if one.time is not None:
            self._unit_of("lookups", name, one.time)
            if not self._is_of_table(name):
                unit = "us"  # of two lines in one second, the later one holds
            tick = UNITS[unit] // UNITS[self.unit]
            columns.append(_time(one.time))
            told_of, none = f"{told_of} and time", f"has no earlier line in lookups.{name}"
            lacks = lines
            if name in (USER, *target.fields, *target.features):
                without = f"{self.spec.target.table} without an earlier line in lookups.{name}"
        made: dict[str, Any] = {
            "columns": {column.name: column.type for column in columns},
            "file": name if name not in self.spec.tables else f"{name}_lookup",
            "without": without,
            "lacks": f"{lacks} without a {{}}",
            "repeated": f"{told_of} had one",
            "lines": lines,
            "refuse": f"{name} {none}" if one.missing == "refuse" else None,
        }
        if (fast := self.fast.get(("lookups", name))) is not None:
            made |= fast.puts
        elif self._is_of_table(name):
            made |= {"read": _unread, "table": one.table}
        else:
            reader = at.open(columns, where, unit, self.source)
            if self.rows is not None and one.table is not None:
                reader = Head(reader, self.rows)
            made |= {"read": partial(_read, reader, at.paths), "header": at.header}
        return Lookup(
            key=name,
            path=at.paths[0],
            fields=tuple(one.fields),
            features=tuple(one.features),
            numbers={n: of.scale for n, of in one.numbers.items()},
            lists={n: several.max_len for n, several in one.lists.items()},
            repeated_rule=one.repeated,
            max_missing=one.max_missing,
            tick=tick,
            **made,
        )

    def _split(self) -> Rule:
        split = self.spec.target.split
        if isinstance(split, told.ByOrder):
            hint = 'split = { by = "order", valid = false } wants one event less'
            return ByOrder(split.valid, hint)
        if isinstance(split, told.ByDay):
            return ByDay(split.timezone)
        if isinstance(split, told.ByColumn):
            return ByColumn()
        test = self._moment(split.test, split)
        valid = test if split.valid is None else self._moment(split.valid, split)
        return ByTime(valid, test, split.timezone or "UTC")

    def _moment(self, when: str | int, split: told.ByTime) -> int:
        """A time of the split, in the unit of times."""
        found = moment(when, split.timezone)
        assert found is not None
        if isinstance(found, int):
            table = self.spec.tables[self.spec.target.table]
            return found * UNITS[self.unit] // UNITS[table.time.unit or self.unit]
        whole = int(found.replace(microsecond=0).timestamp()) * 1_000_000 + found.microsecond
        # What begins between two ticks begins at the later one.
        return -(-whole * UNITS[self.unit] // 1_000_000)

    def _history(self, one: told.History, name: str) -> History:
        gap = seconds(one.session_gap)
        assert gap is not None
        return History(
            table=one.table,
            max_len=one.max_len,
            window=one.window,
            session_gap=gap * UNITS[self.unit],
            bins=one.bins,
            sessions=one.sessions,
            where=one.where is not None,
            within=None if one.within is None else self._span(one.within),
            delay=self._span(one.delay or 0),
        )

    def _span(self, told: str | int) -> int:
        """A duration in the unit of times; what is longer than any time there is, as long as it."""
        found = seconds(told)
        assert found is not None
        return min(found * UNITS[self.unit], 1 << 60)

    def _negatives(self) -> Negatives | None:
        drawn, item = self.spec.target.negatives, drawn_field(self.spec)
        if drawn is None or item is None:
            return None
        return Negatives(
            field=item,
            each=drawn.per_positive,
            seed=self.spec.seed,
            pool=drawn.pool,
            exclude=drawn.exclude,
            weight=drawn.weight,
        )


def _time(told_of: told.Time) -> Column:
    unit, zone = told_of.unit or "iso", told_of.timezone
    return Column("time", told_of.column, "time", unit=unit, timezone=zone)


def _unread(path: Path, wanted: pl.Series | None) -> Generator[Parsed]:
    """The rows of a lookup of a table come with the table's."""
    raise AssertionError(path)


def _read(
    reader: Reader, paths: Sequence[Path], path: Path, wanted: pl.Series | None
) -> Generator[Parsed]:
    """Read a lookup's files, one after the other; rows count on from file to file."""
    begins = 0
    for one in paths:
        ends = begins
        for parsed in read(reader, one):
            rows = parsed.rows.with_columns(pl.col("row") + begins)
            if rows.height:
                ends = int(rows["row"][-1]) + 1
            yield replace(parsed, rows=rows)
        begins = ends


def are_listed(values: pl.Series) -> bool:
    """Whether nearly all are text of lists, as JSON and Python write them."""
    if values.dtype != pl.String or not len(values):
        return False
    return bool(values.str.contains(_LISTED).mean() >= MOST)  # type: ignore[operator]


def in_lists(values: pl.Series) -> pl.Series:
    """Such text as lists, of text; null where it is none after all."""
    found: list[list[str | None] | None] = []
    for one in values:
        try:
            found.append(listed(one))
        except Refusal:
            found.append(None)
    return pl.Series(values.name, found, pl.List(pl.String))


def _several(values: pl.Series, separator: str | None) -> pl.Series:
    """The values of lists, one after the other."""
    if separator is None and are_listed(values):
        values = in_lists(values)
    if values.dtype == pl.String and separator is not None:
        values = values.str.split(separator)
    if values.dtype != pl.List:
        return values
    values = values.explode().drop_nulls()
    return values.str.strip_chars(" \t") if values.dtype == pl.String else values


def _are_whole(values: pl.Series) -> bool:
    """Whether values are whole numbers, each as it is written once."""
    if values.dtype.is_integer():
        return not len(values) or (values.min() >= 0 and values.max() < 1 << 63)  # type: ignore
    if values.dtype.is_float():
        return bool(((values >= 0) & (values == values.floor())).all())
    if values.dtype.is_decimal():
        values = values.cast(pl.String)
    return values.dtype == pl.String and bool(values.str.contains(CANONICAL).all())


def _are_odd(values: pl.Series) -> pl.Series:
    """Which texts are whole numbers that are written in another way than once."""
    return values.str.contains(_WHOLE) & ~values.str.contains(CANONICAL)


def _mostly(values: pl.Series, *patterns: str) -> pl.Series:
    """Text without the few values that do not fit a pattern, where nearly all do."""
    for pattern in patterns if values.dtype == pl.String and len(values) else ():
        fits = values.str.contains(pattern)
        if fits.mean() >= MOST:  # type: ignore[operator]
            return values.filter(fits)
    return values


def _likely_unit(values: pl.Series) -> str:
    """The unit in which numbers are times of this age."""
    most = values.cast(pl.Float64, strict=False).max()
    assert isinstance(most, float)
    return "s" if most < 1e11 else "ms" if most < 1e14 else "us"


def naive(values: pl.Series) -> Any:
    """A time without a zone; None where there is none."""
    if values.dtype == pl.Date or (
        isinstance(values.dtype, pl.Datetime) and values.dtype.time_zone is None
    ):
        return values[0] if len(values) else "..."
    if values.dtype != pl.String:
        return None
    found = values.filter(~values.str.contains(_ZONED) | values.str.contains(r"^[0-9-]{10}$"))
    return found[0] if len(found) else None


def _finest(values: pl.Series) -> str:
    """The unit that no value is finer than."""
    if isinstance(values.dtype, pl.Datetime):
        micro = values.dt.epoch("us")
        if bool((micro % 1_000_000 == 0).all()):
            return "s"
        return "ms" if bool((micro % 1_000 == 0).all()) else "us"
    if values.dtype != pl.String:
        return "s"
    digits = values.str.extract(_FRACTION).drop_nulls().str.strip_chars_end("0").str.len_chars()
    most = digits.max() or 0
    assert isinstance(most, int)
    return "s" if most == 0 else "ms" if most <= 3 else "us"
