"""Two processes that train together come to what one comes to."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from trainer.training.config import TrainConfig
from trainer.training.evaluation import evaluate
from trainer.training.train import train

ROOT = Path(__file__).parents[2]
SMALL = {"dim": 8, "hidden": (8,), "lr": 0.02, "threads": 1, "device": "cpu"}
FLAGS = ["--dim", "8", "--hidden", "8", "--lr", "0.02", "--threads", "1", "--device", "cpu"]


def started(data, run, *words, processes=2, within=()):
    """`torchrun` as a user starts it, on a port of its own: tests may run side by side."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--nproc-per-node", str(processes), "--no-python", "--", *within]
    command = [*torchrun, sys.executable, "-m", "pipeline.cli", "train"]
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
        # 7 rows a step of 360: two ranks have unequal parts, and an epoch's last step has 3 rows.
        (
            "tin_released",
            {"batch_size": 7, "clip": 0.5, "l2": 0.1},
            ["--batch-size", 7, "--clip", 0.5, "--l2", 0.1],
        ),
        (
            "tin",
            {"optimizer": "adagrad", "tables": "bfloat16"},
            ["--optimizer", "adagrad", "--tables", "bfloat16"],
        ),
    ],
)
def test_two_train_what_one_trains(planted, tmp_path, model, options, words):
    steps = ["--steps", 60, "--evaluate-every", 25]
    code, output = finished(planted, tmp_path / "two", "--model", model, *words, *steps)
    assert code == 0, output
    config = TrainConfig(
        planted, tmp_path / "one", model=model, steps=60, evaluate_every=25, **SMALL | options
    )
    one = train(config)
    for ours, theirs in zip(log_of(tmp_path / "two"), log_of(tmp_path / "one"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)
    for name, weight in weights_of(tmp_path / "one").items():
        # A bfloat16 that another one's last digits round otherwise is its neighbour.
        rtol = 2**-7 if weight.dtype == torch.bfloat16 else 0
        torch.testing.assert_close(weights_of(tmp_path / "two")[name], weight, rtol=rtol, atol=1e-3)
    two = metrics_of(tmp_path / "two")
    assert two["config"]["ranks"] == 2
    assert two["metrics"]["test"]["auc"] == pytest.approx(one.metrics["test"].auc, abs=0.01)
    # Their scores are those of one process, to the last digit.
    for split in ("valid", "test"):
        assert vars(evaluate(tmp_path / "two", split).metrics) == two["metrics"][split]
    assert output.count("step 60: valid GAUC") == 1  # one process tells


def test_killed_and_resumed_ends_as_uninterrupted(make_dataset, tmp_path):
    data = make_dataset(users=80)
    words = ["--steps", 160, "--evaluate-every", 40, "--checkpoint-seconds", 0, "--model", "tin"]
    code, output = finished(data, tmp_path / "whole", *words)
    assert code == 0, output
    process = started(data, tmp_path / "broken", *words)
    wait_for(tmp_path / "broken/last.pt", process)
    process.send_signal(signal.SIGTERM)  # torchrun passes it on to both
    output, _ = process.communicate(timeout=300)
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
    # Who repeats the command finds it done, also where one rank alone sees the run.
    before = metrics_of(tmp_path / "broken")
    for rank in ("0", "1"):
        (tmp_path / rank).mkdir()
    (tmp_path / "broken").rename(tmp_path / "0/broken")
    apart = ["sh", "-c", f'cd "{tmp_path}/$RANK" && exec "$@"', "sh"]
    code, output = finished(data, "broken", *words, "--resume", within=apart)
    assert code == 0, output
    assert output.count("finished already") == output.count("rows/s in training") == 1
    assert metrics_of(tmp_path / "0/broken") == before
    assert not (tmp_path / "1/broken").exists()
    # Another number of processes would not come to the same.
    code, output = finished(data, tmp_path / "whole", *words, "--resume", processes=1)
    assert code != 0


def wait_for(path, process):
    until = time.monotonic() + 300
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (signal.SIGTERM, "Interrupted"),
        # torchrun may be quicker to end the other one than its next step is to fail.
        (signal.SIGKILL, r"Another process of the training has ended|Interrupted"),
    ],
)
def test_one_that_ends_ends_all_with_one_message(planted, tmp_path, how, told):
    process = started(planted, tmp_path / "run", "--steps", 10**6, "--checkpoint-seconds", 0)
    wait_for(tmp_path / "run/last.pt", process)
    began = time.monotonic()
    os.kill(process_of_rank(1, process.pid), how)
    output, _ = process.communicate(timeout=300)
    assert process.returncode != 0
    assert output.count("error: ") == 1, output
    assert re.search(told, output), output
    assert time.monotonic() - began < 100  # and not what a collective waits for: half an hour
    assert not (tmp_path / "run/metrics.json").exists()


def process_of_rank(rank, parent):
    """The process id of a rank that torchrun, `parent`, started."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    (found,) = (
        int(child)
        for child in children
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
    )
    return found


def test_settings_that_no_rank_can_run_are_told_once(planted, tmp_path):
    code, output = finished(planted, tmp_path / "run", "--model", "abacus")
    assert code != 0
    assert output.count("error: ") == 1, output
    assert "There is no such model" in output
