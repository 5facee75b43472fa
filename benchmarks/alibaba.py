"""Measure `tinprep alibaba` at several sizes, and two peers beside it on the same files.

`python benchmarks/alibaba.py --scales 0.01 0.05 0.25` makes synthetic raw files of those shares of
the Taobao log's size (or takes those in `--raw DIR ...`, whose scale SYNTHETIC.json tells), runs
ours on each, `released_alibaba.py` (DSIN's scripts' way, pandas) at `--released-scale` and
`naive_alibaba.py` (our steps, all in memory) at `--naive-scale`; checks that all made the same
rows; and prints a Markdown table. A ratio stands only beside a peer that ran on the same files.
The first peer needs pandas: `pip install -e '.[bench]'`, or name another Python that has it with
`--peer-python`. One size at a time is on disk unless `--keep`.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from amazon import LIBRARIES, check_ready, folder_bytes, machine, say, tinprep
from measure import CommandError, Measured, run

HERE = Path(__file__).parent
FILES = ("raw_sample.csv", "ad_feature.csv", "user_profile.csv", "behavior_log.csv")
MARKER = "SYNTHETIC.json"
OURS, RELEASED, NAIVE = "tinprep alibaba", "released scripts' way (pandas)", "in memory (Polars)"


@dataclass(frozen=True)
class Raw:
    """Raw files to measure on; `scale` is None where they do not say that they are synthetic."""

    folder: Path
    scale: float | None

    @property
    def files(self) -> list[Path]:
        """The raw files, plain or gzipped."""
        both = [self.folder / (name + end) for name in FILES for end in ("", ".gz")]
        return [path for path in both if path.exists()]

    @property
    def name(self) -> str:
        """How the table calls it."""
        if self.scale is None:
            return self.folder.name
        return f"synthetic, {self.scale:g}"


@dataclass(frozen=True)
class Line:
    """One line of the table: a command on one set of raw files."""

    what: str
    raw: str
    raw_bytes: int
    measured: Measured
    output_bytes: int
    rows: dict[str, int]
    steps: dict[str, float]


def scale_of(folder: Path) -> float | None:
    """The scale that SYNTHETIC.json tells; None where there is none."""
    marker = folder / MARKER
    if not marker.exists():
        return None
    told = json.loads(marker.read_text(encoding="utf-8"))
    return float(told["recipe"]["scale"])


def measure_ours(raw: Raw, work: Path, memory: str, flags: list[str]) -> Line:
    """Run ours once on one set of raw files."""
    out = work / "ours"
    shutil.rmtree(out, ignore_errors=True)
    command: list[str | Path] = [tinprep(), "alibaba", "--raw", raw.folder, "--out", out]
    measured = run([*command, "--memory", memory, *flags])
    made = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    steps = {step["name"]: step["seconds"] for step in made["steps"]}
    return line_of(OURS, raw, measured, out, made["rows"], steps)


def measure_peer(what: str, python: str, script: str, raw: Raw, work: Path) -> Line:
    """Run one of the peers once on one set of raw files."""
    out = work / "peer"
    shutil.rmtree(out, ignore_errors=True)
    measured = run([python, HERE / script, raw.folder, out])
    told = json.loads(measured.stdout.splitlines()[-1])
    return line_of(what, raw, measured, out, told["rows"], told["seconds"])


def line_of(
    what: str,
    raw: Raw,
    measured: Measured,
    out: Path,
    rows: dict[str, int],
    steps: dict[str, float],
) -> Line:
    """Gather one line; the output's size is that of what it leaves for training."""
    kept = [out / "input.pkl", out / "label.pkl"] if what == RELEASED else None
    size = sum(path.stat().st_size for path in kept) if kept else folder_bytes(out)
    raw_bytes = sum(path.stat().st_size for path in raw.files)
    return Line(what, raw.name, raw_bytes, measured, size, rows, steps)


def check_rows(lines: list[Line]) -> None:
    """Stop unless all made as many rows; the naive peer of each split, as it splits alike."""
    ours = next(line for line in lines if line.what == OURS)
    for line in lines:
        same = sum(line.rows.values()) == sum(ours.rows.values())
        if line.what == NAIVE:
            same &= all(line.rows.get(name, 0) == n for name, n in ours.rows.items())
        if not same:
            sys.exit(f"rows differ on {line.raw}: {OURS} {ours.rows}, {line.what} {line.rows}")


def cells(line: Line, peers: list[Line]) -> list[str]:
    """One line of the table; ours says how many times as fast as each peer on the same files."""
    ratios = ", ".join(
        f"{peer.measured.seconds / line.measured.seconds:.1f} x {peer.what.partition(' (')[0]}"
        for peer in peers
        if line.what == OURS and peer.raw == line.raw and peer.what != OURS
    )
    tree = line.measured.tree_mb
    return [
        line.what,
        line.raw,
        f"{line.raw_bytes / 1e6:,.0f}",
        f"{line.measured.seconds:.1f}",
        f"{line.measured.cpu_s:.1f}",
        ratios or "-",
        f"{line.measured.peak_mb:,}",
        f"{tree:,}" if tree is not None else "not known",
        f"{line.output_bytes / 1e6:,.0f}",
        f"{sum(line.rows.values()):,}",
    ]


def report(lines: list[Line], pandas: str, libraries: str) -> str:
    """Make the table with what it was measured on, and what it does not say by itself."""
    head = ["what", "data", "raw MB", "seconds", "CPU s", "speed against the peer"]
    head += ["peak MiB, largest process", "peak MiB, all processes", "output MB", "rows"]
    text = ["| " + " | ".join(head) + " |", "|---|---|" + "---:|" * (len(head) - 2)]
    text += ["| " + " | ".join(cells(line, lines)) + " |" for line in lines]
    notes = [f"- Command: `python benchmarks/alibaba.py {' '.join(sys.argv[1:])}`".rstrip()]
    if any(line.raw.startswith("synthetic") for line in lines):
        notes.append("- The data is synthetic: 1.0 has the Taobao log's counts (about 22 GB).")
    notes += [
        f"- Machine: {machine()}",
        f"- Date: {datetime.now(UTC):%Y-%m-%d}; Python {platform.python_version()}, {libraries}; "
        f"the released scripts' way: pandas {pandas}",
        "- Each ran once, on files just read. All made the same number of rows.",
        "- The released scripts' way makes no position, interval or bin; its output is `input.pkl` "
        "and `label.pkl`. It starts at the scripts' fixed time, which is 8 h after ours.",
    ]
    for line in lines:
        steps = ", ".join(f"{name} {seconds:.1f}" for name, seconds in line.steps.items())
        notes.append(f"- {line.what}, {line.raw}: {steps} s")
    return "\n".join(text) + "\n\n" + "\n".join(notes) + "\n"


def read_once(raw: Raw) -> None:
    """Read the raw files, so that the first to run has no colder disk cache than the next."""
    for path in raw.files:
        with path.open("rb") as file:
            while file.read(1 << 20):
                pass


def raw_sets(flags: argparse.Namespace, work: Path) -> Iterator[Raw]:
    """The raw files to measure on, the smallest first, each made when it is its turn."""
    if flags.raw:
        for folder in flags.raw:
            yield Raw(folder.resolve(), scale_of(folder))
        return
    scales = {*flags.scales, flags.released_scale, flags.naive_scale} - {0.0}
    for scale in sorted(scales):
        folder = work / f"raw-{scale:g}"
        say(f"making synthetic raw files, scale {scale:g}")
        run([tinprep(), "synthesize", "alibaba", "--scale", str(scale), "--out", folder])
        yield Raw(folder, scale)
        if not flags.keep:
            shutil.rmtree(folder)


def measure(raw: Raw, flags: argparse.Namespace, work: Path) -> list[Line]:
    """Ours, and the peers whose turn it is, on one set of raw files."""
    read_once(raw)
    here = work / raw.name.replace(", ", "-")
    here.mkdir()
    say(f"running {OURS} on {raw.name}")
    lines = [measure_ours(raw, here, flags.memory, flags.flags.split())]
    peers: list[tuple[str, str, str, Any]] = [
        (NAIVE, sys.executable, "naive_alibaba.py", flags.naive_scale),
        (RELEASED, flags.peer_python, "released_alibaba.py", flags.released_scale),
    ]
    for what, python, script, scale in peers:
        if raw.scale == scale:
            say(f"running {what} on {raw.name}")
            lines.append(measure_peer(what, python, script, raw, here))
    check_rows(lines)
    if not flags.keep:
        shutil.rmtree(here)
    return lines


def pandas_of(python: str) -> str:
    """The version of pandas that `python` has."""
    return run([python, "-c", "import pandas; print(pandas.__version__)"]).stdout.strip()


def main() -> None:
    """Measure and print; see the module's text."""
    parser = argparse.ArgumentParser(description="tinprep alibaba at several sizes, and two peers")
    parser.add_argument("--scales", type=float, nargs="+", default=[0.01, 0.05, 0.25])
    parser.add_argument("--raw", type=Path, nargs="+", help="measure on these folders instead")
    parser.add_argument("--released-scale", type=float, default=0.01, help="0: without this peer")
    parser.add_argument("--naive-scale", type=float, default=0.05, help="0: without this peer")
    parser.add_argument("--memory", default="6GB", help="for ours")
    parser.add_argument("--flags", default="", help="more flags for ours, in one string")
    parser.add_argument("--work", type=Path, help="where the files go; a temporary folder if not")
    parser.add_argument("--keep", action="store_true", help="keep the raw data and the outputs")
    parser.add_argument("--out", type=Path, help="also save the table to this file")
    parser.add_argument("--peer-python", default=sys.executable, help="a Python with pandas")
    flags = parser.parse_args()

    if flags.released_scale:
        libraries, pandas = check_ready(flags.peer_python), pandas_of(flags.peer_python)
    else:
        libraries, pandas = ", ".join(f"{name} {version(name)}" for name in LIBRARIES), "not run"
    if flags.work is not None:
        flags.work.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="tinprep-bench-", dir=flags.work))
    lines: list[Line] = []
    try:
        for raw in raw_sets(flags, work):
            lines += measure(raw, flags, work)
    except CommandError as error:
        sys.exit(str(error))
    finally:
        if flags.keep:
            say(f"kept: {work}")
        else:
            shutil.rmtree(work, ignore_errors=True)
    text = report(lines, pandas, libraries)
    print(text, end="")
    if flags.out is not None:
        flags.out.parent.mkdir(parents=True, exist_ok=True)
        flags.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
