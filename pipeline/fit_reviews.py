"""Fit: vocabularies, the items' categories, ordered buckets, and the intervals of train."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from pipeline import intervals, shards, vocabulary
from pipeline import transform_reviews as transform
from pipeline.buckets import (
    BEHAVIOURS,
    SEQUENCES,
    Behaviours,
    bucket_path,
    load_columns,
    numpy_columns,
    read_spilled,
    save_columns,
)
from pipeline.config import AmazonConfig
from pipeline.line_count import estimate_lines
from pipeline.lines import Part
from pipeline.missing import check_missing
from pipeline.partition_reviews import bucket_of
from pipeline.refused import RefusedLines, kind
from pipeline.repeats import Repeats
from pipeline.sources import amazon
from pipeline.sources.parsed import Parsed
from pipeline.tally import Tally
from pipeline.workspace import Run
from schemas import tables
from schemas.manifest import FIRST_ID, UNKNOWN_ID, WITHOUT_CATEGORY, WITHOUT_META, Share
from schemas.shards import MOST_BEHAVIOURS

REFUSED = kind("meta")
_REPEATS = Repeats(("user", "item", "time"))


@dataclass(frozen=True)
class Items:
    """What the meta file says of the reviewed items.

    Attributes:
        categories: the vocabulary of categories.
        category: (items + 2,) the category's id by item id; 1 where an item has none.
        repeated: how many lines repeat an item.
        missing: items without a meta line, and items whose line has no category, by what to call
            them; none where there is no meta file.
    """

    categories: pa.Table
    category: npt.NDArray[np.int32]
    repeated: int
    missing: dict[str, Share]


@dataclass(frozen=True)
class Summary:
    """What the pass over the ordered buckets found.

    Attributes:
        totals: the train split's intervals, counted.
        longest: behaviours of the longest history.
        behaviours: how many there are.
    """

    totals: pl.DataFrame
    longest: int
    behaviours: int


def count_values(run: Run, drop: bool) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """How often each user and each item occurs; how many reviews repeat another one.

    Args:
        run: the preparation.
        drop: whether those count no more.
    """
    with run.step("fit vocabulary") as rows:
        count = partial(_count, run.paths[0], drop)
        counts = run.each("fit vocabulary", count, needs=[BEHAVIOURS])
        users, items = pl.concat(c[0] for c in counts), pl.concat(c[1] for c in counts)
        rows[:] = int(items["count"].sum()), users.height + items.height
        return users, items, sum(c[2] for c in counts)


def _count(
    path: Path, drop: bool, folder: Path, bucket: int
) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """As `count_values`, of a bucket; `path` is of the raw file."""
    spilled = read_spilled(bucket_path(folder / BEHAVIOURS, bucket))
    repeated, _ = _REPEATS.count(pl.DataFrame(spilled))
    frame = pl.DataFrame(_REPEATS.kept(spilled, drop))
    tables.check(tables.Reviews, frame.drop("tie"), path)
    counts = vocabulary.count_values(frame, "user"), vocabulary.count_values(frame, "item")
    return *counts, repeated


def parse_meta(run: Run, config: AmazonConfig, items: pa.Table) -> Items:
    """The category of each item; lines refused go to a file of theirs."""
    if not config.meta:
        by_item, _, _ = amazon.categories(None, items)
        return _items(by_item, 0, {}, items)
    path = run.paths[1]
    with run.step("parse meta") as rows:
        about = estimate_lines(path)

        with RefusedLines(run.work / REFUSED, Part(path)) as refused:

            def done(parsed: Parsed) -> None:
                refused.append(parsed.rejected)
                rows[0] += parsed.lines
                run.told("parse meta", rows[0], about)

            by_item, repeated, known = amazon.categories(path, items, done)
        refused.summary.check(path, rows[0], config.max_rejected)
        rows[1] = by_item.height
        count, nulls = by_item.height, by_item["category"].null_count()
        missing = {
            WITHOUT_META: Share(count - known, count),
            WITHOUT_CATEGORY: Share(nulls - (count - known), count),
        }
        return _items(by_item, repeated, check_missing(config, path, missing), items)


def _items(
    by_item: pl.DataFrame, repeated: int, missing: dict[str, Share], items: pa.Table
) -> Items:
    categories = amazon.category_vocabulary(by_item, items)
    return Items(categories, _category_ids(by_item, categories), repeated, missing)


def write_items(path: Path, items: Items) -> None:
    """Write the category of each item, as ids."""
    item = np.arange(FIRST_ID, len(items.category), dtype=np.int32)
    found = pa.table({"item": item, "category": items.category[FIRST_ID:]})
    tables.check(tables.Items, pl.DataFrame(found), path)
    shards.write_table(path, found)


def _category_ids(by_item: pl.DataFrame, words: pa.Table) -> npt.NDArray[np.int32]:
    """(items + 2,) the category's id by item id; 1 where an item has none."""
    ids = by_item.join(
        pl.DataFrame(words).select(pl.col("value").alias("category"), pl.col("id").alias("of")),
        on="category",
        how="left",
    ).sort("id")
    categories = np.zeros(by_item.height + FIRST_ID, np.int32)
    categories[UNKNOWN_ID] = UNKNOWN_ID
    categories[ids["id"].to_numpy()] = ids["of"].fill_null(UNKNOWN_ID).to_numpy()
    return categories


def load(folder: Path, bucket: int, fields: dict[str, npt.NDArray[np.int32]]) -> transform.Reviews:
    """A bucket as `fit_intervals` left it.

    Args:
        folder: where the buckets' files are.
        bucket: its number.
        fields: other field of a behaviour -> (items + 2,) ids by item id.
    """
    return _reviews(load_columns(bucket_path(folder / SEQUENCES, bucket)), fields)


def _reviews(
    columns: dict[str, npt.NDArray[Any]], fields: dict[str, npt.NDArray[np.int32]]
) -> transform.Reviews:
    item = columns["item"]
    carried = {"item": item, **{name: ids[item] for name, ids in fields.items()}}
    behaviours = Behaviours.of(columns["user"], columns["time"], carried)
    return transform.Reviews(behaviours, columns["row"])


def fit_intervals(run: Run, config: AmazonConfig, users: pa.Table, items: pa.Table) -> Summary:
    """Encode and order each bucket; count the intervals of train."""
    name, tally = "order and fit intervals", Tally()
    encode = _Encode(
        run.count,
        users.select(["value", "id"]),
        items.select(["value", "id"]),
        config.drops,
        config.split,
        MOST_BEHAVIOURS if config.parity else config.max_len,
    )
    with run.step(name) as rows:
        fitted = run.each(name, encode, [BEHAVIOURS], makes=[SEQUENCES], tallies=[tally])
        totals = intervals.counted(tally)
        rows[:] = sum(f[1] for f in fitted), totals.height
        return Summary(totals, max(f[0] for f in fitted), rows[0])


@dataclass(frozen=True)
class _Encode:
    """Encodes and orders a bucket, and counts the intervals of its train histories.

    Attributes:
        buckets: how many there are.
        users: the vocabulary: value, id.
        items: the vocabulary: value, id.
        drop: whether reviews that repeat another one are left out.
        split: the rule of the targets.
        max_len: behaviours kept of a history.
    """

    buckets: int
    users: pa.Table
    items: pa.Table
    drop: bool
    split: str
    max_len: int

    @cached_property
    def of_bucket(self) -> pl.Series:
        """(users,) the bucket of each user."""
        return bucket_of(pl.Series(self.users["value"]), self.buckets)

    def __call__(self, folder: Path, bucket: int, tally: Tally) -> tuple[int, int]:
        """Behaviours of the bucket's longest history, and of all of it."""
        path = bucket_path(folder / SEQUENCES, bucket)
        if path.exists():
            columns = load_columns(path)
        else:
            spilled = read_spilled(bucket_path(folder / BEHAVIOURS, bucket))
            own = pl.DataFrame(self.users).filter(self.of_bucket == bucket)
            given = {
                "reviews": _REPEATS.kept(spilled, self.drop),
                "users": vocabulary.arrow(own),
                "items": self.items,
            }
            columns = numpy_columns(vocabulary.query("amazon/behaviours", given))
            save_columns(path, columns)
        seq = _reviews(columns, {})
        longest = int(np.diff(seq.behaviours.offsets).max(initial=1)) - 1
        transform.count_intervals(seq, self.split, self.max_len, len(self.items), tally)
        return longest, len(seq.row)
