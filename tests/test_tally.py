"""Counts that were merged are the counts of everything; so it is of the rows of a lookup."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.description import Lookup
from pipeline.engines.tally import Tally
from pipeline.steps.lookups import Distinct

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


KEYS = st.integers(0, 3) | st.integers(1 << 23, (1 << 23) + 1)  # large ones are kept another way
SAID = st.lists(st.tuples(KEYS, st.none() | st.integers(0, 2), st.integers(0, 1)), max_size=25)


@settings(max_examples=40)
@given(said=SAID, cuts=st.lists(st.integers(0, 25), max_size=4), data=st.data())
def test_rows_of_a_lookup_by_kind(said: list[Any], cuts: list[int], data: st.DataObject) -> None:
    columns = dict.fromkeys(("item", "category", "brand"), pa.int64())
    lookup = Lookup(
        "item", "items", Path("items"), lambda *_: (_ for _ in ()), columns, "", "", "",
        fields=("category", "brand"),
    )  # fmt: skip
    kinds = dict.fromkeys(("row", *columns), pl.Int64)
    rows = pl.DataFrame([(k, *one) for k, one in enumerate(said)], kinds, orient="row")
    ends = sorted(min(cut, len(said)) for cut in (0, *cuts, 25))
    blocks = [rows[low:high] for low, high in pairwise(ends)]
    whole, merged = Distinct(lookup), Distinct(lookup)
    for block in data.draw(st.permutations(blocks)):
        one = Distinct(lookup)
        one.add(block)
        whole.add(block)
        merged.merge(one.rows())
    found = dict[tuple[Any, ...], list[int]]()
    for row, kind in enumerate(said):
        found.setdefault(kind, []).append(row)
    want = sorted((row[0], len(row), kind) for kind, row in found.items())
    for distinct in (whole, merged):
        got = distinct.rows().select("row", "lines alike", *columns).rows()
        assert sorted((row, n, tuple(kind)) for row, n, *kind in got) == want
        assert distinct.kept == len(said)
