"""The ordered steps from an impression log and a behaviour log to a data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from pipeline import intervals, shards, steps, vocabulary
from pipeline import transform_impressions as transform
from pipeline.buckets import (
    Behaviours,
    Spill,
    bucket_path,
    load_columns,
    numpy_columns,
    read_spilled,
    save_columns,
)
from pipeline.config import AlibabaConfig
from pipeline.engines.local import map_buckets, map_stream
from pipeline.lines import Block, estimate_lines
from pipeline.rows import Stored, Windows
from pipeline.sources import alibaba
from pipeline.sources.alibaba_columns import PROFILE_FIELDS
from pipeline.sources.alibaba_parse import (
    behavior_blocks,
    parse_behaviors,
    read_ads,
    read_impressions,
    read_profiles,
)
from pipeline.sources.amazon_parse import REJECTED
from pipeline.sources.synthetic import MARKER
from pipeline.split import TRAIN, Days
from pipeline.tally import Ids, Tally
from pipeline.workspace import Run, check_rejected, check_space, write_rejected
from schemas import manifest, tables
from schemas.errors import InputError
from schemas.manifest import FIRST_ID, UNKNOWN_ID
from schemas.shards import shard_schema

# For the choice of buckets, and for estimates; measured, rounded up.
_WORKING_BYTES_A_BEHAVIOUR = 60
_BEHAVIOURS_A_SECOND = 1_200_000
_ROWS_A_SECOND = 60_000

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
_MISSING = -1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class _Ads:
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
class _Seen:
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


@dataclass(frozen=True)
class _Fitted:
    """What the pass over the ordered buckets found."""

    totals: pl.DataFrame
    shown: npt.NDArray[np.int64]
    behaviours: int


def obtain(config: AlibabaConfig) -> list[Path]:
    """The raw files; see `sources.alibaba.obtain`."""
    return alibaba.obtain(config)


def plan(config: AlibabaConfig) -> str:
    """What `--dry-run` says; nothing is written."""
    impressions, _, _, behaviours = (estimate_lines(p) for p in alibaba.obtain(config))
    work, output = _work_bytes(behaviours), _output_bytes(config, impressions)
    seconds = 2 + behaviours / _BEHAVIOURS_A_SECOND + impressions / _ROWS_A_SECOND
    return (
        f"impressions   about {impressions:,}\nbehaviours    about {behaviours:,}\n"
        f"rows          at most {impressions:,}\n"
        f"disk          about {(work + output) / 1e6:,.0f} MB at the most, of which "
        f"{output / 1e6:,.0f} MB stay, in {config.out}\n"
        f"time          about {seconds:.0f} s on two cores"
    )


def make(
    run: Run, config: AlibabaConfig, inputs: list[manifest.InputFile], key: str
) -> manifest.Manifest:
    """Partition, fit, transform, and write the manifest."""
    impressions_path = run.paths[0]
    parsed = _parse_ads(run, config)
    sample = alibaba.sampled_users(parsed.profiles["user"], config.user_fraction)
    seen, absent = _partition_impressions(run, config, parsed.ads["ad"], sample)
    since = alibaba.since(config, seen.first)
    users = _users(run)
    behaviours = _partition_behaviours(run, config, users, sample, since)
    words = _fit_vocabulary(run, config, parsed, users)
    ads, profiles = _encode_ads(run, words, parsed)
    days = alibaba.days(config, seen.first, seen.last)
    fitted = _fit_intervals(run, config, words, ads, days)
    price, how = alibaba.price_numbers(ads["price"].fill_null(np.nan).to_numpy(), fitted.shown)
    stored = Stored(
        intervals.edges(fitted.totals, config.bins),
        config.max_len,
        config.layout,
        config.session_gap,
        config.session_shape,
    )
    state = transform.Fitted(
        days,
        {name: ads[name].to_numpy() for name in alibaba.FIELDS},
        {**{name: ads[name].to_numpy() for name in alibaba.AD_FEATURES}, "price": price},
        profiles,
        stored,
    )
    results = _transform(run, config, state)
    refused = {name: vocabulary.arrow(rows) for name, rows in {**parsed.refused, **absent}.items()}
    behaviours_refused = pl.read_parquet(run.work / "refused_behaviours.parquet")
    refused["behavior_log"] = vocabulary.arrow(behaviours_refused)
    rejected = write_rejected(config.out, refused) | parsed.repeated
    synthetic = (impressions_path.parent / MARKER).exists()
    read = dict(
        zip(
            alibaba.NAMES,
            (
                seen.read,
                parsed.ads.height + parsed.refused["ad_feature"].height,
                parsed.profiles.height + parsed.refused["user_profile"].height,
                behaviours["read"],
            ),
            strict=True,
        )
    )
    counts = {
        "impressions read": seen.read,
        "behaviours read": behaviours["read"],
        "behaviours kept": behaviours["kept"],
        "behaviours of other kinds or times": behaviours["left_out"],
        "behaviours of users without impressions": behaviours["no_impressions"],
        "impressions of users outside the sample": seen.left_out,
        "impressions of users without a profile": sum(r["no_profile"] for r in results),
        "impressions without behaviours": sum(r["no_history"] for r in results),
        "behaviours since": since,
    }
    content = steps.Content(
        dataset="alibaba",
        synthetic=synthetic,
        fields=alibaba.FIELDS,
        words=words,
        stored=stored,
        totals=fitted.totals,
        each=1,
        rejected=rejected,
        notes=[] if synthetic else alibaba.notes(config, read),
        counts=counts,
        numbers={"price": how},
    )
    return steps.finish(run, inputs, key, results, content)


def _parse_ads(run: Run, config: AlibabaConfig) -> _Ads:
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
        return _Ads(frames[0], frames[1], refused)


def _partition_impressions(
    run: Run,
    config: AlibabaConfig,
    ads: pl.Series,
    sample: npt.NDArray[np.int64] | None,
) -> tuple[_Seen, dict[str, pl.DataFrame]]:
    """Parse the impressions into buckets of users; what was found, and the rows refused."""
    path, behaviours = run.paths[0], run.paths[3]
    refused_path = run.work / "refused_impressions.parquet"

    def parse() -> list[int]:
        about = estimate_lines(path)
        working = (about + estimate_lines(behaviours)) * _WORKING_BYTES_A_BEHAVIOUR
        share = config.memory / 2 / config.workers
        least = 16 if working > 100_000_000 else 2
        buckets = config.buckets or min(4096, max(least, -int(-working // share)))
        check_space(
            config.out, _work_bytes(estimate_lines(behaviours)) + _output_bytes(config, about)
        )
        known = ads.unique().implode()
        sampled = None if sample is None else pl.Series(sample).implode()
        refused = [pl.DataFrame(schema=REJECTED)]
        read = kept = left_out = 0
        times: list[int] = []
        with Spill(run.work / "impressions", buckets, _IMPRESSIONS) as spill:
            for parsed in read_impressions(path):
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
        seen = _Seen(*found)
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


def _users(run: Run) -> pa.Table:
    """The vocabulary of the users of impressions."""

    def count_users(bucket: int) -> pl.DataFrame:
        spilled = read_spilled(bucket_path(run.work / "impressions", bucket))
        return vocabulary.count_values(pl.DataFrame(spilled.select(["user"])), "user")

    with run.step("fit users") as rows:
        counts = map_buckets(count_users, range(run.count), run.config.workers)
        users = vocabulary.vocabulary(pl.concat(counts))
        rows[:] = sum(int(c["count"].sum()) for c in counts), len(users)
        return users


def _ids(words: pa.Table, default: int = UNKNOWN_ID) -> Ids:
    return Ids(words["value"].to_numpy(), words["id"].to_numpy(), default)


def _partition_behaviours(
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
        of_user = _ids(users, 0)
        sampled = None if sample is None else Ids(sample, np.ones(len(sample), np.int32), 0)
        categories, brands = Tally(), Tally()
        refused = [pl.DataFrame(schema=REJECTED)]
        found = dict.fromkeys(("read", "kept", "left_out", "no_impressions"), 0)
        with (
            Spill(run.work / "behaviours", run.count, _NARROW) as narrow,
            Spill(run.work / "behaviours-wide", run.count, _WIDE) as wide,
        ):

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
                    "read": parsed.read,
                    "kept": told,
                    "left_out": parsed.read - parsed.rejected.height - int(counts.sum()),
                    "no_impressions": int(counts.sum()) - told,
                }

            for rejected, more in map_stream(deal, behavior_blocks(path), config.workers):
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
    narrow: Spill, wide: Spill, columns: list[npt.NDArray[Any]], bucket: npt.NDArray[np.uint16]
) -> None:
    """Send behaviours to their buckets, in as few bytes as they fit."""
    fits = all(
        not len(column) or int(column.max()) <= np.iinfo(kind.type.to_pandas_dtype()).max
        for column, kind in zip(columns, _NARROW, strict=True)
    )
    spill = narrow if fits else wide
    arrays = [
        pa.array(column.astype(kind.type.to_pandas_dtype(), copy=False))
        for column, kind in zip(columns, spill.schema, strict=True)
    ]
    spill.append(arrays, bucket)


def _fit_vocabulary(
    run: Run, config: AlibabaConfig, parsed: _Ads, users: pa.Table
) -> dict[str, pa.Table]:
    """The vocabulary of every id column; values rarer than `min_count` are in none."""

    def count_impressions(bucket: int) -> tuple[pl.DataFrame, pl.DataFrame]:
        spilled = read_spilled(bucket_path(run.work / "impressions", bucket))
        frame = pl.DataFrame(spilled)
        tables.check(tables.Impressions, frame, run.paths[0])
        return vocabulary.count_values(frame, "ad"), vocabulary.count_values(frame, "pid")

    with run.step("fit vocabulary") as rows:
        counts = map_buckets(count_impressions, range(run.count), config.workers)
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


def _encode_ads(
    run: Run, words: dict[str, pa.Table], parsed: _Ads
) -> tuple[pl.DataFrame, dict[str, npt.NDArray[np.int32]]]:
    """Ads with ids, by raw number; each profile field's id by user id."""

    def ids_of(*names: str) -> dict[str, pa.Table]:
        return {f"{name}_ids": words[name].select(["value", "id"]) for name in names}

    threads, out = run.config.workers, run.config.out
    given = {"ads": vocabulary.arrow(parsed.ads)}
    given |= ids_of(*alibaba.FIELDS, *alibaba.AD_FEATURES)
    found = vocabulary.query("alibaba/ads", given, threads, unknown_id=UNKNOWN_ID)
    shards.write_table(out / "ads.parquet", found.drop_columns(["raw"]))
    given = {"profiles": vocabulary.arrow(parsed.profiles), **ids_of(*PROFILE_FIELDS)}
    given["users"] = words["user"].select(["value", "id"])
    rows = vocabulary.query("alibaba/profiles", given, threads, unknown_id=UNKNOWN_ID)
    shards.write_table(out / "profiles.parquet", rows)
    size = len(words["user"]) + FIRST_ID
    profiles = {name: np.full(size, UNKNOWN_ID, np.int32) for name in PROFILE_FIELDS}
    user = rows["user"].to_numpy()
    for name, column in profiles.items():
        column[user] = rows[name].to_numpy()
    profiles["has_profile"] = np.zeros(size, np.int32)
    profiles["has_profile"][user] = 1
    return pl.DataFrame(found), profiles


def _fit_intervals(
    run: Run,
    config: AlibabaConfig,
    words: dict[str, pa.Table],
    ads: pl.DataFrame,
    days: Days,
) -> _Fitted:
    """Encode and order each bucket; the intervals and the ads that train shows."""
    ids = {name: _ids(words[name]) for name in alibaba.FIELDS}
    users, pids = (words[name].select(["value", "id"]) for name in ("user", "pid"))
    places = pa.table({"raw": ads["raw"].to_arrow(), "place": np.arange(len(ads), dtype=np.int32)})

    def encode(bucket: int) -> tuple[pl.DataFrame, npt.NDArray[np.int64], int]:
        marker = run.sequences(bucket)
        if not marker.exists():
            behaviours = _ordered(run, bucket, ids)
            given = {
                "impressions": read_spilled(bucket_path(run.work / "impressions", bucket)),
                "users": users,
                "ads": places,
                "pids": pids,
            }
            joined = vocabulary.query("alibaba/impressions", given, unknown_id=UNKNOWN_ID)
            seen: dict[str, npt.NDArray[Any]] = numpy_columns(joined)
            windows = transform.windows(behaviours, seen["user"], seen["time"])
            seen |= {"start": windows.start, "end": windows.end}
            save_columns(_ordered_impressions(run, bucket), seen)
            columns: dict[str, npt.NDArray[Any]] = dict(behaviours.fields)
            columns |= {"user": behaviours.user, "time": behaviours.time}
            save_columns(marker, columns)
        behaviours, impressions = _load(run, bucket)
        train = days.split(impressions.time) == TRAIN
        shown = np.bincount(impressions.ad_place[train], minlength=len(ads))
        counts = transform.interval_counts(behaviours, impressions, days, config.max_len)
        return counts, shown, len(behaviours.user)

    name = "order and fit intervals"
    with run.step(name) as rows:
        found = map_buckets(encode, range(run.count), config.workers, run.counter(name))
        fitted = _Fitted(
            intervals.merge([f[0] for f in found]),
            np.sum([f[1] for f in found], axis=0),
            sum(f[2] for f in found),
        )
        rows[:] = fitted.behaviours, fitted.totals.height
        return fitted


def _ordered(run: Run, bucket: int, ids: dict[str, Ids]) -> Behaviours:
    """A bucket's behaviours, encoded and in order."""
    parts = [
        numpy_columns(read_spilled(bucket_path(run.work / folder, bucket)))
        for folder in ("behaviours", "behaviours-wide")
    ]
    # Most have nothing in the second folder, and are not copied.
    parts = [p for p in parts if len(p["user"])] or parts[:1]
    columns = {
        name: parts[0][name] if len(parts) == 1 else np.concatenate([p[name] for p in parts])
        for name in _NARROW.names
    }
    user, time, category, brand = transform.order(
        columns["user"].astype(np.int32, copy=False),
        columns["time"].astype(np.int64, copy=False),
        ids["category"].of(columns["category"]),
        ids["brand"].of(columns["brand"]),
    )
    return Behaviours.of(user, time, {"category": category, "brand": brand})


def _ordered_impressions(run: Run, bucket: int) -> Path:
    return bucket_path(run.work / "ordered-impressions", bucket)


def _load(run: Run, bucket: int) -> tuple[Behaviours, transform.Impressions]:
    """A bucket as `_fit_intervals` left it."""
    b = load_columns(run.sequences(bucket))
    behaviours = Behaviours.of(b["user"], b["time"], {name: b[name] for name in alibaba.FIELDS})
    c = load_columns(_ordered_impressions(run, bucket))
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


def _transform(run: Run, config: AlibabaConfig, fitted: transform.Fitted) -> list[dict[str, Any]]:
    """Write each bucket's shards."""
    stored = fitted.stored
    profiles = dict(fitted.profiles)
    has_profile = profiles.pop("has_profile")
    state = transform.Fitted(fitted.days, fitted.target, fitted.ads, profiles, stored)
    schema = shard_schema(
        alibaba.FIELDS,
        stored.layout,
        stored.max_len,
        features=alibaba.FEATURES,
        numbers=("price",),
        sessions=stored.sessions,
    )

    def rows_of(bucket: int) -> steps.Made:
        behaviours, seen = _load(run, bucket)
        which = fitted.days.split(seen.time)
        blocks = {
            name: transform.split_rows(behaviours, seen, k, state, schema)
            for k, name in enumerate(manifest.SPLITS)
            if (which == k).any()
        }
        return blocks, {
            "lengths": transform.history_lengths(seen, fitted.days, stored.max_len),
            "no_profile": int((has_profile[seen.user] == 0).sum()),
            "no_history": int((seen.windows.end == seen.windows.start).sum()),
        }

    return steps.write_shards(run, schema, rows_of)


def _work_bytes(behaviours: int) -> int:
    """What the buckets take while at work: spilled, then ordered."""
    return behaviours * 36


def _output_bytes(config: AlibabaConfig, impressions: int) -> int:
    """The shards at the most, were every history full."""
    most, length = config.session_shape or (0, 0)
    return impressions * (90 + 20 * config.max_len + 8 * most * length + 2 * most)
