"""`verify` finds nothing in sound data sets, whatever they are made of and how."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.flow import prepare
from pipeline.presets.alibaba import AlibabaConfig
from pipeline.verify import verify
from tests.alibaba_made import RawLog, alibaba
from tests.alibaba_raw import PROFILE
from tests.conftest import SHARED, amazon, finished, write_raw
from tests.oracle import Review
from tests.verify.made import (
    ALL,
    DAY,
    MAY_3,
    Copy,
    checked,
    copied,
    impression_files,
    review_files,
)


def test_sound_data_sets_are_sound(made: dict[str, Path]) -> None:
    for name, out in made.items():
        report = checked(out)
        assert report.sound, (name, report.findings)
        manifest = Copy(out).read()
        assert report.rows == sum(manifest["rows"].values()) > 0
        assert report.shards == len(manifest["shards"])
        assert report.seconds > 0


@pytest.mark.parametrize(
    "flags",
    [
        "--split din --ties hash",
        "--parity --bins 3",
        "--max-len 1 --bins 1 --session-gap 0",
        "--negatives 5 --max-len 3 --bins 255 --layout ragged --no-meta",
    ],
)
def test_sound_reviews(tmp_path: Path, flags: str) -> None:
    finished(amazon(review_files(tmp_path / "raw"), tmp_path / "out", *flags.split()))
    assert checked(tmp_path / "out").findings == ()


@pytest.mark.parametrize(
    "flags",
    [
        "--sessions none",
        f"--split-at {MAY_3 + 5 * DAY} --sessions 2x2 --session-gap 0 --max-len 4",
        "--user-fraction 0.5 --min-count 9 --timezone America/New_York",
        "--behaviors-since all --max-len 1 --layout ragged --bins 1",
        f"--behaviors-since {MAY_3 + 90 * DAY}",
    ],
)
def test_sound_impressions(tmp_path: Path, flags: str) -> None:
    finished(alibaba(impression_files(tmp_path / "raw"), tmp_path / "out", *flags.split()))
    assert checked(tmp_path / "out").findings == ()


# Few of each, so that seconds, days, ads and users meet.
SECOND = st.integers(0, 9 * DAY).map(lambda s: MAY_3 + s - s % 900)
FEW = st.integers(0, 3)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(
    impressions=st.lists(
        st.tuples(FEW, SECOND, FEW, st.sampled_from(["p", None]), st.integers(0, 1)),
        min_size=2,
        max_size=40,
    ),
    behaviours=st.lists(
        st.tuples(FEW, SECOND, st.sampled_from(["pv", "pv", "buy"]), FEW, st.none() | FEW),
        max_size=60,
    ),
    prices=st.lists(st.sampled_from([None, "-1", "0.01", "7", "7.5", "100000000"]), min_size=4),
    profiles=st.integers(0, 4),
    max_len=st.integers(1, 6),
    bins=st.integers(1, 5),
    gap=st.sampled_from([0, 900, 1800]),
    sessions=st.sampled_from(["none", "1x1", "2x3"]),
    min_count=st.integers(1, 3),
    layout=st.sampled_from(["padded", "ragged"]),
    buckets=st.integers(1, 3),
    duplicates=st.sampled_from(["keep", "drop"]),
)
def test_whatever_the_log_what_is_made_of_it_is_sound(
    impressions: list[tuple[object, ...]],
    behaviours: list[tuple[object, ...]],
    prices: list[str | None],
    profiles: int,
    max_len: int,
    bins: int,
    gap: int,
    sessions: str,
    min_count: int,
    layout: str,
    buckets: int,
    duplicates: str,
) -> None:
    impressions = [(0, MAY_3 - 2 * DAY, 0, "p", 0), *impressions]  # for train
    ads = [(ad, ad % 2, ad, ad % 3, ad or None, prices[ad]) for ad in range(4)]
    users = [(user, *(user for _ in PROFILE)) for user in range(profiles)]
    with tempfile.TemporaryDirectory() as folder:
        raw, out = Path(folder) / "raw", Path(folder) / "out"
        RawLog(impressions, ads, users, behaviours).write(raw)
        prepare(
            AlibabaConfig(
                out,
                raw=raw,
                max_len=max_len,
                bins=bins,
                session_gap=gap,
                sessions=sessions,
                min_count=min_count,
                layout=layout,
                buckets=buckets,
                duplicates=duplicates,
            )
        )
        assert checked(out).findings == ()


def test_a_user_who_touched_every_item(tmp_path: Path) -> None:
    """Such a user gives no rows; what is refused is told apart from what is lost."""
    reviews: list[Review | None] = [Review("all", f"I{k}", k * DAY) for k in range(5)]
    reviews += [Review("some", f"I{k}", k * DAY) for k in range(4)]
    finished(amazon(write_raw(tmp_path / "raw", reviews, []), tmp_path / "out", "--no-meta"))
    assert checked(tmp_path / "out").findings == ()
    (tmp_path / "out/rejected/targets.parquet").unlink()
    found = {"missing file": 1, "rejected": 1, "targets of a user": 1}
    assert checked(tmp_path / "out").counts == found


def test_users_with_one_review(tmp_path: Path) -> None:
    """They give no rows, but their items count."""
    reviews: list[Review | None] = [Review(f"U{k % 7}", f"I{k % 5}", k * DAY) for k in range(35)]
    reviews += [Review(f"one{k}", f"I{k}", k * DAY) for k in range(7)]
    finished(amazon(write_raw(tmp_path / "raw", reviews, []), tmp_path / "out", "--no-meta"))
    assert checked(tmp_path / "out").findings == ()


def test_impressions_of_unknown_ads(tmp_path: Path) -> None:
    """They are refused, and nothing of them counts."""
    log = RawLog(
        [(u, MAY_3 + k * DAY, k + u, f"p{k}", u % 2) for u in range(4) for k in range(5)],
        [(ad, ad, ad, ad, None, 1.5 + ad) for ad in range(6)],
        [(1, *range(len(PROFILE)))],
        [],
    )
    flags = ("--max-rejected", "50%")
    finished(alibaba(log.write(tmp_path / "raw"), tmp_path / "out", *flags))
    assert (tmp_path / "out/rejected").is_dir()
    assert checked(tmp_path / "out").findings == ()


def test_real_reviews(beauty_out: Path) -> None:
    report = verify(beauty_out)
    assert report.sound, report.findings
    assert report.rows == 352_278


def test_real_impressions(tmp_path: Path) -> None:
    raw = SHARED / "data" / "kuairand_tianchi"
    if not raw.is_dir():
        pytest.skip(f"the real data is not here: {raw} (see TINPREP_SHARED)")
    finished(alibaba(raw, tmp_path / "out"))
    report = verify(tmp_path / "out")
    assert report.sound, report.findings
    assert report.rows == 64_942


@pytest.mark.parametrize("name", ALL)
def test_row_groups_may_be_of_any_size(made: dict[str, Path], tmp_path: Path, name: str) -> None:
    copy = copied(made, name, tmp_path / "out")
    for shard in copy.read()["shards"]:
        copy.write(shard["path"], copy.table(shard["path"]), row_group_size=3)
    assert checked(copy.out).findings == ()


def test_one_price(tmp_path: Path) -> None:
    """Of which rounding must make no deviation; two that are as good as one; and none at all."""
    for n, prices in enumerate((["3.3"], ["0.3", "0.30000000000000004", "0.3"], [None])):
        log = RawLog(
            [(u, MAY_3 + k * DAY, k, f"p{k}", u % 2) for u in range(3) for k in range(5)],
            [(ad, ad, ad, ad, None, prices[ad % len(prices)]) for ad in range(6)],
            [(1, *range(len(PROFILE)))],
            [],
        )
        out = tmp_path / f"out{n}"
        finished(alibaba(log.write(tmp_path / f"raw{n}"), out))
        assert checked(out).findings == ()
        assert Copy(out).read()["numbers"]["price"]["std"] == 1
