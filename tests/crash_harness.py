"""Kills `tinprep` at many moments, gives the same command again, and compares all that is made.

`python -m tests.crash_harness --beauty DIR --kuairand DIR --kills 60 --seed 0` (either folder may
be left out) prints a Markdown table, a line for each kill, and exits with 1 where a data set
differs from the uninterrupted one. It needs Linux: a moment is told by the CPU time in /proc, so
that a busy machine changes nothing, or by the number of changes made to files.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.record import Record
from tests.crash_command import ROOT, STORIES, Command, beauty, kuairand

TICKS = os.sysconf("SC_CLK_TCK")
PATIENCE_S = 300
FINISHED = "finished before"


@dataclass(frozen=True)
class Whole:
    """What an uninterrupted run makes, and what it and its rerun take.

    Attributes:
        content: of the data set.
        cpu_s: seconds of CPU time, by story.
        changes: of files and folders, by story.
    """

    content: dict[str, Any]
    cpu_s: dict[str, float]
    changes: dict[str, int]


@dataclass(frozen=True)
class Kill:
    """One kill: when, which step was at work, what was found afterwards."""

    story: str
    moment: str
    step: str
    fault: str


def content(out: Path) -> dict[str, Any]:
    """All that a data set is: each file's SHA-256, and the manifest without times and memory.

    The lock is no part of it.
    """
    found: dict[str, Any] = {}
    for path in sorted(out.rglob("*")):
        if path.is_dir() or path == out / ".lock":
            continue
        name = path.relative_to(out).as_posix()
        if name == "manifest.json":
            manifest = json.loads(path.read_text(encoding="utf-8"))
            manifest["config"].pop("out")
            for step in manifest["steps"]:
                del step["seconds"], step["peak_rss_mb"]
            # Two of Amazon's run side by side, and either may end first.
            manifest["steps"].sort(key=lambda step: step["name"])
            found[name] = manifest
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def fault(got: dict[str, Any], want: dict[str, Any]) -> str:
    """The names of what differs; nothing where nothing does."""
    return ", ".join(sorted(k for k in {*got, *want} if got.get(k) != want.get(k)))


def finished_shards(out: Path) -> dict[Path, os.stat_result]:
    """The shards of the buckets that an interrupted run has finished."""
    record = Record.read(out)
    done = {} if record is None else record.made
    buckets = [results["shards"] for step, results in done.items() if step.startswith("transform")]
    return {out / one["path"]: (out / one["path"]).stat() for each in buckets for one in each}


def finish(command: Command, out: Path, *more: str, changes: int | None = None) -> str:
    """Run to the end; returns what it printed.

    Raises:
        RuntimeError: it did not end with 0.
    """
    line = command.line(out, *more, changes=changes)
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode} of {command.name}: {done.stderr}")
    return done.stderr + done.stdout


def changes_of(said: str) -> int:
    """How many changes a run that counted them has printed."""
    return int(said.rsplit("changes", 1)[1])


def whole(command: Command, work: Path) -> Whole:
    """Run each story without an interruption, and count what can be interrupted."""
    out = work / "whole"
    made: dict[str, Any] = {}
    cpu_s, changes = {}, {}
    for story, more in STORIES.items():
        before = os.times()
        said = finish(command, out, *more, changes=0)
        after = os.times()
        cpu_s[story] = sum(after[2:4]) - sum(before[2:4])
        changes[story] = changes_of(said)
        made = made or content(out)
        if differs := fault(content(out), made):
            raise RuntimeError(f"two runs differ without any kill: {differs}")
    shutil.rmtree(out)
    return Whole(made, cpu_s, changes)


def kill_at_cpu(line: list[str], cpu_s: float) -> str:
    """Start a command and kill it when it has taken so much CPU time; its last step."""
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=said)
        give_up = time.monotonic() + PATIENCE_S
        while child.poll() is None and cpu_taken(child.pid) < cpu_s:
            if time.monotonic() > give_up:
                raise RuntimeError(f"{line} does not end")
            time.sleep(0.002)
        child.kill()
        return _step(child.wait(), said)


def kill_at_change(line: list[str]) -> str:
    """Start a command that kills itself; its last step."""
    with tempfile.TemporaryFile() as said:
        ended = subprocess.run(
            line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=said, timeout=PATIENCE_S, check=False
        )
        return _step(ended.returncode, said)


def interrupt(
    line: list[str], step: str, after_s: float, number: signal.Signals
) -> tuple[int, str]:
    """Send a signal a moment after a step has begun.

    Returns:
        The exit code, and what was printed on standard error from the step's name on.
    """
    silent, pipe = subprocess.DEVNULL, subprocess.PIPE
    with subprocess.Popen(line, cwd=ROOT, stdout=silent, stderr=pipe, text=True) as child:
        assert child.stderr is not None
        for said in child.stderr:
            if said.strip() == step:
                time.sleep(after_s)
                child.send_signal(number)
                break
        rest = child.stderr.read()
    return child.returncode, rest


def cpu_taken(process: int) -> float:
    """Seconds of CPU time that a running child took so far, all its threads together."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _step(code: int, said: Any) -> str:
    said.seek(0)
    lines = said.read().decode().splitlines()
    if code == 0:
        return FINISHED
    if code != -signal.SIGKILL:
        raise RuntimeError(f"exit code {code} instead of a kill: {lines}")
    return lines[-1] if lines else "start"


def kills(
    command: Command, expected: Whole, count: int, seed: int, work: Path
) -> Iterator[list[Kill]]:
    """Kill `count` times; yields the kills of one story, which ends with a run to the end.

    A story is a new data set, the rerun of a finished one, or its replacement (`--force`), with
    one to four kills in a row. Every kill is followed by a look at the folder: it holds a manifest
    only if it holds the whole data set. At the end all must be as without a kill, and nothing more.
    """
    draw = random.Random(seed)
    made = 0
    while made < count:
        story = draw.choice(("new", "new", "new", "new", "rerun", "replace"))
        out = work / f"{command.name}-{made}"
        if story != "new":
            finish(command, out)
        told: list[Kill] = []
        for _ in range(min(1 if story == "rerun" else draw.randint(1, 4), count - made)):
            if draw.random() < 0.5:
                cpu_s = draw.uniform(0.1, expected.cpu_s[story])
                moment = f"{cpu_s:.2f} s of CPU"
                step = kill_at_cpu(command.line(out, *STORIES[story]), cpu_s)
            else:
                change = draw.randint(1, expected.changes[story])
                moment = f"before change {change}"
                step = kill_at_change(command.line(out, *STORIES[story], changes=change))
            if step == FINISHED:  # less is left to do after a kill: this was none
                break
            whole_there = (out / "manifest.json").exists()
            told.append(Kill(story, moment, step, _half(out, expected) if whole_there else ""))
        finish(command, out)
        last = fault(content(out), expected.content)
        shutil.rmtree(out)
        made += len(told)
        if told:
            yield [*told[:-1], _with(told[-1], last)]
        elif last:
            raise RuntimeError(f"{story} differs without any kill: {last}")


def _half(out: Path, expected: Whole) -> str:
    """What is wrong with a data set that was just killed and has a manifest: work may be left."""
    there = {name: what for name, what in content(out).items() if not name.startswith(".work/")}
    return fault(there, expected.content)


def _with(kill: Kill, more: str) -> Kill:
    return Kill(kill.story, kill.moment, kill.step, ", ".join(filter(None, (kill.fault, more))))


def main() -> None:
    """Kill, compare, print the table."""
    parser = argparse.ArgumentParser(description="Kill tinprep at many moments and compare.")
    parser.add_argument("--beauty", type=Path, help="folder of the Beauty files")
    parser.add_argument("--kuairand", type=Path, help="folder of the KuaiRand files")
    parser.add_argument("--kills", type=int, default=60, help="of each")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    commands = [beauty(asked.beauty)] if asked.beauty else []
    commands += [kuairand(asked.kuairand)] if asked.kuairand else []
    faults = 0
    tell = sys.stdout.write
    tell("| data | story | killed | in step | then |\n|---|---|---|---|---|\n")
    for command in commands:
        with tempfile.TemporaryDirectory() as folder:
            expected = whole(command, Path(folder))
            for story in kills(command, expected, asked.kills, asked.seed, Path(folder)):
                for kill in story:
                    faults += bool(kill.fault)
                    found = f"differs: {kill.fault}" if kill.fault else "identical"
                    cells = (command.name, kill.story, kill.moment, kill.step, found)
                    tell(f"| {' | '.join(cells)} |\n")
                sys.stdout.flush()
    tell(f"\n{faults} faults\n")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
