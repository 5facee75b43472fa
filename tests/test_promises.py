"""Every test that `docs/promises.md` names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (?!promise|---)(.+?) \| (.+?) \|$", PAGE, re.M)
NAMED = [(promise, named) for promise, cell in ROWS for named in re.findall(r"`([^`]+)`", cell)]


def test_there_are_promises_and_each_names_a_test() -> None:
    assert len(ROWS) >= 15
    for promise, _ in ROWS:
        assert any(promise == of for of, _ in NAMED), promise


@pytest.mark.parametrize(("promise", "named"), NAMED)
def test_the_named_test_exists(promise: str, named: str) -> None:
    file, _, name = named.partition("::")
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    tests = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert name.startswith("test_")
    assert name in tests, f"{named}, for: {promise}"
