"""Partition: reviews, parsed once, into buckets of users."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pyarrow as pa

from pipeline import memory, refused, vocabulary
from pipeline.buckets import BEHAVIOURS, Spill
from pipeline.config import AmazonConfig
from pipeline.engines.engine import Read
from pipeline.line_count import estimate_lines
from pipeline.lines import Part
from pipeline.sources import amazon
from pipeline.workspace import Run
from schemas import tables
from schemas.errors import InputError
from schemas.interrupts import FOR_EVER

REFUSED = refused.kind("reviews")

# Measured on Electronics-like data, rounded up: for estimates only.
_LINES_A_SECOND = 240_000
_WORKING_BYTES_A_LINE = 250
_HELD_BYTES_A_LINE = 20
_PARITY_BYTES_A_LINE = 200

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


def estimate(config: AmazonConfig, lines: int) -> Estimate:
    """Expected rows, disk and time of so many reviews."""
    rows = lines * (1 + config.negatives)
    padded = config.layout == "padded" and not config.parity
    # Neighbouring rows share most of their histories and of their padding, and shrink.
    row = 60 + (1.6 * config.max_len if padded else 0)
    return Estimate(
        lines,
        rows,
        int(rows * row) + lines * _WORKING_BYTES_A_LINE // 2,
        1.5 + lines / _LINES_A_SECOND * (1.25 if padded else 1),
    )


def fixed_bytes(config: AmazonConfig, reviews: Path) -> int:
    """What is held all along: vocabularies, and for parity every history at once."""
    return estimate_lines(reviews) * (_HELD_BYTES_A_LINE + _PARITY_BYTES_A_LINE * config.parity)


class _Dealt(NamedTuple):
    """What is known of a part once its rows are dealt out."""

    read: int
    kept: int
    refused: refused.Summary


def partition(run: Run, config: AmazonConfig) -> tuple[int, int]:
    """Parse the reviews into buckets of users, and the lines refused into a file of theirs.

    Returns:
        How many lines were read, the refused ones too, and how many reviews they hold.
    """
    path = run.paths[0]

    def parse() -> list[int]:
        tables.warm_up()
        about = estimate_lines(path)
        run.check_space(estimate(config, about).bytes)
        share = memory.bucket_bytes(config.memory, fixed_bytes(config, path), config.workers)
        # Three for each thread, so that none waits long for the last one.
        least = max(3 * config.workers if about > 100_000 else 2, run.engine.least_buckets)
        wanted = -int(-about * _WORKING_BYTES_A_LINE // share)
        run.count = config.buckets or min(4096, max(least, wanted))
        deal, kinds = partial(_deal, config, run.count), [BEHAVIOURS, REFUSED]
        dealt = list(run.deal("partition", path, deal, kinds))
        read, kept = sum(part.read for part in dealt), sum(part.kept for part in dealt)
        found = refused.merged(part.refused for part in dealt)
        found.check(path, read, config.max_rejected)
        if kept == 0:
            raise InputError("The file holds no reviews.", where=path, expected="JSON lines")
        return [run.count, read, kept]

    with run.step("partition") as rows:
        run.count, rows[0], rows[1] = run.once("partitioned", parse)
        return rows[0], rows[1]


def _deal(config: AmazonConfig, count: int, folder: Path, part: Part, read: Read) -> _Dealt:
    """Spill the reviews of a part to the buckets of their users."""
    gathered: list[pl.DataFrame] = []
    lines = kept = 0

    def deal(parts: list[pl.DataFrame]) -> None:
        rows = pl.concat(parts)
        bucket = bucket_of(rows["user"], count)
        spilled = vocabulary.arrow(rows.select(_SPILLED.names)).cast(_SPILLED)
        columns = [column.combine_chunks() for column in spilled.columns]
        spill.append(columns, bucket.to_numpy())

    with (
        Spill(folder / BEHAVIOURS, count, _SPILLED) as spill,
        refused.RefusedLines(folder / REFUSED, part, count) as lines_refused,
        ThreadPoolExecutor(1, "deal") as dealer,
        closing(amazon.reviews(part, config)) as stream,
    ):
        dealing: Future[None] = dealer.submit(lambda: None)
        for parsed in stream:
            gathered.append(parsed.rows)
            lines_refused.append(parsed.rejected)
            lines += parsed.rows.height + parsed.rejected.height
            kept += parsed.rows.height
            if sum(rows.height for rows in gathered) >= _GATHERED:
                # One batch is dealt while the next is parsed, and no more are held.
                dealing.result(FOR_EVER)
                dealing, gathered = dealer.submit(deal, gathered), []
            read(parsed.rows.height + parsed.rejected.height)
        dealing.result(FOR_EVER)
        if gathered:
            deal(gathered)
    return _Dealt(lines, kept, lines_refused.summary)


def bucket_of(users: pl.Series, buckets: int) -> pl.Series:
    """The bucket of each user."""
    return users.hash(seed=0) % buckets
