"""Measure Eq. 1 in all cells of a data set against the released script's way, a loop over dicts.

`python benchmarks/correlation.py` makes synthetic Electronics at full size (`--scale 1.0`) and its
shards, or takes the data set in `--data DIR`. Both sides count the train split at ten positions
and give the bits of every cell. Each runs in a process of its own; ours also as the command
`tinprep correlate`, figure, imports and all. Their cells are held against each other, and a
Markdown table is printed.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

from amazon import machine, say, tinprep
from measure import CommandError, Measured, run

POSITIONS = 10
COLUMNS = ["target_category", "label", "history_length", "history_category"]


def loop(data: Path) -> dict[tuple[int, int, int], float]:
    """Count in dicts, one behaviour after another, as the released script does.

    Returns:
        Bits by (target's category, behaviour's category, position) of the cells that occur.
    """
    import pyarrow.parquet as pq

    targets: dict[tuple[int, int], int] = {}
    seen: dict[tuple[int, int, int, int], int] = {}
    for path in sorted((data / "train").glob("*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(columns=COLUMNS):
            rows = batch.to_pydict()
            for target, label, length, history in zip(*(rows[c] for c in COLUMNS), strict=True):
                targets[target, label] = targets.get((target, label), 0) + 1
                for position in range(1, min(length, POSITIONS) + 1):
                    key = (target, history[length - position], position, label)
                    seen[key] = seen.get(key, 0) + 1
    bits = {}
    for target, category, position in {key[:3] for key in seen}:
        cell = (target, category, position)
        with_event = [seen.get((*cell, label), 0) for label in (0, 1)]
        all_targets = [targets.get((target, label), 0) for label in (0, 1)]
        total, events, found = sum(all_targets), sum(with_event), 0.0
        for n, of_label in zip(with_event, all_targets, strict=True):
            for joint, margin in ((n, events), (of_label - n, total - events)):
                if joint:
                    found += joint / total * math.log2(joint * total / (margin * of_label))
        bits[cell] = found
    return bits


def side(name: str, data: Path, to: Path) -> None:
    """Run one side in this process; prints its seconds, imports left out, and writes its cells."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if name == "loop":
        began = time.perf_counter(), time.process_time()
        bits = loop(data)
        took = time.perf_counter() - began[0], time.process_time() - began[1]
        columns = zip(*((*cell, value) for cell, value in sorted(bits.items())), strict=True)
        names = ["target_category", "category", "place", "bits"]
        pq.write_table(pa.table(dict(zip(names, map(list, columns), strict=True))), to)
    else:
        from trainer.analysis.correlation import correlate

        began = time.perf_counter(), time.process_time()
        correlate(data, positions=POSITIONS, everything=to)
        took = time.perf_counter() - began[0], time.process_time() - began[1]
    print(json.dumps(took))


def compare(peer: Path, ours: Path) -> int:
    """Stop unless ours has the loop's bits in its cells, and 0 in all others.

    Returns:
        How many cells occur.
    """
    import polars as pl

    keys = ["target_category", "category", "place"]
    found = pl.read_parquet(ours).with_columns(pl.col(keys).cast(pl.Int64))
    expected = pl.read_parquet(peer)
    occur = found.filter(pl.col("present") > 0).sort(keys)
    if not occur.select(keys).equals(expected.select(keys)):
        sys.exit("the two sides have other cells")
    far = (occur["bits"] - expected["bits"]).abs().max()
    elsewhere = found.filter(pl.col("present") == 0)["bits"].abs().max()
    if not isinstance(far, float) or far > 1e-9 or (elsewhere or 0.0) != 0.0:
        sys.exit(f"the two sides differ by {far} bits")
    return len(expected)


def table(lines: dict[str, list[Measured]]) -> str:
    """Make the Markdown table; the first line is the loop, to which the ratios are."""
    head = ["what", "seconds", "times as fast", "CPU s", "times less CPU"]
    head += ["seconds with start", "peak MiB"]
    text = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    peer: tuple[float, float] | None = None
    for what, runs in lines.items():
        inside = [json.loads(r.stdout) for r in runs if r.stdout.startswith("[")]
        took = inside or [(r.seconds, r.cpu_s) for r in runs]
        seconds, cpu = (statistics.median(t[i] for t in took) for i in (0, 1))
        peer = peer or (seconds, cpu)
        started = statistics.median(r.seconds for r in runs)
        cells = [what, f"{seconds:.2f}", f"{peer[0] / seconds:.1f}"]
        cells += [f"{cpu:.2f}", f"{peer[1] / cpu:.1f}", f"{started:.2f}"]
        text.append("| " + " | ".join([*cells, f"{max(r.peak_mb for r in runs):,}"]) + " |")
    return "\n".join(text)


def measure(data: Path, work: Path, repeats: int) -> str:
    """Run both sides and the command; gives the table with what it was measured on."""
    me = [sys.executable, __file__, "--data", data]
    say("running the loop")
    lines = {"loop over dicts": [run([*me, "--side", "loop", "--to", work / "loop.parquet"])]}
    for what, command in {
        "tinprep, the function": [*me, "--side", "ours", "--to", work / "ours.parquet"],
        "`tinprep correlate`, figure included": [
            tinprep(), "correlate", data, "--positions", str(POSITIONS), "--out", work / "figure",
        ],
    }.items():  # fmt: skip
        say(f"running {what}")
        lines[what] = [run(command) for _ in range(repeats)]
    # In a process of its own: to measure from, this one has to stay small.
    cells = run([*me, "--side", "compare", "--to", work]).stdout.strip()
    made = json.loads((data / "manifest.json").read_text(encoding="utf-8"))
    notes = [
        f"- Command: `python benchmarks/correlation.py {' '.join(sys.argv[1:])}`".rstrip(),
        f"- Data: {made['dataset']}{', synthetic' if made['synthetic'] else ''}: "
        f"{made['rows']['train']:,} train rows, {made['vocabulary']['category'] - 2:,} categories, "
        f"layout {made['layout']}; {cells} cells occur, the same on both sides",
        f"- Machine: {machine()}; Python {platform.python_version()}",
        f"- Median of {repeats} runs of ours, highest peak; the loop ran once. `seconds` leaves "
        "out the start of Python and its imports, but for the command, which has them.",
        "- Where other programs use the cores too, go by the CPU time: the loop uses one, "
        "ours all of them.",
    ]
    return table(lines) + "\n\n" + "\n".join(notes)


def main() -> None:
    """Measure and print; see the module's text."""
    parser = argparse.ArgumentParser(description="Eq. 1 in all cells against a loop over dicts")
    parser.add_argument("--data", type=Path, help="a data set; made for the occasion by default")
    parser.add_argument("--scale", type=float, default=1.0, help="1.0 is the size of Electronics")
    parser.add_argument("--repeats", type=int, default=3, help="runs of ours (the loop: one)")
    parser.add_argument("--side", choices=["loop", "ours", "compare"], help=argparse.SUPPRESS)
    parser.add_argument("--to", type=Path, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.side == "compare":
        print(f"{compare(flags.to / 'loop.parquet', flags.to / 'ours.parquet'):,}")
        return
    if flags.side:
        side(flags.side, flags.data, flags.to)
        return
    with tempfile.TemporaryDirectory(prefix="tinprep-bench-") as folder:
        work = Path(folder)
        try:
            data = flags.data
            if data is None:
                raw, data = work / "raw", work / "data"
                say(f"making synthetic raw files and shards, scale {flags.scale:g}")
                scale = ["--scale", str(flags.scale)]
                run([tinprep(), "synthesize", "amazon", *scale, "--out", raw])
                run([tinprep(), "amazon", "--raw", raw, "--out", data])
            print(measure(data, work, flags.repeats))
        except CommandError as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
