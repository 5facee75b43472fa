"""What a manifest promises, as facts: the only place where `verify` reads a data set's settings.

No check asks which data set it is. It asks how targets are split, where a history's window ends,
which tables say a row's other columns.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, NamedTuple

import numpy as np
import pyarrow as pa
from annotated_types import Gt, Predicate

from pipeline.description.split import day_start
from pipeline.description.toml import digest
from pipeline.identity import key_of
from pipeline.verify.findings import Findings
from schemas.arrays import Int64s
from schemas.checked import OPEN, Count, Misfit, build, is_zone
from schemas.manifest import (
    NAME,
    NEW,
    SPLITS,
    WITH_NEW,
    Bins,
    Manifest,
    left_out,
    outside_core,
    repeated,
    without_history,
)
from schemas.shards import UNITS, session_prefix

LAST_SECOND = 253_402_300_799 - 86_400  # the end of the year 9999 in any timezone
KEPT = "events of users"  # what the users' vocabulary counts
_SHARD = re.compile(rf"({'|'.join((*SPLITS, NEW))})/part-[0-9]{{5}}\.parquet")


class Split(NamedTuple):
    """How targets are split.

    By `order`, a user's last target is test and, with `valid`, the one before it valid; the user's
    first event is no target. By `column`, the raw file says it. Else by time: valid begins at one
    second, and test at another; by `day`, the last target's day is test, the one before it valid.
    Times are in a unit of which a second has `a_second`.
    """

    by: str
    valid: bool
    cuts: tuple[int, int] = (0, 0)
    zone: str = "UTC"
    a_second: int = 1

    @property
    def latest(self) -> int:
        """The latest time that there can be."""
        return (LAST_SECOND + 1) * self.a_second - 1

    def days(self, last: int) -> tuple[int, int]:
        """The times at which valid and test begin, where the last target is at `last`."""
        if self.by != "day":
            return self.cuts
        second = last // self.a_second
        valid, test = (day_start(second, before, self.zone) for before in (1, 0))
        return valid * self.a_second, test * self.a_second


class Negatives(NamedTuple):
    """Rows that follow each positive, with another value of one field."""

    field: str
    of_each: int  # positive
    ever: bool  # none that the user touches at any time; else none in the history
    rare: bool  # whether some may be unknown


class Lookup(NamedTuple):
    """A table beside the shards that says other columns of a row, by the ids of a vocabulary."""

    file: str
    key: str
    columns: tuple[str, ...]  # fields and features; numbers, as they were before scaling
    lists: dict[str, int]  # those of lists, and the most ids that one has
    complete: bool  # it has a row for each id; else what it lacks is unknown
    timed: bool  # a row holds from its time on: strictly before a time, its key's last row does


@dataclass(frozen=True)
class History:
    """What is stored of a user's behaviours before a target."""

    name: str  # what its columns begin with
    fields: tuple[str, ...]  # what each behaviour carries
    max_len: int
    least: int  # behaviours that every row has
    own: bool  # whether behaviours are events of the targets' table
    carries: tuple[str, ...]  # those of `fields` that the events have themselves
    by_time: bool  # whether times say what it holds; else what stands before the target does
    interval: tuple[int, int | None]  # to the target, at least and at most
    where: bool  # whether only some events of the table are behaviours
    session_gap: int
    sessions: tuple[int, int] | None  # (M, K) of DSIN's columns
    bins: Bins
    lengths: dict[str, list[int]]  # split -> rows of each length from 0 to `max_len`

    def column(self, name: str) -> str:
        """A column of it."""
        return f"{self.name}_{name}"

    def session_column(self, name: str) -> str:
        """A column of DSIN's sessions."""
        return f"{session_prefix(self.name)}_{name}"

    @cached_property
    def bounds(self) -> tuple[Int64s, Int64s]:
        """(256,) each: bin k holds the intervals above the first's k and up to the second's k.

        No interval fits a bin that there is not.
        """
        low, high = np.iinfo(np.int64).min, np.iinfo(np.int64).max
        above, up_to = np.full(256, high), np.full(256, low)
        above[1 : self.bins.count + 1] = [low, *self.bins.edges_s]
        up_to[1 : self.bins.count + 1] = [*self.bins.edges_s, high]
        return above, up_to


@dataclass(frozen=True)
class Contract:
    """What a data set is held to."""

    made: Manifest  # its parts have the right types
    schema: pa.Schema  # of each shard
    histories: list[History]
    split: Split
    negatives: Negatives | None  # None: labels are the targets' own
    lookups: list[Lookup]
    known: set[str]  # vocabularies whose unknown id stands in no row
    # Whether all events are targets, but for a user's first one where split by order.
    every: bool
    asked: bool  # whether targets were named: such are first events, too, and no behaviours
    least: int  # behaviours before a target, in all its histories
    new: str | None  # the column of which a target has what its user had not touched before
    # Count or share of the manifest -> those that add up to it, or `KEPT`, `rejected/FILE`: lines,
    # `no history`: targets without a behaviour, `lacking FILE`: those whose key a lookup lacks.
    sums: dict[str, list[str]]

    @property
    def each(self) -> int:
        """Rows of a target: its own and its negatives'."""
        return 1 + (self.negatives.of_each if self.negatives else 0)

    @property
    def splits(self) -> tuple[str, ...]:
        """What the splits are called."""
        return WITH_NEW if self.made.continues is not None else SPLITS

    @property
    def own(self) -> list[str]:
        """The columns of a target that its event has itself."""
        return self.made.own.get(self.made.target.table, [])

    def target(self, name: str) -> str:
        """The column that has a target's field, or a row's user, feature or number."""
        return f"target_{name}" if name in self.made.fields else name


def read(made: Manifest, findings: Findings) -> Contract | None:
    """What the manifest promises; None where its parts are not what they should be."""

    def hold(key: str, good: bool, expected: object, got: object) -> bool:
        if not good:
            findings.add("manifest", f"{NAME}: {key}", expected, got)
        return good

    try:
        build(dict[str, _Scale], made.numbers)
        split = build(_Split, made.target.split)
    except Misfit as error:
        hold(error.at, False, error.expected, error.got)
        return None
    fields, sizes, drawn = made.fields, made.vocabulary, made.target.negatives
    of_histories = [name for history in made.histories.values() for name in history.fields]
    of_lookups = [
        name for one in made.lookups.values() for name in (*one.fields, *one.features, *one.lists)
    ]
    ids = [feature.vocabulary for feature in made.features.values() if feature.vocabulary]
    wanted = {"user", *fields, *of_histories, *of_lookups, *ids, *made.lookups, *made.known}
    wanted |= {drawn.field} if drawn is not None else set()
    good = bool(fields) and sizes.keys() >= wanted
    new = made.target.only_new
    if new is not None:
        good &= hold(
            "target.only_new", new in {*fields, *made.features}, "a column of targets", new
        )
    good = hold("vocabulary", good, f"one for each of {', '.join(sorted(wanted))}", [*sizes])
    if drawn is not None:
        good &= hold("target.negatives.field", drawn.field in fields, "a field", drawn.field)
    numbers = {name for name, one in made.features.items() if one.kind == "number"}
    good &= hold(
        "numbers", made.numbers.keys() == numbers, f"of {sorted(numbers)}", [*made.numbers]
    )
    odd = [shard.path for shard in made.shards if not _SHARD.fullmatch(shard.path)]
    if not hold("shards", not odd, "train, valid, test or new/part-00000.parquet", odd) or not good:
        return None
    contract = _facts(made, split)
    names = contract.schema.names
    if not hold("fields", len(set(names)) == len(names), "a name for each column", names):
        return None
    hold("config.key", made.config.get("key") == key_of(made), key_of(made), made.config.get("key"))
    if made.description:
        known, got = digest(made.description), made.config.get("description")
        hold("config.description", known == got, known, got)
    for name, history in made.histories.items():
        edges = history.bins.edges_s
        where = f"histories.{name}.bins.edges_s"
        hold(where, edges == sorted(edges), "edges that do not decrease", edges)
    splits = WITH_NEW if made.continues is not None else SPLITS
    rows = {n: sum(s.rows for s in made.shards if s.path.startswith(f"{n}/")) for n in splits}
    hold("rows", rows == made.rows, f"{rows}, as its shards", made.rows)
    return contract


def split_of(path: str) -> int:
    """The split of a shard, by its folder: index into `Contract.splits`."""
    name = path.partition("/")[0]
    return (WITH_NEW if name == NEW else SPLITS).index(name)


def _facts(made: Manifest, split: _Split) -> Contract:
    drawn, by_order = made.target.negatives, split.by == "order"
    target, before = made.target, made.continues
    asked = before is not None and before.asked
    every = split.by != "column" and not target.where and target.only_new is None
    every &= not target.min_history and before is None
    histories = [
        History(
            name,
            tuple(one.fields),
            one.max_len,
            1 if by_order and not asked and not one.by_time and not one.where else 0,
            one.table == made.target.table,
            tuple(made.own.get(one.table, ())),
            one.by_time,
            (max(one.delay, int(one.window == "before")), one.within),
            one.where,
            one.session_gap,
            one.shape,
            one.bins,
            one.lengths,
        )
        for name, one in made.histories.items()
    ]
    lookups, sums, own = [], _sums_of_events(made), made.own.get(target.table, [])
    others = [name for name in made.events if name != made.target.table]
    for key, one in made.lookups.items():
        file = f"lookups/{key}.parquet"
        columns = (*one.fields, *one.features, *one.numbers)
        lists = {name: made.lists[name] for name in one.lists if name in made.lists}
        lookups.append(Lookup(file, key, columns, lists, one.every, one.timed))
        # Of other tables' events none is refused, and values may be too rare for an id.
        told = not (one.refuses and any(key in made.own.get(of, ()) for of in others))
        told &= len(columns) == 1 and one.every
        if drawn is not None and key == drawn.field and told and not drawn.rare:
            # Where events are refused, what is not there is counted by them.
            lost = [] if one.refuses else [one.without]
            sums[f"unknown {file}"] = [*lost, one.lacks.format(*columns)]
        elif one.timed:
            if key in made.known and key in ("user", *own) and not one.refuses:
                sums[one.without] = [f"lacking {file}"]
        elif not one.every and every and not by_order and drawn is None:  # a row an event
            sums[one.without] = [f"lacking {file}"]
    return Contract(
        made,
        made.schema,
        histories,
        Split(
            split.by,
            split.valid is not False,
            (int(split.valid), split.test),
            split.timezone,
            UNITS[made.time_unit],
        ),
        None
        if drawn is None
        else Negatives(drawn.field, drawn.each, drawn.exclude != "history", drawn.rare),
        lookups,
        set(made.known),
        every,
        asked,
        made.target.min_history,
        made.target.only_new,
        sums,
    )


def _sums_of_events(made: Manifest) -> dict[str, list[str]]:
    """What the lines of each table of events add up to, and the targets without a behaviour."""
    (target, file), *others = made.events.items()
    sums = {
        f"{target} read": [
            KEPT,
            repeated(target, dropped=True),
            f"{target} of users outside the sample",
            left_out(target, bool(made.description)),
            outside_core(target),
            f"rejected/{file}",
        ]
    }
    for name, file in others:
        more = left_out(name, bool(made.description)), f"{name} of users without {target}"
        sums[f"{name} read"] = [f"{name} kept", *more, f"rejected/{file}"]
    tables = [one.table for one in made.histories.values() if one.by_time]
    if (empty := without_history(target, tables)) is not None:
        sums[empty] = ["no history"]
    return sums


@dataclass(frozen=True)
class _Split:
    """The rule of the splits; `valid` is whether there is one, or where it begins."""

    __pydantic_config__ = OPEN
    by: Annotated[str, Predicate({"order", "day", "time", "column"}.__contains__)]
    valid: Count | bool
    test: Count = 0
    timezone: Annotated[str, Predicate(is_zone)] = "UTC"


@dataclass(frozen=True)
class _Scale:
    """How a number was standardised."""

    __pydantic_config__ = OPEN
    mean: float
    std: Annotated[float, Gt(0)]
    train_rows: Count | None = None
