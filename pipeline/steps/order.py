"""Order: each bucket's events with ids, ordered as histories need them, and its targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from pipeline.description import (
    ASKED,
    IS_TARGET,
    OUTSIDE,
    USER,
    Description,
    History,
    Table,
    in_history,
)
from pipeline.description.split import NO_TARGET, InOrder, Split, Splits
from pipeline.engines.buckets import (
    Behaviours,
    bucket_path,
    load_columns,
    read_spilled,
    save_columns,
)
from pipeline.engines.tally import Tally
from pipeline.steps import columns as more
from pipeline.steps import lookups, rows, spill, vocabulary
from pipeline.steps.core import Core
from pipeline.steps.negatives import counter_hash
from pipeline.steps.repeats import repeats_of
from pipeline.steps.vocabulary import Encoder
from schemas.arrays import Bools, Int32s, Int64s
from schemas.bounds import MOST_BEHAVIOURS
from schemas.manifest import SPLITS, UNKNOWN_ID

# Columns of a bucket's file beside those that have the names of fields.
_PLACE, _START, _END, _FRESH = "place of ", "start of ", "end of ", "is fresh"
# Of times in a key of 63 bits, beside a user's id.
_TIME_BITS = 32


def ordered(table: Table) -> str:
    """What the files with a table's ordered events are called among a bucket's files."""
    return f"ordered-{table.name}"


def ordered_outside(table: Table) -> str:
    """As `ordered`, of the events that count for nothing but as touched, in no order."""
    return f"ordered-{table.name}-outside"


def ordered_others(table: Table) -> str:
    """As `ordered`, of users whom the targets' table lacks."""
    return f"ordered-{table.name}-others"


def place_of(key: str) -> str:
    """The column of ordered events with the places of what they look up by a key."""
    return _PLACE + key


def kinds(d: Description) -> list[str]:
    """All files that `Order` leaves and `load` reads."""
    files = [*map(ordered, d.tables), *more.kinds(d.target)]
    files += map(ordered_others, d.tables[1:] if d.keeps else ())
    return [*files, *([ordered_outside(d.target)] if OUTSIDE in d.target.masks else [])]


class Found(NamedTuple):
    """What ordering a bucket has found, of each table but the targets'.

    Attributes:
        events: how many events there are, of all tables.
        kept: table -> its events.
        repeated: table -> how many of them are as another one in all that is stored.
        late: table, that of the targets, too -> how many of them are older than one of their user
            that an earlier data set has kept.
    """

    events: int
    kept: dict[str, int]
    repeated: dict[str, int]
    late: dict[str, int]


class Targets(NamedTuple):
    """A bucket's events of the targets' table, in order, and which of them are targets.

    Attributes:
        events: with their fields.
        row: (events,) row of the raw file.
        features: (events,) ids of each feature.
        label: (events,) 0 or 1; None where all are positives.
        place: lookup's key -> (events,) where its value is looked up.
        windows: history -> what each target's history is cut from; of other events it may be 0.
        split: (events,) index into `schemas.manifest.SPLITS`, -1 of what is no target.
        may: how many are what a target is.
        touched: how many of them are no targets, as their user had touched the same before.
        short: how many of the others are none, as too few behaviours are before them.
        long: how many there are with those.
    """

    events: Behaviours
    row: Int64s
    features: dict[str, Int32s]
    label: npt.NDArray[np.int8] | None
    place: dict[str, Int32s]
    windows: dict[str, rows.Held]
    split: Splits
    may: int
    touched: int
    short: int
    long: int


class Bucket(NamedTuple):
    """A bucket's ordered events.

    The ids are those that the files hold, but for those of behaviours and of what is looked up.

    Attributes:
        behaviours: history -> the events that its histories are cut from.
        tables: table -> its events with their own fields.
        source: history -> (behaviours,) which events of their table they are; None for all.
        drawn: history -> (behaviours,) ids of the field that negatives are drawn of, of those
            histories that have it.
        outside: the users' ids, and the ids of what they touched, of events that count for nothing
            else; None where there are none.
        column: (events,) the split that each event of the targets' table names; None for none.
        fresh: table -> (events,) which are none that an earlier data set has kept.
        behaves: (events,) which of the targets' table are behaviours; None for all.
    """

    targets: Targets
    behaviours: dict[str, Behaviours]
    tables: dict[str, Behaviours]
    source: dict[str, Int64s | None]
    drawn: dict[str, Int32s]
    outside: tuple[Int32s, Int32s] | None
    column: Splits | None
    fresh: dict[str, Bools]
    behaves: Bools | None


@dataclass(frozen=True)
class Order:
    """Encodes and orders a bucket, and counts what is seen by the end of train.

    Attributes:
        words: the vocabularies of the tables' columns: value, id.
        looked_up: the lookups that are read by now, by key.
        core: of the users and values that have events enough; None for all.
        nobodies: value and id of users whom the targets' table lacks; None where none is kept.
    """

    d: Description
    split: Split
    buckets: int
    words: Mapping[str, pa.Table]
    looked_up: Mapping[str, lookups.Encoded]
    core: Core | None
    nobodies: pa.Table | None = None

    @property
    def needs(self) -> list[str]:
        """The kinds of files that it reads."""
        others = self.d.tables[1:]
        kinds = [spill.spilled, spill.spilled_wide]
        kinds += [spill.spilled_others] if self.d.keeps else []
        files = spill.kinds_of_targets(self.d.target)
        return [*files, *(kind(table) for kind in kinds for table in others)]

    @cached_property
    def encoders(self) -> dict[str, Encoder]:
        """Of every column of events but the user."""
        names = {name for table in self.d.tables for name in (*table.ids, *table.lists)}
        return {name: Encoder(self.words[name]) for name in names}

    @cached_property
    def of_bucket(self) -> npt.NDArray[np.uint16]:
        """(users,) the bucket of each user."""
        return vocabulary.bucket_of(pl.Series(self.words[USER]["value"]), self.buckets)

    def __call__(self, folder: Path, bucket: int, *tallies: Tally) -> Found:
        """What is found; a tally counts the ids of what is drawn in events seen by train's end."""
        found, bucket_of = self.ordered(folder, bucket)
        for tally in tallies:
            assert self.d.negatives is not None
            for table, seen in seen_by_train(bucket_of, self.split).items():
                events = bucket_of.tables[table]
                if self.d.negatives.field in events.fields:
                    tally.add(events.fields[self.d.negatives.field][seen])
        return found

    def ordered(self, folder: Path, bucket: int) -> tuple[Found, Bucket]:
        """What is found, and the bucket."""
        d = self.d
        for table in (*d.tables[1:], d.target):  # the targets' windows are cut from the others
            path = bucket_path(folder / ordered(table), bucket)
            if not path.exists():
                save_columns(path, self._ordered(folder, bucket, table))
        for table in d.tables[1:] if d.keeps else ():
            path = bucket_path(folder / ordered_others(table), bucket)
            if not path.exists():
                save_columns(path, self._of_nobodies(folder, bucket, table))
        if OUTSIDE in d.target.masks:
            path = bucket_path(folder / ordered_outside(d.target), bucket)
            if not path.exists():
                save_columns(path, self._outside(folder, bucket))
        found = load(folder, bucket, d, self.looked_up, self.split)
        others = {table.name: found.tables[table.name] for table in d.tables[1:]}
        told = Found(
            sum(len(events.user) for events in found.tables.values()),
            {name: int(np.count_nonzero(found.fresh[name])) for name in others},
            {
                name: int(np.count_nonzero(repeated(of, d.table(name).order) & found.fresh[name]))
                for name, of in others.items()
            },
            {
                name: _late(of, found.fresh[name], found.behaves if name == d.target.name else None)
                for name, of in found.tables.items()
            },
        )
        return told, found

    def _outside(self, folder: Path, bucket: int) -> dict[str, npt.NDArray[Any]]:
        """The users with an id, and what they touched, of events that count for nothing else."""
        d = self.d
        assert d.negatives is not None
        path = bucket_path(folder / spill.spilled_outside(d.target), bucket)
        frame = pl.DataFrame(read_spilled(path))
        own = self.words[USER].filter(pa.array(self.of_bucket == bucket))
        user = Encoder(own, 0).of(frame[USER])
        field = self.encoders[d.negatives.field].of(frame[d.negatives.field])
        return {USER: user[user > 0], d.negatives.field: field[user > 0]}

    def _of_nobodies(self, folder: Path, bucket: int, table: Table) -> dict[str, Any]:
        """As `_ordered`, of users whom the targets' table lacks."""
        path = bucket_path(folder / spill.spilled_others(table), bucket)
        frame = pl.DataFrame(read_spilled(path))
        return self._in_order(frame, self.encoder_of_nobodies.of(frame[USER]), table)[0]

    @cached_property
    def encoder_of_nobodies(self) -> Encoder:
        """Of the users whom the targets' table lacks."""
        assert self.nobodies is not None
        return Encoder(self.nobodies)

    def _in_order(
        self, frame: pl.DataFrame, user: Int32s, table: Table
    ) -> tuple[dict[str, npt.NDArray[Any]], Int64s]:
        """The columns of a table's events in order, and where each event stood before.

        Repeats of another table than the targets' are dropped if asked for.
        """
        time = frame["time"].to_numpy().astype(np.int64, copy=False)
        ids = {name: self.encoders[name].of(frame[name]) for name in table.ids}
        row = frame["row"].to_numpy() if "row" in frame.columns else None
        ties: list[npt.NDArray[Any]] = [] if row is None else [row]
        if table.order == "fields":
            ties = [*(ids[name] for name in table.fields), *ties]
        elif table.order == "hash":
            assert row is not None
            ties = [counter_hash(self.d.seed, row).astype(np.int64), row]
        by, user, time = in_order(user, time, ties)
        columns: dict[str, npt.NDArray[Any]] = {USER: user, "time": time}
        if table.first_row:
            assert row is not None
            columns[_FRESH] = (row >= table.first_row).astype(np.uint8)[by]
        columns |= {name: of[by] for name, of in ids.items()}
        for name in spill.masks(table):  # as numbers: Arrow's flags are no arrays
            columns[name] = frame[name].cast(pl.UInt8).to_numpy()[by]
        if table.name != self.d.target.name and table.drop:
            once = ~repeated(_with_own_fields(columns, table), table.order)
            columns = {name: column[once] for name, column in columns.items()}
        return columns, by

    def _ordered(self, folder: Path, bucket: int, table: Table) -> dict[str, npt.NDArray[Any]]:
        d, frame = self.d, spill.events(folder, bucket, table)
        if table.name != d.target.name:
            user = frame[USER].to_numpy().astype(np.int32, copy=False)
            return self._in_order(frame, user, table)[0]
        frame = repeats_of(table).kept(frame, table.drop)
        frame = spill.followed(table, frame if self.core is None else self.core.kept(frame))
        own = self.words[USER].filter(pa.array(self.of_bucket == bucket))
        columns, by = self._in_order(frame, Encoder(own).of(frame[USER]), table)
        user, time = columns[USER], columns["time"]
        columns["row"] = frame["row"].to_numpy()[by]
        if table.label:
            columns["label"] = frame["label"].to_numpy()[by]
        if table.split:
            code = {name: k for k, name in enumerate(SPLITS)}
            named = frame["split"].replace_strict(code, default=NO_TARGET, return_dtype=pl.Int8)
            columns["split"] = named.to_numpy()[by]
        for key, lookup in d.by_key.items():
            if lookup.has_place:
                columns[place_of(key)] = self.looked_up[key].place_of_raw(frame[key])[by]
        if table.more:
            more.save(folder, bucket, table, frame.select(table.more)[by], self.encoders)
        for name, history in d.histories.items():
            if history.table != table.name:
                events = _behaviours(folder, bucket, d, name)
                windows = windows_before(events, user, time, history.delay, history.within)
                columns[_START + name] = windows.start.astype(np.int32)
                columns[_END + name] = windows.end.astype(np.int32)
        return columns


def _behaviours(folder: Path, bucket: int, d: Description, history: str) -> Behaviours:
    """A bucket's ordered events of another table that may stand in a history, with their fields."""
    one, table = d.histories[history], d.table(d.histories[history].table)
    columns = load_columns(bucket_path(folder / ordered(table), bucket))
    events = _with_own_fields(columns, table)
    return events.take(columns[in_history(history)].view(np.bool_)) if one.where else events


def _with_own_fields(columns: dict[str, npt.NDArray[Any]], table: Table) -> Behaviours:
    fields = {name: columns[name] for name in table.fields}
    return Behaviours.of(columns[USER], columns["time"], fields)


def load(
    folder: Path,
    bucket: int,
    d: Description,
    looked_up: Mapping[str, lookups.Encoded],
    rule: Split,
    final: Mapping[str, Int32s] | None = None,
) -> Bucket:
    """A bucket as `Order` left it.

    Args:
        looked_up: the lookups that are read by now, by key: what is looked up in others is not
            there.
        final: column -> the id that each of its ids in the files becomes in rows, where it is
            another one.
    """
    table = d.target
    files = {one.name: load_columns(bucket_path(folder / ordered(one), bucket)) for one in d.tables}
    columns = files[table.name]
    tables = {one.name: _with_own_fields(files[one.name], one) for one in d.tables}
    fresh = {
        name: of[_FRESH].view(np.bool_) if _FRESH in of else np.ones(len(of[USER]), np.bool_)
        for name, of in files.items()
    }
    events = _with_looked_up(tables[table.name], d, table, looked_up)
    place = {
        key: looked_up[key].held(columns[place_of(key)])
        if lookup.has_place
        else looked_up[key].place(columns[key], events.time)
        for key, lookup in d.by_key.items()
        if key in looked_up
    }
    behaviours, windows, drawn = {}, {}, {}
    source: dict[str, Int64s | None] = {}
    behaves = ~columns[ASKED].view(np.bool_) if ASKED in columns else None
    for name, history in d.histories.items():
        other, found = d.table(history.table), tables[history.table]
        kept = files[history.table][in_history(name)].view(np.bool_) if history.where else None
        if behaves is not None and other is table:
            kept = behaves if kept is None else kept & behaves
        source[name] = None if kept is None else np.flatnonzero(kept)
        own = found if kept is None else found.take(kept)
        behaviours[name] = _renamed(_with_looked_up(own, d, other, looked_up), other, final or {})
        if d.negatives is not None and d.negatives.field in own.fields:
            drawn[name] = own.fields[d.negatives.field]
    outside = None
    if OUTSIDE in table.masks and d.negatives is not None:
        others = load_columns(bucket_path(folder / ordered_outside(table), bucket))
        outside = others[USER], others[d.negatives.field]
    features = {name: columns[name] for name in table.features}
    may, new = columns.get(IS_TARGET), None
    may = np.ones(len(events.user), np.bool_) if may is None else may.view(np.bool_)
    may = may if behaves is None else may & ~behaves
    if d.only_new:
        new = _new(events, columns[table.ids[0]], behaves)
    split = rule.of(
        InOrder(
            events.offsets, events.time, may if new is None else may & new, columns.get("split")
        )
    )
    split = np.where(fresh[table.name], split, np.int8(NO_TARGET))
    may = may & fresh[table.name]
    targets = np.flatnonzero(split != NO_TARGET)
    for name, history in d.histories.items():
        if history.table != table.name:
            windows[name] = rows.Held(columns[_START + name], columns[_END + name])
        else:
            windows[name] = _windows(events, targets, history, source[name])
    short = 0
    if d.min_history:
        stored = np.zeros(len(targets), np.int64)
        for name, window in windows.items():
            lengths = window.take(targets).lengths
            stored += np.minimum(lengths, d.histories[name].max_len or MOST_BEHAVIOURS)
        left_out = targets[stored < d.min_history]
        split, short = split.copy(), len(left_out)
        split[left_out] = NO_TARGET
    return Bucket(
        Targets(
            events,
            columns["row"],
            features,
            columns.get("label"),
            place,
            windows,
            split,
            int(np.count_nonzero(may)),
            0 if new is None else int(np.count_nonzero(may & ~new)),
            short,
            len(targets),
        ),
        behaviours,
        tables,
        source,
        drawn,
        outside,
        columns.get("split"),
        fresh,
        behaves,
    )


def of_nobodies(
    folder: Path,
    bucket: int,
    d: Description,
    looked_up: Mapping[str, lookups.Encoded],
    final: Mapping[str, Int32s],
) -> dict[str, Behaviours]:
    """History -> what may stand in it of a bucket's users whom the targets' table lacks."""
    found = {}
    for name, history in d.histories.items():
        if history.table == d.target.name:
            continue
        table = d.table(history.table)
        columns = load_columns(bucket_path(folder / ordered_others(table), bucket))
        own = _with_own_fields(columns, table)
        if history.where:
            own = own.take(columns[in_history(name)].view(np.bool_))
        found[name] = _renamed(_with_looked_up(own, d, table, looked_up), table, final)
    return found


def _late(events: Behaviours, fresh: Bools, behaves: Bools | None) -> int:
    """How many fresh behaviours are older than an event of their user that was there before."""
    if fresh.all():
        return 0
    new = fresh if behaves is None else fresh & behaves
    user = events.place_of_user
    last = np.full(len(events.offsets) - 1, np.iinfo(np.int64).min)
    last[user[~fresh]] = events.time[~fresh]  # in order, so the last one stays
    return int(np.count_nonzero(events.time[new] < last[user[new]]))


def _windows(
    events: Behaviours, targets: Int64s, history: History, source: Int64s | None
) -> rows.Held:
    """(events,) the windows of targets that stand among their histories' events; else 0.

    Args:
        targets: which of them are targets, ascending.
        history: which of those before a target its window holds.
        source: (behaviours,) which events may stand in the histories; None for all.
    """
    start = events.offsets[np.searchsorted(events.offsets, targets, "right") - 1]
    end = targets
    if history.window == "before":
        later = np.diff(events.time, prepend=-1) != 0
        later[events.offsets[:-1]] = True
        first = np.flatnonzero(later)
        end = first[np.searchsorted(first, targets, "right") - 1]
    if history.within is not None or history.delay:
        user, time = events.user[targets], events.time[targets]
        by_time = windows_before(events, user, time, history.delay, history.within)
        end = np.minimum(end, by_time.end) if history.delay else end
        start = np.minimum(np.maximum(start, by_time.start), end)
    if source is not None:
        start, end = (np.searchsorted(source, at) for at in (start, end))
    found = rows.Held(*(np.zeros(len(events.user), np.int32) for _ in range(2)))
    found.start[targets], found.end[targets] = start, end
    return found


def seen_by_train(found: Bucket, rule: Split) -> dict[str, Bools]:
    """Table -> (events,) which of a bucket's events are seen by the end of train.

    Of other tables they are of users who have such an event of the targets' table: whether a later
    one has is not known by then.
    """
    (target, own), *others = found.tables.items()
    seen = {target: rule.by_train(found.targets.split, own.time, found.column)}
    users = np.unique(own.user[seen[target]])
    for name, events in others:
        none = np.full(len(events.user), NO_TARGET, np.int8)
        seen[name] = rule.by_train(none, events.time, None) & np.isin(events.user, users)
    return seen


def _renamed(events: Behaviours, table: Table, final: Mapping[str, Int32s]) -> Behaviours:
    """Events whose own fields have the ids that rows have."""
    own = {name: final[name][events.fields[name]] for name in table.fields if name in final}
    return events._replace(fields=events.fields | own) if own else events


def _new(events: Behaviours, ids: Int32s, behaves: Bools | None) -> Bools:
    """(events,) whether no earlier event of its user has the same id; what is unknown is new.

    Args:
        ids: (events,) of what they touch.
        behaves: (events,) which of them touch anything; None for all.
    """
    key = events.place_of_user * (int(ids.max(initial=0)) + np.int64(1)) + ids
    by = np.argsort(key, kind="stable")
    touches = np.ones(len(ids), np.bool_) if behaves is None else behaves
    before = np.append(0, np.cumsum(touches[by]))[:-1]
    firsts = np.flatnonzero(np.diff(key[by], prepend=-1))
    new = np.empty(len(ids), np.bool_)
    new[by] = before == np.repeat(before[firsts], np.diff(firsts, append=len(ids)))
    new |= ids == UNKNOWN_ID
    return new


def _with_looked_up(
    events: Behaviours, d: Description, table: Table, looked_up: Mapping[str, lookups.Encoded]
) -> Behaviours:
    """Ordered events with their fields, and with those that they have by a lookup of one."""
    fields = dict(events.fields)
    for key in table.fields:
        lookup = d.looked_up(key)
        if lookup is not None and key in looked_up:
            known = looked_up[key]
            others = [n for n in lookup.fields if n in known.ids and n not in fields]
            fields |= known.of(others, fields[key], events.time)
    return events._replace(fields=fields)


def numbered(d: Description) -> list[str]:
    """The keys of the lookups that have numbers."""
    return [key for key, lookup in d.by_key.items() if lookup.numbers]


def in_order(
    user: Int32s, time: Int64s, ties: list[npt.NDArray[Any]]
) -> tuple[Int64s, Int32s, Int64s]:
    """Sort events by user, time, and what orders those of one time.

    Args:
        user: (events,) ids.
        time: (events,) in whole units.
        ties: (events,) each; the first counts before the others.

    Returns:
        (events,) where each stood before; its user; its time.
    """
    if not len(user):
        return np.zeros(0, np.int64), user, time
    low = int(time.min())
    time_bits = int(time.max() - low).bit_length()
    row_bits = len(user).bit_length()
    if int(user.max()).bit_length() + time_bits + row_bits > 64:
        by = np.lexsort((*reversed(ties), time, user))
        return by, user[by], time[by]
    # One sort of plain numbers: user, time, and the row, which then tells where the rest is.
    key = user.astype(np.uint64) << np.uint64(time_bits)
    key |= (time - low).astype(np.uint64)
    key <<= np.uint64(row_bits)
    key |= np.arange(len(user), dtype=np.uint64)
    key = pl.Series(key).sort().to_numpy()  # three times as fast as NumPy's
    by = (key & np.uint64((1 << row_bits) - 1)).astype(np.int64)
    key = key >> np.uint64(row_bits)
    same = np.flatnonzero(key[1:] == key[:-1])
    if len(same):
        tied = np.zeros(len(key), np.bool_)
        tied[same] = tied[same + 1] = True
        at = np.flatnonzero(tied)
        among = by[at]
        by[at] = among[np.lexsort((*(tie[among] for tie in reversed(ties)), key[at]))]
    times = (key & np.uint64((1 << time_bits) - 1)).astype(np.int64) + low
    users = (key >> np.uint64(time_bits)).astype(np.int32)
    return by, users, times


def repeated(behaviours: Behaviours, order: str) -> Bools:
    """(behaviours,) which are as one before them in all that is stored; `order` is the table's."""
    columns: list[npt.NDArray[Any]] = [behaviours.user, behaviours.time]
    columns += behaviours.fields.values()
    by = None if order == "fields" else np.lexsort(columns[::-1])
    same = np.ones(len(behaviours.user), np.bool_)
    same[:1] = False
    for column in columns:
        values = column if by is None else column[by]
        same[1:] &= values[1:] == values[:-1]
    if by is None:
        return same
    found = np.zeros(len(same), np.bool_)
    found[by[same]] = True
    return found


def windows_before(
    behaviours: Behaviours, user: Int32s, time: Int64s, delay: int = 0, within: int | None = None
) -> rows.Windows:
    """The behaviours of each target's user strictly before it.

    Args:
        user: (targets,) ids, ascending.
        time: (targets,) in whole units, ascending within a user.
        delay: how long before the target they are at least.
        within: how long before it they are at most; None for any time.
    """
    times = behaviours.time
    until = time - max(delay - 1, 0)
    low, high = int(times.min(initial=0)), int(times.max(initial=0))
    span = high - low + 1
    few = span.bit_length() <= _TIME_BITS
    known = None if few else np.unique(times)  # how they follow each other is enough
    if known is not None:
        span = len(known)

    def since(at: Int64s) -> Int64s:
        """From 0, at or before all behaviours of a user, to `span`, after all of them."""
        return at.clip(low, low + span) - low if known is None else np.searchsorted(known, at)

    # Ascending over the whole bucket: a user's keys lie together.
    keys = behaviours.user * np.int64(span) + since(times)
    of_user = user * np.int64(span)
    start = np.searchsorted(keys, of_user if within is None else of_user + since(time - within))
    end = np.searchsorted(keys, of_user + since(until))
    return rows.Windows(start, end if within is None else np.maximum(start, end))
