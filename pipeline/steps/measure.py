"""Measure: what the rows of train show, so that the rest can be fitted to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.description import USER, Description
from pipeline.description.split import NO_TARGET, TRAIN, Split
from pipeline.engines.tally import Tally
from pipeline.steps import columns, rows
from pipeline.steps.columns import Columns
from pipeline.steps.drawing import Drawing
from pipeline.steps.lookups import Encoded
from pipeline.steps.numbers import Moments, moments
from pipeline.steps.order import Bucket, Found, Order, load, numbered, seen_by_train
from pipeline.steps.spread import Held, of_bucket
from schemas.arrays import Int32s, Int64s
from schemas.bounds import MOST_BEHAVIOURS
from schemas.manifest import SPLITS
from schemas.shards import UNITS


class Shown(NamedTuple):
    """What a bucket's targets show.

    Attributes:
        targets: how many there are of each of `SPLITS`, those for which nothing is left to draw
            left out.
        longest: history -> behaviours of the longest one.
        some: history -> how many targets have a behaviour in it.
        may: how many events are what a target is.
        touched: how many of them are none, as their user had touched the same before.
        short: how many of the others are none, as too few behaviours are before them.
        long: how many there are with those.
        moments: the targets' own column of numbers -> what train holds of it.
        lacking: key of a timed lookup -> targets that have no line of it before them.
        last: the time of train's last target; 0 where there is none.
    """

    targets: list[int]
    longest: dict[str, int]
    some: dict[str, int]
    may: int
    touched: int
    short: int
    long: int
    moments: dict[str, Moments]
    lacking: dict[str, int]
    last: int

    @staticmethod
    def merged(of: Sequence[Shown]) -> Shown:
        """What the targets of all buckets show."""
        return Shown(
            np.sum([one.targets for one in of], axis=0).tolist(),
            {name: max(one.longest[name] for one in of) for name in of[0].longest},
            {name: sum(one.some[name] for one in of) for name in of[0].some},
            sum(one.may for one in of),
            sum(one.touched for one in of),
            sum(one.short for one in of),
            sum(one.long for one in of),
            {n: sum((one.moments[n] for one in of), Moments()) for n in of[0].moments},
            {key: sum(one.lacking[key] for one in of) for key in of[0].lacking},
            max(one.last for one in of),
        )


@dataclass(frozen=True)
class Measure:
    """Counts the intervals of train, what train looks up, and which values its rows hold.

    Attributes:
        looked_up: the lookups that are read by now, by key.
        drawing: of the negatives; None for none.
    """

    d: Description
    split: Split
    looked_up: Mapping[str, Held]
    drawing: Drawing | None

    def _held(
        self, found: Bucket, own: Columns, name: str, train: Int64s
    ) -> Iterator[tuple[Int32s, Int64s]]:
        """The ids in a column of those events that some row of train holds, or may as a negative.

        They come with the events' times, but for those of lists.
        """
        d, targets = self.d, found.targets
        if name == USER:
            yield targets.events.user[train], targets.events.time[train]
        if name in targets.features:
            yield targets.features[name][train], targets.events.time[train]
        if name in own.lists:
            some = own.lists[name].take(train)
            yield some.ids[some.real], train
        drawn = d.negatives is not None and d.negatives.field == name
        seen = seen_by_train(found, self.split) if drawn else {}
        for table, events in found.tables.items():
            if name not in events.fields:
                continue
            held = seen.get(table, np.zeros(len(events.user), np.bool_))
            if table == d.target.name:
                held[train] = True
            for history in [one for one, of in d.histories.items() if of.table == table]:
                source, stored = found.source[history], self._stored(found, history, train)
                held[stored if source is None else source[stored]] = True
            yield events.fields[name][held], events.time[held]

    def _stored(self, found: Bucket, history: str, train: Int64s) -> Int64s:
        """Which of a history's behaviours are stored in a row of train."""
        windows = found.targets.windows[history].take(train)
        most = self.d.histories[history].max_len or MOST_BEHAVIOURS
        return np.flatnonzero(rows.stored(windows, found.behaviours[history], most))

    @staticmethod
    def tallies(d: Description) -> dict[str, dict[str, Tally]]:
        """What is counted.

        Returns:
            `gaps`: history -> intervals; `places`: key of a lookup that has numbers -> places;
            `held`: column -> ids of events that a row of train holds, where that matters;
            `lines`: key of a timed lookup -> the places where such events look it up.
        """
        every = (USER, *d.columns, *d.target.lists)
        held = every if d.vocabulary_from == "train" else ()
        return {
            "gaps": {name: Tally() for name in d.histories},
            "places": {key: Tally() for key in numbered(d)},
            "held": {name: Tally() for name in held},
            "lines": {one.key: Tally() for one in d.lookups if one.timed and held},
        }

    def __call__(self, folder: Path, bucket: int, *tallies: Tally) -> Shown:
        """What is shown; the tallies are those of `tallies`, one after the other."""
        looked_up = of_bucket(self.looked_up, folder, bucket)
        found = load(folder, bucket, self.d, looked_up, self.split)
        own = columns.load(folder, bucket, self.d.target)
        return self.measured(looked_up, found, own, *tallies)

    def _gaps(
        self, found: Bucket, name: str, train: Int64s, tally: Tally, within: Int64s | None
    ) -> None:
        """Count the intervals of a history in rows of train; see `rows.count_intervals`."""
        targets, history = found.targets, self.d.histories[name]
        rows.count_intervals(
            found.behaviours[name],
            targets.windows[name].take(train),
            targets.events.time[train],
            history.max_len or MOST_BEHAVIOURS,
            tally,
            UNITS[self.d.unit],
            within,
        )

    def within(
        self, seconds: Mapping[str, Int64s], folder: Path, bucket: int, *tallies: Tally
    ) -> None:
        """Count the intervals of some seconds of each history by the unit of times."""
        found = load(folder, bucket, self.d, {}, self.split)
        train = np.flatnonzero(found.targets.split == TRAIN)
        if self.drawing is not None:
            train = train[self.drawing.some_left(found, train)]
        for name, tally in zip(self.d.histories, tallies, strict=True):
            self._gaps(found, name, train, tally, seconds[name])

    def measured(
        self, looked_up: Mapping[str, Encoded], found: Bucket, own: Columns, *tallies: Tally
    ) -> Shown:
        """As `__call__`, of a bucket that is loaded, and the lookups as it has them."""
        d, targets = self.d, found.targets
        into = iter(tallies)
        at = np.flatnonzero(targets.split != NO_TARGET)
        longest = {
            name: int(targets.windows[name].take(at).lengths.max(initial=0)) for name in d.histories
        }
        if self.drawing is not None:
            at = at[self.drawing.some_left(found, at)]
        split = targets.split[at]
        train = at[split == TRAIN]
        for name, tally in zip(d.histories, into, strict=False):
            self._gaps(found, name, train, tally, None)
        for key, tally in zip(numbered(d), into, strict=False):
            tally.add(looked_up[key].whole(targets.place[key][train]))
        kinds = self.tallies(d)
        held = dict(zip(kinds["held"], into, strict=False))
        lines = dict(zip(kinds["lines"], into, strict=True))
        for name, tally in held.items():
            for ids, time in self._held(found, own, name, train):
                tally.add(ids)
                if name in lines:
                    one = looked_up[name]
                    lines[name].add(one.whole(one.place(ids, time)))
        return Shown(
            np.bincount(split, minlength=len(SPLITS)).tolist(),
            longest,
            {
                name: int(np.count_nonzero(targets.windows[name].take(at).lengths))
                for name in d.histories
            },
            targets.may,
            targets.touched,
            targets.short,
            targets.long,
            {name: moments(of[train], d.numbers[name]) for name, of in own.numbers.items()},
            {
                key: int(np.count_nonzero(targets.place[key][at] == looked_up[key].places - 1))
                for key, one in d.by_key.items()
                if one.timed
            },
            int(targets.events.time[train].max(initial=0)),
        )


@dataclass(frozen=True)
class OrderAndMeasure:
    """Both at once, where nothing that is measured has to be known of all buckets first."""

    order: Order
    measure: Measure

    def __call__(self, folder: Path, bucket: int, *tallies: Tally) -> tuple[Found, Shown]:
        """What each finds."""
        found, loaded = self.order.ordered(folder, bucket)
        own = columns.load(folder, bucket, self.measure.d.target)
        looked_up = of_bucket(self.measure.looked_up, folder, bucket)
        return found, self.measure.measured(looked_up, loaded, own, *tallies)
