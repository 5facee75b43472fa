"""Shards cut into blocks of rows, of either layout: lengths and padding are checked here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.parquet_pages import read_batches
from pipeline.verify.blocks import Block, Bools, Int64s, Sessions, Values, joined, place
from pipeline.verify.contract import Contract
from pipeline.verify.findings import Findings

# Cells of a column at a time: few while they are read and their padding is cut off, so that they
# stay in the processor's cache, and many for the checks, each of which costs some time a block.
_READ_CELLS = 1 << 18
_BLOCK_CELLS = 1 << 21
_USUAL_LENGTH = 512


def blocks(
    file: pq.ParquetFile, where: Path, path: str, contract: Contract, findings: Findings
) -> Iterator[Block]:
    """The shard's rows in blocks, each of whole targets; a block that cannot be cut is left out.

    Args:
        file: the shard, opened.
        where: it lies.
        path: of it, as in the manifest.
        contract: what it is held to.
        findings: where breaches are noted.
    """
    most = contract.made.max_len
    width = most if contract.made.layout == "padded" else min(most, _USUAL_LENGTH)
    gathered: list[Block] = []
    for piece in _pieces(file, where, path, width, contract, findings):
        if piece is not None:
            gathered.append(piece)
        # Rows of a block follow each other: a piece that is left out ends it.
        full = sum(block.rows for block in gathered) * width >= _BLOCK_CELLS
        if gathered and (piece is None or full):
            yield joined(gathered)
            gathered = []
    if gathered:
        yield joined(gathered)


def _pieces(
    file: pq.ParquetFile,
    where: Path,
    path: str,
    width: int,
    contract: Contract,
    findings: Findings,
) -> Iterator[Block | None]:
    """The shard's rows in small blocks, None for one that cannot be cut."""
    groups = np.cumsum(
        [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)], dtype=np.int64
    )
    step = max(1, _READ_CELLS // width // contract.each) * contract.each
    first = 0
    waiting: pa.Table | None = None
    for batch in read_batches(file, where, step):
        table = pa.Table.from_batches([batch])
        if waiting is not None:
            table = pa.concat_tables([waiting, table])
        # Row groups need not hold whole targets: what is over waits for the next batch.
        ready = len(table) // contract.each * contract.each
        waiting = table.slice(ready) if ready < len(table) else None
        if ready:
            yield _cut(table.slice(0, ready), path, first, groups, contract, findings)
        first += ready
    if waiting is not None:
        findings.add(
            "target without all its rows",
            place(path, groups, first),
            f"a multiple of {contract.each} rows",
            f"{first + len(waiting)} rows",
        )


def _cut(
    table: pa.Table,
    path: str,
    first: int,
    groups: Int64s,
    contract: Contract,
    findings: Findings,
) -> Block | None:
    """The rows as one block; None where lists are of other lengths."""
    columns = {
        # Putting a single chunk together would copy it.
        name: column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
    scalars = {
        name: column.to_numpy(zero_copy_only=False)
        for name, column in columns.items()
        if not _is_list(column.type)
    }
    block = Block(
        path, first, groups, findings, scalars, np.zeros(len(table) + 1, np.int64), {}, None
    )
    made = contract.made
    stored = scalars["history_length"].astype(np.int64)
    least = 1 if contract.leave_one_out else 0
    good = (stored >= least) & (stored <= made.max_len)
    block.rows_are(good, "history_length", "history_length", f"{least} to {made.max_len}")
    lengths = np.clip(stored, 0, made.max_len)
    offsets = _offsets(lengths)
    history = {}
    cutter = _Cutter(block, lengths, made.max_len)
    for name, column in columns.items():
        if _is_list(column.type) and name.startswith("history_"):
            flat = cutter.flat(name, column)
            if flat is None:
                return None
            history[name.removeprefix("history_")] = flat
    sessions = None if contract.sessions is None else _sessions(block, columns, contract)
    return Block(path, first, groups, findings, scalars, offsets, history, sessions)


class _Cutter:
    """Cuts list columns of one block that share their lengths; what they share is found once."""

    def __init__(self, block: Block, lengths: Int64s, width: int) -> None:
        self.block, self.lengths, self.width = block, lengths, width
        self.full = bool((lengths == width).all())
        self.real: Bools | None = None
        self.places: Int64s | None = None

    def flat(self, name: str, column: pa.Array) -> Values | None:
        """The cells without padding; None where lists are of other lengths."""
        if pa.types.is_list(column.type):
            return _ragged(self.block, name, column, self.lengths)
        matrix = _cells(column).reshape(-1, self.width)
        if self.full:
            return matrix.ravel()
        if self.real is None or self.places is None:
            self.real = np.arange(self.width) < self.lengths[:, None]
            self.places = np.flatnonzero(self.real)
        flat: Values = matrix.ravel()[self.places]
        if np.count_nonzero(matrix) != np.count_nonzero(flat):
            bad = (matrix != 0) & ~self.real
            self.block.rows_are(
                ~bad.any(axis=1),
                "padding",
                name,
                lambda row: f"0 from place {self.lengths[row]} on",
                lambda row: f"{matrix[row][bad[row]][0]} at place {np.flatnonzero(bad[row])[0]}",
            )
        return flat


def _ragged(block: Block, name: str, column: pa.Array, lengths: Int64s) -> Values | None:
    offsets = column.offsets.to_numpy().astype(np.int64)
    found = np.diff(offsets)
    if not np.array_equal(found, lengths):
        block.rows_are(
            found == lengths,
            "list length",
            name,
            lambda row: f"{lengths[row]} values",
            lambda row: f"{found[row]}",
        )
        return None
    return _cells(column)


def _sessions(block: Block, columns: dict[str, pa.Array], contract: Contract) -> Sessions | None:
    """The session columns, flat; None where their lengths are wrong."""
    assert contract.sessions is not None
    most, longest = contract.sessions
    column = columns["session_length"]
    padded = not pa.types.is_list(column.type)
    if padded:
        matrix = _cells(column).reshape(-1, most).astype(np.int64)
        counts = np.count_nonzero(matrix, axis=1)
    else:
        offsets = column.offsets.to_numpy()
        counts = np.diff(offsets)
        matrix = np.zeros((len(counts), most), np.int64)
        if counts.max(initial=0) <= most:
            matrix[np.arange(most) < counts[:, None]] = _cells(column)
    # At least 3: DSIN keeps sessions of more than two behaviours.
    good = (matrix >= min(3, longest)) & (matrix <= longest)
    there = np.arange(most) < counts[:, None]
    fine = (counts <= most) & np.where(there, good, matrix == 0).all(axis=1)
    block.rows_are(
        fine,
        "session length",
        "session_length",
        f"at most {most} sessions of 3 to {longest} behaviours, then 0",
        lambda row: matrix[row].tolist() if counts[row] <= most else f"{counts[row]} sessions",
    )
    if not fine.all():
        return None
    lengths = matrix[there]
    ids: dict[str, Values] = {}
    names = [f"session_{name}" for name in contract.made.fields]
    if padded:
        real = (np.arange(longest) < matrix[:, :, None]).reshape(len(matrix), -1)
        places = np.flatnonzero(real)
    for name in names:
        flat: Values | None
        if padded:
            cells = _cells(columns[name])
            flat = cells[places]
            if np.count_nonzero(cells) != np.count_nonzero(flat):
                bad = (cells.reshape(real.shape) != 0) & ~real
                block.rows_are(
                    ~bad.any(axis=1), "session padding", name, "0", lambda row: "something else"
                )
        else:
            flat = _ragged(block, name, columns[name], matrix.sum(axis=1))
            if flat is None:
                return None
        ids[name.removeprefix("session_")] = flat
    return Sessions(_offsets(counts), _offsets(lengths), ids)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind))


def _cells(column: pa.Array) -> Values:
    """A list column's values, one after the other."""
    if pa.types.is_list(column.type):
        low, high = column.offsets[0].as_py(), column.offsets[-1].as_py()
    else:
        low = column.offset * column.type.list_size
        high = low + len(column) * column.type.list_size
    values: Values = column.values.slice(low, high - low).to_numpy(zero_copy_only=True)
    return values


def _offsets(lengths: npt.NDArray[np.integer[Any]]) -> Int64s:
    """(runs + 1,) where runs of these lengths begin."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
