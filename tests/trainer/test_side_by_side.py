"""Trainings side by side: the figures of one after the other, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from schemas.errors import EnvironmentFault, InputError, UsageError
from schemas.machine import total_memory, usable_cores
from tests.trainer.conftest import write_dataset
from trainer.analysis.side_by_side import jobs_for, side_by_side
from trainer.analysis.trials import Case, Trials
from trainer.metrics import Metrics
from trainer.training.events import Ended, Evaluated, Started

SETTINGS = {"dim": 8, "hidden": (16, 8), "epochs": 1, "lr": 0.01, "device": "cpu"}


def squares(task, on_event):
    """Work for tests: tells the square of a number, or does what the task says."""
    if task == "refuse":
        raise InputError("This cannot be read.", where="file", line=3, do="mend it")
    if task == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "stay":
        time.sleep(600)
    on_event(Evaluated(task**2, Metrics(1, 1, None, None, None, 0.0), best=False))


def done(tasks, jobs):
    """The events of each task, by its index, and the order in which the tasks began."""
    events, began = {}, []

    def begins(index):
        began.append(index)
        return events.setdefault(index, []).append

    side_by_side(squares, tasks, jobs, begins)
    return events, began


def test_every_task_is_done_once_and_tells_its_own_events():
    events, began = done(list(range(5)), 2)
    assert sorted(began) == [0, 1, 2, 3, 4]
    assert began[:2] == [0, 1]
    assert {k: [e.step for e in told] for k, told in events.items()} == {
        k: [k**2] for k in range(5)
    }


def test_no_tasks_are_done_at_once():
    assert done([], 2) == ({}, [])


@pytest.mark.parametrize(
    ("task", "kind", "says"),
    [
        ("refuse", InputError, "file:3"),
        ("die", EnvironmentFault, "exit code -9"),
    ],
)
def test_what_goes_wrong_in_one_ends_all(task, kind, says):
    began, before = time.monotonic(), children(os.getpid())
    with pytest.raises(kind, match=says) as caught:
        done(["stay", task], 2)
    assert time.monotonic() - began < 60
    assert not set(children(os.getpid())) - set(before)  # another test may keep a process
    if task != "die":
        assert "in squares" in "".join(caught.value.__notes__)


def test_side_by_side_gives_the_figures_of_one_after_the_other(tmp_path):
    data = write_dataset(tmp_path / "data")
    cases = [Case(data, "tin", "tte-p"), Case(data, "din", "none")]
    told, events = [], []

    def watch(name):
        return lambda event: events.append((name, event))

    one = Trials((data,), tmp_path / "one", 2, SETTINGS)
    two = Trials((data,), tmp_path / "two", 2, SETTINGS, told.append, watch, jobs=2)
    for first, second in zip(one.run(cases), two.run(cases), strict=True):
        assert first.metrics == second.metrics
        assert first.users.equals(second.users)
    names = {f"data-{model}-{seed}" for model in ("tin-tte-p", "din-none") for seed in (0, 1)}
    assert {line.partition(": ")[2] for line in told} == names
    for kind in (Started, Ended):
        assert sorted(name for name, e in events if isinstance(e, kind)) == sorted(names)
    assert all((run / "test_scores.parquet").exists() for t in two.run(cases) for run in t.runs)
    assert sum(line.endswith("is finished") for line in told) == 4


def test_jobs_share_out_the_cores_and_keep_the_memory(monkeypatch):
    assert jobs_for("cpu", usable_cores(), 1) == 1
    assert jobs_for("cpu", 10**6, 1) == 1
    assert jobs_for("cpu", None, total_memory() >> 20) == 1
    monkeypatch.setattr("trainer.analysis.side_by_side.usable_cores", lambda: 8)
    monkeypatch.setattr("trainer.analysis.side_by_side.total_memory", lambda: 100 << 30)
    assert [jobs_for("cpu", threads, 1024) for threads in (None, 1, 2, 3)] == [8, 8, 4, 2]
    assert jobs_for("cpu", None, 24 << 10) == 4


def test_no_job_is_no_training(tmp_path):
    with pytest.raises(UsageError, match="Nobody would train"):
        replace(Trials((tmp_path,), tmp_path), jobs=0)


def children(pid: int) -> list[int]:
    """Processes that a process has started and not ended, but for Python's resource tracker."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            command = stat.with_name("cmdline").read_text()
        except OSError:  # it has just ended
            continue
        if int(parent) == pid and state != "Z" and "resource_tracker" not in command:
            found.append(int(stat.parent.name))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_command_leaves_no_process_and_goes_on(tmp_path, by):
    data = write_dataset(tmp_path / "data")
    command = [sys.executable, "-m", "pipeline.cli", "reproduce", "table1", str(data)]
    command += ["--models", "tin,din", "--seeds", "2", "--dim", "8", "--batch-size", "2", "--jobs"]
    command += ["2", "--device", "cpu", "--out", str(tmp_path / "out"), "--runs", str(tmp_path)]
    log = (tmp_path / "log").open("w+")
    process = subprocess.Popen(command, stderr=log, stdout=log)
    limit = time.monotonic() + 300
    while not list(tmp_path.glob("*/last.pt")):
        assert process.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < limit
        time.sleep(0.05)
    trainings = children(process.pid)
    assert len(trainings) == 2
    process.send_signal(by)
    code = process.wait(300)
    text = (tmp_path / "log").read_text()
    assert code == (-9 if by == signal.SIGKILL else 130), text
    assert "Traceback" not in text
    while any(Path(f"/proc/{pid}").exists() for pid in trainings):
        assert time.monotonic() < limit
        time.sleep(0.05)
    again = subprocess.Popen(command, stderr=log, stdout=log)
    try:
        while "-0 goes on" not in (tmp_path / "log").read_text():
            assert again.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < limit
            time.sleep(0.05)
    finally:
        again.kill()
        again.wait()
