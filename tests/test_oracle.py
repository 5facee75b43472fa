"""The oracle and the released algorithm against examples worked by hand."""

from __future__ import annotations

import json
import pickle
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.shards import shard_schema
from tests.conftest import SHARED
from tests.oracle import (
    SPLITS,
    Expected,
    Review,
    check_negatives,
    check_positives,
    ids,
    interval_bin,
    oracle,
    quantile_edges,
    read_shards,
    sessions,
)
from tests.released import as_released, read_meta, read_reviews, released

ROOT = Path(__file__).parent.parent

BEAUTY = SHARED / "data" / "amazon_beauty"
DAY = 86_400

# The file is grouped by item, as the real one. Ann by time: p (day 0), then q, r on day 1 in the
# file's order, s (day 3), t (day 9). Bob: q, p. Cy has one review, so no target.
REVIEWS = [
    Review("ann", "p", 0 * DAY),  # row 0
    Review("bob", "p", 5 * DAY),  # row 1
    None,  # row 2: a refused line
    Review("ann", "q", 1 * DAY),  # row 3
    Review("bob", "q", 2 * DAY),  # row 4
    Review("ann", "r", 1 * DAY),  # row 5
    Review("ann", "t", 9 * DAY),  # row 6
    Review("ann", "s", 3 * DAY),  # row 7
    Review("cy", "u", 4 * DAY),  # row 8
]
# s has no category, t no meta line; p comes twice; z is never reviewed, nor is its category.
META = [("p", "Red"), ("q", "Blue"), ("r", "Red"), ("s", None), ("z", "Zinc"), ("u", "Øre")]
META += [("p", "Green")]


def worked(**flags: Any) -> Expected:
    return oracle(REVIEWS, META, **{"max_len": 3, "bins": 2, **flags})


def test_vocabularies_are_sorted_ids_of_what_is_reviewed() -> None:
    got = worked()
    assert got.vocabulary == {
        "user": {"ann": 2, "bob": 3, "cy": 4},
        "item": {"p": 2, "q": 3, "r": 4, "s": 5, "t": 6, "u": 7},
        "category": {"Blue": 2, "Red": 3, "Øre": 4},
    }
    assert got.item_category == {2: 3, 3: 2, 4: 3, 5: 1, 6: 1, 7: 4}
    assert got.counts["category"] == {"Red": 3, "Blue": 2, "Øre": 1}
    assert got.counts["item"] == {"p": 2, "q": 2, "r": 1, "s": 1, "t": 1, "u": 1}
    assert got.touched == {2: {2, 3, 4, 5, 6}, 3: {2, 3}, 4: {7}}


def test_rows_of_the_worked_example() -> None:
    got = worked()
    # Train targets: q after [p] (1 day), r after [p, q] (1 day, 0). Sorted: 0, 1, 1 days; the
    # median is 1 day. No interval is above it, so bin 2 is empty.
    assert got.edges == [DAY]
    assert got.train_counts == [3, 0]
    rows = [
        (r.row, r.split, r.user, r.target_item, r.target_category, r.target_time, r.label)
        for r in got.rows
    ]
    assert rows == [
        (1, "test", 3, 2, 3, 5 * DAY, 1),
        (3, "train", 2, 3, 2, 1 * DAY, 1),
        (5, "train", 2, 4, 3, 1 * DAY, 1),
        (6, "test", 2, 6, 1, 9 * DAY, 1),
        (7, "valid", 2, 5, 1, 3 * DAY, 1),
    ]
    bob, first, second, test, valid = got.rows
    assert (first.history_item, first.history_interval) == ([2], [DAY])
    assert (second.history_item, second.history_interval) == ([2, 3], [DAY, 0])
    assert (bob.history_item, bob.history_interval_bin, bob.history_length) == ([3], [2], 1)
    assert valid.history_item == [2, 3, 4]
    assert valid.history_interval == [3 * DAY, 2 * DAY, 2 * DAY]
    # The latest three of [p, q, r, s]; from r (day 1) to s (day 3) is more than a day.
    assert test.history_length == 3
    assert test.history_item == [3, 4, 5]
    assert test.history_category == [2, 3, 1]
    assert test.history_position == [3, 2, 1]
    assert test.history_time == [DAY, DAY, 3 * DAY]
    assert test.history_interval == [8 * DAY, 8 * DAY, 6 * DAY]
    assert test.history_interval_bin == [2, 2, 2]
    assert test.history_session == [2, 2, 1]


def test_din_split_has_no_valid_and_its_own_edges() -> None:
    got = worked(split="din", bins=3)
    assert [(r.row, r.split) for r in got.rows] == [
        (1, "test"),
        (3, "train"),
        (5, "train"),
        (6, "test"),
        (7, "train"),
    ]
    # Days 0, 1, 1, 2, 2, 3: a third of six is the second smallest, two thirds the fourth.
    assert got.edges == [1 * DAY, 2 * DAY]
    assert got.train_counts == [3, 2, 1]


def test_ids_sort_by_bytes() -> None:
    assert ids(["é", "z", "Z", "a", "\U0001f600", "\uffff"]) == {
        "Z": 2,
        "a": 3,
        "z": 4,
        "é": 5,
        "\uffff": 6,
        "\U0001f600": 7,
    }


def test_bins_are_open_below_and_closed_above() -> None:
    assert [interval_bin(t, [0, 0, 10]) for t in (0, 1, 10, 11)] == [1, 3, 3, 4]


def test_sessions_split_only_where_the_gap_is_more() -> None:
    assert sessions([0, 10, 21, 31, 50], gap=10) == [3, 3, 2, 2, 1]
    assert sessions([], gap=10) == []


@given(st.lists(st.integers(0, 30), min_size=1, max_size=200), st.integers(1, 40))
def test_edges_are_the_smallest_intervals_that_reach_their_share(
    intervals: list[int], bins: int
) -> None:
    edges = quantile_edges(intervals, bins)
    assert len(edges) == bins - 1
    for k, edge in enumerate(edges, start=1):
        assert edge in intervals
        assert bins * sum(t <= edge for t in intervals) >= k * len(intervals)
        assert bins * sum(t < edge for t in intervals) < k * len(intervals)


def test_an_edge_on_an_exact_rank_is_not_one_too_far() -> None:
    # 9/11 of 77 is 63: the 63rd smallest, 62. In floats the product is a hair above 63.
    assert quantile_edges(range(77), 11)[8] == 62


def write(expected: Expected, out: Path, layout: str, max_len: int, negative: int) -> None:
    """Shards of the expected rows, each with one negative: the lowest item never touched."""
    schema = shard_schema(("item", "category"), layout, max_len)
    for split in SPLITS:
        rows = []
        for r in expected.rows:
            if r.split != split:
                continue
            row = {name: getattr(r, name) for name in schema.names}
            if layout == "padded":
                for name in schema.names:
                    if isinstance(row[name], list):
                        row[name] = row[name] + [0] * (max_len - r.history_length)
            free = min(expected.item_category.keys() - expected.touched[r.user])
            item = negative or free
            other = {"target_item": item, "target_category": expected.item_category[item]}
            rows += [row, {**row, **other, "label": 0}]
        (out / split).mkdir()
        pq.write_table(pa.Table.from_pylist(rows, schema), out / split / "part-00000.parquet")


@pytest.mark.parametrize("layout", ["padded", "ragged"])
def test_shards_that_are_right_pass_in_both_layouts(tmp_path: Path, layout: str) -> None:
    expected = worked()
    write(expected, tmp_path, layout, 3, negative=0)
    shard_rows = read_shards(tmp_path)
    assert len(shard_rows) == 10
    check_positives(shard_rows, expected)
    check_negatives(shard_rows, expected)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("split", "valid"),
        ("target_time", 1),
        ("history_item", [9]),
        ("history_interval_bin", [0]),
        ("history_session", [2]),
    ],
)
def test_a_wrong_positive_is_found(tmp_path: Path, column: str, value: Any) -> None:
    expected = worked()
    write(expected, tmp_path, "ragged", 3, negative=0)
    shard_rows = read_shards(tmp_path)
    next(r for r in shard_rows if r["row"] == 3 and r["label"] == 1)[column] = value
    with pytest.raises(AssertionError, match=f"row 3 {column}"):
        check_positives(shard_rows, expected)


def test_wrong_negatives_are_found(tmp_path: Path) -> None:
    expected = worked()
    write(expected, tmp_path, "ragged", 3, negative=6)  # t: Ann touches it, in her future
    with pytest.raises(AssertionError, match="the user touched 6"):
        check_negatives(read_shards(tmp_path), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_category": 3}, "category"),
        ({"history_time": [1]}, "history_time"),
        ({"target_item": 99}, "no item has the id 99"),
        ({"label": 1}, "0 negatives, not 1"),
    ],
)
def test_a_wrong_negative_is_found(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    expected = worked()
    write(expected, tmp_path, "ragged", 3, negative=0)
    shard_rows = read_shards(tmp_path)
    next(r for r in shard_rows if r["row"] == 3 and r["label"] == 0).update(changes)
    with pytest.raises(AssertionError, match=message):
        check_negatives(shard_rows, expected)


def test_a_missing_negative_is_found(tmp_path: Path) -> None:
    expected = worked()
    write(expected, tmp_path, "ragged", 3, negative=0)
    shard_rows = [r for r in read_shards(tmp_path) if r["row"] != 3 or r["label"] == 1]
    with pytest.raises(AssertionError, match="row 3: 0 negatives, not 1"):
        check_negatives(shard_rows, expected)
    with pytest.raises(AssertionError, match="1 negatives, not 2"):
        check_negatives(read_shards(tmp_path), expected, per_positive=2)


def test_padding_that_is_not_zero_is_found(tmp_path: Path) -> None:
    write(worked(), tmp_path, "padded", 3, negative=0)
    path = tmp_path / "train" / "part-00000.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[0]["history_session"] = [1, 1, 0]
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path)
    with pytest.raises(AssertionError, match="padding is not 0"):
        read_shards(tmp_path)


# The first draws of randint(0, 4) after random.seed(1234).
FIRST_DRAWS = [3, 0, 0, 0, 4, 0, 0, 0, 2, 1, 0, 0, 0, 2, 4, 3, 4, 3]
PLAIN = [
    ("x", "b", 20),
    ("y", "e", 10),
    ("x", "a", 10),
    ("y", "c", 10),
    ("x", "d", 30),
]
PLAIN_META = [("d", "M"), ("a", "N"), ("b", "M"), ("c", "L"), ("e", "N"), ("f", "Z")]


def test_released_algorithm_on_a_worked_example() -> None:
    stream = random.Random(1234)
    assert [stream.randint(0, 4) for _ in FIRST_DRAWS] == FIRST_DRAWS
    got = released(PLAIN, PLAIN_META)
    # Items a..e are 0..4, categories L, M, N are 0..2; f is not reviewed. x: [a, b, d] = [0, 1, 3]
    # takes from the stream, past every 0, 1 and 3: 4, 2, 2. y: [e, c] = [4, 2] then takes 3, 3.
    assert got.categories == [2, 1, 0, 1, 2]
    assert got.train == Counter()
    assert got.valid == {(0, (0,), 1, 1): 1, (0, (0,), 2, 0): 1}
    assert got.test == {
        (0, (0, 1), 3, 1): 1,
        (0, (0, 1), 2, 0): 1,
        (1, (4,), 2, 1): 1,
        (1, (4,), 3, 0): 1,
    }


def test_released_algorithm_wants_one_meta_line_an_item() -> None:
    with pytest.raises(ValueError, match="exactly one"):
        released(PLAIN, PLAIN_META[1:])
    with pytest.raises(ValueError, match="exactly one"):
        released(PLAIN, [*PLAIN_META, ("a", "N")])


def test_shards_of_the_oracle_are_the_released_positives(tmp_path: Path) -> None:
    reviews = [Review(*line) for line in PLAIN]
    expected = oracle(reviews, PLAIN_META, max_len=10, bins=2)
    write(expected, tmp_path, "ragged", 10, negative=0)
    shard_rows = [r for r in read_shards(tmp_path) if r["label"] == 1]
    theirs = released(PLAIN, PLAIN_META)
    for split in SPLITS:
        want = Counter({s: n for s, n in getattr(theirs, split).items() if s[3] == 1})
        assert as_released(shard_rows, split) == want


def test_the_benchmarks_peer_makes_what_the_released_algorithm_makes(tmp_path: Path) -> None:
    pytest.importorskip("pandas", reason="the benchmark's peer needs pandas: install '.[bench]'")
    if not BEAUTY.is_dir():
        pytest.skip(f"no real data at {BEAUTY}")
    peer = ROOT / "benchmarks" / "released_amazon.py"
    done = subprocess.run(
        [sys.executable, peer, BEAUTY, tmp_path], check=True, capture_output=True, text=True
    )
    theirs = released(
        read_reviews(BEAUTY / "reviews_Beauty_5.json.gz"), read_meta(BEAUTY / "meta_Beauty.json.gz")
    )
    with (tmp_path / "dataset.pkl").open("rb") as file:
        train, valid, test, categories, _ = (pickle.load(file) for _ in range(5))
    assert categories.tolist() == theirs.categories
    assert Counter((u, tuple(h), t, y) for u, h, t, y in train) == theirs.train
    for pairs, want in ((valid, theirs.valid), (test, theirs.test)):
        unfolded = [(u, tuple(h), pair[y == 0], y) for u, h, pair in pairs for y in (0, 1)]
        assert Counter(unfolded) == want
    rows = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert rows == {name: getattr(theirs, name).total() for name in SPLITS}
