"""OpenMP's threads beside other work: they sleep where cores are taken, and compute the same."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import pytest
import torch

from schemas.machine import usable_cores
from trainer import sharing
from trainer.fit import TrainConfig, train

THREADS = max(2, usable_cores())

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="libgomp is Linux's")


def teams() -> set[str]:
    """The threads of `sharing` that are there now."""
    return {t.name for t in threading.enumerate()} & {"sharing", "idle-team"}


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


def test_threads_sleep_while_cores_are_taken(two_threads):
    values, seen = torch.rand(400, 400), set()
    with ExitStack() as stack:
        for _ in range(2 * usable_cores()):
            busy = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while 1: pass"]))
            stack.callback(busy.kill)
        end = time.monotonic() + 60
        with sharing.sharing(), sharing.sharing():  # the inner one does nothing
            while "idle-team" not in seen and time.monotonic() < end:
                values @ values
                seen |= teams()
    assert seen == {"sharing", "idle-team"}
    assert not teams()


@pytest.mark.parametrize("why", ["one thread", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_what_does_not_spin_or_is_decided_is_left_alone(two_threads, monkeypatch, why):
    if why == "one thread":
        torch.set_num_threads(1)
    else:
        monkeypatch.setenv(why, "1")
    with sharing.sharing():
        assert not teams()


def test_a_training_comes_to_the_same_bits(planted, tmp_path, monkeypatch):
    weights = []
    for taken, name in ((float("inf"), "spins"), (-1.0, "sleeps")):
        monkeypatch.setattr(sharing, "_TAKEN", taken)
        monkeypatch.setattr(sharing, "_LOOK", 0.01)
        seen: set[str] = set()
        options = {"batch_size": 64, "threads": THREADS, "epochs": 4}
        config = TrainConfig(planted, tmp_path / name, **options)
        train(config, lambda event, seen=seen: seen.update(teams()))
        assert ("idle-team" in seen) == (name == "sleeps")
        weights.append(torch.load(tmp_path / name / "best.pt", weights_only=True)["weights"])
    assert all(torch.equal(weights[0][key], value) for key, value in weights[1].items())
