"""The ordered steps from reviews, where every behaviour may be a target, to a data set."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from pipeline import fit_reviews, intervals, negatives, partition_reviews, steps, vocabulary
from pipeline import transform_reviews as transform
from pipeline.buckets import SEQUENCES, bucket_path, load_columns, spilled_pieces
from pipeline.config import AmazonConfig
from pipeline.fit_reviews import count_values, fit_intervals, load, parse_meta, write_items
from pipeline.ids_held import ids_held
from pipeline.line_count import estimate_lines
from pipeline.partition_reviews import estimate, partition
from pipeline.raw_files import missing
from pipeline.rows import Stored, Windows
from pipeline.sources import amazon, amazon_files
from pipeline.sources.synthetic_folder import MARKER
from pipeline.workspace import Run
from schemas import manifest
from schemas.errors import InputError
from schemas.interrupts import FOR_EVER
from schemas.shards import MOST_BEHAVIOURS, shard_schema


def fixed_bytes(config: AmazonConfig, paths: list[Path]) -> int:
    """The memory that is held all along."""
    return partition_reviews.fixed_bytes(config, paths[0])


def plan(config: AmazonConfig) -> str:
    """What `--dry-run` says; nothing is downloaded or written."""
    folder = amazon_files.raw_folder(config)
    wanted = amazon_files.files(config)
    if config.raw is not None:
        amazon_files.obtain(config)
    absent = missing(wanted, folder)
    if wanted[0].name in absent:
        sizes = [
            f"{f.published.bytes / 1e6:,.0f} MB" if f.published else "size unknown" for f in wanted
        ]
        told = ", ".join(f"{f.name} ({size})" for f, size in zip(wanted, sizes, strict=True))
        return f"would download to {folder}: {told}\nrows, disk and time follow from the files"
    found = estimate(config, estimate_lines(folder / wanted[0].name))
    fetched = f"would download {', '.join(absent)}\n" if absent else ""
    return (
        f"{fetched}reviews   about {found.lines:,}\nrows      at most {found.rows:,}\n"
        f"disk      about {found.bytes / 1e6:,.0f} MB at the most, in {config.out}\n"
        f"time      about {found.seconds:.0f} s on two cores"
    )


def make(run: Run, config: AmazonConfig) -> manifest.Manifest:
    """Partition, fit, transform, and write the manifest."""
    read, kept = partition(run, config)
    by_user, by_item, repeated = count_values(run, config.drops)
    _require_train(run, config, by_user)
    items = vocabulary.vocabulary(by_item)
    # Neither needs the other, and neither keeps two cores busy by itself.
    with ThreadPoolExecutor(1, "meta") as beside:
        reading = beside.submit(parse_meta, run, config, items)
        users = vocabulary.vocabulary(by_user)
        fitted = fit_intervals(run, config, users, items)
        meta = reading.result(FOR_EVER)
    if not fitted.totals.height:  # every train row has a behaviour
        raise InputError(
            "There is nothing to train on.",
            where=run.paths[0],
            expected=f"a user with {config.least_reviews} reviews and an item that he has none of",
            got="users who have touched every item, so that there is no negative to draw",
            do="give a log of more items, or one of more reviews a user",
        )
    words = {"user": users, "item": items, "category": meta.categories}
    edges = intervals.edges(fitted.totals, config.bins)
    parity = config.parity
    released = _released(run, len(items)) if parity else None
    max_len = max(fitted.longest, 1) if parity else config.max_len
    stored = Stored(edges, max_len, "ragged" if parity else config.layout, config.session_gap)
    state = transform.Fitted({"category": meta.category}, stored, released)
    rules = transform.Rules(config.split, config.negatives, config.seed)
    with ThreadPoolExecutor(1, "vocabularies") as beside:
        writing = [
            beside.submit(write_items, config.out / "items.parquet", meta),
            beside.submit(steps.write_vocabularies, run, words),
        ]
        schema = shard_schema(amazon.FIELDS, stored.layout, stored.max_len)
        rows = _Rows(rules, state)
        results = steps.write_shards(run, schema, fitted.behaviours, rows, [SEQUENCES])
        for written in writing:
            written.result(FOR_EVER)
    rejected = _write_rejected(run, config.meta, [x for r in results for x in r["left_out"]])
    if meta.repeated:
        rejected[manifest.REPEATED_ITEM] = meta.repeated
    synthetic = (run.paths[0].parent / MARKER).exists()
    content = steps.Content(
        dataset=f"amazon-{config.category}",
        synthetic=synthetic,
        fields=amazon.FIELDS,
        words=words,
        stored=stored,
        totals=fitted.totals,
        each=1 + config.negatives,
        rejected=rejected,
        notes=[] if synthetic else amazon.notes(config, words),
        counts={"reviews read": read},
        shares={
            manifest.repeated("reviews", config.drops): manifest.Share(repeated, kept),
            **meta.missing,
        },
    )
    return steps.finish(run, results, content)


def _require_train(run: Run, config: AmazonConfig, by_user: pl.DataFrame) -> None:
    """Refuse reviews that no train row can be made of, or no row that holds what it must.

    Raises:
        InputError: no user has reviews enough, or with parity one has more than can be stored.
    """
    most, least = int(by_user["count"].max()), config.least_reviews  # type: ignore[arg-type]
    if most < least:
        rest = "the last is for test, the one before it for valid"
        raise InputError(
            "There is nothing to train on: no user has reviews enough.",
            where=run.paths[0],
            expected=f"a user with {least} reviews or more: the first has nothing before it, "
            + (rest if config.split == "tin" else "the last is for test"),
            got=f"{by_user.height:,} users with {most:,} at the most",
            do="--split din makes no valid, and wants 3 reviews of a user"
            if config.split == "tin" and most == least - 1 and not config.parity
            else "give reviews of users who wrote more",
        )
    if config.parity and most - 1 > MOST_BEHAVIOURS:
        raise InputError(
            "A history is longer than can be stored: --parity cuts none.",
            where=run.paths[0],
            expected=f"at most {MOST_BEHAVIOURS:,} behaviours before a review",
            got=f"{most - 1:,}",
            do="leave --parity out: --max-len then keeps the latest",
        )


def _released(run: Run, items: int) -> npt.NDArray[np.int64]:
    """Parity's negative of each raw row: one stream over all users in order, so all at once."""
    with run.step("released negatives") as rows:
        every = run.each("released negatives", _columns, needs=[SEQUENCES])
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


def _columns(folder: Path, bucket: int) -> dict[str, npt.NDArray[Any]]:
    """A bucket's ordered behaviours."""
    return load_columns(bucket_path(folder / SEQUENCES, bucket))


@dataclass(frozen=True)
class _Rows:
    """The rows of a bucket's splits."""

    rules: transform.Rules
    fitted: transform.Fitted

    def __call__(self, folder: Path, bucket: int, schema: pa.Schema) -> steps.Made:
        """The blocks of each split, and the bucket's summary."""
        rules, fitted = self.rules, self.fitted
        seq = load(folder, bucket, fitted.item_fields)
        chosen = transform.prepare(seq, rules, fitted)
        blocks = {
            name: transform.split_rows(seq, chosen, which, rules, fitted, schema)
            for which, name in enumerate(manifest.SPLITS)
            if (chosen.targets.split == which).any()
        }
        at, start, split = chosen.targets
        items = np.concatenate([seq.item[at][:, None], chosen.drawn], axis=1)
        targets = {"item": items, **{name: of[items] for name, of in fitted.item_fields.items()}}
        windows, max_len = Windows(start, at), fitted.stored.max_len
        return blocks, {
            "lengths": transform.history_lengths(chosen, rules, max_len),
            "ids": ids_held(split, targets, windows, seq.behaviours, max_len),
            "left_out": chosen.left_out.tolist(),
        }


def _write_rejected(run: Run, meta: bool, rows: list[int]) -> dict[str, int]:
    """Write what was refused, a table each; returns how often each reason occurs."""
    reason = [transform.TOUCHED_EVERY_ITEM] * len(rows)
    targets = pa.table({"row": pa.array(sorted(rows), pa.int64()), "reason": reason})
    refused = {
        "reviews": run.engine.gather(partition_reviews.REFUSED, "line"),
        "meta": spilled_pieces(bucket_path(run.work / fit_reviews.REFUSED, 0)) if meta else [],
        "targets": [targets],
    }
    return steps.write_rejected(run.config.out, refused)
