"""`tinprep amazon` on the real Beauty: its known counts, values and negatives."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.manifest import SPLITS, Manifest, load
from tests.amazon_made import (
    FIELDS,
    shards,
    vocabulary,
)
from tests.conftest import meta_file, reviews_file
from tests.one_history import shard_schema
from tests.released import read_meta, read_reviews


@pytest.fixture(scope="module")
def manifest(beauty_out: Path) -> Manifest:
    return load(beauty_out)


@pytest.fixture(scope="module")
def rows(beauty_out: Path) -> pl.DataFrame:
    return shards(beauty_out)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


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
    assert manifest.history.max_len == 50
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
    of_item = dict(
        pl.read_parquet(beauty_out / "lookups/item.parquet").select("item", "category").rows()
    )
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
    category = pl.read_parquet(beauty_out / "lookups/item.parquet").select(
        "item", category_is="category"
    )
    checked = rows.join(category, left_on="target_item", right_on="item")
    assert checked.height == rows.height
    assert (checked["target_category"] == checked["category_is"]).all()
    # Pearson's statistic over its degrees of freedom: 1 give or take 0.013.
    drawn = np.bincount(negatives["target_item"].to_numpy() - 2, minlength=12_101)
    mean = drawn.mean()
    assert ((drawn - mean) ** 2 / mean).mean() == pytest.approx(1.0, abs=0.08)
