"""What a person sees of a training: progress while it runs, a table at its end."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from schemas.terminal import Terminal
from trainer.metrics import Metrics
from trainer.training import events
from trainer.training.evaluation import Evaluation
from trainer.training.runs import METRICS, Result

_LINE_EVERY_SECONDS = 10.0


class LiveReport:
    """Shows trainings' events: a live bar for each on a terminal, plain lines elsewhere.

    Use it inside a `with`. Give it to `train` as `on_event`, or `watch` of it to `Trials`, whose
    trainings may be several at a time.

    Args:
        console: where to; standard error by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Terminal(stderr=True)
        self.bar: Progress | None = None
        if self.console.is_terminal:
            self.bar = Progress(
                TextColumn("{task.description}epoch {task.fields[epoch]}", markup=False),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f}%"),
                TextColumn("{task.fields[rate]}"),
                TextColumn("loss {task.fields[loss]}"),
                TextColumn("valid GAUC {task.fields[gauc]}"),
                TimeRemainingColumn(elapsed_when_finished=True),
                console=self.console,
            )
        self._one = _Shown(self)

    def __enter__(self) -> LiveReport:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def __call__(self, event: events.Event) -> None:
        """Show an event of the only training."""
        self._one(event)

    def watch(self, name: str) -> events.OnEvent:
        """What shows the events of one of several trainings, by its name."""
        return _Shown(self, name)

    def line(self, text: str) -> None:
        """Show a line of text, above the bars where there are some."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


class _Shown:
    """One training's part of a report."""

    def __init__(self, report: LiveReport, name: str = "") -> None:
        self.report, self.bar, self.name = report, report.bar, name
        self.task: TaskID | None = None
        self.gauc = "-"
        self.last_line = 0.0
        self.begun, self.before = time.monotonic(), 0

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.Started):
            self._started(event)
        elif isinstance(event, events.Progress):
            self._progress(event)
        elif isinstance(event, events.Evaluated):
            self.gauc = _figure(event.metrics.gauc) + (" (best)" if event.best else "")
            if self.bar is None:
                self._line(f"step {event.step:,}: valid GAUC {self.gauc}")
            elif self.task is not None:
                self.bar.update(self.task, gauc=self.gauc)
        elif isinstance(event, events.Stopped):
            self._line(
                f"stopped early at step {event.step:,} of {event.steps:,}: {event.evaluations} "
                "evaluations in a row without a better valid GAUC (--patience); kept are the "
                f"weights of step {event.best_step:,}, valid GAUC {_figure(event.best_gauc)}"
            )
        elif isinstance(event, events.Found):
            self._line("the run was finished already: nothing is trained")
        elif self.name:  # an only training's table follows
            self._line(f"test GAUC {_figure(event.gauc)}, {event.seconds:.0f} s")
            if self.bar is not None and self.task is not None:
                self.bar.remove_task(self.task)

    def _started(self, event: events.Started) -> None:
        # What is left is told by the speed since here, not since an interrupted run's beginning.
        self.begun, self.before = time.monotonic(), event.resumed or 0
        self._line(
            f"{event.model} ({event.encoding}) on {_dataset(event.dataset, event.synthetic)}: "
            f"{event.rows:,} rows, {event.parameters:,} parameters, {event.device}"
        )
        if event.advice and not self.name:  # of several trainings each would say the same
            self._line(event.advice)
        if event.resumed is not None:
            self._line(
                f"going on after step {event.resumed:,}"
                if event.resumed
                else "the run has no checkpoint yet: from its first step"
            )
        for note in event.notes:
            self._line(f"note: {note}")
        if self.bar is not None:
            self.task = self.bar.add_task(
                f"{self.name}: " if self.name else "",
                total=event.steps,
                completed=self.before,
                epoch=1,
                rate="",
                loss="-",
                gauc=self.gauc,
            )

    def _progress(self, event: events.Progress) -> None:
        rate, loss = f"{event.rows_per_second:,.0f} rows/s", f"{event.loss:.4f}"
        if self.bar is not None and self.task is not None:
            self.bar.update(
                self.task, completed=event.step, epoch=event.epoch + 1, rate=rate, loss=loss
            )
            return
        now = time.monotonic()
        if now - self.last_line >= _LINE_EVERY_SECONDS or event.step == event.steps:
            self.last_line = now
            done = max(1, event.step - self.before)
            left = (now - self.begun) * (event.steps - event.step) / done
            self._line(
                f"step {event.step:,} of {event.steps:,}, epoch {event.epoch + 1}: "
                f"{rate}, loss {loss}, valid GAUC {self.gauc}, about {left:.0f} s left"
            )

    def _line(self, text: str) -> None:
        self.report.line(f"{self.name}: {text}" if self.name else text)


def result_table(result: Result) -> Table:
    """The table at the end of a training: what the kept weights reach, and what it took."""
    table = Table(
        title=f"{result.model} ({result.encoding}) on {_dataset(result.dataset, result.synthetic)}",
        caption=(
            f"weights of step {result.best_step:,} of {result.steps:,}; "
            f"{result.seconds:.1f} s, {result.rows_per_second:,.0f} rows/s in training "
            f"on {result.device}, {result.waiting:.0%} of it waiting for batches; {result.run}"
        ),
    )
    table.add_column("split")
    for name in ("rows", "GAUC", "pair accuracy", "AUC", "logloss"):
        table.add_column(name, justify="right")
    for split in ("test", "valid"):
        if split in result.metrics:
            table.add_row(split, *_cells(result.metrics[split]))
    return table


def evaluation_table(found: Evaluation) -> Table:
    """What a run's weights reach on a split, and on its ranges of history length."""
    unfinished = "" if (found.run / METRICS).exists() else " (unfinished: its best weights so far)"
    table = Table(title=f"{found.run}{unfinished} on {found.split} of {found.data}")
    table.add_column("history length")
    for name in ("rows", "GAUC", "pair accuracy", "AUC", "logloss"):
        table.add_column(name, justify="right")
    table.add_row("all", *_cells(found.metrics))
    for name, metrics in found.by_length.items():
        table.add_row(name, *_cells(metrics))
    return table


def _cells(m: Metrics) -> list[str]:
    return [f"{m.rows:,}", *(_figure(x) for x in (m.gauc, m.pair_accuracy, m.auc, m.logloss))]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _dataset(name: str, synthetic: bool) -> str:
    return f"{name} (synthetic data)" if synthetic else name
