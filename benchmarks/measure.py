"""Run a command as a child and say what it took.

`python benchmarks/measure.py COMMAND ...` prints the figures as one line of JSON.

A child's peak memory starts at what its parent held when it was started (Linux counts the memory
that `exec` throws away), so measure from a small process: this module imports nothing heavy, and
`run` refuses a figure that its own process may have set.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

SAMPLE_S = 0.1
LOOK_AGAIN = 10  # samples between two looks for new processes
PAGE = resource.getpagesize()
MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Measured:
    """What a command took.

    Attributes:
        seconds: wall time.
        cpu_s: user and system time of the command and the children it waited for.
        peak_mb: MiB resident at the peak of its largest process, as the kernel counted it.
        tree_mb: MiB resident in all its processes together at the peak, sampled (pages that they
            share count once each); None where there is no /proc.
        stdout: what it printed.

    """

    seconds: float
    cpu_s: float
    peak_mb: int
    tree_mb: int | None
    stdout: str


class CommandError(Exception):
    """The command ended with another exit code than 0."""


class Stopped(CommandError):
    """The command was stopped: it took more than it may."""


def by_turns(description: str) -> argparse.Namespace:
    """Read the flags of a benchmark that prepares the same raw files again and again."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("source", choices=["amazon", "alibaba"])
    parser.add_argument("--raw", type=Path, required=True, help="the raw files")
    parser.add_argument("--runs", type=int, default=3, help="of each way")
    parser.add_argument("--work", type=Path, help="folder for what is made and removed")
    parser.add_argument("--flags", default="", help='more of tinprep, as --flags="--layout ragged"')
    asked = parser.parse_args()
    if asked.work is not None:
        asked.work.mkdir(parents=True, exist_ok=True)
    return asked


def run(
    command: Sequence[str | Path],
    cwd: Path | None = None,
    *,
    limit_s: float = math.inf,
    limit_mb: float = math.inf,
) -> Measured:
    """Run `command` to its end and measure it.

    Args:
        command: what to run.
        cwd: where.
        limit_s: seconds that it may take.
        limit_mb: MiB that all its processes together may have resident.

    Raises:
        Stopped: it went beyond a limit.
        CommandError: it did not end with 0; the text holds the end of what it printed.
        RuntimeError: this process is too large to measure from.

    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.perf_counter()
        # A session of its own, by which its processes are found.
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=cwd,
            start_new_session=True,
        )
        watch = _Watch(child.pid, limit_s, limit_mb)
        watch.start()
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            raise
        finally:
            watch.ended.set()
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        watch.join()
        out.seek(0)
        err.seek(0)
        stdout, stderr = (file.read().decode("utf-8", "replace") for file in (out, err))
    if watch.stopped:
        raise Stopped(watch.stopped)
    if child.returncode != 0:
        told = (stderr or stdout)[-2000:]
        raise CommandError(f"exit code {child.returncode} of {_line(command)}\n{told}")
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if usage.ru_maxrss <= own:
        raise RuntimeError(
            f"the peak of {_line(command)} cannot be told from this process's own: "
            f"{usage.ru_maxrss * MAXRSS_UNIT >> 20} MiB; measure from a smaller process"
        )
    return Measured(
        seconds=seconds,
        cpu_s=usage.ru_utime + usage.ru_stime,
        peak_mb=usage.ru_maxrss * MAXRSS_UNIT >> 20,
        tree_mb=watch.peak >> 20 if watch.seen else None,
        stdout=stdout,
    )


class _Watch(threading.Thread):
    """Samples the resident bytes of all processes of a session until `ended` is set.

    Kills the session where it goes beyond a limit, and `stopped` says so.
    """

    def __init__(self, session: int, limit_s: float, limit_mb: float) -> None:
        super().__init__(daemon=True)
        self.session, self.peak, self.seen = session, 0, False
        self.limit_s, self.limit_mb, self.stopped = limit_s, limit_mb, ""
        self.ended = threading.Event()

    def run(self) -> None:
        stats: list[Path] = []
        begin = time.perf_counter()
        for sample in count():
            if self.ended.wait(SAMPLE_S):
                return
            # To look through every process takes a twentieth of a core, if it is done each time.
            if sample % LOOK_AGAIN == 0:
                stats = _of_session(self.session)
            resident = sum(map(_resident, stats))
            self.seen |= resident > 0
            self.peak = max(self.peak, resident)
            seconds = time.perf_counter() - begin
            if resident >> 20 > self.limit_mb:
                self.stopped = f"beyond {self.limit_mb / 1024:g} GiB after {seconds:.0f} s"
            elif seconds > self.limit_s:
                self.stopped = f"not finished after {self.limit_s / 60:g} minutes"
            if self.stopped:
                os.killpg(self.session, signal.SIGKILL)
                return


def _fields(stat: Path) -> list[str]:
    """What a process's `stat` says after its name; nothing where the process has ended."""
    try:
        # The name, in brackets, may itself hold blanks and brackets; after it come state, parent,
        # group, session, and, 21st from the state, the resident pages.
        return stat.read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _of_session(session: int) -> list[Path]:
    """The `stat` of each process of a session; none where there is no /proc."""
    every = Path("/proc").glob("[0-9]*/stat")
    return [stat for stat in every if _fields(stat)[3:4] == [str(session)]]


def _resident(stat: Path) -> int:
    """Bytes resident in a process."""
    return sum(int(pages) * PAGE for pages in _fields(stat)[21:22])


def _line(command: Sequence[str | Path]) -> str:
    return " ".join(map(str, command))


def main() -> None:
    """Measure the command given."""
    if len(sys.argv) < 2:
        sys.exit("usage: python benchmarks/measure.py COMMAND ...")
    try:
        measured = run(sys.argv[1:])
    except CommandError as error:
        sys.exit(str(error))
    figures = asdict(measured)
    sys.stderr.write(figures.pop("stdout"))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
