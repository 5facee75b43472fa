"""`tinprep amazon` from raw files to shards, against the oracle and the released algorithm."""

from __future__ import annotations

import ast
import gzip
import hashlib
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pipeline.sources.synthetic import synthesize_amazon
from pipeline.sources.synthetic_recipe import AmazonRecipe
from schemas.manifest import SPLITS, Manifest, load
from schemas.shards import shard_schema
from tests.conftest import amazon, finished, meta_file, reviews_file, write_raw
from tests.oracle import (
    Expected,
    Review,
    check_negatives,
    check_positives,
    interval_bin,
    oracle,
    quantile_edges,
    read_shards,
)
from tests.released import SHIFT, as_released, read_meta, read_reviews, released

FIELDS = ("item", "category")
DAY = 86_400
TOUCHED = "touched every item"
Values = npt.NDArray[np.int64]


def shards(out: Path) -> pl.DataFrame:
    """All rows in a fixed order, with their split."""
    manifest = load(out)
    frames = [
        pl.read_parquet(path).with_columns(split=pl.lit(split))
        for split in SPLITS
        for path in manifest.shard_paths(out, split)
    ]
    return pl.concat(frames).sort("row", "label", "target_item")


def vocabulary(out: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(out / "vocabulary" / f"{name}.parquet")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ---- Beauty, as it is


@pytest.fixture(scope="module")
def manifest(beauty_out: Path) -> Manifest:
    return load(beauty_out)


@pytest.fixture(scope="module")
def rows(beauty_out: Path) -> pl.DataFrame:
    return shards(beauty_out)


@pytest.fixture(scope="module")
def raw(beauty: Path) -> pl.DataFrame:
    """The raw reviews with their 0-based line."""
    lines = read_reviews(reviews_file(beauty))
    return pl.DataFrame(lines, ["user", "item", "time"], orient="row").with_row_index("row")


def test_beauty_has_its_known_counts(manifest: Manifest, rows: pl.DataFrame) -> None:
    assert manifest.rows == {"train": 262_826, "valid": 44_726, "test": 44_726}
    assert manifest.vocabulary == {"user": 22_363 + 2, "item": 12_101 + 2, "category": 195 + 2}
    assert (manifest.dataset, manifest.layout) == ("amazon-Beauty", "padded")
    assert not manifest.synthetic
    assert manifest.max_len == 50
    assert not any(manifest.rejected.values())
    counted = dict(rows.group_by("split").len().iter_rows())
    assert counted == manifest.rows
    assert rows.group_by("label").len().sort("label").rows() == [(0, 176_139), (1, 176_139)]


def test_shards_are_as_the_schema_and_the_manifest_say(
    beauty: Path, beauty_out: Path, manifest: Manifest
) -> None:
    expected = shard_schema(FIELDS, "padded", 50)
    assert manifest.shards
    for shard in manifest.shards:
        path = beauty_out / shard.path
        file = pq.ParquetFile(path)
        assert file.schema_arrow.remove_metadata().equals(expected), shard.path
        assert pa.types.is_fixed_size_list(file.schema_arrow.field("history_item").type)
        assert file.metadata.num_rows == shard.rows
        assert digest(path) == shard.sha256
    listed = {shard.path for shard in manifest.shards}
    there = {str(p.relative_to(beauty_out)) for s in SPLITS for p in (beauty_out / s).iterdir()}
    assert there == {path for path in listed if path.split("/")[0] in SPLITS}
    read = {file.file: (file.bytes, file.sha256) for file in manifest.inputs}
    for path in (reviews_file(beauty), meta_file(beauty)):
        assert read[path.name] == (path.stat().st_size, digest(path))


def test_vocabularies_lead_back_to_the_raw_values(
    beauty: Path, beauty_out: Path, rows: pl.DataFrame, raw: pl.DataFrame
) -> None:
    for name in ("user", "item"):
        words = vocabulary(beauty_out, name)
        counted = raw.group_by(name).len().sort(name)
        assert words.sort("id")["id"].to_list() == list(range(2, counted.height + 2))
        assert words.sort("id")["value"].to_list() == counted[name].to_list()
        assert words.sort("id")["count"].to_list() == counted["len"].to_list()

    users, items = (vocabulary(beauty_out, name) for name in ("user", "item"))
    decoded = (
        rows.filter(pl.col("label") == 1)
        .join(users.select(user="id", user_value="value"), on="user")
        .join(items.select(target_item="id", item_value="value"), on="target_item")
        .select(pl.col("row").cast(pl.UInt32), "user_value", "item_value", "target_time")
        .join(raw, on="row")
    )
    assert decoded.height == 176_139
    assert (decoded["user_value"] == decoded["user"]).all()
    assert (decoded["item_value"] == decoded["item"]).all()
    assert (decoded["target_time"] == decoded["time"]).all()

    categories = dict(vocabulary(beauty_out, "category").select("id", "value").iter_rows())
    item_ids = dict(items.select("value", "id").iter_rows())
    of_item = dict(pl.read_parquet(beauty_out / "items.parquet").select("item", "category").rows())
    meta = dict(read_meta(meta_file(beauty)))
    assert len(of_item) == 12_101
    assert all(categories[of_item[number]] == meta[value] for value, number in item_ids.items())


def test_negatives_are_uniform_over_what_the_user_never_touches(
    beauty_out: Path, rows: pl.DataFrame, raw: pl.DataFrame
) -> None:
    users, items = (vocabulary(beauty_out, name) for name in ("user", "item"))
    touched = (
        raw.join(users.select(user="value", user_id="id"), on="user")
        .join(items.select(item="value", target_item="id"), on="item")
        .select("target_item", user="user_id")
    )
    negatives = rows.filter(pl.col("label") == 0)
    positives = rows.filter(pl.col("label") == 1)
    assert negatives.join(touched, on=["user", "target_item"], how="semi").is_empty()
    # One each, in the positive's place.
    same = ["row", "split", "user", "target_time", "history_length"]
    assert negatives.select(same).equals(positives.select(same))
    for name in ("item", "category", "position", "interval_bin", "time", "session"):
        column = f"history_{name}"
        assert np.array_equal(negatives[column].to_numpy(), positives[column].to_numpy()), column
    category = pl.read_parquet(beauty_out / "items.parquet").select("item", category_is="category")
    checked = rows.join(category, left_on="target_item", right_on="item")
    assert checked.height == rows.height
    assert (checked["target_category"] == checked["category_is"]).all()
    # Pearson's statistic over its degrees of freedom: 1 give or take 0.013.
    drawn = np.bincount(negatives["target_item"].to_numpy() - 2, minlength=12_101)
    mean = drawn.mean()
    assert ((drawn - mean) ** 2 / mean).mean() == pytest.approx(1.0, abs=0.08)


def test_bins_are_the_exact_quantiles_of_the_train_split(
    manifest: Manifest, rows: pl.DataFrame
) -> None:
    stored = rows.filter((pl.col("label") == 1) & (pl.col("split") == "train"))
    inside = np.arange(50) < stored["history_length"].to_numpy()[:, None]
    intervals = (stored["target_time"].to_numpy()[:, None] - stored["history_time"].to_numpy())[
        inside
    ]
    edges = quantile_edges(intervals.tolist(), 10)
    assert manifest.bins.count == 10
    assert manifest.bins.edges_s == edges
    assert edges[0] == 0  # over a tenth of the behaviours are of the target's own day
    numbers = stored["history_interval_bin"].to_numpy()
    assert not numbers[~inside].any()
    counts = np.bincount(numbers[inside], minlength=11)
    # Each positive's negative has the same history.
    assert (2 * counts).tolist() == [0, *manifest.bins.train_counts]
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


def held(expected: Expected, bins: int) -> tuple[Expected, int]:
    """What is stored of `expected`, and how many targets are not.

    A user who has touched every item can have no negative, so their targets are left out; bins are
    fitted on the histories as stored.
    """
    items = len(expected.item_category)
    full = {user for user, touched in expected.touched.items() if len(touched) == items}
    kept = [row for row in expected.rows if row.user not in full]
    train = [row for row in kept if row.split == "train"]
    edges = quantile_edges([t for row in train for t in row.history_interval], bins)
    kept = [
        replace(row, history_interval_bin=[interval_bin(t, edges) for t in row.history_interval])
        for row in kept
    ]
    in_bin = Counter(b for row in kept if row.split == "train" for b in row.history_interval_bin)
    counts = [in_bin[k] for k in range(1, bins + 1)]
    stored = replace(expected, rows=kept, edges=edges, train_counts=counts)
    return stored, len(expected.rows) - len(kept)


def agree(out: Path, expected: Expected, full: int, negatives: int = 1) -> None:
    """Assert that a data set is what the oracle says, by its manifest and in every row."""
    manifest, got = load(out), read_shards(out)
    check_positives(got, expected)
    check_negatives(got, expected, per_positive=negatives)
    assert manifest.bins.edges_s == expected.edges
    # The negatives have their positive's history.
    stored = [n * (1 + negatives) for n in expected.train_counts]
    assert manifest.bins.train_counts == stored
    assert manifest.rejected.get(TOUCHED, 0) == full
    in_split = Counter(row["split"] for row in got)
    assert {name: n for name, n in manifest.rows.items() if n} == dict(in_split)
    for name, ids in expected.vocabulary.items():
        words = vocabulary(out, name)
        assert dict(words.select("value", "id").rows()) == ids, name
        assert dict(words.select("value", "count").rows()) == expected.counts[name], name
        assert manifest.vocabulary[name] == len(ids) + 2
    items = pl.read_parquet(out / "items.parquet").select(FIELDS)
    assert dict(items.rows()) == expected.item_category


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
) -> None:
    # An item that only one user has, so that not everybody has touched everything.
    reviews = [*reviews, Review("A1", "seldom", 5), Review("A2", "rare", 5)]
    whole = oracle(reviews, meta, max_len=max_len, bins=bins, split=split)
    expected, full = held(whole, bins)
    assume(any(row.split == "train" for row in expected.rows))
    with tempfile.TemporaryDirectory() as folder:
        raw_folder, out = write_raw(Path(folder) / "raw", reviews, meta), Path(folder) / "out"
        flags: list[object] = ["--layout", layout, "--split", split, "--max-len", max_len]
        flags += ["--bins", bins, "--negatives", negatives, "--buckets", buckets]
        finished(amazon(raw_folder, out, *flags, "--max-rejected", "100%"))
        agree(out, expected, full, negatives)
        assert load(out).rejected.get("not JSON", 0) == reviews.count(None)


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
    bins = load(tmp_path / "out").bins
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


def check_parity(raw_folder: Path, out: Path, category: str) -> None:
    finished(amazon(raw_folder, out, "--parity", category=category))
    reviews = read_reviews(reviews_file(raw_folder, category))
    reviewed = {item for _, item, _ in reviews}
    # The released code has no rule for items without a category or with several lines: of these
    # the first counts, and no category is one that sorts first.
    categories: dict[str, str] = {}
    with gzip.open(meta_file(raw_folder, category), "rt", encoding="utf-8") as lines:
        for item in map(ast.literal_eval, lines):
            paths = item.get("categories") or [[]]
            if item["asin"] in reviewed:
                categories.setdefault(item["asin"], paths[-1][-1] if paths[-1] else "")
    want = released(reviews, [*categories.items()])
    manifest = load(out)
    assert manifest.layout == "ragged"
    columns = ["user", "history_item", "target_item", "label", "history_length"]
    longest = 0
    for split, theirs in (("train", want.train), ("valid", want.valid), ("test", want.test)):
        frame = pl.concat(
            pl.read_parquet(path, columns=columns) for path in manifest.shard_paths(out, split)
        ).with_columns(split=pl.lit(split))
        assert (frame["history_item"].list.len() == frame["history_length"]).all()
        longest = max(longest, *frame["history_length"].to_list())
        assert as_released(frame.iter_rows(named=True), split) == theirs, split
    assert manifest.max_len == longest
    items = pl.read_parquet(out / "items.parquet").sort("item")
    shift = SHIFT - ("" in categories.values())  # then rank 0 is our unknown
    assert (items["category"] - shift).to_list() == want.categories


def test_parity_on_beauty(beauty: Path, tmp_path: Path) -> None:
    check_parity(beauty, tmp_path / "out", "Beauty")


def test_parity_on_synthetic_data_which_says_that_it_is(tmp_path: Path) -> None:
    synthesize_amazon(tmp_path / "raw", AmazonRecipe(scale=0.01, seed=5))
    check_parity(tmp_path / "raw", tmp_path / "out", "Electronics")
    assert load(tmp_path / "out").synthetic
