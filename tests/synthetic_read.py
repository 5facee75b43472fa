"""What synthetic data is like once it is read, by plain loops."""

from __future__ import annotations

import gzip
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.synthetic.law import Draw


@dataclass
class AlibabaFiles:
    """The folder, its marker and its tables."""

    folder: Path
    marker: dict[str, Any]
    ads: pl.DataFrame
    profiles: pl.DataFrame
    shown: pl.DataFrame
    behaved: pl.DataFrame


Histories = tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]


def read_histories(files: AlibabaFiles, end: Callable[[Sequence[int], int], int]) -> Histories:
    """Interval, same category and same brand [N, 50] of each line of raw_sample, newest first."""
    views: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for user, time, btag, category, brand in files.behaved.iter_rows():
        if btag == "pv":
            views[user].append((time, category, brand))
    times = {}
    for user, rows in views.items():
        rows.sort()
        times[user] = [row[0] for row in rows]
    ad = {row[0]: (row[1], row[4]) for row in files.ads.iter_rows()}
    interval = np.zeros((len(files.shown), 50), np.int64)
    same = np.zeros((2, *interval.shape), bool)
    for i, (user, time, adgroup, *_) in enumerate(files.shown.iter_rows()):
        stop = end(times.get(user, []), time)
        for p, row in enumerate(reversed(views[user][max(0, stop - 50) : stop])):
            interval[i, p] = time - row[0]
            same[0, i, p] = row[1] == ad[adgroup][0]
            same[1, i, p] = row[2] == ad[adgroup][1]
    return interval, same[0], same[1]


def step_of(draw: Draw) -> npt.NDArray[np.int64]:
    """How many behaviours lie before each review."""
    return np.arange(len(draw.item)) - np.repeat(draw.first[:-1], np.diff(draw.first))


def repeat_share(draw: Draw, position: int, targets: npt.NDArray[np.int64]) -> float:
    category = draw.category_of[draw.item]
    return float((category[targets] == category[targets - position]).mean())


def unpack(path: Path) -> list[str]:
    return gzip.decompress(path.read_bytes()).decode("ascii").splitlines()
