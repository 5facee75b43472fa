"""Core: the users and values that keep events enough once those that have too few are left out.

A user who is left out takes events from values, and a value from users, so it goes on until nothing
changes: what stays is the largest set in which all have enough. A bucket has a user's events whole,
so what travels between buckets is how often each value occurs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from pipeline.description import USER, Table
from pipeline.engines.buckets import bucket_path, load_columns, save_columns
from pipeline.engines.tally import Tally
from pipeline.steps.repeats import repeats_of
from pipeline.steps.spill import events, spilled
from pipeline.steps.vocabulary import Encoder, vocabulary
from pipeline.workspace import Run
from schemas.arrays import Bools, Int64s
from schemas.errors import InputError
from schemas.manifest import FIRST_ID


@dataclass(frozen=True)
class Core:
    """What stays.

    Attributes:
        column: whose values have to have enough.
        least: events of each.
        values: those that stay.
    """

    column: str
    least: int
    values: pl.Series

    def kept(self, rows: pl.DataFrame) -> pl.DataFrame:
        """A bucket's events that stay; those without a value do if their user does."""
        value = pl.col(self.column)
        rows = rows.filter(value.is_null() | value.is_in(self.values.implode()))
        return rows.filter(pl.len().over(USER) >= self.least)


def kind(table: Table) -> str:
    """What the files with a table's users and values are called among a bucket's files."""
    return f"core-{table.name}"


def core(run: Run, table: Table, least: int, counts: pl.DataFrame) -> Core:
    """What stays of the targets' table: users, and values of its first column, with `least` events.

    Raises:
        InputError: nothing stays.
    """
    column = table.ids[0]
    words = vocabulary(counts)
    known = words.select(["value", "id"])
    with run.step("find the core") as rows:
        codes = partial(_codes, table, column, known)
        rows[0] = sum(run.each("code values", codes, [spilled(table)], makes=[kind(table)]))
        stay, before = np.ones(len(words) + FIRST_ID, np.bool_), -1
        while before != (before := int(stay.sum())):
            found = Tally()
            work = partial(_count, table, least, stay)
            rows[1] = sum(run.each("find the core", work, [kind(table)], tallies=[found]))
            some = found.counts()
            enough = np.zeros(len(stay), np.bool_)
            enough[some["value"].filter(some["count"] >= least).to_numpy()] = True
            stay[FIRST_ID:] &= enough[FIRST_ID:]
    if not rows[1]:
        raise InputError(
            f"Nothing of the {table.name} stays.",
            where=table.path,
            expected=f"users and values of {column} with {least:,} {table.name} or more of each "
            "other",
            got=f"none such among {rows[0]:,} {table.name}",
            do="give a smaller k_core, or leave it out",
        )
    return Core(column, least, pl.Series(words["value"]).filter(pl.Series(stay[FIRST_ID:])))


def _codes(table: Table, column: str, words: pa.Table, folder: Path, bucket: int) -> int:
    """Leave the users and the values of a bucket's events as small numbers; how many there are."""
    path = bucket_path(folder / kind(table), bucket)
    frame = repeats_of(table).kept(events(folder, bucket, table), table.drop)
    if not path.exists():
        user = frame[USER].rank("dense").cast(pl.Int32).to_numpy() - np.int32(1)
        save_columns(path, {"user": user, "value": Encoder(words).of(frame[column])})
    return frame.height


def _count(table: Table, least: int, stay: Bools, folder: Path, bucket: int, found: Tally) -> int:
    """Count the values that stay in events of users that do; `stay` is (values,) by code."""
    columns = load_columns(bucket_path(folder / kind(table), bucket))
    of_value = stay[columns["value"]]
    user, value = columns["user"][of_value], columns["value"][of_value]
    events_of: Int64s = np.bincount(user)
    kept = value[events_of[user] >= least]
    found.add(kept)
    return len(kept)
