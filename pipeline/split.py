"""Which split a target is of: by leave-one-out, or by day."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.manifest import SPLITS

Int64s = npt.NDArray[np.int64]

TRAIN, VALID, TEST = range(len(SPLITS))


class Targets(NamedTuple):
    """Targets of one bucket, in the order of its behaviours.

    Attributes:
        at: (targets,) index of the target among the bucket's behaviours.
        start: (targets,) index of its user's first behaviour; the history is `[start, at)`.
        split: (targets,) index into `schemas.manifest.SPLITS`.
    """

    at: Int64s
    start: Int64s
    split: npt.NDArray[np.int8]


def leave_one_out(offsets: Int64s, rule: str) -> Targets:
    """Split each user's behaviours, ordered by time, into targets.

    Every behaviour but a user's first is a target. The last is test; under `tin` the one before
    is valid (TIN's released preprocessing), under `din` it is train (DIN's).

    Args:
        offsets: (users + 1,) where each user's behaviours begin.
        rule: `tin` or `din`.
    """
    lengths = np.diff(offsets)
    start = np.repeat(offsets[:-1], lengths)
    from_end = np.repeat(offsets[1:], lengths) - np.arange(offsets[-1])
    at = np.flatnonzero(np.arange(offsets[-1]) > start)
    split = np.zeros(len(at), np.int8)
    split[from_end[at] == 1] = TEST
    if rule == "tin":
        split[from_end[at] == 2] = VALID
    return Targets(at, start[at], split)


@dataclass(frozen=True)
class Days:
    """Where the splits meet: valid begins at `valid`, test at `test`, in unix seconds."""

    valid: int
    test: int

    def split(self, time: Int64s) -> npt.NDArray[np.int8]:
        """(impressions,) index into `schemas.manifest.SPLITS`."""
        return ((time >= self.valid).astype(np.int8) + (time >= self.test)).astype(np.int8)
