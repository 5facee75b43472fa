"""Two processes that train together come to what one comes to."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from trainer.config import TrainConfig
from trainer.evaluation import evaluate
from trainer.fit import train

ROOT = Path(__file__).parents[2]
SMALL = {"dim": 8, "hidden": (8,), "lr": 0.02, "threads": 1, "device": "cpu"}
FLAGS = ["--dim", "8", "--hidden", "8", "--lr", "0.02", "--threads", "1", "--device", "cpu"]


def started(data, run, *words, processes=2):
    """`torchrun` as a user starts it."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command = [*torchrun, "--no-python", "--", sys.executable, "-m", "pipeline.cli", "train"]
    return subprocess.Popen(
        [*command, str(data), "--run", str(run), *FLAGS, *map(str, words)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(*args, **options):
    process = started(*args, **options)
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def log_of(run):
    with (run / "log.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    return [{k: float(v) for k, v in x.items() if v and k != "seconds"} for x in lines]


def weights_of(run):
    return torch.load(run / "best.pt", weights_only=True)["weights"]


def metrics_of(run):
    return json.loads((run / "metrics.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        # 9 rows a step of 360: two ranks have unequal parts, and the last step has fewer rows.
        ("tin_released", {"batch_size": 9, "clip": 0.5}, ["--batch-size", 9, "--clip", 0.5]),
        ("din", {"optimizer": "adagrad"}, ["--optimizer", "adagrad"]),
    ],
)
def test_two_train_what_one_trains(planted, tmp_path, model, options, words):
    steps = ["--steps", 50, "--evaluate-every", 20]
    code, output = finished(planted, tmp_path / "two", "--model", model, *words, *steps)
    assert code == 0, output
    config = TrainConfig(
        planted, tmp_path / "one", model=model, steps=50, evaluate_every=20, **SMALL | options
    )
    one = train(config)
    for ours, theirs in zip(log_of(tmp_path / "two"), log_of(tmp_path / "one"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)
    for name, weight in weights_of(tmp_path / "one").items():
        torch.testing.assert_close(weights_of(tmp_path / "two")[name], weight, rtol=0, atol=1e-3)
    two = metrics_of(tmp_path / "two")
    assert two["config"]["ranks"] == 2
    assert two["metrics"]["test"]["auc"] == pytest.approx(one.metrics["test"].auc, abs=0.01)
    # Their scores are those of one process, to the last digit.
    for split in ("valid", "test"):
        assert vars(evaluate(tmp_path / "two", split).metrics) == two["metrics"][split]
    assert output.count("valid GAUC") == one_told(output)


def one_told(output):
    """Lines that one process tells: each once."""
    return len({line for line in output.splitlines() if "valid GAUC" in line})


def test_killed_and_resumed_ends_as_uninterrupted(make_dataset, tmp_path):
    data = make_dataset(users=80)
    words = ["--steps", 400, "--evaluate-every", 100, "--checkpoint-seconds", 0, "--model", "dien"]
    code, output = finished(data, tmp_path / "whole", *words)
    assert code == 0, output
    process = started(data, tmp_path / "broken", *words)
    wait_for(tmp_path / "broken/last.pt", process)
    process.send_signal(signal.SIGTERM)  # torchrun passes it on to both
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert output.count("error: ") == 1, output
    assert "Interrupted" in output
    assert not (tmp_path / "broken/metrics.json").exists()
    code, output = finished(data, tmp_path / "broken", *words, "--resume")
    assert code == 0, output
    assert "going on after step" in output
    assert log_of(tmp_path / "broken") == log_of(tmp_path / "whole")
    for name, weight in weights_of(tmp_path / "whole").items():
        assert torch.equal(weights_of(tmp_path / "broken")[name], weight)
    # Another number of processes would not come to the same.
    code, output = finished(data, tmp_path / "whole", *words, "--resume", processes=1)
    assert code != 0


def wait_for(path, process):
    until = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)


def test_an_error_of_one_ends_all_with_one_message(make_dataset, tmp_path):
    # Streamed, each rank reads shards of its own: only one meets the damage.
    data = make_dataset(users=60)
    path = data / "train/part-00001.parquet"
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)  # the first pages, not the footer
    path.write_bytes(content)
    began = time.monotonic()
    code, output = finished(data, tmp_path / "run")
    assert code != 0
    assert output.count("error: ") == 1, output
    assert "part-00001.parquet" in output
    assert time.monotonic() - began < 120
    assert not (tmp_path / "run/metrics.json").exists()


def test_settings_that_no_rank_can_run_are_told_once(planted, tmp_path):
    code, output = finished(planted, tmp_path / "run", "--model", "abacus")
    assert code != 0
    assert output.count("error: ") == 1, output
    assert "There is no such model" in output
