"""What a check of a data set found."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pyarrow as pa

UNREADABLE = (pa.ArrowException, OSError, UnicodeDecodeError)
"""What reading a Parquet file ends in that is none, or is damaged."""


@dataclass(frozen=True)
class Finding:
    """One breach of the contract.

    Attributes:
        what: its kind, e.g. `interval bin`.
        where: file, and row group, row and column where there are some.
        expected: what should have been there.
        got: what is there.
    """

    what: str
    where: str
    expected: str
    got: str

    def __str__(self) -> str:
        return f"{self.what}: {self.where}: expected {self.expected}; got {self.got}"


class Findings:
    """Gathers breaches: of each kind and file the first few in full, and the number of all.

    Args:
        limit: how many of a kind to keep.

    Attributes:
        kept: the findings kept, in order.
        counts: kind -> how often it was found.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.kept: list[Finding] = []
        self.counts: Counter[str] = Counter()
        self._shown: Counter[str] = Counter()

    def add(self, what: str, where: str, expected: object, got: object, times: int = 1) -> None:
        """Note a breach that was found `times` times, of which this is one."""
        self.counts[what] += times
        self._keep(Finding(what, *map(_printable, (where, expected, got))))

    def unreadable(self, what: str, where: str, error: Exception) -> None:
        """Note a file whose reading ended in one of `UNREADABLE`."""
        got = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        self.add(what, where, "a Parquet file", got)

    def merge(self, other: Findings) -> None:
        """Add what another check found."""
        self.counts.update(other.counts)
        for finding in other.kept:
            self._keep(finding)

    def _keep(self, finding: Finding) -> None:
        if self._shown[finding.what] < self.limit:
            self._shown[finding.what] += 1
            self.kept.append(finding)


def _printable(value: object) -> str:
    """A text that no terminal takes for anything else, whatever names and values it quotes."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
