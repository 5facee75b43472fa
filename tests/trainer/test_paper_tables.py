from __future__ import annotations

import csv
import json
import shutil
import statistics
from dataclasses import replace

import pytest

from schemas.errors import ContractError, InputError, UsageError
from schemas.expected import AMAZON_COUNTS
from schemas.manifest import FIRST_ID
from tests.trainer.conftest import write_dataset
from trainer.analysis.paper_tables import table1, table3, table4
from trainer.analysis.trials import Case, Trials
from trainer.baselines import baselines_of
from trainer.data.shards import Shards
from trainer.training.evaluation import evaluate
from trainer.training.events import Evaluated, Started

SETTINGS = {
    "dim": 8,
    "hidden": (16, 8),
    "epochs": 1,
    "lr": 0.01,
    "evaluations": 2,
    "device": "cpu",
    "threads": 1,
}


def trials(*data, runs, **options):
    return Trials(tuple(data), runs, **{"seeds": 2, "settings": SETTINGS} | options)


def result(run):
    return json.loads((run / "metrics.json").read_text(encoding="utf-8"))["metrics"]["test"]


@pytest.fixture(scope="module")
def planted_twice(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    return tuple(write_dataset(folder / name, seed=i) for i, name in enumerate("ab"))


@pytest.fixture(scope="module")
def made(planted_twice, tmp_path_factory):
    """Table 1 of three models on two data sets, with what was told on the way."""
    runs, told, events = tmp_path_factory.mktemp("runs"), [], []
    wanted = trials(*planted_twice, runs=runs, say=told.append, watch=lambda name: events.append)
    return wanted, table1(wanted, ("tin", "din", "tin_wo_tte"), "tte-t"), told, events


def test_each_figure_is_of_its_own_runs(made):
    wanted, table, told, events = made
    assert len(told) == sum(isinstance(e, Started) for e in events) == 2 * 3 * 2
    assert told[0] == "run 1 of 12: a-tin-tte-t-0"
    encodings = {"tin": "tte-t", "din": "none", "tin_wo_tte": "none"}
    models = [row["model"] for row in table.rows]
    assert models == ["popularity", "category_share", *encodings] * 2
    for row in (row for row in table.rows if row["model"] in encodings):
        assert row["encoding"] == encodings[row["model"]]
        names = [f"{row['data']}-{row['model']}-{row['encoding']}-{seed}" for seed in (0, 1)]
        measured = [result(wanted.runs / name) for name in names]
        for name in ("gauc", "auc", "logloss"):
            values = [m[name] for m in measured]
            assert values[0] != values[1]
            assert row[name] == pytest.approx(statistics.mean(values))
            assert row[f"{name}_sd"] == pytest.approx(statistics.stdev(values))
        assert row["seeds"] == 2


def test_the_reference_is_the_best_that_is_not_tin(made):
    _, table, _, _ = made
    for name in "ab":
        rows = {row["model"]: row for row in table.rows if row["data"] == name}
        best = max(("popularity", "category_share", "din"), key=lambda m: rows[m]["gauc"])
        assert (rows[best]["change_pct"], rows[best]["p"]) == (None, None)
        for model, row in rows.items():
            if model != best:
                change = row["gauc"] / rows[best]["gauc"] - 1
                assert row["change_pct"] == pytest.approx(100 * change)
                assert 0 <= row["p"] <= 1
        assert any(f"{name}: adam" in n and f"Reference: {best}." in n for n in table.notes)


def test_the_counting_baselines_are_those_of_test(made):
    wanted, table, _, _ = made
    shards = Shards(wanted.data_sets[0])
    rows = {row["model"]: row for row in table.rows if row["data"] == "a"}
    for name, baseline in baselines_of(shards).items():
        assert rows[name]["gauc"] == baseline(shards, "test").measure().gauc
        assert rows[name]["logloss"] is None


def test_files_hold_the_table_and_say_synthetic(made, tmp_path):
    _, table, _, _ = made
    table.write(tmp_path / "out")
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == [".tinprep.json", "table1.csv", "table1.md"]
    with (tmp_path / "out" / "table1.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    for line, row in zip(lines, table.rows, strict=True):
        assert line == {name: "" if v is None else str(v) for name, v in row.items()}
    text = (tmp_path / "out" / "table1.md").read_text(encoding="utf-8")
    assert text.count("synthetic data") == 2
    assert "paper's GAUC" not in text
    tin = next(row for row in table.rows if row["model"] == "tin")
    assert f"| tin | 111 | tte-t | 2 | {tin['gauc']:.4f} | {tin['gauc_sd']:.4f} |" in text


def test_a_folder_that_cannot_be_is_said(made, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="folder cannot be made"):
        made[1].write(tmp_path / "file")


def test_what_is_finished_is_not_done_again(made):
    wanted, table, _, _ = made

    def fail(event):
        raise AssertionError(event)

    told = []
    again = trials(*wanted.data_sets, runs=wanted.runs, say=told.append, watch=lambda name: fail)
    assert table1(again, ("tin", "din", "tin_wo_tte"), "tte-t") == table
    assert all("is finished" in line for line in told)


def test_an_interrupted_run_goes_on_to_the_same_figures(planted_twice, tmp_path):
    case = Case(planted_twice[0], "tin", "tte-p")

    class Stop(Exception):
        pass

    seen = []

    def stop(event):
        seen.append(event)
        if sum(isinstance(e, Evaluated) for e in seen) == 2:
            raise Stop

    settings = SETTINGS | {"epochs": 2}
    cut = trials(
        case.data, runs=tmp_path / "cut", settings=settings, seeds=1, watch=lambda name: stop
    )
    with pytest.raises(Stop):
        cut.run([case])
    told, events = [], []
    options = {
        "settings": settings,
        "seeds": 1,
        "say": told.append,
        "watch": lambda name: events.append,
    }
    (resumed,) = trials(case.data, runs=tmp_path / "cut", **options).run([case])
    assert told == ["run 1 of 1: a-tin-tte-p-0 goes on"]
    assert next(e for e in events if isinstance(e, Started)).resumed > 0
    (whole,) = trials(case.data, runs=tmp_path / "whole", **options).run([case])
    assert resumed.metrics == whole.metrics
    assert resumed.users.equals(whole.users)


def test_a_finished_run_of_other_settings_is_refused(made):
    wanted, *_ = made
    other = trials(*wanted.data_sets, runs=wanted.runs, settings=SETTINGS | {"lr": 0.02})
    with pytest.raises(UsageError, match="other settings") as caught:
        table1(other, ("din",))
    assert (caught.value.expected, caught.value.got) == ("lr 0.02", "lr 0.01")
    # What changes no figure may differ.
    neutral = trials(*wanted.data_sets, runs=wanted.runs, settings=SETTINGS | {"cells": 100})
    table1(neutral, ("din",))


@pytest.mark.parametrize("items", [30, 40])
def test_a_run_of_data_that_is_no_longer_there_is_refused(tmp_path, items):
    data = write_dataset(tmp_path / "data")
    one = trials(data, runs=tmp_path / "runs", seeds=1)
    (trial,) = one.run([Case(data, "din", "none")])
    kept = trial.runs[0] / "test_scores.parquet"
    kept.write_bytes(b"cut short")
    with pytest.raises(UsageError, match="damaged, or another's"):
        one.run([Case(data, "din", "none")])
    assert kept.read_bytes() == b"cut short"
    kept.unlink()
    shutil.rmtree(data)
    write_dataset(data, seed=7, items=items)
    with pytest.raises(ContractError, match="not of the data set that is there now"):
        one.run([Case(data, "din", "none")])


def test_a_result_that_cannot_be_read_is_said(planted_twice, tmp_path):
    one = trials(planted_twice[0], runs=tmp_path, seeds=1)
    case = Case(planted_twice[0], "din", "none")
    one.folder(case, 0).mkdir()
    (one.folder(case, 0) / "metrics.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be read"):
        one.run([case])


def test_mistakes_are_found_before_any_training(planted_twice, tmp_path):
    (tmp_path / "a").mkdir()
    twin = write_dataset(tmp_path / "twin" / "a")
    for wrong, sets, models in (
        ("tell the data sets apart", (planted_twice[0], twin), ("tin",)),
        ("tell the data sets apart", (), ("tin",)),
        ("no such model", planted_twice, ("tin", "nonesuch")),
    ):
        with pytest.raises(UsageError, match=wrong):
            table1(trials(*sets, runs=tmp_path / "runs"), models)
    untested = write_dataset(tmp_path / "untested", splits=("train", "valid"))
    with pytest.raises(UsageError, match="no test split"):
        table1(trials(planted_twice[0], untested, runs=tmp_path / "runs"), ("tin",))
    with pytest.raises(UsageError, match="nothing to train"):
        trials(planted_twice[0], runs=tmp_path / "runs", seeds=0)
    assert not (tmp_path / "runs").exists()


def named(data, dataset, synthetic):
    """Give a data set another name in its manifest."""
    path = data / "manifest.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    told |= {"dataset": dataset, "synthetic": synthetic}
    path.write_text(json.dumps(told), encoding="utf-8")


def test_the_papers_values_stand_beside_its_data_only(tmp_path, monkeypatch):
    data = write_dataset(tmp_path / "data", max_len=25)
    items = Shards(data).manifest.vocabulary["item"] - FIRST_ID
    one = trials(data, runs=tmp_path / "runs", seeds=1)
    # The same runs under other names, and with as many items as published or another number.
    for dataset, synthetic, published, beside in (
        ("amazon-Electronics", False, items, True),
        ("amazon-Electronics", False, 63_001, False),
        ("amazon-Electronics", True, items, False),
        ("amazon-Beauty", False, items, False),
    ):
        named(data, dataset, synthetic)
        known = replace(AMAZON_COUNTS["Electronics"], items=published)
        monkeypatch.setitem(AMAZON_COUNTS, "Electronics", known)
        first, third, fourth = table1(one, ("din",)), table3(one), table4(one)
        for table in (first, third, fourth):
            for path in table.write(tmp_path / "out"):
                assert path.name.startswith(table.name)
                assert dataset in path.read_text(encoding="utf-8")
        row = next(row for row in first.rows if row["model"] == "din")
        values = [row["paper_gauc"], row["paper_logloss_sd"], fourth.rows[1]["paper_gauc"]]
        assert values == ([0.8590, 2e-3, 0.8703] if beside else [None] * 3)
        longest = next(row for row in third.rows if row["length"] == "20+")
        change = longest["paper_change_pct"]
        assert change == pytest.approx(-0.61, abs=0.005) if beside else change is None
        assert ("paper's" in fourth.markdown().partition("\n")[2]) == beside
        assert ("synthetic data" in first.markdown()) == synthetic


def test_table3_is_what_evaluate_says_by_length(made, planted_twice, tmp_path):
    data = planted_twice[0]
    one = trials(data, runs=tmp_path)
    table = table3(one)
    found = {
        encoding: [
            evaluate(tmp_path / f"a-tin-{encoding}-{seed}", "test", True).by_length
            for seed in (0, 1)
        ]
        for encoding in ("tte-p", "coe")
    }
    assert [row["length"] for row in table.rows] == list(found["coe"][0])
    for row in table.rows:
        ours, other = (
            statistics.mean(m[row["length"]].gauc for m in found[e]) for e in ("tte-p", "coe")
        )
        assert (row["tte_p"], row["coe"]) == (pytest.approx(ours), pytest.approx(other))
        assert row["change_pct"] == pytest.approx(100 * (other / ours - 1))
        assert row["rows"] == found["coe"][0][row["length"]].rows


def test_table4_holds_every_encoding_against_tte_p(planted_twice, tmp_path):
    table = table4(trials(planted_twice[0], runs=tmp_path, seeds=1))
    assert [row["encoding"] for row in table.rows] == ["tte-p", "tte-t", "timestamp", "tte-pt"]
    assert table.rows[0]["change_pct"] is None
    for row in table.rows[1:]:
        change = row["gauc"] / table.rows[0]["gauc"] - 1
        assert row["change_pct"] == pytest.approx(100 * change)
        assert row["gauc_sd"] is None
