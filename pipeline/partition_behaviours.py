"""Partition: a behaviour log, parsed once, into buckets of users."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from pipeline import refused, shards, vocabulary
from pipeline.buckets import BEHAVIOURS, Spill, bucket_path, numpy_columns, read_spilled
from pipeline.config import AlibabaConfig
from pipeline.engines.engine import Read
from pipeline.engines.local import map_stream
from pipeline.lines import Block, Part
from pipeline.sources import alibaba
from pipeline.sources.alibaba_parse import behavior_blocks, parse_behaviors
from pipeline.tally import Ids, Tally, ids_of
from pipeline.workspace import Run
from schemas.shards import numpy_type

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
WIDE = "behaviours-wide"
REFUSED = refused.kind("behavior_log")
_FOUND = ("read", "kept", "left_out", "no_impressions")
_MISSING = -1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def bucket_of(user: npt.NDArray[np.int64], buckets: int) -> npt.NDArray[np.uint16]:
    """The bucket of each raw user number."""
    mixed = (user.astype(np.uint64) * _GOLDEN) >> np.uint64(40)
    return (mixed % np.uint64(buckets)).astype(np.uint16)


class _Dealt(NamedTuple):
    """What is known of a part once its rows are dealt out; the two tables count values."""

    found: dict[str, int]
    refused: refused.Summary
    category: pl.DataFrame
    brand: pl.DataFrame


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
        sampled = None if sample is None else Ids(sample, np.ones(len(sample), np.int32), 0)
        deal = _Deal(
            run.count, run.engine.threads, config.behaviors, since, ids_of(users, 0), sampled
        )
        summary = refused.Summary()
        found = dict.fromkeys(_FOUND, 0)
        tallies = {name: Tally() for name in alibaba.FIELDS}
        for part in run.deal("partition behaviours", path, deal, [BEHAVIOURS, WIDE, REFUSED]):
            summary.merge(part.refused)
            tallies["category"].merge(part.category)
            tallies["brand"].merge(part.brand)
            for name, n in part.found.items():
                found[name] += n
        summary.check(path, found["read"], config.max_rejected)
        for name, tally in tallies.items():
            shards.write_table(run.work / f"{name}.parquet", vocabulary.arrow(tally.counts()))
        return found

    with run.step("partition behaviours") as rows:
        found: dict[str, int] = run.once("behaviours", parse)
        rows[:] = found["read"], found["kept"]
        return found


@dataclass(frozen=True)
class _Deal:
    """Spills the behaviours of a part to the buckets of their users.

    Attributes:
        buckets: how many there are.
        threads: blocks parsed at once.
        kinds: which kinds of behaviour count.
        since: the second from which on they count.
        users: the id of each user with impressions, 0 for others.
        sampled: above 0 for users of the sample; None for no sample.
    """

    buckets: int
    threads: int
    kinds: tuple[str, ...]
    since: int
    users: Ids
    sampled: Ids | None

    def __call__(self, folder: Path, part: Part, read: Read) -> _Dealt:
        """What is known of the part."""
        categories, brands = Tally(), Tally()
        found = dict.fromkeys(_FOUND, 0)
        one_opens = threading.Lock()
        with ExitStack() as open_spills:
            narrow = open_spills.enter_context(Spill(folder / BEHAVIOURS, self.buckets, _NARROW))
            lines_refused = open_spills.enter_context(
                refused.RefusedLines(folder / REFUSED, part, self.buckets)
            )

            @cache
            def opened() -> Spill:
                return open_spills.enter_context(Spill(folder / WIDE, self.buckets, _WIDE))

            def wide() -> Spill:
                with one_opens:
                    return opened()

            def deal(block: Block) -> tuple[pl.DataFrame, dict[str, int]]:
                parsed = parse_behaviors(block, part.path.name, self.kinds)
                rows = parsed.rows
                time, user = rows["time"].to_numpy(), rows["user"].to_numpy()
                counts = time >= self.since
                if self.sampled is not None:
                    counts &= self.sampled.of(user) > 0
                ids = self.users.of(user)
                category, brand = (rows[n].fill_null(_MISSING).to_numpy() for n in alibaba.FIELDS)
                categories.add(category[counts])
                brands.add(brand[counts])
                kept = counts & (ids > 0)
                columns = [column[kept] for column in (ids, time, category, brand)]
                _deal(narrow, wide, columns, bucket_of(user[kept], self.buckets))
                told = int(kept.sum())
                return parsed.rejected, {
                    "read": parsed.read + parsed.rejected.height,
                    "kept": told,
                    "left_out": parsed.read - int(counts.sum()),
                    "no_impressions": int(counts.sum()) - told,
                }

            # Closed before the spills that its threads write to.
            with closing(map_stream(deal, behavior_blocks(part), self.threads)) as dealt:
                for rejected, more in dealt:
                    lines_refused.append(rejected)
                    for name, n in more.items():
                        found[name] += n
                    read(more["read"])
        return _Dealt(found, lines_refused.summary, categories.counts(), brands.counts())


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


def behaviours_of(folder: Path, bucket: int) -> dict[str, npt.NDArray[Any]]:
    """A bucket's behaviours as they were spilled: user (id), time, category and brand (raw)."""
    narrow = numpy_columns(read_spilled(bucket_path(folder / BEHAVIOURS, bucket)))
    path = bucket_path(folder / WIDE, bucket)
    if not path.exists():
        return narrow
    wide = numpy_columns(read_spilled(path))
    return {name: np.concatenate([narrow[name], wide[name]]) for name in _NARROW.names}


def spilled_bytes(behaviours: int) -> int:
    """What the spilled behaviours take on disk."""
    return behaviours * int(sum(kind.bit_width // 8 for kind in _NARROW.types))


def ordered_bytes(behaviours: int) -> int:
    """What the ordered behaviours take on disk, besides the spilled ones."""
    return behaviours * 20
