"""Measure `tinprep amazon` against the released scripts' way, on the same files in the same run.

`python benchmarks/amazon.py --scale 1.0` makes synthetic raw files the size of Electronics (times
the scale), or takes those in `--raw DIR`; runs the peer (`released_amazon.py`) once and ours
`--repeats` times in three configurations; checks that both made the same number of rows of each
split; and prints a Markdown table. The peer needs pandas: `pip install -e '.[bench]'`, or name
another Python that has it with `--peer-python`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from measure import CommandError, Measured, run

PEER = Path(__file__).parent / "released_amazon.py"
OURS: dict[str, list[str]] = {
    "tinprep amazon": [],
    "tinprep amazon --layout ragged": ["--layout", "ragged"],
    "tinprep amazon --layout ragged --max-len 430": ["--layout", "ragged", "--max-len", "430"],
}
LIBRARIES = ("tinprep", "polars", "duckdb", "pyarrow", "numpy")


@dataclass(frozen=True)
class Line:
    """One line of the table: a command's runs (one or more), its output and its rows."""

    what: str
    runs: list[Measured]
    output_bytes: int
    rows: dict[str, int]

    @property
    def seconds(self) -> float:
        """Median wall time."""
        return statistics.median(r.seconds for r in self.runs)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def say(text: str) -> None:
    """Tell what is going on, apart from the table."""
    print(text, file=sys.stderr, flush=True)


def tinprep() -> str:
    """Find the `tinprep` command of this Python's environment."""
    beside = Path(sys.executable).parent / "tinprep"
    found = str(beside) if beside.exists() else shutil.which("tinprep")
    if found is None:
        sys.exit("no `tinprep` command: install the project into this Python first (`make setup`)")
    return found


def check_ready(python: str) -> str:
    """Stop early where the peer or ours cannot run; returns the versions of our libraries."""
    tinprep()
    try:
        run([python, "-c", "import pandas"])
    except (CommandError, FileNotFoundError):
        sys.exit(f"{python} has no pandas: pip install -e '.[bench]', or give --peer-python")
    return ", ".join(f"{name} {version(name)}" for name in LIBRARIES)


def measure_peer(python: str, raw: Path, work: Path) -> tuple[Line, dict[str, Any]]:
    """Run the peer once; returns its line and what it says of itself."""
    out = work / "peer"
    say("running the peer")
    measured = run([python, PEER, raw, out])
    told = json.loads(measured.stdout.splitlines()[-1])
    dataset = (out / "dataset.pkl").stat().st_size
    return Line("released scripts' way (pandas)", [measured], dataset, told["rows"]), told


def measure_ours(what: str, flags: list[str], raw: Path, work: Path, repeats: int) -> Line:
    """Run ours `repeats` times, each into a new folder; the last one's output stays."""
    out = work / what.replace(" ", "_")
    runs = []
    for repeat in range(repeats):
        shutil.rmtree(out, ignore_errors=True)
        say(f"running {what} ({repeat + 1} of {repeats})")
        runs.append(run([tinprep(), "amazon", "--raw", raw, "--out", out, *flags]))
    rows = json.loads((out / "manifest.json").read_text(encoding="utf-8"))["rows"]
    return Line(what, runs, folder_bytes(out), rows)


def check_rows(lines: list[Line]) -> None:
    """Stop unless every command made the same number of rows of each split."""
    peer = lines[0]
    for line in lines[1:]:
        if {k: n for k, n in line.rows.items() if n} != {k: n for k, n in peer.rows.items() if n}:
            sys.exit(f"rows differ: {peer.what} {peer.rows}, {line.what} {line.rows}")


def machine() -> str:
    """Name the processor, the cores that may be used, and the memory."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {usable} cores usable, {memory:.0f} GiB memory, {platform.system()}"


def table(lines: list[Line]) -> str:
    """Make the Markdown table; the first line is the peer, to which the ratios are."""
    head = ["what", "seconds", "times as fast", "CPU s", "peak MiB, largest process"]
    head += ["peak MiB, all processes", "output MB", "rows"]
    text = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for line in lines:
        trees = [r.tree_mb for r in line.runs if r.tree_mb is not None]
        cells = [
            line.what,
            f"{line.seconds:.1f}",
            f"{lines[0].seconds / line.seconds:.1f}",
            f"{statistics.median(r.cpu_s for r in line.runs):.1f}",
            f"{max(r.peak_mb for r in line.runs):,}",
            f"{max(trees):,}" if trees else "not known",
            f"{line.output_bytes / 1e6:,.1f}",
            f"{sum(line.rows.values()):,}",
        ]
        text.append("| " + " | ".join(cells) + " |")
    return "\n".join(text)


def report(lines: list[Line], told: dict[str, Any], raw: Path, source: str, libraries: str) -> str:
    """Make the table with what it was measured on, and what it does not say by itself."""
    sizes = ", ".join(
        f"{p.name} {p.stat().st_size / 1e6:,.1f} MB" for p in sorted(raw.glob("*.gz"))
    )
    steps = ", ".join(f"{name} {s:.1f}" for name, s in told["seconds"].items())
    spread = "; ".join(
        f"{line.what}: {min(r.seconds for r in line.runs):.1f} to "
        f"{max(r.seconds for r in line.runs):.1f}"
        for line in lines[1:]
    )
    notes = [
        f"- Command: `python benchmarks/amazon.py {' '.join(sys.argv[1:])}`".rstrip(),
        f"- Data: {source}: {sizes}",
        f"- Machine: {machine()}",
        f"- Date: {datetime.now(UTC):%Y-%m-%d}; Python {platform.python_version()}, {libraries}; "
        f"the peer: pandas {told['pandas']}",
        f"- The peer ran once ({steps} s); ours {len(lines[1].runs)} times: median seconds, "
        f"highest peaks. From lowest to highest: {spread}",
        "- The peer's output is `dataset.pkl` alone. It holds whole histories of items and each "
        "item's category; ours the category, time, position, bin and session of each behaviour.",
        "- All made the same number of rows of each split: "
        + ", ".join(f"{name} {n:,}" for name, n in lines[0].rows.items())
        + ".",
    ]
    return table(lines) + "\n\n" + "\n".join(notes) + "\n"


def read_once(raw: Path) -> None:
    """Read the raw files, so that the first to run has no colder disk cache than the next."""
    for path in raw.glob("*.gz"):
        with path.open("rb") as file:
            while file.read(1 << 20):
                pass


def main() -> None:
    """Measure and print; see the module's text."""
    parser = argparse.ArgumentParser(description="tinprep amazon against the released scripts' way")
    parser.add_argument("--scale", type=float, default=1.0, help="1.0 is the size of Electronics")
    parser.add_argument("--raw", type=Path, help="measure on the raw files in this folder")
    parser.add_argument("--repeats", type=int, default=3, help="runs of ours (the peer: one)")
    parser.add_argument("--keep", action="store_true", help="keep the raw data and the outputs")
    parser.add_argument("--out", type=Path, help="also save the table to this file")
    parser.add_argument("--peer-python", default=sys.executable, help="a Python with pandas")
    flags = parser.parse_args()
    if flags.repeats < 1:
        parser.error("--repeats must be at least 1")

    libraries = check_ready(flags.peer_python)
    work = Path(tempfile.mkdtemp(prefix="tinprep-bench-"))
    try:
        if flags.raw is None:
            raw, source = work / "raw", f"synthetic, scale {flags.scale:g}"
            say(f"making synthetic raw files, scale {flags.scale:g}")
            run([tinprep(), "synthesize", "amazon", "--scale", str(flags.scale), "--out", raw])
        else:
            raw, source = flags.raw.resolve(), "the raw files given"
        read_once(raw)
        peer, told = measure_peer(flags.peer_python, raw, work)
        lines = [peer]
        for what, ours in OURS.items():
            lines.append(measure_ours(what, ours, raw, work, flags.repeats))
        check_rows(lines)
        text = report(lines, told, raw, source, libraries)
    except CommandError as error:
        sys.exit(str(error))
    finally:
        if flags.keep:
            say(f"kept: {work}")
        else:
            shutil.rmtree(work, ignore_errors=True)
    print(text, end="")
    if flags.out is not None:
        flags.out.parent.mkdir(parents=True, exist_ok=True)
        flags.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
