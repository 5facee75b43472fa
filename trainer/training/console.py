"""What a person sees of a training: progress while it runs, a table at its end."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from schemas.terminal import Terminal
from trainer.metrics import MEASURES, Metrics
from trainer.training import events
from trainer.training.evaluation import Evaluation, Predicted
from trainer.training.runs import METRICS, Result

_LINE_EVERY_SECONDS = 10.0
# The first steps are slow, and say little of how long the others take.
_TELLING_STEPS, _TELLING_SECONDS = 20, 10.0
_LONG_SECONDS, _LARGER_BATCH = 300.0, 256


class LiveReport:
    """Shows trainings' events: a live bar for each on a terminal, plain lines elsewhere.

    Use it inside a `with`. Give it to `train` as `on_event`, or `watch` of it to `Trials`, whose
    trainings may be several at a time.
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
        self.hint = ""

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
            f"{event.rows:,} rows, {event.parameters:,} parameters, {event.device}; "
            f"batch {event.batch_size:,}, {event.per_epoch:,} steps an epoch, {_course(event)}"
        )
        if event.histories:
            self._line(f"histories read: {', '.join(event.histories)}")
        # A run that goes on keeps its batch size, and of several trainings each would say the same.
        if not self.name and event.resumed is None and event.batch_size < _LARGER_BATCH:
            self.hint = (
                f"a larger --batch-size than {event.batch_size}, e.g. {_LARGER_BATCH}, is faster "
                "and may cost accuracy"
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
        now = time.monotonic()
        left = self._left(event, now)
        if self.hint and left is not None and left > _LONG_SECONDS:
            self._line(f"hint: at this speed it takes {_span(left)} more; {self.hint}")
            self.hint = ""
        if self.bar is not None and self.task is not None:
            self.bar.update(
                self.task, completed=event.step, epoch=event.epoch + 1, rate=rate, loss=loss
            )
            return
        if now - self.last_line >= _LINE_EVERY_SECONDS or event.step == event.steps:
            self.last_line = now
            gauc = f", valid GAUC {self.gauc}" if self.gauc != "-" else ""
            self._line(
                f"step {event.step:,} of {event.steps:,}, epoch {event.epoch + 1}: {rate}, "
                f"loss {loss}{gauc}" + (f", about {_span(left)} left" if left is not None else "")
            )

    def _left(self, event: events.Progress, now: float) -> float | None:
        """Seconds to the last step by the speed so far; None while that says little."""
        done, seconds = event.step - self.before, now - self.begun
        if done < _TELLING_STEPS or seconds < _TELLING_SECONDS or event.step == event.steps:
            return None
        return seconds * (event.steps - event.step) / done

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
    for name in ("rows", *MEASURES.values()):
        table.add_column(name, justify="right")
    for split in ("test", "valid"):
        if split in result.metrics:
            table.add_row(split, *_cells(result.metrics[split]))
    return table


def evaluation_table(found: Evaluation) -> Table:
    """What a run's weights reach on a split, and on its ranges of history length."""
    table = Table(title=f"{_named(found.run)} on {found.split} of {found.data}")
    table.add_column("history length")
    for name in ("rows", *MEASURES.values()):
        table.add_column(name, justify="right")
    table.add_row("all", *_cells(found.metrics))
    for name, metrics in found.by_length.items():
        table.add_row(name, *_cells(metrics))
    return table


def prediction_lines(run: Path, to: Path, found: Predicted) -> list[str]:
    """What to say of the scores of a run that are in a file."""
    lines = [f"{found.rows:,} scores of {_named(run)}: {to}"]
    if found.empty:
        counts = ", ".join(f"{count:,} of {name}" for name, count in found.empty.items())
        lines.append(
            f"note: empty, as the data set has no id for them: {counts}. `row` is the record in "
            "the raw file, from its `first_row` in the manifest on: join it for their values"
        )
    return lines


def next_line(run: Path, data: Path) -> str:
    """The commands that may follow a training."""
    of, on = shlex.quote(str(run)), shlex.quote(str(data))
    return (
        f"next: tinprep evaluate {of} --by length; tinprep predict {of} {on} --out scores.parquet; "
        f"tinprep report {on} {of}"
    )


def _named(run: Path) -> str:
    """A run's folder, and that it is unfinished where it is."""
    return f"{run}" + ("" if (run / METRICS).exists() else " (unfinished: its best weights so far)")


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds <= 180 else f"{seconds / 60:.0f} min"


def _course(event: events.Started) -> str:
    """How long a training goes on at most."""
    epochs, rest = divmod(event.steps, event.per_epoch)
    if rest:
        return f"{event.steps:,} steps"
    return f"{epochs:,} epoch{'s' if epochs > 1 else ''} at most"


def _cells(m: Metrics) -> list[str]:
    return [f"{m.rows:,}", *(_figure(getattr(m, name)) for name in MEASURES)]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _dataset(name: str, synthetic: bool) -> str:
    return f"{name} (synthetic data)" if synthetic else name
