"""How a download shows on stderr: a bar, or plain lines where that is no terminal."""

from __future__ import annotations

import time

from rich import progress as rich
from rich.console import Console
from rich.filesize import decimal

from schemas.plain import printable

LINE_EVERY_S = 10.0


class Progress:
    """Told of one download after another; sizes are bytes.

    Args:
        console: where it shows; stderr by default.
        every_s: seconds from one line to the next.
    """

    def __init__(self, console: Console | None = None, every_s: float = LINE_EVERY_S) -> None:
        self._console, self._every_s = console or Console(stderr=True), every_s
        self._bar = rich.Progress(
            rich.TextColumn("{task.description}"),
            rich.BarColumn(),
            rich.DownloadColumn(),
            rich.TransferSpeedColumn(),
            rich.TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._told = 0.0

    def start(self, name: str, done: int, total: int | None) -> None:
        """Show that the file `name` starts, or goes on, with `done` bytes on the disk already.

        A file that starts over replaces its bar. A total of None is not known.
        """
        self._bar.start()
        for task in self._bar.tasks:
            if task.description == name:
                self._bar.remove_task(task.id)
        self._bar.add_task(name, completed=done, total=total)
        self._first, self._told = done, time.monotonic()
        if self._bar.disable:
            size = "of unknown size" if total is None else decimal(total)
            kept = f", {decimal(done)} of it here already" if done else ""
            self.note(f"{name}: downloading, {size}{kept}")

    def advance(self, size: int) -> None:
        """`size` more bytes of the file that was started last are on the disk."""
        task, now = self._bar.tasks[-1], time.monotonic()
        self._bar.advance(task.id, size)
        done, total = int(task.completed), task.total
        if not self._bar.disable or (done != total and now - self._told < self._every_s):
            return
        self._told = now
        speed = (done - self._first) / max(task.elapsed or 0.0, 1e-3)
        of = left = ""
        if total:
            of = f" of {decimal(int(total))} ({done / total:.0%})"
            left = f", {(total - done) / speed:,.0f} s left" if speed else ""
        self.note(f"{task.description}: {decimal(done)}{of}, {decimal(int(speed))}/s{left}")

    def note(self, text: str) -> None:
        """Show a sentence worth telling, e.g. why an address is given up; above the bar."""
        self._console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        """Nothing more comes; also called after an error."""
        self._bar.stop()
