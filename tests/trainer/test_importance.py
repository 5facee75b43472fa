"""What the parts of a row are worth, against permuting them by hand, and where it is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tests.conftest import finished, refused, tinprep
from tests.trainer.batches import saved
from tests.trainer.conftest import write_log
from trainer.analysis.importance import importance, importance_of
from trainer.data.shards import Shards
from trainer.metrics import auc, gauc, logloss
from trainer.training.config import TrainConfig
from trainer.training.runs import load
from trainer.training.train import train


def test_it_is_what_permuting_by_hand_gives(make_alibaba, tmp_path):
    data = make_alibaba(layout="ragged", users=30)
    run = saved(data, tmp_path / "run", "tin_mix")
    found = importance(run, draws=2, seed=3)
    model, shards = load(run), Shards(data)
    (batch,) = shards.batches("valid", batch_size=10_000, columns=(*model.columns, "user", "label"))
    user, label = batch["user"].numpy(), batch["label"].numpy().astype(np.int8)

    def scores(of):
        with torch.no_grad():
            return model(of).numpy()

    base = scores(batch)
    assert (found.measured, found.rows) == ("valid", len(label))
    assert found.gauc == pytest.approx(gauc(user, label, base))
    generator = np.random.default_rng(3)
    orders = [torch.from_numpy(generator.permutation(len(label))) for _ in range(2)]
    columns = {("history", "history"): [n for n in batch if n.startswith("history_")]}
    columns |= {("field", n): [f"target_{n}"] for n in ("category", "brand")}
    columns |= {("feature", n): [n] for n in (*model.inputs.others, "price")}
    assert {(part.kind, part.name) for part in found.parts} == columns.keys()
    for part in found.parts:
        of = columns[part.kind, part.name]
        each = [scores(batch | {n: batch[n][order] for n in of}) for order in orders]
        falls = [gauc(user, label, base) - gauc(user, label, one) for one in each]
        assert part.gauc == pytest.approx(np.mean(falls), abs=1e-6)
        assert part.draws == pytest.approx(abs(falls[0] - falls[1]) / 2, abs=1e-6)
        less = auc(label, base) - np.mean([auc(label, one) for one in each])
        assert part.auc == pytest.approx(less, abs=1e-5)
        more = np.mean([logloss(label, one) for one in each]) - logloss(label, base)
        assert part.logloss == pytest.approx(more, abs=1e-5)
    assert importance_of(run) == found


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on rows whose label says whether the newest behaviour is the target, and noise."""
    folder = tmp_path_factory.mktemp("importance")
    splits = ("train", "valid", "test")
    data = write_log(folder / "data", users=300, splits=splits, weight=False)
    how = {"batch_size": 64, "dim": 8, "lr": 0.02, "device": "cpu", "evaluations": 1}
    train(TrainConfig(data, folder / "run", epochs=4, **how))
    return data, folder / "run"


def test_it_finds_what_the_label_is_made_of_and_no_more(trained):
    _, run = trained
    found = importance(run)
    sure = {part.name for part in found.parts if part.p < 0.01}
    assert sure == {"history", "item"} == {part.name for part in found.parts[:2]}
    assert {part.name for part in found.parts[2:]} == {"type", "price", "genre"}
    assert all(part.gauc > 10 * part.error for part in found.parts[:2])
    only = importance(run, "field", split="test", draws=1)
    assert (only.measured, {part.name for part in only.parts}) == ("test", {"item"})


def test_the_command_and_the_report_show_it(trained, tmp_path):
    data, run = trained
    told = tinprep("importance", run, "--by", "history", "--draws", 2)
    finished(told)
    assert "on 1,800 rows of valid" in " ".join(told.said.split())
    finished(tinprep("report", data, run, "--out", tmp_path / "report.html"))
    assert "What each part of a row is worth" in (tmp_path / "report.html").read_text()
    assert json.loads((run / "importance.json").read_text())["draws"] == 2
    refused(tinprep("importance", run, "--by", "row"), 2, "--by", "feature, field, history")
    refused(tinprep("importance", run, "--split", "new"), 2, "no split")
    # Another training of the run leaves nothing behind of the weights before.
    finished(tinprep("train", "--run", run, "--resume", "--epochs", 5))
    assert not (run / "importance.json").exists()
