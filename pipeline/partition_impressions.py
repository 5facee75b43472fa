"""Partition: an impression log and a behaviour log, parsed once, into buckets of users."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from pipeline import memory, shards, vocabulary
from pipeline.buckets import Spill, bucket_path, numpy_columns, read_spilled
from pipeline.config import AlibabaConfig
from pipeline.engines.local import map_buckets, map_stream
from pipeline.lines import Block, estimate_lines
from pipeline.sources import alibaba
from pipeline.sources.alibaba_parse import (
    behavior_blocks,
    parse_behaviors,
    read_ads,
    read_impressions,
    read_profiles,
)
from pipeline.sources.parsed import REJECTED
from pipeline.tally import Ids, Tally
from pipeline.workspace import Run, check_rejected, check_space
from schemas import tables
from schemas.errors import InputError
from schemas.manifest import UNKNOWN_ID
from schemas.shards import numpy_type

# For the choice of buckets; measured, rounded up.
_WORKING_BYTES_A_BEHAVIOUR = 60
_HELD_BYTES_A_LINE = 150  # of ads and profiles

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
# The user's id; the raw numbers of category and brand, below 0 where they are missing.
_NARROW = pa.schema(
    [
        ("user", pa.int32()),
        ("time", pa.uint32()),
        ("category", pa.int32()),
        ("brand", pa.int32()),
    ]
)
_WIDE = pa.schema([(name, pa.int64()) for name in _NARROW.names])
_WIDE_FOLDER = "behaviours-wide"
_MISSING = -1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Catalogue:
    """The ads and profiles as parsed, and the lines of them that were refused."""

    ads: pl.DataFrame
    profiles: pl.DataFrame
    refused: dict[str, pl.DataFrame]

    @property
    def repeated(self) -> dict[str, int]:
        """Reason -> lines that repeat an ad, or a user."""
        found = {
            alibaba.REPEATED_AD: self.ads.height - self.ads["ad"].n_unique(),
            alibaba.REPEATED_PROFILE: self.profiles.height - self.profiles["user"].n_unique(),
        }
        return {reason: n for reason, n in found.items() if n}


@dataclass(frozen=True)
class Seen:
    """What partitioning the impressions found.

    Attributes:
        read: lines of the file.
        kept: impressions spilled.
        left_out: impressions of users outside the sample.
        first: second of the first one.
        last: second of the last one.
    """

    read: int
    kept: int
    left_out: int
    first: int
    last: int


def parse_catalogue(run: Run, config: AlibabaConfig) -> Catalogue:
    """Read ads and profiles, which fit in memory."""
    with run.step("parse ads and profiles") as rows:
        frames, refused = [], {}
        for path, read, name, model in (
            (run.paths[1], read_ads, "ad_feature", tables.Ads),
            (run.paths[2], read_profiles, "user_profile", tables.Profiles),
        ):
            parts = list(read(path))
            found = pl.concat([tables.empty(model), *(p.rows for p in parts)])
            frames.append(tables.check(model, found, path))
            refused[name] = pl.concat([pl.DataFrame(schema=REJECTED), *(p.rejected for p in parts)])
            lines = frames[-1].height + refused[name].height
            check_rejected(path, refused[name], lines, config.max_rejected)
            rows[0] += lines
            rows[1] += frames[-1].height
        return Catalogue(frames[0], frames[1], refused)


def catalogue_bytes(paths: list[Path]) -> int:
    """What ads, profiles, and the vocabularies that grow with them, take all along."""
    return _HELD_BYTES_A_LINE * sum(map(estimate_lines, paths[1:3]))


def partition_impressions(
    run: Run,
    config: AlibabaConfig,
    ads: pl.Series,
    sample: npt.NDArray[np.int64] | None,
) -> tuple[Seen, dict[str, pl.DataFrame]]:
    """Parse the impressions into buckets of users; what was found, and the rows refused."""
    path, behaviours = run.paths[0], run.paths[3]
    refused_path = run.work / "refused_impressions.parquet"

    def parse() -> list[int]:
        about = estimate_lines(path)
        working = (about + estimate_lines(behaviours)) * _WORKING_BYTES_A_BEHAVIOUR
        fixed = catalogue_bytes(run.paths)
        share = memory.bucket_bytes(config.memory, fixed, config.workers)
        least = 8 if working > 100_000_000 else 2
        buckets = config.buckets or min(4096, max(least, -int(-working // share)))
        check_space(config.out, spilled_bytes(estimate_lines(behaviours)))
        known = ads.unique().implode()
        sampled = None if sample is None else pl.Series(sample).implode()
        refused = [pl.DataFrame(schema=REJECTED)]
        read = kept = left_out = 0
        times: list[int] = []
        with (
            Spill(run.work / "impressions", buckets, _IMPRESSIONS) as spill,
            closing(read_impressions(path, threads=config.workers)) as stream,
        ):
            for parsed in stream:
                read += parsed.rows.height + parsed.rejected.height
                has_ad = parsed.rows["ad"].is_in(known)
                rows, absent = parsed.rows.filter(has_ad), parsed.rows.filter(~has_ad)
                refused += [parsed.rejected, _without_ad(absent, path)]
                if sampled is not None:
                    some = rows.filter(pl.col("user").is_in(sampled))
                    left_out += rows.height - some.height
                    rows = some
                if rows.height:
                    times += [rows["time"].min(), rows["time"].max()]  # type: ignore[list-item]
                    _spill(spill, rows, _IMPRESSIONS)
                kept += rows.height
                run.told("partition impressions", read, max(about, read))
        found = pl.concat(refused)
        check_rejected(path, found, read, config.max_rejected)
        if not kept:
            raise InputError(
                "The file holds no impressions that can be used.",
                where=path,
                expected="lines of user, time, ad, pid, nonclk, clk",
                got=f"{read:,} lines, of which {left_out:,} of users outside the sample",
            )
        shards.write_table(refused_path, vocabulary.arrow(found))
        return [buckets, read, kept, left_out, min(times), max(times)]

    with run.step("partition impressions") as rows:
        run.count, *found = run.once("impressions", parse)
        seen = Seen(*found)
        rows[:] = seen.read, seen.kept
        return seen, {"raw_sample": pl.read_parquet(refused_path)}


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
    spill.append(columns, _bucket_of(rows["user"].to_numpy(), len(spill.paths)))


def _bucket_of(user: npt.NDArray[np.int64], buckets: int) -> npt.NDArray[np.uint16]:
    """The bucket of each raw user number."""
    mixed = (user.astype(np.uint64) * _GOLDEN) >> np.uint64(40)
    return (mixed % np.uint64(buckets)).astype(np.uint16)


def fit_users(run: Run) -> pa.Table:
    """The vocabulary of the users of impressions."""

    def count_users(bucket: int) -> pl.DataFrame:
        spilled = read_spilled(bucket_path(run.work / "impressions", bucket))
        return vocabulary.count_values(pl.DataFrame(spilled.select(["user"])), "user")

    with run.step("fit users") as rows:
        counts = map_buckets(count_users, range(run.count), run.config.workers)
        users = vocabulary.vocabulary(pl.concat(counts))
        rows[:] = sum(int(c["count"].sum()) for c in counts), len(users)
        return users


def ids_of(words: pa.Table, default: int = UNKNOWN_ID) -> Ids:
    """The ids of a vocabulary of numbers."""
    return Ids(words["value"].to_numpy(), words["id"].to_numpy(), default)


def partition_behaviours(
    run: Run,
    config: AlibabaConfig,
    users: pa.Table,
    sample: npt.NDArray[np.int64] | None,
    since: int,
) -> dict[str, int]:
    """Parse the behaviours into the buckets of their users; how many were read and kept.

    Every behaviour that counts is in the vocabularies; only those of users with impressions are
    in a bucket.
    """
    path = run.paths[3]

    def parse() -> dict[str, int]:
        about = estimate_lines(path)
        of_user = ids_of(users, 0)
        sampled = None if sample is None else Ids(sample, np.ones(len(sample), np.int32), 0)
        categories, brands = Tally(), Tally()
        refused = [pl.DataFrame(schema=REJECTED)]
        found = dict.fromkeys(("read", "kept", "left_out", "no_impressions"), 0)
        one_opens = threading.Lock()
        with ExitStack() as open_spills:
            narrow = open_spills.enter_context(Spill(run.work / "behaviours", run.count, _NARROW))

            @cache
            def opened() -> Spill:
                return open_spills.enter_context(Spill(run.work / _WIDE_FOLDER, run.count, _WIDE))

            def wide() -> Spill:
                with one_opens:
                    return opened()

            def deal(block: Block) -> tuple[pl.DataFrame, dict[str, int]]:
                parsed = parse_behaviors(block, path.name, config.behaviors)
                rows = parsed.rows
                time, user = rows["time"].to_numpy(), rows["user"].to_numpy()
                counts = time >= since
                if sampled is not None:
                    counts &= sampled.of(user) > 0
                ids = of_user.of(user)
                category, brand = (rows[n].fill_null(_MISSING).to_numpy() for n in alibaba.FIELDS)
                categories.add(category[counts])
                brands.add(brand[counts])
                kept = counts & (ids > 0)
                columns = [column[kept] for column in (ids, time, category, brand)]
                _deal(narrow, wide, columns, _bucket_of(user[kept], run.count))
                told = int(kept.sum())
                return parsed.rejected, {
                    "read": parsed.read + parsed.rejected.height,
                    "kept": told,
                    "left_out": parsed.read - int(counts.sum()),
                    "no_impressions": int(counts.sum()) - told,
                }

            # Closed before the spills that its threads write to.
            with closing(map_stream(deal, behavior_blocks(path), config.workers)) as dealt:
                for rejected, more in dealt:
                    refused.append(rejected)
                    for name, n in more.items():
                        found[name] += n
                    run.told("partition behaviours", found["read"], max(about, found["read"]))
        lines = pl.concat(refused)
        check_rejected(path, lines, found["read"], config.max_rejected)
        shards.write_table(run.work / "refused_behaviours.parquet", vocabulary.arrow(lines))
        for name, tally in (("category", categories), ("brand", brands)):
            shards.write_table(run.work / f"{name}.parquet", vocabulary.arrow(tally.counts()))
        return found

    with run.step("partition behaviours") as rows:
        found: dict[str, int] = run.once("behaviours", parse)
        rows[:] = found["read"], found["kept"]
        return found


def _deal(
    narrow: Spill,
    wide: Callable[[], Spill],
    columns: list[npt.NDArray[Any]],
    bucket: npt.NDArray[np.uint16],
) -> None:
    """Send behaviours to their buckets, in as few bytes as they fit."""
    fits = all(
        not len(column) or int(column.max()) <= np.iinfo(numpy_type(kind.type)).max
        for column, kind in zip(columns, _NARROW, strict=True)
    )
    spill = narrow if fits else wide()
    arrays = [
        pa.array(column.astype(numpy_type(kind.type), copy=False))
        for column, kind in zip(columns, spill.schema, strict=True)
    ]
    spill.append(arrays, bucket)


def spilled_bytes(behaviours: int) -> int:
    """What the spilled behaviours take on disk."""
    return behaviours * int(sum(kind.bit_width // 8 for kind in _NARROW.types))


def ordered_bytes(behaviours: int) -> int:
    """What the ordered behaviours take on disk, besides the spilled ones."""
    return behaviours * 20


def output_bytes(config: AlibabaConfig, impressions: int) -> int:
    """What the shards take on disk, with room to spare.

    Neighbouring rows are mostly of one user and share most of their histories, so they shrink to
    a sixth and less (measured on synthetic data).
    """
    most, length = config.session_shape or (0, 0)
    return impressions * (90 + 20 * config.max_len + 8 * most * length + 2 * most) // 3


def behaviours_of(run: Run, bucket: int) -> dict[str, npt.NDArray[Any]]:
    """A bucket's behaviours as they were spilled: user (id), time, category and brand (raw)."""
    narrow = numpy_columns(read_spilled(bucket_path(run.work / "behaviours", bucket)))
    if not (run.work / _WIDE_FOLDER).exists():
        return narrow
    wide = numpy_columns(read_spilled(bucket_path(run.work / _WIDE_FOLDER, bucket)))
    return {name: np.concatenate([narrow[name], wide[name]]) for name in _NARROW.names}
