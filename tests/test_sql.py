"""Every SQL file on given rows: `cases/<sql file>/given_<table>.csv` must give `expect.csv`.

A column's head is `name:type`; NULL is a missing value, and nothing is the empty text. The cells of
a list, `type[]`, are separated by blanks.
"""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.steps.sql import query

CASES = Path(__file__).parent / "cases"
SQL = Path(__file__).parents[1] / "sql"
FILES = sorted(str(path.relative_to(SQL).with_suffix("")) for path in SQL.rglob("*.sql"))
PARAMS: dict[str, dict[str, Any]] = {
    "vocabulary": {"first_id": 2},
    "correlation/ctc": {"places": 2, "missing": 0, "repeats": True},
    "correlation/intervals": {"in_a_second": 1},
}


def table(path: Path) -> pa.Table:
    with path.open(encoding="utf-8", newline="") as file:
        heads, *rows = csv.reader(file)
    columns = {}
    for at, head in enumerate(heads):
        name, kind = head.split(":")
        column = [None if row[at] == "NULL" else row[at] for row in rows]
        if kind.endswith("[]"):
            cells = pa.array([cell.split() for cell in column], pa.list_(pa.string()))
            columns[name] = cells.cast(pa.list_(pa.type_for_alias(kind[:-2])))
        else:
            columns[name] = pa.array(column, pa.string()).cast(kind)
    return pa.table(columns)


def given(name: str) -> dict[str, pa.Table]:
    paths = sorted((CASES / name).glob("given_*.csv"))
    return {path.stem.removeprefix("given_"): table(path) for path in paths}


def test_there_are_sql_files() -> None:
    assert {"vocabulary", "correlation/ctc"} <= set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_given_rows_give_expected_rows(name: str) -> None:
    expected = table(CASES / name / "expect.csv")
    got = query(name, given(name), **PARAMS.get(name, {}))
    assert got.column_names == expected.column_names
    assert got.to_pylist() == expected.to_pylist()
    integers = [field.name for field in expected.schema if pa.types.is_integer(field.type)]
    assert [got.schema.field(n).type for n in integers] == [
        expected.schema.field(n).type for n in integers
    ]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("seed", range(3))
def test_neither_the_order_of_rows_nor_threads_matter(name: str, seed: int) -> None:
    shuffled = {}
    for key, rows in given(name).items():
        order = list(range(rows.num_rows))
        random.Random(seed).shuffle(order)
        shuffled[key] = rows.take(order)
    got = query(name, shuffled, threads=1 + seed, **PARAMS.get(name, {}))
    assert got.to_pylist() == table(CASES / name / "expect.csv").to_pylist()


def test_numbers_sort_as_numbers() -> None:
    counted = pa.table({"value": pa.array([10, 9, -1, 10], pa.int64()), "count": [1, 2, 3, 4]})
    got = query("vocabulary", {"counted": counted}, first_id=5)
    assert got.to_pydict() == {"value": [-1, 9, 10], "id": [5, 6, 7], "count": [3, 2, 5]}
