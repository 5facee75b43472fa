from __future__ import annotations

import copy
import csv
import json
from dataclasses import replace

import pytest
import torch

from schemas.errors import InputError, UsageError
from trainer.data.inputs import inputs_of
from trainer.data.shards import Shards
from trainer.metrics import MEASURES
from trainer.models.interest import build
from trainer.training import loop as training
from trainer.training.config import TrainConfig
from trainer.training.events import Evaluated, Progress, Started, Stopped
from trainer.training.runs import load
from trainer.training.scoring import score
from trainer.training.train import gradients, train


def config(data, run, **options):
    small = {"dim": 8, "hidden": (16, 8), "epochs": 3, "lr": 0.01, "threads": 1, "device": "cpu"}
    return TrainConfig(data=data, run=run, **small | options)


def summary(run):
    return json.loads((run / "metrics.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def finished(planted, tmp_path_factory):
    """One training to look at: its config, result and events."""
    events = []
    cfg = config(planted, tmp_path_factory.mktemp("runs") / "tin", epochs=12, patience=100)
    return cfg, train(cfg, events.append), events


def test_learns_the_planted_effect(finished):
    _, result, _ = finished
    assert result.metrics["test"].gauc > 0.75
    assert result.metrics["test"].pair_accuracy == result.metrics["test"].gauc


def test_the_kept_weights_are_the_best_and_are_what_is_reported(finished, planted):
    cfg, result, events = finished
    evaluated = [e for e in events if isinstance(e, Evaluated)]
    best = max(evaluated, key=lambda e: e.metrics.gauc)
    assert result.best_step == best.step
    assert best.step < evaluated[-1].step  # or the test could not tell best from last
    assert result.metrics["valid"] == best.metrics
    model, shards = load(cfg.run), Shards(planted)
    for split in ("valid", "test"):
        again, _ = score(model, shards, split)
        assert again.gauc == pytest.approx(result.metrics[split].gauc, abs=1e-9)
        assert again.logloss == pytest.approx(result.metrics[split].logloss, rel=1e-5)


def test_metrics_json_is_complete(finished):
    cfg, result, _ = finished
    m = summary(cfg.run)
    assert m["metrics"]["test"]["gauc"] == result.metrics["test"].gauc
    assert set(m["metrics"]["test"]) == {"rows", "users", *MEASURES}
    assert (m["dataset"], m["synthetic"]) == ("planted", True)
    assert (m["model"], m["encoding"], m["best_step"]) == ("tin", "tte-p", result.best_step)
    assert m["seconds"] > 0
    assert m["rows_per_second"] > 0
    assert m["config"]["lr"] == 0.01
    assert m["config"]["encoding"] == "tte-p"
    assert m["config"] == json.loads((cfg.run / "config.json").read_text(encoding="utf-8"))
    assert {"python", "torch", "tinprep"} <= set(m["versions"])


def test_log_has_a_line_per_evaluation(finished):
    cfg, _, events = finished
    with (cfg.run / "log.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    evaluated = [e for e in events if isinstance(e, Evaluated)]
    assert [int(x["step"]) for x in lines] == [e.step for e in evaluated]
    assert [float(x["gauc"]) for x in lines] == [e.metrics.gauc for e in evaluated]
    assert len(lines) == 12 * 4
    assert sorted(p.name for p in cfg.run.iterdir()) == [
        ".lock",
        "best.pt",
        "config.json",
        "last.pt",
        "log.csv",
        "metrics.json",
    ]


def test_events_tell_of_the_start_and_reach_the_end(finished):
    _, _, events = finished
    assert isinstance(events[0], Started)
    assert events[0].rows == 360
    assert events[0].steps == 12 * 12  # 360 rows in batches of 32
    last = [e for e in events if isinstance(e, Progress)][-1]
    assert last.step == last.steps == 144
    assert last.loss < 0.6


def test_same_config_same_result(planted, tmp_path):
    first = train(config(planted, tmp_path / "0", seed=1))
    torch.rand(7)  # what was drawn before must not matter
    second = train(config(planted, tmp_path / "1", seed=1))
    other = train(config(planted, tmp_path / "2", seed=2))
    assert first.metrics == second.metrics
    assert first.metrics != other.metrics
    a, b = (torch.load(tmp_path / i / "best.pt", weights_only=True)["weights"] for i in "01")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_patience_stops_training(planted, tmp_path):
    # With steps this small nothing changes, so the first evaluation stays the best.
    events = []
    cfg = config(planted, tmp_path / "run", lr=1e-12, evaluations=2, patience=3, epochs=50)
    result = train(cfg, events.append)
    evaluated = [e for e in events if isinstance(e, Evaluated)]
    assert [e.best for e in evaluated] == [True, False, False, False]
    assert (result.best_step, result.steps) == (6, 24)
    (stopped,) = (e for e in events if isinstance(e, Stopped))
    best = evaluated[0].metrics.gauc
    assert stopped == Stopped(24, 600, evaluations=3, best_step=6, best_gauc=best)


def test_without_valid_all_epochs_are_trained_and_the_last_weights_kept(make_dataset, tmp_path):
    events = []
    data = make_dataset(splits=("train", "test"))
    result = train(config(data, tmp_path / "run", epochs=2), events.append)
    assert result.best_step == result.steps == 24
    assert set(result.metrics) == {"test"}
    assert not any(isinstance(e, Evaluated) for e in events)
    assert summary(tmp_path / "run")["metrics"].keys() == {"test"}


def test_valid_decides_and_test_does_not(planted, tmp_path, monkeypatch):
    scored = []

    def spy(model, shards, split, **options):
        scored.append(split)
        return score(model, shards, split, **options)

    monkeypatch.setattr(training, "score", spy)
    train(config(planted, tmp_path / "run", epochs=1, evaluations=3))
    assert scored == ["valid"] * 3 + ["valid", "test"]


def test_a_finished_run_is_not_replaced_silently(planted, tmp_path):
    cfg = config(planted, tmp_path / "run", epochs=1, evaluations=1)
    train(cfg)
    before = (cfg.run / "metrics.json").read_bytes()
    (cfg.run / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="earlier run"):
        train(cfg)
    assert (cfg.run / "metrics.json").read_bytes() == before
    train(replace(cfg, seed=5, force=True))
    assert (cfg.run / "metrics.json").read_bytes() != before
    assert (cfg.run / "notes.txt").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("options", [{"epochs": 0}, {"device": "abacus"}, {"model": "x"}])
def test_settings_that_cannot_be_run(planted, tmp_path, options):
    with pytest.raises(UsageError):
        train(config(planted, tmp_path / "run", **options))
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_that_is_none(tmp_path):
    with pytest.raises(InputError, match="no checkpoint"):
        load(tmp_path)
    (tmp_path / "best.pt").write_bytes(b"not one")
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path)


def test_gradients_are_of_the_mean_over_the_step(planted):
    shards = Shards(planted)
    torch.manual_seed(0)
    model = build("tin", None, inputs_of(shards), dim=4, hidden=(6, 5))
    batch = next(shards.batches("train", batch_size=24, columns=(*model.columns, "label")))
    p = torch.sigmoid(model(batch))
    mean = torch.where(batch["label"] > 0, -p.log(), -(1 - p).log()).mean()
    expected = torch.autograd.grad(mean, model.mlp[0].weight)[0]
    total = gradients(model, batch, rows=24)
    assert float(total) / 24 == pytest.approx(mean.item(), rel=1e-5)
    torch.testing.assert_close(model.mlp[0].weight.grad, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("model", ["tin", "tin_released"])
def test_grouped_batches_have_the_gradient_of_the_whole(make_dataset, model):
    shards = Shards(make_dataset(layout="padded", min_len=0))
    torch.manual_seed(0)
    whole = build(model, None, inputs_of(shards), dim=4, hidden=(6, 5))
    grouped = copy.deepcopy(whole)
    wanted = {"batch_size": 64, "shuffle_seed": 0, "columns": (*whole.columns, "label")}
    (batch,) = next(shards.grouped_batches("train", cells=None, **wanted))
    groups = next(shards.grouped_batches("train", cells=60, **wanted))
    assert len(groups) > 5
    loss = gradients(whole, batch, 64)
    total = sum(gradients(grouped, group, 64) for group in groups)
    torch.testing.assert_close(total, loss)
    for a, b in zip(grouped.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(a.grad.to_dense(), b.grad.to_dense(), rtol=1e-4, atol=1e-7)
