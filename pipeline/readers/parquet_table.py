"""Parquet files as columns: row groups at a time, of which the columns wanted are read."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
from pyarrow import compute, parquet

from pipeline.readers.lines import Part
from pipeline.readers.packed import DAMAGE, Packing, damaged, packing_by
from pipeline.readers.parsed import Refused
from pipeline.readers.remote import RemotePath
from schemas.errors import InputError

_DAMAGE = (*DAMAGE, pa.ArrowException)
_BLOCK_ROWS = 1 << 18
_MOST_ROWS = 1 << 20  # of a block: a larger row group is read in pieces
_SHOWN = 200  # characters of an error


@dataclass(frozen=True)
class ParquetBlock:
    """Consecutive rows of a file.

    Attributes:
        first_row: 0-based number of the first row in the file.
        table: the rows, where they are but some of a row group; else they are read when parsed.
    """

    path: Path
    first_row: int
    lines: int
    groups: tuple[int, ...]
    table: pa.Table | None = None


@dataclass(frozen=True)
class ParquetSource:
    """Where the columns of Parquet files come from; see `own_tables.Source`.

    Attributes:
        schema: the type of each column of the first file, or of the first that has values of it; of
            structs within, `a.b`.
        row: the column of whole numbers that numbers the rows; None where their places do.
    """

    schema: Mapping[str, Any]
    row: str | None = None

    @classmethod
    def of(cls, paths: Sequence[Path], row: str | None = None) -> ParquetSource:
        """Look at the first file's schema.

        Raises:
            InputError: the file cannot be read, or is no Parquet.
        """
        schema = dict(_columns(_opened(paths[0]).schema))
        for path in paths[1:] if pl.Null in schema.values() else ():
            there = dict(_columns(_opened(path).schema))
            schema |= {n: there.get(n, kind) for n, kind in schema.items() if kind == pl.Null}
        return cls(schema, row)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns."""
        return tuple(self.schema)

    tells_nulls = False
    nulls = frozenset[str]()  # Parquet has a null of its own

    def require(self, paths: Sequence[Path], names: Sequence[str]) -> None:
        """As `Source.require`."""
        for path in paths[1:]:
            there = dict(_columns(_opened(path).schema))
            lacking = [name for name in names if name not in there]
            other = [n for n in names if n in there and not _alike(there[n], self.schema[n])]
            if lacking or other:
                raise InputError(
                    "A file has other columns than the first one."
                    if lacking
                    else "A file has a column of another type than the first one.",
                    where=path,
                    expected=", ".join(f"{name} ({self.schema[name]})" for name in lacking + other),
                    got=", ".join(f"{name} ({kind})" for name, kind in there.items()),
                )

    def parts(self, path: Path) -> list[Part]:
        """Each row group as a part, which begins at its number."""
        row, found = 0, []
        for group, rows in enumerate(_opened(path).groups):
            found.append(Part(path, group, group + 1, row))
            row += rows
        return found or [Part(path)]

    def blocks(self, part: Part, wanted: Mapping[str, str]) -> Generator[ParquetBlock]:
        """As `Source.blocks`."""
        path, row = part.path, part.first_line
        groups: list[int] = []
        rows = 0
        for group, more in list(enumerate(_opened(path).groups))[part.begin : part.end]:
            if groups and rows + more > _BLOCK_ROWS:
                yield ParquetBlock(path, row, rows, tuple(groups))
                row, rows, groups = row + rows, 0, []
            if more > _MOST_ROWS:
                for table in self._pieces(path, group, wanted):
                    yield ParquetBlock(path, row, len(table), (group,), table)
                    row += len(table)
            else:
                groups, rows = [*groups, group], rows + more
        if rows:
            yield ParquetBlock(path, row, rows, tuple(groups))

    def frames(
        self, block: ParquetBlock, wanted: Mapping[str, str], refused: Refused
    ) -> Iterator[tuple[npt.NDArray[np.int64], pl.DataFrame]]:
        """As `Source.frames`."""
        table = block.table
        if table is None:
            with told(block.path), _reopened(block.path) as file:
                names = self._read_for(wanted)
                table = file.read_row_groups(block.groups, names, use_threads=False)
        if odd := [name for name in wanted if self.schema[name] == pl.Unknown]:
            fields = [table.schema.field(name.split(".")[0]) for name in odd]
            raise InputError(
                "A column is of a type that cannot be read.",
                where=block.path,
                expected="numbers, text, dates, times, or lists of them",
                got=", ".join(f"{field.name} ({field.type})" for field in fields),
                do="write it as another type",
            )
        columns = {name: _column(table, name) for name in wanted}
        rows = np.arange(block.lines)
        if self.row is not None:
            rows = _column(table, self.row).cast(pl.Int64).to_numpy() - block.first_row
        yield rows, pl.DataFrame(columns)

    def record(self, block: ParquetBlock, index: int) -> tuple[int, None]:
        """As `Source.record`: a row has no text, and is known by its number where it has one."""
        return block.first_row + index - (self.row is not None), None

    def _read_for(self, wanted: Mapping[str, str]) -> list[str]:
        return [*{*wanted, *([self.row] if self.row is not None else [])}]

    def _pieces(self, path: Path, group: int, wanted: Mapping[str, str]) -> Iterator[pa.Table]:
        """The rows of a large row group, some at a time."""
        with told(path), _reopened(path) as file:
            for batch in file.iter_batches(
                _BLOCK_ROWS, row_groups=[group], columns=self._read_for(wanted), use_threads=False
            ):
                yield pa.Table.from_batches([batch])


def _reopened(path: Path) -> parquet.ParquetFile:
    return _file(path, metadata=_opened(path).metadata)


def _file(path: Path, **more: Any) -> parquet.ParquetFile:
    """A file, of which nothing is read that is not asked for: of a store in as few requests."""
    if not isinstance(path, RemotePath):
        return parquet.ParquetFile(path, **more)
    return parquet.ParquetFile(path.open(buffering=0), pre_buffer=True, **more)


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Any damage of a file ends in one `InputError`."""
    try:
        yield
    except _DAMAGE as error:
        raise _unreadable(path, error) from None


class _Footer(NamedTuple):
    """What a file says of itself."""

    metadata: parquet.FileMetaData
    schema: pa.Schema

    @property
    def groups(self) -> list[int]:
        """The rows of each row group."""
        return [self.metadata.row_group(k).num_rows for k in range(self.metadata.num_row_groups)]


def rows_of(path: Path) -> int:
    """How many rows a Parquet file has.

    Raises:
        InputError: it cannot be read.
    """
    return int(_opened(path).metadata.num_rows)


def _opened(path: Path) -> _Footer:
    with told(path):
        found = path.stat()
        return _footer(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=1024)
def _footer(path: Path, size: int, changed: int) -> _Footer:
    """What a file says of itself, which is not read again while it is the same."""
    with _file(path) as file:
        found = _Footer(file.metadata, file.schema_arrow)
    names = found.schema.names
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise InputError(
            "The file has a column's name twice.",
            where=path,
            expected="a name of its own for each column",
            got=", ".join(names)[:_SHOWN],
            do=f"write it with other names for {', '.join(twice)[:_SHOWN]}",
        )
    return found


def _unreadable(path: Path, error: Exception) -> InputError:
    if isinstance(error, OSError) and error.errno is not None:
        return damaged(path, 0, error)
    with path.open("rb") as file:
        packed = packing_by(file.read(8)) is not Packing.TEXT
    return InputError(
        "The Parquet file cannot be read.",
        where=path,
        expected="a whole Parquet file",
        got=str(error).splitlines()[0][:300],
        do="unpack it: Parquet is packed within"
        if packed
        else "write or download it again, or say its format",
    )


def _columns(schema: pa.Schema) -> Iterator[tuple[str, Any]]:
    """The columns and their types as Polars has them; the fields of structs by `a.b`."""

    def below(name: str, kind: pa.DataType) -> Iterator[tuple[str, Any]]:
        if pa.types.is_struct(kind):
            for field in kind:
                yield from below(f"{name}.{field.name}", field.type)
        else:
            yield name, _polars_type(kind)

    for field in schema:
        yield from below(field.name, field.type)


_UUID = "arrow.uuid"


def _plain(kind: pa.DataType) -> pa.DataType:
    """As what Polars takes a type: times whose zone is an offset, and an extension's storage."""
    if isinstance(kind, pa.BaseExtensionType):
        return kind.storage_type
    of_offset = pa.types.is_timestamp(kind) and (kind.tz or "").startswith(("+", "-"))
    return pa.timestamp(kind.unit, "UTC") if of_offset else kind


def _polars_type(kind: pa.DataType) -> Any:
    if "decimal256" in str(kind):  # Polars panics
        return pl.Unknown()
    if getattr(kind, "extension_name", "") == _UUID:
        return pl.String()
    try:
        return pl.Series(pa.array([], _plain(kind))).dtype
    except (pa.ArrowException, pl.exceptions.PolarsError, TypeError, ValueError):
        return pl.Unknown()


def _alike(one: Any, other: Any) -> bool:
    """Whether types are of one kind, as is that of a column without any value."""
    return pl.Null in (one, other) or _kind(one) == _kind(other)


def _kind(of: Any) -> str:
    """What a type is at large: files of one table may be of integers of several widths."""
    if isinstance(of, str) or of in (pl.String, pl.Categorical, pl.Enum, pl.Binary):
        return "text"
    return "number" if of.is_numeric() else str(of.base_type())


def _column(table: pa.Table, name: str) -> pl.Series:
    """A column by its name; of a struct, a field."""
    first, *rest = [name] if name in table.column_names else name.split(".")
    array = table[first]
    for field in rest:
        array = compute.struct_field(array, field)
    kind = _plain(array.type)
    series = pl.Series(name, array if kind == array.type else array.cast(kind))
    if getattr(array.type, "extension_name", "") == _UUID:
        return series.bin.encode("hex").str.replace("^(.{8})(.{4})(.{4})(.{4})", "$1-$2-$3-$4-")
    return series
