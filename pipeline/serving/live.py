"""What users did, in memory: the events that a data set has kept, and those that came since.

The data set's lie in arrays of all users. A user with new events has arrays of their own, of a few
hundred behaviours, into which each event goes at its time, and among those of its time by the
table's order. They hold what a request can need, and no more:

- of each history the latest `max_len` behaviours before the newest time less `delay` and `late`,
  and all from there on; `late` is how much older than its user's newest event a request may be;
- where a history has sessions, the latest of those, too.

A request that may need more is refused.

What falls out is told, so that the durable store forgets it as well. An event that comes again
after that falls out again: ids need not be kept for longer than events. `within` narrows what is
read, and nothing else: one event of a wrong time far ahead would empty a history otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.description import in_history
from pipeline.description.language import Spec
from pipeline.presets.transformed import described_by
from pipeline.serving.arrivals import Arrived, own_of
from pipeline.serving.events import Pasts
from pipeline.serving.features import Past
from pipeline.serving.requests import USER, Words
from pipeline.steps import histories
from pipeline.steps.negatives import counter_hash
from schemas.arrays import Int64s
from schemas.errors import UsageError
from schemas.manifest import UNKNOWN_ID, Manifest

_SHORTEST = 3  # of sessions that count
_Number = TypeVar("_Number", np.int32, np.int64)


class Stored(NamedTuple):
    """An event with its place in the order of arrival.

    Attributes:
        sequence: from 1.
        row: as of its table's raw files, behind those that the data set was made of.
    """

    sequence: int
    row: int
    event: Arrived


@dataclass
class _Own:
    """A user's own behaviours of one history.

    Attributes:
        sequence: (events,) of each; 0 of the data set's.
        tie: (events,) what orders those of one time by hash; empty for another order.
        same: (events,) of the raw values that repeats have; 0 where they are not known, and empty
            where repeats are kept.
    """

    past: Past
    sequence: Int64s
    tie: Int64s
    same: Int64s


class LivePasts:
    """What users did that may stand in the histories of one name; as `Pasts`.

    Args:
        late: how much older than its user's newest event a request may be.
        tie: (behaviours,) what orders those of one time by hash; None for another order.

    Attributes:
        unknown: where repeats are dropped, user, time and raw values of what has no id.
    """

    def __init__(
        self, name: str, made: Manifest, spec: Spec, kept: Pasts, late: int, tie: Int64s | None
    ) -> None:
        self.name, self.rule, self.kept = name, made.histories[name], kept
        self.late, self.tie, self.seed = late, tie, spec.seed
        table = spec.tables[self.rule.table]
        self.drop, self.by_fields = table.duplicates == "drop", table.order == "fields"
        own = made.own.get(self.rule.table, self.rule.fields)
        self.ordering = [n for n in self.rule.fields if n in own]
        self.unknown: frozenset[tuple[Any, int, str]] = frozenset()
        self.own: dict[int, _Own] = {}

    def of(self, user: int) -> Past:
        """Those of one user, by id."""
        own = self.own.get(user)
        return self.kept.of(user) if own is None else own.past

    def add(self, user: int, stored: Stored) -> list[int]:
        """Put an event in its place; returns the sequences of those that fell out."""
        own = self.own.get(user) or self._begun(user)
        past, event = own.past, stored.event
        time, ids = event.time, dict(zip(self.rule.fields, event.ids[self.name], strict=True))
        low, at = (int(past.time.searchsorted(time, side)) for side in ("left", "right"))
        same = hash(event.own)
        if self.drop and (
            (event.user, time, event.own) in self.unknown
            or any(self._is(own, k, ids, same) for k in range(low, at))
        ):
            return [stored.sequence]
        if self.tie is not None:
            tie = int(counter_hash(self.seed, stored.row).astype(np.int64)[0])
            at = low + int(own.tie[low:at].searchsorted(tie, "right"))
            own.tie = _put(own.tie, at, tie)
        elif self.by_fields:
            key = [ids[n] for n in self.ordering]
            while at > low and [past.fields[n][at - 1] for n in self.ordering] > key:
                at -= 1
        fields = {n: _put(of, at, ids[n]) for n, of in past.fields.items()}
        own.past = Past(_put(past.time, at, time), fields)
        own.sequence = _put(own.sequence, at, stored.sequence)
        own.same = _put(own.same, at, same) if self.drop else own.same
        self.own[user] = own
        return self._trim(own)

    def _begun(self, user: int) -> _Own:
        """The arrays of a user who has none: what the data set has kept."""
        past = self.kept.of(user)
        none = np.zeros(len(past.time), np.int64)
        own = _Own(past, none, none[:0], none if self.drop else none[:0])
        if self.tie is not None and len(past.time):
            own.tie = self.tie[self.kept.offsets[user] : self.kept.offsets[user + 1]]
        return own

    def _is(self, own: _Own, at: int, ids: Mapping[str, int], same: int) -> bool:
        """Whether a behaviour has the values of an event; what has no id may be anything."""
        if own.same[at]:
            return bool(own.same[at] == same)
        found = {n: int(own.past.fields[n][at]) for n in self.ordering}
        return UNKNOWN_ID not in found.values() and found == {n: ids[n] for n in self.ordering}

    def _trim(self, own: _Own) -> list[int]:
        """Leave out what no request can need; returns the sequences of that."""
        past, rule = own.past, self.rule
        if len(past.time) <= rule.max_len:
            return []
        # Said of all that are long, whether or not something is left out: a restart knows no more.
        since = int(past.time[-1]) - self.late
        own.past = past = past._replace(since=since)
        cut = int(past.time.searchsorted(since - rule.delay, "left"))
        if cut <= rule.max_len:
            return []
        keep = np.arange(len(past.time)) >= cut - rule.max_len
        if rule.shape is not None:
            keep[:cut] |= self._of_sessions(past.time[:cut])
        gone = own.sequence[~keep]
        fields = {n: of[keep] for n, of in past.fields.items()}
        own.past = Past(past.time[keep], fields, since)
        own.sequence = own.sequence[keep]
        own.tie = own.tie[keep] if len(own.tie) else own.tie
        own.same = own.same[keep] if len(own.same) else own.same
        fell: list[int] = gone[gone > 0].tolist()
        return fell

    def _of_sessions(self, time: Int64s) -> npt.NDArray[np.bool_]:
        """(events,) which are of the latest sessions that count, or of the last one, still open."""
        assert self.rule.shape is not None
        whole = np.array([0, len(time)])
        breaks = histories.session_breaks(time, whole, self.rule.session_gap)
        counts = np.diff(breaks.first) >= _SHORTEST
        counts[-1] = True
        kept = np.flatnonzero(counts)[-self.rule.shape[0] - 1 :]
        return np.isin(breaks.session, kept)


def _put(values: npt.NDArray[_Number], at: int, value: int) -> npt.NDArray[_Number]:
    """An array with one value more."""
    one = np.array([value], values.dtype)
    return np.concatenate([values[:at], one, values[at:]])


class Live:
    """What users did, and do.

    Attributes:
        newcomers: the ids of users that the vocabulary has not.
        sequence: of the last event.

    Args:
        made: the manifest of a data set that keeps its events.
        newcomers: the ids of those that only the data set has.
        pasts: history -> what it has kept.
        late: how much older than its user's newest event a request may be, in its unit of time.

    Raises:
        UsageError: in which order its events of one time are cannot be told.
    """

    def __init__(
        self,
        made: Manifest,
        data: Path,
        users: Words,
        newcomers: Mapping[int | str, int],
        pasts: Mapping[str, Pasts],
        late: int = 1 << 60,
    ) -> None:
        self.made, self.users, self.newcomers = made, users, dict(newcomers)
        taken = max([*users.ids.values(), *newcomers.values()], default=0) + 1
        self.first = max(taken, made.vocabulary[USER], *(len(of.offsets) for of in pasts.values()))
        _, spec = described_by(data, made)
        self.pasts = {}
        for name, kept in pasts.items():
            by_hash = spec.tables[made.histories[name].table].order == "hash"
            tie = _hashes(data, made, name, spec.seed, self.known, kept) if by_hash else None
            self.pasts[name] = LivePasts(name, made, spec, kept, late, tie)
            if self.pasts[name].drop:
                fields = [*spec.tables[made.histories[name].table].fields]
                self.pasts[name].unknown = _unknown(data, made, name, fields)
        self.sequence = 0
        self.held: Counter[int] = Counter()  # sequence -> histories that it stands in

    def id(self, user: int | str) -> int:
        """The id of a user, one of their own where the vocabulary has none."""
        found = self.known(user)
        if found is None:
            found = self.newcomers[user] = self.first
            self.first += 1
        return found

    def known(self, user: int | str) -> int | None:
        """The id of a user who did something; None where nothing is known of them."""
        return self.users.ids.get(user) or self.newcomers.get(user)

    def add(self, stored: Stored) -> list[int]:
        """Put an event in its histories; returns the sequences of those that are in none now."""
        self.sequence = max(self.sequence, stored.sequence)
        self.held[stored.sequence] = len(stored.event.ids)
        user, gone = self.id(stored.event.user), []
        for name in stored.event.ids:
            for sequence in self.pasts[name].add(user, stored):
                self.held[sequence] -= 1
                if not self.held[sequence]:
                    del self.held[sequence]
                    gone.append(sequence)
        return gone

    def kept_too(self, events: Iterable[Stored]) -> list[int]:
        """Which of some events the data set has kept itself, by their sequences.

        They are those of the same user, time and fields, as often as it has them.
        """
        found, seen = [], Counter[Any]()
        for stored in events:
            event = stored.event
            user = self.known(event.user)
            if user is not None and all(self._has(name, user, event, seen) for name in event.ids):
                found.append(stored.sequence)
                seen.update((name, user, event.time, ids) for name, ids in event.ids.items())
        return found

    def _has(self, name: str, user: int, event: Arrived, seen: Counter[Any]) -> bool:
        past, ids = self.pasts[name].kept.of(user), event.ids[name]
        low, high = (past.time.searchsorted(event.time, side) for side in ("left", "right"))
        rows = zip(*(of[low:high].tolist() for of in past.fields.values()), strict=True)
        return sum(row == ids for row in rows) > seen[name, user, event.time, ids]


def _hashes(
    data: Path,
    made: Manifest,
    name: str,
    seed: int,
    known: Callable[[Any], int | None],
    kept: Pasts,
) -> Int64s:
    """(behaviours,) what orders those of one time: a hash of their rows."""
    rule, frame = made.histories[name], _events(data, made, name)
    if rule.where:
        frame = frame.filter(pl.col(in_history(name)))
    user = np.array([known(one) or 0 for one in frame[USER].to_list()], np.int64)
    time, row = frame["time"].to_numpy(), frame["row"].to_numpy()
    tie = counter_hash(seed, row).astype(np.int64)
    by = np.lexsort((row, tie, time, user))
    by = by[user[by] > 0]
    of = np.repeat(np.arange(len(kept.offsets) - 1), np.diff(kept.offsets))
    if not (np.array_equal(user[by], of) and np.array_equal(time[by], kept.all.time)):
        raise UsageError(
            "In which order events of one time stand cannot be told.",
            where=f"tables.{rule.table}",
            expected='order = "file", or no `duplicates = "drop"`',
            got='order = "hash", and events that are no behaviours',
            do="prepare the data set without",
        )
    return tie[by]


def _events(data: Path, made: Manifest, name: str) -> pl.DataFrame:
    """The kept events of a history's table, with their raw values."""
    table = made.histories[name].table
    files = [one.path for one in made.tables if one.path.startswith(f"events/{table}-")]
    return pl.concat([pl.read_parquet(data / file, glob=False) for file in files])


def _unknown(
    data: Path, made: Manifest, name: str, fields: Sequence[str]
) -> frozenset[tuple[Any, int, str]]:
    """User, time and raw values of the kept events of which a field has no id."""
    frame = _events(data, made, name)
    for field in fields:
        words = pl.Series(
            [*Words(data / f"vocabulary/{field}.parquet").ids], dtype=frame[field].dtype
        )
        frame = frame.with_columns(pl.col(field).is_in(words.implode()).alias(f"known {field}"))
    known = pl.all_horizontal(pl.col(f"known {field}").fill_null(value=False) for field in fields)
    rows = frame.filter(~known).select(USER, "time", *fields).iter_rows(named=True)
    return frozenset((row[USER], row["time"], own_of(row, fields)) for row in rows)
