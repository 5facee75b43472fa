"""On a GPU everything is what it is on the CPU, but for rounding.

`python -m pytest --confcutdir tests/trainer tests/trainer/test_cuda.py` runs this file where only
the trainer's libraries are.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from tests.trainer.batches import make, make_batch
from tests.trainer.test_recipes import GOLDEN, first_losses
from tests.trainer.test_resume import config, interrupted
from trainer.data.prefetch import on_device
from trainer.data.shards import Shards
from trainer.models.recipes import RECIPES
from trainer.training.evaluation import evaluate
from trainer.training.optimizer import optimizer_of
from trainer.training.train import gradients, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
CLOSE = {"rtol": 1e-3, "atol": 1e-4}


def test_batches_arrive_whole_and_in_their_order(planted):
    def batches():
        return Shards(planted).grouped_batches(
            "train", batch_size=8, cells=30, shuffle_seed=1, together=True
        )

    busy = torch.randn(2000, 2000, device="cuda")
    arrived = []
    for groups in on_device(batches(), torch.device("cuda")):
        busy = busy @ busy / 50  # keeps the GPU behind the copies
        arrived.append([{name: t * 1 for name, t in group.items()} for group in groups])
        del groups
    wanted = list(batches())
    assert len(arrived) == len(wanted)
    for ours, theirs in zip(arrived, wanted, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert a.keys() == b.keys()
            for name in a:
                torch.testing.assert_close(a[name].cpu(), b[name], rtol=0, atol=0)


@pytest.mark.parametrize("model", RECIPES)
def test_scores_and_gradients(model):
    found = {}
    for device in ("cpu", "cuda"):
        m = make(model, scale=0.3).to(device)
        batch = {name: t.to(device) for name, t in make_batch([3, 0, 7, 1]).items()}
        batch["label"] = torch.tensor([1.0, 0.0, 0.0, 1.0], device=device)
        m.train()
        gradients(m, batch, 4)
        steps = {n: p.grad.to_dense().cpu() for n, p in m.named_parameters() if p.grad is not None}
        found[device] = {"scores": m(batch).detach().cpu(), **steps}
    assert found["cpu"].keys() == found["cuda"].keys()
    for name, wanted in found["cpu"].items():
        torch.testing.assert_close(
            found["cuda"][name], wanted, **CLOSE, msg=lambda m, n=name: n + m
        )


@pytest.mark.parametrize("optimizer", ["adam", "adagrad"])
@pytest.mark.parametrize("clip", [None, 0.01])
@pytest.mark.parametrize("tables", ["float32", "bfloat16"])
def test_steps_of_the_optimizers(planted, optimizer, clip, tables):
    shards = Shards(planted)
    chosen = config(planted, planted, optimizer=optimizer).hyperparameters(shards.facts.training)
    weights = {}
    for device in ("cpu", "cuda"):
        m = make(scale=0.3, tables=tables).to(device)
        steps = optimizer_of(replace(chosen, lr=0.01), m.parameters())
        batches = shards.grouped_batches(
            "train", batch_size=32, cells=100, columns=(*m.columns, "label")
        )
        for groups in on_device(batches, torch.device(device)):
            for group in groups:
                gradients(m, group, 32)
                steps.collect()
            steps.step(clip)
        weights[device] = {n: p.detach().cpu() for n, p in m.named_parameters()}
    for name, wanted in weights["cpu"].items():
        torch.testing.assert_close(weights["cuda"][name], wanted, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("model", RECIPES)
def test_golden_losses(planted, model):
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert first_losses(planted, model, device="cuda") == pytest.approx(golden[model], rel=2e-3)


def test_a_training_is_resumed_and_measured(planted, tmp_path, monkeypatch):
    cfg = config(planted, tmp_path / "whole", device="cuda")
    whole = train(cfg)
    cut = replace(cfg, run=tmp_path / "cut")
    interrupted(cut, monkeypatch, 17)
    resumed = train(replace(cut, resume=True))
    assert whole.device == resumed.device == "cuda"
    assert 0 <= whole.waiting <= 1
    assert resumed.metrics["test"].gauc == pytest.approx(whole.metrics["test"].gauc, abs=0.03)
    for device in ("cpu", "cuda"):
        again = evaluate(cfg.run, device=device).metrics
        assert again.logloss == pytest.approx(whole.metrics["test"].logloss, rel=1e-3)


@pytest.mark.parametrize("way", ["amp", "compile"])
def test_other_ways_to_compute(planted, tmp_path, way):
    plain = train(config(planted, tmp_path / "plain", device="cuda"))
    other = train(config(planted, tmp_path / way, device="cuda", **{way: True}))
    assert other.metrics["test"].gauc == pytest.approx(plain.metrics["test"].gauc, abs=0.05)
