"""What one preparation is asked to do: every default with its source."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from schemas.errors import UsageError
from schemas.shards import LAYOUTS

SPLIT_RULES = ("tin", "din")
TIES = ("file", "hash")
# These change how the work is done, never a row.
_HOW = ("raw", "out", "buckets", "threads", "memory", "force", "mirrors")


@dataclass(frozen=True)
class AmazonConfig:
    """Amazon 2014, one 5-core category.

    Attributes:
        out: folder of the data set.
        raw: folder with the raw files; nothing is downloaded. None: download what is missing.
        category: name of the category, as in the files' names (paper A.1: Electronics).
        bins: equal-frequency interval bins (paper 4.4: 10).
        max_len: behaviours kept of a history, the latest (ours: 50, as on Alibaba).
        layout: `padded` or `ragged` lists.
        negatives: random negatives for each positive (paper A.1, released code: 1).
        split: `tin` (train, valid, test) or `din` (no valid).
        ties: order of behaviours of one second: the `file`'s, or a seeded `hash`.
        session_gap: seconds without a behaviour that end a session (ours: a day).
        seed: of negatives and hashed ties.
        buckets: of users; None to choose by size and memory.
        threads: buckets worked on at once; None for the usable cores.
        memory: bytes to stay within.
        max_rejected: share of raw lines that may be refused.
        meta: whether there is a meta file; without it every category is unknown.
        parity: the released preprocessing's negatives and whole histories.
        force: replace an earlier data set.
        mirrors: addresses tried before the published ones.
    """

    out: Path
    raw: Path | None = None
    category: str = "Electronics"
    bins: int = 10
    max_len: int = 50
    layout: str = "padded"
    negatives: int = 1
    split: str = "tin"
    ties: str = "file"
    session_gap: int = 86_400
    seed: int = 1234
    buckets: int | None = None
    threads: int | None = None
    memory: int = 2 << 30
    max_rejected: float = 0.001
    meta: bool = True
    parity: bool = False
    force: bool = False
    mirrors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, low, high in (
            ("bins", 1, 255),
            ("max_len", 1, 32_767),
            ("negatives", 1, 1_000),
            ("session_gap", 0, 1 << 40),
            ("buckets", 1, 4_096),
            ("threads", 1, 1_024),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                _refuse(name, f"{low} to {high}", value)
        for name, choices in (("layout", LAYOUTS), ("split", SPLIT_RULES), ("ties", TIES)):
            if getattr(self, name) not in choices:
                _refuse(name, " or ".join(choices), getattr(self, name))
        if not 0 <= self.max_rejected <= 1:
            _refuse("max_rejected", "0% to 100%", self.max_rejected)
        if not self.category or any(c in self.category for c in "/\\\0"):
            _refuse("category", "a name as in reviews_<Category>_5.json.gz", self.category)
        if self.parity and (self.negatives, self.split, self.ties) != (1, "tin", "file"):
            raise UsageError(
                "--parity is what the released code makes, so it fixes other options.",
                where="--parity",
                expected="--negatives 1 --split tin --ties file",
                got=f"--negatives {self.negatives} --split {self.split} --ties {self.ties}",
            )

    @property
    def workers(self) -> int:
        """Buckets worked on at once."""
        usable = getattr(os, "sched_getaffinity", None)
        return self.threads or (len(usable(0)) if usable else os.cpu_count() or 1)

    def resolved(self) -> dict[str, Any]:
        """Every setting as it goes into the manifest; parity's layout is ragged."""
        config = replace(self, layout="ragged") if self.parity else self
        values = {k: v for k, v in asdict(config).items() if k not in ("force", "mirrors")}
        return {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}

    def rows_depend_on(self) -> dict[str, Any]:
        """The settings that change which rows there are, or their shape."""
        return {k: v for k, v in self.resolved().items() if k not in _HOW}


def _refuse(name: str, expected: str, got: object) -> None:
    option = "--" + name.replace("_", "-")
    raise UsageError(f"{option} is out of range.", where=option, expected=expected, got=str(got))
