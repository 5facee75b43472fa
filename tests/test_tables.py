from __future__ import annotations

import polars as pl
import pytest

from schemas.errors import ContractError
from schemas.tables import Meta, Rejected, Reviews, check

REVIEWS = pl.DataFrame({"row": [0, 3], "user": ["A1", "A2"], "item": ["B1", "B1"], "time": [0, 9]})
META = pl.DataFrame({"line": [0, 1], "item": ["B1", "B2"], "category": ["", None]})
REJECTED = pl.DataFrame({"file": ["f"], "line": [1], "reason": ["not JSON"], "text": [""]})


def test_good_tables_pass_as_they_are() -> None:
    for model, frame in ((Reviews, REVIEWS), (Meta, META), (Rejected, REJECTED)):
        assert check(model, frame, "here") is frame
        assert check(model, frame.clear(), "here").height == 0


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (REVIEWS.with_columns(time=pl.lit(-1, pl.Int64)), "time: greater_than_or_equal_to(0)"),
        (REVIEWS.with_columns(user=pl.lit("")), "user: str_length(1, None)"),
        (REVIEWS.with_columns(item=pl.lit(None, pl.String)), "item: not_nullable"),
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
