"""Run the queries of `sql/` over Arrow tables."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa

from schemas.interrupts import is_ctrl_c


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


def arrow(frame: pl.DataFrame) -> pa.Table:
    """A Polars table as Arrow with plain large strings, which every reader knows."""
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())
