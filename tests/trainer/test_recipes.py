"""What every recipe must do: the paper's code, learn, and pass gradients to all it has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.trainer.batches import INPUTS, WITH_SESSIONS, make_batch, of_one_category
from trainer.analysis.model_list import models_table
from trainer.data.inputs import inputs_of
from trainer.data.shards import Shards
from trainer.models.interest import build
from trainer.models.recipes import RECIPES
from trainer.training.optimizer import DenseAdam
from trainer.training.train import gradients

GOLDEN = Path(__file__).with_name("golden_losses.json")

# Table 1 and Table 5 of the paper: temporal information, target-aware attention, representation.
PAPER = {
    "avg_concat": "---",
    "avg_product": "--r",
    "din_prime": "-a-",
    "din": "-ar",
    "din_released": "-a-",
    "din_dot": "-ar",
    "din_apart": "-ar",
    "gru4rec": "t-r",
    "gru4rec_released": "t--",
    "sasrec": "t-r",
    "sasrec_released": "t-r",
    "bert4rec": "t-r",
    "bert4rec_released": "t-r",
    "dien": "ta-",
    "dien_released": "tar",
    "dsin": "ta-",
    "dsin_released": "tar",
    "bst": "ta-",
    "bst_released": "t-r",
    "sim": "ta-",
    "tin": "tar",
    "tin_released": "tar",
    "tin_wo_tte": "-ar",
    "tin_wo_ta": "t-r",
    "tin_wo_tr": "ta-",
    # Experts on fields, of which three multiply the histories' means by the target.
    "gwpfm": "--r",
    "ipnn": "--r",
    "dcn_v2": "--r",
    "flat_dnn": "---",
    "tin_mix": "tar",
    "tin_mix_wo_gwpfm": "tar",
    "tin_mix_wo_ipnn": "tar",
    "tin_mix_wo_dcn_v2": "tar",
    "tin_mix_wo_flat_dnn": "tar",
    "tin_mix_wo_tin": "--r",
    "tin_mix_flat": "---",
}


def test_every_recipe_has_the_paper_s_code():
    for name, recipe in RECIPES.items():
        assert recipe.code == "".join("0" if c == "-" else "1" for c in PAPER[name])
        assert recipe.source
    assert RECIPES.keys() == PAPER.keys()


def test_the_list_of_models_counts_what_is_built(make_dataset):
    data = make_dataset()
    table, _ = models_table(data).renderables
    inputs = inputs_of(Shards(data))
    columns = {c.header: list(c.cells) for c in table.columns}
    assert columns["model"] == list(RECIPES)
    for i, (name, recipe) in enumerate(RECIPES.items()):
        model = build(name, None, inputs)
        every = sum(p.numel() for p in model.parameters())
        beside = int(columns["no tables"][i].replace(",", ""))
        assert columns["parameters"][i] == f"{every:,}"
        sets = model.sets if recipe.experts else 2 if recipe.apart else 1
        assert every - beside == sum(inputs.fields.values()) * 64 * sets
        assert columns["encodings"][i] == " ".join(recipe.encodings)


def test_no_two_recipes_are_one():
    parts = [tuple(v for k, v in vars(r).items() if k != "source") for r in RECIPES.values()]
    assert len(set(map(str, parts))) == len(RECIPES)


def steps(model, batch, count, lr):
    optimizer = DenseAdam(model.parameters(), lr=lr)
    found = []
    for _ in range(count):
        found.append(float(gradients(model, batch, len(batch["label"]))) / len(batch["label"]))
        optimizer.collect()
        optimizer.step()
    return found


@pytest.mark.parametrize("model", RECIPES)
def test_learns_a_few_rows_by_heart_from_their_histories(model):
    """Rows with one target and different histories: nothing else tells them apart."""
    batch = of_one_category([4, 6, 3, 5, 7, 2, 4, 8])
    batch["target_item"] = torch.full_like(batch["target_item"], 7)
    batch["label"] = torch.tensor([1.0, 0, 0, 1, 0, 1, 1, 0])
    torch.manual_seed(0)
    found = steps(build(model, None, INPUTS, dim=8, hidden=(16, 8)), batch, 150, 0.02)
    assert found[0] > 0.5
    assert found[-1] < 0.1


@pytest.mark.parametrize("inputs", [INPUTS, WITH_SESSIONS])
@pytest.mark.parametrize("model", RECIPES)
def test_gradients_reach_every_parameter(model, inputs):
    torch.manual_seed(0)
    built = build(model, None, inputs, dim=8, hidden=(6, 5))
    batch = of_one_category([4, 6, 3, 5]) | {"label": torch.tensor([1.0, 0, 0, 1])}
    if getattr(built, "bias", None) is not None:  # starts at 0, like the bias encoding of DSIN
        torch.nn.init.normal_(built.bias.weight)
    gradients(built, batch, 4)
    for name, p in built.named_parameters():
        assert p.grad is not None, name
        assert torch.isfinite(p.grad.to_dense()).all(), name
        assert (p.grad.to_dense() != 0).any(), name


@pytest.mark.parametrize("model", RECIPES)
def test_a_batch_without_any_history_trains(model):
    built = build(model, None, INPUTS, dim=8, hidden=(6, 5))
    batch = make_batch([0, 0, 0], width=1) | {"label": torch.tensor([1.0, 0, 0])}
    assert all(map(torch.isfinite, map(torch.tensor, steps(built, batch, 3, 0.1))))
    for name, p in built.named_parameters():
        assert torch.isfinite(p).all(), name


def first_losses(data: Path, model: str, device: str = "cpu") -> list[float]:
    """The losses of 20 steps of float32."""
    shards = Shards(data)
    torch.manual_seed(1234)
    built = build(model, None, inputs_of(shards), dim=8, hidden=(16, 8)).to(device)
    optimizer = DenseAdam(built.parameters(), lr=0.01)
    found = []
    columns = (*built.columns, "label")
    for epoch in range(4):
        for batch in shards.batches(
            "train", batch_size=72, shuffle_seed=1234, epoch=epoch, columns=columns
        ):
            batch = {name: values.to(device) for name, values in batch.items()}
            found.append(float(gradients(built, batch, 72)) / 72)
            optimizer.collect()
            optimizer.step()
    return found


@pytest.mark.parametrize("model", RECIPES)
def test_golden_losses(planted, model):
    """A change here is a change of the model or its training."""
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert golden.keys() == RECIPES.keys()
    found = first_losses(planted, model)
    assert len(found) == 20
    assert found == pytest.approx(golden[model], rel=1e-4)
