"""Where data sets are known by their names: nowhere but where the names belong."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("pipeline", "schemas", "trainer")
# Presets, their readers, made-up files, the command line, what is published; and the paper's tables
# and figures.
ROOMS = (
    *("pipeline/presets", "pipeline/readers/alibaba_", "pipeline/readers/amazon_"),
    *("pipeline/synthetic", "pipeline/cli", "schemas/expected.py"),
)
PAPER = tuple(
    f"trainer/analysis/{name}.py" for name in ("paper", "paper_tables", "reproduce", "model_list")
)
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def words(path: Path) -> Iterator[str]:
    """The names and texts of a module, without its docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = ""
    for node in ast.walk(tree):
        for field in ("id", "attr", "name", "arg", "value", "module"):
            if isinstance(found := getattr(node, field, None), str):
                yield found.lower()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_other_module_knows_a_data_set_by_its_name(path: Path) -> None:
    if path.relative_to(ROOT).as_posix().startswith((*ROOMS, *PAPER)):
        return
    # To name a command is no knowledge of its data.
    found = [w for w in words(path) if "`tinprep " not in w]
    assert not [w for w in found for name in ("amazon", "alibaba", "taobao") if name in w]
