"""Rows of a shard as the checks need them: scalars by row, histories as flat cells with offsets.

Both layouts become the same here, so no check but those of padding and of lengths knows them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.verify.findings import Findings

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Values = npt.NDArray[Any]


class Sessions(NamedTuple):
    """The session columns of some rows, flat, the latest session of a row first.

    Attributes:
        rows: (rows + 1,) where each row's sessions begin.
        cells: (sessions + 1,) where each session's behaviours begin.
        ids: field -> (cells,) ids.
    """

    rows: Int64s
    cells: Int64s
    ids: dict[str, Values]


@dataclass(frozen=True)
class Block:
    """Some rows of a shard.

    Attributes:
        path: of the shard, as in the manifest.
        first: the first row's number in its shard.
        groups: (row groups,) one after the last row of each row group.
        findings: where breaches are noted.
        scalars: column -> (rows,).
        offsets: (rows + 1,) where each row's history begins.
        history: column without `history_` -> (cells,).
        sessions: the session columns; None without any, or where their lengths are wrong.
    """

    path: str
    first: int
    groups: Int64s
    findings: Findings
    scalars: dict[str, Values]
    offsets: Int64s
    history: dict[str, Values]
    sessions: Sessions | None

    @property
    def rows(self) -> int:
        """How many rows."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Int64s:
        """(rows,) behaviours of each row."""
        return np.diff(self.offsets)

    def rows_are(
        self,
        good: Bools,
        what: str,
        column: str,
        expected: str | Callable[[int], object],
        got: Callable[[int], object] | None = None,
    ) -> None:
        """Note the rows that are not as they should be.

        Args:
            good: (rows,) which are.
            what: the kind of breach.
            column: where in a row.
            expected: what should be there, or a function of the row in the block.
            got: a function of the row in the block; the column's value if left out.
        """
        if good.all():
            return
        bad = np.flatnonzero(~good)
        for n, row in enumerate(bad[: self.findings.limit].tolist()):
            self.findings.add(
                what,
                f"{self.where(row)}, {column}",
                expected if isinstance(expected, str) else expected(row),
                self.scalars[column][row] if got is None else got(row),
                1 if n else len(bad) - len(bad[: self.findings.limit]) + 1,
            )

    def cells_are(
        self, good: Bools, what: str, name: str, expected: str | Callable[[int], object]
    ) -> None:
        """Note the behaviours that are not as they should be.

        Args:
            good: (cells,) which are.
            what: the kind of breach.
            name: the column without `history_`.
            expected: what should be there, or a function of the cell in the block.
        """
        if good.all():
            return
        bad = np.flatnonzero(~good)
        for n, cell in enumerate(bad[: self.findings.limit].tolist()):
            row = int(np.searchsorted(self.offsets, cell, side="right")) - 1
            self.findings.add(
                what,
                f"{self.where(row)}, history_{name}[{cell - self.offsets[row]}]",
                expected if isinstance(expected, str) else expected(cell),
                self.history[name][cell],
                1 if n else len(bad) - len(bad[: self.findings.limit]) + 1,
            )

    def where(self, row: int) -> str:
        """A row of the block, for people."""
        return place(self.path, self.groups, self.first + row)


def place(path: str, groups: Int64s, row: int) -> str:
    """A row of a shard, for people."""
    return f"{path}: row group {int(np.searchsorted(groups, row, side='right'))}, row {row}"


def joined(blocks: Sequence[Block]) -> Block:
    """Blocks of rows that follow each other, as one."""
    first = blocks[0]
    if len(blocks) == 1:
        return first
    return Block(
        first.path,
        first.first,
        first.groups,
        first.findings,
        _columns([block.scalars for block in blocks]),
        _after_each_other([block.offsets for block in blocks]),
        _columns([block.history for block in blocks]),
        _sessions([block.sessions for block in blocks]),
    )


def _columns(parts: Sequence[dict[str, Values]]) -> dict[str, Values]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _after_each_other(parts: Sequence[Int64s]) -> Int64s:
    """Where runs begin, of parts that each count from 0."""
    ends = np.cumsum([0, *(part[-1] for part in parts)], dtype=np.int64)
    moved = [part[:-1] + end for part, end in zip(parts, ends, strict=False)]
    return np.concatenate([*moved, ends[-1:]])


def _sessions(parts: Sequence[Sessions | None]) -> Sessions | None:
    """None where a part has none: with one of the wrong lengths, none is held against its rows."""
    there = [part for part in parts if part is not None]
    if len(there) < len(parts):
        return None
    rows = _after_each_other([part.rows for part in there])
    cells = _after_each_other([part.cells for part in there])
    return Sessions(rows, cells, _columns([part.ids for part in there]))
