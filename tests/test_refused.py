"""Refused lines are kept on disk, in the file's order, and said as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from pipeline.engines.buckets import bucket_path, spilled_pieces
from pipeline.readers.parsed import REJECTED
from pipeline.steps.refused import RefusedLines, Summary
from schemas.errors import InputError
from tests.alibaba_made import RawLog

ROOT = Path(__file__).parents[1]


def lines(numbers: range, reason: str = "odd") -> pl.DataFrame:
    return pl.DataFrame(
        [("log.csv", n, reason, f"text {n}") for n in numbers], schema=REJECTED, orient="row"
    )


def test_they_come_back_in_order_and_piece_by_piece(tmp_path: Path) -> None:
    with RefusedLines.within(tmp_path / "refused") as refused:
        for begin in range(1, 120_001, 10_000):
            refused.append(lines(range(begin, begin + 10_000)))
        refused.append(lines(range(0)))
    pieces = list(spilled_pieces(bucket_path(tmp_path / "refused", 0)))
    assert [len(piece) for piece in pieces] == [50_000, 50_000, 20_000]
    found = pl.concat([pl.DataFrame(piece) for piece in pieces])
    assert found.equals(lines(range(1, 120_001)))
    assert refused.summary == Summary({"odd": 120_000}, (1, "odd", "text 1"))


def test_later_shares_of_a_table_are_in_no_earlier_bucket(tmp_path: Path) -> None:
    for begin in (0, 100, 600, 998):
        with RefusedLines.within(tmp_path / "refused", begin / 1_000, buckets=5) as refused:
            refused.append(lines(range(begin + 1, begin + 2)))
    found = {
        bucket: pl.DataFrame(next(spilled_pieces(bucket_path(tmp_path / "refused", bucket))))[
            "line"
        ]
        for bucket in (0, 3, 4)
    }
    # The second share's file has taken the place of the first one's: elsewhere they never meet.
    assert {bucket: line.to_list() for bucket, line in found.items()} == {
        0: [101],
        3: [601],
        4: [999],
    }


def test_what_is_said_of_parts_is_what_is_said_of_the_whole() -> None:
    parts = [lines(range(5, 8)), lines(range(2, 5), "cut"), lines(range(9, 9)), lines(range(8, 12))]
    whole, forward, backward = Summary(), Summary(), Summary()
    whole.add(pl.concat(parts))
    for first, last in zip(parts, reversed(parts), strict=True):
        forward.add(first)
        backward.add(last)
    assert forward == backward == whole
    assert whole == Summary({"odd": 7, "cut": 3}, (2, "cut", "text 2"))
    whole.check([Path("log.csv")], 100, 0.1)
    with pytest.raises(InputError, match="first: cut") as said:
        whole.check([Path("log.csv")], 99, 0.1)
    assert "10: odd 7, cut 3; line 2 begins 'text 2'" in str(said.value)


# A child begins with its parent's `ru_maxrss`; this starts with the program.
_PROGRAM = r"""
import re, sys
from pathlib import Path
from pipeline.cli.app import main
main(sys.argv[1:])
print("peak", re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1])
"""


def peak_mb(*args: object) -> int:
    """Peak resident memory of a command that goes well, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *map(str, args)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "peak " in done.stdout, done.stderr
    return int(done.stdout.rpartition("peak ")[2]) // 1024


def test_memory_does_not_grow_with_refused_lines(tmp_path: Path) -> None:
    raw = RawLog(
        impressions=[(1, 1_494_000_000 + 50_000 * k, 1, "p", 0) for k in range(12)],
        ads=[(1, 1, 1, 1, 1, "1.0")],
        profiles=[(1, 1, 1, 1, 1, 1, 1, 1, 1)],
        behaviours=[(1, 1_493_900_000, "pv", 1, 1)],
    ).write(tmp_path / "raw")
    flags = ("alibaba", "--raw", raw, "--max-rejected", "100%", "--threads", 2)
    peaks = []
    with (raw / "behavior_log.csv").open("ab") as file:
        for name in ("few", "many"):
            for begin in range(0, 250_000 if name == "few" else 1_000_000, 10_000):
                some = range(begin, begin + 10_000)
                file.write(b"".join(b"no line of this log %07d %0150d\n" % (k, 0) for k in some))
            file.flush()
            peaks.append(peak_mb(*flags, "--out", tmp_path / name))
    # In memory, a million of them are 300 MB and more.
    assert peaks[1] - peaks[0] < 100
    path = tmp_path / "many" / "rejected" / "behavior_log.parquet"
    found = pl.scan_parquet(path)
    assert found.select(pl.len()).collect().item() == 1_250_000
    assert found.select((pl.col("line").diff() == 1).all()).collect().item()
