from __future__ import annotations

import json
import math
import os
import shutil
import signal
import threading
from collections import Counter
from importlib import resources

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mutual_info_score

from schemas.errors import EnvironmentFault, InputError, UsageError
from tests.trainer.ctc_by_hand import brute, stored
from trainer.analysis.correlation import PLACES, RELEASED_MISSING, UNKNOWN, correlate
from trainer.analysis.shard_sql import query
from trainer.data.shards import Shards

DATABASE = duckdb.connect(config={"threads": 1})


def run_sql(rows, places, missing=0.0):
    """`ctc.sql` on rows as `brute` takes them."""
    # Padding that would change every figure if it were looked at.
    padded = [[*b, (3, 1)] for _, _, b in rows]
    table = pa.table(
        {
            "target_category": pa.array([t for t, _, _ in rows], pa.int32()),
            "label": pa.array([y for _, y, _ in rows], pa.int8()),
            "history_length": pa.array([len(b) for _, _, b in rows], pa.int16()),
            "history_category": pa.array([[c for c, _ in b] for b in padded], pa.list_(pa.int32())),
            "history_place": pa.array([[p for _, p in b] for b in padded], pa.list_(pa.uint8())),
        }
    )
    text = resources.files("sql").joinpath("correlation/ctc.sql").read_text(encoding="utf-8")
    with DATABASE.cursor() as con:
        con.register("rows", table)
        found = con.sql(
            text, params={"places": places, "missing": missing, "repeats": True}
        ).fetchall()
    return {row[:3]: row[-1] for row in found}


QUICK = settings(max_examples=40, deadline=None)
behaviour = st.tuples(st.integers(1, 4), st.integers(1, 5))
row = st.tuples(st.integers(2, 3), st.integers(0, 1), st.lists(behaviour, max_size=6))


@QUICK
@given(st.lists(row, max_size=25), st.integers(1, 5), st.sampled_from([0.0, RELEASED_MISSING]))
def test_sql_equals_a_look_at_every_row(rows, places, missing):
    expected = brute(rows, places, missing)
    found = run_sql(rows, places, missing)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-9, abs=1e-12)
        assert 0 <= found[key] <= 1


@QUICK
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_two_by_two_equals_scikit_learn(pairs):
    rows = [(2, int(y), [(9, 1)] if x else []) for x, y in pairs]
    nats = mutual_info_score([x for x, _ in pairs], [y for _, y in pairs])
    found = run_sql(rows, 1)
    # A behaviour that never occurs has no row, and 0 bits.
    assert found.get((2, 9, 1), 0.0) == pytest.approx(nats / math.log(2), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("layout", ["padded", "ragged"])
@pytest.mark.parametrize("by", PLACES)
def test_all_cells_of_amazon_in_both_layouts(make_dataset, tmp_path, layout, by):
    out = make_dataset(layout=layout, users=40, seed=3)
    to = tmp_path / "ctc.parquet"
    one = correlate(out, "c3", top=3, positions=4, by=by, threads=1)
    found = correlate(out, "c3", top=3, positions=4, by=by, everything=to, threads=1)
    expected = brute(stored(out, by), 4)
    cells = pq.read_table(to).to_pylist()
    assert {(c["target_category"], c["category"], c["place"]) for c in cells} == set(expected)
    for c in cells:
        key = (c["target_category"], c["category"], c["place"])
        assert c["bits"] == pytest.approx(expected[key], rel=1e-9, abs=1e-12)
    for r, id_ in enumerate(found.ids):
        row = [expected[3, id_, p] for p in found.places]
        assert found.values[r].tolist() == pytest.approx(row, rel=1e-9, abs=1e-12)
    assert np.array_equal(one.values, found.values)
    assert (one.ids, one.places) == (found.ids, found.places) == (one.ids, (1, 2, 3, 4))
    assert one.rows[one.own] == one.category == "c3"


@pytest.mark.parametrize("layout", ["padded", "ragged"])
def test_alibaba_whose_histories_may_be_empty(make_alibaba, layout):
    out = make_alibaba(layout=layout)
    rows = stored(out, "position")
    assert any(not behaviours for _, _, behaviours in rows)
    found = correlate(out, "c4", top=9, positions=30, threads=1)
    assert found.places == tuple(range(1, 11))  # max_len is 10
    expected = brute(rows, 10)
    for r, id_ in enumerate(found.ids):
        row = [expected[4, id_, p] for p in found.places]
        assert found.values[r].tolist() == pytest.approx(row, rel=1e-9, abs=1e-12)
    assert found.targets == sum(t == 4 for t, _, _ in rows)
    assert UNKNOWN in found.rows


def test_as_released_counts_all_splits_and_moves_to_the_unit_range(make_dataset):
    out = make_dataset(users=30)
    rows = stored(out, "position", ("train", "valid", "test"))
    expected = brute(rows, 5, RELEASED_MISSING)
    found = correlate(out, "c2", top=4, positions=5, released=True, threads=1)
    raw = np.array([[expected[2, c, p] for p in found.places] for c in found.ids])
    moved = (raw - raw.min()) / (raw.max() - raw.min())
    np.testing.assert_allclose(found.values, moved, rtol=1e-9, atol=1e-12)
    assert found.targets == sum(t == 2 for t, _, _ in rows)
    assert not np.allclose(found.values, correlate(out, "c2", top=4, positions=5).values)


def test_the_rows_are_the_most_frequent_and_the_own_category_always_one(make_dataset):
    out = make_dataset(users=30)
    below = 0
    for id_ in (2, 3, 4, 5):
        whole = correlate(out, f"c{id_}", top=99, positions=6)
        sums = whole.counts.sum(1).tolist()
        assert sums == sorted(sums, reverse=True)
        for top in (1, 2, len(sums)):
            part = correlate(out, f"c{id_}", top=top, positions=6)
            others = [c for c in whole.ids if c != id_]
            assert set(part.ids) in ({*whole.ids[:top]}, {id_, *others[: top - 1]})
            assert len(part.ids) == top
            assert part.ids[part.own] == id_
            below += whole.own >= top
    assert below  # the own category was once brought in from below


def test_arrows_are_where_a_behaviour_makes_positives_rarer(make_dataset):
    found = correlate(make_dataset(), "c3", top=9, positions=3)
    seen = found.counts > 0
    rate = found.positives[seen] / found.counts[seen]
    assert np.array_equal(found.against()[seen], rate < found.label_rate)
    assert not found.against()[~seen].any()
    # A positive is of the newest behaviour's category: others there speak against it.
    assert not found.against()[found.own, 0]
    others = seen[:, 0] & (np.arange(len(found.ids)) != found.own)
    assert others.any()
    assert found.against()[others, 0].all()


def test_recovers_a_planted_decay():
    rng = np.random.default_rng(5)
    effect = np.array([1.6, 1.2, 0.9, 0.6, 0.3, 0.0])
    own = rng.random((30_000, 6)) < 0.3
    chance = 1 / (1 + np.exp(-(own - 0.3) @ effect))
    label = (rng.random(len(own)) < chance).astype(int)
    rows = [
        (2, y, [(2 if x else 3, p + 1) for p, x in enumerate(line)])
        for y, line in zip(label.tolist(), own.tolist(), strict=True)
    ]
    found = run_sql(rows, 6)
    measured = [found[2, 2, p] for p in range(1, 7)]
    assert measured == sorted(measured, reverse=True)
    assert measured[-1] < 1e-3 < measured[0] / 30
    # Small effects tell as their square.
    assert np.corrcoef(measured, effect**2)[0, 1] > 0.99


def test_beauty_shows_both_patterns_of_the_paper(beauty_out, tmp_path):
    """2.1: the target's own category tells most, and less the longer ago it was."""
    to = tmp_path / "ctc.parquet"
    correlate(beauty_out, everything=to, threads=1)
    cells = pl.read_parquet(to)
    largest = (
        cells.group_by("target_category")
        .agg(pl.col("targets").first())
        .sort("targets", "target_category", descending=[True, False])["target_category"]
        .head(20)
    )
    ranks, newest, oldest, slopes = [], [], [], []
    for target in largest:
        mine = cells.filter(pl.col("target_category") == target)
        own = mine.filter(pl.col("category") == target).sort("place")["bits"].to_numpy()
        sums = mine.group_by("category").agg(pl.col("bits").sum())["bits"].to_numpy()
        assert len(sums) > 180
        ranks.append(1 + int((sums > own.sum() + 1e-12).sum()))
        newest.append(own[0])
        oldest.append(own[-1])
        slopes.append(np.corrcoef(np.arange(10), own)[0, 1])
    assert max(ranks) <= 5
    assert ranks.count(1) >= 9
    assert all(a > b for a, b in zip(newest, oldest, strict=True))
    assert np.mean(newest) > 5 * np.mean(oldest)
    assert np.median(slopes) < -0.8


def test_little_memory_gives_the_same(make_dataset):
    out = make_dataset(users=200)
    odd = out.with_name("label=7 [x]*")  # neither a pattern nor a column
    shutil.copytree(out, odd)
    small = correlate(odd, "c3", memory_mb=48, threads=1)
    assert np.array_equal(small.values, correlate(out, "c3", threads=1).values)
    with pytest.raises(EnvironmentFault, match="do not suffice"):
        correlate(out, "c3", memory_mb=1, threads=1)


def test_without_a_name_the_category_with_most_positives(make_dataset):
    out = make_dataset()
    positives = Counter(t for t, y, _ in stored(out, "position") if y)
    most = max(positives.values())
    assert correlate(out).category in {f"c{t}" for t, n in positives.items() if n == most}


def test_what_cannot_be_measured_is_said(make_dataset, tmp_path):
    out = make_dataset()
    words = out / "vocabulary" / "category.parquet"
    words.rename(tmp_path / "away")
    with pytest.raises(InputError, match="vocabulary is missing"):
        correlate(out)
    (tmp_path / "away").rename(words)
    for options in ({"top": 0}, {"positions": 0}, {"by": "length"}):
        with pytest.raises(UsageError):
            correlate(out, **options)
    with pytest.raises(UsageError) as error:
        correlate(out, "c99")
    assert "'c2'" in str(error.value) or "'c3'" in str(error.value)
    words = pq.read_table(path := out / "vocabulary/category.parquet")
    pq.write_table(words.slice(0, 0), path)
    made = json.loads((out / "manifest.json").read_text())
    made["vocabulary"]["category"] = 2
    (out / "manifest.json").write_text(json.dumps(made))
    with pytest.raises(UsageError, match="unknown ones alone"):
        correlate(out)
    made["train"] = {}
    (out / "manifest.json").write_text(json.dumps(made))
    with pytest.raises(UsageError, match="no categories"):
        correlate(out)


def test_a_damaged_or_missing_shard_is_said(make_dataset):
    out = make_dataset()
    last = sorted((out / "train").iterdir())[-1]
    last.write_bytes(last.read_bytes()[:-20])
    with pytest.raises(InputError, match="cannot be read"):
        correlate(out)
    last.unlink()
    with pytest.raises(InputError):
        correlate(out)


# A product of so many rows that nobody waits for its end.
ENDLESS = (
    "(SELECT count(*) FROM range(9999999) a, range(9999999) b WHERE a.range % 7 > b.range % 9)"
)


def test_a_ctrl_c_during_a_query_is_one(planted):
    timer = threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            query(
                "correlation/targets",
                Shards(planted),
                ("train",),
                "*",
                where=f"{ENDLESS} > 0",
                threads=1,
            )
    finally:
        timer.join()


def test_other_errors_of_a_query_are_no_ctrl_c(planted):
    with pytest.raises(InputError) as caught:
        query("correlation/targets", Shards(planted), ("train",), "nonsense")
    assert isinstance(caught.value.__cause__, duckdb.BinderException)
