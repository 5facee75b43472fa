"""Measure `tinprep alibaba` on Spark beside the local engine, on the same synthetic files.

`python benchmarks/spark.py --scales 0.01 0.05 0.25` makes raw files of those shares of the Taobao
log's size, one after the other, prepares them with both engines on this machine, checks that both
made the same number of rows, and prints a Markdown table: seconds, peak memory of all processes,
what Spark shuffled (from its own event log), and how seconds grew from one size to the next. On one
machine Spark has nothing to win: this shows what it costs, and how the cost grows with the data.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from alibaba import FILES
from amazon import machine, say, tinprep
from measure import Measured, run

LOCAL, SPARK = "local", "spark"
_SHUFFLED = "Shuffle Bytes Written"
_SAMPLE_S = 0.2


@dataclass(frozen=True)
class Line:
    """One run: what it took, what it shuffled, how many rows it made, and its core seconds.

    These are the processor's time of all its processes, those that Java has started, too: so they
    are nearly the same on a busy machine, where seconds are not.
    """

    engine: str
    scale: float
    raw_bytes: int
    measured: Measured
    shuffled: int
    core_s: float
    rows: int
    steps: dict[str, float]


class Cores(threading.Thread):
    """Adds up the processor's time of all processes that this one has started, and theirs in turn.

    It is sampled: Java's workers are waited for by nobody whom the kernel would tell.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.of: dict[tuple[int, int], int] = {}
        self.ended = threading.Event()

    def run(self) -> None:
        """Sample until `ended` is set."""
        while not self.ended.wait(_SAMPLE_S):
            parents, told = {}, {}
            for path in Path("/proc").glob("[0-9]*/stat"):
                with suppress(OSError):
                    pid = int(path.parent.name)
                    # Behind the name: state, parent, ...; the 12th and 13th are times.
                    stat = path.read_text().rpartition(")")[2].split()
                    parents[pid] = int(stat[1])
                    told[pid] = (pid, int(stat[19])), int(stat[11]) + int(stat[12])
            for pid, (key, ticks) in told.items():
                above = pid
                while above in parents and above != os.getpid():
                    above = parents[above]
                if above == os.getpid() != pid:
                    self.of[key] = ticks

    def __enter__(self) -> Cores:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.join()

    @property
    def seconds(self) -> float:
        """The sum."""
        return sum(self.of.values()) / os.sysconf("SC_CLK_TCK")


def shuffled(events: Path) -> int:
    """Bytes that all tasks of an application wrote for a shuffle."""
    total = 0
    for path in events.rglob("*"):
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            if '"SparkListenerTaskEnd"' in line:
                metrics = json.loads(line).get("Task Metrics") or {}
                total += metrics.get("Shuffle Write Metrics", {}).get(_SHUFFLED, 0)
    return total


def measure(engine: str, raw: Path, scale: float, work: Path, flags: argparse.Namespace) -> Line:
    """Prepare the raw files once."""
    out, events = work / engine, work / "events"
    events.mkdir(exist_ok=True)
    command = [tinprep(), "alibaba", "--raw", raw, "--out", out, *flags.flags.split()]
    if engine == SPARK:
        settings = {
            "spark.driver.memory": flags.heap,
            "spark.eventLog.enabled": "true",
            "spark.eventLog.compress": "false",
            "spark.eventLog.dir": events.as_uri(),
            "spark.local.dir": str(work / "spark-local"),
        }
        command += ["--engine", SPARK, "--master", f"local[{os.cpu_count()}]"]
        command += [
            w for name, value in settings.items() for w in ("--spark-conf", f"{name}={value}")
        ]
    say(f"{engine}, scale {scale:g}")
    with Cores() as cores:
        measured = run(command)
    made = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    raw_bytes = sum((raw / name).stat().st_size for name in FILES)
    steps = {step["name"]: step["seconds"] for step in made["steps"]}
    moved = shuffled(events) if engine == SPARK else 0
    shutil.rmtree(out)
    shutil.rmtree(events)
    return Line(
        engine, scale, raw_bytes, measured, moved, cores.seconds, sum(made["rows"].values()), steps
    )


def report(lines: list[Line]) -> str:
    """The table, and what it was measured on."""
    head = ["engine", "scale", "raw MB", "seconds", "growth, of data", "of seconds", "core seconds"]
    head += ["shuffled MB", "peak MiB, all processes", "rows"]
    text = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for line in lines:
        before = [x for x in lines if x.engine == line.engine and x.scale < line.scale]
        data, seconds = (
            (
                f"{line.raw_bytes / before[-1].raw_bytes:.1f} x",
                f"{line.measured.seconds / before[-1].measured.seconds:.1f} x",
            )
            if before
            else ("-", "-")
        )
        cells = [
            *(line.engine, f"{line.scale:g}", f"{line.raw_bytes / 1e6:,.0f}"),
            *(f"{line.measured.seconds:.1f}", data, seconds, f"{line.core_s:.0f}"),
            f"{line.shuffled / 1e6:,.0f}" if line.engine == SPARK else "-",
            f"{line.measured.tree_mb:,}" if line.measured.tree_mb is not None else "not known",
            f"{line.rows:,}",
        ]
        text.append("| " + " | ".join(cells) + " |")
    notes = [
        f"- Command: `python benchmarks/spark.py {' '.join(sys.argv[1:])}`".rstrip(),
        "- The data is synthetic: 1.0 has the Taobao log's counts (about 22 GB).",
        f"- Machine: {machine()}",
        f"- Date: {datetime.now(UTC):%Y-%m-%d}; pyspark {version('pyspark')}; each ran once.",
    ]
    for line in lines:
        steps = ", ".join(f"{name} {seconds:.1f}" for name, seconds in line.steps.items())
        notes.append(f"- {line.engine}, {line.scale:g}: {steps} s")
    return "\n".join(text) + "\n\n" + "\n".join(notes) + "\n"


def main() -> None:
    """Measure and print; see the module's text."""
    parser = argparse.ArgumentParser(description="tinprep alibaba on Spark and without")
    parser.add_argument("--scales", type=float, nargs="+", default=[0.01, 0.05, 0.25])
    parser.add_argument("--flags", default="", help="more flags for both, in one string")
    parser.add_argument("--heap", default="2g", help="of Spark's Java")
    parser.add_argument("--work", type=Path, help="where the files go; a temporary folder if not")
    flags = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="tinprep-bench-", dir=flags.work))
    lines: list[Line] = []
    try:
        for scale in sorted(flags.scales):
            raw = work / "raw"
            say(f"making synthetic raw files, scale {scale:g}")
            run([tinprep(), "synthesize", "alibaba", "--scale", str(scale), "--out", raw])
            both = [measure(engine, raw, scale, work, flags) for engine in (LOCAL, SPARK)]
            if both[0].rows != both[1].rows:
                sys.exit(f"rows differ: {both[0].rows:,} and {both[1].rows:,}")
            lines += both
            shutil.rmtree(raw)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(report(lines), end="")


if __name__ == "__main__":
    main()
