from __future__ import annotations

from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from schemas.errors import ContractError
from schemas.tables import (
    NumberVocabulary,
    Rejected,
    TextVocabulary,
    check,
    encoded,
    events,
    lines,
)

REVIEWS = pl.DataFrame({"row": [0, 3], "user": ["A1", "A2"], "item": ["B1", "B1"], "time": [0, 9]})
META = pl.DataFrame({"row": [0, 1], "item": ["B1", "B2"], "category": ["", None]})
REJECTED = pl.DataFrame({"file": ["f"], "line": [1], "reason": ["not JSON"], "text": [""]})

IMPRESSIONS = pl.DataFrame(
    {"row": [5, 7], "user": [1, 2], "time": [1, 2], "ad": [1, 1], "pid": ["a", None]}
).with_columns(label=pl.Series([0, 1], dtype=pl.Int8))
ITEMS = pl.DataFrame(
    {"item": [2, 3], "category": [1, 5]}, schema={"item": pl.Int32, "category": pl.Int32}
)
TEXT, NUMBER = pa.large_string(), pa.int64()
Reviews = events("reviews", {"user": TEXT, "item": TEXT, "time": NUMBER}, ["item"])
Meta = lines("lines", "item", {"item": TEXT, "category": TEXT})
Impressions = events(
    "impressions",
    {"user": NUMBER, "time": NUMBER, "ad": NUMBER, "pid": TEXT, "label": pa.int8()},
    ["ad", "pid"],
)
ENCODED = encoded("items", ["item"], ["category"], [], [])


def test_good_tables_pass_as_they_are() -> None:
    for model, frame in ((Reviews, REVIEWS), (Meta, META), (Rejected, REJECTED)):
        assert check(model, frame, "here") is frame
        assert check(model, frame.clear(), "here").height == 0


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (REVIEWS.with_columns(time=pl.lit(-1, pl.Int64)), "time: greater_than_or_equal_to(0)"),
        (REVIEWS.with_columns(user=pl.lit("")), "user: str_length(1, None)"),
        (REVIEWS.with_columns(user=pl.lit(None, pl.String)), "user: not_nullable"),
        (REVIEWS.with_columns(row=pl.col("row").cast(pl.Int32)), "row: dtype('Int64'): Int32"),
        (REVIEWS.drop("time"), "column_in_dataframe: time"),
        (REVIEWS.with_columns(more=1), "column_in_schema: more"),
        (REVIEWS.select("user", "row", "item", "time"), "column_ordered"),
    ],
)
def test_a_broken_table_says_what_and_where(frame: pl.DataFrame, said: str) -> None:
    with pytest.raises(ContractError) as caught:
        check(Reviews, frame, "reviews.json.gz")
    assert said in str(caught.value)
    assert "reviews.json.gz" in str(caught.value)


def test_the_first_bad_rows_are_shown() -> None:
    frame = pl.concat([REVIEWS] * 5).with_columns(time=pl.Series([1, 2, -3, 4, -5, 6, 7, 8, 9, 10]))
    with pytest.raises(ContractError, match=r"fails in 2 rows, first row 2 .*-3.*; row 4 .*-5"):
        check(Reviews, frame, "here")


LINES = [
    (Reviews, REVIEWS.with_columns(time=pl.Series([0, -9])), 1, 4),  # row 3, from 0
    (Meta, META.with_columns(item=pl.Series(["B1", ""])), 1, 2),
    (Impressions, IMPRESSIONS.with_columns(label=pl.Series([0, 2], dtype=pl.Int8)), 2, 9),
    (Impressions, IMPRESSIONS.with_columns(label=pl.Series([0, 2], dtype=pl.Int8)), None, None),
    (Rejected, REJECTED.with_columns(reason=pl.lit("")), None, 1),
    (ENCODED, ITEMS.with_columns(category=pl.Series([0, 1], dtype=pl.Int32)), None, None),
]


@pytest.mark.parametrize(("model", "frame", "first", "line"), LINES)
def test_the_line_of_the_raw_file_is_named(
    model: type[Any], frame: pl.DataFrame, first: int | None, line: int | None
) -> None:
    with pytest.raises(ContractError) as caught:
        check(model, frame, "raw.csv", first)
    assert caught.value.line == line
    assert caught.value.got is not None
    assert "fails in 1 rows, first row" in caught.value.got


@pytest.mark.parametrize("value", [["a", "b"], [0, 1 << 40]])
def test_vocabularies(value: list[Any]) -> None:
    model = TextVocabulary if isinstance(value[0], str) else NumberVocabulary
    good = pl.DataFrame({"value": value, "id": [2, 3], "count": [5, 1]}).cast({"id": pl.Int32})
    assert check(model, good, "here") is good
    for bad, said in (
        (good.with_columns(value=pl.col("value").first()), "value: field_uniqueness"),
        (good.with_columns(id=pl.col("id") - 1), "id: greater_than_or_equal_to(2)"),
        (good.with_columns(count=pl.col("count") - 1), "count: greater_than_or_equal_to(1)"),
    ):
        with pytest.raises(ContractError) as caught:
            check(model, bad, "here")
        assert said in str(caught.value)
