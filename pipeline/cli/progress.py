"""Progress of long work on the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from schemas.terminal import Terminal


@contextmanager
def progress() -> Iterator[Any]:
    """Shows the steps: a live bar on a terminal, a line a step elsewhere.

    A step of 0 in all is no step, but a remark.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Terminal(stderr=True)
    if not console.is_terminal:
        begun: set[str] = set()

        def line(step: str, done: int, total: int | None) -> None:
            if step not in begun:
                begun.add(step)
                console.print(step, highlight=False, soft_wrap=True)

        yield line
        return
    columns = (TextColumn("{task.description:<24}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        tasks: dict[str, Any] = {}

        def show(step: str, done: int, total: int | None) -> None:
            if total == 0:
                console.print(step, highlight=False, soft_wrap=True)
                return
            if step not in tasks:
                for task in tasks.values():
                    bar.update(task, completed=1, total=1)
                tasks[step] = bar.add_task(step, total=total)
            bar.update(tasks[step], completed=done, total=total)

        yield show
        for task in tasks.values():
            bar.update(task, completed=1, total=1)
