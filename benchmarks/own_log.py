"""Measure `tinprep prepare` on a log of one's own: a made-up one of the form of UserBehavior.

`python benchmarks/own_log.py --events 100000000` makes a CSV file of so many events (user, item,
category, kind, second; no header; 35 bytes each), of which 2 in 100 are purchases, prepares it by
the description below, as CSV and as Parquet, and prints a Markdown table. Targets are purchases,
with one negative each and a history of 50 of all kinds, split by time. With --kinds there are four
histories, one of each kind: 200 views, 20 of each other. What is made goes to --work and stays
there with --keep.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from amazon import machine, tinprep
from measure import Measured, run

# Of tianchi 649, as published: users, items, categories and events.
USERS, ITEMS, CATEGORIES, EVENTS = 987_994, 4_162_024, 9_439, 100_150_807
KINDS, SHARES = ("pv", "cart", "fav", "buy"), (0.895, 0.055, 0.03, 0.02)
BEGIN, DAY, DAYS = 1_511_539_200, 86_400, 9
CSV, PARQUET = "UserBehavior.csv", "UserBehavior.parquet"
_CHUNK = 2_000_000

DESCRIPTION = """
[tables.log]
files = "{file}"
{csv}
user = "user"
time = {{ column = "second", unit = "s" }}
fields = {{ item = "item", category = "category" }}
order = "fields"

[lookups.item]
table = "log"
key = "item"
repeated = "first"
fields = {{ category = "category" }}

[target]
table = "log"
where = "kind = 'buy'"
split = {{ by = "time", valid = {valid}, test = {test}, timezone = "Asia/Shanghai" }}
negatives = {{ per_positive = 1, exclude = "ever" }}
"""
HISTORY = """
[histories.{name}]
table = "log"
{where}
max_len = {most}
"""
ALL = HISTORY.format(name="history", where="", most=50)
EACH = "".join(
    HISTORY.format(name=kind, where=f"where = \"kind = '{kind}'\"", most=most)
    for kind, most in zip(KINDS, (200, 20, 20, 20), strict=True)
)
_COLUMNS = 'csv = { columns = ["user", "item", "category", "kind", "second"] }'


def make(folder: Path, events: int, seed: int = 0) -> None:
    """Write the log as CSV and as Parquet, a user's events together, as in the published file."""
    import numpy as np
    import polars as pl
    import pyarrow.parquet as pq

    users = max(1, round(USERS * events / EVENTS))
    items = max(100, round(ITEMS * events / EVENTS))
    random = np.random.default_rng(seed)
    activity = random.lognormal(0, 0.8, users)
    ends = np.round(np.cumsum(activity) / activity.sum() * events).astype(np.int64)
    writer = None
    with (folder / CSV).open("wb") as file:
        for low in range(0, events, _CHUNK):
            rows = np.arange(low, min(low + _CHUNK, events))
            item = (items * random.random(len(rows)) ** 3).astype(np.int64) + 1
            frame = pl.DataFrame(
                {
                    "user": np.searchsorted(ends, rows, side="right") + 1,
                    "item": item,
                    "category": (item * 2_654_435_761) % 4_294_967_291 % CATEGORIES + 1,
                    "kind": np.array(KINDS)[random.choice(len(KINDS), len(rows), p=SHARES)],
                    "second": BEGIN + random.integers(0, DAYS * DAY, len(rows)),
                }
            )
            frame.write_csv(file, include_header=False)
            table = frame.to_arrow()
            writer = writer or pq.ParquetWriter(folder / PARQUET, table.schema, compression="zstd")
            writer.write_table(table)
    assert writer is not None
    writer.close()


def describe(file: str, histories: str) -> str:
    """Describe the log in one of its files."""
    valid, test = BEGIN + (DAYS - 2) * DAY, BEGIN + (DAYS - 1) * DAY
    csv = _COLUMNS if file == CSV else ""
    return DESCRIPTION.format(file=file, csv=csv, valid=valid, test=test) + histories


def prepare(
    folder: Path, file: str, histories: str, flags: list[str]
) -> tuple[Measured, dict[str, int]]:
    """Prepare the log once from one of its files; what it took, and the rows of each split."""
    description = folder / f"{Path(file).suffix[1:]}.toml"
    description.write_text(describe(file, histories))
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    command = [tinprep(), "prepare", description, "--out", out, "--layout", "ragged", *flags]
    measured = run(command)
    rows: dict[str, int] = json.loads((out / "manifest.json").read_text())["rows"]
    shutil.rmtree(out)
    return measured, rows


def main() -> None:
    """Make the log, prepare it by turns, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--events", type=int, default=EVENTS // 20)
    parser.add_argument("--kinds", action="store_true", help="a history of each kind")
    parser.add_argument("--repeats", type=int, default=1, help="of each file")
    parser.add_argument("--work", type=Path, help="folder for what is made; default: a new one")
    parser.add_argument("--keep", action="store_true", help="leave the log in --work")
    parser.add_argument("--make", action="store_true", help="only make the log, in --work")
    parser.add_argument("--flags", default="", help='more of tinprep, as --flags="--memory 2GB"')
    asked = parser.parse_args()
    work = asked.work or Path(tempfile.mkdtemp(prefix="tinprep-own-"))
    work.mkdir(parents=True, exist_ok=True)
    if asked.make:
        make(work, asked.events)
        return
    try:
        if not (work / PARQUET).exists():  # in a process of its own: this one has to stay small
            again = [sys.executable, __file__, "--make", "--events", str(asked.events)]
            subprocess.run([*again, "--work", work], check=True)
        print("| file | MB | events | rows | time s | CPU s | peak MiB |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        for file in (CSV, PARQUET):
            histories, flags = EACH if asked.kinds else ALL, asked.flags.split()
            every = [prepare(work, file, histories, flags) for _ in range(asked.repeats)]
            took, rows = min(every, key=lambda one: one[0].seconds)
            size = (work / file).stat().st_size / 1e6
            print(
                f"| {file} | {size:,.0f} | {asked.events:,} | {sum(rows.values()):,} | "
                f"{took.seconds:.1f} | {took.cpu_s:.1f} | {took.tree_mb or took.peak_mb:,} |"
            )
        print(f"\nSynthetic. {machine()}, {datetime.now(UTC):%Y-%m-%d}.")
    finally:
        if not asked.keep:
            for name in (CSV, PARQUET, "csv.toml", "parquet.toml"):
                (work / name).unlink(missing_ok=True)


if __name__ == "__main__":
    main()
