"""Which split a target is of: by its order among its user's, by its time, or by its column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from schemas.arrays import Bools, Int64s
from schemas.errors import InputError
from schemas.manifest import NEW, SPLITS
from schemas.shards import UNITS

WITHOUT_VALID = ("train", "test")
NO_TARGET, TRAIN, VALID, TEST = range(-1, len(SPLITS))

Splits = npt.NDArray[np.int8]


class Events(NamedTuple):
    """What is known of the events of the targets' table before they are split.

    Attributes:
        name: what they are, in the plural.
        first: the time of the first one that may be a target.
        last: the time of the last one.
        most: how many of one user: those that may be targets, and one before them.
        of_column: how many there are of each of `SPLITS` by their column.
        unit: of times, a key of `schemas.shards.UNITS`.
    """

    name: str
    path: Path
    first: int
    last: int
    users: int
    most: int
    of_column: tuple[int, ...] = (0,) * len(SPLITS)
    unit: str = "s"


class InOrder(NamedTuple):
    """A bucket's events of the targets' table, as a rule sees them.

    Attributes:
        offsets: (users + 1,) where each user's events begin.
        time: (events,) ascending within a user.
        may: (events,) which may be targets; None for all.
        column: (events,) index into `SPLITS`, -1 for none, where events say it themselves.
    """

    offsets: Int64s
    time: Int64s
    may: Bools | None = None
    column: Splits | None = None


class Rule(Protocol):
    """A rule of the splits, which may depend on when the first and the last event were."""

    def fixed(self, events: Events) -> Split:
        """The rule once this is known of the events."""


class Split(Protocol):
    """Which split each event is of."""

    @property
    def names(self) -> tuple[str, ...]:
        """The splits that the rule makes."""

    def of(self, events: InOrder) -> Splits:
        """Split a bucket's events.

        Returns:
            (events,) index into `schemas.manifest.SPLITS`, -1 for what is no target.
        """

    def by_train(self, split: Splits, time: Int64s, column: Splits | None) -> Bools:
        """(events,) which are seen by the end of train: what may be known of while training.

        Args:
            split: (events,) as `of` returned them; of another table's events all are -1.
            time: (events,) of them.
            column: (events,) as `InOrder` has it; None for another table's, of no split.
        """

    def require_train(self, events: Events) -> None:
        """Refuse events that no train row can be made of.

        Raises:
            InputError: there is nothing to train on.
        """

    def told(self) -> dict[str, Any]:
        """The rule as the manifest has it: `by`, and what else there is to it."""


@dataclass(frozen=True)
class ByOrder:
    """Leave one out: a user's last target is test. The user's first event is no target.

    Attributes:
        valid: whether the one before the last is valid (TIN's released preprocessing) or train
            (DIN's).
        hint: what to do where users have one event too few.
    """

    valid: bool
    hint: str | None = None

    def fixed(self, events: Events) -> ByOrder:
        """As `Rule.fixed`: nothing has to be known."""
        return self

    def of(self, events: InOrder) -> Splits:
        """As `Split.of`."""
        offsets, lengths = events.offsets, np.diff(events.offsets)
        may = np.ones(offsets[-1], np.bool_) if events.may is None else events.may.copy()
        may[offsets[:-1][lengths > 0]] = False
        targets = np.append(0, np.cumsum(may))
        from_end = np.repeat(targets[offsets[1:]], lengths) - targets[:-1]
        split = np.where(may, np.int8(TRAIN), np.int8(NO_TARGET))
        split[may & (from_end == 1)] = TEST
        if self.valid:
            split[may & (from_end == 2)] = VALID
        return split

    def by_train(self, split: Splits, time: Int64s, column: Splits | None) -> Bools:
        """As `Split.by_train`: all but what is to be guessed."""
        return split <= TRAIN

    @property
    def names(self) -> tuple[str, ...]:
        """As `Split.names`."""
        return SPLITS if self.valid else WITHOUT_VALID

    @property
    def least(self) -> int:
        """Events that a user needs for a train row: the first is no target, each split has one."""
        return 4 if self.valid else 3

    def require_train(self, events: Events) -> None:
        """As `Split.require_train`: some user has events enough."""
        if events.most >= self.least:
            return
        rest = "the last is for test, the one before it for valid"
        short = self.valid and events.most == self.least - 1 and self.hint
        raise InputError(
            f"There is nothing to train on: no user has {events.name} enough.",
            where=events.path,
            expected=f"a user with {self.least} {events.name} or more: the first has nothing "
            f"before it, {rest if self.valid else 'the last is for test'}",
            got=f"{events.users:,} users with {events.most:,} at the most",
            do=short or f"give {events.name} of users who have more",
        )

    def told(self) -> dict[str, Any]:
        """As `Split.told`."""
        return {"by": "order", "valid": self.valid}


@dataclass(frozen=True)
class ByTime:
    """Valid begins at one time, test at another; where they are equal, there is no valid.

    Attributes:
        valid: unix time.
        test: unix time.
        timezone: of what is told.
        by: `time`, or `day` where they are the beginnings of the last two days.
        unit: of both times; it is the events', which `fixed` tells.
    """

    valid: int
    test: int
    timezone: str
    by: str = "time"
    unit: str = "s"

    def fixed(self, events: Events) -> ByTime:
        """As `Rule.fixed`: it is, but for the unit."""
        return replace(self, unit=events.unit)

    @property
    def names(self) -> tuple[str, ...]:
        """As `Split.names`."""
        return SPLITS if self.valid < self.test else WITHOUT_VALID

    def of(self, events: InOrder) -> Splits:
        """As `Split.of`."""
        time = events.time
        split = (time >= self.valid).astype(np.int8) + (time >= self.test).astype(np.int8)
        if events.may is not None:
            split[~events.may] = NO_TARGET
        return split

    def by_train(self, split: Splits, time: Int64s, column: Splits | None) -> Bools:
        """As `Split.by_train`: whatever is before valid."""
        return time < self.valid

    def require_train(self, events: Events) -> None:
        """As `Split.require_train`: some event is early enough."""
        first, last = events.first, events.last
        if first < self.valid:
            return
        zone, unit = ZoneInfo(self.timezone), self.unit
        days = [_day(time // UNITS[unit], zone) for time in (first, last)]
        span = (days[1] - days[0]).days + 1
        # A day for train and one for test, else most of the time for train.
        at = self.test if first < self.test <= last else first + (last - first) * 4 // 5 + 1
        if first == last:
            expected, do = "events of more than one time", "give a longer log"
        elif self.by == "day":
            expected = "three days or more: the last is for test, the one before for valid"
            do = f"give a longer log, or --split-at {at} (of prepare --split {at}), without valid"
        else:
            expected = f"a time after the first one's, {first}, up to which is train"
            do = f"give a time from {first + 1} to {last}, e.g. {at}"
        raise InputError(
            f"There is nothing to train on: none of the {events.name} is early enough.",
            where=events.path,
            expected=expected,
            got=f"{events.name} of {span} day{'s' * (span > 1)}, from "
            f"{moment(first, zone, unit)} to {moment(last, zone, unit)}, {self.timezone}",
            do=do,
        )

    def told(self) -> dict[str, Any]:
        """As `Split.told`; the data set has one unit of times."""
        return {name: value for name, value in asdict(self).items() if name != "unit"}


@dataclass(frozen=True)
class ByDay:
    """The last day is test, the one before it valid; days are those of `timezone`."""

    timezone: str

    def fixed(self, events: Events) -> ByTime:
        """As `Rule.fixed`."""
        a_second = UNITS[events.unit]
        valid, test = (
            day_start(events.last // a_second, before, self.timezone) * a_second
            for before in (1, 0)
        )
        return ByTime(valid, test, self.timezone, "day", events.unit)


@dataclass(frozen=True)
class ByColumn:
    """Events say themselves which split they are of; those that say none are no targets.

    Attributes:
        valid: whether any is of valid.
    """

    valid: bool = True

    def fixed(self, events: Events) -> ByColumn:
        """As `Rule.fixed`."""
        return ByColumn(events.of_column[VALID] > 0)

    @property
    def names(self) -> tuple[str, ...]:
        """As `Split.names`."""
        return SPLITS if self.valid else WITHOUT_VALID

    def of(self, events: InOrder) -> Splits:
        """As `Split.of`."""
        assert events.column is not None
        if events.may is None:
            return events.column
        return np.where(events.may, events.column, np.int8(NO_TARGET))

    def by_train(self, split: Splits, time: Int64s, column: Splits | None) -> Bools:
        """As `Split.by_train`: what says that it is of train, target or not."""
        return np.zeros(len(time), np.bool_) if column is None else column == TRAIN

    def require_train(self, events: Events) -> None:
        """As `Split.require_train`: some event that may be a target says so."""
        if events.of_column[TRAIN]:
            return
        found = zip(SPLITS, events.of_column, strict=True)
        raise InputError(
            f"There is nothing to train on: none of the {events.name} is of train.",
            where=events.path,
            expected="targets whose column of the split says train, valid or test",
            got=", ".join(f"{n:,} of {name}" for name, n in found),
            do="look at the column of the split, and at what a target is",
        )

    def told(self) -> dict[str, Any]:
        """As `Split.told`."""
        return {"by": "column", "valid": self.valid}


@dataclass(frozen=True)
class New:
    """Every event that may be a target is one, of the last split; where not all are new, see there.

    Attributes:
        fitted: the rule of the data set that new events follow, as its manifest has it.
        asked: whether targets were named, so that a user's first event may be one.
    """

    fitted: Mapping[str, Any]
    asked: bool = False

    def fixed(self, events: Events) -> New:
        """As `Rule.fixed`: nothing has to be known."""
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """As `Split.names`."""
        return (NEW,)

    def of(self, events: InOrder) -> Splits:
        """As `Split.of`; by order, a user's first event is no target, unless it was named one."""
        split = np.full(len(events.time), TEST, np.int8)
        if events.may is not None:
            split[~events.may] = NO_TARGET
        if self.fitted["by"] == "order" and not self.asked:
            split[events.offsets[:-1][np.diff(events.offsets) > 0]] = NO_TARGET
        return split

    def by_train(self, split: Splits, time: Int64s, column: Splits | None) -> Bools:
        """As `Split.by_train`: of train nothing is here."""
        return np.zeros(len(time), np.bool_)

    def require_train(self, events: Events) -> None:
        """As `Split.require_train`: none is wanted."""

    def told(self) -> dict[str, Any]:
        """As `Split.told`."""
        return dict(self.fitted)


def day_start(second: int, days_before: int, timezone: str) -> int:
    """The second at which the day begins that is so many days before the one of `second`."""
    zone = ZoneInfo(timezone)
    day = _day(second, zone) - timedelta(days=days_before)
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp())


def moment(time: int, zone: ZoneInfo, unit: str = "s") -> str:
    """A time, for people."""
    return f"{clock(time, zone, unit)} ({time})"


def clock(time: int, zone: ZoneInfo, unit: str = "s") -> str:
    """What a clock shows at a time, to the unit.

    Raises:
        ValueError: it is no time of any calendar.
        OverflowError: likewise.
        OSError: likewise.
    """
    second, rest = divmod(time, UNITS[unit])
    digits = len(str(UNITS[unit])) - 1
    fraction = f".{rest:0{digits}}" if digits else ""
    return f"{datetime.fromtimestamp(second, zone):%Y-%m-%d %H:%M:%S}{fraction}"


def _day(second: int, zone: ZoneInfo) -> date:
    return datetime.fromtimestamp(second, zone).date()
