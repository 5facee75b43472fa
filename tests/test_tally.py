"""Counts that were merged are the counts of everything."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engines.tally import Tally

# Small numbers have a counter each; large ones are kept another way; below 0 is missing.
NUMBERS = st.one_of(st.integers(-3, 40), st.integers(1 << 22, (1 << 22) + 5), st.just(1 << 40))
PARTS = st.lists(st.lists(NUMBERS, max_size=30), max_size=6)


@given(parts=PARTS)
def test_merged_in_any_way_it_counts_everything(parts: list[list[int]]) -> None:
    whole, merged, mixed = Tally(), Tally(), Tally()
    for k, part in enumerate(parts):
        numbers = np.array(part, np.int64)
        whole.add(numbers)
        one = Tally()
        one.add(numbers)
        merged.merge(one.counts())
        if k % 2:
            mixed.merge(one.counts())
        else:
            mixed.add(numbers)
    values, counts = np.unique([n for part in parts for n in part if n >= 0], return_counts=True)
    want = list(zip(values.tolist(), counts.tolist(), strict=True))
    for tally in (whole, merged, mixed):
        found = tally.counts()
        assert found.columns == ["value", "count"]
        assert found.rows() == want
