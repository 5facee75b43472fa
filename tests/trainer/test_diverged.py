"""Training that came to nothing: one error, and nothing that is no number is kept."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from pipeline.cli.app import app
from tests.trainer.conftest import write_dataset
from trainer.training.divergence import logloss_limit, not_finite
from trainer.training.evaluation import evaluate

SMALL = ["--dim", 4, "--hidden", 4, "--threads", 1, "--device", "cpu"]


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def refused(ended, code):
    """The message of a command that ended in one error."""
    assert ended.exit_code == code, ended.output
    assert isinstance(ended.exception, SystemExit)
    assert ended.output.count("error: ") == 1
    return ended.output


def weights_are_finite(run):
    for path in run.glob("*.pt"):
        assert not_finite(torch.load(path, weights_only=True)) is None, path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("diverging")
    return (
        write_dataset(folder / "with", users=20),
        write_dataset(folder / "without", users=20, splits=("train", "test")),
    )


@settings(max_examples=12, deadline=None, derandomize=True, database=None)
@given(
    lr=st.floats(-4, 38).map(lambda power: 10**power),
    optimizer=st.sampled_from(["adam", "adagrad"]),
    model=st.sampled_from(["tin", "avg_concat", "dien", "tin_released"]),
    valid=st.booleans(),
    course=st.sampled_from([("--steps", 1), ("--steps", 7, "--evaluate-every", 1), ()]),
    weight=st.sampled_from([1, "balanced", 1e6]),
)
def test_whatever_the_rate_a_run_is_sound_or_refused(
    data, lr, optimizer, model, valid, course, weight
):
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        given = ["--lr", lr, "--optimizer", optimizer, "--model", model, "--loss-weight", weight]
        words = ["train", data[not valid], "--run", run, "--batch-size", 40, "--epochs", 2]
        words = words[:-2] if "--steps" in course else words
        ended = invoke(*words, *given, *course, *SMALL)
        weights_are_finite(run)
        if ended.exit_code == 0:
            assert evaluate(run).metrics.logloss <= logloss_limit(1e6 if weight == 1e6 else 1)
            assert lr < 1e4
        else:
            said = refused(ended, 2)
            assert "diverged" in said
            assert f"{run}, step" in said
            assert "(`--lr`)" in said
            assert not (run / "metrics.json").exists()
            assert lr >= 0.5
            # The same again, whether it is gone on with or begun anew.
            assert "diverged" in refused(invoke(*words, *given, *course, *SMALL, "--resume"), 2)
            assert "diverged" in refused(invoke(*words, *given, *course, *SMALL, "--force"), 2)
            weights_are_finite(run)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_the_best_weights_before_are_kept_and_told(make_dataset, tmp_path, number):
    out, run = make_dataset(extra=True), tmp_path / "run"
    shard = out / "train" / "part-00000.parquet"
    table = pq.read_table(shard)
    place = table.column_names.index("price")
    price = table["price"].to_numpy().copy()
    price[7] = number  # one row, which the shuffle does not put into the first steps
    pq.write_table(table.set_column(place, table.schema.field(place), pa.array(price)), shard)
    words = ["train", out, "--run", run, "--evaluate-every", 1, "--patience", 99, *SMALL]
    said = " ".join(refused(invoke(*words), 2).split())
    assert "are kept in best.pt" in said
    assert "look for extreme values" in said
    assert not (run / "metrics.json").exists()
    weights_are_finite(run)
    state = torch.load(run / "last.pt", weights_only=True)
    kept = evaluate(run, "valid").metrics
    step = max(
        (line.split(",") for line in (run / "log.csv").read_text().splitlines()[1:]),
        key=lambda line: float(line[3]),
    )
    assert f"of step {step[0]}," in said
    assert kept.gauc == pytest.approx(float(step[3]))
    state["optimizer"]["adam"]["state"][0]["exp_avg"][0] = number
    torch.save(state, run / "last.pt")
    assert "has diverged" in refused(invoke(*words, "--resume"), 4)
    if math.isnan(number):  # sound weights have no score for such a row
        assert "scores are no numbers" in refused(invoke("evaluate", run, "--split", "train"), 4)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_checkpoint_whose_weights_are_no_numbers(planted, tmp_path, number):
    run = tmp_path / "run"
    assert invoke("train", planted, "--run", run, "--steps", 2, *SMALL).exit_code == 0
    content = torch.load(run / "best.pt", weights_only=True)
    next(iter(content["weights"].values()))[0, 0] = number
    torch.save(content, run / "best.pt")
    scores = tmp_path / "scores.csv"
    for words in (["evaluate", run], ["predict", run, planted, "--out", scores]):
        assert "has diverged" in refused(invoke(*words), 4)
    assert not scores.exists()


@pytest.mark.parametrize(
    "given",
    [
        *(["--lr", value] for value in ("inf", "nan", "-1", "0", "1e39", "-inf")),
        *(["--clip", value] for value in ("inf", "nan", "0", "-1")),
        *(["--loss-weight", value] for value in ("inf", "nan", "0", "-1", "1e39", "heavy")),
        *(["--checkpoint-seconds", value] for value in ("inf", "nan", "-1")),
        *(["--seed", value] for value in ("-1", "9" * 23)),
        *([f"--{name}", 10**12] for name in ("epochs", "steps", "batch-size", "patience", "dim")),
        *(["--evaluations", 10**12], ["--evaluate-every", 10**12], ["--attention-dim", 10**8]),
        *(["--threads", 100_000], ["--memory-mb", 10**15], ["--memory-mb", 0]),
        *(["--hidden", value] for value in ("9" * 30, "4,-1", ",".join("4" * 101), "80,x", "0")),
    ],
    ids=lambda given: "=".join(map(str, given))[:30],
)
def test_a_number_out_of_range_is_refused_before_anything_is_made(planted, tmp_path, given):
    run = tmp_path / "run"
    assert str(given[0]) in refused(invoke("train", planted, "--run", run, *given), 2)
    assert not run.exists()
