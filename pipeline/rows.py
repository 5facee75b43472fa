"""Targets and the windows of behaviours before them to rows of a shard.

It does not matter here where targets come from: each has a window `[start, end)` of its bucket's
ordered behaviours, which is all that its history may hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import histories, intervals
from pipeline.buckets import Behaviours
from pipeline.tally import Tally
from schemas.shards import numpy_type

Int64s = npt.NDArray[np.int64]

# Cells of one padded column made at a time: 8 MB of the widest, so a block of all is some 30 MB.
_BLOCK_CELLS = 1 << 20
_ROW_CELLS = 4


class Windows(NamedTuple):
    """What each target's history is cut from: behaviours `[start, end)`; both (targets,)."""

    start: Int64s
    end: Int64s

    def take(self, rows: Any) -> Windows:
        """The windows of some targets."""
        return Windows(self.start[rows], self.end[rows])


class Block(NamedTuple):
    """Some rows of a shard.

    Attributes:
        table: the rows.
        in_history: (2, 2) for the labels 0 and 1: rows whose target, all its fields, stands in
            their history as stored; all rows.
    """

    table: pa.Table
    in_history: Int64s


@dataclass(frozen=True)
class Stored:
    """How histories are stored.

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

    def blocks(self, windows: Windows, each: int = 1) -> Iterator[slice]:
        """Targets to make rows of at a time, by the cells of their histories.

        Args:
            windows: (targets,) what their histories are cut from.
            each: rows of a target.
        """
        if self.layout == "padded":
            cells = np.full(len(windows.end), self.max_len * each)
        else:
            cells = np.minimum(windows.end - windows.start, self.max_len) * each
        return _cut(cells)


def _cut(cells: Int64s) -> Iterator[slice]:
    """Cut (targets,) cells into runs of about `_BLOCK_CELLS` and no more than that many rows."""
    # A row costs a little even if its history is empty.
    number = np.cumsum(cells + _ROW_CELLS) // _BLOCK_CELLS
    bounds = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(cells)]
    return (slice(low, high) for low, high in pairwise(bounds) if high > low)


def count_intervals(
    behaviours: Behaviours, windows: Windows, target_time: Int64s, max_len: int, into: Tally
) -> None:
    """Count the intervals of histories as they will be stored.

    Args:
        behaviours: of the bucket.
        windows: (targets,) what their histories are cut from.
        target_time: (targets,) unix seconds.
        max_len: behaviours kept.
        into: what the counts are added to.
    """
    for block in _cut(np.minimum(windows.end - windows.start, max_len)):
        part = windows.take(block)
        found = histories.latest(part.start, part.end, max_len)
        into.add(target_time[block][found.target] - behaviours.time[found.source])


def table(
    behaviours: Behaviours,
    windows: Windows,
    scalars: dict[str, npt.NDArray[Any]],
    stored: Stored,
    breaks: histories.Breaks,
    schema: pa.Schema,
) -> Block:
    """Rows of a shard.

    Args:
        behaviours: of the bucket.
        windows: (rows,) what each row's history is cut from.
        scalars: (rows,) each of the schema's columns that are no lists, by name, with
            `target_time`; `history_length` is added.
        stored: how histories are stored.
        breaks: where sessions begin, from `histories.session_breaks`.
        schema: of the shard.
    """
    found = histories.latest(windows.start, windows.end, stored.max_len)
    time = behaviours.time[found.source]
    intervals_s = scalars["target_time"][found.target] - time
    fields = {name: ids[found.source] for name, ids in behaviours.fields.items()}
    flat: dict[str, npt.NDArray[Any]] = {
        **fields,
        "position": histories.positions(found),
        "interval_bin": intervals.bin_of(intervals_s, stored.edges),
        "time": time,
        "session": histories.sessions(found, breaks),
    }
    lengths = np.diff(found.offsets)
    arrays = {
        **{name: _array(values, schema.field(name).type) for name, values in scalars.items()},
        "history_length": _array(lengths, schema.field("history_length").type),
    }
    lists = _Lists(found.offsets, found.target, stored)
    for name, values in flat.items():
        column = f"history_{name}"
        arrays[column] = lists.of(values, schema.field(column).type)
    if stored.sessions is not None:
        arrays |= _sessions(behaviours, windows, breaks, stored, schema)
    made = pa.Table.from_arrays([arrays[name] for name in schema.names], schema=schema)
    return Block(made, _in_history(found, fields, scalars))


def _in_history(
    found: histories.Histories,
    fields: dict[str, npt.NDArray[Any]],
    scalars: dict[str, npt.NDArray[Any]],
) -> Int64s:
    """As `Block` has it; `fields` and `scalars` are the values of cells and of rows."""
    cells = np.zeros(0, np.int64)
    for n, (name, ids) in enumerate(fields.items()):
        target = scalars[f"target_{name}"]
        if n:
            cells = cells[ids[cells] == target[found.target[cells]]]
        else:  # of all cells: few are left for the other fields
            cells = np.flatnonzero(ids == np.repeat(target, np.diff(found.offsets)))
    label = scalars["label"].astype(np.int64)
    again = np.unique(found.target[cells])
    held = np.bincount(label[again], minlength=2), np.bincount(label, minlength=2)
    return np.stack(held, axis=1)


def _sessions(
    behaviours: Behaviours,
    windows: Windows,
    breaks: histories.Breaks,
    stored: Stored,
    schema: pa.Schema,
) -> dict[str, pa.Array]:
    """The columns of DSIN's sessions."""
    assert stored.sessions is not None
    most, length = stored.sessions
    rows, kept = histories.latest_sessions(windows.start, windows.end, breaks, most, length)
    lengths = np.diff(kept.offsets)
    _, row_of_session = histories.runs(np.diff(rows))
    kind = schema.field("session_length").type
    arrays = {"session_length": _Lists(rows, row_of_session, stored).of(lengths, kind)}
    if stored.layout == "padded":
        # Every session has its own cells in its row.
        session_cells = histories.cells(rows, row_of_session, most) * length
        within = np.arange(len(kept.target)) - kept.offsets[:-1][kept.target]
        lists = _Lists(kept.offsets, kept.target, stored, session_cells[kept.target] + within)
    else:
        # A row's sessions touch.
        lists = _Lists(kept.offsets[rows], row_of_session[kept.target], stored)
    for name, ids in behaviours.fields.items():
        kind = schema.field(f"session_{name}").type
        arrays[f"session_{name}"] = lists.of(ids[kept.source], kind, len(windows.end))
    return arrays


@dataclass
class _Lists:
    """Makes lists of flat values; what columns share is found once.

    Attributes:
        offsets: (rows + 1,) where each row's values begin.
        row: (values,) the row of each.
        stored: how lists are stored.
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
