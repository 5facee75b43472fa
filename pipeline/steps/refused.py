"""Refused lines of the raw files, on disk: memory does not grow with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from pipeline.engines.buckets import Spill
from pipeline.readers import json_text, meta_lines, review_lines, values
from pipeline.readers.values import CURES
from pipeline.steps.sql import arrow
from schemas.errors import ByDescription, InputError

_DO = "mend the file, or allow more with --max-rejected"
_CURES = {
    values.NOT_UTF8: ByDescription(
        'say how CSV is written, csv = { encoding = "latin-1" }; or write it as UTF-8, as `iconv` '
        "does"
    ),
    **dict.fromkeys(
        (json_text.NOT_OBJECT, meta_lines.NOT_DICT),
        "write an array's objects a line each, as `jq -c '.[]'` does",
    ),
    **dict.fromkeys(
        (review_lines.NO_USER, meta_lines.NO_ASIN),
        f"{_DO}; files of 2023 are for `tinprep prepare amazon-2023`",
    ),
}
# Lines that are held before they go to disk.
_HELD = 50_000
_SCHEMA = pa.schema(
    [
        ("file", pa.large_string()),
        ("line", pa.int64()),
        ("reason", pa.large_string()),
        ("text", pa.large_string()),
    ]
)


def kind(table: str) -> str:
    """What the files with the refused lines of a table are called among a bucket's files."""
    return f"refused-{table}"


@dataclass
class Summary:
    """What is known of the refused lines of a raw file without reading them again.

    Attributes:
        reasons: how many there are of each reason.
        first: of the first one its line (1-based), reason and beginning; None where none is.
        file: the number in the table of the file where that is.
    """

    reasons: dict[str, int] = field(default_factory=dict)
    first: tuple[int, str, str] | None = None
    file: int = 0

    @property
    def count(self) -> int:
        """How many lines are refused."""
        return sum(self.reasons.values())

    def add(self, lines: pl.DataFrame, file: int = 0) -> None:
        """Take in some lines of a file, with the columns of `REJECTED`."""
        if not lines.height:
            return
        first = lines.bottom_k(1, by="line").select("line", "reason", "text").row(0)
        self.merge(Summary(dict(lines.group_by("reason").len().rows()), first, file))

    def merge(self, other: Summary) -> None:
        """Take in what is known of other lines of the table."""
        for reason, count in other.reasons.items():
            self.reasons[reason] = self.reasons.get(reason, 0) + count
        firsts = [(one.file, one.first) for one in (self, other) if one.first is not None]
        self.file, self.first = min(firsts, default=(0, None))

    def check(self, paths: Sequence[Path], lines: int, limit: float) -> None:
        """Hold raw files of so many lines to the share of them that may be refused.

        Raises:
            InputError: it has more.
        """
        if self.first is None or self.count <= limit * lines:
            return
        line, reason, text = self.first
        reasons = sorted(self.reasons.items(), key=lambda one: (one[1], one[0]), reverse=True)
        raise InputError(
            f"Too many lines cannot be used, first: {reason}.",
            where=paths[self.file],
            line=line,
            expected=f"at most {limit:.3%} of {lines:,} lines refused (--max-rejected)",
            got=f"{self.count:,}: "
            + ", ".join(f"{reason} {n:,}" for reason, n in reasons)
            + f"; line {line} begins {text[:80]!r}",
            do=_cure(reason),
        )


def _cure(reason: str) -> str:
    """What to do about lines that are refused for a reason."""
    of, _, column = reason.partition(" in ")
    if column:
        return CURES.get(of, _DO)
    return _CURES.get(reason, _DO)


def place(names: Sequence[str], lines: pa.Table) -> tuple[int, int]:
    """Where some refused lines begin, in a table of files that are called so."""
    return names.index(lines["file"][0].as_py()), lines["line"][0].as_py()


class RefusedLines:
    """Appends refused lines to a bucket's file, which appears at the end.

    The bucket has nothing to do with users: of shares of one table, a later one's is no earlier
    bucket, so that the buckets hold the lines in the table's order.
    """

    def __init__(self, spill: Spill) -> None:
        self.summary, self._spill = Summary(), spill
        self._held: list[pl.DataFrame] = []

    @classmethod
    @contextmanager
    def within(cls, folder: Path, before: float = 0.0, buckets: int = 1) -> Iterator[RefusedLines]:
        """The lines that are refused in the block.

        Args:
            folder: where the files of the kind go.
            before: which share of the table's bytes is before them, from 0 to 1.
        """
        first = min(int(before * buckets), buckets - 1)
        with Spill(folder, 1, _SCHEMA, first=first, gather=1) as spill:
            lines = cls(spill)
            yield lines
            lines._write()

    def append(self, lines: pl.DataFrame, file: int = 0) -> None:
        """Refuse some lines of a file of the table, with the columns of `REJECTED`."""
        if not lines.height:
            return
        self.summary.add(lines, file)
        self._held.append(lines)
        if sum(some.height for some in self._held) >= _HELD:
            self._write()

    def _write(self) -> None:
        if self._held:
            rows = arrow(pl.concat(self._held)).cast(_SCHEMA)
            columns = [column.combine_chunks() for column in rows.columns]
            self._spill.append(columns, np.zeros(len(rows), np.uint16))
        self._held = []
