"""Partition: ads and profiles parsed, and an impression log, parsed once, into buckets of users."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from pipeline import memory, refused, vocabulary
from pipeline.buckets import IMPRESSIONS, Spill, bucket_path, read_spilled
from pipeline.config import AlibabaConfig
from pipeline.engines.engine import Read
from pipeline.line_count import estimate_lines
from pipeline.lines import Part
from pipeline.missing import check_missing
from pipeline.partition_behaviours import bucket_of, spilled_bytes
from pipeline.repeats import Repeats
from pipeline.sources import alibaba
from pipeline.sources.alibaba_parse import (
    read_ads,
    read_impressions,
    read_profiles,
)
from pipeline.workspace import Run
from schemas import tables
from schemas.errors import InputError
from schemas.manifest import REPEATED_AD, REPEATED_PROFILE, Share

REFUSED = refused.kind("raw_sample")

# For the choice of buckets; measured, rounded up.
_WORKING_BYTES_A_BEHAVIOUR = 60
_HELD_BYTES_A_LINE = 150  # of ads and profiles

REPEATS = Repeats(("user", "time", "ad", "pid"), label="label")
_IMPRESSIONS = pa.schema(
    [
        ("row", pa.int64()),
        ("user", pa.int64()),
        ("time", pa.int64()),
        ("ad", pa.int64()),
        ("pid", pa.large_string()),
        ("label", pa.int8()),
    ]
)


@dataclass(frozen=True)
class Catalogue:
    """The ads and profiles as parsed, and how many lines their files have."""

    ads: pl.DataFrame
    profiles: pl.DataFrame
    lines: dict[str, int]

    @property
    def repeated(self) -> dict[str, int]:
        """Reason -> lines that repeat an ad, or a user."""
        found = {
            REPEATED_AD: self.ads.height - self.ads["ad"].n_unique(),
            REPEATED_PROFILE: self.profiles.height - self.profiles["user"].n_unique(),
        }
        return {reason: n for reason, n in found.items() if n}


@dataclass(frozen=True)
class Seen:
    """What partitioning the impressions found.

    Attributes:
        read: lines of the file.
        kept: impressions spilled.
        left_out: impressions of users outside the sample.
        no_ad: impressions of ads that ad_feature lacks.
        first: second of the first one.
        last: second of the last one.
    """

    read: int
    kept: int
    left_out: int
    no_ad: int
    first: int
    last: int


def parse_catalogue(run: Run, config: AlibabaConfig) -> Catalogue:
    """Read ads and profiles, which fit in memory."""
    with run.step("parse ads and profiles") as rows:
        frames: list[pl.DataFrame] = []
        lines: dict[str, int] = {}
        for path, read, name, model in (
            (run.paths[1], read_ads, "ad_feature", tables.Ads),
            (run.paths[2], read_profiles, "user_profile", tables.Profiles),
        ):
            found = [tables.empty(model)]
            with refused.RefusedLines(run.work / refused.kind(name), Part(path)) as lines_refused:
                for parsed in read(path):
                    found.append(parsed.rows)
                    lines_refused.append(parsed.rejected)
            frames.append(tables.check(model, pl.concat(found), path))
            lines[name] = frames[-1].height + lines_refused.summary.count
            lines_refused.summary.check(path, lines[name], config.max_rejected)
            rows[0] += lines[name]
            rows[1] += frames[-1].height
        return Catalogue(frames[0], frames[1], lines)


def catalogue_bytes(paths: list[Path]) -> int:
    """What ads, profiles, and the vocabularies that grow with them, take all along."""
    return _HELD_BYTES_A_LINE * sum(map(estimate_lines, paths[1:3]))


class _Dealt(NamedTuple):
    """What is known of a part once its rows are dealt out; `times` are the least and the most."""

    read: int
    kept: int
    left_out: int
    times: list[int]
    refused: refused.Summary


def partition_impressions(
    run: Run,
    config: AlibabaConfig,
    ads: pl.Series,
    sample: npt.NDArray[np.int64] | None,
) -> Seen:
    """Parse the impressions into buckets of users; what was found."""
    path, behaviours = run.paths[0], run.paths[3]

    def parse() -> list[int]:
        working = (estimate_lines(path) + estimate_lines(behaviours)) * _WORKING_BYTES_A_BEHAVIOUR
        fixed = catalogue_bytes(run.paths)
        share = memory.bucket_bytes(config.memory, fixed, config.workers)
        least = max(8 if working > 100_000_000 else 2, run.engine.least_buckets)
        run.count = config.buckets or min(4096, max(least, -int(-working // share)))
        run.check_space(spilled_bytes(estimate_lines(behaviours)))
        deal = partial(_deal, run.count, run.engine.threads, ads.unique(), sample)
        dealt = list(run.deal("partition impressions", path, deal, [IMPRESSIONS, REFUSED]))
        read, kept = sum(part.read for part in dealt), sum(part.kept for part in dealt)
        left_out = sum(part.left_out for part in dealt)
        found = refused.merged(part.refused for part in dealt)
        no_ad = found.reasons.get(alibaba.NO_AD, 0)
        # They count as refused, too: the join is the better word for it.
        check_ads(run, config, no_ad, kept + left_out)
        found.check(path, read, config.max_rejected)
        if not kept:
            raise InputError(
                "The file holds no impressions that can be used.",
                where=path,
                expected="lines of user, time, ad, pid, nonclk, clk",
                got=f"{read:,} lines, of which {left_out:,} of users outside the sample",
            )
        times = [time for part in dealt for time in part.times]
        return [run.count, read, kept, left_out, no_ad, min(times), max(times)]

    with run.step("partition impressions") as rows:
        run.count, *found = run.once("impressions", parse)
        seen = Seen(*found)
        rows[:] = seen.read, seen.kept
        return seen


def check_ads(run: Run, config: AlibabaConfig, no_ad: int, with_ad: int) -> dict[str, Share]:
    """The share of impressions whose ad is not in ad_feature.

    Raises:
        InputError: as `check_missing`.
    """
    share = Share(no_ad, no_ad + with_ad)
    return check_missing(config, run.paths[1], {"impressions of ads not in ad_feature": share})


def _deal(
    buckets: int,
    threads: int,
    ads: pl.Series,
    sample: npt.NDArray[np.int64] | None,
    folder: Path,
    part: Part,
    read: Read,
) -> _Dealt:
    """Spill the impressions of a part to the buckets of their users."""
    known = ads.implode()
    sampled = None if sample is None else pl.Series(sample).implode()
    lines = kept = left_out = 0
    times: list[int] = []
    with (
        Spill(folder / IMPRESSIONS, buckets, _IMPRESSIONS) as spill,
        refused.RefusedLines(folder / REFUSED, part, buckets) as lines_refused,
        closing(read_impressions(part, threads=threads)) as stream,
    ):
        for parsed in stream:
            more = parsed.rows.height + parsed.rejected.height
            has_ad = parsed.rows["ad"].is_in(known)
            rows, absent = parsed.rows.filter(has_ad), parsed.rows.filter(~has_ad)
            found = pl.concat([parsed.rejected, _without_ad(absent, part.path)])
            lines_refused.append(found.sort("line"))
            if sampled is not None:
                some = rows.filter(pl.col("user").is_in(sampled))
                left_out += rows.height - some.height
                rows = some
            if rows.height:
                times += [rows["time"].min(), rows["time"].max()]  # type: ignore[list-item]
                _spill(spill, rows, _IMPRESSIONS)
            kept += rows.height
            lines += more
            read(more)
    ends = [min(times), max(times)] if times else []
    return _Dealt(lines, kept, left_out, ends, lines_refused.summary)


def _without_ad(rows: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Impressions of ads that ad_feature lacks, as refused lines."""
    return rows.select(
        file=pl.lit(path.name),
        line=pl.col("row") + 2,
        reason=pl.lit(alibaba.NO_AD),
        text=pl.concat_str("user", "time", "ad", "pid", separator=",", ignore_nulls=True),
    )


def _spill(spill: Spill, rows: pl.DataFrame, schema: pa.Schema) -> None:
    table = vocabulary.arrow(rows.select(schema.names)).cast(schema)
    columns = [column.combine_chunks() for column in table.columns]
    spill.append(columns, bucket_of(rows["user"].to_numpy(), len(spill.paths)))


def fit_users(run: Run, drop: bool) -> tuple[pa.Table, int, int]:
    """The vocabulary of the users of impressions.

    Args:
        run: the preparation.
        drop: whether impressions that repeat another one count no more.

    Returns:
        It, how many impressions repeat another one, and how many are both clicked and not.
    """
    with run.step("fit users") as rows:
        found = run.each("fit users", partial(_count_users, drop), needs=[IMPRESSIONS])
        users = vocabulary.vocabulary(pl.concat(counts for counts, _ in found))
        rows[:] = sum(int(counts["count"].sum()) for counts, _ in found), len(users)
        repeated, both = (sum(counted[k] for _, counted in found) for k in range(2))
        return users, repeated, both


def _count_users(drop: bool, folder: Path, bucket: int) -> tuple[pl.DataFrame, tuple[int, int]]:
    spilled = read_spilled(bucket_path(folder / IMPRESSIONS, bucket))
    frame = pl.DataFrame(REPEATS.kept(spilled, drop))
    return vocabulary.count_values(frame, "user"), REPEATS.count(pl.DataFrame(spilled))


def output_bytes(config: AlibabaConfig, impressions: int) -> int:
    """What the shards take on disk, with room to spare.

    Neighbouring rows are mostly of one user and share most of their histories, so they shrink to
    a sixth and less (measured on synthetic data).
    """
    most, length = config.session_shape or (0, 0)
    return impressions * (90 + 20 * config.max_len + 8 * most * length + 2 * most) // 3
