"""Content and schemas of small data sets stay what they are, however and with what they are made.

The number of buckets and threads must not matter, nor the versions of libraries: `make test-lowest`
runs this file with the oldest that pyproject.toml allows.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from schemas.manifest import FORMAT, load
from tests.conftest import finished
from tests.golden_sets import EXPECTED, GOLDEN, Told, told

HOW = {
    "as by default": (),
    "one bucket, one thread": ("--buckets", 1, "--threads", 1),
    "sixteen buckets, two threads": ("--buckets", 16, "--threads", 2),
}
RENEW = (
    f"Data sets have changed. If that is on purpose: raise FORMAT ({FORMAT}) in "
    "schemas/manifest.py, unless what was made before still holds, run "
    "`python -m tests.golden_sets`, and say in the commit what changed and why."
)


def differences(got: Told, want: Told) -> list[str]:
    """Every table and column that differs, with what it was and is."""
    found = []
    for table in sorted({*got, *want}):
        now, before = got.get(table, {}), want.get(table, {})
        for column in sorted({*now, *before}):
            was, is_ = before.get(column, "absent"), now.get(column, "absent")
            if was != is_:
                found.append(f"{table}.{column}: was {was}, is {is_}")
    return found


@pytest.fixture(scope="module")
def expected() -> dict[str, Told]:
    found: dict[str, Told] = json.loads(EXPECTED.read_text(encoding="utf-8"))
    return found


def test_every_golden_data_set_is_expected(expected: dict[str, Told]) -> None:
    assert set(expected) == set(GOLDEN)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", GOLDEN)
def test_content_and_schema_are_as_ever(
    name: str, how: str, expected: dict[str, Told], tmp_path: Path
) -> None:
    golden, out = GOLDEN[name], tmp_path / "out"
    finished(golden.run(golden.raw(tmp_path / "raw"), out, *golden.flags, *HOW[how]))
    found = differences(told(out), expected[name])
    assert not found, "\n".join([RENEW, *found])
    assert load(out).rejected, "the raw files have lines to refuse"
