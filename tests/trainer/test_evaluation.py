from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyarrow.csv import ConvertOptions, read_csv
from sklearn.metrics import log_loss

from schemas.errors import ContractError, InputError, UsageError
from trainer.data.shards import Shards
from trainer.metrics import gauc
from trainer.training import evaluation
from trainer.training.config import TrainConfig
from trainer.training.evaluation import Predicted, evaluate, predict
from trainer.training.runs import load
from trainer.training.train import train

NAMES = ("user", "item", "category")


@pytest.fixture(scope="module")
def trained(planted, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "tin"
    options = {"dim": 8, "hidden": (8,), "epochs": 2, "lr": 0.01, "threads": 1, "device": "cpu"}
    return train(TrainConfig(planted, run, **options))


def test_evaluates_as_the_training_did(trained, planted):
    for split in ("valid", "test"):
        found = evaluate(trained.run, split)
        assert found.metrics == trained.metrics[split]
        assert found.by_length == {}
    assert evaluate(trained.run, "train").metrics.rows == 360
    assert evaluate(trained.run, data=planted).data == planted


def test_by_length_shares_the_rows_out(trained, planted):
    found = evaluate(trained.run, "test", by_length=True)
    assert list(found.by_length) == ["1-4", "5-9", "10-14"]
    batches = list(Shards(planted).batches("test", batch_size=1000, columns=("label",)))
    lengths = batches[0]["history_length"].numpy()
    for name, metrics in found.by_length.items():
        low, high = map(int, name.split("-"))
        assert metrics.rows == ((lengths >= low) & (lengths <= high)).sum()
    assert sum(m.rows for m in found.by_length.values()) == found.metrics.rows
    total = sum(m.rows * m.logloss for m in found.by_length.values())
    assert total / found.metrics.rows == pytest.approx(found.metrics.logloss)


def test_predictions_are_the_scores_of_the_rows(trained, planted, tmp_path):
    to = tmp_path / "scores.parquet"
    assert predict(trained.run, planted, to) == Predicted(600, {})
    table = pq.read_table(to)
    ids = ["user", "target_item", "target_category"]
    assert table.column_names == ["split", "row", *NAMES, "label", "score"]
    stored = [
        (s.path.split("/")[0], row)
        for s in Shards(planted).manifest.shards
        for row in pq.read_table(planted / s.path, columns=["row", *ids, "label"]).to_pylist()
    ]
    # The raw values of the ids: 'u2', 'i2', 'c2' and so on.
    expected = sorted(
        (split, r["row"], *(f"{n[0]}{r[of]}" for n, of in zip(NAMES, ids, strict=True)), r["label"])
        for split, r in stored
    )
    assert sorted(tuple(r.values())[:-1] for r in table.to_pylist()) == expected
    said = json.loads(table.schema.metadata[b"digests"])
    assert said == json.loads((trained.run / "config.json").read_text())["digests"]
    predict(trained.run, planted, to, splits=("test",))
    test = pq.read_table(to)
    user, label, score = (test[n].to_numpy() for n in ("user", "label", "score"))
    assert gauc(user, label, score) == pytest.approx(trained.metrics["test"].gauc)
    assert log_loss(label, score) == pytest.approx(trained.metrics["test"].logloss, rel=1e-5)
    # One row by itself: the right score stands beside the right row.
    model = load(trained.run)
    batch = next(Shards(planted).batches("test", batch_size=1, columns=(*model.columns, "row")))
    alone = 1 / (1 + np.exp(-float(model(batch).detach())))
    place = test["row"].to_pylist().index(int(batch["row"]))
    assert score[place] == pytest.approx(alone, rel=1e-5)


def test_predictions_as_csv(trained, planted, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "_ROW_GROUP", 100)  # several, one header
    for name in ("scores.parquet", "scores.csv"):
        assert predict(trained.run, planted, tmp_path / name).rows == 600
    table = pq.read_table(tmp_path / "scores.parquet")
    types = ConvertOptions(column_types=table.schema)
    text = read_csv(tmp_path / "scores.csv", convert_options=types)
    assert text.to_pydict() == table.to_pydict()


@pytest.mark.parametrize("name", ["scores.txt", "scores", "scores.csv.gz"])
def test_predictions_of_another_kind_are_refused_before_the_work(tmp_path, name):
    with pytest.raises(UsageError, match="Parquet or as CSV") as caught:
        predict(tmp_path / "absent", tmp_path, tmp_path / name)
    assert "*.parquet or *.csv" in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["scores.parquet", "scores.csv"])
def test_an_interrupted_prediction_leaves_the_file_as_it_was(
    trained, planted, tmp_path, monkeypatch, name
):
    to = tmp_path / name
    to.write_bytes(b"before")

    def fails(*args, **options):
        yield from ()
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation, "logits", fails)
    with pytest.raises(KeyboardInterrupt):
        predict(trained.run, planted, to)
    assert to.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [to]


def test_what_cannot_be_evaluated(trained, planted, make_dataset, tmp_path):
    other = make_dataset(items=40)
    with pytest.raises(ContractError, match="not like") as caught:
        evaluate(trained.run, data=other)
    assert "'item': 42" in str(caught.value)
    with pytest.raises(ContractError, match="not like"):
        predict(trained.run, other, tmp_path / "scores.parquet")
    assert not (tmp_path / "scores.parquet").exists()
    with pytest.raises(InputError, match="no checkpoint"):
        evaluate(tmp_path)
    with pytest.raises(UsageError, match="no split"):
        evaluate(trained.run, "holdout")
    with pytest.raises(UsageError, match="cannot be written"):
        predict(trained.run, planted, tmp_path / "absent" / "scores.parquet")


def test_a_run_without_its_config_needs_the_data_set(trained, planted, tmp_path):
    path = trained.run / "config.json"
    config = path.read_text(encoding="utf-8")
    assert json.loads(config)["data"] == str(planted)
    path.unlink()
    try:
        with pytest.raises(InputError, match=r"config\.json cannot be read"):
            evaluate(trained.run)
        assert evaluate(trained.run, data=planted).metrics == trained.metrics["test"]
    finally:
        path.write_text(config, encoding="utf-8")
