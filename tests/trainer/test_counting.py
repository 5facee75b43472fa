"""What is counted in memory is what the SQL says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mutual_info_score

from trainer.correlation import PLACES, RELEASED_MISSING
from trainer.correlation_cells import CtcCells
from trainer.counting import count, fits, information, tables
from trainer.data import Shards


def by_sql(out: Path, column: str, places: int, missing: float, splits=("train",)) -> pa.Table:
    """The cells as the SQL gives them: no memory for counts, but all that DuckDB needs."""
    cells = CtcCells(Shards(out), splits, column, places, missing, 1024, 1)
    return cells._query("true")


def by_counts(out: Path, column: str, places: int, missing: float, splits=("train",)) -> pa.Table:
    shards = Shards(out)
    targets = range(shards.manifest.vocabulary["category"])
    return pa.concat_tables(tables(count(shards, splits, column, places, targets, 2), missing))


def require_same(found: pa.Table, expected: pa.Table) -> None:
    assert expected.num_rows
    assert found.schema.types == expected.schema.types
    for name in expected.column_names:
        a, b = found[name].to_numpy(), expected[name].to_numpy()
        if name == "bits":
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-13)
        else:
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("missing", [0.0, RELEASED_MISSING])
@pytest.mark.parametrize("column", PLACES.values())
@pytest.mark.parametrize("layout", ["padded", "ragged"])
def test_amazon(make_dataset, layout, column, missing):
    out = make_dataset(layout=layout, users=40, seed=3)
    splits = ("train", "test") if missing else ("train",)
    require_same(
        by_counts(out, column, 4, missing, splits), by_sql(out, column, 4, missing, splits)
    )


@pytest.mark.parametrize("column", PLACES.values())
@pytest.mark.parametrize("layout", ["padded", "ragged"])
def test_alibaba_whose_histories_may_be_empty(make_alibaba, layout, column):
    out = make_alibaba(layout=layout)
    require_same(by_counts(out, column, 3, 0.0), by_sql(out, column, 3, 0.0))


@pytest.mark.parametrize("column", PLACES.values())
def test_beauty(beauty_out, column):
    require_same(by_counts(beauty_out, column, 10, 0.0), by_sql(beauty_out, column, 10, 0.0))


def test_one_category_is_the_same_as_among_all(make_dataset):
    out = make_dataset(users=40)
    for column in PLACES.values():
        cells = CtcCells(Shards(out), ("train",), column, 5, 0.0, 1024, 1)
        one, everything = cells.of(3), by_counts(out, column, 5, 0.0)
        assert one.num_rows
        assert one.equals(everything.filter(pc.field("target_category") == 3))


def test_counts_that_do_not_fit_are_left_to_the_sql(make_dataset, tmp_path):
    shards = Shards(out := make_dataset(users=40, categories=49_998))
    assert not fits(shards, 50_000, PLACES["position"], 4, 1024, 1)
    assert fits(shards, 1, PLACES["position"], 4, 1024, 1)
    CtcCells(shards, ("train",), PLACES["position"], 4, 0.0, 1024, 1).write(
        tmp_path / "all.parquet"
    )
    require_same(pq.read_table(tmp_path / "all.parquet"), by_sql(out, PLACES["position"], 4, 0.0))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 200), min_size=4, max_size=4).filter(any))
def test_information_equals_scikit_learn(table):
    square = np.array(table).reshape(2, 2)
    nats = mutual_info_score(None, None, contingency=square)
    found = information(*(np.array([n]) for n in table), missing=0.0)
    assert found[0] == pytest.approx(max(0.0, nats) / np.log(2), rel=1e-9, abs=1e-12)
