"""Measure what the contracts of the tables between steps cost: CPU time with them and without.

`python benchmarks/contracts.py amazon --raw DIR --flags="--layout ragged"` prepares DIR so many
times each way, by turns, and prints a Markdown table. Without them `schemas.tables.check` returns
its table unseen, and nothing else differs: pandera is imported in both.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from statistics import median

from measure import by_turns, run

PROGRAM = """
import sys
from schemas import tables
if sys.argv.pop(1) == "without":
    tables.check = lambda model, frame, *_: frame
from pipeline.cli.app import main
sys.exit(main(sys.argv[1:]))
"""
WAYS = ("with", "without")


def main() -> None:
    """Measure both ways and print the table."""
    asked = by_turns("Measure what the tables' contracts cost.")
    took: dict[str, list[float]] = {way: [] for way in WAYS}
    root = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory(dir=asked.work, prefix="contracts-") as folder:
        out = Path(folder) / "out"
        for _ in range(asked.runs):
            for way in WAYS:
                command = [sys.executable, "-c", PROGRAM, way, asked.source]
                command += ["--raw", str(asked.raw.resolve()), "--out", str(out)]
                took[way].append(run([*command, *asked.flags.split()], cwd=root).cpu_s)
                shutil.rmtree(out)
    print("| contracts | CPU s, each run | median |")
    print("|---|---|---:|")
    for way in WAYS:
        print(f"| {way} | {', '.join(f'{s:.2f}' for s in took[way])} | {median(took[way]):.2f} |")
    share = 1 - median(took["without"]) / median(took["with"])
    print(f"\nshare of the contracts: {share:.1%}")


if __name__ == "__main__":
    main()
