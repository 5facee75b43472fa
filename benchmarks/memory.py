"""Measure whether `--memory` is kept: the peak of all of a command's processes, limit by limit.

`python benchmarks/memory.py alibaba --scale 0.25 --limits 700MB 1GB 2GB` makes synthetic raw
files of that share of the data set's size (or takes those in `--raw DIR`), prepares them once for
each limit, and prints a Markdown table. What is resident is what the kernel counts: mapped files
too. The exit code is 1 where a peak is above 1.2 times its limit.
"""

from __future__ import annotations

import argparse
import gzip
import shutil
import sys
import tempfile
from pathlib import Path

from amazon import say, tinprep
from measure import run

ALLOWED = 1.2
PIECE = 16 << 20
UNITS = {"MB": 1, "GB": 1024}


def megabytes(text: str) -> int:
    """'512MB' or '2GB' in MiB."""
    return int(float(text[:-2]) * UNITS[text[-2:].upper()])


def plain_bytes(raw: Path) -> int:
    """Bytes of the raw files as text, whether they are gzipped or not."""
    total = 0
    for path in sorted(raw.iterdir()):
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                while piece := file.read(PIECE):
                    total += len(piece)
        elif path.suffix in (".csv", ".json"):
            total += path.stat().st_size
    return total


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure whether --memory is kept.")
    parser.add_argument("source", choices=["amazon", "alibaba"])
    parser.add_argument("--limits", nargs="+", default=["700MB", "1GB", "2GB"])
    parser.add_argument("--scale", type=float, default=0.25)
    parser.add_argument("--raw", type=Path, help="raw files to take; none are made then")
    parser.add_argument("--work", type=Path, help="folder for what is made and removed")
    parser.add_argument("--flags", default="", help='more of tinprep, as --flags="--layout ragged"')
    return parser.parse_args()


def main() -> None:
    """Measure each limit and print the table."""
    asked = arguments()
    kept = True
    with tempfile.TemporaryDirectory(dir=asked.work, prefix="memory-") as folder:
        raw, out = asked.raw or Path(folder) / "raw", Path(folder) / "out"
        if asked.raw is None:
            say(f"making raw files of scale {asked.scale:g}")
            run([tinprep(), "synthesize", asked.source, "--scale", str(asked.scale), "--out", raw])
        size = plain_bytes(raw) / 2**20
        print("| limit | raw text | of the limit | peak | of the limit | CPU | wall |")
        print("|---:|---:|---:|---:|---:|---:|---:|", flush=True)
        for text in asked.limits:
            limit = megabytes(text)
            command = [tinprep(), asked.source, "--raw", raw, "--out", out, "--memory", text]
            took = run([*command, *asked.flags.split()])
            peak = max(took.peak_mb, took.tree_mb or 0)
            kept &= peak <= ALLOWED * limit
            print(
                f"| {text} | {size:,.0f} MiB | {size / limit:.1f} | {peak:,} MiB "
                f"| {peak / limit:.2f} | {took.cpu_s:.0f} s | {took.seconds:.0f} s |",
                flush=True,
            )
            shutil.rmtree(out)
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
