from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import TimeRemainingColumn

from trainer.metrics import Metrics
from trainer.training import console as report_module
from trainer.training.console import LiveReport, result_table
from trainer.training.events import Ended, Evaluated, Progress, Started, Stopped
from trainer.training.runs import Result

METRICS = Metrics(rows=4, users=2, gauc=0.7512, pair_accuracy=None, auc=0.8, logloss=0.55)


def shown(terminal: bool, synthetic: bool = True) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=150)
    with LiveReport(console) as report:
        report(Started("beauty", synthetic, "tin", "tte-p", "cpu", 1000, 30, 12_345, 100, 10))
        report(Progress(10, 30, 0, 0.61234, 9876.0))
        report(Evaluated(10, METRICS, best=True))
        report(Progress(30, 30, 2, 0.51, 9000.0))
        report(Stopped(20, 30, 3, 10, 0.7512))
    return console.file.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_shows_rate_loss_and_gauc(terminal):
    text = shown(terminal)
    for part in ("synthetic data", "12,345 parameters", "9,000 rows/s", "0.5100", "0.7512"):
        assert part in text
    assert "stopped early at step 20 of 30: 3 evaluations" in text
    assert "kept are the weights of step 10, valid GAUC 0.7512" in text


def test_without_a_terminal_there_are_plain_lines():
    text = shown(terminal=False)
    assert "\x1b" not in text
    assert "\r" not in text
    assert len(text.splitlines()) == 5
    assert " left" not in text  # nothing is known of so few steps
    assert "batch 100, 10 steps an epoch, 3 epochs at most" in text
    assert ["GAUC" in line for line in text.splitlines()[1:4]] == [False, True, True]


@pytest.mark.parametrize(
    ("resumed", "steps", "batch", "left"),
    [(None, 300, 100, "20 s"), (0, 300, 100, "20 s"), (80, 300, 100, "100 s"),
     (None, 4_300, 100, "7 min"), (4, 4_300, 100, "7 min"), (None, 4_300, 256, "7 min"),
     (None, 2_900, 100, "5 min"), (90, 300, 100, None)],
)  # fmt: skip
def test_the_time_left_is_told_once_it_is_known(monkeypatch, resumed, steps, batch, left):
    console = Console(file=io.StringIO(), force_terminal=False, width=150)
    now = iter([0.0, 0.0, 10.0, 10.5])
    monkeypatch.setattr(report_module.time, "monotonic", lambda: next(now))
    with LiveReport(console) as report:
        report(Started("b", False, "tin", "tte-p", "cpu", 1000, steps, 9, batch, 10, resumed))
        report(Progress(100, steps, 0, 0.6, 9876.0))
        said = console.file.getvalue()
        report(Progress(101, steps, 0, 0.6, 9876.0))
    assert said.strip().endswith(f"about {left} left" if left else "loss 0.6000")
    long = (resumed, steps, batch) == (None, 4_300, 100)
    assert console.file.getvalue().count("--batch-size than 100") == long  # once


def test_the_bar_shows_the_time_left():
    console = Console(file=io.StringIO(), force_terminal=True, width=150)
    now = 0.0
    report = LiveReport(console)
    report.bar.get_time = lambda: now
    report(Started("beauty", False, "tin", "tte-p", "cpu", 1000, 30, 12_345, 100, 10))
    for step in (5, 10):
        now += 5.0
        report(Progress(step, 30, 0, 0.6, 9876.0))
    assert report.bar.tasks[0].time_remaining == pytest.approx(20, abs=1)
    assert any(isinstance(c, TimeRemainingColumn) for c in report.bar.columns)


@pytest.mark.parametrize("terminal", [False, True])
def test_trainings_side_by_side_are_told_apart(terminal):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=150)
    with LiveReport(console) as report:
        one, other = report.watch("a-tin-0"), report.watch("a-din-0")
        one(Started("beauty", False, "tin", "tte-p", "cpu", 1000, 30, 12_345, 100, 10))
        other(Started("beauty", False, "din", "none", "cpu", 1000, 30, 12_345, 100, 10))
        one(Evaluated(10, METRICS, best=True))
        other(Progress(20, 30, 2, 0.51, 9000.0))
        if report.bar is not None:
            assert [task.fields["gauc"] for task in report.bar.tasks] == ["0.7512 (best)", "-"]
            assert [task.completed for task in report.bar.tasks] == [0, 20]
        one(Ended(0.74321, 12.3))
        if report.bar is not None:
            assert [task.description for task in report.bar.tasks] == ["a-din-0: "]
    text = console.file.getvalue()
    assert "a-tin-0: test GAUC 0.7432, 12 s" in text
    if not terminal:
        assert "a-tin-0: step 10: valid GAUC 0.7512 (best)" in text
        assert "a-din-0: step 20 of 30" in text


@pytest.mark.parametrize("synthetic", [True, False])
def test_table_holds_every_metric_and_says_synthetic(synthetic):
    result = Result(
        run=Path("runs/x"),
        dataset="beauty",
        synthetic=synthetic,
        model="tin",
        encoding="tte-t",
        metrics={"valid": METRICS, "test": METRICS},
        best_step=7,
        steps=9,
        seconds=1.5,
        rows_per_second=1234.0,
        waiting=0.25,
        device="cpu",
        threads=1,
    )
    console = Console(file=io.StringIO(), width=150)
    console.print(result_table(result))
    text = console.file.getvalue()
    assert ("synthetic data" in text) == synthetic
    said = ("1,234 rows/s", "25% of it waiting", "step 7 of 9")
    for part in ("tin (tte-t)", "0.7512", "0.8000", "0.5500", *said, "│ -"):
        assert part in text or part.replace("│ -", " - ") in text
