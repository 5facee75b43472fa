"""`tinprep` killed at random moments: the same command finishes, and no half is listed.

`TINPREP_CRASHES=60` kills 60 times instead of 6 on each data set, interrupts in every step, and
stops the other commands as often. `tests/crash_harness.py` and `tests/crash_signals.py` are the
same as commands of their own, with a table.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pipeline.record import Record
from schemas.manifest import NAME, load
from tests.crash_command import ROOT, Command, beauty, described, kuairand
from tests.crash_harness import (
    changes_of,
    content,
    fault,
    finish,
    finished_shards,
    interrupt,
    kill_at_change,
    kills,
    whole,
)
from tests.crash_signals import COMMANDS, stories


def finished_work(out: Path) -> bool:
    """Whether an interrupted run has left something that a later one could go on from."""
    record = Record.read(out)
    return record is not None and bool(record.made)


KILLS = int(os.environ.get("TINPREP_CRASHES", "6"))
pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="CPU time of a process is read from /proc"
)


@pytest.fixture(scope="module")
def on_beauty(request: pytest.FixtureRequest) -> Command:
    return beauty(request.getfixturevalue("beauty"))


@pytest.fixture(scope="module")
def on_kuairand(request: pytest.FixtureRequest) -> Command:
    return kuairand(request.getfixturevalue("kuairand"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Command:
    return described(tmp_path_factory.mktemp("crash"))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Command], dict[str, Any]]:
    """What a command makes; it is given once."""

    @cache
    def made(command: Command) -> dict[str, Any]:
        out = tmp_path_factory.mktemp("uninterrupted") / "out"
        finish(command, out)
        return content(out)

    return made


@pytest.mark.parametrize("name", ["small", *(["on_kuairand", "on_beauty"] if KILLS > 9 else [])])
def test_killed_at_any_moment_and_run_again(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    command = request.getfixturevalue(name)
    expected = whole(command, tmp_path)
    done = [kill for story in kills(command, expected, KILLS, 4, tmp_path) for kill in story]
    assert len(done) >= KILLS
    assert not [kill for kill in done if kill.fault]


def test_stopped_by_any_signal_and_given_again(tmp_path: Path) -> None:
    names = ("train", "report") if KILLS < 10 else COMMANDS
    ended = list(stories(names, 2 if KILLS < 10 else KILLS, 3, tmp_path, early_s=2.0))
    assert not [one for one in ended if one.faults]


def test_a_replacement_goes_on_where_it_was_killed(small: Command, tmp_path: Path) -> None:
    out, before = tmp_path / "out", tmp_path / "before"
    finish(small, before)
    shutil.copytree(before, out)
    # The last changes remove work after the manifest is written: those before are looked for.
    changes = changes_of(finish(small, out, "--force", changes=0)) - 32
    while (out / NAME).exists():
        shutil.rmtree(out)
        shutil.copytree(before, out)
        changes -= 8
        assert kill_at_change(small.line(out, "--force", changes=changes)) == "transform"
    made = finished_shards(out)
    assert made
    finish(small, out, "--force")
    assert not fault(content(out), content(before))
    for path, was in made.items():
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == (was.st_ino, was.st_mtime_ns)


def test_only_what_was_lost_is_made_again(on_beauty: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(on_beauty.line(out), cwd=ROOT, stdout=subprocess.DEVNULL)
    give_up = time.monotonic() + 300
    while len(finished_shards(out)) < 6 and process.poll() is None:
        assert time.monotonic() < give_up
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert not (out / NAME).exists()
    made = finished_shards(out)
    assert len(made) >= 6
    said = finish(on_beauty, out)
    assert re.search(r"reused: deal reviews, \d+ finished buckets", said)
    for path, before in made.items():
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert load(out).rows == {"train": 262_826, "valid": 44_726, "test": 44_726}
    assert not [*out.rglob(".tinprep-*")]


@pytest.mark.parametrize("name", ["on_beauty", "on_kuairand"])
def test_an_interruption_is_said_in_one_message_and_gone_on_from(
    name: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    uninterrupted: Callable[[Command], dict[str, Any]],
) -> None:
    command = request.getfixturevalue(name)
    draw = random.Random(5)
    want = uninterrupted(command)
    steps = [step["name"] for step in want[NAME]["steps"]]
    out = tmp_path / "out"
    if "TINPREP_CRASHES" not in os.environ:
        steps = sorted(draw.sample(steps[1:], 2), key=steps.index)
    for turn, step in enumerate(steps):
        number = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)[turn % 3]
        code, said = interrupt(command.line(out), step, draw.uniform(0, 0.1), number)
        assert code == 130, (step, number, said)
        assert said.count("error: Interrupted.") == 1
        assert "run the same command again" in said
        if "panicked at" not in said:  # as Polars says of a Ctrl-C in the middle of its own Python
            assert "Traceback" not in said
            assert "Exception" not in said
        assert not (out / NAME).exists()
        assert not [*out.rglob(".tinprep-*")]
    finish(command, out)
    assert not fault(content(out), want)


def test_a_second_run_is_told_and_the_first_unharmed(
    on_kuairand: Command, tmp_path: Path, uninterrupted: Callable[[Command], dict[str, Any]]
) -> None:
    out = tmp_path / "out"
    silent = subprocess.DEVNULL
    first = subprocess.Popen(on_kuairand.line(out), cwd=ROOT, stdout=silent, stderr=silent)
    while not (out / ".work").exists():
        assert first.poll() is None
        time.sleep(0.002)
    first.send_signal(signal.SIGSTOP)
    second = subprocess.run(
        on_kuairand.line(out), cwd=ROOT, capture_output=True, text=True, check=False
    )
    first.send_signal(signal.SIGCONT)
    assert first.wait() == 0
    assert second.returncode == 5
    assert "Another run is at work in this folder." in second.stderr
    assert not fault(content(out), uninterrupted(on_kuairand))


def test_a_killed_runs_lock_holds_nobody_up(small: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert kill_at_change(small.line(out, changes=30))
    assert (out / ".lock").exists()
    told = finish(small, out)
    nothing = "an interrupted run left nothing to go on with" in told
    assert nothing != bool(re.search("going on where it was; reused", told))


def test_what_another_description_has_left_is_not_gone_on_from(
    small: Command, tmp_path: Path
) -> None:
    assert kill_at_change(small.line(tmp_path / "out", changes=60))
    assert finished_work(tmp_path / "out")
    text = Path(small.arguments[1]).read_text()
    (other := Path(small.arguments[1]).with_name("other.toml")).write_text(
        text.replace("max_len = 20", "max_len = 10")
    )
    command = Command("other", ("prepare", str(other), *small.arguments[2:]))
    line = command.line(tmp_path / "out")
    ended = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "other settings or files than before: all is made again" in ended.stderr
    finish(command, tmp_path / "whole")
    assert not fault(content(tmp_path / "out"), content(tmp_path / "whole"))
