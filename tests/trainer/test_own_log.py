"""A data set of somebody's own description: numbers, multi-valued features, weights, no groups."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from pipeline.inspection import inspect
from schemas.errors import ContractError, UsageError
from tests.trainer.batches import ONE, make_batch
from trainer.analysis.figures import edges_of, intervals_of
from trainer.analysis.model_list import models_table
from trainer.analysis.report.page import write_report
from trainer.baselines import baselines_of
from trainer.data.inputs import Inputs, inputs_of
from trainer.data.shards import Shards
from trainer.models.encodings import Timestamp
from trainer.models.interest import build
from trainer.models.layers import Table, mean_of_values
from trainer.models.recipes import RECIPES
from trainer.training.config import TrainConfig
from trainer.training.evaluation import predict
from trainer.training.loss import gradients, positive_weight, weights_of
from trainer.training.schedule import Schedule
from trainer.training.train import train

INPUTS = Inputs(
    {"item": 50, "category": 9},
    {"type": 5},
    ("price",),
    {"history": ONE},
    digests={"x": "y"},
    lists={"genre": (7, 4), "liked": (50, 4)},
    shared={"liked": "item"},
)


def own_batch(lengths, values, seed=0):
    """A batch with features; `values` says how many genres and liked items each row has."""
    g = torch.Generator().manual_seed(seed)
    rows, count = len(lengths), torch.tensor(values, dtype=torch.int32)
    real = torch.arange(4) < count[:, None]
    return make_batch(lengths, seed=seed) | {
        "type": torch.randint(1, 5, (rows,), generator=g, dtype=torch.int32),
        "price": torch.randn(rows, generator=g),
        "genre": torch.randint(1, 7, (rows, 4), generator=g, dtype=torch.int32) * real,
        "genre_length": count,
        "liked": torch.randint(1, 50, (rows, 4), generator=g, dtype=torch.int32) * real,
        "liked_length": count,
        "label": (torch.arange(rows) % 2).float(),
    }


def made(model="tin", inputs=INPUTS, dim=4):
    torch.manual_seed(1)
    return build(model, None, inputs, dim=dim, hidden=(8, 4))


def test_a_history_may_have_any_name(make_log, tmp_path):
    out, other = make_log(), tmp_path / "clicks"
    shutil.copytree(out, other)
    for path in other.glob("*/part-*.parquet"):
        table = pq.read_table(path)
        names = [re.sub("^history_", "clicks_", name) for name in table.column_names]
        pq.write_table(table.rename_columns(names), path)
    told = json.loads((other / "manifest.json").read_text())
    told["histories"] = {"clicks": told["histories"]["history"]}
    (other / "manifest.json").write_text(json.dumps(told))
    both = [Shards(out), Shards(other)]
    assert "clicks_item" in pq.read_schema(next(other.glob("train/*.parquet"))).names
    one, same = (list(shards.batches("train", batch_size=50)) for shards in both)
    for batch, renamed in zip(one, same, strict=True):
        assert batch.keys() == renamed.keys()
        assert all(torch.equal(column, renamed[name]) for name, column in batch.items())
    assert intervals_of(both[0]) == intervals_of(both[1])
    scores = []
    for folder in (out, other):
        run = tmp_path / f"run-{folder.name}"
        train(TrainConfig(data=folder, run=run, steps=2, batch_size=32, dim=4))
        predict(run, folder, run / "scores.parquet")
        scores.append(pl.read_parquet(run / "scores.parquet"))
    assert scores[0].equals(scores[1])


@pytest.mark.parametrize("streamed", [False, True])
def test_both_layouts_give_the_same_batches_whatever_the_padding(make_log, streamed):
    memory = 1e-3 if streamed else 2048
    first, *others = (
        list(Shards(make_log(**how), memory_mb=memory).batches("train", batch_size=50))
        for how in ({"layout": "ragged"}, {"garbage": 0}, {"garbage": 99})
    )
    for batches in others:
        for one, other in zip(first, batches, strict=True):
            assert one.keys() == other.keys()
            for name, column in one.items():
                assert torch.equal(column, other[name]), name
    assert {"genre", "genre_length", "price", "weight"} < first[0].keys()
    assert not {"request", "bid", "page"} & first[0].keys()
    assert first[0]["genre"].shape == (50, 3)


def test_a_value_that_no_vocabulary_holds_and_a_length_that_no_list_has_are_refused(make_log):
    for column, value in (("genre", 7), ("genre_length", 4)):
        data = make_log(layout="ragged")
        path = next(data.glob("train/*.parquet"))
        table = pq.read_table(path)
        frame = pl.from_arrow(table)
        worse = pl.lit([value] * 3) if column == "genre" else pl.lit(value)
        rows = frame.with_columns(
            pl.when(pl.col("genre_length") == 3).then(worse).otherwise(column).alias(column)
        )
        pq.write_table(rows.to_arrow().cast(table.schema), path)
        with pytest.raises(ContractError, match=rf"{column}"):
            list(Shards(data).batches("train", batch_size=50))


def test_text_is_in_no_batch(make_log):
    shards = Shards(make_log())
    with pytest.raises(ContractError, match="no batch can hold"):
        next(shards.batches("train", batch_size=5, columns=("request",)))


def test_inputs_are_those_of_the_description(make_log):
    found = inputs_of(Shards(make_log()))
    assert (found.fields, found.others, found.numbers) == ({"item": 12}, {"type": 5}, ("price",))
    assert (found.lists, found.shared) == ({"genre": (7, 3)}, {})
    assert found.histories["history"].fields == ("item",)
    assert (found.group_field, found.time_unit) == (None, "ms")


@given(
    values=st.lists(st.integers(0, 4), min_size=3, max_size=3),
    garbage=st.integers(-(2**31), 2**31 - 1),
    model=st.sampled_from(["tin", "din", "tin_released"]),
)
@settings(max_examples=30)
def test_what_stands_behind_the_values_changes_no_score(values, garbage, model):
    m, batch = made(model), own_batch([3, 0, 5], values)
    dirty, wide = dict(batch), dict(batch)
    for name in ("genre", "liked"):
        behind = torch.arange(4) >= batch[f"{name}_length"][:, None]
        dirty[name] = torch.where(behind, garbage, batch[name]).int()
        wide[name] = torch.cat([dirty[name], torch.full((3, 2), garbage).int()], 1)
    plain = m(batch)
    assert torch.equal(m(dirty), plain)
    torch.testing.assert_close(m(wide), plain)
    m(dirty).sum().backward()
    assert torch.isfinite(m.fields["item"].weight.grad.to_dense()).all()


def test_a_feature_is_the_mean_of_its_values():
    torch.manual_seed(0)
    table = Table(7, 5)
    ids = torch.tensor([[2, 3, 3], [4, 9, 9], [9, 9, 9]])
    found = mean_of_values(table, ids, torch.tensor([3, 1, 0]))
    w = table.weight
    expected = torch.stack([(w[2] + 2 * w[3]) / 3, w[4], torch.zeros(5)])
    torch.testing.assert_close(found, expected)


def test_a_vocabulary_has_one_table():
    m = made()
    assert set(m.others.names) == {"type", "genre"}
    assert {"type", "price", "genre", "genre_length", "liked", "liked_length"} < set(m.columns)
    batch = own_batch([0, 0], [1, 0])
    before = m(batch)
    with torch.no_grad():
        m.fields["item"].weight[int(batch["liked"][0, 0])] += 1.0
    changed = (m(batch) - before).abs() > 1e-6
    assert changed.tolist() == [True, False]
    again = build("tin", None, INPUTS, dim=4, hidden=(8, 4))
    again.load_state_dict(m.state_dict())


@pytest.mark.parametrize("model", RECIPES)
def test_behaviours_may_lack_a_field_of_the_target(model):
    histories = {"history": replace(ONE, fields=("category",))}
    inputs = replace(INPUTS, histories=histories, group_field="category")
    m, batch = made(model, inputs, 8), own_batch([3, 0, 7, 1], [0, 1, 2, 3])
    assert "history_item" not in m.columns
    assert "target_item" in m.columns
    u, t = m.interest(batch)
    assert t.shape == (4, 8)  # of the category alone
    assert (u[1] == 0).all()
    moved = batch | {"target_item": batch["target_item"].roll(1)}
    assert torch.equal(m.interest(moved)[0], u)  # no attention knows it
    assert ((m(moved) - m(batch)).abs() > 1e-7).all()  # but the head does
    gradients(m, batch, 4)


def test_behaviours_that_share_no_field_are_refused(make_dataset):
    data = make_dataset()
    path = data / "manifest.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    told["fields"], told["train"] = ["item"], {}
    told["histories"]["history"]["fields"] = ["category"]
    path.write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(UsageError, match="no field in common"):
        inputs_of(Shards(data))


def gradient_of(model, batch, rows, **options):
    m = made(model)
    total = gradients(m, batch, rows, **options)
    return float(total), {
        n: p.grad.to_dense() for n, p in m.named_parameters() if p.grad is not None
    }


@pytest.mark.parametrize("model", ["tin", "dien_released"])
def test_a_row_of_weight_two_counts_as_two_rows(model):
    batch = own_batch([4, 6, 5, 3], [0, 1, 2, 3])
    weight = torch.tensor([2.0, 0.0, 1.0, 1.0])
    twice = {name: column[torch.tensor([0, 0, 2, 3])] for name, column in batch.items()}
    total, found = gradient_of(model, batch | {"weight": weight}, 4, longest=6)
    expected_total, expected = gradient_of(model, twice, 4, longest=6)
    assert total == pytest.approx(expected_total, rel=1e-5)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)
    # Only their ratios matter.
    scaled = batch | {"weight": 10 * weight}
    _, same = gradient_of(model, scaled, 4, longest=6, mean_weight=10.0)
    for name, gradient in found.items():
        torch.testing.assert_close(same[name], gradient, rtol=1e-4, atol=1e-6)


def test_weights_of_train_are_summed_up(make_log):
    shards = Shards(make_log())
    stored = pl.read_parquet(shards.out / "train" / "*.parquet", columns=["label", "weight"])
    mean, most = weights_of(shards)
    assert mean == pytest.approx(stored["weight"].mean())
    assert most == 4.0
    by = dict(stored.group_by("label").agg(pl.sum("weight")).iter_rows())
    config = TrainConfig(shards.out, shards.out / "run", loss_weight="balanced")
    assert positive_weight(config, shards) == pytest.approx(by[0] / by[1])
    assert weights_of(Shards(make_log(weight=False))) == (1.0, 1.0)


def test_weights_that_are_none_are_refused(make_log, tmp_path):
    data = make_log()
    for path in data.glob("train/*.parquet"):
        table = pq.read_table(path)
        at = table.schema.names.index("weight")
        none = np.full(len(table), -1, np.float32)
        pq.write_table(table.set_column(at, table.schema.field(at), [none]), path)
    with pytest.raises(ContractError, match="weights of train"):
        train(TrainConfig(data, tmp_path / "run", device="cpu"))


def test_it_is_trained_without_valid_and_predicted_with_what_is_kept(make_log, tmp_path):
    data = make_log(layout="ragged")
    told = []
    config = TrainConfig(data, tmp_path / "run", device="cpu", threads=1, hidden=(8,), epochs=2)
    result = train(config, told.append)
    assert set(result.metrics) == {"test"}
    assert "--batch-size" not in told[0].advice  # a batch of 64 is small enough
    assert list(baselines_of(Shards(data))) == ["popularity"]
    stored = pl.read_parquet([*data.glob("t*/*.parquet")])
    stored = stored.select("row", "request", "bid", "page")
    for name in ("scores.parquet", "scores.csv"):
        rows = predict(config.run, data, tmp_path / name).rows
        assert rows == len(stored)
        found = (pl.read_parquet if name.endswith("t") else pl.read_csv)(tmp_path / name)
        assert found.columns[-4:] == ["score", "request", "bid", "page"]
        joined = found.join(stored, on="row", suffix="_stored", validate="1:1")
        assert len(joined) == rows
        quoted = pl.col("request_stored")
        quoted = pl.concat_str(pl.lit("'"), quoted) if name.endswith("v") else quoted
        same = [
            pl.col("request").eq_missing(quoted),
            pl.col("bid").eq_missing(pl.col("bid_stored")),
            pl.col("page").eq_missing(pl.col("page_stored")),
        ]
        assert joined.select(pl.all_horizontal(same).all()).item()
        assert set(found["item"]) <= {f"i{i}" for i in range(2, 12)}


def test_what_needs_groups_is_left_out_and_said_so(make_log, tmp_path):
    data, to = make_log(), tmp_path / "report.html"
    write_report(data, [], to)
    text = to.read_text(encoding="utf-8")
    assert "correlation are left out" in text
    with pytest.raises(UsageError, match="no categories to show"):
        write_report(data, [], to, "c1")
    assert "passed through" in text
    assert "list, at most 3" in text
    shards = Shards(data)
    edges = (0.249, 0.499, 0.749)  # stored in milliseconds
    assert edges_of(shards) == pytest.approx(edges)
    counted = intervals_of(shards)
    assert counted == {-1: sum(shards.manifest.history.bins.train_counts)}  # all below a second
    seconds = Shards(make_log(unit="s"))
    assert sum(intervals_of(seconds).values()) == sum(counted.values())
    assert max(intervals_of(seconds)) == 9
    console = Console(record=True, width=200)
    console.print(models_table(data))
    assert "no groups" in console.export_text()


def test_a_row_is_shown_with_all_that_it_has(make_log):
    console = Console(record=True, width=200)
    console.print(inspect(make_log(), 2))
    text = console.export_text()
    assert "249 ms" in text
    assert "2017-07-14 02:40:00" in text
    assert "genre [" in text
    assert "request =r1; bid 0.125; page 1000000000000" in " ".join(text.split())


def test_a_calendar_is_the_same_in_every_unit():
    times = torch.tensor([0, 1_499_999_999, 1_500_000_000, -1])
    batch = {"history_length": torch.ones(4, dtype=torch.int32)}
    found = []
    for unit, size in (("s", 1), ("ms", 1_000), ("us", 1_000_000)):
        torch.manual_seed(0)
        encoding = Timestamp("Asia/Shanghai", 3, unit=unit)
        stored = times * size + (size - 1)  # within the second
        found.append(
            encoding.places(batch | {"target_time": stored, "history_time": stored[:, None]}, 4)
        )
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize(
    ("rows", "settings", "said"),
    [
        (
            100_000,
            {"batch_size": 4096, "epochs": 20},
            "25 optimizer steps, few to learn from; for 100,000 rows --batch-size 512 --epochs 4",
        ),
        (20_000, {"batch_size": 4096, "epochs": 1}, "5 optimizer steps, too few to learn much"),
        (1_600, {"batch_size": 32, "epochs": 10}, None),  # as small as batches are advised
        (1_500, {"batch_size": 32, "epochs": 1}, "more rows"),
        (200_000, {"batch_size": 32, "epochs": 1}, None),
    ],
)
def test_few_steps_are_told_with_what_would_suit(rows, settings, said):
    plan = {"steps": None, "evaluations": 4, "evaluate_every": None} | settings
    advice = Schedule.of(plan, rows, True).advice(rows)
    assert advice is said is None or said in advice
