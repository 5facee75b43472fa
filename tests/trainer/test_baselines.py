from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest

from trainer.baselines import baselines_of, group_share, popularity
from trainer.data.shards import Shards


def rows_of(data, split):
    """The rows of a split as plain dictionaries, straight from the shards."""
    manifest = json.loads((data / "manifest.json").read_text(encoding="utf-8"))
    paths = [s["path"] for s in manifest["shards"] if s["path"].startswith(f"{split}/")]
    return [row for path in paths for row in pq.read_table(data / path).to_pylist()]


def slow_gauc(rows, scores):
    """By its definition: pairs of one user, ties half, users weighted by their rows."""
    total = weight = 0.0
    for user in {row["user"] for row in rows}:
        own = [(r["label"], s) for r, s in zip(rows, scores, strict=True) if r["user"] == user]
        pairs = [(p, n) for a, p in own if a for b, n in own if not b]
        if pairs:
            won = np.mean([1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs])
            total, weight = total + won * len(own), weight + len(own)
    return total / weight


def slow_popularity(data, split, columns):
    counts = Counter(tuple(r[c] for c in columns) for r in rows_of(data, "train") if r["label"])
    return [counts[tuple(r[c] for c in columns)] for r in rows_of(data, split)]


def slow_share(data, split):
    found = []
    for row in rows_of(data, split):
        history = row["history_category"][: row["history_length"]]
        same = [c for c in history if c == row["target_category"] and c > 1]
        found.append(len(same) / len(history) if history else 0.0)
    return found


@pytest.fixture(params=["amazon-padded", "amazon-ragged", "alibaba"])
def data(request, make_dataset, make_alibaba):
    if request.param == "alibaba":
        return make_alibaba()
    return make_dataset(layout=request.param.partition("-")[2], min_len=0)


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_baselines_agree_with_the_slow_way(data, split):
    shards, rows = Shards(data), rows_of(data, split)
    columns = ("ad",) if shards.manifest.target.negatives is None else ("target_item",)
    assert shards.key_columns == columns
    slow = {
        "popularity": slow_popularity(data, split, columns),
        "category_share": slow_share(data, split),
    }
    assert set(slow) == set(baselines_of(shards))
    for name, scores in slow.items():
        found = baselines_of(shards)[name](shards, split)
        assert found.score.tolist() == scores
        assert found.label.tolist() == [row["label"] for row in rows]
        metrics = found.measure()
        assert metrics.gauc == pytest.approx(slow_gauc(rows, scores), abs=1e-12)
        assert metrics.rows == len(rows)
        assert metrics.logloss is None


def test_category_share_finds_the_planted_category_and_popularity_does_not(make_dataset):
    shards = Shards(make_dataset(users=200))
    share = group_share(shards, "test").measure().gauc
    popular = popularity(shards, "test").measure().gauc
    assert share > 0.7
    assert popular < share - 0.1


def drop(data, names):
    """Take columns out of all shards of a data set."""
    for path in data.glob("*/part-*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.drop_columns(names), path, row_group_size=25)


def test_without_item_and_ad_popularity_is_of_category_and_brand(make_alibaba):
    data = make_alibaba()
    drop(data, ["ad"])
    shards, columns = Shards(data), ("target_category", "target_brand")
    assert shards.key_columns == columns
    assert popularity(shards, "test").score.tolist() == slow_popularity(data, "test", columns)


def test_train_without_positives_makes_all_alike(make_alibaba):
    data = make_alibaba()
    for path in data.glob("train/*.parquet"):
        table = pq.read_table(path)
        place = table.schema.names.index("label")
        none = np.zeros(len(table), np.int8)
        pq.write_table(table.set_column(place, table.schema.field(place), [none]), path)
    assert not popularity(Shards(data), "test").score.any()


def test_without_a_field_of_groups_their_share_is_left_out(make_dataset):
    data = make_dataset()
    path = data / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(manifest | {"train": {}}), encoding="utf-8")
    assert list(baselines_of(Shards(data))) == ["popularity"]
