"""Targets and the windows of behaviours before them to rows of a shard.

It does not matter here where targets come from: each has a window `[start, end)` of its bucket's
ordered behaviours, which is all that its history may hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.engines.buckets import Behaviours
from pipeline.engines.tally import Tally
from pipeline.steps import histories, intervals
from schemas.arrays import Bools, Int32s, Int64s
from schemas.manifest import UNKNOWN_ID
from schemas.shards import numpy_type, session_prefix

# Cells of one padded column made at a time: 4 MB of the widest, so a block of all is some 15 MB.
# Polars holds three blocks and what it makes of them, for each thread.
_BLOCK_CELLS = 1 << 19
_ROW_CELLS = 4


class Windows(NamedTuple):
    """What each target's history is cut from: behaviours `[start, end)`; both (targets,)."""

    start: Int64s
    end: Int64s

    def take(self, rows: Any) -> Windows:
        """The windows of some targets."""
        return Windows(self.start[rows], self.end[rows])

    def latest(self, most: int) -> Windows:
        """The windows of at most so many behaviours, the latest of each."""
        return Windows(np.maximum(self.start, self.end - most), self.end)

    @property
    def lengths(self) -> Int64s:
        """(targets,) how many behaviours each holds."""
        return self.end - self.start


def stored(windows: Windows, behaviours: Behaviours, max_len: int) -> Bools:
    """(behaviours,) which stand in a row, of which the latest `max_len` of its window are kept."""
    ends = len(behaviours.user) + 1
    # A behaviour is stored where more windows have begun than have ended.
    begun = np.bincount(windows.latest(max_len).start, minlength=ends)
    found: Bools = np.cumsum(begun - np.bincount(windows.end, minlength=ends))[:-1] > 0
    return found


class Held(NamedTuple):
    """The windows of every event of a bucket, few of which are targets; both (events,)."""

    start: Int32s
    end: Int32s

    def take(self, rows: Any) -> Windows:
        """The windows of some events."""
        return Windows(self.start[rows].astype(np.int64), self.end[rows].astype(np.int64))


class Block(NamedTuple):
    """Some rows of a shard.

    Attributes:
        in_history: (2, 2) for the labels 0 and 1: rows whose target, all its fields, stands in
            their history as stored; all rows.
        unknown: (fields, 2) rows of each label whose target has no id in a field.
    """

    table: pa.Table
    in_history: Int64s
    unknown: Int64s


@dataclass(frozen=True)
class Stored:
    """How the histories of one name are stored.

    Attributes:
        edges: (bins - 1,) interval-bin edges in seconds.
        max_len: behaviours kept.
        layout: `padded` or `ragged`.
        session_gap: seconds without a behaviour that end a session.
        sessions: DSIN's sessions and behaviours of each, None for no such columns.
    """

    edges: Int64s
    max_len: int
    layout: str
    session_gap: int
    sessions: tuple[int, int] | None = None

    def cells(self, windows: Windows) -> Int64s:
        """(targets,) the cells of a column of lists that each target takes."""
        if self.layout == "padded":
            return np.full(len(windows.end), self.max_len)
        return np.minimum(windows.lengths, self.max_len)


class History(NamedTuple):
    """Where the histories of one name are cut from, in a bucket, and how they are stored.

    Attributes:
        windows: (targets,) what each target's history is cut from.
        breaks: where sessions begin, from `histories.session_breaks`.
    """

    behaviours: Behaviours
    windows: Windows
    stored: Stored
    breaks: histories.Breaks

    def take(self, rows: Any) -> History:
        """Of some targets."""
        return self._replace(windows=self.windows.take(rows))


def blocks(of: Sequence[History], each: int = 1) -> Iterator[slice]:
    """Targets to make `each` rows of at a time, by the cells of their histories."""
    cells = np.sum([one.stored.cells(one.windows) for one in of], axis=0)
    return cut(cells * each)


def cut(cells: Int64s) -> Iterator[slice]:
    """Cut (targets,) cells into runs of as many targets each, of `_BLOCK_CELLS` at most.

    The last run may have fewer. A run of one target may have more cells.
    """
    # A row costs a little even if its history is empty.
    cells = cells + _ROW_CELLS
    step = len(cells)
    while step > 1:
        most = int(np.add.reduceat(cells, np.arange(0, len(cells), step)).max())
        if most <= _BLOCK_CELLS:
            break
        step = min(step - 1, max(1, step * _BLOCK_CELLS // most))
    return (slice(low, min(low + step, len(cells))) for low in range(0, len(cells), step or 1))


def count_intervals(
    behaviours: Behaviours,
    windows: Windows,
    target_time: Int64s,
    max_len: int,
    into: Tally,
    a_second: int = 1,
    within: Int64s | None = None,
) -> None:
    """Count the intervals of histories as they will be stored.

    Args:
        windows: (targets,) what their histories are cut from.
        target_time: (targets,) unix time.
        a_second: how many of the unit of times: intervals count by whole seconds, rounded down.
        within: the seconds of which intervals count, by the unit; None for all, by the second.
    """
    for block in cut(np.minimum(windows.lengths, max_len)):
        part = windows.take(block)
        found = histories.latest(part.start, part.end, max_len)
        gaps = target_time[block][found.target] - behaviours.time[found.source]
        seconds = gaps if a_second == 1 else gaps // a_second
        into.add(seconds if within is None else gaps[np.isin(seconds, within)])


def table(
    of: Mapping[str, History],
    scalars: dict[str, npt.NDArray[Any]],
    others: Mapping[str, pa.Array],
    schema: pa.Schema,
) -> Block:
    """Rows of a shard.

    Args:
        of: the histories of the rows, by name.
        scalars: (rows,) each of the schema's columns that are no lists, by name, with
            `target_time`; the lengths of histories are added.
        others: (rows,) each of its other columns that are of no history.
    """
    arrays = dict(others)
    arrays |= {name: _array(values, schema.field(name).type) for name, values in scalars.items()}
    targets = {
        n.removeprefix("target_"): ids
        for n, ids in scalars.items()
        if n.startswith("target_") and n != "target_time"
    }
    label = scalars["label"].astype(np.int64)
    again = np.zeros(len(label), np.bool_)
    for prefix, history in of.items():
        behaviours, stored = history.behaviours, history.stored
        found = histories.latest(history.windows.start, history.windows.end, stored.max_len)
        time = behaviours.time[found.source]
        intervals_s = scalars["target_time"][found.target] - time
        fields = {name: ids[found.source] for name, ids in behaviours.fields.items()}
        flat: dict[str, npt.NDArray[Any]] = {
            **fields,
            "position": histories.positions(found),
            "interval_bin": intervals.bin_of(intervals_s, stored.edges),
            "time": time,
            "session": histories.sessions(found, history.breaks),
        }
        column = f"{prefix}_length"
        arrays[column] = _array(np.diff(found.offsets), schema.field(column).type)
        lists = _Lists(found.offsets, found.target, stored)
        for name, values in flat.items():
            column = f"{prefix}_{name}"
            arrays[column] = lists.of(values, schema.field(column).type)
        if stored.sessions is not None:
            arrays |= _sessions(prefix, history, schema)
        if fields.keys() >= targets.keys():
            again |= _held(found, {name: fields[name] for name in targets}, targets)
    made = pa.Table.from_arrays([arrays[name] for name in schema.names], schema=schema)
    counts = np.bincount(label[again], minlength=2), np.bincount(label, minlength=2)
    unknown = [np.bincount(label[ids == UNKNOWN_ID], minlength=2) for ids in targets.values()]
    return Block(made, np.stack(counts, axis=1), np.stack(unknown))


def _held(
    found: histories.Histories,
    fields: dict[str, npt.NDArray[Any]],
    targets: dict[str, npt.NDArray[Any]],
) -> Bools:
    """(rows,) whether a behaviour has all of its target's fields: of cells, and of rows."""
    cells = np.zeros(0, np.int64)
    for n, (name, ids) in enumerate(fields.items()):
        target = targets[name]
        if n:
            cells = cells[ids[cells] == target[found.target[cells]]]
        else:  # of all cells: few are left for the other fields
            cells = np.flatnonzero(ids == np.repeat(target, np.diff(found.offsets)))
    held = np.zeros(len(found.offsets) - 1, np.bool_)
    held[found.target[cells]] = True
    first: Bools = next(iter(targets.values())) != UNKNOWN_ID
    return held & first  # two unknown items need not be one


def _sessions(prefix: str, history: History, schema: pa.Schema) -> dict[str, pa.Array]:
    windows, stored, breaks = history.windows, history.stored, history.breaks
    assert stored.sessions is not None
    before = session_prefix(prefix)
    most, length = stored.sessions
    rows, kept = histories.latest_sessions(windows.start, windows.end, breaks, most, length)
    lengths = np.diff(kept.offsets)
    _, row_of_session = histories.runs(np.diff(rows))
    kind = schema.field(f"{before}_length").type
    arrays = {f"{before}_length": _Lists(rows, row_of_session, stored).of(lengths, kind)}
    if stored.layout == "padded":
        # Every session has its own cells in its row.
        session_cells = histories.cells(rows, row_of_session, most) * length
        within = np.arange(len(kept.target)) - kept.offsets[:-1][kept.target]
        lists = _Lists(kept.offsets, kept.target, stored, session_cells[kept.target] + within)
    else:
        # A row's sessions touch.
        lists = _Lists(kept.offsets[rows], row_of_session[kept.target], stored)
    for name, ids in history.behaviours.fields.items():
        kind = schema.field(f"{before}_{name}").type
        arrays[f"{before}_{name}"] = lists.of(ids[kept.source], kind, len(windows.end))
    return arrays


@dataclass
class _Lists:
    """Makes lists of flat values; what columns share is found once.

    Attributes:
        offsets: (rows + 1,) where each row's values begin.
        row: (values,) the row of each.
        places: (values,) where each goes in the padded matrix, if not from the left.
    """

    offsets: Int64s
    row: Int64s
    stored: Stored
    places: Int64s | None = None

    def of(self, values: npt.NDArray[Any], kind: pa.DataType, rows: int | None = None) -> pa.Array:
        """The lists of `values`; `rows` if there are others than `offsets` says."""
        values = values.astype(numpy_type(kind.value_type), copy=False)
        if self.stored.layout == "ragged":
            offsets = pa.array(self.offsets.astype(np.int32))
            return pa.ListArray.from_arrays(offsets, pa.array(values), type=kind)
        if self.places is None:
            self.places = histories.cells(self.offsets, self.row, kind.list_size)
        count = len(self.offsets) - 1 if rows is None else rows
        padded = histories.pad(values, self.places, count, kind.list_size)
        return pa.FixedSizeListArray.from_arrays(pa.array(padded.ravel()), type=kind)


def _array(values: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    return pa.array(values.astype(numpy_type(kind), copy=False))
