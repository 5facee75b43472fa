"""How long a training goes on, when it is measured, and what its log holds."""

from __future__ import annotations

import csv
from importlib.util import find_spec

import pytest

from schemas.errors import InputError, UsageError
from trainer.metrics import Metrics
from trainer.training import log as logs
from trainer.training.config import TrainConfig
from trainer.training.log import Log
from trainer.training.schedule import Schedule
from trainer.training.train import train

SETTLED = {
    "batch_size": 10,
    "steps": None,
    "epochs": 2,
    "evaluations": 2,
    "evaluate_every": None,
}


def measured(plan):
    per = plan.per_epoch
    return [s for s in range(1, plan.steps + 1) if plan.measures(s, (s - 1) % per + 1)]


@pytest.mark.parametrize(
    ("options", "steps", "at"),
    [
        ({}, 20, [5, 10, 15, 20]),
        ({"steps": 13}, 13, [5, 10, 13]),
        ({"steps": 13, "evaluations": None, "evaluate_every": 4}, 13, [4, 8, 12, 13]),
        ({"evaluations": None, "evaluate_every": 7}, 20, [7, 14, 20]),
        ({"steps": 35, "evaluations": 1}, 35, [10, 20, 30, 35]),
    ],
)
def test_plans(options, steps, at):
    plan = Schedule.of(SETTLED | options, rows=95, has_valid=True)
    assert (plan.steps, measured(plan)) == (steps, at)
    assert measured(Schedule.of(SETTLED | options, rows=95, has_valid=False)) == []


def test_trains_for_the_steps_given_over_as_many_epochs(planted, tmp_path):
    small = {"dim": 8, "hidden": (8,), "threads": 1, "device": "cpu"}
    config = TrainConfig(planted, tmp_path / "run", steps=30, evaluate_every=8, **small)
    assert train(config).steps == 30  # 12 make an epoch
    with (tmp_path / "run/log.csv").open(encoding="utf-8") as file:
        lines = [(int(x["step"]), int(x["epoch"])) for x in csv.DictReader(file)]
    assert lines == [(8, 0), (16, 1), (24, 1), (30, 2)]


METRICS = Metrics(rows=4, users=2, gauc=0.75, pair_accuracy=None, auc=0.8, logloss=0.55)


def test_a_log_that_is_gone_on_with_holds_each_step_once(tmp_path):
    log = Log(tmp_path, tensorboard=False)
    log.begin(0)
    for step in (5, 10, 15):
        log.add(step, 0, 0.5, step / 2, METRICS)
    with log.path.open("a", encoding="utf-8") as file:
        file.write("20,0,0.")  # a kill in the middle of a line
    log.begin(10)
    log.add(15, 0, 0.4, 9.0, METRICS)
    with log.path.open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [(x["step"], x["train_loss"]) for x in lines] == [
        ("5", "0.5"),
        ("10", "0.5"),
        ("15", "0.4"),
    ]
    assert lines[0]["pair_accuracy"] == ""
    whole = log.path.read_text()
    for damaged in (whole.replace("10,0,0.5", "10,0"), whole.replace("10,", "4,"), whole[1:], ""):
        log.path.write_text(damaged)
        with pytest.raises(InputError, match="log cannot be read"):
            log.begin(10)
        assert log.path.read_text() == damaged
    # A log that is older than a metric.
    older = [line.split(",") for line in whole.splitlines(keepends=True)]
    log.path.write_text("".join(",".join(line[:4] + line[5:]) for line in older))
    log.begin(15)
    assert log.path.read_text() == whole


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_tensorboard_shows_what_the_log_holds(tmp_path):
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    for kept in (0, 10):  # begun, then gone on with after a kill at step 15
        log = Log(tmp_path, tensorboard=True)
        log.begin(kept)
        for step in range(kept + 5, 20, 5):
            log.add(step, 0, step / 100, step / 2, METRICS)
    log.close()
    found = [
        (value.tag, event.step, round(value.tensor.float_val[0], 6))
        for path in sorted((tmp_path / "tensorboard").iterdir())
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
    ]
    losses = [(step, loss) for tag, step, loss in found if tag == "train/loss"]
    assert losses == [(5, 0.05), (10, 0.1), (15, 0.15)]
    assert {tag for tag, _, _ in found} == {
        "train/loss",
        "valid/gauc",
        "valid/auc",
        "valid/logloss",
    }


def test_without_tensorboard_it_says_what_to_install(planted, tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "find_spec", lambda name: None)
    config = TrainConfig(planted, tmp_path / "run", tensorboard=True, device="cpu")
    with pytest.raises(UsageError, match="not installed") as caught:
        train(config)
    assert "tinprep[tensorboard]" in str(caught.value)
    assert not (tmp_path / "run").exists()
