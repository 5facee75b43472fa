"""`verify` finds nothing in sound data sets, and says where and what it finds."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config import AlibabaConfig
from pipeline.flow import prepare
from pipeline.verify import LIMIT, verify
from schemas.errors import InputError, UsageError
from tests.alibaba_made import RawLog, alibaba
from tests.alibaba_raw import PROFILE
from tests.conftest import SHARED, amazon, finished, write_raw
from tests.oracle import Review
from tests.verify.damage_files import flip, stray, without
from tests.verify.damage_rows import cell, swap
from tests.verify.made import (
    ALL,
    DAY,
    MAY_3,
    PADDED,
    RAGGED,
    Copy,
    at,
    checked,
    copied,
    impression_files,
    review_files,
)

# ---- sound data sets


def test_sound_data_sets_are_sound(made: dict[str, Path]) -> None:
    for name, out in made.items():
        report = checked(out)
        assert report.sound, (name, report.findings)
        manifest = Copy(out).read()
        assert report.rows == sum(manifest["rows"].values()) > 0
        assert report.shards == len(manifest["shards"])
        assert report.seconds > 0


def test_padded_shards_are_read_page_by_page(made: dict[str, Path]) -> None:
    with patch("pipeline.parquet_pages.pq.ParquetFile.iter_batches", side_effect=AssertionError):
        for name in PADDED:
            assert checked(made[name]).sound
        with pytest.raises(AssertionError):
            checked(made[RAGGED[0]])


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
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
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
) -> None:
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
            )
        )
        assert checked(out).findings == ()


def test_a_user_who_touched_every_item(tmp_path: Path) -> None:
    """Such a user gives no rows; what is refused is told apart from what is lost."""
    reviews: list[Review | None] = [Review("all", f"I{k}", k * DAY) for k in range(5)]
    reviews += [Review("some", f"I{k}", k * DAY) for k in range(4)]
    finished(amazon(write_raw(tmp_path / "raw", reviews, []), tmp_path / "out"))
    assert checked(tmp_path / "out").findings == ()
    (tmp_path / "out/rejected/targets.parquet").unlink()
    found = {"missing file": 1, "rejected": 1, "targets of a user": 1}
    assert checked(tmp_path / "out").counts == found


def test_users_with_one_review(tmp_path: Path) -> None:
    """They give no rows, but their items count."""
    reviews: list[Review | None] = [Review(f"U{k % 7}", f"I{k % 5}", k * DAY) for k in range(20)]
    reviews += [Review(f"one{k}", f"I{k}", k * DAY) for k in range(7)]
    finished(amazon(write_raw(tmp_path / "raw", reviews, []), tmp_path / "out"))
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
    for path in copy.paths():
        pq.write_table(pq.ParquetFile(path).read(), path, row_group_size=3)
    copy.settle()
    assert checked(copy.out).findings == ()


def test_a_data_set_from_before_tables_were_listed(made: dict[str, Path], tmp_path: Path) -> None:
    """What its manifest does not say is not checked; all else is."""
    copy = copied(made, "padded ads", tmp_path / "out")
    copy.manifest(lambda m: (m.pop("tables"), m["counts"].pop("impressions read")))
    assert checked(copy.out).findings == ()
    (copy.out / "vocabulary/pid.parquet").rename(copy.out / "items.parquet")
    assert checked(copy.out).counts == {"missing file": 1, "stray file": 1}


def test_one_price(tmp_path: Path) -> None:
    """Of which rounding must make no deviation; and none at all."""
    for n, price in enumerate(("3.3", None)):
        log = RawLog(
            [(u, MAY_3 + k * DAY, k, f"p{k}", u % 2) for u in range(3) for k in range(5)],
            [(ad, ad, ad, ad, None, price) for ad in range(6)],
            [(1, *range(len(PROFILE)))],
            [],
        )
        out = tmp_path / f"out{n}"
        finished(alibaba(log.write(tmp_path / f"raw{n}"), out))
        assert checked(out).findings == ()


# ---- what is told


def test_where_a_finding_is(made: dict[str, Path], tmp_path: Path) -> None:
    copy = copied(made, "ragged reviews", tmp_path / "out")
    table = copy.table()
    columns = table.to_pydict()
    row = at(columns, 3)
    columns["history_item"][row][2] = 777
    table = pa.Table.from_pydict(columns, schema=table.schema)
    copy.write(copy.path(), table, row_group_size=10)
    report = checked(copy.out)
    [finding] = [f for f in report.findings if f.got == "777"][:1]
    path = copy.path().relative_to(copy.out).as_posix()
    assert finding.what == "id outside its vocabulary"
    assert finding.where == f"{path}: row group {row // 10}, row {row}, history_item[2]"
    size = copy.read()["vocabulary"]["item"]
    assert finding.expected == f"1 to {size - 1}"


def test_all_are_counted_and_some_are_shown(made: dict[str, Path], tmp_path: Path) -> None:
    copy = copied(made, "padded ads", tmp_path / "out")
    rows = len(copy.table())
    copy.edit(lambda columns: columns.update(label=[2] * rows, pid=[99] * rows))
    report = checked(copy.out)
    # None of the two pids occurs any more.
    assert report.counts == {
        "label": rows,
        "id outside its vocabulary": rows,
        "vocabulary counts": 2,
    }
    assert len(report.findings) == 2 * LIMIT + 2
    assert not report.sound


def test_several_kinds_are_found_at_once(made: dict[str, Path], tmp_path: Path) -> None:
    copy = copied(made, "padded reviews", tmp_path / "out")
    cell("history_position", 9)(copy)
    without("items.parquet")(copy)
    stray(copy)
    flip(copy)
    assert {"history position", "missing file", "stray file", "checksum"} <= set(
        checked(copy.out).counts
    )


def test_threads_change_nothing(made: dict[str, Path], tmp_path: Path) -> None:
    copy = copied(made, "padded ads", tmp_path / "out")
    swap("target_category", "target_brand")(copy)
    steps = []
    one, many = checked(copy.out), verify(copy.out, lambda *step: steps.append(step), threads=3)
    assert (one.findings, one.counts) == (many.findings, many.counts)
    # One split of a bucket after the other.
    assert one.shards == 6
    assert steps == [("verify", 1, 2), ("verify", 2, 2)]


def test_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        verify(tmp_path)


def test_a_split_in_place_of_its_data_set(made: dict[str, Path]) -> None:
    out = made["padded ads"]
    with pytest.raises(InputError) as raised:
        verify(out / "test")
    assert str(out.absolute()) in str(raised.value)
    assert "--split test" in str(raised.value)


def test_threads_out_of_range(made: dict[str, Path]) -> None:
    with pytest.raises(UsageError):
        verify(made["padded ads"], threads=0)


def test_nothing_is_written(made: dict[str, Path]) -> None:
    out = made["ragged ads"]
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(out.rglob("*"))}
    checked(out)
    assert {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(out.rglob("*"))} == before


def test_a_folder_in_place_of_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(InputError):
        verify(tmp_path)


def test_what_is_told_can_be_shown_in_a_terminal(made: dict[str, Path], tmp_path: Path) -> None:
    copy = copied(made, "padded ads", tmp_path / "out")
    (copy.out / "train" / "a\x1b[31m\nsound").touch()
    [finding] = checked(copy.out).findings
    assert finding.where == "train/a\\x1b[31m\\nsound"


def test_one_place_is_one_place(made: dict[str, Path], tmp_path: Path) -> None:
    copy = copied(made, "padded ads", tmp_path / "out")
    copy.path("test").unlink()
    assert "contract in 1 place." in str(checked(copy.out).error(copy.out))


@pytest.mark.parametrize("name", ["ads.parquet", "vocabulary/user.parquet", "rejected/x.parquet"])
def test_a_pipe_in_place_of_a_table(made: dict[str, Path], tmp_path: Path, name: str) -> None:
    copy = copied(made, "padded ads", tmp_path / "out")
    (copy.out / "rejected").mkdir()
    (copy.out / name).unlink(missing_ok=True)
    os.mkfifo(copy.out / name)
    assert checked(copy.out).counts.keys() & {"missing file", "stray file"}
