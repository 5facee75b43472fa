"""OpenMP's threads beside other work: they sleep where cores are taken, and compute the same."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import torch

from schemas.machine import usable_cores
from trainer.training import threads as sharing
from trainer.training.train import TrainConfig, train

THREADS = max(2, usable_cores())

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="libgomp is Linux's")


def teams() -> set[str]:
    """The threads of `sharing` that are there now."""
    return {t.name for t in threading.enumerate()} & {"sharing", "idle-team"}


def masks() -> set[frozenset[int]]:
    """Which cores this process's threads may run on: one set where all may on the same."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):
            found.add(frozenset(os.sched_getaffinity(int(task.name))))
    return found


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


def test_threads_sleep_while_cores_are_taken(two_threads):
    values = torch.rand(400, 400)
    usable = os.sched_getaffinity(0)
    with ExitStack() as stack:
        for _ in range(2 * usable_cores()):
            busy = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while 1: pass"]))
            stack.callback(busy.kill)
        end = time.monotonic() + 300
        with sharing.sharing(), sharing.sharing():  # the inner one does nothing
            # Each thread moves to the few cores in its turn.
            while (where := masks()) & {frozenset(usable)} and time.monotonic() < end:
                values @ values
            seen = teams()
    assert seen == {"sharing", "idle-team"}
    assert all(few < usable for few in where)
    assert not teams()
    assert masks() == {frozenset(usable)}


def test_a_core_that_other_work_leaves_is_taken_back(two_threads, monkeypatch):
    monkeypatch.setattr(sharing, "_TAKEN", -1.0)  # as if cores were taken
    monkeypatch.setattr(sharing, "_UNUSED", -1.0)  # and one stood idle at once
    monkeypatch.setattr(sharing, "_GLANCE", 0.05)
    monkeypatch.setattr(sharing, "_REST", 60.0)
    values, looks, end = torch.rand(400, 400), 0, time.monotonic() + 300
    with sharing.sharing():
        asleep = False
        while looks < 3:
            values @ values
            assert time.monotonic() < end
            looks += asleep and "idle-team" not in teams()
            asleep = "idle-team" in teams()


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
