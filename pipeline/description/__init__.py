"""What a data set is made from: tables of events, lookups, one target, named histories.

A field's name is its vocabulary: two columns that are the same field share their ids. Nothing
behind the readers asks which data set it works on; it asks its description.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from pipeline.description.split import Rule
from pipeline.readers.parsed import Parsed, Reader
from schemas.manifest import SPLITS
from schemas.shards import kept_type

USER = "user"
IS_TARGET, OUTSIDE, ASKED = "is_target", "outside", "is_asked"
"""Masks: which events may be targets; which are outside what the table is of, but touched; which
are targets alone, where others are behaviours alone."""


def in_history(name: str) -> str:
    """The mask of the events that may stand in a history."""
    return f"in_{name}"


@dataclass(frozen=True)
class Table:
    """Events: who did what, and when. Rows have `user`, `time`, and the columns named here.

    Attributes:
        name: what its events are, in the plural, e.g. reviews.
        file: what the table of its refused lines is called.
        paths: the raw files; `row` counts through them in this order.
        fields: the columns of what was done, e.g. item; each is a vocabulary.
        features: its other id columns, which targets have, e.g. where an ad was shown.
        label: whether there is a column `label`, 0 or 1.
        order: what orders a user's events of one time: the `file`, a seeded `hash` of the line,
            or their `fields`, so that the order of the lines does not matter.
        numbers: its columns of numbers (float64), which targets have, and how each is scaled, as
            `Lookup.numbers` has it.
        lists: its columns of several values, which targets have, and how many are kept of each.
        keep: its columns that go to the shards as they are: whole numbers, floats or text.
        weight: whether there is a column `weight` (float64), 0 or more.
        masks: its boolean columns: `is_target`, which events may be targets, all without it;
            `in_<history>`, which may stand in it, where the history has a `where`; and `outside`,
            which count for nothing but as touched, where negatives are `unfiltered`; and
            `is_asked`, of those that `asked` says.
        split: whether there is a column `split`, the name of the event's split.
        drop: whether all but one are left out of the events that it holds more than once.
        bytes_a_line: what a line takes in the working set of its bucket, measured, rounded up.
        disk_bytes_a_line: what a line takes on disk once it is dealt out, rounded up.
        lines_a_second: on two cores, measured: for estimates only.
        header: lines before row 0.
        expected: what its lines are, for people.
        earlier: how many of the paths, the first ones, are of events that an earlier data set has
            kept: of them no target is made.
        first_row: the row of the first other event.
        asked: how many of the paths, the last ones, are of events that are targets alone, and stand
            in no history; all others are then behaviours alone. 0: events may be both.
        every_user: whether users who have no other event count as well: theirs are kept again.
    """

    name: str
    file: str
    paths: tuple[Path, ...]
    reader: Reader
    fields: tuple[str, ...]
    features: tuple[str, ...] = ()
    label: bool = False
    order: str = "file"
    numbers: Mapping[str, str] = field(default_factory=dict)
    lists: Mapping[str, int] = field(default_factory=dict)
    keep: tuple[str, ...] = ()
    weight: bool = False
    masks: tuple[str, ...] = ()
    split: bool = False
    drop: bool = False
    bytes_a_line: int = 250
    disk_bytes_a_line: int = 125
    lines_a_second: int = 240_000
    header: int = 0
    expected: str = "a line an event"
    earlier: int = 0
    first_row: int = 0
    asked: int = 0
    every_user: bool = False

    def __post_init__(self) -> None:
        """Refuse what no step could read."""
        _require(bool(self.paths), f"{self.name} are of no file")
        columns = [*self.ids, *self.numbers, *self.lists, *self.keep]
        _require(len(set(columns)) == len(columns), f"a column of {self.name} has two parts")

    @property
    def path(self) -> Path:
        """The first file: what messages name."""
        return self.paths[min(self.earlier, len(self.paths) - 1)]

    @property
    def ids(self) -> tuple[str, ...]:
        """The columns that ids are given to, without the user."""
        return *self.fields, *self.features

    @property
    def more(self) -> tuple[str, ...]:
        """Its other columns that targets have."""
        weight = ("weight",) if self.weight else ()
        return *self.numbers, *self.lists, *self.keep, *weight


@dataclass(frozen=True)
class Lookup:
    """What is known of the values of a field or feature, or of users, a line a value.

    Attributes:
        key: the column whose values are looked up; rows have it, and the columns named here.
        file: what the table of its refused lines is called.
        path: the raw file; None where there is none, so that everything is unknown.
        tick: of rows that have a `time`: how many of its units the data set's unit of times has. At
            a time the latest row of a key strictly before it holds. None: each at any time.
        table: that of events whose lines they are, by name, of which `path` is the first file:
            rows of its reader have all columns. None for lines of their own.
        read: yields its rows; of lines that are not of the given keys it may give none.
        columns: the types of the key and of all that is looked up.
        fields: what targets and behaviours have by it, e.g. category.
        features: other id columns that targets have by it.
        numbers: columns of numbers that targets have by it, and how each is scaled: `log`, its
            logarithm, standardised over the rows of train; `standard`, itself; or `none`.
        lists: columns of several values that targets have by it, and how many are kept of each.
        all_lines: whether every line counts, and is in the vocabularies: then it is read before
            the events are. Otherwise only what events name counts, as often as they do.
        refuse: why an event is refused whose value is not there; None where it is kept, with all
            that is looked up unknown.
        without: what the share is called of what is not there.
        lacks: what the share is called of the keys whose line has no value, with a `{}` for which.
        repeated: what the lines are called that repeat a key, or a key and time.
        repeated_rule: what becomes of them: the `first` line of a key counts, and those unlike it
            are counted; all have to be `equal`; or there may be none: `refuse`.
        max_missing: the share of its keys that may have no line, or of events where the key is of
            every line, or of targets where it is `timed`; None for what the settings allow.
        lines: what its lines are, in the plural, e.g. ads.
        header: lines before row 0.
        bytes_a_line: what is held of a line all along, measured, rounded up.
        require: refuses a file of no use, from how many lines it has, the first row of each key,
            and how many keys events name.
    """

    key: str
    file: str
    path: Path | None
    read: Callable[[Path, pl.Series | None], Generator[Parsed]]
    columns: Mapping[str, pa.DataType]
    without: str
    lacks: str
    repeated: str
    lines: str = "lines"
    fields: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    numbers: Mapping[str, str] = field(default_factory=dict)
    lists: Mapping[str, int] = field(default_factory=dict)
    repeated_rule: str = "first"
    max_missing: float | None = None
    all_lines: bool = False
    tick: int | None = None
    refuse: str | None = None
    header: int = 0
    table: str | None = None
    bytes_a_line: int = 0
    require: Callable[[Path, int, pl.DataFrame, int], None] | None = None

    @property
    def ids(self) -> tuple[str, ...]:
        """The columns that are ids, without the key."""
        return *self.fields, *self.features

    @property
    def has_place(self) -> bool:
        """Whether an event holds the place of what it looks up, which its id does not tell."""
        return self.all_lines and self.key != USER

    @property
    def timed(self) -> bool:
        """Whether a row holds from its time on."""
        return self.tick is not None

    @property
    def by(self) -> tuple[str, ...]:
        """The columns of which no two rows may have the same."""
        return (self.key, "time") if self.timed else (self.key,)

    @property
    def early(self) -> bool:
        """Whether it is read before the events are."""
        return self.all_lines or self.refuse is not None

    @property
    def limits(self) -> dict[str, float]:
        """The limit of its own, by the name of the share that it is of."""
        return {} if self.max_missing is None else {self.without: self.max_missing}

    @property
    def given(self) -> tuple[str, ...]:
        """Every column that targets have by it."""
        return *self.ids, *self.numbers, *self.lists


@dataclass(frozen=True)
class Negatives:
    """Random negatives of each target: values of a field that its user does not touch.

    Attributes:
        field: what is drawn.
        each: how many for each positive.
        seed: of the draws.
        stream: draws all at once, as released code does; see `negatives.released_stream`.
        pool: what is drawn from: `all` values, or those that are seen by the end of `train`.
        exclude: what is not drawn: what the user touches `ever`, in any event of the targets'
            table; `unfiltered`, in the reader's events with the mask `outside` too, which count for
            nothing else; or what stands in the target's `history` as stored, and the target.
        weight: `uniform`, or by `popularity`: how often a value occurs by the end of train,
            whatever the pool.
    """

    field: str
    each: int
    seed: int
    stream: Callable[[list[list[int]], int], list[int]] | None = None
    pool: str = "all"
    exclude: str = "ever"
    weight: str = "uniform"


@dataclass(frozen=True)
class History:
    """What a user did before a target.

    Attributes:
        max_len: behaviours kept, the latest; None for all of the longest history.
        window: `before` the target's time, strictly; or by `order`, what stands before the target
            in the table that both are of.
        session_gap: seconds without a behaviour that end a session.
        sessions: DSIN's sessions and behaviours of each; None for no such columns.
        where: whether it holds only those of the table's events that have the mask `in_<history>`.
        within: how long before the target its events are at most, in the unit of times.
        delay: how long before the target they are at least.
        bins: its own interval bins; None for those of the description.
    """

    table: str
    max_len: int | None
    window: str
    session_gap: int
    sessions: tuple[int, int] | None = None
    where: bool = False
    within: int | None = None
    delay: int = 0
    bins: int | None = None

    @property
    def by_time(self) -> bool:
        """Whether times say what it holds, so that it may be empty before any target."""
        return self.window == "before" or self.within is not None or self.delay > 0


@dataclass(frozen=True)
class Description:
    """A data set.

    Attributes:
        tables: of events; the first is that of the targets.
        lookups: in no order that counts.
        split: which split an event of the first table is in.
        layout: `padded` or `ragged` lists.
        bins: equal-frequency interval bins of each history.
        negatives: None where events have labels of their own.
        min_count: occurrences that a value needs to get an id of its own; users need none.
        seed: of the hashes that order events of one time.
        unit: of times, and so of intervals, edges and gaps: `s`, `ms` or `us`.
        vocabulary_from: which values get an id of their own: `all`, or those that a row of `train`
            holds, its history included. Users always do.
        only_new: whether what a user has touched before, the targets' first field, is no target.
        k_core: events that each user and each value of the targets' first field have at least,
            once those of others are left out; 0 for no such filter.
        min_history: behaviours, as stored and of all histories, that a target needs at least.
        labelled: whether targets have labels; else they are 0, and mean nothing.
        strict: whether a constant label, an empty split and a history without a behaviour are
            errors; else they are told.
        fixed_bytes_a_line: memory that is held all along for each line of the targets' table.
        sample: given the lookups' rows by key, the users that count; None for all.
        since: given the time of the first target event, the time before which events of the other
            tables are ignored.
        published: given how many lines each file has, and the vocabularies, how they differ from
            the published files.
        train: defaults of training, e.g. `group_field`: the field that groups targets.
        timezone: of what is told of times.
        said: what it was made from, where that is a description in the language: see
            `toml.canonical`.
        continues: the data set whose kept events new ones follow, and whose vocabularies, edges and
            scales they get; None where all is fitted.
        splits: what the splits are called, by the number that rules give them.
        keeps: whether events are kept beside the shards.
    """

    name: str
    tables: tuple[Table, ...]
    lookups: tuple[Lookup, ...]
    split: Rule
    histories: Mapping[str, History]
    layout: str
    bins: int
    negatives: Negatives | None = None
    min_count: int = 1
    seed: int = 1234
    unit: str = "s"
    vocabulary_from: str = "all"
    only_new: bool = False
    k_core: int = 0
    min_history: int = 0
    labelled: bool = True
    strict: bool = True
    fixed_bytes_a_line: int = 0
    sample: Callable[[Mapping[str, pl.DataFrame]], npt.NDArray[np.int64] | None] = lambda _: None
    since: Callable[[int], int] = lambda first: 0
    published: Callable[[Mapping[str, int], Mapping[str, pa.Table]], list[str]] = lambda *_: []
    train: Mapping[str, Any] = field(default_factory=dict)
    timezone: str = "UTC"
    said: Mapping[str, Any] = field(default_factory=dict)
    continues: Path | None = None
    splits: tuple[str, ...] = SPLITS
    keeps: bool = False

    def __post_init__(self) -> None:
        """Refuse what no step could make, and what the language does not see."""
        columns = {USER, *self.target.ids}.union(*(table.fields for table in self.tables[1:]))
        for one in self.lookups:
            _require(one.key in columns, f"{one.key} is a column of no table")
        given = [n for one in self.by_key.values() for n in one.given]
        _require(len({*given}) == len(given), "two lookups give targets one column")

    @property
    def target(self) -> Table:
        """The events that targets are of."""
        return self.tables[0]

    def table(self, name: str) -> Table:
        """The table of this name."""
        return next(table for table in self.tables if table.name == name)

    def bins_of(self, history: str) -> int:
        """The interval bins of a history."""
        return self.histories[history].bins or self.bins

    def looked_up(self, key: str) -> Lookup | None:
        """The lookup of a column; None where there is none."""
        return next((one for one in self.lookups if one.key == key), None)

    def lookup(self, key: str) -> Lookup:
        """The lookup of a column that has one."""
        return next(one for one in self.lookups if one.key == key)

    def carried(self, table: Table) -> tuple[str, ...]:
        """What behaviours of a table carry: its fields, and those that are looked up by one."""
        looked_up = [self.looked_up(key) for key in table.fields]
        more = (name for one in looked_up if one is not None for name in one.fields)
        return tuple(dict.fromkeys((*table.fields, *more)))

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column of events that ids are given to, without the user."""
        return tuple(dict.fromkeys(name for table in self.tables for name in table.ids))

    @property
    def by_key(self) -> dict[str, Lookup]:
        """The lookups of the targets' columns in the columns' order, that of users last."""
        found = {key: self.looked_up(key) for key in (*self.target.ids, USER)}
        return {key: one for key, one in found.items() if one is not None}

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of a target, in the order of its columns."""
        looked_up = (name for one in self.by_key.values() for name in one.fields)
        return tuple(dict.fromkeys((*self.target.fields, *looked_up)))

    @property
    def features(self) -> tuple[str, ...]:
        """The other id columns of a target, each before what it is looked up for."""
        found: list[str] = []
        for key in (*self.target.ids, USER):
            found += [key] if key in self.target.features else []
            one = self.looked_up(key)
            found += one.features if one is not None else ()
        return tuple(dict.fromkeys(found))

    @property
    def numbers(self) -> dict[str, str]:
        """The columns of numbers of a target, its own first, and how each is scaled."""
        found = dict(self.target.numbers)
        for one in self.by_key.values():
            found |= {name: scale for name, scale in one.numbers.items() if name not in found}
        return found

    @property
    def lists(self) -> dict[str, int]:
        """The columns of several values of a target, its own first, and how many are stored."""
        found = dict(self.target.lists)
        for one in self.by_key.values():
            found |= {name: most for name, most in one.lists.items() if name not in found}
        return found

    @property
    def keep(self) -> dict[str, str]:
        """The columns that are passed through, with their types as the manifest has them."""
        kinds = self.target.reader.columns
        return {name: kept_type(kinds[name]) for name in self.target.keep}

    @property
    def known(self) -> tuple[str, ...]:
        """The vocabularies whose unknown id stands in no row, where no event lacks the value."""
        found, drawn = [USER], self.negatives
        if self.continues is not None:
            return (USER,)
        every = self.vocabulary_from == "all" or (drawn is not None and drawn.pool == "all")
        if drawn is not None and every and self.min_count == 1:
            found.append(drawn.field)
        if self.min_count == 1 and self.vocabulary_from == "all":
            found += [one.key for one in self.lookups if one.refuse is not None]
        return tuple(found)

    @property
    def rows_of_a_target(self) -> int:
        """A target has a row, and one for each of its negatives."""
        return 1 + (self.negatives.each if self.negatives is not None else 0)


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"The description cannot be made: {what}.")
