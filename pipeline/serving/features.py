"""The histories of one request, as a row of the shards would hold them.

A request asks of one user, at one time. What `steps.rows` cuts for a whole bucket of targets is cut
here for one, in a few operations on small arrays; tests hold each column to that of the shards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.steps import histories
from schemas.arrays import Int32s, Int64s
from schemas.errors import InputError
from schemas.manifest import History
from schemas.shards import session_prefix

Columns = dict[str, npt.NDArray[Any]]


class Past(NamedTuple):
    """What one user did that may stand in the histories of one name, in the data set's order.

    Attributes:
        time: (events,) in the data set's unit, ascending.
        fields: what behaviours carry -> (events,) ids.
        since: from which time on a request needs none but these; None where they are all.
    """

    time: Int64s
    fields: Mapping[str, Int32s]
    since: int | None = None


class Users(Protocol):
    """What each user did that may stand in the histories of one name."""

    def of(self, user: int) -> Past:
        """That of one user, by id; nothing of one who is not known."""


@dataclass(frozen=True)
class Cut:
    """How the histories of one name are cut.

    Attributes:
        name: of the histories; their columns begin with it.
        edges: (bins - 1,) of the interval bins.
    """

    name: str
    rule: History
    edges: Int64s

    @classmethod
    def of(cls, name: str, rule: History) -> Cut:
        """By what a manifest says of a history."""
        return cls(name, rule, np.array(rule.bins.edges_s, np.int64))

    def window(self, past: Past, now: int, arrived: int | None = None) -> tuple[int, int]:
        """Which of the events count before a target: the first, and one after the last.

        A window by order ends at the target in the table's order. Of events and a request that came
        one after the other that is the time of arrival, so what is there counts, the request's own
        second included.

        Args:
            arrived: how many of the events stand before the target in the order of their table;
                None for all that are there.
        """
        rule, time = self.rule, past.time
        by_order = rule.window == "order"
        end = int(time.searchsorted(now, "right" if by_order else "left"))
        if by_order and arrived is not None:
            end = min(end, arrived)
        if rule.delay:
            end = min(end, int(time.searchsorted(now - rule.delay, "right")))
        start = 0 if rule.within is None else int(time.searchsorted(now - rule.within, "left"))
        return min(start, end), end

    def __call__(self, past: Past, now: int, arrived: int | None = None) -> Columns:
        """The columns of a row, without padding: of its only row, a list is an array.

        Args:
            arrived: as for `window`.
        """
        start, end = self.window(past, now, arrived)
        first = max(start, end - self.rule.max_len)
        if past.since is not None:
            self._require_whole(past, now, start, end, arrived)
        time, name = past.time[first:end], self.name
        # A new session begins after each long silence; 1 is that of the newest behaviour.
        session = np.ones(len(time), np.int16)
        silences = (time[1:] - time[:-1]) > self.rule.session_gap
        session[:-1] += silences[::-1].cumsum(dtype=np.int16)[::-1]
        columns: Columns = {f"{name}_length": np.array([len(time)], np.int16)}
        columns |= {f"{name}_{field}": ids[first:end] for field, ids in past.fields.items()}
        columns[f"{name}_position"] = np.arange(len(time), 0, -1, dtype=np.int16)
        # As `intervals.bin_of`, in the way that is faster for a few behaviours.
        columns[f"{name}_interval_bin"] = (self.edges.searchsorted(now - time) + 1).astype(np.uint8)
        columns[f"{name}_time"] = time
        columns[f"{name}_session"] = session
        if self.rule.shape is not None:
            columns |= self._sessions(past, start, end)
        return columns

    def _require_whole(
        self, past: Past, now: int, start: int, end: int, arrived: int | None
    ) -> None:
        """Refuse a request that may need behaviours which are not there any more."""
        assert past.since is not None
        some = start > 0 or (end >= self.rule.max_len and self.rule.shape is None)
        if arrived is not None or not (now >= past.since or some):
            raise InputError(
                "The request is older than the events that are held of its user.",
                where=f"history {self.name}",
                expected=f"a time from {past.since} on, without `arrived`",
                got=f"{now}" + ("" if arrived is None else f", arrived {arrived}"),
                do="ask as of now; `tinprep score` takes requests of any time",
            )

    def _sessions(self, past: Past, start: int, end: int) -> Columns:
        """DSIN's sessions: the latest first, each with its latest behaviours; not padded."""
        assert self.rule.shape is not None
        all_events = np.array([0, len(past.time)])
        breaks = histories.session_breaks(past.time, all_events, self.rule.session_gap)
        window = np.array([start]), np.array([end])
        _, kept = histories.latest_sessions(*window, breaks, *self.rule.shape)
        prefix = session_prefix(self.name)
        columns: Columns = {
            f"{prefix}_{field}": ids[kept.source] for field, ids in past.fields.items()
        }
        columns[f"{prefix}_length"] = np.diff(kept.offsets).astype(np.int16)
        return columns
