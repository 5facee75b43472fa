"""Spill: the lines of a share of a table, parsed, to the buckets of their users."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from pipeline.description import ASKED, OUTSIDE, USER, Lookup, Table
from pipeline.engines.buckets import Spill, bucket_path, read_spilled
from pipeline.engines.engine import Read
from pipeline.engines.tally import Tally, TextTally, Words
from pipeline.parallel import map_stream
from pipeline.readers.parsed import Parsed
from pipeline.readers.shares import PlacedBlock, Share, blocks_of
from pipeline.steps import lists, refused
from pipeline.steps.lookups import Distinct
from pipeline.steps.sql import arrow
from pipeline.steps.vocabulary import Encoder, bucket_of
from schemas.shards import numpy_type

MISSING = -1
"""In place of a number that is missing, of events whose user has an id."""
# Of a row group of events that are kept.
_KEPT_ROWS = 1 << 18


class Spilled(NamedTuple):
    """What is known of a share once its events are in their buckets.

    Attributes:
        found: how many lines were read, events kept, left out, those of them that the reader gave,
            and events of users without an id.
        files: by its number in the table, how many rows each file has, or the part of it.
        times: the least and the most; none where there is no event.
        refused: of its lines.
        counts: column -> how often its values occur, of a table whose users have ids; of users
            those who have none, where events are kept.
        looked_up: key of a lookup of this table -> its rows, as `Distinct` has them.
    """

    found: dict[str, int]
    files: dict[int, int]
    times: list[int]
    refused: refused.Summary
    counts: dict[str, pl.DataFrame]
    looked_up: dict[str, pl.DataFrame]


class _Dealt(NamedTuple):
    """What has become of a block: the number of its file, its lines; and as in `Spilled`."""

    file: int
    lines: int
    rejected: pl.DataFrame
    told: dict[str, int]
    ends: list[int]


def spilled(table: Table) -> str:
    """What the files with a table's events are called among a bucket's files."""
    return table.name


def spilled_wide(table: Table) -> str:
    """As `spilled`, of events that hold large numbers."""
    return f"{table.name}-wide"


def spilled_outside(table: Table) -> str:
    """As `spilled`, of the targets' table's events that count for nothing but as touched."""
    return f"{table.name}-outside"


def kept(table: Table) -> str:
    """As `spilled`, of all events as the reader gives them, to be kept beside the shards."""
    return f"{table.name}-kept"


def spilled_others(table: Table) -> str:
    """As `spilled`, of users whom the targets' table lacks, as the reader gives them."""
    return f"{table.name}-others"


def kept_schema(table: Table) -> pa.Schema:
    """The schema of a table's events that are kept."""
    columns = [(name, held(kind)) for name, kind in table.reader.columns.items()]
    return pa.schema([("row", pa.int64()), *columns])


def kinds_of_targets(table: Table) -> list[str]:
    """What the targets' table is spilled to."""
    return [spilled(table), *([spilled_outside(table)] if OUTSIDE in table.masks else [])]


def masks(table: Table) -> tuple[str, ...]:
    """The masks that a table's events in the buckets have."""
    return tuple(name for name in table.masks if name != OUTSIDE)


def held(kind: pa.DataType) -> pa.DataType:
    """The type of a reader's column as it is held on the way to the shards: text is large."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.large_list(held(kind.value_type))
    return pa.large_string() if pa.types.is_string(kind) else kind


def words_of(table: Table, name: str) -> Words:
    """What counts the values of a column, or those in its lists."""
    kind = table.reader.columns[name]
    return Tally() if pa.types.is_integer(getattr(kind, "value_type", kind)) else TextTally()


@dataclass(frozen=True)
class SpillPart:
    """Spills the events of a share of a table to the buckets of their users.

    Attributes:
        threads: blocks parsed at once.
        allowed: the values that a column may have, of a timed one each with the `time` that an
            event has to be behind; and why others are refused.
        users: the id of each user that counts, 0 of others; None: the users' raw values are kept,
            and so is the row of each event.
        sample: the users that count; None for all.
        since: the time from which on events count; None for all.
        lookups: those that the table's events say.
        keeps: whether all events are kept as they are, too.
    """

    table: Table
    buckets: int
    threads: int
    allowed: Mapping[str, tuple[pl.DataFrame, str]]
    users: Encoder | None
    sample: pl.Series | None
    since: int | None
    unit: str
    lookups: tuple[Lookup, ...] = ()
    keeps: bool = False

    def __call__(self, folder: Path, share: Share, read: Read) -> Spilled:
        """What is known of the share."""
        table, reader = self.table, self.table.reader
        names = table.fields if self.users is not None else ()
        if self.users is not None and self.keeps:
            names = *names, USER
        counts = {name: words_of(table, name) for name in names}
        found = dict.fromkeys(("read", "kept", "left_out", "unasked", "of_nobody"), 0)
        files = {of.number: 0 for of in share.parts}
        times: list[int] = []
        looked_up = {one.key: Distinct(one) for one in self.lookups}
        with ExitStack() as spills:
            refused_lines = spills.enter_context(
                refused.RefusedLines.within(
                    folder / refused.kind(table.file), share.before, self.buckets
                )
            )
            keep, schema = None, kept_schema(table)
            if self.keeps:
                keep = spills.enter_context(Spill(folder / kept(table), self.buckets, schema))
            into: _Raw | _Narrow
            if self.users is None:
                into = _Raw(self, spills, folder)
            else:
                into = _Narrow(self, spills, folder, counts)

            def deal(at: PlacedBlock) -> _Dealt:
                parsed = reader.parse(at.of.name, at.block)
                earlier = at.of.number < table.earlier
                rows, rejected = parsed.rows, parsed.rejected
                if not earlier:
                    rows, rejected = self._allowed(parsed, at.of.name)
                if first := at.first_row + (0 if earlier else table.first_row):
                    rows = rows.with_columns(pl.col("row") + first)
                target = at.of.number >= len(table.paths) - table.asked
                if table.asked:
                    rows = rows.with_columns(pl.lit(target).alias(ASKED))
                wanted = of_users = self._wanted(rows)
                if keep is not None and of_users.height and not target:
                    _append(keep, schema, of_users)
                if OUTSIDE in table.masks:
                    wanted = of_users.filter(~pl.col(OUTSIDE).fill_null(value=False))
                    into.touch(of_users.filter(OUTSIDE))
                for one in self.lookups if not target else ():
                    of_key = wanted.select("row", *one.by, *one.given).drop_nulls(one.key)
                    looked_up[one.key].add(lists.cut(of_key, one.lists))
                count, ends = into.add(wanted)
                if earlier:  # they were counted when they were new
                    return _Dealt(at.of.number, 0, rejected, {}, [])
                told = {
                    "read": parsed.read,
                    "kept": count,
                    "left_out": parsed.left_out + rows.height - wanted.height,
                    "unasked": rows.height - of_users.height,
                    "of_nobody": wanted.height - count,
                }
                return _Dealt(at.of.number, parsed.lines, rejected, told, ends)

            # Closed before the spills that its threads write to.
            stream = map_stream(deal, blocks_of(reader, share), self.threads)
            with closing(stream) as dealt:
                for one in dealt:
                    refused_lines.append(one.rejected, one.file)
                    times += one.ends
                    files[one.file] += one.lines
                    for name, n in one.told.items():
                        found[name] += n
                    read(one.told.get("read", 0))
        ends = [min(times), max(times)] if times else []
        of = {name: tally.counts() for name, tally in counts.items()}
        rows = {key: distinct.rows() for key, distinct in looked_up.items()}
        return Spilled(found, files, ends, refused_lines.summary, of, rows)

    def _allowed(self, parsed: Parsed, file: str) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The rows whose values are there where they are looked up; all lines refused."""
        rows, rejected = parsed.rows, parsed.rejected
        for key, (values, reason) in self.allowed.items():
            if "time" in values.columns:
                first = rows.select(key, at="time").join(
                    values, on=key, how="left", maintain_order="left"
                )
                there = first["time"] < first["at"]
            else:
                there = rows[key].is_in(values[key].implode())
            there = there.fill_null(value=False)
            if OUTSIDE in rows.columns:  # of these nothing is looked up
                there |= rows[OUTSIDE].fill_null(value=False)
            if there.all():
                continue
            absent = rows.filter(~there)
            line = absent["row"] + 1 + self.table.header
            if parsed.line_of is not None:
                line = pl.Series("line", list(map(parsed.line_of, absent["row"])), pl.Int64)
            absent = absent.select(
                file=pl.lit(file),
                line=line,
                reason=pl.lit(reason),
                text=pl.concat_str(
                    USER, "time", *self.table.ids, separator=",", ignore_nulls=True
                ).str.slice(0, 200),
            )
            rows, rejected = rows.filter(there), pl.concat([rejected, absent]).sort("line")
        return rows, rejected

    def _wanted(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows of times and users that count."""
        if self.since is not None:
            rows = rows.filter(pl.col("time") >= self.since)
        if self.sample is not None:
            rows = rows.filter(pl.col(USER).is_in(self.sample.implode()))
        return rows


class _Raw:
    """Where events go as they are."""

    def __init__(self, of: SpillPart, spills: ExitStack, folder: Path) -> None:
        table, columns = of.table, of.table.reader.columns
        self.lists = table.lists
        names = [USER, "time", *table.ids]
        names += ["label"] if table.label else []
        names += masks(table)
        names += ["split"] if table.split else []
        kinds = {**columns, ASKED: pa.bool_()}
        of_names = [(name, held(kinds[name])) for name in (*names, *table.more)]
        self.schema = pa.schema([("row", pa.int64()), *of_names])
        self.spill = spills.enter_context(Spill(folder / spilled(table), of.buckets, self.schema))
        if OUTSIDE in table.masks:
            self.touched = pa.schema([(name, columns[name]) for name in (USER, *table.fields)])
            self.outside = spills.enter_context(
                Spill(folder / spilled_outside(table), of.buckets, self.touched)
            )

    def add(self, rows: pl.DataFrame) -> tuple[int, list[int]]:
        """Send events to their buckets; how many, and the least and the most time."""
        if not rows.height:
            return 0, []
        _append(self.spill, self.schema, lists.cut(rows, self.lists))
        return rows.height, [rows["time"].min(), rows["time"].max()]  # type: ignore[list-item]

    def touch(self, rows: pl.DataFrame) -> None:
        """Send events that are touched, no more, to their buckets."""
        if rows.height:
            _append(self.outside, self.touched, rows)


def _append(spill: Spill, schema: pa.Schema, rows: pl.DataFrame) -> None:
    flags = [f.name for f in schema if pa.types.is_boolean(f.type)]
    rows = rows.select(schema.names).with_columns(pl.col(flags).fill_null(value=False))
    columns = arrow(rows).cast(schema).columns
    bucket = bucket_of(rows[USER], len(spill.paths))
    spill.append([column.combine_chunks() for column in columns], bucket)


class _Narrow:
    """Where events go of users with ids, in as few bytes as they fit."""

    def __init__(
        self, of: SpillPart, spills: ExitStack, folder: Path, counts: Mapping[str, Words]
    ) -> None:
        table, self.users, self.counts = of.table, of.users, counts
        kinds = table.reader.columns
        self.text = {n for n, of in kinds.items() if n != USER and not pa.types.is_primitive(of)}
        self.fields = table.fields
        self.flags = masks(table)
        named = [(name, pa.int32()) for name in table.fields]
        named = [(n, table.reader.columns[n] if n in self.text else kind) for n, kind in named]
        row = [("row", pa.int64())] if table.order != "fields" or table.first_row else []
        flags = [(name, pa.bool_()) for name in self.flags]
        # As milliseconds, times of 1970 alone would fit.
        time = pa.uint32() if of.unit == "s" else pa.int64()
        self.schema = pa.schema([*row, (USER, pa.int32()), ("time", time), *named, *flags])
        self.wide = pa.schema(
            [(f.name, pa.int64() if pa.types.is_integer(f.type) else f.type) for f in self.schema]
        )
        self.spill = spills.enter_context(Spill(folder / spilled(table), of.buckets, self.schema))
        one_opens = threading.Lock()

        @cache
        def opened() -> Spill:
            return spills.enter_context(Spill(folder / spilled_wide(table), of.buckets, self.wide))

        def open_wide() -> Spill:
            with one_opens:
                return opened()

        self.open_wide = open_wide
        if of.keeps:
            names = ("row", USER, "time", *table.fields, *self.flags)
            kinds = {"row": pa.int64(), **table.reader.columns}
            self.raw = pa.schema([(name, held(kinds[name])) for name in names])
            self.others = spills.enter_context(
                Spill(folder / spilled_others(table), of.buckets, self.raw)
            )

    def add(self, rows: pl.DataFrame) -> tuple[int, list[int]]:
        """As `_Raw.add`, and count the values of all of them."""
        assert self.users is not None
        columns: dict[str, Any] = {
            f.name: rows[f.name]
            if f.name in {*self.text, USER}
            else rows[f.name].fill_null(False if f.name in self.flags else MISSING).to_numpy()
            for f in self.schema
        }
        for name in self.fields:
            self.counts[name].add(columns[name])
        user = columns[USER]
        columns[USER] = self.users.of(user)
        kept = columns[USER] > 0
        if USER in self.counts and not kept.all():
            others = rows.filter(~kept)
            tally = self.counts[USER]
            if isinstance(tally, Tally):
                tally.add(others[USER].to_numpy())
            else:
                tally.add(others[USER])
            _append(self.others, self.raw, others)
        columns = {
            name: column.filter(kept) if name in self.text else column[kept]
            for name, column in columns.items()
        }
        if not len(columns[USER]):
            return 0, []
        fits = all(
            f.name in {*self.text, *self.flags} or _fits(columns[f.name], numpy_type(f.type))
            for f in self.schema
        )
        spill = self.spill if fits else self.open_wide()
        arrays = [
            arrow(columns[f.name].to_frame()).column(0).combine_chunks()
            if f.name in self.text
            else pa.array(columns[f.name].astype(numpy_type(f.type), copy=False))
            for f in spill.schema
        ]
        bucket = bucket_of(user.filter(kept), len(spill.paths))
        spill.append(arrays, bucket)
        time = columns["time"]
        return len(time), [int(time.min()), int(time.max())]

    def touch(self, rows: pl.DataFrame) -> None:
        """As `_Raw.touch`: of another table there are none."""
        assert not rows.height


def _fits(numbers: npt.NDArray[Any], kind: np.dtype[Any]) -> bool:
    """Whether numbers, none of which is below `MISSING`, fit in an integer type."""
    info = np.iinfo(kind)
    return int(numbers.max()) <= info.max and (info.min < 0 or int(numbers.min()) >= 0)


def events_kept(folder: Path, bucket: int, table: Table) -> tuple[pa.Schema, Iterator[pa.Table]]:
    """A bucket's events as they are kept, ordered by user, time and row: their schema, and they."""
    schema = kept_schema(table)
    found = pl.DataFrame(read_spilled(bucket_path(folder / kept(table), bucket)))
    rows = found.sort(USER, "time", "row")
    return schema, (arrow(some).cast(schema) for some in rows.iter_slices(_KEPT_ROWS))


def fresh(table: Table, rows: pl.DataFrame) -> pl.DataFrame:
    """Those of a bucket's events that follow what an earlier data set has kept."""
    return rows.filter(pl.col("row") >= table.first_row) if table.first_row else rows


def followed(table: Table, rows: pl.DataFrame) -> pl.DataFrame:
    """Those of a bucket's events whose user has a fresh one, if others are of no matter."""
    if table.every_user or not table.first_row:
        return rows
    return rows.filter((pl.col("row") >= table.first_row).any().over(USER))


def events(folder: Path, bucket: int, table: Table) -> pl.DataFrame:
    """A bucket's events as they were spilled."""
    found = pl.DataFrame(read_spilled(bucket_path(folder / spilled(table), bucket)))
    path = bucket_path(folder / spilled_wide(table), bucket)
    if not path.exists():
        return found
    more = pl.DataFrame(read_spilled(path))
    return pl.concat([found.cast(more.schema), more])
