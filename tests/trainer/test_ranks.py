"""Two processes that train together come to what one comes to."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path

import pytest
import torch

from pipeline.cli.app import main
from schemas.errors import UsageError
from tests.trainer.forks import FORKS
from trainer.training.config import TrainConfig
from trainer.training.evaluation import evaluate
from trainer.training.train import train

ROOT = Path(__file__).parents[2]
SMALL = {"dim": 8, "hidden": (8,), "lr": 0.02, "threads": 1, "device": "cpu"}
FLAGS = ["--dim", "8", "--hidden", "8", "--lr", "0.02", "--threads", "1", "--device", "cpu"]


class Torchrun:
    """`torchrun` as a user starts it, on a port of its own: tests may run side by side."""

    def __init__(self, data, run, *words):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", "2", "--no-python", "--"]
        command += [sys.executable, "-m", "pipeline.cli", *words_of(data, run, words)]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def ended(self):
        return self.process.poll() is not None

    def end(self):
        output, _ = self.process.communicate(timeout=300)
        return self.process.returncode, output


class Two:
    """Two processes as `torchrun` starts them, but forked; rank k in the folder `places[k]`."""

    def __init__(self, folder, data, run, *words, places=(ROOT, ROOT)):
        self.said = folder / f"said-{time.monotonic_ns()}"
        # Nobody else is given the port while this one has it, and listens to nobody.
        self.port = socket.socket()
        self.port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.port.bind(("127.0.0.1", 0))
        known = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        known["MASTER_PORT"] = str(self.port.getsockname()[1])
        self.ranks = [
            FORKS.Process(
                target=be_rank,
                args=(
                    words_of(data, run, words),
                    known | {"RANK": str(k), "LOCAL_RANK": str(k)},
                    place,
                    self.said,
                ),
                daemon=True,  # it ends with the tests, whatever comes
            )
            for k, place in enumerate(places)
        ]
        for process in self.ranks:
            process.start()

    def ended(self):
        return not all(process.is_alive() for process in self.ranks)

    def end(self, told=True):
        """How they ended; once one has failed, the other is told to end, as by `torchrun`."""
        wait([process.sentinel for process in self.ranks], 300)
        if told and any(process.exitcode for process in self.ranks):
            for process in self.ranks:
                process.terminate()
        for process in self.ranks:
            process.join(300)
        self.port.close()
        return max(abs(process.exitcode) for process in self.ranks), self.said.read_text()


def be_rank(words, known, place, said):
    os.environ |= known
    os.chdir(place)
    file = os.open(said, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.exit(main(words))


def words_of(data, run, words):
    return ["train", str(data), "--run", str(run), *FLAGS, *map(str, words)]


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
    code, output = Two(tmp_path, planted, tmp_path / "two", "--model", model, *words, *steps).end()
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
    code, output = Two(tmp_path, data, tmp_path / "whole", *words).end()
    assert code == 0, output
    running = Torchrun(data, tmp_path / "broken", *words)
    wait_for(tmp_path / "broken/last.pt", running)
    running.process.send_signal(signal.SIGTERM)  # torchrun passes it on to both
    code, output = running.end()
    assert code != 0
    assert output.count("error: ") == 1, output
    assert "Interrupted" in output
    assert not (tmp_path / "broken/metrics.json").exists()
    code, output = Torchrun(data, tmp_path / "broken", *words, "--resume").end()
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
    apart = (tmp_path / "0", tmp_path / "1")
    code, output = Two(tmp_path, data, "broken", *words, "--resume", places=apart).end()
    assert code == 0, output
    assert output.count("finished already") == output.count("rows/s in training") == 1
    assert metrics_of(tmp_path / "0/broken") == before
    assert not (tmp_path / "1/broken").exists()
    # Another number of processes would not come to the same.
    how = {"steps": 160, "evaluate_every": 40, "checkpoint_seconds": 0.0, "model": "tin"}
    config = TrainConfig(data, tmp_path / "whole", **SMALL | how)
    with pytest.raises(UsageError, match="ranks 2"):
        train(replace(config, resume=True))


def wait_for(path, running):
    until = time.monotonic() + 300
    while not path.exists():
        assert not running.ended()
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (signal.SIGTERM, "Interrupted"),
        (signal.SIGKILL, "Another process of the training has ended"),
    ],
)
def test_one_that_ends_ends_all_with_one_message(planted, tmp_path, how, told):
    words = ("--steps", 10**6, "--checkpoint-seconds", 0)
    running = Two(tmp_path, planted, tmp_path / "run", *words)
    wait_for(tmp_path / "run/last.pt", running)
    os.kill(running.ranks[1].pid, how)
    # What is killed is told by nobody; and a collective would wait for half an hour.
    code, output = running.end(told=how == signal.SIGTERM)
    assert code != 0
    assert not any(process.is_alive() for process in running.ranks)
    assert output.count("error: ") == 1, output
    assert told in output
    assert not (tmp_path / "run/metrics.json").exists()


def test_settings_that_no_rank_can_run_are_told_once(planted, tmp_path):
    code, output = Two(tmp_path, planted, tmp_path / "run", "--model", "abacus").end()
    assert code != 0
    assert output.count("error: ") == 1, output
    assert "There is no such model" in output
