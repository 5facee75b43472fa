"""The loss: its weight, autocast and compiled models."""

from __future__ import annotations

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch._dynamo
import torch._inductor.config
from torch import nn

from schemas.errors import UsageError
from tests.trainer.batches import INPUTS, WITH_SESSIONS, make_batch, of_one_category
from trainer.data.shards import Shards
from trainer.models.interest import build
from trainer.models.recipes import RECIPES
from trainer.training.compiling import compiled
from trainer.training.config import TrainConfig
from trainer.training.loss import gradients, positive_weight
from trainer.training.train import train


def labelled(batch):
    return batch | {"label": (torch.arange(len(batch["history_length"])) % 2).float()}


def gradients_of(model, batch, **options):
    """The loss, and every parameter's gradient."""
    model.zero_grad()
    total = float(gradients(model, batch, len(batch["label"]), **options))
    named = model.named_parameters()
    return total, {n: p.grad.to_dense().clone() for n, p in named if p.grad is not None}


@pytest.mark.parametrize("weight", [1.0, 0.25, 7.0])
def test_positives_weigh_what_they_are_said_to(weight):
    torch.manual_seed(0)
    model = build("tin", None, INPUTS, dim=4, hidden=(6,))
    batch = labelled(make_batch([4, 6, 3, 0, 2]))
    p = torch.sigmoid(model(batch))
    terms = torch.where(batch["label"] > 0, -weight * p.log(), -(1 - p).log())
    expected = torch.autograd.grad(terms.mean(), model.mlp[0].weight)[0]
    total, found = gradients_of(model, batch, positive_weight=weight)
    assert total == pytest.approx(float(terms.detach().sum()), rel=1e-5)
    torch.testing.assert_close(found["mlp.0.weight"], expected, rtol=1e-4, atol=1e-7)


def test_balanced_is_negatives_by_positives(make_alibaba, tmp_path):
    data = make_alibaba()
    labels = torch.cat([b["label"] for b in Shards(data).batches("train", batch_size=64)])
    expected = float((labels == 0).sum() / labels.sum())
    assert expected > 2
    config = TrainConfig(data, tmp_path, loss_weight="balanced")
    assert positive_weight(config, Shards(data)) == pytest.approx(expected)
    with pytest.raises(UsageError, match="cannot have this value"):
        TrainConfig(data, tmp_path, loss_weight="heavy")
    with pytest.raises(UsageError, match="cannot have this value"):
        TrainConfig(data, tmp_path, loss_weight=0.0)


def test_one_class_cannot_be_balanced(make_dataset, tmp_path):
    data = make_dataset(users=4)
    for path in (data / "train").iterdir():
        table = pq.read_table(path)
        place = table.schema.get_field_index("label")
        none = pa.array([0] * len(table), pa.int8())
        pq.write_table(table.set_column(place, table.schema.field(place), none), path)
    config = TrainConfig(data, tmp_path, loss_weight="balanced")
    with pytest.raises(UsageError, match="balanced") as caught:
        positive_weight(config, Shards(data))
    assert "0 positives among 24 rows" in str(caught.value)


@pytest.mark.parametrize("inputs", [INPUTS, WITH_SESSIONS])
@pytest.mark.parametrize("model", RECIPES)
def test_every_recipe_trains_in_bfloat16(model, inputs):
    torch.manual_seed(0)
    built = build(model, None, inputs, dim=8, hidden=(16, 8))
    batch = labelled(of_one_category([4, 6, 3, 0, 9, 2]))
    plain, ours = gradients_of(built, batch)
    total, found = gradients_of(built, batch, amp=True)
    assert total != plain  # or nothing was rounded
    assert total == pytest.approx(plain, rel=0.02)
    assert found.keys() == ours.keys()
    flat, flat_plain = (torch.cat([g.flatten() for g in x.values()]) for x in (found, ours))
    assert flat.dtype == torch.float32
    assert nn.functional.cosine_similarity(flat, flat_plain, dim=0) > 0.99
    gradients_of(built, labelled(make_batch([0, 0], width=1)), amp=True)


@pytest.mark.parametrize("model", RECIPES)
def test_no_recipe_draws_random_numbers_in_training(model):
    """Ranks, and a run that is resumed, rely on it."""
    built = build(model, None, INPUTS, dim=8, hidden=(6,))
    before = torch.get_rng_state()
    gradients_of(built, labelled(make_batch([4, 6, 3, 0])))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_a_compiled_model_has_the_same_gradients(tmp_path, monkeypatch):
    # Kernels of its own: those of a process that was killed may be half written.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.manual_seed(0)
    built = build("tin", None, INPUTS, dim=8, hidden=(6,))
    torch._dynamo.reset()
    forward = compiled(built)
    for lengths in ([2, 3, 1], [1, 2, 2, 1, 2]):
        batch = labelled(make_batch(lengths))
        plain, expected = gradients_of(built, batch)
        total, found = gradients_of(built, batch, forward=forward)
        assert total == pytest.approx(plain, rel=1e-5)
        assert found.keys() == expected.keys()
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)


def test_without_a_compiler_it_says_so(planted, tmp_path, monkeypatch):
    torch._dynamo.reset()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    small = {"dim": 8, "hidden": (8,), "threads": 1, "device": "cpu", "steps": 2}
    with pytest.raises(UsageError, match="cannot be compiled") as caught:
        train(TrainConfig(planted, tmp_path / "run", compile=True, **small))
    assert "--compile" in str(caught.value)
