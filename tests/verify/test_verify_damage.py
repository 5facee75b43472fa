"""`verify` finds each of many kinds of planted damage, where it is, and any damage."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.verify import LIMIT
from schemas.manifest import SPLITS
from tests.verify.damage import DAMAGE, Damage
from tests.verify.made import ADS, ALL, Columns, checked, copied

CASES = [
    pytest.param(name, what, damage, id=f"{said} ({name})")
    for what, planted in DAMAGE.items()
    for said, names, damage in planted
    for name in names
]


@pytest.mark.parametrize(("name", "what", "damage"), CASES)
def test_planted_damage_is_found_where_it_is(
    made: dict[str, Path],
    tmp_path: Path,
    name: str,
    what: str,
    damage: Damage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copy = copied(made, name, tmp_path / "out")
    where = damage(copy)
    report = checked(copy.out)
    found = [f for f in report.findings if f.what == what]
    assert any(f.where.startswith(where) for f in found), (where, report.findings)
    assert all(f.where and f.expected and f.got for f in found)
    assert what in str(report.error(copy.out))
    # The same, however the shard is cut.
    monkeypatch.setattr("pipeline.verify.blocks._CELLS", 24)
    cut = checked(copy.out)
    assert cut.counts.keys() == report.counts.keys()
    if report.counts[what] <= LIMIT:
        assert {f.where for f in cut.findings if f.what == what} == {f.where for f in found}


ANY = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
# What another column, a table or the manifest tells of a row; of reviews all but a negative's item.
TOLD = [
    *("target_category", "target_brand", "campaign", "customer", "price", "age_level"),
    *(f"history_{name}" for name in ("length", "position", "interval_bin", "session")),
]


@ANY
@given(data=st.data())
def test_any_changed_value_is_found(
    made: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    name, split = data.draw(st.sampled_from(ALL)), data.draw(st.sampled_from(SPLITS))
    copy = copied(made, name, tmp_path_factory.mktemp("any") / "out")
    before = copy.table(copy.shard(split))

    def change(columns: Columns) -> None:
        names = TOLD if name in ADS else sorted(set(columns) - {"target_item"})
        column = data.draw(st.sampled_from(names))
        row = data.draw(st.integers(0, len(columns[column]) - 1))
        value = data.draw(st.integers(0, 127))
        if not isinstance(columns[column][row], list):
            columns[column][row] = value
        elif columns[column][row]:
            columns[column][row][data.draw(st.integers(0, len(columns[column][row]) - 1))] = value

    copy.edit(change, copy.shard(split))
    same = copy.table(copy.shard(split)).equals(before)
    assert checked(copy.out).sound == same


@ANY
@given(data=st.data())
def test_any_flipped_bit_is_found(
    made: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """And the checks end, whatever the file then says."""
    copy = copied(made, data.draw(st.sampled_from(ALL)), tmp_path_factory.mktemp("bit") / "out")
    raw = copy.read()
    path = copy.out / data.draw(st.sampled_from([*raw["shards"], *raw["tables"]]))["path"]
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    assert checked(copy.out).counts["checksum"] == 1
