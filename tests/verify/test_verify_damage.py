"""`verify` finds each of many kinds of planted damage, and any damage."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.verify import LIMIT
from schemas.errors import ContractError
from schemas.manifest import SPLITS
from tests.verify.damage_all import DAMAGE
from tests.verify.made import ALL, IMPRESSIONS, REVIEWS, Columns, Copy, checked, copied

CASES = [
    pytest.param(name, what, damage, id=f"{said} ({name})")
    for said, what, names, damage in DAMAGE
    for name in names
]


@pytest.mark.parametrize(("name", "what", "damage"), CASES)
def test_planted_damage_is_found(
    made: dict[str, Path],
    tmp_path: Path,
    name: str,
    what: str,
    damage: Callable[[Copy], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copy = copied(made, name, tmp_path / "out")
    damage(copy)
    report = checked(copy.out)
    assert what in report.counts, report.counts
    found = [f for f in report.findings if f.what == what]
    assert found
    assert all(f.where and f.expected and f.got for f in found)
    error = report.error(copy.out)
    assert isinstance(error, ContractError)
    assert what in str(error)
    # The same, if Arrow alone reads the shards.
    with patch("pipeline.verify.cut.read_batches", lambda file, _, rows: file.iter_batches(rows)):
        assert checked(copy.out).counts == report.counts
    # The same, however the shard is cut.
    monkeypatch.setattr("pipeline.verify.cut._READ_CELLS", 24)
    monkeypatch.setattr("pipeline.verify.cut._BLOCK_CELLS", 96)
    cut = checked(copy.out)
    assert cut.counts.keys() == report.counts.keys()
    if report.counts[what] <= LIMIT:
        assert {f.where for f in cut.findings if f.what == what} == {f.where for f in found}


def test_the_table_has_at_least_twenty_kinds() -> None:
    assert len({said for said, *_ in DAMAGE}) >= 90
    assert len({what for _, what, *_ in DAMAGE}) >= 30


# ---- any damage


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_changed_value_of_reviews_is_found(
    made: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Whatever value changes in a row, or in a whole target; but a negative's item for another."""
    name = data.draw(st.sampled_from(REVIEWS))
    copy = copied(made, name, tmp_path_factory.mktemp("any") / "out")
    split = data.draw(st.sampled_from(SPLITS))
    path = copy.path(split)
    before = pq.ParquetFile(path).read()

    def change(columns: Columns) -> None:
        column = data.draw(st.sampled_from(sorted(set(columns) - {"target_item"})))
        row = data.draw(st.integers(0, len(columns[column]) - 1))
        value = data.draw(st.integers(0, 127))
        if isinstance(columns[column][row], list):
            place = data.draw(st.integers(0, len(columns[column][row]) - 1))
            # A first history follows from no other: there just its rows are held to each other.
            alike = columns["history_length"][row] > 1 and data.draw(st.booleans())
            of = [r for r, one in enumerate(columns["row"]) if one == columns["row"][row]]
            for changed in of if alike else [row]:
                columns[column][changed][place] = value
        else:
            columns[column][row] = value

    copy.edit(change, split)
    same = pq.ParquetFile(path).read().equals(before)
    assert checked(copy.out).sound == same


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_changed_behaviour_of_two_impressions_is_found(
    made: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Of one that two impressions of a user share, in one of them, or in all of its split alike."""
    copy = copied(
        made, data.draw(st.sampled_from(IMPRESSIONS)), tmp_path_factory.mktemp("past") / "out"
    )
    most = copy.read()["max_len"]
    seen: dict[int, list[tuple[int, str, int, int]]] = {}
    for split in SPLITS:
        columns = copy.table(split).to_pydict()
        for row, length in enumerate(columns["history_length"]):
            if 0 < length < most:
                of = seen.setdefault(columns["user"][row], [])
                of.append((columns["target_time"][row], split, row, length))
    impressions = data.draw(st.sampled_from([sorted(x) for x in seen.values() if len(x) > 1]))
    earlier, later = sorted(data.draw(st.sampled_from(list(combinations(impressions, 2)))))
    _, split, row, _ = data.draw(st.sampled_from([earlier, later]))
    everywhere = earlier[1] != later[1] and data.draw(st.booleans())
    cell = data.draw(st.integers(0, earlier[3] - 1))
    name = data.draw(st.sampled_from(["history_time", "history_category", "history_brand"]))
    more = data.draw(st.sampled_from([-1, 1, 2]))

    def change(columns: Columns) -> None:
        user = columns["user"][row]
        of = [r for r, one in enumerate(columns["user"]) if one == user]
        for changed in of if everywhere else [row]:
            if columns["history_length"][changed] > cell:
                columns[name][changed][cell] += more

    copy.edit(change, split)
    assert not checked(copy.out).sound


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_flipped_byte_is_found(
    made: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Also where nothing says that a byte is other: the checks end, with findings or without."""
    name = data.draw(st.sampled_from(ALL))
    copy = copied(made, name, tmp_path_factory.mktemp("byte") / "out")
    raw = copy.read()
    path = copy.out / data.draw(st.sampled_from([*raw["shards"], *raw["tables"]]))["path"]
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    assert checked(copy.out).counts["checksum"] == 1
