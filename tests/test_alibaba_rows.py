"""`tinprep alibaba` on made-up raw logs, where every rule's edge is hit, against the oracle."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from schemas.manifest import load
from tests.alibaba_made import RawLog, agree, alibaba, read_made
from tests.alibaba_oracle import ABSENT_AD, oracle
from tests.alibaba_raw import PROFILE
from tests.conftest import finished

DAY = 86_400
NIGHT = 1_494_000_000  # 2017-05-06 00:00 in Beijing
USERS = [0, 1, 3, 1_141_729, 2**62]
TIMES = sorted({NIGHT + d for d in (-1, 0, 1, 1799, 1800, 1801, 3600, 3601, 5402, 9000)})
EARLY = [1, NIGHT - 3 * DAY - 1, NIGHT - 3 * DAY, NIGHT - DAY, 0]
PLAIN_AD = (0, 1, 1, 1, None, "9.5")

times = st.one_of(
    st.sampled_from(TIMES),
    st.sampled_from(TIMES),
    st.builds(lambda t, d: t + d * DAY, st.sampled_from(TIMES), st.integers(0, 3)),
)
small = st.sampled_from([0, 1, 2, 10, 9, 2**40])
maybe = st.one_of(small, small, st.none())
prices = st.sampled_from(["0.01", "100000000.0", "9.5", "12", "0", None])
clicks = st.integers(0, 1)
pids = st.sampled_from(["430548_1007", "430539_1007", "a", "B", None])
impressions = st.lists(
    st.tuples(st.sampled_from(USERS), times, st.integers(0, 4), pids, clicks),
    min_size=1,
    max_size=20,
).map(lambda shown: [*shown, *shown[::4], *((*one[:4], 1 - one[4]) for one in shown[::5])])
ads = st.lists(st.tuples(st.integers(0, 3), maybe, small, small, maybe, prices), max_size=5).map(
    lambda found: [PLAIN_AD, *found]
)
profiles = st.lists(st.tuples(st.sampled_from([*USERS, 5]), *[maybe] * len(PROFILE)), max_size=6)
btags = st.sampled_from(["pv", "pv", "pv", "cart", "fav", "buy"])
behaviours = st.lists(
    st.tuples(
        st.sampled_from([*USERS[:4], USERS[0], 5]),
        st.one_of(times, times, st.sampled_from(EARLY)),
        btags,
        maybe,
        maybe,
    ),
    min_size=1,
    max_size=60,
).map(lambda done: [*done, *done[::6]])
made_up = st.builds(RawLog, impressions, ads, profiles, behaviours)
option_sets = st.fixed_dictionaries(
    {
        "max_len": st.integers(1, 6),
        "bins": st.integers(1, 5),
        "session_shape": st.sampled_from([None, (5, 10), (2, 3), (1, 1)]),
        "behaviors": st.sampled_from([("pv",), ("pv", "cart", "fav", "buy"), ("fav", "pv")]),
        "since": st.sampled_from([None, "all", NIGHT]),
        "split_at": st.sampled_from([None, None, NIGHT + 1800, NIGHT + DAY]),
        "min_count": st.sampled_from([1, 1, 2]),
        "user_fraction": st.sampled_from([1.0, 1.0, 0.5]),
        "duplicates": st.sampled_from(["keep", "drop"]),
    }
)


def flags_of(options: dict[str, Any]) -> list[object]:
    """The oracle's options as flags."""
    shape = options["session_shape"]
    flags: list[object] = ["--max-len", options["max_len"], "--bins", options["bins"]]
    flags += ["--sessions", f"{shape[0]}x{shape[1]}" if shape else "none"]
    flags += ["--behaviors", ",".join(options["behaviors"])]
    flags += ["--min-count", options["min_count"], "--user-fraction", options["user_fraction"]]
    flags += ["--duplicates", options["duplicates"]]
    for flag, name in (("--behaviors-since", "since"), ("--split-at", "split_at")):
        if options[name] is not None:
            flags += [flag, options[name]]
    return flags


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(
    log=made_up,
    options=option_sets,
    layout=st.sampled_from(["padded", "ragged"]),
    buckets=st.integers(1, 4),
)
def test_made_up_logs_equal_the_oracle(
    log: RawLog, options: dict[str, Any], layout: str, buckets: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        raw, out = log.write(Path(folder) / "raw"), Path(folder) / "out"
        try:
            want = oracle(raw, **options)
        except ValueError:  # no impression is left
            assume(False)
        assume(want.sizes["train"])
        how = ["--layout", layout, "--buckets", buckets, "--max-rejected", "100%"]
        finished(alibaba(raw, out, *flags_of(options), *how))
        agree(out, want)
        for row in read_made(out).values():
            assert all(0 < time < row["target_time"] for time in row["history_time"])


def history(raw: RawLog, tmp_path: Path, *flags: object) -> dict[int, dict[str, Any]]:
    """The rows made of a raw log that holds no trap for the split."""
    # Somebody on the days before, so that there is a train and a valid split.
    raw.impressions += [(3, NIGHT - 2 * DAY, 0, "p", 0), (3, NIGHT - DAY, 0, "p", 0)]
    raw.ads.append(PLAIN_AD)
    out = tmp_path / "out"
    finished(alibaba(raw.write(tmp_path / "raw"), out, "--behaviors-since", "all", *flags))
    return read_made(out)


def test_a_session_ends_after_1801_seconds_but_not_after_1800(tmp_path: Path) -> None:
    seen = [9000, 7200, 5400, 3599]  # gaps of 1800, 1800, 1801, counted back from the impression
    log = RawLog([(1, NIGHT + 9001, 0, "p", 1)], [], [], [(1, NIGHT + t, "pv", t, 0) for t in seen])
    row = history(log, tmp_path)[0]
    assert row["history_time"] == [NIGHT + t for t in sorted(seen)]
    assert row["history_session"] == [2, 1, 1, 1]
    assert row["session_length"] == [3]


def test_behaviours_of_the_impressions_second_and_after_are_not_seen(tmp_path: Path) -> None:
    log = RawLog(
        [(1, NIGHT, 0, "p", 1), (1, NIGHT + 1, 0, "p", 0)],
        [],
        [],
        [(1, NIGHT + t, "pv", 5, 5) for t in (-1, 0, 0, 1, 2)],
    )
    rows = history(log, tmp_path)
    assert rows[0]["history_time"] == [NIGHT - 1]
    # The same behaviour twice is two behaviours.
    assert rows[1]["history_time"] == [NIGHT - 1, NIGHT, NIGHT]
    # A session of three only once the third is before the impression.
    assert rows[0]["session_length"] == []
    assert rows[1]["session_length"] == [3]


def test_sessions_are_cut_from_more_than_the_history(tmp_path: Path) -> None:
    early = [(1, NIGHT - 90_000 + t, "pv", 7, 7) for t in range(5)]
    lonely = [(1, NIGHT - 2000 * n, "pv", 8, 8) for n in range(1, 31)]
    log = RawLog([(1, NIGHT + 1, 0, "p", 1)], [], [], early + lonely)
    row = history(log, tmp_path, "--max-len", 20, "--sessions", "5x4")[0]
    assert set(row["history_brand"]) == {3}
    assert row["history_session"] == list(range(20, 0, -1))
    assert row["session_length"] == [4]
    assert row["session_brand"] == [[2] * 4]


def test_users_without_profile_or_behaviours_are_kept(tmp_path: Path) -> None:
    log = RawLog(
        [(1, NIGHT, 0, "p", 1), (2, NIGHT, 0, "p", 0)],
        [],
        [(2, *range(1, 9)), (2, *range(11, 19)), (9, *range(21, 29))],
        [(1, NIGHT - 5, "pv", 5, 5)],
    )
    rows = history(log, tmp_path)
    assert {rows[0][name] for name in PROFILE} == {1}
    assert {rows[1][name] for name in PROFILE} == {2}
    assert (rows[0]["history_length"], rows[1]["history_length"]) == (1, 0)
    assert rows[1]["session_length"] == []


@pytest.mark.parametrize(("limit", "code"), [("50%", 0), ("5%", 3)])
def test_an_impression_of_an_unknown_ad_is_refused_with_its_reason(
    tmp_path: Path, limit: str, code: int
) -> None:
    impressions = [(1, NIGHT + n * DAY, 0 if n else 77, "p", 0) for n in range(10)]
    log = RawLog(impressions, [PLAIN_AD, (0, 5, 5, 5, 5, "5")], [], [(1, 5, "pv", 5, 5)])
    raw, out = log.write(tmp_path / "raw"), tmp_path / "out"
    ended = alibaba(raw, out, "--max-rejected", limit, "--behaviors-since", "all")
    assert ended.code == code, ended.err
    if code:
        assert ABSENT_AD in ended.said
        assert not (out / "manifest.json").exists()
        return
    assert load(out).rejected[ABSENT_AD] == 1
    assert sorted(read_made(out)) == list(range(1, 10))
    # The second line of an ad does not count.
    assert {row["target_category"] for row in read_made(out).values()} == {2}
