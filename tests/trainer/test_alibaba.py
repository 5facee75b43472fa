"""Alibaba's shards: sessions, other features, empty histories, the data set's own settings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from schemas.errors import ContractError, UsageError
from trainer.data.facts import DEFAULTS, Hyperparameters
from trainer.data.inputs import inputs_of
from trainer.data.shards import Shards
from trainer.models.interest import build
from trainer.models.recipes import RECIPES
from trainer.training.config import TrainConfig
from trainer.training.train import train

ADS = Hyperparameters("adagrad", lr=1e-2, batch_size=4096, epochs=1, hidden=(200, 80))


def small(data, run, **options):
    return TrainConfig(
        data=data, run=run, **{"dim": 8, "hidden": (16, 8), "threads": 1, "device": "cpu"} | options
    )


def replace_column(path, name, change):
    """Rewrite a shard with each row's value of a column changed."""
    table = pq.read_table(path)
    i = table.schema.get_field_index(name)
    field = table.schema.field(i)
    values = [change(v) for v in table[name].to_pylist()]
    pq.write_table(table.set_column(i, field, pa.array(values, field.type)), path)


@pytest.mark.parametrize("memory_mb", [2048, 0.05])
def test_both_layouts_give_the_same_sessions(make_alibaba, memory_mb):
    padded, ragged = (
        Shards(make_alibaba(layout=layout), memory_mb=memory_mb) for layout in ("padded", "ragged")
    )
    assert padded.facts.history.shape == ragged.facts.history.shape == (3, 4)
    names = ("session_category", "session_brand", "session_length", "row", "history_brand")
    a, b = (
        {b["row"][0].item(): b for b in s.batches("train", batch_size=1, columns=names)}
        for s in (padded, ragged)
    )
    assert a.keys() == b.keys()
    assert len(a) == 320
    for row, batch in a.items():
        for name in names:
            assert torch.equal(batch[name], b[row][name]), (row, name)
    lengths = torch.cat([x["session_length"] for x in a.values()])
    cells = torch.cat([x["session_brand"] for x in a.values()]).view(-1, 3, 4)
    assert lengths.shape == (320, 3)
    assert torch.equal((cells > 0).sum(2), lengths)
    assert (lengths.sum(1) > 0).any()
    assert (lengths.sum(1) == 0).any()


def test_session_length_comes_along(make_alibaba):
    for layout in ("padded", "ragged"):
        batch = next(
            Shards(make_alibaba(layout=layout)).batches(
                "train", batch_size=3, columns=("session_brand",)
            )
        )
        assert set(batch) == {"session_brand", "session_length", "history_length"}


@pytest.mark.parametrize("layout", ["padded", "ragged"])
def test_the_plan_knows_what_the_rows_take(make_alibaba, layout):
    shards = Shards(make_alibaba(layout=layout))
    assert shards.nbytes("train") == shards.split("train").nbytes


@pytest.mark.parametrize(
    ("layout", "column", "change", "what"),
    [
        ("ragged", "session_brand", lambda v: [*v, 3], "session_brand do not match"),
        ("ragged", "session_length", lambda v: [*v, 3, 3, 3, 3], "session_length do not match"),
        ("ragged", "session_length", lambda v: [5, *v[1:]], "session_length holds a value"),
        ("padded", "session_length", lambda v: [5, *v[1:]], "session_length holds a value"),
        ("padded", "session_category", lambda v: [99, *v[1:]], "session_category holds a value"),
        ("ragged", "session_brand", lambda v: [99 for _ in v], "session_brand holds a value"),
        ("padded", "ad", lambda v: 6, "ad holds a value"),
        ("padded", "pvalue_level", lambda v: -1, "pvalue_level holds a value"),
    ],
)
def test_sessions_and_ids_that_break_the_contract_are_refused(
    make_alibaba, layout, column, change, what
):
    out = make_alibaba(layout=layout)
    path = out / "train/part-00000.parquet"
    replace_column(path, column, change)
    with pytest.raises(ContractError, match=what) as caught:
        next(Shards(out).batches("train", batch_size=2))
    assert caught.value.where == path


def test_sessions_of_another_shape_than_the_manifest_says_are_refused(make_alibaba):
    out = make_alibaba()
    path = out / "manifest.json"
    made = json.loads(path.read_text(encoding="utf-8"))
    for said, what in (([2, 4], "do not match"), ([3, 5], "do not match"), ([3], "cannot be")):
        made["histories"]["history"]["sessions"] = said
        path.write_text(json.dumps(made), encoding="utf-8")
        with pytest.raises(ContractError, match=what):
            next(Shards(out).batches("train", batch_size=2))


def test_the_features_are_the_contract_s(make_alibaba):
    shards = Shards(make_alibaba())
    inputs = inputs_of(shards)
    assert list(inputs.fields) == ["category", "brand"]
    assert list(inputs.others)[:4] == ["ad", "campaign", "customer", "pid"]
    assert len(inputs.others) == 12
    assert inputs.numbers == ("price",)
    model = build("tin", None, inputs, dim=4, hidden=(6, 5))
    assert model.mlp[0].in_features == 2 * 8 + 12 * 4 + 1
    batch = next(shards.batches("train", batch_size=16, columns=model.columns))
    before = model(batch)
    for name in (*inputs.others, "price"):
        moved = batch | {name: (batch[name] + 1) % 6}
        assert not torch.equal(model(moved), before), name


@pytest.mark.parametrize("layout", ["padded", "ragged"])
def test_trains_where_every_history_is_empty(make_alibaba, tmp_path, layout):
    result = train(small(make_alibaba(layout=layout, empty=1.0, users=60), tmp_path / "run"))
    assert result.metrics["test"].logloss < 0.7


def test_learns_the_planted_effect(make_alibaba, tmp_path):
    data = make_alibaba(users=150, clicks=0.9, splits=("train", "test"))
    result = train(small(data, tmp_path / "run", batch_size=64, epochs=4, lr=0.05))
    assert result.metrics["test"].gauc > 0.75
    assert result.metrics["test"].auc > 0.75
    assert result.metrics["test"].pair_accuracy is None
    assert result.encoding == "tte-p"


def test_the_data_set_chooses_the_settings_and_the_run_keeps_them(make_alibaba, tmp_path):
    cfg = TrainConfig(make_alibaba(), tmp_path / "run", dim=4, threads=1, device="cpu")
    result = train(cfg)
    saved = json.loads((cfg.run / "config.json").read_text(encoding="utf-8"))
    expected = {"optimizer": "adagrad", "lr": 0.01, "batch_size": 4096, "epochs": 1}
    assert {k: saved[k] for k in expected} == expected
    assert saved["hidden"] == [200, 80]
    assert result.steps == 1


def test_what_is_given_takes_the_place_of_the_usual(make_dataset, make_alibaba):
    cfg = TrainConfig(Path("data"), Path("run"))
    assert cfg.hyperparameters(Shards(make_dataset()).facts.training) == DEFAULTS
    assert cfg.hyperparameters(Shards(make_alibaba()).facts.training) == ADS
    given = TrainConfig(Path("data"), Path("run"), optimizer="adam", epochs=2, hidden=())
    schedule = given.hyperparameters(ADS)
    assert (schedule.optimizer, schedule.lr) == ("adam", 1e-3)
    assert (schedule.batch_size, schedule.epochs, schedule.hidden) == (4096, 2, ())
    assert TrainConfig(Path("data"), Path("run"), lr=0.5).hyperparameters(ADS).lr == 0.5
    with pytest.raises(UsageError, match="cannot have this value"):
        TrainConfig(Path("data"), Path("run"), optimizer="sgd")


def test_a_valid_split_without_a_click_is_refused_before_training(make_alibaba, tmp_path):
    data = make_alibaba()
    for path in (data / "valid").iterdir():
        replace_column(path, "label", lambda v: 0)
    with pytest.raises(UsageError, match="GAUC does not exist"):
        train(small(data, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_test_split_without_a_click_has_no_gauc_but_a_logloss(make_alibaba, tmp_path):
    data = make_alibaba()
    for path in (data / "test").iterdir():
        replace_column(path, "label", lambda v: 0)
    metrics = train(small(data, tmp_path / "run")).metrics["test"]
    assert (metrics.gauc, metrics.auc) == (None, None)
    assert np.isfinite(metrics.logloss)


def test_trains_on_what_does_not_fit_the_memory(make_alibaba, tmp_path, monkeypatch):
    plain = Shards.__init__
    # The setting is in whole MB, and these shards are smaller.
    monkeypatch.setattr(
        Shards, "__init__", lambda self, out, **how: plain(self, out, **how | {"memory_mb": 0.05})
    )
    data = make_alibaba(layout="ragged", splits=("train", "test"))
    monkeypatch.setattr(Shards, "split", lambda *a: pytest.fail("a whole split was read"))
    assert train(small(data, tmp_path / "run", model="dsin", batch_size=64)).steps == 5


@pytest.mark.parametrize("model", RECIPES)
def test_every_recipe_trains_on_it(make_alibaba, tmp_path, model):
    data = make_alibaba(layout="ragged", splits=("train", "test"), users=20)
    result = train(small(data, tmp_path / "run", model=model, batch_size=64))
    assert result.steps == 3
    assert np.isfinite(result.metrics["test"].logloss)
    read = build(model, None, inputs_of(Shards(data)), dim=8).columns
    assert any(name.startswith("session_") for name in read) == (
        RECIPES[model].sessions is not None
    )
