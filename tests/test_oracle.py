"""The oracle and the released algorithm against examples worked by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.amazon_made import check_negatives, check_positives, read_shards, write_shards
from tests.oracle import (
    Expected,
    Review,
    ids,
    interval_bin,
    oracle,
    quantile_edges,
    sessions,
)

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


@pytest.mark.parametrize("layout", ["padded", "ragged"])
def test_shards_that_are_right_pass_in_both_layouts(tmp_path: Path, layout: str) -> None:
    expected = worked()
    write_shards(expected, tmp_path, layout, 3, negative=0)
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
    write_shards(expected, tmp_path, "ragged", 3, negative=0)
    shard_rows = read_shards(tmp_path)
    next(r for r in shard_rows if r["row"] == 3 and r["label"] == 1)[column] = value
    with pytest.raises(AssertionError, match=f"row 3 {column}"):
        check_positives(shard_rows, expected)


def test_wrong_negatives_are_found(tmp_path: Path) -> None:
    expected = worked()
    write_shards(expected, tmp_path, "ragged", 3, negative=6)  # t: Ann touches it, in her future
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
    write_shards(expected, tmp_path, "ragged", 3, negative=0)
    shard_rows = read_shards(tmp_path)
    next(r for r in shard_rows if r["row"] == 3 and r["label"] == 0).update(changes)
    with pytest.raises(AssertionError, match=message):
        check_negatives(shard_rows, expected)


def test_a_missing_negative_is_found(tmp_path: Path) -> None:
    expected = worked()
    write_shards(expected, tmp_path, "ragged", 3, negative=0)
    shard_rows = [r for r in read_shards(tmp_path) if r["row"] != 3 or r["label"] == 1]
    with pytest.raises(AssertionError, match="row 3: 0 negatives, not 1"):
        check_negatives(shard_rows, expected)
    with pytest.raises(AssertionError, match="1 negatives, not 2"):
        check_negatives(read_shards(tmp_path), expected, per_positive=2)


def test_padding_that_is_not_zero_is_found(tmp_path: Path) -> None:
    write_shards(worked(), tmp_path, "padded", 3, negative=0)
    path = tmp_path / "train" / "part-00000.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[0]["history_session"] = [1, 1, 0]
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path)
    with pytest.raises(AssertionError, match="padding is not 0"):
        read_shards(tmp_path)
