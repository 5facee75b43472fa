"""The ordered steps from reviews, where every behaviour may be a target, to a data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from pipeline import intervals, negatives, shards, steps, vocabulary
from pipeline import transform_reviews as transform
from pipeline.buckets import (
    Behaviours,
    Spill,
    bucket_path,
    load_columns,
    numpy_columns,
    read_spilled,
    save_columns,
)
from pipeline.config import AmazonConfig
from pipeline.engines.local import map_buckets
from pipeline.lines import estimate_lines
from pipeline.raw_files import missing
from pipeline.rows import Stored
from pipeline.sources import amazon
from pipeline.sources.amazon_parse import REJECTED
from pipeline.sources.synthetic import MARKER
from pipeline.workspace import Run, check_rejected, check_space, write_rejected
from schemas import manifest, tables
from schemas.errors import InputError
from schemas.shards import shard_schema

_UNLIMITED = 32_767
# Measured on Electronics-like data, rounded up: for estimates only.
_LINES_A_SECOND = 150_000
_WORKING_BYTES_A_LINE = 250

_SPILLED = pa.schema(
    [
        ("row", pa.int64()),
        ("user", pa.large_string()),
        ("item", pa.large_string()),
        ("time", pa.int64()),
        ("tie", pa.int64()),
    ]
)
# Rows gathered before they are dealt out: many small batches a bucket cost more than they hold.
_GATHERED = 100_000


@dataclass(frozen=True)
class Estimate:
    """What a preparation will take: rows at most, bytes on disk, seconds on two cores."""

    lines: int
    rows: int
    bytes: int
    seconds: float


def estimate(config: AmazonConfig, reviews: Path) -> Estimate:
    """Expected rows, disk and time, from the head of the reviews file."""
    lines = estimate_lines(reviews)
    rows = lines * (1 + config.negatives)
    cell = 4 if config.layout == "padded" and not config.parity else 0
    return Estimate(
        lines,
        rows,
        rows * (cell * config.max_len + 120) + lines * 120,
        2 + lines / _LINES_A_SECOND * (1 + cell / 8),
    )


def raw_folder(config: AmazonConfig) -> Path:
    """Where the raw files are, or will be downloaded to."""
    return config.raw or Path("data/raw/amazon")


def obtain(config: AmazonConfig) -> list[Path]:
    """The raw files, reviews first; see `sources.amazon.obtain`."""
    return amazon.obtain(config, raw_folder(config))


def plan(config: AmazonConfig) -> str:
    """What `--dry-run` says; nothing is downloaded or written."""
    folder = raw_folder(config)
    wanted = amazon.files(config)
    if config.raw is not None:
        amazon.obtain(config, folder)
    absent = missing(wanted, folder)
    if wanted[0].name in absent:
        sizes = [
            f"{f.published.bytes / 1e6:,.0f} MB" if f.published else "size unknown" for f in wanted
        ]
        told = ", ".join(f"{f.name} ({size})" for f, size in zip(wanted, sizes, strict=True))
        return f"would download to {folder}: {told}\nrows, disk and time follow from the files"
    found = estimate(config, folder / wanted[0].name)
    fetched = f"would download {', '.join(absent)}\n" if absent else ""
    return (
        f"{fetched}reviews   about {found.lines:,}\nrows      at most {found.rows:,}\n"
        f"disk      about {found.bytes / 1e6:,.0f} MB at the most, in {config.out}\n"
        f"time      about {found.seconds:.0f} s on two cores"
    )


def make(
    run: Run, config: AmazonConfig, inputs: list[manifest.InputFile], key: str
) -> manifest.Manifest:
    """Partition, fit, transform, and write the manifest."""
    refused = [_partition(run, config)]
    words, by_item, more, repeated = _fit_vocabulary(run, config)
    refused.append(more)
    item_category = _item_categories(by_item, words["category"])
    edges, totals, longest = _fit_intervals(run, config, words, item_category)
    parity = config.parity
    released = _released(run, len(by_item)) if parity else None
    max_len = max(longest, 1) if parity else config.max_len
    stored = Stored(edges, max_len, "ragged" if parity else config.layout, config.session_gap)
    fitted = transform.Fitted({"category": item_category}, stored, released)
    rules = transform.Rules(config.split, config.negatives, config.seed)
    results = _transform(run, rules, fitted)
    rejected = _write_rejected(run, pl.concat(refused), [x for r in results for x in r["left_out"]])
    if repeated:
        rejected[amazon.REPEATED_ITEM] = repeated
    synthetic = (run.paths[0].parent / MARKER).exists()
    content = steps.Content(
        dataset=f"amazon-{config.category}",
        synthetic=synthetic,
        fields=amazon.FIELDS,
        words=words,
        stored=stored,
        totals=totals,
        each=1 + config.negatives,
        rejected=rejected,
        notes=[] if synthetic else amazon.notes(config, words),
    )
    return steps.finish(run, inputs, key, results, content)


def _partition(run: Run, config: AmazonConfig) -> pl.DataFrame:
    """Parse the reviews into buckets of users; returns the lines refused."""
    refused_path = run.work / "refused_reviews.parquet"
    path = run.paths[0]

    def parse() -> list[int]:
        about = estimate_lines(path)
        check_space(config.out, estimate(config, path).bytes)
        share = config.memory / 2 / config.workers
        count = config.buckets or min(
            4096, max(8 if about > 100_000 else 2, -int(-about * _WORKING_BYTES_A_LINE // share))
        )
        refused = [pl.DataFrame(schema=REJECTED)]
        gathered: list[pl.DataFrame] = []
        read = kept = 0
        with Spill(run.work / "behaviours", count, _SPILLED) as spill:

            def deal() -> None:
                rows = pl.concat(gathered)
                gathered.clear()
                bucket = _bucket_of(rows["user"], count)
                spilled = vocabulary.arrow(rows.select(_SPILLED.names)).cast(_SPILLED)
                columns = [column.combine_chunks() for column in spilled.columns]
                spill.append(columns, bucket.to_numpy())

            for parsed in amazon.reviews(path, config):
                gathered.append(parsed.rows)
                refused.append(parsed.rejected)
                read += parsed.rows.height + parsed.rejected.height
                kept += parsed.rows.height
                if sum(part.height for part in gathered) >= _GATHERED:
                    deal()
                run.told("partition", read, max(about, read))
            if gathered:
                deal()
        found = pl.concat(refused)
        check_rejected(path, found, read, config.max_rejected)
        if kept == 0:
            raise InputError("The file holds no reviews.", where=path, expected="JSON lines")
        tables.check(tables.Rejected, found, path)
        shards.write_table(refused_path, vocabulary.arrow(found))
        return [count, read, kept]

    with run.step("partition") as rows:
        run.count, rows[0], rows[1] = run.once("partitioned", parse)
        return pl.read_parquet(refused_path)


def _bucket_of(users: pl.Series, buckets: int) -> pl.Series:
    """The bucket of each user."""
    return users.hash(seed=0) % buckets


def _fit_vocabulary(
    run: Run, config: AmazonConfig
) -> tuple[dict[str, pa.Table], pl.DataFrame, pl.DataFrame, int]:
    """Vocabularies; items with categories; meta lines refused; how many repeat an item."""

    def count(bucket: int) -> tuple[pl.DataFrame, pl.DataFrame]:
        frame = pl.DataFrame(read_spilled(bucket_path(run.work / "behaviours", bucket)))
        tables.check(tables.Reviews, frame.drop("tie"), run.paths[0])
        return vocabulary.count_values(frame, "user"), vocabulary.count_values(frame, "item")

    with run.step("fit vocabulary") as rows:
        counts = map_buckets(count, range(run.count), config.workers)
        users = vocabulary.vocabulary(pl.concat(c[0] for c in counts))
        items = vocabulary.vocabulary(pl.concat(c[1] for c in counts))
        rows[0] = int(pl.Series(users["count"]).sum())
        rows[1] = len(users) + len(items)
    meta = run.paths[1] if config.meta else None
    with run.step("parse meta") as rows:
        read = 0
        about = None if meta is None else estimate_lines(meta)

        def done(lines: int) -> None:
            nonlocal read
            read += lines
            run.told("parse meta", read, about)

        by_item, refused, repeated = amazon.categories(meta, items, done)
        if meta is not None:
            check_rejected(meta, refused, read, config.max_rejected)
        rows[:] = read, by_item.height
        words = {
            "user": users,
            "item": items,
            "category": amazon.category_vocabulary(by_item, items),
        }
        steps.write_vocabularies(run, words)
    return words, by_item, refused, repeated


def _item_categories(by_item: pl.DataFrame, words: pa.Table) -> npt.NDArray[np.int32]:
    """(items + 2,) the category's id by item id; 1 where an item has none."""
    ids = by_item.join(
        pl.DataFrame(words).select(pl.col("value").alias("category"), pl.col("id").alias("of")),
        on="category",
        how="left",
    ).sort("id")
    categories = np.zeros(by_item.height + manifest.FIRST_ID, np.int32)
    categories[manifest.UNKNOWN_ID] = manifest.UNKNOWN_ID
    categories[ids["id"].to_numpy()] = ids["of"].fill_null(manifest.UNKNOWN_ID).to_numpy()
    return categories


def _reviews(columns: dict[str, npt.NDArray[Any]]) -> transform.Reviews:
    fields = {name: columns[name] for name in amazon.FIELDS}
    behaviours = Behaviours.of(columns["user"], columns["time"], fields)
    return transform.Reviews(behaviours, columns["row"])


def _fit_intervals(
    run: Run,
    config: AmazonConfig,
    words: dict[str, pa.Table],
    item_category: npt.NDArray[np.int32],
) -> tuple[npt.NDArray[np.int64], pl.DataFrame, int]:
    """Encode and order each bucket; bin edges, the counts behind them, the longest history."""
    items = words["item"].select(["value", "id"])
    users = pl.DataFrame(words["user"].select(["value", "id"]))
    of_bucket = _bucket_of(users["value"], run.count)
    max_len = _UNLIMITED if config.parity else config.max_len
    shards.write_table(
        config.out / "items.parquet",
        pa.table(
            {
                "item": pa.array(np.arange(2, len(item_category), dtype=np.int32)),
                "category": pa.array(item_category[2:]),
            }
        ),
    )

    def encode(bucket: int) -> tuple[pl.DataFrame, int, int]:
        path = run.sequences(bucket)
        if path.exists():
            columns = load_columns(path)
        else:
            spilled = read_spilled(bucket_path(run.work / "behaviours", bucket))
            own = vocabulary.arrow(users.filter(of_bucket == bucket))
            given = {"reviews": spilled, "users": own, "items": items}
            columns = numpy_columns(vocabulary.query("amazon/behaviours", given))
            columns["category"] = item_category[columns["item"]]
            save_columns(path, columns)
        seq = _reviews(columns)
        longest = int(np.diff(seq.behaviours.offsets).max(initial=1)) - 1
        counts = transform.interval_counts(seq, config.split, max_len, len(items))
        return counts, longest, len(seq.row)

    name = "order and fit intervals"
    with run.step(name) as rows:
        fitted = map_buckets(encode, range(run.count), config.workers, run.counter(name))
        totals = intervals.merge([f[0] for f in fitted])
        rows[:] = sum(f[2] for f in fitted), totals.height
    return intervals.edges(totals, config.bins), totals, max(f[1] for f in fitted)


def _released(run: Run, items: int) -> npt.NDArray[np.int64]:
    """Parity's negative of each raw row: one stream over all users in order, so all at once."""
    with run.step("released negatives") as rows:
        every = [load_columns(run.sequences(k)) for k in range(run.count)]
        user = np.concatenate([s["user"] for s in every])
        order = np.argsort(user, kind="stable")
        item = np.concatenate([s["item"] for s in every])[order] - manifest.FIRST_ID
        row = np.concatenate([s["row"] for s in every])[order]
        firsts = np.flatnonzero(np.diff(user[order], prepend=-1))
        seen = [h.tolist() for h in np.split(item, firsts[1:])]
        if any(len(set(h)) == items for h in seen):
            raise InputError(
                "The released code never ends where a user has touched every item.",
                where=run.paths[0],
                do="leave --parity out: such users then give no rows, and are counted",
            )
        drawn = np.zeros(int(row.max()) + 1, np.int64)
        drawn[row] = negatives.released_stream(seen, items)
        rows[:] = len(row), len(row)
        return drawn


def _transform(run: Run, rules: transform.Rules, fitted: transform.Fitted) -> list[dict[str, Any]]:
    """Write each bucket's shards."""
    schema = shard_schema(amazon.FIELDS, fitted.stored.layout, fitted.stored.max_len)

    def rows_of(bucket: int) -> steps.Made:
        seq = _reviews(load_columns(run.sequences(bucket)))
        chosen = transform.prepare(seq, rules, fitted)
        blocks = {
            name: transform.split_rows(seq, chosen, which, rules, fitted, schema)
            for which, name in enumerate(manifest.SPLITS)
            if (chosen.targets.split == which).any()
        }
        return blocks, {
            "lengths": transform.history_lengths(chosen, rules, fitted.stored.max_len),
            "left_out": chosen.left_out.tolist(),
        }

    return steps.write_shards(run, schema, rows_of)


def _write_rejected(run: Run, lines: pl.DataFrame, rows: list[int]) -> dict[str, int]:
    """Write what was refused, a table each; returns how often each reason occurs."""
    refused = {
        name: vocabulary.arrow(lines.filter(pl.col("file") == path.name))
        for path, name in zip(run.paths, ("reviews", "meta"), strict=False)
    }
    reason = [transform.TOUCHED_EVERY_ITEM] * len(rows)
    refused["targets"] = pa.table({"row": pa.array(sorted(rows), pa.int64()), "reason": reason})
    return write_rejected(run.config.out, refused)
