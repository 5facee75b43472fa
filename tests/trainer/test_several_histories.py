"""Of a data set with several histories all are read at once, or one as if it were the only one."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from schemas.errors import UsageError
from tests.conftest import finished, refused, tinprep
from tests.trainer.batches import INPUTS, ONE, make, make_batch
from trainer.analysis.correlation import correlate
from trainer.analysis.learned_correlation import learned_like
from trainer.data.inputs import HistoryInputs
from trainer.data.shards import Shards
from trainer.models.attention import Product
from trainer.models.interest import build
from trainer.models.reader import Reader
from trainer.models.recipes import RECIPES
from trainer.training.config import TrainConfig
from trainer.training.evaluation import evaluate, predict
from trainer.training.runs import load
from trainer.training.train import gradients, train

DAY = 86_400
HEAD = """\
[tables.log]
files = "log.csv"
user = "user"
time = { column = "second", unit = "s" }
fields = { item = "item", category = "category" }

[lookups.item]
table = "log"
key = "item"
repeated = "first"
fields = { category = "category" }

[target]
table = "log"
where = "kind = 'buy'"
split = { by = "time", valid = "2020-09-20", test = "2020-09-22", timezone = "UTC" }
negatives = { per_positive = 1 }

[train]
group_field = "category"
"""
HISTORIES = {
    # The name that batches have for whichever is read, and another.
    "history": '[histories.history]\ntable = "log"\nmax_len = 9\nsession_gap = "2d"\n',
    "buys": '[histories.buys]\ntable = "log"\nwhere = "kind = \'buy\'"\nmax_len = 4\n',
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Data sets of one log: of each history alone, and of both."""
    folder = tmp_path_factory.mktemp("several")
    events = [
        f"u{u},i{i},c{i % 4},{'buy' if (u + n) % 3 == 0 else 'pv'},{1_600_041_600 + n * DAY + u}\n"
        for u in range(40)
        for n in range(10)
        for i in [(u * 7 + n * n * 3) % 31]
    ]
    (folder / "log.csv").write_text("user,item,category,kind,second\n" + "".join(events))
    for name, histories in (*((n, [n]) for n in HISTORIES), ("both", [*HISTORIES])):
        text = HEAD + "".join(HISTORIES[one] for one in histories)
        (folder / f"{name}.toml").write_text(text)
        finished(tinprep("prepare", folder / f"{name}.toml", "--out", folder / name))
    return folder


@pytest.mark.parametrize("name", HISTORIES)
def test_it_is_read_as_if_it_were_the_only_one(made, tmp_path, name):
    alone, chosen = Shards(made / name), Shards(made / "both", history=name)
    first, second = (list(one.batches("train", batch_size=32)) for one in (alone, chosen))
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(column, other[column_name]) for column_name, column in one.items())
    found = []
    for data, history in ((made / name, None), (made / "both", name)):
        run = tmp_path / data.name
        small = {"steps": 3, "batch_size": 16, "dim": 4, "device": "cpu"}
        train(TrainConfig(data, run, model="tin", encoding="tte-pt", history=history, **small))
        predict(run, data, run / "scores.parquet")  # a run knows what it reads
        measured = vars(evaluate(run, "test").metrics)
        text = tinprep("correlate", data, "--out", run / "fig", *_named(history))
        finished(text)
        maps = (run / "fig" / "fig1.csv").read_text()
        found.append((pl.read_parquet(run / "scores.parquet").to_dicts(), measured, maps))
    assert found[0] == found[1]
    page = tmp_path / "report.html"
    finished(tinprep("report", made / "both", tmp_path / "both", "--out", page, "--history", name))
    finished(tinprep("models", made / "both", "--history", name))
    assert json.loads((tmp_path / "both" / "config.json").read_text())["history"] == name


def test_which_one_has_to_be_said_where_a_model_reads_one(made, tmp_path):
    run = ("--run", tmp_path / "run")
    one = tinprep("train", made / "both", *run, "--model", "dsin")
    refused(one, 2, "--history", "one of buys, history", "reads all", "tin_wo_tr")
    refused(tinprep("correlate", made / "both", "--out", tmp_path), 2, "one of buys, history")
    refused(tinprep("train", made / "both", *run, "--history", "views"), 2, "no such history")
    assert not (tmp_path / "run").exists()


def _named(history):
    return () if history is None else ("--history", history)


# A history with one of the target's two fields, and one with both and other bins.
TWO = replace(
    INPUTS,
    histories={
        "carted": HistoryInputs(("item",), max_len=20, bins=5),
        "viewed": HistoryInputs(("item", "category"), max_len=20, bins=9),
    },
)
ALL = [name for name, recipe in RECIPES.items() if recipe.all_histories]


def two(carted, viewed, padding=0):
    """A batch of both histories."""
    first, second = make_batch(carted, padding=padding), make_batch(viewed, padding=padding, seed=1)
    batch = {name: column for name, column in first.items() if name.startswith("target_")}
    for called, of in (("carted", first), ("viewed", second)):
        for name, column in of.items():
            if name.startswith("history_"):
                batch[name.replace("history", called)] = column
    del batch["carted_category"]
    return batch


def plain(recipe, m, batch, b):
    """A row's logit, one behaviour after another."""
    item, category = (m.fields[name].weight for name in ("item", "category"))
    of_attention = m.attention_fields or m.fields
    v = torch.cat([item[batch["target_item"][b]], category[batch["target_category"][b]]])
    interests, products = [], []
    for called, reader in m.readers.items():
        n = int(batch[f"{called}_length"][b])

        def embed(tables, column, reader=reader):
            return torch.cat([tables[f].weight[column(f)] for f in reader.fields])

        def behaviour(i, tables=m.fields, called=called, embed=embed):
            return embed(tables, lambda f: batch[f"{called}_{f}"][b, i])

        v_k = embed(m.fields, lambda f: batch[f"target_{f}"][b])
        x, t = [behaviour(i) for i in range(n)], v_k
        keys, query = x, t
        if recipe.encodings[0] != "none":
            p = reader.encoding.table.weight
            x, t = [e + p[n - i] for i, e in enumerate(x)], v_k + p[0]
            keys, query = x, t
        if recipe.apart:
            keys = [behaviour(i, of_attention) for i in range(n)]
            query = embed(of_attention, lambda f: batch[f"target_{f}"][b])
        attention = reader.attentions[0]
        z = [0.0] * n
        if hasattr(attention, "scores"):
            z = [float(attention.scores(k[None, None], query[None])) for k in keys]
        weights = [math.exp(a) / sum(map(math.exp, z)) for a in z]
        u = sum((w * e for w, e in zip(weights, x, strict=True)), torch.zeros(len(t)))
        interests.append(u * t if recipe.representation is Product else u)
        products.append(interests[-1] * v_k)
    seen = [*interests, v, *products] if recipe.product else [*interests, v]
    if m.transform is not None:
        h = m.transform(torch.cat(interests))
        seen = [h, v, h * v] if recipe.product else [h, v]
    logit = m.mlp(m.norm(torch.cat(seen)))[0]
    return logit if m.bias is None else logit + m.bias.weight[batch["target_item"][b], 0]


@pytest.mark.parametrize("name", [name for name in ALL if not RECIPES[name].experts])
def test_every_model_of_several_equals_its_sums_written_out(name):
    m, batch = make(name, inputs=TWO, scale=0.7), two([3, 0, 5, 1], [2, 4, 0, 1])
    with torch.no_grad():
        expected = torch.stack([plain(RECIPES[name], m, batch, b) for b in range(4)])
        torch.testing.assert_close(m(batch), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("encoding", RECIPES["tin"].encodings)
@pytest.mark.parametrize("name", ["tin", "tin_wo_ta", "tin_released"])
def test_gradients_are_those_of_behaviours_put_together(name, encoding, monkeypatch):
    m, batch = make(name, encoding, inputs=TWO), two([3, 0, 5, 1], [2, 4, 0, 1])
    batch["label"], found = torch.tensor([1.0, 0.0, 0.0, 1.0]), []
    for _ in range(2):
        m.zero_grad()
        loss = gradients(m, batch, 4)
        found.append([loss, *(p.grad.to_dense() for p in m.parameters())])
        monkeypatch.setattr(Reader, "factors", lambda *of: None)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("encoding", RECIPES["tin"].encodings)
def test_neither_padding_nor_other_rows_change_a_score(encoding):
    m, lengths = make("tin", encoding, inputs=TWO), ([3, 0, 5, 0], [2, 4, 0, 0])
    batch = two(*lengths)
    scores = m(batch)
    assert scores.isfinite().all()
    torch.testing.assert_close(m(two(*lengths, padding=3)), scores)
    for b in range(4):
        row = {name: column[b : b + 1] for name, column in batch.items()}
        for called in ("carted", "viewed"):
            n = max(1, int(row[f"{called}_length"]))
            row |= {k: v[:, :n] for k, v in row.items() if k.startswith(called) and v.dim() == 2}
        torch.testing.assert_close(m(row), scores[b : b + 1])
    u, _ = m.interest(batch)
    assert not u[3].any()
    assert not u[1, :4].any()
    assert u[1, 4:].all()


def test_each_history_moves_the_score_by_its_own_columns():
    m, batch = make("tin", "tte-t", inputs=TWO), two([3] * 6, [4] * 6)
    assert {"carted_interval_bin", "viewed_interval_bin", "viewed_category"} < {*m.columns}
    assert not {"carted_category", "viewed_position", "history_item"} & {*m.columns}
    for column in ("carted_item", "carted_interval_bin", "viewed_category", "viewed_interval_bin"):
        assert ((m(batch | {column: batch[column] % 5 + 1}) - m(batch)).abs() > 1e-4).any()
    sizes = [r.encoding.table.weight.shape for r in m.readers.values()]
    assert sizes == [(6, 4), (10, 8)]


def test_one_history_is_the_same_by_any_name():
    batch = make_batch([3, 0, 7])
    called = {k.replace("history", "viewed"): v for k, v in batch.items()}
    for name in ALL:
        m, other = make(name), make(name, inputs=replace(INPUTS, histories={"viewed": ONE}))
        assert m.state_dict().keys() == other.state_dict().keys()
        assert torch.equal(m(batch), other(called))


def test_a_run_of_before_several_were_read_is_loaded():
    m = load(Path(__file__).with_name("old_run"))
    assert m.inputs.histories == {"history": HistoryInputs(("item",), max_len=20, bins=5)}
    assert m.inputs.history == "viewed"
    more = {"type": torch.tensor([1, 2, 3, 4]), "price": torch.tensor([0.5, -1.0, 0.0, 2.0])}
    expected = torch.tensor([-0.149684, 1.576604, 1.833975, -0.036630])
    torch.testing.assert_close(m(make_batch([4, 0, 20, 1]) | more), expected, rtol=0, atol=1e-5)


def test_only_recipes_that_read_all_are_built_of_several():
    assert {"tin", "tin_wo_ta", "tin_released", "din", "din_prime", "avg_concat"} < {*ALL}
    for name in RECIPES:
        if name not in ALL:
            with pytest.raises(UsageError, match="one is read"):
                build(name, None, TWO)


@pytest.fixture(scope="module")
def trained(made):
    """A run on both histories."""
    run = made / "run"
    how = {"epochs": 2, "batch_size": 64, "dim": 4, "device": "cpu", "encoding": "tte-t"}
    train(TrainConfig(made / "both", run, **how))
    return run


def test_all_are_read_without_being_named(made, trained, tmp_path, monkeypatch):
    both = made / "both"
    assert [*load(trained).readers] == ["buys", "history"]
    finished(tinprep("predict", trained, both, "--out", tmp_path / "scores.parquet"))
    found = evaluate(trained, by_length=True)
    assert found.metrics.rows == sum(m.rows for m in found.by_length.values())
    # Streamed, from another order in the manifest, and where a group holds one row: the same.
    other = tmp_path / "both"
    shutil.copytree(both, other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["histories"] = dict(reversed([*manifest["histories"].items()]))
    (other / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setattr("trainer.training.scoring._CELLS", {"cpu": 1})
    predict(trained, other, tmp_path / "other.parquet")
    one, two = (
        pl.read_parquet(tmp_path / f"{name}.parquet").sort("split", "row", "label")
        for name in ("scores", "other")
    )
    assert one.drop("score").equals(two.drop("score"))
    np.testing.assert_allclose(one["score"], two["score"], rtol=1e-5)
    how = {"epochs": 2, "batch_size": 64, "dim": 4, "device": "cpu", "encoding": "tte-t"}
    train(TrainConfig(other, tmp_path / "run", **how))
    weights = [load(run).state_dict() for run in (trained, tmp_path / "run")]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_what_is_said_of_a_run_on_both(made, trained, tmp_path):
    both = made / "both"
    told = tinprep("train", both, "--run", tmp_path / "new", "--steps", 1, "--dim", 2)
    finished(told)
    assert "histories read: buys, history" in told.said
    told = tinprep("models", both)
    finished(told)
    assert "(name one)" in told.said
    page = tmp_path / "report.html"
    for named in ((), ("--history", "buys")):
        finished(tinprep("report", both, trained, "--out", page, *named))
        text = page.read_text()
        assert ("Correlation of behaviours with the label: buys" in text) == (not named)
        assert "Learned by tin (tte-t), seed 0" in text


def test_the_learned_correlation_is_of_the_named_history(made, trained):
    maps = []
    for name in HISTORIES:
        truth = correlate(made / "both", by="interval", history=name)
        maps.append(learned_like(truth, trained, history=name).values[truth.own])
    assert np.nanmax(np.abs(maps[0] - maps[1])) > 0
    with pytest.raises(UsageError, match="reads several histories"):
        learned_like(truth, trained)
