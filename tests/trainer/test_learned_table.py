from __future__ import annotations

import csv
import math
import re
import statistics

import numpy as np
import pytest
import torch

from schemas.errors import UsageError
from tests.trainer.batches import saved
from tests.trainer.conftest import write_dataset
from tests.trainer.test_figures import drawn
from trainer.analysis.correlation import correlate, pearson
from trainer.analysis.figures import Shown
from trainer.analysis.learned_correlation import learned_like
from trainer.analysis.paper_tables import learned_over_seeds, table2
from trainer.analysis.trials import Case, Trial, Trials

SETTINGS = {"dim": 4, "hidden": (6,), "epochs": 1, "evaluations": 1, "device": "cpu", "threads": 1}
SHOWN = Shown("c3", top=3, positions=5)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Table 2 of three models, two seeds each, and where its files are."""
    folder = tmp_path_factory.mktemp("learned")
    data = write_dataset(folder / "data", users=60)
    trials = Trials((data,), folder / "runs", seeds=2, settings=SETTINGS)
    return trials, table2(trials, folder / "out", ("tin", "din_dot", "sasrec"), SHOWN), folder


def test_each_line_is_its_own_seeds(made):
    trials, table, _ = made
    (data,) = trials.data_sets
    truth = correlate(data, "c3", top=3, positions=5)
    assert [(row["model"], row["encoding"]) for row in table.rows] == [
        ("tin", "tte-p"),
        ("din_dot", "none"),
        ("sasrec", "coe"),
    ]
    for row in table.rows:
        runs = [trials.runs / f"data-{row['model']}-{row['encoding']}-{i}" for i in (0, 1)]
        found = [pearson(truth, learned_like(truth, run)) for run in runs]
        if row["model"] == "din_dot":  # no temporal encoding: the same at all positions
            assert found == [None, None]
            assert row["pearson"] is None
        else:
            assert row["pearson"] == pytest.approx(statistics.mean(found))
            assert row["pearson_sd"] == pytest.approx(statistics.stdev(found))
        assert (row["seeds"], row["places"]) == (2, 5)
        assert 0 <= row["own_first"] <= 5


def test_the_maps_are_means_over_seeds_on_one_colour_scale(made):
    trials, table, folder = made
    (data,) = trials.data_sets
    truth = correlate(data, "c3", top=3, positions=5)
    runs = [trials.runs / f"data-tin-tte-p-{seed}" for seed in (0, 1)]
    mean = np.mean([learned_like(truth, run).values for run in runs], axis=0)
    with (folder / "out" / "fig3-data.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["map"] for row in rows} == {"CTC", "tin (tte-p)", "din_dot", "sasrec (coe)"}
    mine = [float(row["value"]) for row in rows if row["map"] == "tin (tte-p)"]
    assert table.rows[0]["spread"] == pytest.approx(max(mine) / min(mine))
    assert mine == pytest.approx(mean.flatten().tolist(), rel=1e-6)
    for name in ("CTC", "tin (tte-p)"):
        shares = [float(row["share_of_range"]) for row in rows if row["map"] == name]
        assert (min(shares), max(shares)) == (0, 1)
    svg = drawn(folder / "out" / "fig3-data")
    # One scale, as each panel's is the same.
    assert len(re.findall("<!-- share of each map(?:&#39;|')s range ", svg)) == 1
    assert "din_dot: the same at all places" in svg
    assert "tin (tte-p): Pearson" in svg


def test_where_the_own_category_is_first_is_counted(tmp_path):
    data = write_dataset(tmp_path / "data", users=40)
    truth = correlate(data, "c3", top=3, positions=4)

    def own_alone(factor):
        def change(model):
            for table in model.fields.tables.values():
                table.weight[:] = 0.1
            model.fields.tables["category"].weight[3] = factor

        return change

    for name, factor, first in (("large", 0.9, 4), ("small", 0.01, 0)):
        run = saved(data, tmp_path / name, "din_dot", change=own_alone(factor))
        trial = Trial(Case(data, "din_dot", "none"), (run,), (), None)
        assert learned_over_seeds(truth, trial).own_first == first


def test_as_released_takes_the_category_alone(tmp_path):
    data = write_dataset(tmp_path / "data", users=40)
    truth = correlate(data, "c3", top=3, positions=4, released=True)

    def items(scale):
        def change(model):
            model.fields.tables["item"].weight[:] *= scale

        return change

    runs = [saved(data, tmp_path / f"tin{scale}", change=items(scale)) for scale in (1, 30)]
    maps = [learned_like(truth, run, released=True) for run in runs]
    np.testing.assert_allclose(maps[0].values, maps[1].values)
    assert (maps[0].values.min(), maps[0].values.max()) == (0, 1)
    assert maps[0].name == "tin (tte-p), as released"
    whole = [learned_like(truth, run) for run in runs]
    assert not np.allclose(whole[0].values, whole[1].values)
    # Cell by cell: e^z |r| of the category's halves, moved to 0..1.
    weights = torch.load(runs[0] / "best.pt", weights_only=True)["weights"]
    category, place = weights["fields.tables.category.weight"], weights["encoding.table.weight"]
    t = category[3] + place[0, 4:]
    raw = np.array(
        [
            [
                math.exp(float(x @ t) / 2) * float((x * t).norm())
                for p in truth.places
                for x in [category[c] + place[p, 4:]]
            ]
            for c in truth.ids
        ]
    )
    expected = (raw - raw.min()) / (raw.max() - raw.min())
    np.testing.assert_allclose(maps[0].values, expected, rtol=1e-4, atol=1e-6)


def test_as_released_has_no_measure_for_learned_attention(tmp_path):
    data = write_dataset(tmp_path / "data", users=20)
    truth = correlate(data, "c3", top=2, positions=3)
    for model in ("din", "din_apart"):
        run = saved(data, tmp_path / model, model)
        learned_like(truth, run)
        with pytest.raises(UsageError, match="category's part alone"):
            learned_like(truth, run, released=True)
