"""A shard's rows as the checks need them: scalars by row, lists as flat values with offsets.

Both layouts become the same here, so no check but those of lengths and of padding knows them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.verify.contract import Contract, History
from pipeline.verify.findings import Findings
from schemas.arrays import Bools, Int64s
from schemas.shards import HISTORY_COLUMNS

Values = npt.NDArray[Any]
Place = Callable[[int], str]  # a row of a shard, for people
SHORTEST_SESSION = 3  # DSIN keeps sessions of more than two behaviours
_CELLS, _USUAL_LENGTH = 3 << 17, 512  # of lists in a block: what fits the cache; and in a row


@dataclass(frozen=True)
class Block:
    """Some rows of a shard, and where breaches are noted."""

    place: Place
    first: int  # number of the first row in its shard
    findings: Findings
    # (rows,) values, or of lists (cells,), without padding. A history has an `interval` besides:
    # time from each behaviour to its target.
    columns: dict[str, Values]
    offsets: dict[str, Int64s] = field(default_factory=dict)  # (rows + 1,) where a list begins

    def __len__(self) -> int:
        return len(self.columns["row"])

    def __getitem__(self, column: str) -> Values:
        return self.columns[column]

    def hold(self, what: str, column: str, good: Bools, expected: Any, got: Any = None) -> bool:
        """Note the places of a column, rows or cells, that are not `good`; as `Findings.each`."""
        offsets = self.offsets.get(column)

        def where(place: int) -> str:
            if offsets is None:
                return f"{self.place(self.first + place)}, {column}"
            row = int(np.searchsorted(offsets, place, side="right")) - 1
            return f"{self.place(self.first + row)}, {column}[{place - offsets[row]}]"

        values = self.columns[column] if got is None else got
        return self.findings.each(what, good, where, expected, values)


def read_blocks(
    file: pq.ParquetFile, path: str, contract: Contract, findings: Findings
) -> Iterator[Block]:
    """A shard's rows in blocks, each of whole targets; a block that cannot be cut is left out."""
    groups = [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)]
    ends, each, first = np.cumsum(groups), contract.each, 0

    def place(row: int) -> str:
        return f"{path}: row group {np.searchsorted(ends, row, side='right')}, row {row}"

    width = sum(rule.max_len + prod(rule.sessions or (0,)) for rule in contract.histories)
    width += sum(contract.made.lists.values())
    width = width if contract.made.layout == "padded" else min(width, _USUAL_LENGTH)
    # All batches but the last have so many rows, wherever row groups end.
    for batch in file.iter_batches(max(1, _CELLS // width // each) * each, use_threads=False):
        rows = len(batch) // each * each
        if over := len(batch) - rows:
            findings.add("target without all its rows", place(first + rows), f"{each} rows", over)
        block = Block(place, first, findings, {})
        if rows and _cut_rows(block, batch.slice(0, rows), contract):
            yield block
        del block  # before the next batch is read
        first += rows


def _cut_rows(block: Block, batch: pa.RecordBatch, contract: Contract) -> bool:
    """Add columns to a block; False where lists are of other lengths."""
    arrays = dict(zip(batch.schema.names, batch.columns, strict=True))
    # What is passed through is anything; of a target's rows it is the same.
    left_out = () if contract.negatives is not None else contract.made.keep
    for name, array in arrays.items():
        if not array.type.num_fields and name not in left_out:
            block.columns[name] = array.to_numpy(zero_copy_only=False)
    fine = [_cut_list(block, arrays, name, most) for name, most in contract.made.lists.items()]
    return all(fine) and all(_cut_history(block, arrays, rule) for rule in contract.histories)


def _cut_list(block: Block, arrays: dict[str, pa.Array], name: str, most: int) -> bool:
    """Add a multi-valued feature to a block; False where its lists are of other lengths."""
    column = f"{name}_length"
    stored = block[column].astype(np.int64)
    block.hold("list length", column, (stored >= 0) & (stored <= most), f"0 to {most}")
    return _cut(block, arrays, [name], np.clip(stored, 0, most), most)


def _cut_history(block: Block, arrays: dict[str, pa.Array], rule: History) -> bool:
    """Add a history's columns to a block; False where lists are of other lengths."""
    column, most = rule.column("length"), rule.max_len
    stored = block[column].astype(np.int64)
    good = (stored >= rule.least) & (stored <= most)
    block.hold("history_length", column, good, f"{rule.least} to {most}")
    lengths = np.clip(stored, 0, most)
    names = [rule.column(name) for name in (*rule.fields, *HISTORY_COLUMNS)]
    if not _cut(block, arrays, names, lengths, most):
        return False
    target, time = np.repeat(block["target_time"], lengths), block[rule.column("time")]
    block.columns[rule.column("interval")] = target - time
    if rule.sessions is not None:
        _cut_sessions(block, arrays, rule, *rule.sessions)
    return True


def _cut_sessions(
    block: Block, arrays: dict[str, pa.Array], rule: History, most: int, longest: int
) -> None:
    """Add the columns of sessions to a block, where their lengths are right."""
    name, least = rule.session_column("length"), min(SHORTEST_SESSION, longest)
    if pa.types.is_list(arrays[name].type):
        counts = np.diff(arrays[name].offsets.to_numpy())
    else:
        counts = np.count_nonzero(_padded(arrays[name]).reshape(-1, most), axis=1)
    what, there = "session length", np.arange(most) < counts[:, None]
    fine = block.hold(what, name, counts <= most, f"{most} at most", counts)
    fine &= _cut(block, arrays, [name], counts, most)
    good = (block[name] >= least) & (block[name] <= longest)
    if block.hold(what, name, good, f"{least} to {longest}") and fine:
        matrix = np.zeros(there.shape, np.int64)
        matrix[there] = block[name]
        _cut(block, arrays, [rule.session_column(one) for one in rule.fields], matrix, longest)


def _cut(
    block: Block, arrays: dict[str, pa.Array], names: list[str], runs: Int64s, width: int
) -> bool:
    """Add list columns to a block; False where their lists are of other lengths.

    A row's values are one run, or several: `runs`, (rows,) or (rows, runs), says how long each is.
    In the padded layout each takes `width` places.
    """
    lengths, real = runs.reshape(len(runs), -1).sum(axis=1), None
    offsets = np.append(0, np.cumsum(lengths, dtype=np.int64))
    for name in names:
        if pa.types.is_list(arrays[name].type):
            at = arrays[name].offsets.to_numpy()
            found = np.diff(at)
            if not block.hold("list length", name, found == lengths, lengths, found):
                return False
            values = arrays[name].values.to_numpy()[at[0] : at[-1]]
        elif offsets[-1] < len(values := _padded(arrays[name])):
            if real is None:
                real = (np.arange(width) < runs[..., None]).reshape(len(runs), -1)
                places = np.flatnonzero(real)
            every, values = values.reshape(real.shape), values[places]
            if np.count_nonzero(every) != np.count_nonzero(values):
                good = np.all(real | (every == 0), axis=1)
                block.hold("padding", name, good, "0 behind the values", every)
        block.columns[name], block.offsets[name] = values, offsets
    return True


def _padded(array: pa.Array) -> Values:
    """All values of lists of a fixed size; arrays' own `flatten` takes longer."""
    size = array.type.list_size
    values: Values = array.values.to_numpy()[array.offset * size :][: len(array) * size]
    return values
