"""The tables between the steps, one pandera model each, and the function that holds them to it.

pandera looks at values only in a `DataFrame`, so a table is checked where it is collected.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow

from schemas.errors import ContractError
from schemas.manifest import FIRST_ID, UNKNOWN_ID
from schemas.pandera_polars import SchemaErrors, pa

_SHOWN_ROWS = 3


class _Table(pa.DataFrameModel):
    """A table with just its columns, in their order, and of just their types."""

    class Config:
        """What pandera is to be strict about."""

        strict = True
        ordered = True
        coerce = False


class TextVocabulary(_Table):
    """The vocabulary of a field whose values are text."""

    value: pl.String = pa.Field(unique=True)
    id: pl.Int32 = pa.Field(ge=FIRST_ID, unique=True)
    count: pl.Int64 = pa.Field(ge=1, description="occurrences in the parsed rows")


class NumberVocabulary(_Table):
    """The vocabulary of a field whose values are numbers."""

    value: pl.Int64 = pa.Field(ge=0, unique=True)
    id: pl.Int32 = pa.Field(ge=FIRST_ID, unique=True)
    count: pl.Int64 = pa.Field(ge=1, description="occurrences in the parsed rows")


def made(name: str, columns: Mapping[str, tuple[Any, Mapping[str, Any]]]) -> type[_Table]:
    """A model of a table that a description says the columns of.

    Args:
        columns: name -> type, an instance of a Polars one, and what pandera is to hold it to; a
            column may hold nulls if that says so.
    """
    # A column may be called as a method of pandera's is: so no attribute is called after one.
    fields = {f"column_{k}": one for k, one in enumerate(columns.items())}
    body: dict[str, Any] = {
        attribute: pa.Field(alias=column, **checks)
        for attribute, (column, (_, checks)) in fields.items()
    }
    body["__annotations__"] = {attribute: kind for attribute, (_, (kind, _)) in fields.items()}
    body["__module__"] = __name__
    return type(name, (_Table,), body)


def events(name: str, columns: Mapping[str, pyarrow.DataType], ids: Iterable[str]) -> type[_Table]:
    """The model of a table of events as parsed, one row an event.

    Args:
        columns: `user`, `time`, and the others, with their types. `user`, `time`, `label` and
            `weight` hold no null.
        ids: those that are ids, besides `user`: as numbers they are 0 or more.
    """
    checks: dict[str, dict[str, Any]] = {
        "label": {"isin": [0, 1]},
        "weight": {"ge": 0, "lt": float("inf")},
    }
    known = {"user", "time", "label", "weight"}
    return _parsed(name, columns, {"user", "time", *ids}, known, checks)


def lines(name: str, key: str, columns: Mapping[str, pyarrow.DataType]) -> type[_Table]:
    """The model of a lookup's lines as parsed: one row a line, so a key may be there twice.

    All columns but the key may hold nulls.
    """
    return _parsed(name, columns, columns, {key}, {})


def encoded(
    name: str, by: Sequence[str], ids: Iterable[str], numbers: Iterable[str], lists: Iterable[str]
) -> type[_Table]:
    """The model of `lookups/<key>.parquet`: every known value of the key with its columns.

    Args:
        by: the column that is looked up; and `time`, where lines hold from one on.
        numbers: those of numbers, as they were read.
    """
    return made(
        name,
        {
            by[0]: (pl.Int32(), {"ge": FIRST_ID, "unique": len(by) == 1}),
            **{one: (pl.Int64(), {"ge": 0}) for one in by[1:]},
            **{one: (pl.Int32(), {"ge": UNKNOWN_ID}) for one in ids},
            **{one: (pl.Float64(), {"nullable": True}) for one in numbers},
            **{one: (pl.List(pl.Int32), {}) for one in lists},
        },
    )


def _parsed(
    name: str,
    columns: Mapping[str, pyarrow.DataType],
    ids: Collection[str],
    known: Collection[str],
    checks: Mapping[str, Mapping[str, Any]],
) -> type[_Table]:
    """The model of rows of a raw file, in which whole numbers that are ids are not negative."""
    found: dict[str, tuple[Any, Mapping[str, Any]]] = {"row": (pl.Int64(), {"ge": 0})}
    for column, kind in columns.items():
        dtype = polars_type(kind)
        own = checks.get(column, {"ge": 0} if column in ids and dtype == pl.Int64 else {})
        if column in known and dtype == pl.String:
            own = {"str_length": {"min_value": 1}}
        found[column] = dtype, {**own, "nullable": column not in known}
    return made(name, found)


def polars_type(kind: pyarrow.DataType) -> pl.DataType:
    """Polars' type for one of Arrow."""
    return pl.Series(pyarrow.array([], kind)).dtype


class Rejected(_Table):
    """Lines of raw files that were refused."""

    file: pl.String = pa.Field(str_length={"min_value": 1}, description="the file's name")
    line: pl.Int64 = pa.Field(
        ge=0, description="1-based line in the file; of a query its number by `row`, from 0"
    )
    reason: pl.String = pa.Field(str_length={"min_value": 1})
    text: pl.String = pa.Field(str_length={"max_value": 200}, description="how the line begins")


def empty(model: type[pa.DataFrameModel]) -> pl.DataFrame:
    """A table of the model without rows."""
    columns = model.to_schema().columns
    return pl.DataFrame(schema={name: column.dtype.type for name, column in columns.items()})


def columns(model: type[pa.DataFrameModel]) -> list[str]:
    """The names of a model's columns, in their order."""
    return [*model.to_schema().columns]


def warm_up() -> None:
    """Load pandera's checks in a thread: the first use takes a tenth of a second otherwise."""
    threading.Thread(target=check, args=(Rejected, empty(Rejected), ""), daemon=True).start()


def check(
    model: type[pa.DataFrameModel],
    frame: pl.DataFrame,
    where: str | Path,
    first: int | None = None,
) -> pl.DataFrame:
    """Return `frame` as it is if it is what `model` says.

    It takes 5 to 9 ms whatever the rows, and 10 to 20 ms more a million rows: so check a file's
    rows at once, not block by block.

    Args:
        first: the 1-based line in the raw file of what `row` calls 0; None where rows are no lines.

    Raises:
        ContractError: naming every column and check that fails, and the first rows that do, with
            the line of the raw file that the first one is of, where the table knows it.
    """
    try:
        model.validate(frame, lazy=True)
    except SchemaErrors as error:
        columns = model.to_schema().columns
        raise ContractError(
            f"The table {model.__name__} breaks its contract.",
            where=where,
            line=_first_line(frame, error.failure_cases, first),
            expected=", ".join(f"{name} {column.dtype}" for name, column in columns.items()),
            got="; ".join(_failures(error.failure_cases, frame)),
            do="this is a fault of the step that made it: please report it with this text",
        ) from None
    return frame


def _first_line(frame: pl.DataFrame, cases: pl.DataFrame, first: int | None) -> int | None:
    """The 1-based line, in the raw file, of the first row that fails; None if it has none."""
    name, more = ("line", 0) if "line" in frame.columns else ("row", first)
    at = cases["index"].drop_nulls().min()
    if at is None or more is None or name not in frame.columns:
        return None
    number = frame[name][int(str(at))]
    return number + more if isinstance(number, int) and number + more > 0 else None


def _failures(cases: pl.DataFrame, frame: pl.DataFrame) -> Iterator[str]:
    """What failed, a text for each column and check, with the first rows for which it did."""
    for (column, check), group in cases.group_by("column", "check", maintain_order=True):
        index = group["index"].drop_nulls().sort().head(_SHOWN_ROWS).to_list()
        if not index:
            shown = ", ".join(map(str, group["failure_case"].head(_SHOWN_ROWS)))
            yield f"{column}: {check}: {shown}"
            continue
        rows = "; ".join(f"row {i} {frame.row(i, named=True)}" for i in index)
        yield f"{column}: {check} fails in {group.height} rows, first {rows}"
