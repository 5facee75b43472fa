"""`tinprep alibaba` on real impressions and behaviours, against the oracle."""

from __future__ import annotations

import csv
import gzip
import hashlib
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from schemas.manifest import SPLITS, Manifest, load
from tests.alibaba_made import agree, alibaba, check_rows, read_made
from tests.alibaba_oracle import Expected, oracle
from tests.alibaba_raw import FILES, PROFILE
from tests.conftest import finished, zstd
from tests.one_history import shard_schema

DAY = 86_400
BEIJING = 8 * 3600
IMPRESSIONS = 64_942
FEATURES = ("ad", "campaign", "customer", "pid", *PROFILE)
EVERY = "pv,cart,fav,buy"
PART = 25  # one user in so many


@pytest.fixture(scope="module")
def whole(kuairand: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set of all of it by default; tests read it and leave it as it is."""
    out = tmp_path_factory.mktemp("kuairand") / "out"
    finished(alibaba(kuairand, out))
    return out


@pytest.fixture(scope="module")
def rows(whole: Path) -> dict[int, dict[str, Any]]:
    return read_made(whole)


@pytest.fixture(scope="module")
def manifest(whole: Path) -> Manifest:
    return load(whole)


@pytest.fixture(scope="module")
def expected(kuairand: Path) -> Expected:
    return oracle(kuairand)


@pytest.fixture(scope="module")
def part(kuairand: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw files with the impressions, profiles and behaviours of every 25th user."""
    folder = tmp_path_factory.mktemp("part")
    for name in FILES:
        with (kuairand / name).open() as file:
            header, *lines = file.readlines()
        if name != "ad_feature.csv":
            lines = [line for line in lines if int(line.split(",")[0]) % PART == 0]
        (folder / name).write_text("".join([header, *lines]))
    return folder


@pytest.fixture(scope="module")
def part_out(part: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set of the part by default; tests read it and leave it as it is."""
    out = tmp_path_factory.mktemp("part_out") / "out"
    finished(alibaba(part, out))
    return out


def shards(out: Path) -> pl.DataFrame:
    """All rows in a fixed order, with their split."""
    made = load(out)
    frames = [
        pl.read_parquet(path).with_columns(split=pl.lit(split))
        for split in SPLITS
        for path in made.shard_paths(out, split)
    ]
    return pl.concat(frames).sort("row")


def raw_lines(folder: Path, name: str) -> Iterator[list[str]]:
    with (folder / name).open() as file:
        yield from list(csv.reader(file))[1:]


# ---- all of it


def test_every_row_is_what_the_oracle_says(whole: Path, expected: Expected) -> None:
    agree(whole, expected)


def test_each_impression_is_in_the_split_of_its_beijing_day(
    kuairand: Path, rows: dict[int, dict[str, Any]], manifest: Manifest
) -> None:
    assert sorted(rows) == list(range(IMPRESSIONS))
    assert manifest.targets == IMPRESSIONS
    days: dict[str, set[int]] = {name: set() for name in SPLITS}
    for row, line in enumerate(raw_lines(kuairand, "raw_sample.csv")):
        made = rows[row]
        assert (made["target_time"], made["label"]) == (int(line[1]), int(line[5]))
        days[made["split"]].add((int(line[1]) + BEIJING) // DAY)
    assert [len(days[name]) for name in SPLITS] == [7, 1, 1]
    assert max(days["train"]) < min(days["valid"]) < min(days["test"])
    assert manifest.rows == {"train": 50_504, "valid": 6_676, "test": 7_762}


def test_no_behaviour_is_of_the_impressions_second_or_later(
    rows: dict[int, dict[str, Any]],
) -> None:
    assert all(max(r["history_time"], default=-1) < r["target_time"] for r in rows.values())
    assert any(r["history_length"] == 50 for r in rows.values())
    assert any(r["history_length"] == 0 for r in rows.values())
    assert any(r["history_length"] < sum(r["session_length"]) + 3 for r in rows.values())


def test_shards_are_as_the_schema_and_the_manifest_say(
    kuairand: Path, whole: Path, manifest: Manifest
) -> None:
    want = shard_schema(
        ("category", "brand"),
        "padded",
        50,
        features=FEATURES,
        numbers=("price",),
        sessions=(5, 10),
    )
    assert want.names[:10] == [
        *("row", "user", "target_category", "target_brand", "target_time", "label"),
        *("ad", "campaign", "customer", "pid"),
    ]
    for shard in manifest.shards:
        file = pq.ParquetFile(whole / shard.path)
        assert file.schema_arrow.remove_metadata().equals(want), shard.path
        assert file.metadata.num_rows == shard.rows
        digest = hashlib.sha256((whole / shard.path).read_bytes()).hexdigest()
        assert digest == shard.sha256
    there = {str(p.relative_to(whole)) for s in SPLITS for p in (whole / s).glob("*")}
    assert there == {shard.path for shard in manifest.shards}
    read = {file.file: file.bytes for file in manifest.inputs}
    assert read == {name: (kuairand / name).stat().st_size for name in FILES}
    assert not manifest.synthetic
    assert manifest.layout == "padded"


def test_price_statistics_are_those_of_train(manifest: Manifest, expected: Expected) -> None:
    told = manifest.numbers["price"]
    assert told["mean"] == pytest.approx(expected.price[0])
    assert told["std"] == pytest.approx(expected.price[1])


def test_bins_are_even(manifest: Manifest) -> None:
    share = np.array(manifest.history.bins.train_counts) / sum(manifest.history.bins.train_counts)
    assert np.abs(share - 0.1).max() < 0.001


def test_ragged_holds_the_same_rows(
    kuairand: Path, rows: dict[int, dict[str, Any]], tmp_path: Path
) -> None:
    finished(alibaba(kuairand, tmp_path / "out", "--layout", "ragged"))
    assert load(tmp_path / "out").layout == "ragged"
    assert read_made(tmp_path / "out") == rows


def test_a_fraction_of_the_users_is_dsins(kuairand: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    finished(alibaba(kuairand, out, "--user-fraction", 0.25))
    agree(out, oracle(kuairand, user_fraction=0.25))
    # What pandas' sample(frac=0.25, random_state=1024) takes.
    users = np.array([int(line[0]) for line in raw_lines(kuairand, "user_profile.csv")])
    state = np.random.RandomState(1024)
    chosen = {*users[state.choice(len(users), size=round(0.25 * len(users)), replace=False)]}
    impressions = [int(line[0]) for line in raw_lines(kuairand, "raw_sample.csv")]
    want = [row for row, user in enumerate(impressions) if user in chosen]
    assert sorted(read_made(out)) == want
    counts = load(out).counts
    assert IMPRESSIONS - len(want) in counts.values()


# ---- options, on a part


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        ([], {}),
        (["--split-at", 1_651_800_000], {"split_at": 1_651_800_000}),
        (
            ["--behaviors", EVERY, "--behaviors-since", "all"],
            {"behaviors": EVERY.split(","), "since": "all"},
        ),
        (
            ["--behaviors", "fav", "--behaviors-since", 1_651_400_000],
            {"behaviors": ["fav"], "since": 1_651_400_000},
        ),
        (["--sessions", "3x4", "--layout", "ragged"], {"session_shape": (3, 4)}),
        (["--sessions", "none", "--max-len", 3], {"session_shape": None, "max_len": 3}),
        (["--session-gap", 300, "--bins", 4], {"session_gap": 300, "bins": 4}),
        (["--min-count", 5], {"min_count": 5}),
        (["--timezone", "America/New_York"], {"timezone": "America/New_York"}),
    ],
    ids=str,
)
def test_options_equal_the_oracle(
    part: Path, tmp_path: Path, flags: list[object], options: dict[str, Any]
) -> None:
    finished(alibaba(part, tmp_path / "out", *flags))
    want = oracle(part, **options)
    assert len(want.rows) > 2_000
    agree(tmp_path / "out", want)


@pytest.mark.parametrize(
    "flags",
    [["--buckets", 1, "--threads", 2], ["--buckets", 2, "--threads", 1], ["--buckets", 7]],
    ids=str,
)
def test_same_rows_whatever_the_buckets_threads_and_order_of_behaviours(
    part: Path, part_out: Path, tmp_path: Path, flags: list[object]
) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(part, raw)
    header, *lines = (part / "behavior_log.csv").read_text().splitlines(keepends=True)
    random.Random(str(flags)).shuffle(lines)
    (raw / "behavior_log.csv").write_text("".join([header, *lines]))
    finished(alibaba(raw, tmp_path / "out", *flags))
    got, want = shards(tmp_path / "out"), shards(part_out)
    assert got.columns == want.columns
    assert got.equals(want)
    assert load(tmp_path / "out").history.bins == load(part_out).history.bins


def test_files_are_read_whatever_their_packing_and_name(
    part: Path, part_out: Path, tmp_path: Path
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    packings = (".gz", bytes), ("", gzip.compress), (".zst", zstd), (".zst", gzip.compress)
    for name, (ending, packed) in zip(FILES, packings, strict=True):
        (raw / f"{name}{ending}").write_bytes(packed((part / name).read_bytes()))
    finished(alibaba(raw, tmp_path / "out"))
    assert shards(tmp_path / "out").equals(shards(part_out))


def test_a_finished_folder_is_left_as_it_is_or_replaced_by_force(
    part: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    finished(alibaba(part, out))
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.*") if p.name != ".lock"}
    finished(alibaba(part, out, "--threads", 1))
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert alibaba(part, out, "--sessions", "none").code == 2
    assert {p: p.stat().st_mtime_ns for p in before} == before
    finished(alibaba(part, out, "--sessions", "none", "--force"))
    check_rows(read_made(out), oracle(part, session_shape=None))
