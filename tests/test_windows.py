"""Behaviours in order, the windows before impressions, DSIN's sessions, tallies: by brute force."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.description.split import ByDay, ByTime, Events, InOrder
from pipeline.engines.buckets import Behaviours
from pipeline.engines.tally import Ids, Tally
from pipeline.presets.fast import since
from pipeline.steps import histories, order, rows
from pipeline.steps.numbers import fitted_by_place, scaled
from schemas.bounds import LAYOUTS

Int64s = npt.NDArray[np.int64]
Row = tuple[int, int, int, int]

ROWS = st.lists(
    st.tuples(st.integers(2, 5), st.integers(0, 9), st.integers(1, 3), st.integers(1, 3)),
    max_size=30,
)
WIDE = st.lists(
    st.tuples(
        st.integers(2, 2**31 - 1), st.integers(0, 10**11), st.integers(1, 3), st.integers(1, 3)
    ),
    max_size=10,
)


def behaviours_of(rows: list[Row]) -> Behaviours:
    user, time, category, brand = (
        np.array([row[k] for row in rows], kind)
        for k, kind in enumerate((np.int32, np.int64, np.int32, np.int32))
    )
    by, user, time = order.in_order(user, time, [category, brand])
    return Behaviours.of(user, time, {"category": category[by], "brand": brand[by]})


@given(rows=st.one_of(ROWS, WIDE))
def test_behaviours_are_ordered_by_user_time_category_and_brand(rows: list[Row]) -> None:
    got = behaviours_of(rows)
    columns = (got.user, got.time, got.fields["category"], got.fields["brand"])
    assert list(zip(*(c.tolist() for c in columns), strict=True)) == sorted(rows)
    users = [row[0] for row in sorted(rows)]
    starts = [i for i, user in enumerate(users) if i == 0 or user != users[i - 1]]
    assert got.offsets.tolist() == [*starts, len(rows)]


@given(rows=ROWS, seen=st.lists(st.tuples(st.integers(1, 6), st.integers(-1, 11)), max_size=12))
def test_a_window_holds_the_users_behaviours_strictly_before(
    rows: list[Row], seen: list[tuple[int, int]]
) -> None:
    seen = sorted(seen)
    user, time = np.array(seen, np.int64).reshape(-1, 2).T
    got = order.windows_before(behaviours_of(rows), user.astype(np.int32), time)
    ordered = sorted(rows)
    for (who, when), start, end in zip(seen, got.start, got.end, strict=True):
        want = [i for i, row in enumerate(ordered) if row[0] == who and row[1] < when]
        assert list(range(start, end)) == want


@given(
    rows=st.lists(st.tuples(st.integers(2, 3), st.integers(0, 25)), max_size=25),
    seen=st.lists(st.tuples(st.integers(2, 3), st.integers(0, 27)), min_size=1, max_size=8),
    gap=st.integers(0, 4),
    most=st.integers(1, 3),
    length=st.integers(1, 4),
    span=st.tuples(st.integers(0, 9), st.none() | st.integers(0, 19)),
)
def test_latest_sessions(
    rows: list[tuple[int, int]],
    seen: list[tuple[int, int]],
    gap: int,
    most: int,
    length: int,
    span: tuple[int, int | None],
) -> None:
    behaviours = behaviours_of([(user, time, 1, 1) for user, time in rows])
    seen = sorted(seen)
    user, time = np.array(seen, np.int64).T
    windows = order.windows_before(behaviours, user.astype(np.int32), time, *span)
    breaks = histories.session_breaks(behaviours.time, behaviours.offsets, gap)
    bounds, kept = histories.latest_sessions(windows.start, windows.end, breaks, most, length)
    delay, within = span
    for i, (who, when) in enumerate(seen):
        before = [t for u, t in sorted(rows) if u == who and t < when and when - t >= delay]
        before = [t for t in before if within is None or when - t <= within]
        cuts = [k + 1 for k, (a, b) in enumerate(pairwise(before)) if b - a > gap]
        parts = [before[a:b] for a, b in pairwise([0, *cuts, len(before)])]
        want = [part[-length:] for part in reversed(parts) if len(part) > 2][:most]
        got = [
            behaviours.time[kept.source[kept.offsets[s] : kept.offsets[s + 1]]].tolist()
            for s in range(bounds[i], bounds[i + 1])
        ]
        assert got == want


@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=7),
    most=st.integers(1, 4),
    length=st.integers(1, 4),
    before=st.integers(0, 4),
)
def test_latest_sessions_where_there_are_many(
    sizes: list[int], most: int, length: int, before: int
) -> None:
    # Sessions of these sizes, 100 seconds apart, after `before` behaviours of somebody else; a
    # window ends before, between and after all of them, in the middle of each session too.
    times = [100 * k + n for k, size in enumerate(sizes) for n in range(size)]
    ends = np.arange(len(times) + 1)
    rows = [(2, n, 1, 1) for n in range(before)] + [(3, time, 1, 1) for time in times]
    behaviours = behaviours_of(rows)
    breaks = histories.session_breaks(behaviours.time, behaviours.offsets, 50)
    start = np.full(len(ends), before)
    bounds, kept = histories.latest_sessions(start, start + ends, breaks, most, length)
    got = [behaviours.time[kept.source[a:b]].tolist() for a, b in pairwise(kept.offsets)]
    for end in ends:
        parts = [[t for t in times[:end] if t // 100 == k] for k in range(len(sizes))]
        want = [part[-length:] for part in reversed(parts) if len(part) > 2][:most]
        assert got[bounds[end] : bounds[end + 1]] == want
    assert bounds[0] == 0
    assert bounds[-1] == len(got)
    assert {array.dtype for array in (bounds, *kept)} == {np.dtype(np.int64)}


def test_histories_without_any_behaviour_have_no_session() -> None:
    breaks = histories.session_breaks(np.array([5, 6, 500]), np.array([0, 3]), 50)
    none = np.zeros(2, np.int64)
    assert histories.sessions(histories.latest(none, none, 3), breaks).tolist() == []


def test_a_user_without_behaviours_begins_no_session() -> None:
    breaks = histories.session_breaks(np.array([5, 6, 500]), np.array([0, 0, 3, 3]), 50)
    assert breaks.session.tolist() == [0, 0, 1]
    assert breaks.first.tolist() == [0, 2, 3]


NUMBERS = st.lists(
    st.one_of(st.integers(-1, 20), st.integers(2**22 - 2, 2**22 + 2), st.integers(0, 2**62)),
    max_size=20,
)


@given(blocks=st.lists(NUMBERS, max_size=4))
def test_a_tally_counts_every_number_once(blocks: list[list[int]]) -> None:
    tally = Tally()
    for block in blocks:
        tally.add(np.array(block, np.int64))
    every = [n for block in blocks for n in block if n >= 0]
    want = [(n, every.count(n)) for n in sorted(set(every))]
    assert tally.counts().rows() == want


@given(values=st.sets(NUMBERS.flatmap(lambda n: st.sampled_from(n or [0]))), asked=NUMBERS)
def test_ids_of_numbers(values: set[int], asked: list[int]) -> None:
    known = sorted(v for v in values if v >= 0)
    ids = Ids(np.array(known, np.int64), np.arange(2, len(known) + 2, dtype=np.int32), 1)
    got = ids.of(np.array(asked, np.int64)).tolist()
    assert got == [known.index(n) + 2 if n in known else 1 for n in asked]


@pytest.mark.parametrize("kind", [np.int32, np.uint32, np.int64])
def test_ids_of_narrow_numbers(kind: type[np.integer]) -> None:
    ids = Ids(np.array([3, 5]), np.array([2, 3], np.int32), 1)
    asked = [3, 4, 5, 6, 2**31 - 1] + ([-1] if kind is not np.uint32 else [])
    assert ids.of(np.array(asked, kind)).tolist() == [2, 1, 3, 1, 1, 1][: len(asked)]


def test_splits_meet_at_midnight_in_the_time_zone() -> None:
    def at(text: str) -> int:
        return int(datetime.fromisoformat(text).timestamp())

    first, last = at("2017-05-06T00:00:10+08:00"), at("2017-05-13T23:59:46+08:00")
    days = ByDay("Asia/Shanghai").fixed(Events("", Path(), first, last, 1, 1))
    meet = at("2017-05-12T00:00:00+08:00"), at("2017-05-13T00:00:00+08:00")
    assert days == ByTime(*meet, "Asia/Shanghai", "day")
    seen = [days.valid - 1, days.valid, days.test - 1, days.test]
    splits = days.of(InOrder(np.array([0, 4]), np.array(seen)))
    assert splits.tolist() == [0, 1, 1, 2]
    assert splits.dtype == np.int8
    # DSIN's fixed bound, 2017-05-03 02:00 UTC, is on the day that the default begins with.
    begin = since({"since_days": 3, "timezone": "Asia/Shanghai"}, first)
    assert begin == at("2017-05-03T00:00:00+08:00")
    assert begin <= 1_493_769_600 < begin + 86_400


def test_a_day_of_the_clock_change_has_its_own_length() -> None:
    zone = ZoneInfo("Europe/Berlin")
    last = int(datetime(2024, 4, 1, 12, tzinfo=zone).timestamp())
    days = ByDay("Europe/Berlin").fixed(Events("", Path(), last, last, 1, 1))
    assert days.test - days.valid == 23 * 3600


def test_prices_are_standardised_over_the_train_impressions() -> None:
    price = np.array([1.0, np.e**2, np.nan, 0.0, np.e**9])
    how = fitted_by_place(price, np.array([3, 1, 5, 5, 0]), "log")
    got = scaled(price, "log", how)
    assert how["train_rows"] == 4
    assert how["mean"] == pytest.approx(0.5)
    assert how["std"] == pytest.approx(np.sqrt(0.75))
    want = [-0.5 / np.sqrt(0.75), 1.5 / np.sqrt(0.75), 0, 0, 8.5 / np.sqrt(0.75)]
    assert got.tolist() == pytest.approx(want)
    assert got.dtype == np.float32
    five = np.array([5.0])
    alone = scaled(five, "log", fitted_by_place(five, np.array([2]), "log"))
    assert alone.tolist() == [0.0]


@given(st.lists(st.integers(0, 900), max_size=60), st.integers(1, 3), st.sampled_from([3, 50, 900]))
def test_rows_are_cut_into_blocks_of_as_many(counts: list[int], each: int, max_len: int) -> None:
    ends = np.array(counts, np.int64)
    targets = rows.Windows(np.zeros_like(ends), ends)
    for layout in LAYOUTS:
        stored = rows.Stored(np.zeros(0, np.int64), max_len, layout, 0)
        nothing = np.zeros(0, np.int64)
        events = Behaviours(nothing.astype(np.int32), nothing, {}, nothing)
        history = rows.History(events, targets, stored, histories.Breaks(nothing, nothing))
        with patch.object(rows, "_BLOCK_CELLS", 2_000):
            cut = [range(len(ends))[block] for block in rows.blocks([history], each)]
        assert [row for block in cut for row in block] == list(range(len(ends)))
        assert len({len(block) for block in cut[:-1]}) <= 1
        assert all(0 < len(block) <= len(cut[0]) for block in cut)
        for block in cut:
            kept = np.minimum(ends[block.start : block.stop], max_len)
            cells = each * (kept.sum() if layout == "ragged" else max_len * len(block))
            assert len(block) == 1 or cells <= 2_000
