"""Categories and their correlation with clicks by plain loops, for tests."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from trainer.analysis.correlation import PLACES
from trainer.data.shards import Shards


def bits(n_11: float, n_10: float, n_01: float, n_00: float, missing: float = 0.0) -> float:
    """Mutual information of a 2 x 2 table by its definition."""
    joint = np.maximum(np.array([[n_11, n_10], [n_01, n_00]], float), missing)
    joint /= joint.sum()
    apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    seen = joint > 0
    return float((joint[seen] * np.log2(joint[seen] / apart[seen])).sum())


def brute(rows, places, missing=0.0):
    """(target category, category, place) -> bits, by a look at every row.

    `rows` are (target category, label, [(category, place), ...]).
    """
    with_event: defaultdict[tuple, Counter] = defaultdict(Counter)
    totals: defaultdict[int, Counter] = defaultdict(Counter)
    for target, label, behaviours in rows:
        totals[target][label] += 1
        for category, place in set(behaviours):
            with_event[target, category, place][label] += 1
    pairs = {(t, c) for t, c, p in with_event if p <= places}
    return {
        (t, c, p): bits(n[1], n[0], totals[t][1] - n[1], totals[t][0] - n[0], missing)
        for t, c in pairs
        for p in range(1, places + 1)
        for n in [with_event[t, c, p]]
    }


def stored(out: Path, by: str, splits=("train",)):
    """The rows of a data set as `brute` takes them."""
    rows = []
    for split in splits:
        r = Shards(out).split(split)
        for i in range(len(r)):
            mine = slice(
                r.histories["history"].starts[i], r.histories["history"].starts[i] + r.lengths[i]
            )
            cells = (
                r.histories["history"].columns["history_category"][mine],
                r.histories["history"].columns[PLACES[by]][mine],
            )
            behaviours = list(zip(*(c.tolist() for c in cells), strict=True))
            rows.append(
                (int(r.scalars["target_category"][i]), int(r.scalars["label"][i]), behaviours)
            )
    return rows
