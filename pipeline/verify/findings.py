"""What a check of a data set found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from schemas.arrays import Bools
from schemas.plain import printable


@dataclass(frozen=True)
class Finding:
    """One breach of the contract."""

    what: str  # its kind, e.g. `interval bin`
    where: str  # file, and row group, row and column where there are some
    expected: str
    got: str

    def __str__(self) -> str:
        return f"{self.what}: {self.where}: expected {self.expected}; got {self.got}"


class Findings:
    """Gathers breaches: of each kind the first `limit` in full, and the number of all."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.kept: list[Finding] = []
        self.counts: Counter[str] = Counter()
        self._shown: Counter[str] = Counter()

    def add(self, what: str, where: str, expected: object, got: object) -> None:
        """Note a breach."""
        self.counts[what] += 1
        self._keep(Finding(what, *(printable(str(text)) for text in (where, expected, got))))

    def each(
        self, what: str, good: Bools, where: Callable[[int], str], expected: Any, got: Any
    ) -> bool:
        """Note every place that is not `good`, (places,); whether there is none.

        `expected` and `got` are texts, (places,) values, or functions of a place.
        """
        if good.all():
            return True
        bad, said = np.flatnonzero(~good).tolist(), (expected, got)
        for k in bad[: self.limit]:
            texts = (t if isinstance(t, str) else t(k) if callable(t) else t[k] for t in said)
            self.add(what, where(k), *texts)
        self.counts[what] += len(bad[self.limit :])
        return False

    def merge(self, other: Findings) -> None:
        """Add what another check found."""
        self.counts.update(other.counts)
        for finding in other.kept:
            self._keep(finding)

    def _keep(self, finding: Finding) -> None:
        if self._shown[finding.what] < self.limit:
            self._shown[finding.what] += 1
            self.kept.append(finding)
