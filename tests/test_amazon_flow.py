"""`tinprep amazon` from raw files to shards, against the oracle and the released algorithm."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pipeline.synthetic.amazon import synthesize_amazon
from pipeline.synthetic.recipe import AmazonRecipe
from pipeline.verify import verify
from schemas.manifest import Manifest, load
from tests.amazon_made import (
    TOUCHED,
    agree,
    check_parity,
    held,
    read_shards,
    shards,
)
from tests.conftest import amazon, finished, meta_file, reviews_file, write_raw
from tests.oracle import Review, oracle, quantile_edges
from tests.released import read_meta, read_reviews

DAY = 86_400
Values = npt.NDArray[np.int64]


# ---- Beauty, as it is


@pytest.fixture(scope="module")
def manifest(beauty_out: Path) -> Manifest:
    return load(beauty_out)


@pytest.fixture(scope="module")
def rows(beauty_out: Path) -> pl.DataFrame:
    return shards(beauty_out)


def test_bins_are_the_exact_quantiles_of_the_train_split(
    manifest: Manifest, rows: pl.DataFrame
) -> None:
    stored = rows.filter((pl.col("label") == 1) & (pl.col("split") == "train"))
    inside = np.arange(50) < stored["history_length"].to_numpy()[:, None]
    intervals = (stored["target_time"].to_numpy()[:, None] - stored["history_time"].to_numpy())[
        inside
    ]
    edges = quantile_edges(intervals.tolist(), 10)
    assert manifest.history.bins.count == 10
    assert manifest.history.bins.edges_s == edges
    assert edges[0] == 0  # over a tenth of the behaviours are of the target's own day
    numbers = stored["history_interval_bin"].to_numpy()
    assert not numbers[~inside].any()
    counts = np.bincount(numbers[inside], minlength=11)
    # Each positive's negative has the same history.
    assert (2 * counts).tolist() == [0, *manifest.history.bins.train_counts]
    share = counts[1:] / counts.sum()
    # From the third bin on no interval holds as much as a hundredth.
    values, often = np.unique(intervals, return_counts=True)
    assert often[values > edges[1]].max() < 0.01 * len(intervals)
    assert np.abs(share[2:] - 0.1).max() < 0.01
    # The other splits are binned by the same edges.
    others = rows.filter(pl.col("split") != "train")
    kept = np.arange(50) < others["history_length"].to_numpy()[:, None]
    others_s = others["target_time"].to_numpy()[:, None] - others["history_time"].to_numpy()
    want = np.searchsorted(edges, others_s, side="left") + 1
    assert np.array_equal(others["history_interval_bin"].to_numpy()[kept], want[kept])


@pytest.mark.parametrize(
    "flags", [("--buckets", 1, "--threads", 2), ("--buckets", 7, "--threads", 1)]
)
def test_same_rows_whatever_the_buckets_and_threads(
    beauty: Path, rows: pl.DataFrame, tmp_path: Path, flags: tuple[object, ...]
) -> None:
    finished(amazon(beauty, tmp_path / "out", "--bins", 10, *flags))
    got = shards(tmp_path / "out")
    assert got.columns == rows.columns
    assert got.equals(rows)


def test_another_seed_draws_other_negatives_and_the_same_positives(
    beauty: Path, rows: pl.DataFrame, tmp_path: Path
) -> None:
    finished(amazon(beauty, tmp_path / "out", "--bins", 10, "--seed", 9))
    got = shards(tmp_path / "out")
    positive = pl.col("label") == 1
    assert got.filter(positive).equals(rows.filter(positive))
    assert (got["target_item"] != rows["target_item"]).sum() > 0.99 * rows.height / 2


# ---- a part of Beauty, and made-up logs, column by column


@pytest.fixture(scope="module")
def part(
    beauty: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Review | None], list[tuple[str, str | None]]]:
    """All reviews of every 75th user of Beauty, and the whole meta."""
    lines = read_reviews(reviews_file(beauty))
    chosen = set(sorted({user for user, _, _ in lines})[::75])
    reviews: list[Review | None] = [Review(*line) for line in lines if line[0] in chosen]
    meta: list[tuple[str, str | None]] = [*read_meta(meta_file(beauty))]
    return write_raw(tmp_path_factory.mktemp("part"), reviews, meta), reviews, meta


@pytest.mark.parametrize("layout", ["padded", "ragged"])
@pytest.mark.parametrize("split", ["tin", "din"])
def test_part_of_beauty_equals_the_oracle(
    part: tuple[Path, list[Review | None], list[tuple[str, str | None]]],
    tmp_path: Path,
    layout: str,
    split: Any,
) -> None:
    raw_folder, reviews, meta = part
    flags = ["--layout", layout, "--split", split, "--max-len", 5, "--bins", 4, "--negatives", 2]
    finished(amazon(raw_folder, tmp_path / "out", *flags))
    expected, full = held(oracle(reviews, meta, max_len=5, bins=4, split=split), 4)
    assert len(expected.rows) > 1_000
    agree(tmp_path / "out", expected, full, negatives=2)


REVIEW = st.builds(
    Review,
    user=st.sampled_from(["A1", "A10", "A2", "é", "\U0001f600"]),
    item=st.sampled_from(["0528881469", "B1", "B10", "B2", "\uffff"]),
    time=st.sampled_from([0, 1, DAY, DAY + 1, 2 * DAY, 3 * DAY + 2, 1_400_000_000]),
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(
    reviews=st.lists(st.one_of(REVIEW, REVIEW, REVIEW, st.none()), min_size=6, max_size=40),
    meta=st.lists(
        st.tuples(
            st.sampled_from(["0528881469", "B1", "B10", "B2", "unreviewed"]),
            st.sampled_from(["Red", "Øre", "Blue", None]),
        ),
        min_size=1,
        max_size=6,
    ),
    layout=st.sampled_from(["padded", "ragged"]),
    split=st.sampled_from(["tin", "din"]),
    max_len=st.integers(1, 6),
    bins=st.integers(1, 5),
    negatives=st.integers(1, 3),
    buckets=st.integers(1, 4),
    duplicates=st.sampled_from(["keep", "drop"]),
)
def test_made_up_logs_equal_the_oracle(
    reviews: list[Review | None],
    meta: list[tuple[str, str | None]],
    layout: str,
    split: Any,
    max_len: int,
    bins: int,
    negatives: int,
    buckets: int,
    duplicates: Any,
) -> None:
    # An item that only one user has, so that not everybody has touched everything.
    reviews = [*reviews, *reviews[::5], Review("A1", "seldom", 5), Review("A2", "rare", 5)]
    how = {"max_len": max_len, "bins": bins, "split": split, "duplicates": duplicates}
    whole = oracle(reviews, meta, **how)
    expected, full = held(whole, bins)
    assume(any(row.split == "train" for row in expected.rows))
    with tempfile.TemporaryDirectory() as folder:
        raw_folder, out = write_raw(Path(folder) / "raw", reviews, meta), Path(folder) / "out"
        flags: list[object] = ["--layout", layout, "--split", split, "--max-len", max_len]
        flags += ["--bins", bins, "--negatives", negatives, "--buckets", buckets]
        flags += ["--duplicates", duplicates]
        finished(amazon(raw_folder, out, *flags, "--max-rejected", "100%"))
        agree(out, expected, full, negatives)
        assert load(out).rejected.get("not JSON", 0) == reviews.count(None)
        assert verify(out).findings == ()


def test_who_has_touched_every_item_gives_no_rows(tmp_path: Path) -> None:
    items = ["B1", "B2", "B3", "B4", "B5"]
    reviews: list[Review | None] = [Review("all", item, n * DAY) for n, item in enumerate(items)]
    reviews += [Review("some", item, n * 10 * DAY) for n, item in enumerate(items[:4])]
    raw_folder = write_raw(tmp_path / "raw", reviews, [(item, "Red") for item in items])
    finished(amazon(raw_folder, tmp_path / "out", "--bins", 2))
    got = read_shards(tmp_path / "out")
    assert {row["user"] for row in got} == {3}
    assert load(tmp_path / "out").rejected[TOUCHED] == 4
    assert {row["target_item"] for row in got if row["label"] == 0} == {6}
    # Bins are those of the histories as stored: one train target, ten days after its behaviour.
    bins = load(tmp_path / "out").history.bins
    assert (bins.edges_s, bins.train_counts) == ([10 * DAY], [2, 0])


def test_hashed_ties_change_only_the_order_within_a_second(
    part: tuple[Path, list[Review | None], list[tuple[str, str | None]]], tmp_path: Path
) -> None:
    one, two, other = (tmp_path / name for name in ("one", "two", "other"))
    flags = ["--ties", "hash", "--bins", 4]
    finished(amazon(part[0], one, *flags))
    finished(amazon(part[0], two, *flags, "--buckets", 3))
    finished(amazon(part[0], other, "--ties", "file", "--bins", 4))
    assert shards(one).equals(shards(two))
    assert not shards(one).equals(shards(other))
    times = ["user", "split", "target_time", "history_length", "history_time"]
    positive = pl.col("label") == 1
    a, b = (
        sorted(map(str, shards(out).filter(positive).select(times).rows())) for out in (one, other)
    )
    assert a == b


# ---- --parity


def test_parity_on_beauty(beauty: Path, tmp_path: Path) -> None:
    check_parity(beauty, tmp_path / "out", "Beauty")


def test_parity_on_synthetic_data_which_says_that_it_is(tmp_path: Path) -> None:
    synthesize_amazon(tmp_path / "raw", AmazonRecipe(scale=0.01, seed=5))
    check_parity(tmp_path / "raw", tmp_path / "out", "Electronics")
    assert load(tmp_path / "out").synthetic
