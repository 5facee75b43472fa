"""Vocabularies by brute force, and what becomes of a Ctrl-C that a query meets."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.steps import sql, vocabulary
from schemas.manifest import FIRST_ID

# Beyond the Basic Multilingual Plane, the order of UTF-16 is not that of bytes.
WORDS = st.one_of(st.none(), st.text(st.sampled_from("aBé～😀 9"), max_size=3))
NUMBERS = st.one_of(st.none(), st.integers(0, 12), st.integers(-(2**63), 2**63 - 1))


@given(
    buckets=st.one_of(
        *(
            st.lists(st.lists(kind, max_size=12), min_size=1, max_size=4)
            for kind in (WORDS, NUMBERS)
        )
    )
)
def test_a_vocabulary_is_every_value_in_order_with_its_count(
    buckets: list[list[str | int | None]],
) -> None:
    every = [value for bucket in buckets for value in bucket]
    kind = pl.Int64 if any(isinstance(value, int) for value in every) else pl.String
    summaries = [
        vocabulary.count_values(pl.DataFrame({"brand": pl.Series(bucket, dtype=kind)}), "brand")
        for bucket in buckets
    ]
    for summary, bucket in zip(summaries, buckets, strict=True):
        assert summary.schema == {"value": kind, "count": pl.Int64}
        assert dict(summary.rows()) == Counter(bucket)
    counted = Counter(value for value in every if value is not None)
    ordered = sorted(counted, key=lambda v: v.encode() if isinstance(v, str) else v)
    got = vocabulary.vocabulary(pl.concat(summaries))
    assert got.column_names == ["value", "id", "count"]
    assert [got.schema.field(name).type for name in ("id", "count")] == [pa.int32(), pa.int64()]
    assert got.to_pylist() == [
        {"value": value, "id": FIRST_ID + rank, "count": counted[value]}
        for rank, value in enumerate(ordered)
    ]


def test_text_goes_to_arrow_as_every_reader_knows_it() -> None:
    table = vocabulary.arrow(pl.DataFrame({"value": ["a", None], "count": [1, 2]}))
    assert table.schema.types == [pa.large_string(), pa.int64()]


def counts_then(event: object) -> pa.RecordBatchReader:
    """Rows of `counted`, in the middle of which `event` happens."""
    schema = pa.schema([("value", pa.int64()), ("count", pa.int64())])

    def batches() -> Iterator[pa.RecordBatch]:
        for k in range(3_000):
            if k == 3:
                event()  # type: ignore[operator]
            yield pa.record_batch([pa.array([k] * 1_000), pa.array([1] * 1_000)], schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def stop() -> None:
    raise KeyboardInterrupt


def fail() -> None:
    raise ValueError("not a Ctrl-C")


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("event", [stop, press])
def test_a_ctrl_c_that_a_query_meets_is_one(event: object) -> None:
    with pytest.raises(KeyboardInterrupt):
        sql.query("vocabulary", {"counted": counts_then(event)}, first_id=2)


def test_an_interrupted_query_is_a_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    with duckdb.connect() as con:

        class Database:
            def cursor(self) -> duckdb.DuckDBPyConnection:
                return con

        monkeypatch.setattr(sql, "_database", lambda threads: Database())
        with pytest.raises(KeyboardInterrupt) as caught:
            rows = counts_then(con.interrupt)
            sql.query("vocabulary", {"counted": rows}, first_id=2)
        assert isinstance(caught.value.__cause__, duckdb.InterruptException)


def test_other_errors_of_a_query_stay_what_they_are() -> None:
    with pytest.raises(duckdb.CatalogException, match="counted"):
        sql.query("vocabulary", {}, first_id=2)
    with pytest.raises((duckdb.Error, RuntimeError), match="not a Ctrl-C"):
        sql.query("vocabulary", {"counted": counts_then(fail)}, first_id=2)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_query_runs_on_the_threads_it_is_given(threads: int) -> None:
    with sql._database(threads).cursor() as con:
        found = con.execute("SELECT current_setting('threads')").fetchall()
    assert found == [(threads,)]


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("rows", [2_047, 2_049, 100_000])
def test_a_query_keeps_its_order(threads: int, rows: int) -> None:
    """Also one with parameters, whose result DuckDB may hand over in parts, side by side."""
    counted = pa.table({"value": range(rows, 0, -1), "count": [1] * rows})
    found = sql.query("vocabulary", {"counted": counted}, threads, first_id=2)
    assert found["value"].to_pylist() == list(range(1, rows + 1))
    assert found["id"].to_pylist() == list(range(2, rows + 2))
