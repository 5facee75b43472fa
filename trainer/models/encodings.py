"""Temporal encodings (paper 3.2.1): what is added to a behaviour and to the target for their time.

What is added to the target and what to the behaviours are looked up each for itself (`target`,
`history`, `vectors`): a user's history is encoded once for any number of targets.

Shape legend: B rows of a batch, L history (padded), N = B + B L (targets, then behaviours), or
B + L where all targets share one history, D width of an embedded behaviour or target.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import torch
from torch import Tensor, nn

from schemas.errors import ContractError
from schemas.shards import UNITS
from trainer.data.batches import HISTORY, LENGTH, Batch
from trainer.data.inputs import HistoryInputs, Inputs
from trainer.models.layers import Table

_DAY = 86_400


Factor = tuple[Tensor, Tensor, Tensor]
"""A matrix S x D, its rows for the targets, B, and those for the behaviours, B x L."""


class Encoding(nn.Module, ABC):
    """What is done to embedded targets and behaviours for their time.

    Attributes:
        columns: the shards' columns that it reads.
        encode_target: whether the target gets its time too; SASRec's and BERT4Rec's does not
            (Table 2).
    """

    columns: tuple[str, ...] = ()
    encode_target = True

    @abstractmethod
    def forward(self, e_ND: Tensor, batch: Batch) -> Tensor:
        """Encode B targets followed by their B x L behaviours, or L of one history of all."""

    def factors(self, batch: Batch) -> list[Factor] | None:
        """What is added, as a sum of rows of small matrices; None where it is no such sum."""
        return None


class NoTime(Encoding):
    """No temporal information."""

    def factors(self, batch: Batch) -> list[Factor] | None:
        """Nothing is added."""
        return []

    def forward(self, e_ND: Tensor, batch: Batch) -> Tensor:
        """Return targets and behaviours as they are."""
        return e_ND


class Places(Encoding):
    """Adds a learned vector for the time to each embedded target and behaviour."""

    @abstractmethod
    def target(self, batch: Batch) -> Tensor:
        """What the targets' vectors are looked up by, B; of several tables, each one's B.

        Where targets share one history, they share their time: B is 1 here and for behaviours, but
        `target_time` has one for each target.
        """

    @abstractmethod
    def history(self, batch: Batch) -> Tensor:
        """The same of the behaviours, B L."""

    @abstractmethod
    def vectors(self, index: Tensor) -> Tensor:
        """Look up the vectors of M targets or behaviours, M x D."""

    def places(self, batch: Batch, rows: int) -> Tensor:
        """All vectors of B `rows`, N x D, by one look-up, which costs half of two."""
        target = self.target(batch)
        # Targets that share a history share what they are looked up by.
        target = target.expand(*target.shape[:-1], rows)
        return self.vectors(torch.cat([target, self.history(batch)], dim=-1))

    def forward(self, e_ND: Tensor, batch: Batch) -> Tensor:
        """Encode B targets followed by their B x L behaviours."""
        rows = e_ND.shape[0] - batch[self.columns[0]].numel()
        place_ND = self.places(batch, rows)
        if not self.encode_target:
            place_ND = torch.cat([torch.zeros_like(place_ND[:rows]), place_ND[rows:]])
        return e_ND + place_ND


class OfTable(Places):
    """Vectors of one table."""

    table: Table

    def vectors(self, index: Tensor) -> Tensor:
        """Look them up."""
        found: Tensor = self.table(index)
        return found

    def factors(self, batch: Batch) -> list[Factor] | None:
        """The whole table."""
        target, history = self.target(batch), self.history(batch)
        every = torch.arange(self.table.num_embeddings, device=target.device)
        return [(self.vectors(every), target.long(), history.view(len(target), -1).long())]


class TargetAware(OfTable):
    """Target-aware temporal encoding: p_f(X_i) for behaviours, p_0 for the target.

    Row 0 of the table is the target's origin and is learned like the others: no `padding_idx`.

    Args:
        column: where the behaviours' indices are: positions for TTE-P, interval bins for TTE-T.
        size: indices, the origin included.
        width: D.
    """

    def __init__(self, column: str, size: int, width: int) -> None:
        super().__init__()
        self.columns = (column,)
        self.table = Table(size, width)

    def target(self, batch: Batch) -> Tensor:
        """The origin."""
        index = batch[self.columns[0]]
        return index.new_zeros(index.shape[0])

    def history(self, batch: Batch) -> Tensor:
        """The column."""
        return batch[self.columns[0]].flatten()


class Chronological(OfTable):
    """COE: the i-th behaviour of a history gets p_i, oldest first; the target comes after the last.

    Args:
        max_len: the longest history.
        width: D.
    """

    columns = (f"{HISTORY}position",)

    def __init__(self, max_len: int, width: int) -> None:
        super().__init__()
        # 0 is the padding's, as elsewhere; it is never seen.
        self.table = Table(max_len + 2, width)

    def target(self, batch: Batch) -> Tensor:
        """The place after the last behaviour's."""
        return batch[LENGTH] + 1

    def history(self, batch: Batch) -> Tensor:
        """With n behaviours, position p is the (n + 1 - p)-th of them."""
        place_BL = self.target(batch).unsqueeze(1) - batch[self.columns[0]]
        return place_BL.clamp_(0, len(self.table.weight) - 1).flatten()


class Timestamp(Places):
    """Timestamp encoding: the sum of a vector for the hour, one for the weekday, one for the month.

    The paper names the granularities, not how they are put together.

    Args:
        zone: time zone of the calendar.
        width: D.
        unit: of the shards' times, a key of `schemas.shards.UNITS`.

    Raises:
        ContractError: the time zone is not known here.
    """

    columns = (f"{HISTORY}time", "target_time")

    def __init__(self, zone: str, width: int, unit: str = "s") -> None:
        super().__init__()
        self.in_a_second = UNITS[unit]
        self.hour, self.weekday, self.month = Table(24, width), Table(7, width), Table(13, width)
        since, offset = _offsets(zone)
        self.register_buffer("since", torch.tensor(since), persistent=False)
        self.register_buffer("offset", torch.tensor(offset), persistent=False)

    def calendar(self, time: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Hour 0..23, weekday 0..6 from Monday, month 1..12 of unix seconds."""
        since, offset = self.get_buffer("since"), self.get_buffer("offset")
        local = time + offset[torch.bucketize(time, since, right=True)]
        day = local.div(_DAY, rounding_mode="floor")
        hour = (local - day * _DAY).div(3600, rounding_mode="floor")
        # Days since 1970-01-01, a Thursday. Months by years that begin in March, so that the leap
        # day comes last; 400 of them have 146,097 days.
        of_cycle = (day + 719_468).remainder(146_097)
        year = (
            of_cycle
            - of_cycle.div(1_460, rounding_mode="floor")
            + of_cycle.div(36_524, rounding_mode="floor")
            - of_cycle.div(146_096, rounding_mode="floor")
        ).div(365, rounding_mode="floor")
        of_year = of_cycle - (
            365 * year + year.div(4, rounding_mode="floor") - year.div(100, rounding_mode="floor")
        )
        month = (5 * of_year + 2).div(153, rounding_mode="floor")
        return hour, (day + 3).remainder(7), (month + 2).remainder(12) + 1

    def target(self, batch: Batch) -> Tensor:
        """The target's time."""
        return batch["target_time"]

    def history(self, batch: Batch) -> Tensor:
        """The behaviours' times."""
        return batch[f"{HISTORY}time"].flatten()

    def vectors(self, index: Tensor) -> Tensor:
        """Add up those of hour, weekday and month."""
        if self.in_a_second > 1:
            index = index.div(self.in_a_second, rounding_mode="floor")
        hour, weekday, month = self.calendar(index)
        found: Tensor = self.hour(hour) + self.weekday(weekday) + self.month(month)
        return found


class Both(Places):
    """Two encodings' sum: positions and intervals, as in the paper's production model (4.6)."""

    def __init__(self, one: Places, other: Places) -> None:
        super().__init__()
        self.one, self.other = one, other
        self.columns = (*one.columns, *other.columns)

    def target(self, batch: Batch) -> Tensor:
        """Each encoding's own, 2 x B."""
        return torch.stack([self.one.target(batch), self.other.target(batch)])

    def history(self, batch: Batch) -> Tensor:
        """Each encoding's own, 2 x B L."""
        return torch.stack([self.one.history(batch), self.other.history(batch)])

    def vectors(self, index: Tensor) -> Tensor:
        """Add up the encodings' vectors."""
        return self.one.vectors(index[0]) + self.other.vectors(index[1])

    def factors(self, batch: Batch) -> list[Factor] | None:
        """Both encodings'."""
        one, other = self.one.factors(batch), self.other.factors(batch)
        return None if one is None or other is None else one + other


def _offsets(name: str) -> tuple[list[int], list[int]]:
    """When the zone's UTC offset changed, 1990 to 2040, and the offset before and after each."""
    try:
        zone = ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ContractError(
            "The data set's time zone is not known here.",
            expected="a name of the IANA time zone database",
            got=repr(name),
            do="install the Python package tzdata",
        ) from error

    def at(time: int) -> int:
        moment = datetime.fromtimestamp(time, UTC)
        return int((zone.utcoffset(moment.astimezone(zone)) or timedelta()).total_seconds())

    since: list[int] = []
    week, begin, end = 7 * _DAY, 631_152_000, 2_208_988_800
    offset = [at(begin)]
    for lo in range(begin, end, week):
        low, high = lo, lo + week
        if at(high) == offset[-1]:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if at(middle) == offset[-1] else (low, middle)
        since.append(high)
        offset.append(at(high))
    return since, offset


def _position(inputs: Inputs, one: HistoryInputs, width: int) -> TargetAware:
    return TargetAware(f"{HISTORY}position", one.max_len + 1, width)


def _interval(inputs: Inputs, one: HistoryInputs, width: int) -> TargetAware:
    return TargetAware(f"{HISTORY}interval_bin", one.bins + 1, width)


ENCODINGS: dict[str, Callable[[Inputs, HistoryInputs, int], Encoding]] = {
    "tte-p": _position,
    "tte-t": _interval,
    "tte-pt": lambda inputs, one, w: Both(_position(inputs, one, w), _interval(inputs, one, w)),
    "coe": lambda inputs, one, w: Chronological(one.max_len, w),
    "timestamp": lambda inputs, one, w: Timestamp(inputs.timezone, w, inputs.time_unit),
    "none": lambda inputs, one, w: NoTime(),
}
