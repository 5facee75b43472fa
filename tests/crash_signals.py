"""Ends commands by signals at many moments, gives each again, and compares what it makes.

`python -m tests.crash_signals --kills 60 --seed 0` prints a Markdown table, a line for each
signal, and exits with 1 where something is wrong. It needs Linux: a moment is told by the CPU time
in /proc. What a process does before its signals are handled, some hundredths of a second, is the
interpreter's own and is left out.
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
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from schemas.replacing import UNFINISHED
from tests.crash_command import ROOT
from tests.crash_harness import PATIENCE_S, cpu_taken, fault
from tests.crash_harness import content as of_data
from tests.golden_sets import raw_amazon

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)
COMMANDS = ("prepare", "train", "predict", "report", "correlate", "reproduce")
TRAIN = ("--dim", "4", "--hidden", "4", "--epochs", "3", "--threads", "1", "--device", "cpu",
         "--checkpoint-seconds", "0", "--resume")  # fmt: skip
REPRODUCE = ("reproduce", "table1", "--setting", "small", "--models", "din,tin", "--seeds", "1",
             "--jobs", "2", "--dim", "2")  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a command ended: what was sent and when, and what is wrong."""

    command: str
    number: str
    moment: str
    code: int
    faults: tuple[str, ...]


def commands(folder: Path) -> dict[str, list[str]]:
    """The commands, each but for the place that it writes to, which comes last, and for `@`.

    Args:
        folder: for the raw files, made here; for `data` and a `run` on it, which others read.
    """
    raw, data, run = raw_amazon(folder / "raw"), folder / "data", folder / "run"
    prepare = ["amazon", "--category", "Beauty", "--max-rejected", "20%", "--buckets", "3"]
    return {
        "prepare": [*prepare, "--raw", str(raw), "--out"],
        "train": ["train", str(data), *TRAIN, "--run"],
        "predict": ["predict", str(run), str(data), "--out"],
        "report": ["report", str(data), str(run), "--out"],
        "correlate": ["correlate", str(data), "--out"],
        "reproduce": [*REPRODUCE, str(data), "--runs", "@-runs", "--out"],
    }


def content(command: str, to: Path) -> dict[str, Any]:
    """What a command made, without times."""
    if command == "prepare":
        return of_data(to)
    if command != "train":
        files = [to] if to.is_file() else sorted(to.iterdir())
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    log = [line.rsplit(",", 1)[0] for line in (to / "log.csv").read_text().splitlines()]
    weights = torch.load(to / "best.pt", weights_only=True)["weights"]
    found = {name: weight.tolist() for name, weight in weights.items()}
    metrics = json.loads((to / "metrics.json").read_text(encoding="utf-8"))["metrics"]
    names = sorted(path.name for path in to.iterdir())
    return {"log": log, "weights": found, "metrics": metrics, "names": names}


def stopped(
    command: str,
    arguments: Sequence[str],
    to: Path,
    number: signal.Signals,
    after_s: float,
    whole_group: bool,
) -> Ended:
    """Send a signal when a command has taken so much CPU time, and look at what is left."""
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(
            _line(arguments, to),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,
            # Whoever runs this may have it ignored, as nohup does.
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        )
        give_up = time.monotonic() + PATIENCE_S
        while child.poll() is None and not (
            _handled(child.pid) and cpu_taken(child.pid) >= after_s
        ):
            if time.monotonic() > give_up:
                raise RuntimeError(f"{arguments} does not end")
            time.sleep(0.002)
        with suppress(ProcessLookupError):  # it has just ended
            if whole_group:  # as a terminal sends it
                os.killpg(child.pid, number)
            else:
                child.send_signal(number)
        code = child.wait(PATIENCE_S)
        said.seek(0)
        text = said.read().decode()
    faults = tuple(_faults(code, text, child.pid, to, number))
    return Ended(command, number.name, f"{after_s:.2f} s", code, faults)


def _faults(code: int, text: str, session: int, to: Path, number: signal.Signals) -> Iterator[str]:
    killed = number == signal.SIGKILL
    if code not in (0, -number if killed else 130):
        yield f"exit code {code}: {text[-200:]}"
    if code == 130 and text.count("error: ") != 1:
        yield f"not one message: {text[-300:]}"
    if "Traceback" in text or "Exception ignored" in text:
        yield f"traceback: {text[-300:]}"
    until = time.monotonic() + 60  # Python's own helper for processes ends after its parent
    while (left := _session(session)) and time.monotonic() < until:
        time.sleep(0.02)
    if left:
        yield f"processes left: {left}"
    if not killed:
        half = [path.name for path in to.parent.rglob("*") if UNFINISHED.fullmatch(path.name)]
        yield from (f"half-written: {name}" for name in half)
    if code == 130 and to.is_file():
        yield "written, though interrupted"


def _line(arguments: Sequence[str], to: Path) -> list[str]:
    given = [word.replace("@", str(to)) for word in arguments]
    return [sys.executable, "-c", "from pipeline.start import run; run()", *given, str(to)]


def _run(arguments: Sequence[str], to: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _line(arguments, to), cwd=ROOT, capture_output=True, text=True, check=False
    )


def _takes(arguments: Sequence[str], to: Path) -> float:
    """Seconds of CPU time that a command takes, without its children."""
    silent, taken = subprocess.DEVNULL, 0.0
    child = subprocess.Popen(_line(arguments, to), cwd=ROOT, stdout=silent, stderr=silent)
    while child.poll() is None:
        taken = cpu_taken(child.pid)
        time.sleep(0.01)
    if child.returncode:
        raise RuntimeError(f"{arguments} fails")
    return taken


def _handled(process: int) -> bool:
    """Whether a process handles SIGHUP by itself."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    caught = next((line.split()[1] for line in lines if line.startswith("SigCgt")), "0")
    return bool(int(caught, 16) & 1 << (signal.SIGHUP - 1))


def _session(leader: int) -> list[int]:
    """The processes of a session that are there still."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def stories(
    names: Sequence[str], count: int, seed: int, folder: Path, early_s: float = 0.0
) -> Iterator[Ended]:
    """Stop commands `count` times, in turns; each is then given again, and must make the same.

    Args:
        names: of the commands.
        count: of the signals.
        seed: of the moments.
        folder: to work in.
        early_s: send about every other signal within so many seconds of CPU time.
    """
    draw = random.Random(seed)
    every = commands(folder)
    whole: dict[str, tuple[dict[str, Any], float]] = {}
    for name in dict.fromkeys(("prepare", "train", *names)):
        apart = f"whole-{name}/{_place(name)}"
        place = folder / {"prepare": "data", "train": "run"}.get(name, apart)
        place.parent.mkdir(exist_ok=True)
        takes_s = _takes(every[name], place)
        whole[name] = content(name, place), takes_s
    for turn in range(count):
        name = names[turn % len(names)]
        number = SIGNALS[(turn // len(names) + turn % len(names)) % len(SIGNALS)]
        want, takes_s = whole[name]
        most = min(early_s, takes_s) if early_s and draw.random() < 0.5 else takes_s
        to = folder / f"{turn}" / _place(name)
        to.parent.mkdir()
        after_s, whole_group = draw.uniform(0, 0.97 * most), draw.random() < 0.5
        ended = stopped(name, every[name], to, number, after_s, whole_group)
        again = _run(every[name], to)
        faults = list(ended.faults)
        if again.returncode:
            faults.append(f"given again: {again.returncode}: {again.stderr[-300:]}")
        elif differs := fault(content(name, to), want):
            faults.append(f"differs: {differs}")
        yield Ended(name, ended.number, ended.moment, ended.code, tuple(faults))
        shutil.rmtree(to.parent)


def _place(command: str) -> str:
    return {"predict": "scores.csv", "report": "page.html"}.get(command, "to")


def main() -> None:
    """Stop, compare, print the table."""
    parser = argparse.ArgumentParser(description="Stop tinprep by signals at many moments.")
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", default=",".join(COMMANDS))
    parser.add_argument("--early-s", type=float, default=2.0)
    asked = parser.parse_args()
    tell, faults = sys.stdout.write, 0
    tell("| command | signal | CPU time | exit code | then |\n|---|---|---|---|---|\n")
    with tempfile.TemporaryDirectory() as folder:
        names = asked.commands.split(",")
        for one in stories(names, asked.kills, asked.seed, Path(folder), asked.early_s):
            faults += bool(one.faults)
            then = "; ".join(one.faults).replace("\n", " ") or "sound"
            tell(f"| {one.command} | {one.number} | {one.moment} | {one.code} | {then} |\n")
            sys.stdout.flush()
    tell(f"\n{faults} faults\n")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
