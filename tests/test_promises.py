"""Every test that the README's "What it promises" names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SECTION = re.search(r"^## What it promises\n(.*?)^## ", README, re.MULTILINE | re.DOTALL)
ROWS = re.findall(r"^\| (?!promise|---)(.+?) \| (.+?) \|$", SECTION[1] if SECTION else "", re.M)
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
