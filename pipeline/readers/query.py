"""Queries of databases, each read once into a Parquet file: of one moment, in an order of its own.

PostgreSQL, DuckDB and SQLite. What a connection gives is read in one transaction that writes
nothing. Its address comes from the environment, and is in no error, log or file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
from pyarrow import compute, parquet

from pipeline.record import atomic
from schemas.errors import EnvironmentFault, InputError, TinprepError, UsageError
from schemas.interrupts import FOR_EVER
from schemas.plain import quoted

_BATCH_ROWS = 1 << 16
# Seconds that a server may take to be reached, where its address says nothing else.
_CONNECT_S = "10"
_POSTGRES = re.compile(r"postgres(ql)?://|\s*\w+\s*=")
_FILES = re.compile(r"(duckdb|sqlite):///(.+)")
# SQLite's name for a second column of one name.
_SECOND = re.compile(r"(.+):\d+")
# Classes of PostgreSQL's errors that no other query would mend; and a right that is not granted.
_NOT_OF_QUERY = ("08", "28", "40", "53", "57", "58", "XX", "42501")
_EXACT = 1 << 53
_SHOWN_LINES = 6


@dataclass(frozen=True)
class Query:
    """What is asked of a database.

    Attributes:
        name: of what it gives, e.g. `tables.shown`.
        sql: one SELECT.
        variable: of the environment, that holds the database's address.
        at: where it stands, for errors.
        row: its column of whole numbers that number the rows; None where their order is of no
            matter, so that they are ordered by all their values.
        rows: how many are read, the first; None for all.
    """

    name: str
    sql: str
    connection: str
    variable: str
    at: str
    row: str | None = None
    rows: int | None = None

    def place(self, number: int | None) -> str:
        """Where it stands, and one of its rows by `row`, if that is meant."""
        return self.at if number is None else f"{self.at}, {self.row or 'row'} = {number}"

    @property
    def address(self) -> str:
        """Of the database.

        Raises:
            UsageError: the environment does not say it, or says no address.
        """
        found = os.environ.get(self.variable, "")
        if not (_POSTGRES.match(found) or _FILES.fullmatch(found)):
            raise UsageError(
                f"The address of the database {self.connection} is not known.",
                where=f"the environment variable {self.variable}",
                expected="postgresql://user:password@host/name, duckdb:///FILE or sqlite:///FILE",
                got="something else, which may be secret" if found else "nothing",
                do=f"set {self.variable}, and run the same command again",
            )
        return found


class Answer(NamedTuple):
    """What a query gave: how many rows, the bytes of their values, and what these are known by."""

    rows: int
    bytes: int
    sha256: str


class _Database(Protocol):
    """A database within one transaction that only reads.

    Attributes:
        collation: what makes it order text by its bytes.
    """

    collation: str

    def schema(self, sql: str, name: str) -> pa.Schema:
        """The columns that a query gives, which errors call `name`; none if it is no query."""

    def batches(self, sql: str, schema: pa.Schema) -> Generator[pa.RecordBatch]:
        """The rows of a query with the columns of `schema`."""

    def cancel(self) -> None:
        """End what another thread has it do."""

    def close(self) -> None:
        """Leave it."""


class _Postgres:
    collation = ' collate "C"'

    def __init__(self, address: str) -> None:
        try:
            from adbc_driver_postgresql import dbapi
        except ImportError as error:
            raise UsageError(
                "PostgreSQL needs its driver.", got=str(error), do="pip install 'tinprep[postgres]'"
            ) from None
        os.environ.setdefault("PGCONNECT_TIMEOUT", _CONNECT_S)
        with ExitStack() as stack:
            self.connection = stack.enter_context(closing(dbapi.connect(address)))
            self.cursor = stack.enter_context(closing(self.connection.cursor()))
            self.cursor.execute("set transaction isolation level repeatable read, read only")
            self.close = stack.pop_all().close

    def schema(self, sql: str, name: str) -> pa.Schema:
        return self.cursor.adbc_execute_schema(sql)

    def batches(self, sql: str, schema: pa.Schema) -> Generator[pa.RecordBatch]:
        self.cursor.execute(sql)
        with self.cursor.fetch_record_batch() as reader:
            yield from reader

    def cancel(self) -> None:
        self.cursor.adbc_cancel()


class _DuckDB:
    collation = ""

    def __init__(self, path: str, memory: int) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="tinprep-")
        config: dict[str, str | bool | int | float | list[str]] = {
            "threads": 1,
            "memory_limit": f"{memory >> 20}MiB",
            "temp_directory": self.folder.name,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        self.connection = duckdb.connect(path, read_only=True, config=config)
        # A query reads its database, and no file besides.
        for setting in ("enable_external_access = false", "lock_configuration = true"):
            self.connection.execute(f"set {setting}")
        self.connection.begin()

    def schema(self, sql: str, name: str) -> pa.Schema:
        found: duckdb.DuckDBPyRelation | None = self.connection.sql(sql)
        if found is None:
            return pa.schema([])
        fields = found.limit(0).to_arrow_table().schema
        # Only the relation has a name twice.
        return pa.schema([f.with_name(n) for f, n in zip(fields, found.columns, strict=True)])

    def batches(self, sql: str, schema: pa.Schema) -> Generator[pa.RecordBatch]:
        found = self.connection.sql(sql)
        # Of DuckDB 1.4 by its older name.
        read = getattr(found, "to_arrow_reader", None) or found.fetch_record_batch
        yield from read(_BATCH_ROWS)

    def cancel(self) -> None:
        self.connection.interrupt()

    def close(self) -> None:
        self.connection.close()
        self.folder.cleanup()


class _SQLite:
    collation = ""

    def __init__(self, path: str) -> None:
        address = f"file:{quote(path)}?mode=ro"
        self.connection = sqlite3.connect(
            address, uri=True, isolation_level=None, check_same_thread=False
        )
        self.connection.execute("begin")
        self.connection.execute("select count(*) from sqlite_master")  # from here on it stays

    def schema(self, sql: str, name: str) -> pa.Schema:
        """As `_Database.schema`: values have types, not columns, so that all are looked at.

        Raises:
            InputError: a column has texts, or blobs, and others.
        """
        within = f"from (\n{sql}\n)"
        told = self.connection.execute(f"select * {within} limit 0").description
        names = [name for name, *_ in told]
        names = [
            m[1] if (m := _SECOND.fullmatch(name)) and m[1] in names else name for name in names
        ]
        if len({*names}) < len(names):
            return pa.schema([(name, pa.null()) for name in names])
        kinds = ("blob", "text", "real", "integer")
        looks = [f"max(typeof({quoted(n)}) = '{kind}')" for n in names for kind in kinds]
        found = self.connection.execute(f"select {', '.join(looks)} {within}").fetchone()
        types = (pa.binary(), pa.string(), pa.float64(), pa.int64(), pa.null())
        there = [[*found[4 * n : 4 * n + 4], 1] for n in range(len(names))]
        for column, (blob, text, real, integer, _) in zip(names, there, strict=True):
            if (blob or 0) + (text or 0) + ((real or integer) or 0) > 1:
                self._refuse_mixed(within, column, name)
        of_names = [of.index(1) for of in there]
        return pa.schema([(n, types[k]) for n, k in zip(names, of_names, strict=True)])

    def _refuse_mixed(self, within: str, column: str, name: str) -> None:
        name_ = quoted(column)
        counted = self.connection.execute(
            f"select typeof({name_}), count(*), min({name_}) {within} "
            f"where {name_} is not null group by 1 order by 2 desc"
        )
        raise InputError(
            f"The column {column} of {name} has values of several types.",
            expected="numbers, texts or blobs alone: SQLite has types of values, not of columns",
            got="; ".join(f"{rows:,} of {kind}, as {value!r}" for kind, rows, value in counted),
            do=f"cast it in the query, as text or as a number: cast({name_} as text) as {name_}; "
            f"or leave rows out: where typeof({name_}) = 'integer'",
        )

    def batches(self, sql: str, schema: pa.Schema) -> Generator[pa.RecordBatch]:
        with closing(self.connection.execute(sql)) as cursor:
            while rows := cursor.fetchmany(_BATCH_ROWS):
                columns = zip(*rows, strict=True)
                arrays = [pa.array(*of) for of in zip(columns, schema.types, strict=True)]
                yield pa.record_batch(arrays, schema=schema)

    def cancel(self) -> None:
        self.connection.interrupt()

    def close(self) -> None:
        self.connection.close()


def ask(
    queries: Mapping[Path, Query],
    *,
    write: bool,
    memory: int,
    told: Callable[[str, int, int | None], None],
) -> list[Answer]:
    """Read the queries of one connection, at one moment; a signal cancels them.

    Args:
        queries: by the file that each is to become.
        write: whether to write the files; without, it is only found out what they would hold.
        memory: bytes to stay within.
        told: progress: the query's name, rows so far, and how many there will be: it is unknown.

    Raises:
        UsageError: a query is wrong.
        InputError: what it gives is.
        EnvironmentFault: the database cannot be reached, or gives up.
    """
    stopped, opened = Event(), list[_Database]()

    def work() -> list[Answer]:
        with ExitStack() as stack:
            first = next(iter(queries.values()))
            with _in_our_words(first, connecting=True):
                database = _open(first.address, memory)
            opened.append(database)
            stack.callback(_left, database)
            return [
                _answer(database, query, path if write else None, stopped, told)
                for path, query in queries.items()
            ]

    # A thread that waits for a database hears no signal.
    with ThreadPoolExecutor(1, "query") as beside:
        try:
            return beside.submit(work).result(FOR_EVER)
        except BaseException:
            stopped.set()
            for database in opened:
                with suppress(Exception):
                    database.cancel()
            raise


def _open(address: str, memory: int) -> _Database:
    if (found := _FILES.fullmatch(address)) is None:
        return _Postgres(address)
    return _DuckDB(found[2], memory) if found[1] == "duckdb" else _SQLite(found[2])


def _left(database: _Database) -> None:
    with suppress(Exception):  # what went wrong before is told
        database.close()


def _answer(
    database: _Database,
    query: Query,
    path: Path | None,
    stopped: Event,
    told: Callable[[str, int, int | None], None],
) -> Answer:
    """Read one query, to a file unless that is None."""
    with ExitStack() as stack:
        stack.enter_context(_in_our_words(query))
        sql = query.sql.strip().rstrip(";")
        given = database.schema(sql, query.name)
        _check(query, given)
        columns = [_selected(field) for field in given]
        by = [quoted(query.row)] if query.row else [_ordered(f, database) for f in given]
        sql = f"select {', '.join(columns)} from (\n{sql}\n) as query"  # noqa: S608  # of theirs
        sql = f"select * from ({sql}) as plain order by {', '.join(by)}"  # noqa: S608
        sql += f" limit {query.rows}" if query.rows is not None else ""
        digest, writer, last = _Digest(), None, -1
        file = None if path is None else stack.enter_context(atomic(path))
        with closing(database.batches(sql, given)) as batches:
            for batch in batches:
                if stopped.is_set():
                    raise InterruptedError
                table = pa.table(
                    {f.name: _plain(c, f, query) for f, c in zip(given, batch.columns, strict=True)}
                )
                frame = pl.DataFrame(table)
                if query.row and len(frame):
                    last = _numbered(frame[query.row], last, query)
                digest.add(frame)
                if file is not None:
                    if writer is None:
                        writer = stack.enter_context(
                            parquet.ParquetWriter(file, table.schema, compression="zstd")
                        )
                    writer.write_table(table)
                told(query.name, digest.rows, None)
        if not digest.rows:
            raise InputError(
                f"The query of {query.name} gives no rows.",
                where=query.at,
                expected="one or more",
                got="none",
                do="look at its conditions, and at the database it is asked of",
            )
    return Answer(digest.rows, digest.bytes, digest.sha256)


def _check(query: Query, given: pa.Schema) -> None:
    """Refuse columns that cannot be.

    Raises:
        UsageError: there are none, or two have one name.
        InputError: that of row numbers is not there, or holds no whole numbers.
    """
    twice = [name for name, times in Counter(given.names).items() if times > 1]
    if not given.names or twice:
        raise UsageError(
            f"The query of {query.name} gives two columns of one name."
            if twice
            else f"The query of {query.name} gives no columns.",
            where=query.at,
            expected="one SELECT, each of whose columns has a name of its own",
            got=", ".join(given.names) or "something else",
            do=f'name them apart: select ... as "{twice[0]}_2"' if twice else None,
        )
    if query.row is None:
        return
    kind = given.field(query.row).type if query.row in given.names else None
    # Of no rows SQLite knows no types.
    if kind is None or not (pa.types.is_integer(kind) or pa.types.is_null(kind)):
        raise InputError(
            f"The query of {query.name} has no column {query.row} that numbers its rows.",
            where=query.at,
            expected=f"whole numbers in a column {query.row}",
            got=", ".join(given.names) if kind is None else f"{query.row} of type {kind}",
            do="correct `row`, or cast the column in the query, as bigint",
        )


def _numbered(values: pl.Series, last: int, query: Query) -> int:
    """The last of some numbers of rows, which have to ascend from `last`."""
    numbers = values.cast(pl.Int64, strict=False)
    what, got = "is missing", "null, or too large for 63 bits"
    if not numbers.null_count():
        found = np.concatenate([[last], numbers.to_numpy()])
        wrong = found[1:][found[1:] <= found[:-1]]
        if not len(wrong):
            return int(found[-1])
        what, got = "is negative" if wrong[0] < 0 else "stands twice", str(wrong[0])
    raise InputError(
        f"A row number of {query.name} {what}.",
        where=query.at,
        expected=f"in {query.row} a whole number from 0 for each row, and none twice",
        got=f"{query.row} = {got}",
        do="name a column that is a key, or make one: row_number() over (order by ...)",
    )


def _is_numeric(field: pa.Field) -> bool:
    """Whether it is PostgreSQL's numeric, whose values come as text."""
    return (field.metadata or {}).get(b"POSTGRESQL:type") == b"numeric"


def _is_known(kind: pa.DataType) -> bool:
    """Whether readers of Parquet know values of a type."""
    of = pa.types
    if of.is_list(kind) or of.is_large_list(kind) or of.is_fixed_size_list(kind):
        return _is_known(kind.value_type)
    if of.is_struct(kind):
        return all(_is_known(field.type) for field in kind)
    plain = (of.is_integer, of.is_floating, of.is_boolean, of.is_decimal, of.is_date32, of.is_null)
    texts = (of.is_string, of.is_large_string, of.is_binary, of.is_timestamp)
    return of.is_dictionary(kind) or any(one(kind) for one in (*plain, *texts))


def _selected(field: pa.Field) -> str:
    """A column in SQL: as it is, or as text, where it is of a type of the database's own."""
    name = quoted(field.name)
    if _is_known(field.type) or _is_numeric(field):
        return name
    several = pa.types.is_list(field.type)
    return f"cast({name} as text{'[]' * several}) as {name}"


def _ordered(field: pa.Field, database: _Database) -> str:
    kind = getattr(field.type, "value_type", field.type)
    number = _is_numeric(field) or (_is_known(kind) and not pa.types.is_string(kind))
    return quoted(field.name) + ("" if number else database.collation)


def _plain(column: pa.Array, field: pa.Field, query: Query) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        return column.cast(column.type.value_type)
    if not _is_numeric(field):
        return column
    text = column.storage if isinstance(column, pa.ExtensionArray) else column
    # Of numeric(10, 2); it is -1 where neither is said.
    modifier = int(field.metadata.get(b"POSTGRESQL:typmod", -1)) - 4
    precision, scale = modifier >> 16, modifier & 0xFFFF
    if modifier >= 0 and precision <= 38 and scale <= precision:
        told = compute.if_else(compute.equal(text, "NaN"), None, text)
        return told.cast(pa.decimal128(precision, scale))
    found = text.cast(pa.float64())
    large = compute.and_(
        compute.is_finite(found), compute.greater_equal(compute.abs(found), _EXACT)
    )
    if compute.any(large).as_py():
        raise InputError(
            f"A number of {query.name} is too large to be known exactly.",
            where=query.at,
            expected=f"in {field.name}, a numeric without precision, less than 2^53",
            got=text.filter(large)[0].as_py(),
            do="say its type in the query: cast it as bigint, numeric(38, 0) or double precision",
        )
    return found


class _Digest:
    """What rows are known by, in their order: the same whatever library has read them."""

    def __init__(self) -> None:
        self.rows = self.bytes = 0
        self._parts: dict[str, Any] = {}

    @property
    def sha256(self) -> str:
        """Of all rows so far."""
        parts = sorted((name, of.hexdigest()) for name, of in self._parts.items())
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def add(self, rows: pl.DataFrame) -> None:
        """Take in the next rows; into how many pieces they are cut is of no matter."""
        self.rows += rows.height
        for values in rows:
            self._values(values.name, values)

    def _values(self, name: str, values: pl.Series) -> None:
        """What is there, and then, by its kind, what that is."""
        self._bytes(f"{name}\0there", values.is_not_null().to_numpy().tobytes())
        values, kind = values.drop_nulls(), values.dtype
        if isinstance(kind, pl.Struct):
            for field in kind.fields:
                self._values(f"{name}\0{field.name}", values.struct.field(field.name))
        elif isinstance(kind, pl.List | pl.Array):
            values = values.cast(pl.List(kind.inner))
            lengths = values.list.len().cast(pl.Int64)
            self._bytes(f"{name}\0length", lengths.to_numpy().tobytes())
            self._values(f"{name}\0each", values.filter(lengths > 0).explode())
        elif kind in (pl.String, pl.Binary) or kind.is_decimal():
            text = values if kind == pl.Binary else values.cast(pl.String).cast(pl.Binary)
            lengths = text.bin.size().cast(pl.Int64)
            self._bytes(f"{name}\0length", lengths.to_numpy().tobytes())
            self._bytes(f"{name}\0text", b"".join(text))
        elif kind != pl.Null:
            wide = pl.Float64 if kind.is_float() else pl.Int64
            told = str(kind) if kind.is_temporal() else str(wide())
            self._bytes(f"{name}\0{told}", values.to_physical().cast(wide).to_numpy().tobytes())

    def _bytes(self, name: str, data: bytes) -> None:
        self._parts.setdefault(name, hashlib.sha256()).update(data)
        self.bytes += len(data)


@contextmanager
def _in_our_words(query: Query, *, connecting: bool = False) -> Iterator[None]:
    """Turn what a database says into one error; of the address, while it is `connecting`."""
    try:
        yield
    except TinprepError as error:
        error.where = error.where or query.at
        raise
    except (InterruptedError, KeyboardInterrupt, MemoryError):
        raise
    except Exception as error:  # of each driver's own kinds
        if not (connecting or _is_of_a_database(error)):
            raise
        if not connecting and _is_of_query(error):
            raise UsageError(
                f"The database refuses the query of {query.name}.",
                where=query.at,
                got=_said(error),
                do="mend the query",
            ) from None
        raise EnvironmentFault(
            f"The database {query.connection} cannot be reached."
            if connecting
            else f"The database {query.connection} has not given all of {query.name}.",
            where=f"the environment variable {query.variable}" if connecting else query.at,
            # What stands in quotes may be a part of the address.
            got=tuple(re.sub(r'"[^"]*"', '"..."', line) for line in _said(error)),
            do=f"check the address in {query.variable}, and that the database is there"
            if connecting
            else "run the same command again when it is there",
        ) from None


def _is_of_a_database(error: Exception) -> bool:
    theirs = isinstance(error, duckdb.Error | sqlite3.Error | pa.ArrowException)
    text = str(error)
    return theirs or hasattr(error, "sqlstate") or "[libpq]" in text


def _is_of_query(error: Exception) -> bool:
    """Whether another query would mend it."""
    state = getattr(error, "sqlstate", None)
    if state is not None:
        return not state.startswith(_NOT_OF_QUERY)
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) == sqlite3.SQLITE_ERROR
    if isinstance(error, duckdb.Error):
        return not isinstance(error, duckdb.IOException | duckdb.OutOfMemoryException)
    # In the midst of an answer a server's error has no state.
    return "ERROR:" in str(error) and "canceling" not in str(error)


def _said(error: Exception) -> tuple[str, ...]:
    """What the database says, without what the driver adds."""
    text = re.split(r"\n*Query was:|\. SQLSTATE:", str(error))[0]
    text = re.sub(r"^.*?(?=(ERROR|FATAL):)", "", text, count=1, flags=re.DOTALL)
    return tuple(line for line in text.splitlines() if line.strip())[:_SHOWN_LINES]
