"""The pure steps, each against a brute force that is plainly right."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline.description import split
from pipeline.engines.tally import Tally
from pipeline.steps import histories, intervals, negatives
from schemas.manifest import SPLITS

Int64s = npt.NDArray[np.int64]

LENGTHS = st.lists(st.integers(1, 7), min_size=1, max_size=6)
INTERVALS = st.lists(st.integers(0, 40), min_size=1, max_size=80)


def int64s(values: list[int]) -> Int64s:
    return np.array(values, np.int64)


def offsets_of(lengths: list[int]) -> Int64s:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def before_each(offsets: Int64s) -> tuple[Int64s, Int64s]:
    """The windows of what stands before each event but a user's first."""
    start = np.repeat(offsets[:-1], np.diff(offsets))
    at = np.flatnonzero(np.arange(offsets[-1]) > start)
    return start[at], at


# --- split


@pytest.mark.parametrize("valid", [True, False])
@given(lengths=LENGTHS)
def test_leave_one_out(valid: bool, lengths: list[int]) -> None:
    expected = []
    for n in lengths:
        for i in range(n):
            name = "test" if i == n - 1 else "valid" if i == n - 2 and valid else "train"
            expected.append(name if i else None)
    got = split.ByOrder(valid).of(
        split.InOrder(offsets_of(lengths), np.zeros(sum(lengths), np.int64))
    )
    assert [SPLITS[s] if s >= 0 else None for s in got] == expected
    assert got.dtype == np.int8


# --- negatives


def drawn(
    touched: dict[int, set[int]], targets: list[tuple[int, int]], items: int, count: int
) -> dict[tuple[int, int], list[int]]:
    """Negatives of (user, position) targets, for one bucket that holds the users of `touched`."""
    users = sorted(touched)
    flat = [item for user in users for item in sorted(touched[user])]
    got = negatives.draw(
        1234,
        int64s([user for user, _ in targets]),
        int64s([position for _, position in targets]),
        int64s([users.index(user) for user, _ in targets]),
        int64s(flat),
        offsets_of([len(touched[user]) for user in users]),
        items,
        count,
    )
    assert got.shape == (len(targets), count)
    return dict(zip(targets, got.tolist(), strict=True))


ITEMS = 12
TOUCHED = st.dictionaries(
    st.integers(2, 10_000),
    st.sets(st.integers(0, ITEMS - 1), min_size=1, max_size=ITEMS - 1),
    min_size=1,
    max_size=5,
)


@pytest.mark.parametrize("items", [ITEMS, 2**33])
@given(touched=TOUCHED, count=st.integers(1, 4))
def test_negatives_are_never_touched(items: int, touched: dict[int, set[int]], count: int) -> None:
    targets = [(user, position) for user in touched for position in range(1, 6)]
    for (user, _), found in drawn(touched, targets, items, count).items():
        assert all(0 <= item < items for item in found)
        assert not touched[user] & {*found}


@given(touched=TOUCHED)
def test_a_negative_is_the_ranked_untouched_item(touched: dict[int, set[int]]) -> None:
    targets = [(user, position) for user in touched for position in range(1, 4)]
    for (user, position), items in drawn(touched, targets, ITEMS, 2).items():
        left = [item for item in range(ITEMS) if item not in touched[user]]
        for k, item in enumerate(items):
            bits = negatives.counter_hash(1234, [user], [position], [k])[0]
            assert item == left[int(bits) % len(left)]


@pytest.mark.parametrize("touched", [{0, 1, 2}, {3, 17, 18}, {19}, set(range(0, 20, 2))])
def test_negatives_are_uniform_over_the_untouched(touched: set[int]) -> None:
    user = 77
    targets = [(user, position) for position in range(1, 4001)]
    got = drawn({5: {1, 4}, user: touched, 90: {0}}, targets, 20, 3)
    seen = np.bincount([item for items in got.values() for item in items], minlength=20)
    left = [item for item in range(20) if item not in touched]
    assert seen.sum() == seen[left].sum() == 12_000
    assert stats.chisquare(seen[left]).pvalue > 1e-4


def test_draws_of_one_target_and_of_neighbours_are_independent() -> None:
    targets = [(user, position) for user in range(2, 42) for position in range(1, 101)]
    got = drawn({user: {0} for user in range(2, 42)}, targets, 6, 2)
    pairs = np.zeros((5, 5), np.int64)
    follows = np.zeros((5, 5), np.int64)
    for user, position in targets:
        first, second = got[user, position]
        pairs[first - 1, second - 1] += 1
        if position < 100:
            follows[first - 1, got[user, position + 1][0] - 1] += 1
    assert stats.chisquare(pairs.ravel()).pvalue > 1e-4
    assert stats.chisquare(follows.ravel()).pvalue > 1e-4


@given(touched=TOUCHED, seed=st.integers(0, 99), cut=st.integers(1, 4))
def test_negatives_do_not_depend_on_order_or_bucket(
    touched: dict[int, set[int]], seed: int, cut: int
) -> None:
    targets = [(user, position) for user in touched for position in range(1, 5)]
    whole = drawn(touched, targets, ITEMS, 2)
    random.Random(seed).shuffle(targets)
    assert drawn(touched, targets, ITEMS, 2) == whole
    parts: dict[tuple[int, int], list[int]] = {}
    for bucket in range(cut):
        users = {user: items for user, items in touched.items() if user % cut == bucket}
        parts |= drawn(users, [t for t in targets if t[0] in users], ITEMS, 2)
    assert parts == whole


@given(lengths=LENGTHS, seed=st.integers(0, 99))
def test_released_stream_draws_once_a_position(lengths: list[int], seed: int) -> None:
    rng = random.Random(seed)
    given_items = [[rng.randrange(9) for _ in range(n)] for n in lengths]
    stream = random.Random(1234)

    def once(items: list[int]) -> int:
        item = stream.randint(0, 8)
        return once(items) if item in items else item

    expected = [once(items) for items in given_items for _ in items]
    assert negatives.released_stream(given_items, 9) == expected


# --- histories


def padded_rows(values: Int64s, of: histories.Histories, max_len: int) -> Int64s:
    places = histories.cells(of.offsets, of.target, max_len)
    return histories.pad(values, places, len(of.offsets) - 1, max_len)


@given(lengths=LENGTHS, max_len=st.integers(1, 8))
def test_latest_keeps_the_latest_with_positions(lengths: list[int], max_len: int) -> None:
    offsets = offsets_of(lengths)
    start, at = before_each(offsets)
    got = histories.latest(start, at, max_len)
    windows = [list(range(first, end))[-max_len:] for first, end in zip(start, at, strict=True)]
    assert got.offsets.tolist() == offsets_of([len(w) for w in windows]).tolist()
    assert got.source.tolist() == [i for w in windows for i in w]
    assert {array.dtype for array in got} == {np.dtype(np.int64)}
    assert got.target.tolist() == [k for k, w in enumerate(windows) for _ in w]
    position = histories.positions(got)
    assert position.tolist() == [len(w) - k for w in windows for k in range(len(w))]
    padded = padded_rows(position.astype(np.int16), got, max_len)
    assert padded.dtype == np.int16
    rows = [[*range(len(w), 0, -1), *[0] * (max_len - len(w))] for w in windows]
    assert padded.tolist() == rows


def test_an_empty_history_is_a_row_of_padding() -> None:
    got = histories.latest(int64s([0, 3, 3]), int64s([2, 3, 5]), 4)
    assert got.offsets.tolist() == [0, 2, 2, 4]
    assert padded_rows(got.source + 1, got, 3).tolist() == [[1, 2, 0], [0, 0, 0], [4, 5, 0]]
    one_each = histories.session_breaks(int64s([0, 1, 2, 3, 4]), int64s([0, 3, 5]), 0)
    assert histories.sessions(got, one_each).tolist() == [2, 1, 2, 1]


@given(
    users=st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=7), min_size=1, max_size=5),
    gap=st.integers(0, 8),
    max_len=st.integers(1, 7),
)
def test_sessions_count_back_from_the_latest(
    users: list[list[int]], gap: int, max_len: int
) -> None:
    times = [sorted(user) for user in users]
    offsets = offsets_of([len(user) for user in times])
    start, at = before_each(offsets)
    got = histories.latest(start, at, max_len)
    breaks = histories.session_breaks(int64s([t for user in times for t in user]), offsets, gap)
    expected = []
    for user in times:
        for i in range(1, len(user)):
            kept = user[:i][-max_len:]
            expected += [
                1 + sum(b - a > gap for a, b in pairwise(kept[k:])) for k in range(len(kept))
            ]
    found = histories.sessions(got, breaks)
    assert found.tolist() == expected
    assert (found.dtype, breaks.session.dtype) == (np.int64, np.int32)


# --- intervals


def counted(*blocks: list[int]) -> pl.DataFrame:
    tally = Tally()
    for block in blocks:
        tally.add(int64s(block))
    return intervals.counted(tally)


@given(values=INTERVALS, bins=st.integers(2, 30))
def test_edges_are_exact_inverted_cdf_quantiles(values: list[int], bins: int) -> None:
    ordered, n = sorted(values), len(values)
    expected = [ordered[math.ceil(Fraction(k * n, bins)) - 1] for k in range(1, bins)]
    assert intervals.edges(counted(values), bins).tolist() == expected


@given(values=INTERVALS, bins=st.sampled_from([2, 4, 8, 16]))
def test_edges_are_numpys_where_its_ranks_are_exact(values: list[int], bins: int) -> None:
    expected = np.quantile(values, np.arange(1, bins) / bins, method="inverted_cdf")
    assert intervals.edges(counted(values), bins).tolist() == expected.tolist()


def test_edges_without_any_interval_are_zero() -> None:
    edges = intervals.edges(counted([]), 4)
    assert edges.tolist() == [0, 0, 0]
    assert edges.dtype == np.int64


@settings(max_examples=50)
@given(values=INTERVALS, cuts=st.lists(st.integers(0, 80), max_size=4), seed=st.integers(0, 99))
def test_merged_counts_do_not_depend_on_the_partition(
    values: list[int], cuts: list[int], seed: int
) -> None:
    whole = counted(values)
    assert whole["interval"].to_list() == sorted(set(values))
    assert whole["count"].to_list() == [values.count(v) for v in sorted(set(values))]
    shuffled = random.Random(seed).sample(values, len(values))
    bounds = [0, *sorted(min(cut, len(values)) for cut in cuts), len(values)]
    parts = [shuffled[a:b] for a, b in pairwise(bounds)]
    assert counted(*parts).equals(whole)
    assert counted(*reversed(parts)).equals(whole)


@given(values=INTERVALS, bins=st.integers(2, 12))
def test_bin_k_holds_what_is_above_edge_k_minus_1_up_to_edge_k(
    values: list[int], bins: int
) -> None:
    counts = counted(values)
    cuts = intervals.edges(counts, bins)
    got = intervals.bin_of(int64s(values), cuts)
    bounds = [-math.inf, *cuts.tolist(), math.inf]
    for value, k in zip(values, got.tolist(), strict=True):
        assert 1 <= k <= bins
        assert bounds[k - 1] < value <= bounds[k]
    per_bin = [got.tolist().count(k) for k in range(1, bins + 1)]
    assert intervals.bin_counts(counts, cuts) == per_bin


def test_there_may_be_255_bins() -> None:
    values = int64s([*range(255), 2**40])
    found = intervals.bin_of(values, np.arange(254))
    assert found.dtype == np.uint8
    assert found.tolist() == [*range(1, 256), 255]
