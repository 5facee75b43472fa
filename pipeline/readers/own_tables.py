"""Tables of a person's own: CSV, JSON lines and Parquet as rows with the columns asked for.

```python
reader = open_table(
    [Path("ratings.csv")],
    "csv",
    (
        Column("user", "userId", "whole"),
        Column("time", "timestamp", "time", unit="s"),
        Column("item", "movieId", "whole"),
        Column("is_target", "rating = 5", "mask"),
    ),
    where="rating >= 4",
)
for parsed in read(reader, path):  # `parsed.read`
    parsed.rows  # row, user, time, item, is_target
```

A row that fails `where` is left out, or has the mask `outside`. What is wrong in any other refuses
its line with a reason that names the file's column.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from pipeline.readers.conditions import Sql, Unfit, evaluated, is_truth, types_of
from pipeline.readers.converted import Converted, converted, polars_type, text_of_bytes
from pipeline.readers.csv_text import DELIMITERS, CsvFormat, CsvSource, delimiter_told
from pipeline.readers.json_table import JsonSource
from pipeline.readers.lines import BLOCK_BYTES, Block, Part
from pipeline.readers.parquet_table import ParquetSource
from pipeline.readers.parsed import Parsed, Refused
from pipeline.readers.partitions import with_folders
from pipeline.readers.values import BLANKS, DECIMAL, Column
from schemas.errors import ByDescription, InputError, UsageError
from schemas.plain import meant, quoted
from schemas.shards import UNITS

FORMATS = ("csv", "jsonl", "parquet", "query")
OUTSIDE = "outside"
"""The mask of rows that fail `where`: they say who touched what, and count for nothing else."""

SAMPLED = 10_000
"""Records of a file that are looked at to tell what it holds."""

_TEXT = 0.1  # of a sample, where a column is of text and not of numbers with slips
_SHOWN = 60  # characters of a value that is told
SQL_TYPES: dict[str, Any] = {
    "whole": pl.Int64,
    "number": pl.Float64,
    "text": pl.String,
    "truth": pl.Boolean,
    "list": pl.List(pl.String),
}
_COLUMNS = {
    "truth": Column("", "", "label", nullable=True),
    "list": Column("", "", "list", nullable=True),
    **{of: Column("", "", "keep", nullable=True, of=of) for of in ("whole", "number", "text")},
}
_BY_FILLING: dict[str, Any] = {
    "time": 0,
    "label": 0,
    "mask": False,
    "weight": 0.0,
    "split": "train",
}


class Source(Protocol):
    """Where the columns of files come from."""

    @property
    def names(self) -> tuple[str, ...]:
        """The files' columns."""

    @property
    def schema(self) -> Mapping[str, Any] | None:
        """The types of the columns, as Polars has them; None where the files do not say them."""

    @property
    def tells_nulls(self) -> bool:
        """Whether frames hold null wherever a value is missing."""

    @property
    def nulls(self) -> frozenset[str]:
        """Text that stands for a missing value."""

    def require(self, paths: Sequence[Path], names: Sequence[str]) -> None:
        """Make sure that every file has these columns, in any order, of the types of the first.

        Raises:
            InputError: one has not.
        """

    def parts(self, path: Path) -> Sequence[Part] | None:
        """As `TableReader.parts`."""

    def blocks(self, part: Part, wanted: Mapping[str, str]) -> Generator[Any]:
        """As `Reader.blocks`; a block says its `first_row`, and in `lines` how many records."""

    def frames(
        self, block: Any, wanted: Mapping[str, str], refused: Refused
    ) -> Iterator[tuple[npt.NDArray[np.int64], pl.DataFrame]]:
        """The records of a block that have fields, a frame at a time.

        Args:
            block: of `blocks`.
            wanted: the columns, and what each is best read as: `whole`, `number` or `text`. What
                a block holds else is for `converted`.
            refused: told which records are none.

        Yields:
            (rows,) where in the block the records are; and their columns.
        """

    def record(self, block: Any, index: int) -> tuple[int, bytes | None]:
        """The 0-based line in the file where a record begins, and its text if it is text."""


@dataclass(frozen=True)
class TableReader:
    """Reads the rows of files; see `parsed.Reader`.

    Attributes:
        wanted: the columns of rows, in their order.
        where: the condition for a row to count; None where all do.
        sql: by the name of a column of rows, the expression that computes it.
        types: of the files' columns that expressions name: `whole`, `number` or `text`.
        keeps_outside: whether rows that fail `where` are kept, and told by the mask `outside`.
    """

    source: Source
    wanted: tuple[Column, ...]
    where: Sql | None
    sql: Mapping[str, Sql] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    keeps_outside: bool = False
    unit: str = "s"

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """As `Reader.columns`."""
        found = {column.name: column.type for column in self.wanted}
        return found | ({OUTSIDE: pa.bool_()} if self.keeps_outside else {})

    def parts(self, path: Path) -> Sequence[Part] | None:
        """What may be read side by side of a file; None where it may be cut at any newline.

        Raises:
            InputError: the file cannot be read.
        """
        return self.source.parts(path)

    def blocks(self, part: Part) -> Generator[Block]:
        """As `Reader.blocks`."""
        return self.source.blocks(part, self.needed)

    def parse(self, file: str, block: Any) -> Parsed:
        """As `Reader.parse`."""
        refused = Refused(file)
        left_out, frames = 0, [self._empty]
        for indices, frame in self.source.frames(block, self.needed, refused):
            rows, outside, faults = self._rows(frame, indices)
            for at, reason in faults:
                line, text = self.source.record(block, int(indices[at]))
                refused.add(line, reason, text if text is not None else _text(frame, at))
            left_out += outside
            frames.append(rows)
        rows = pl.concat(frames)
        rows = rows.with_columns(pl.col("row") + block.first_row)
        if len(frames) > 2:
            rows = rows.sort("row")
        return Parsed(rows, refused.frame(), block.lines, left_out, partial(self._line_of, block))

    def _line_of(self, block: Any, row: int) -> int:
        return self.source.record(block, row - block.first_row)[0] + 1

    @cached_property
    def _empty(self) -> pl.DataFrame:
        kinds = {name: polars_type(kind) for name, kind in self.columns.items()}
        return pl.DataFrame(schema={"row": pl.Int64, **kinds})

    @cached_property
    def needed(self) -> dict[str, str]:
        """The files' columns that are wanted, and what each is best read as."""
        uses: dict[str, set[str]] = {}
        for column in self.wanted:
            if column.name not in self.sql:
                uses.setdefault(column.source, set()).add(_use(column))
        for sql in self.expressions:
            for name in sql.columns:
                uses.setdefault(name, set()).add(self.types.get(name, "text"))
        return {name: _best(kinds) for name, kinds in uses.items()}

    @property
    def seen(self) -> dict[str, str]:
        """The files' columns that are wanted, and how SQL sees them: a key of `SQL_TYPES`.

        It is another type of Parquet's where that is none of these, and "" where no SQL names it.
        """
        found, said = dict.fromkeys(self.needed, "") | dict(self.types), self.source.schema or {}
        for name in {name for sql in self.expressions for name in sql.columns} - self.types.keys():
            kind = _seen_as(pl.Series(name, [], said[name])).dtype
            found[name] = next((of for of, one in SQL_TYPES.items() if one == kind), str(kind))
        return found

    @property
    def expressions(self) -> list[Sql]:
        """The condition, and what computes columns."""
        return [*([self.where] if self.where is not None else []), *self.sql.values()]

    def _rows(
        self, frame: pl.DataFrame, indices: npt.NDArray[np.int64]
    ) -> tuple[pl.DataFrame, int, list[tuple[int, str]]]:
        """Rows, each with its place in the block; how many are left out; the refused, and why."""
        seen, why = self._seen(frame, len(indices))
        at = pl.Series("row", indices)
        place = pl.int_range(len(indices), eager=True)
        outside = None
        if self.where is not None:
            holds = evaluated(seen, {"where": self.where})["where"]
            outside = ~holds.cast(pl.Boolean).fill_null(value=False)
            if why is not None:
                outside &= why.is_null()
        if outside is not None and not self.keeps_outside and outside.any():
            kept = ~outside
            at, seen, outside = at.filter(kept), seen.filter(kept), outside.filter(kept)
            place = place.filter(kept)
            frame = frame.filter(kept)
            why = why.filter(kept) if why is not None else None
        before = len(indices) - len(at)
        if outside is None:
            outside = pl.repeat(False, len(at), dtype=pl.Boolean, eager=True)
        computed = self._computed(seen)
        columns = {"row": at}
        for column in self.wanted:
            own = column.name not in self.sql
            values = frame[column.source] if own else computed[column.name]
            found = self._converted(values, column, own=own)
            columns[column.name], why = self._taken(found, column, outside, why)
        if self.keeps_outside:
            columns[OUTSIDE] = outside
        rows = pl.DataFrame({name: values.alias(name) for name, values in columns.items()})
        if why is None:
            return rows.cast(self._empty.schema), before, []
        bad = why.is_not_null()
        faults = list(
            zip(place.filter(bad & ~outside).to_list(), why.filter(bad & ~outside), strict=True)
        )
        left_out = before + int((bad & outside).sum())
        return rows.filter(~bad).cast(self._empty.schema), left_out, faults

    def _taken(
        self, found: Converted, column: Column, outside: pl.Series, why: pl.Series | None
    ) -> tuple[pl.Series, pl.Series | None]:
        """A column's values, and the reasons of those before it and its own."""
        values, reasons = found
        if reasons is None:
            return values, why
        if self.keeps_outside and column.kind not in ("whole", "text"):
            # Who touched what counts of such a row, and nothing else.
            fill = _BY_FILLING.get(column.kind)
            bad = reasons.is_not_null() & outside
            if bad.any():
                values = values.scatter(bad.arg_true(), fill) if column.kind != "list" else values
                reasons = reasons.set(bad, None)
        reasons = reasons + f" in {self._told(column)}"
        return values, reasons if why is None else why.fill_null(reasons)

    def _seen(self, frame: pl.DataFrame, rows: int) -> tuple[pl.DataFrame, pl.Series | None]:
        """What expressions see, and the reasons of values that they cannot."""
        columns: dict[str, pl.Series] = {}
        why: pl.Series | None = None
        for name in dict.fromkeys(n for sql in self.expressions for n in sql.columns):
            kind = self.types.get(name)
            if kind is None:
                columns[name] = _seen_as(frame[name]).alias(name)
                continue
            column = _COLUMNS[kind]
            values, reasons = self._converted(frame[name], column)
            columns[name] = values.cast(SQL_TYPES[kind]).alias(name)
            if reasons is not None:
                reasons = reasons + f" in {name}"
                why = reasons if why is None else why.fill_null(reasons)
        return pl.DataFrame(columns) if columns else pl.DataFrame(height=rows), why

    def _converted(self, values: pl.Series, column: Column, *, own: bool = True) -> Converted:
        """A column of the file's own, or one that was computed."""
        told = own and self.source.tells_nulls
        return converted(values, column, self.unit, self.source.nulls, told=told)

    def _told(self, column: Column) -> str:
        return f"({column.source})" if column.name in self.sql else column.source

    def _computed(self, seen: pl.DataFrame) -> pl.DataFrame:
        return evaluated(seen, self.sql) if self.sql else pl.DataFrame()


def open_table(
    paths: Sequence[Path],
    format: str,  # noqa: A002
    columns: Sequence[Column],
    *,
    where: str | None = None,
    outside: bool = False,
    csv: CsvFormat | None = None,
    unit: str = "s",
    types: Mapping[str, str] | None = None,
    block_bytes: int = BLOCK_BYTES,
    row: str | None = None,
) -> TableReader:
    """Look at the heads of a table's files, and make the reader of their rows.

    Args:
        paths: the files, in the order that `row` counts through them; all of the same columns.
        format: one of `FORMATS`; gzip and zstd are known by their first bytes. A `query` is Parquet
            whose folders' names say nothing.
        columns: what rows are to have. A `source` that is no column of the files is SQL.
        where: SQL; rows for which it is false or null are left out.
        outside: whether such rows are kept, and told by a column `outside`. Of them only ids count:
            what else cannot be read of them is 0 or null; where an id cannot, they are left out.
        csv: how files of text are made up.
        unit: of the times of rows: `s`, `ms` or `us`. A time that is finer is refused.
        types: of columns that SQL names, `whole`, `number` or `text`; of others a sample of the
            first file's rows tells: `number` if each is one, else `text`.
        block_bytes: read at once.
        row: the column of a query that numbers its rows; None where their places do.

    Raises:
        InputError: a file is missing, empty or unreadable, or a column is not there.
        UsageError: an expression cannot be read, or does not fit its columns.
    """
    assert unit in UNITS, unit
    source = open_source(paths, format, csv, block_bytes, row)
    condition = Sql.of(where, source.names, "where") if where is not None else None
    sql = {
        column.name: _expression(column, source.names, paths[0])
        for column in columns
        if column.source not in source.names
    }
    named = [
        name
        for one in ([condition] if condition is not None else []) + list(sql.values())
        for name in one.columns
    ]
    found = dict(types or {})
    if source.schema is None and (unknown := [name for name in named if name not in found]):
        source.require(paths, unknown)
        found |= inferred(source, paths, unknown)
    reader = TableReader(
        source, tuple(columns), condition, sql, {n: found[n] for n in named if n in found},
        outside, unit,
    )  # fmt: skip
    source.require(paths, list(reader.needed))
    _check_types(reader, paths[0])
    return reader


def open_source(
    paths: Sequence[Path],
    format: str,  # noqa: A002
    csv: CsvFormat | None = None,
    block_bytes: int = BLOCK_BYTES,
    row: str | None = None,
) -> Source:
    """The source of the files' columns; `Source.names` are theirs.

    Raises:
        InputError: as `open_table`.
    """
    assert format in FORMATS, format
    assert paths
    if format == "query":
        return ParquetSource.of(paths, row)
    found: Source
    if format == "jsonl":
        found = JsonSource.of(paths, block_bytes)
    elif format == "parquet":
        found = ParquetSource.of(paths)
    else:
        found = CsvSource.of(paths, csv or CsvFormat(), block_bytes)
    return with_folders(found, paths)


def head(source: Source, path: Path, names: Sequence[str], rows: int = SAMPLED) -> pl.DataFrame:
    """The first records of a file that have fields, as they stand: text, of a file of text.

    A column that holds values of several kinds, as JSON may, is all text.

    Raises:
        InputError: the file cannot be read.
    """
    frames, found = [], 0
    with closing(_frames(source, path, names)) as stream:
        for frame in stream:
            frames.append(frame)
            found += frame.height
            if found >= rows:
                break
    return pl.DataFrame({name: joined([f[name] for f in frames], name) for name in names}).head(
        rows
    )


def _frames(source: Source, path: Path, names: Sequence[str]) -> Generator[pl.DataFrame]:
    wanted = dict.fromkeys(names, "text")
    with closing(source.blocks(Part(path), wanted)) as stream:
        for block in stream:
            for _, frame in source.frames(block, wanted, Refused(path.name)):
                yield frame


def joined(pieces: list[pl.Series], name: str) -> pl.Series:
    """The values of a column, one piece after the other; as text where their types differ."""
    kinds = {piece.dtype for piece in pieces if piece.null_count() < len(piece)}
    if len(kinds) > 1 or pl.Object() in kinds:
        texts = [None if one is None else str(one) for piece in pieces for one in piece.to_list()]
        return pl.Series(name, texts, pl.String)
    kind = kinds.pop() if kinds else pl.String()
    alike = [p if p.dtype == kind else pl.Series(name, [None] * len(p), kind) for p in pieces]
    return pl.concat(alike) if alike else pl.Series(name, [], kind)


def inferred(source: Source, paths: Sequence[Path], names: Sequence[str]) -> dict[str, str]:
    """What columns hold by the first records of the first file that has any.

    It is said as `types` of `open_table` has it.

    `number` if all that is there is one, or `whole` if one of them is too large for a float; of
    JSON `truth` or `list` if all are; else `text`.

    Raises:
        InputError: the file cannot be read.
    """
    left = {name: ["number", "whole", "truth", "list"] for name in names}
    seen: set[str] = set()
    rows = 0
    for path in paths:
        with closing(_frames(source, path, names)) as stream:
            for frame in stream:
                for name in names:
                    values = frame[name]
                    left[name] = [k for k in left[name] if _may_be(k, values, source.nulls)]
                    if values.null_count() < len(values):
                        seen.add(name)
                rows += frame.height
                if rows >= SAMPLED:
                    break
        if rows:
            break
    return {name: [*left[name], "text"][0] if name in seen else "text" for name in names}


def _may_be(kind: str, values: pl.Series, nulls: frozenset[str]) -> bool:
    """Whether a column of this kind may hold some values."""
    if kind in ("truth", "list"):
        of = pl.Boolean if kind == "truth" else pl.List
        return values.dtype == of or values.null_count() == len(values)
    found, faults = converted(values, _COLUMNS[kind], "s", nulls)
    large = kind == "number" and (found.abs() > 1 << 53).any()
    return faults is None and not large and values.dtype != pl.Boolean


def _expression(column: Column, names: Sequence[str], path: Path) -> Sql:
    """The SQL that computes a column.

    Raises:
        InputError: it is just the name of a column that is not there.
        UsageError: it cannot be read.
    """
    if column.source.replace(".", "_").replace("-", "_").isidentifier():
        raise InputError(
            f"The file has no column {column.source}.",
            where=path,
            expected=f"one of the columns {', '.join(names)}",
            got=f"{column.source} for {column.name}" + meant(column.source, names),
            do=_other_delimiter(column.source, names) or _no_header(names),
        )
    return Sql.of(column.source, names, column.name)


def _other_delimiter(wanted: str, names: Sequence[str]) -> str | None:
    """What to do where the header is one name that holds the wanted one, cut otherwise."""
    for delimiter in DELIMITERS if len(names) == 1 else ():
        if wanted in [name.strip(BLANKS + '"') for name in names[0].split(delimiter)]:
            return delimiter_told(delimiter)
    return None


def _no_header(names: Sequence[str]) -> str | None:
    """What to do where the header seems to be a record: no column is called as a number is."""
    if not any(DECIMAL.fullmatch(name.strip(BLANKS)) for name in names):
        return None
    return ByDescription(
        "if the first line is no header, add one, or say it in a description: "
        'csv = { columns = ["user", "item", "time"] }'
    )


def _check_types(reader: TableReader, path: Path) -> None:
    """Refuse conditions that are none, before rows are read."""
    kinds: dict[str, Any] = {}
    for name in dict.fromkeys(name for sql in reader.expressions for name in sql.columns):
        if name in reader.types:
            kinds[name] = SQL_TYPES[reader.types[name]]
        elif reader.source.schema is not None:
            kinds[name] = _seen_as(pl.Series(name, [], reader.source.schema[name])).dtype
    truths = dict(reader.sql)
    masks = {column.name for column in reader.wanted if column.kind == "mask"}
    if reader.where is not None:
        truths["where"] = reader.where
        masks.add("where")
    try:
        types = types_of(kinds, truths)
    except Unfit as error:
        dropped = "left out" if error.name in masks else "refused"
        error.do = _as_numbers(reader, path, kinds, truths[error.name], dropped)
        raise
    for name, kind in types.items():
        if name in masks and not is_truth(kind):
            raise UsageError(
                "A condition is neither true nor false.",
                where=f"{name}: {truths[name].text}",
                expected="a comparison, such as price > 10",
                got=f"{kind}".lower(),
            )


def _as_numbers(
    reader: TableReader, path: Path, kinds: Mapping[str, Any], sql: Sql, dropped: str
) -> str | None:
    """What to do where text is held to numbers, and nearly all of it is one; None otherwise."""
    source, text, odd = reader.source, sql.text, []
    for name in sql.columns if source.schema is None else ():
        if kinds[name] != pl.String:
            continue
        are_odd = partial(_are_odd, nulls=source.nulls)
        if (are_odd(head(source, path, [name])[name]).mean() or 0) > _TEXT:  # type: ignore[operator]
            continue
        if (first := first_odd(source, path, name, are_odd)) is None:
            continue
        token = rf"{re.escape(quoted(name))}|(?<![\w.\"']){re.escape(name)}(?![\w.\"'])"
        plain = name if re.fullmatch(r"[^\W\d]\w*", name) else quoted(name)
        text = re.sub(token, f"try_cast({plain} as double)".replace("\\", r"\\"), text)
        odd.append(f"{path.name}:{first[0]} has {first[1]!r} in {name}")
    try:
        types_of(kinds, {"": Sql.of(text, source.names)})
    except UsageError:
        return None
    return f"write {text}: lines where it is no number are {dropped}; {', '.join(odd)}"


def _are_odd(values: pl.Series, nulls: frozenset[str]) -> pl.Series:
    """Which values are there and no number."""
    found = converted(values, _COLUMNS["number"], "s", nulls).reasons
    return pl.repeat(False, len(values), eager=True) if found is None else found.is_not_null()


def first_odd(
    source: Source, path: Path, name: str, odd: Callable[[pl.Series], pl.Series]
) -> tuple[int, str] | None:
    """The 1-based line of the first record of a sample whose value is odd, and that value.

    Raises:
        InputError: the file cannot be read.
    """
    wanted, rows = {name: "text"}, 0
    with closing(source.blocks(Part(path), wanted)) as stream:
        for block in stream:
            found = []
            for indices, frame in source.frames(block, wanted, Refused(path.name)):
                rows += frame.height
                for at in odd(frame[name]).arg_true().head(1):
                    line, _ = source.record(block, int(indices[at]))
                    found.append((line + 1, str(frame[name][at])[:_SHOWN]))
            if found or rows >= SAMPLED:
                return min(found, default=None)
    return None


def _use(column: Column) -> str:
    """What a column of text is best read as for a column of rows."""
    if column.kind == "time":
        return "text" if column.unit == "iso" else "whole"
    kinds = {"whole": "whole", "integer": "whole", "number": "number", "weight": "number"}
    return "text" if column.kind == "list" else kinds.get(column.value, "text")


def _best(uses: set[str]) -> str:
    if "text" in uses:
        return "text"
    return "whole" if "whole" in uses else "number"


def _seen_as(series: pl.Series) -> pl.Series:
    """A typed column as expressions see it: numbers wide enough that none runs over, and text."""
    kind = series.dtype
    if kind.is_integer() and kind != pl.UInt64:
        return series.cast(pl.Int64)
    if kind.is_float() or kind.is_decimal():
        return series.cast(pl.Float64).fill_nan(None)
    if kind == pl.Binary:
        return text_of_bytes(series)
    if kind in (pl.Categorical, pl.Enum):
        return series.cast(pl.String)
    return series


def _text(frame: pl.DataFrame, at: int) -> bytes:
    """A row that is no text, as text."""
    return ", ".join(
        f"{name}: {value}" for name, value in frame.row(at, named=True).items()
    ).encode()
