"""Partition: reviews, parsed once, into buckets of users."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa

from pipeline import memory, shards, vocabulary
from pipeline.buckets import Spill
from pipeline.config import AmazonConfig
from pipeline.engines.local import FOR_EVER
from pipeline.lines import estimate_lines
from pipeline.sources import amazon
from pipeline.sources.parsed import REJECTED
from pipeline.workspace import Run, check_rejected, check_space
from schemas import tables
from schemas.errors import InputError

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


def partition(run: Run, config: AmazonConfig) -> pl.DataFrame:
    """Parse the reviews into buckets of users; returns the lines refused."""
    refused_path = run.work / "refused_reviews.parquet"
    path = run.paths[0]

    def parse() -> list[int]:
        tables.warm_up()
        about = estimate_lines(path)
        check_space(config.out, estimate(config, about).bytes)
        share = memory.bucket_bytes(config.memory, fixed_bytes(config, path), config.workers)
        count = config.buckets or min(
            4096, max(8 if about > 100_000 else 2, -int(-about * _WORKING_BYTES_A_LINE // share))
        )
        refused = [pl.DataFrame(schema=REJECTED)]
        gathered: list[pl.DataFrame] = []
        read = kept = 0

        def deal(parts: list[pl.DataFrame]) -> None:
            rows = pl.concat(parts)
            bucket = bucket_of(rows["user"], count)
            spilled = vocabulary.arrow(rows.select(_SPILLED.names)).cast(_SPILLED)
            columns = [column.combine_chunks() for column in spilled.columns]
            spill.append(columns, bucket.to_numpy())

        with (
            Spill(run.work / "behaviours", count, _SPILLED) as spill,
            ThreadPoolExecutor(1, "deal") as dealer,
            closing(amazon.reviews(path, config)) as stream,
        ):
            dealing: Future[None] = dealer.submit(lambda: None)
            for parsed in stream:
                gathered.append(parsed.rows)
                refused.append(parsed.rejected)
                read += parsed.rows.height + parsed.rejected.height
                kept += parsed.rows.height
                if sum(part.height for part in gathered) >= _GATHERED:
                    # One batch is dealt while the next is parsed, and no more are held.
                    dealing.result(FOR_EVER)
                    dealing, gathered = dealer.submit(deal, gathered), []
                run.told("partition", read, max(about, read))
            dealing.result(FOR_EVER)
            if gathered:
                deal(gathered)
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


def bucket_of(users: pl.Series, buckets: int) -> pl.Series:
    """The bucket of each user."""
    return users.hash(seed=0) % buckets
