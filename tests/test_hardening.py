"""Giant lines, bombs and deep nesting end in an error or a refused line, in bounded memory."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.readers.meta_lines import LONGEST, NOT_READ, TOO_LONG, read_item
from pipeline.readers.review_lines import NOT_JSON, read_review

ROOT = Path(__file__).parents[1]
# `TINPREP_GIANT=1` reads what is as large as it may come: a line of 3 GB, a bomb of 10 GB.
GIANT = os.environ.get("TINPREP_GIANT") == "1"
MB = 1 << 20

_PROGRAM = """
import resource, sys
from pathlib import Path
from pipeline.readers.amazon_parse import Reviews
from pipeline.readers.parsed import read
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
parts = list(read(Reviews(), Path(sys.argv[1])))
more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(sum(p.rows.height for p in parts), *(r for p in parts for r in p.rejected["reason"]), sep="|")
print(more // 1024)
"""


def read_apart(path: Path) -> tuple[list[str], int]:
    """The rows and refusals of a file, and how many MB more memory it took, read by a process."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, path],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    told, memory = done.stdout.split("\n")[:2]
    return told.split("|"), int(memory)


GOOD = b'{"reviewerID": "A1", "asin": "B1", "unixReviewTime": 1}\n'


def test_a_bomb_of_one_line_takes_little_memory(tmp_path: Path) -> None:
    members, size = (100, 100 * MB) if GIANT else (4, 64 * MB)
    path = tmp_path / "bomb.json.gz"
    bomb = gzip.compress(b"x" * size, 9 if GIANT else 6, mtime=0)
    path.write_bytes(gzip.compress(GOOD) + bomb * members + gzip.compress(b"\n" + GOOD))
    assert path.stat().st_size < size * members // 500
    told, memory = read_apart(path)
    assert told == ["2", "line too long"]
    assert memory < 200


def test_a_giant_line_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "giant.json"
    with path.open("wb") as file:
        file.write(GOOD)
        file.truncate(3 << 30 if GIANT else 256 * MB)  # zeros, which take no disk
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + GOOD)
    told, memory = read_apart(path)
    assert told == ["2", "line too long"]
    assert memory < 200


@pytest.mark.parametrize(
    "text",
    [
        *("[" * 100_000 + "]" * 100_000, "(" * 100_000, "{1:" * 100_000, "-" * 100_000 + "1"),
        *("1+" * 20_000 + "1", "a" + ".a" * 50_000, "a" + "[1]" * 5_000, "not " * 50_000 + "1"),
        *("lambda:" * 10_000 + "1", "f'{" * 1_000, "1 if 1 else " * 2_000 + "1", "\0"),
    ],
    ids=lambda text: text[:6],
)
def test_a_deep_literal_is_refused(text: str) -> None:
    assert read_item(text) == NOT_READ
    assert read_item("{'asin': 'B1', 'x': " + text + "}") == NOT_READ


def test_a_literal_too_long_for_python_is_refused() -> None:
    text = "{'asin': 'B1', 'x': '" + "y" * (LONGEST - 23) + "'}"
    assert len(text) == LONGEST
    assert read_item(text) == ("B1", None)
    assert read_item(text + " ") == TOO_LONG


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000])
def test_deep_json_is_refused(text: str) -> None:
    assert read_review(text) == NOT_JSON
