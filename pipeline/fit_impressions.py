"""Fit: vocabularies, ads and profiles as ids, ordered buckets, and the intervals of train."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import intervals, shards, steps, vocabulary
from pipeline import transform_impressions as transform
from pipeline.buckets import (
    BEHAVIOURS,
    IMPRESSIONS,
    ORDERED_IMPRESSIONS,
    SEQUENCES,
    Behaviours,
    bucket_path,
    load_columns,
    numpy_columns,
    read_spilled,
    save_columns,
)
from pipeline.config import AlibabaConfig
from pipeline.partition_behaviours import WIDE, behaviours_of
from pipeline.partition_impressions import REPEATS, Catalogue
from pipeline.rows import Windows
from pipeline.sources import alibaba
from pipeline.sources.alibaba_columns import PROFILE_FIELDS
from pipeline.split import TRAIN, Days
from pipeline.tally import Ids, Tally, ids_of
from pipeline.workspace import Run
from schemas import tables
from schemas.manifest import FIRST_ID, UNKNOWN_ID


@dataclass(frozen=True)
class Summary:
    """What the pass over the ordered buckets found.

    Attributes:
        totals: the train split's intervals, counted.
        shown: (ads,) train impressions of each.
        behaviours: how many there are.
        repeated: how many of them are as another one in all that is stored.
    """

    totals: pl.DataFrame
    shown: npt.NDArray[np.int64]
    behaviours: int
    repeated: int


def fit_vocabulary(
    run: Run, config: AlibabaConfig, parsed: Catalogue, users: pa.Table
) -> dict[str, pa.Table]:
    """The vocabulary of every id column; values rarer than `min_count` are in none."""
    with run.step("fit vocabulary") as rows:
        count = partial(_count, run.paths[0], config.drops)
        counts = run.each("fit vocabulary", count, needs=[IMPRESSIONS])
        counted = {
            name: [vocabulary.count_values(parsed.ads, name)]
            for name in (*alibaba.FIELDS, *alibaba.AD_FEATURES)
        }
        for name in alibaba.FIELDS:
            counted[name].append(pl.read_parquet(run.work / f"{name}.parquet"))
        counted["ad"] += [c[0] for c in counts]
        counted["pid"] = [c[1] for c in counts]
        for name in PROFILE_FIELDS:
            counted[name] = [vocabulary.count_values(parsed.profiles, name)]
        words = {"user": users}
        for name, found in counted.items():
            frame = pl.concat(found)
            if config.min_count > 1:
                often = pl.col("count").sum().over("value") >= config.min_count
                frame = frame.filter(often)
            words[name] = vocabulary.vocabulary(frame)
        steps.write_vocabularies(run, words)
        rows[:] = sum(len(f) for c in counted.values() for f in c), sum(map(len, words.values()))
        return words


def _count(path: Path, drop: bool, folder: Path, bucket: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """How often each ad and each pid of a bucket occurs; `path` is of the raw file."""
    spilled = read_spilled(bucket_path(folder / IMPRESSIONS, bucket))
    frame = pl.DataFrame(REPEATS.kept(spilled, drop))
    tables.check(tables.Impressions, frame, path)
    return vocabulary.count_values(frame, "ad"), vocabulary.count_values(frame, "pid")


def encode_ads(
    run: Run, words: dict[str, pa.Table], parsed: Catalogue
) -> tuple[pl.DataFrame, dict[str, npt.NDArray[np.int32]]]:
    """Ads with ids, by raw number; each profile field's id by user id."""

    def named(*names: str) -> dict[str, pa.Table]:
        return {f"{name}_ids": words[name].select(["value", "id"]) for name in names}

    threads, out = run.config.workers, run.config.out
    given = {"ads": vocabulary.arrow(parsed.ads)}
    given |= named(*alibaba.FIELDS, *alibaba.AD_FEATURES)
    found = vocabulary.query("alibaba/ads", given, threads, unknown_id=UNKNOWN_ID)
    known = found.filter(pc.field("ad") >= FIRST_ID).drop_columns(["raw"])
    tables.check(tables.EncodedAds, pl.DataFrame(known), out / "ads.parquet")
    shards.write_table(out / "ads.parquet", known)
    given = {"profiles": vocabulary.arrow(parsed.profiles), **named(*PROFILE_FIELDS)}
    given["users"] = words["user"].select(["value", "id"])
    rows = vocabulary.query("alibaba/profiles", given, threads, unknown_id=UNKNOWN_ID)
    tables.check(tables.EncodedProfiles, pl.DataFrame(rows), out / "profiles.parquet")
    shards.write_table(out / "profiles.parquet", rows)
    size = len(words["user"]) + FIRST_ID
    profiles = {name: np.full(size, UNKNOWN_ID, np.int32) for name in PROFILE_FIELDS}
    user = rows["user"].to_numpy()
    for name, column in profiles.items():
        column[user] = rows[name].to_numpy()
    return pl.DataFrame(found), profiles


def fit_intervals(
    run: Run,
    config: AlibabaConfig,
    words: dict[str, pa.Table],
    ads: pl.DataFrame,
    days: Days,
) -> Summary:
    """Encode and order each bucket; the intervals and the ads that train shows."""
    name = "order and fit intervals"
    # One count of the ads for all buckets: one each would grow with their number.
    tally, shown = Tally(), Tally()
    users, pids = (words[name].select(["value", "id"]) for name in ("user", "pid"))
    encode = _Encode(
        {name: ids_of(words[name]) for name in alibaba.FIELDS},
        users,
        pids,
        pa.table({"raw": ads["raw"].to_arrow(), "place": np.arange(len(ads), dtype=np.int32)}),
        days,
        config.max_len,
        config.drops,
    )
    with run.step(name) as rows:
        found = run.each(
            name,
            encode,
            needs=[IMPRESSIONS, BEHAVIOURS, WIDE],
            makes=[SEQUENCES, ORDERED_IMPRESSIONS],
            tallies=[tally, shown],
        )
        behaviours, repeated = (sum(one[k] for one in found) for k in range(2))
        totals, dense = intervals.counted(tally), _dense(shown, len(ads))
        fitted = Summary(totals, dense, behaviours, repeated)
        rows[:] = fitted.behaviours, fitted.totals.height
        return fitted


@dataclass(frozen=True)
class _Encode:
    """Encodes and orders a bucket; counts the intervals of its train histories, and its ads.

    Attributes:
        ids: the ids of each field of a behaviour.
        users: the vocabulary: value, id.
        pids: the vocabulary: value, id.
        places: raw number and place of each ad.
        days: where the splits meet.
        max_len: behaviours kept of a history.
        drop: whether impressions and behaviours that repeat another one are left out.
    """

    ids: dict[str, Ids]
    users: pa.Table
    pids: pa.Table
    places: pa.Table
    days: Days
    max_len: int
    drop: bool

    def __call__(self, folder: Path, bucket: int, tally: Tally, shown: Tally) -> tuple[int, int]:
        """How many behaviours the bucket has, and how many of them are as another one."""
        marker = bucket_path(folder / SEQUENCES, bucket)
        if not marker.exists():
            behaviours = _ordered(folder, bucket, self.ids)
            if self.drop:
                behaviours = behaviours.take(~transform.repeated(behaviours))
            spilled = read_spilled(bucket_path(folder / IMPRESSIONS, bucket))
            given = {
                "impressions": REPEATS.kept(spilled, self.drop),
                "users": self.users,
                "ads": self.places,
                "pids": self.pids,
            }
            joined = vocabulary.query("alibaba/impressions", given, unknown_id=UNKNOWN_ID)
            seen: dict[str, npt.NDArray[Any]] = numpy_columns(joined)
            windows = transform.windows(behaviours, seen["user"], seen["time"])
            seen |= {"start": windows.start, "end": windows.end}
            save_columns(bucket_path(folder / ORDERED_IMPRESSIONS, bucket), seen)
            columns: dict[str, npt.NDArray[Any]] = dict(behaviours.fields)
            columns |= {"user": behaviours.user, "time": behaviours.time}
            named = ("user", "time", *alibaba.FIELDS)
            given_rows = pl.DataFrame({name: columns[name] for name in named})
            tables.check(tables.Behaviours, given_rows, marker)
            save_columns(marker, columns)
        behaviours, impressions = load(folder, bucket)
        train = self.days.split(impressions.time) == TRAIN
        shown.add(impressions.ad_place[train])
        transform.count_intervals(behaviours, impressions, self.days, self.max_len, tally)
        return len(behaviours.user), int(np.count_nonzero(transform.repeated(behaviours)))


def _dense(tally: Tally, size: int) -> npt.NDArray[np.int64]:
    """(size,) how often each number below `size` was counted."""
    counts = tally.counts()
    dense = np.zeros(size, np.int64)
    dense[counts["value"].to_numpy()] = counts["count"].to_numpy()
    return dense


def _ordered(folder: Path, bucket: int, ids: dict[str, Ids]) -> Behaviours:
    """A bucket's behaviours, encoded and in order."""
    columns = behaviours_of(folder, bucket)
    user, time, category, brand = transform.order(
        columns["user"].astype(np.int32, copy=False),
        columns["time"].astype(np.int64, copy=False),
        ids["category"].of(columns["category"]),
        ids["brand"].of(columns["brand"]),
    )
    return Behaviours.of(user, time, {"category": category, "brand": brand})


def load(folder: Path, bucket: int) -> tuple[Behaviours, transform.Impressions]:
    """A bucket as `fit_intervals` left it."""
    b = load_columns(bucket_path(folder / SEQUENCES, bucket))
    behaviours = Behaviours.of(b["user"], b["time"], {name: b[name] for name in alibaba.FIELDS})
    c = load_columns(bucket_path(folder / ORDERED_IMPRESSIONS, bucket))
    seen = transform.Impressions(
        c["row"],
        c["user"],
        c["time"],
        c["ad_place"],
        {"pid": c["pid"]},
        c["label"],
        Windows(c["start"], c["end"]),
    )
    return behaviours, seen
