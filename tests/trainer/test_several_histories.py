"""Of a data set with several histories one is read: as if it were the only one."""

from __future__ import annotations

import json

import polars as pl
import pytest
import torch

from tests.conftest import finished, refused, tinprep
from trainer.data.shards import Shards
from trainer.training.config import TrainConfig
from trainer.training.evaluation import evaluate, predict
from trainer.training.train import train

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


def test_which_one_has_to_be_said(made, tmp_path):
    run = ("--run", tmp_path / "run")
    refused(tinprep("train", made / "both", *run), 2, "--history", "one of history, buys")
    refused(tinprep("train", made / "both", *run, "--history", "views"), 2, "no such history")
    assert not (tmp_path / "run").exists()


def _named(history):
    return () if history is None else ("--history", history)
