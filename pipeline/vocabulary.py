"""Vocabularies: values to ids, by SQL; 0 is padding, 1 unknown, values follow in sorted order."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa

from schemas.interrupts import is_ctrl_c
from schemas.manifest import FIRST_ID


def query(name: str, tables: dict[str, pa.Table], threads: int = 1, **params: Any) -> pa.Table:
    """Run `sql/<name>.sql` over Arrow tables named as the file's header says."""
    text = resources.files("sql").joinpath(f"{name}.sql").read_text(encoding="utf-8")
    # A cursor sees the tables of no other, and costs far less than a database of its own.
    with _database(threads).cursor() as con:
        try:
            for table, rows in tables.items():
                con.register(table, rows)
            return con.sql(text, params=params or None).to_arrow_table()
        except (duckdb.Error, RuntimeError) as error:
            if is_ctrl_c(error):
                raise KeyboardInterrupt from error
            raise


@cache
def _database(threads: int) -> duckdb.DuckDBPyConnection:
    """An empty database in memory, whose queries run on so many threads."""
    # `preserve_insertion_order` stays on: without it, DuckDB before 2.0 hands over the rows of a
    # query with parameters in any order, whatever its ORDER BY.
    return duckdb.connect(config={"threads": threads})


def count_values(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """How often each value occurs: columns value, count."""
    counted = frame.group_by(pl.col(column).alias("value")).agg(
        pl.len().cast(pl.Int64).alias("count")
    )
    # Polars' strings are views: through Arrow they are copied, and let go of the bucket's file.
    return pl.DataFrame(arrow(counted))


def vocabulary(counted: pl.DataFrame) -> pa.Table:
    """value, id (int32), count of each value in summaries made by `count_values`."""
    return query("vocabulary", {"counted": arrow(counted)}, first_id=FIRST_ID)


def arrow(frame: pl.DataFrame) -> pa.Table:
    """A Polars table as Arrow with plain large strings, which every reader knows."""
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())
