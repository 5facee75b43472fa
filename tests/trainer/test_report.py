from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from trainer.events import Evaluated, Progress, Started
from trainer.metrics import Metrics
from trainer.report import LiveReport, result_table
from trainer.runs import Result

METRICS = Metrics(rows=4, users=2, gauc=0.7512, pair_accuracy=None, auc=0.8, logloss=0.55)


def shown(terminal: bool, synthetic: bool = True) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=150)
    with LiveReport(console) as report:
        report(Started("beauty", synthetic, "tin", "tte-p", "cpu", 1000, 30, 12_345))
        report(Progress(10, 30, 0, 0.61234, 9876.0))
        report(Evaluated(10, METRICS, best=True))
        report(Progress(30, 30, 2, 0.51, 9000.0))
    return console.file.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_shows_rate_loss_and_gauc(terminal):
    text = shown(terminal)
    for part in ("synthetic data", "12,345 parameters", "9,000 rows/s", "0.5100", "0.7512"):
        assert part in text


def test_without_a_terminal_there_are_plain_lines():
    text = shown(terminal=False)
    assert "\x1b" not in text
    assert "\r" not in text
    assert len(text.splitlines()) == 4
    assert "about 0 s left" in text.splitlines()[-1]


@pytest.mark.parametrize("terminal", [False, True])
def test_a_second_training_starts_afresh(terminal):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=150)
    with LiveReport(console) as report:
        report(Started("beauty", False, "tin", "tte-p", "cpu", 1000, 30, 12_345))
        report(Evaluated(10, METRICS, best=True))
        report.line("run 2 of 2")
        report(Started("beauty", False, "din", "none", "cpu", 1000, 30, 12_345))
        if report.bar is not None:
            assert [task.fields["gauc"] for task in report.bar.tasks] == ["-"]
        report(Progress(30, 30, 2, 0.51, 9000.0))
    text = console.file.getvalue()
    assert "run 2 of 2" in text
    assert "din (none)" in text
    if not terminal:
        assert "valid GAUC -" in text.splitlines()[-1]


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
        device="cpu",
        threads=1,
    )
    console = Console(file=io.StringIO(), width=150)
    console.print(result_table(result))
    text = console.file.getvalue()
    assert ("synthetic data" in text) == synthetic
    for part in ("tin (tte-t)", "0.7512", "0.8000", "0.5500", "1,234 rows/s", "step 7 of 9", "│ -"):
        assert part in text or part.replace("│ -", " - ") in text
