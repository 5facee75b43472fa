"""Measure `tinprep verify` beside the making of what it verifies.

`python benchmarks/verify.py amazon --raw DIR` prepares DIR and verifies the result so many times,
by turns, and prints a Markdown table.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from statistics import median

from amazon import machine, tinprep
from measure import Measured, by_turns, run


def main() -> None:
    """Measure both and print the table."""
    asked = by_turns("Measure verify beside the making.")
    took: dict[str, list[Measured]] = {asked.source: [], "verify": []}
    with tempfile.TemporaryDirectory(dir=asked.work, prefix="verify-") as folder:
        out = Path(folder) / "out"
        make = [tinprep(), asked.source, "--raw", asked.raw, "--out", out, *asked.flags.split()]
        for _ in range(asked.runs):
            took[asked.source].append(run(make))
            took["verify"].append(run([tinprep(), "verify", out]))
            shutil.rmtree(out)
    print("| command | seconds, each run | median | peak MiB |")
    print("|---|---|---:|---:|")
    for name, runs in took.items():
        seconds = [r.seconds for r in runs]
        each = ", ".join(f"{s:.1f}" for s in seconds)
        peak = max(r.peak_mb for r in runs)
        print(f"| `tinprep {name}` | {each} | {median(seconds):.1f} | {peak:,} |")
    pairs = zip(took["verify"], took[asked.source], strict=True)
    shares = sorted(check.seconds / made.seconds for check, made in pairs)
    print(f"\nverify by making, each pair: {', '.join(f'{s:.2f}' for s in shares)}; {machine()}")


if __name__ == "__main__":
    main()
