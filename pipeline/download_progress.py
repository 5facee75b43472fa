"""How a download shows on stderr: a bar, or plain lines where that is no terminal.

This knows nothing of the network; `pipeline.fetch` picks one and `pipeline.download` feeds it.
"""

from __future__ import annotations

import sys
import time
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as RichProgress

LINE_EVERY_S = 10.0


class Progress(Protocol):
    """Told of one download after another. Sizes are bytes; a total of None is not known."""

    def start(self, name: str, done: int, total: int | None) -> None:
        """Show that the file `name` starts, or goes on, with `done` bytes on the disk already."""

    def advance(self, size: int) -> None:
        """`size` more bytes of the file that was started last are on the disk."""

    def note(self, text: str) -> None:
        """Show a sentence worth telling, e.g. why an address is given up."""

    def stop(self) -> None:
        """Nothing more comes; also called after an error."""


class BarProgress:
    """A bar with bytes, speed and time left, for a terminal."""

    def __init__(self, console: Console) -> None:
        self._rich = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._name: str | None = None
        self._task = TaskID(0)

    def start(self, name: str, done: int, total: int | None) -> None:
        """See `Progress`. A file that starts over replaces its bar."""
        self._rich.start()
        if name == self._name:
            self._rich.remove_task(self._task)
        self._name = name
        self._task = self._rich.add_task(name, completed=done, total=total)

    def advance(self, size: int) -> None:
        """See `Progress`."""
        self._rich.advance(self._task, size)

    def note(self, text: str) -> None:
        """See `Progress`; the text stands above the bar."""
        self._rich.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        """See `Progress`."""
        self._rich.stop()


class LineProgress:
    """A line at the start, every `every_s` seconds and at the end, for a log."""

    def __init__(self, stream: TextIO, every_s: float = LINE_EVERY_S) -> None:
        self._stream, self._every_s = stream, every_s
        self._name, self._done, self._first = "", 0, 0
        self._total: int | None = None
        self._began = self._told = time.monotonic()

    def start(self, name: str, done: int, total: int | None) -> None:
        """See `Progress`."""
        self._name, self._done, self._first, self._total = name, done, done, total
        self._began = self._told = time.monotonic()
        size = "of unknown size" if total is None else f"{total / 1e6:,.1f} MB"
        kept = f", {done / 1e6:,.1f} MB of it here already" if done else ""
        self.note(f"{name}: downloading, {size}{kept}")

    def advance(self, size: int) -> None:
        """See `Progress`."""
        self._done += size
        now = time.monotonic()
        if now - self._told >= self._every_s or self._done == self._total:
            self._told = now
            self.note(self._line(now - self._began))

    def _line(self, seconds: float) -> str:
        speed = (self._done - self._first) / max(seconds, 1e-3)
        line = f"{self._name}: {self._done / 1e6:,.1f} MB"
        if self._total:
            line += f" of {self._total / 1e6:,.1f} MB ({self._done / self._total:.0%})"
        line += f", {speed / 1e6:,.2f} MB/s"
        if self._total and speed > 0:
            line += f", {(self._total - self._done) / speed:,.0f} s left"
        return line

    def note(self, text: str) -> None:
        """See `Progress`."""
        self._stream.write(text + "\n")
        self._stream.flush()

    def stop(self) -> None:
        """See `Progress`."""


def stderr_progress() -> Progress:
    """Pick a bar where stderr is a terminal, plain lines where it is not."""
    console = Console(stderr=True)
    return BarProgress(console) if console.is_terminal else LineProgress(sys.stderr)
