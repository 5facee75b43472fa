"""An interrupted run that is resumed ends as one that was not."""

from __future__ import annotations

import csv
import json
import os
import signal
from dataclasses import replace

import pytest
import torch

from schemas.errors import ContractError, EnvironmentFault, InputError, UsageError
from schemas.manifest import SPLITS
from tests.trainer.forks import FORKS
from trainer.data.shards import Shards
from trainer.training import loop as training
from trainer.training.config import TrainConfig
from trainer.training.events import Evaluated, Found, Started
from trainer.training.train import train


def config(data, run, **options):
    small = {"dim": 8, "hidden": (8,), "epochs": 2, "lr": 0.02, "threads": 1, "device": "cpu"}
    if "steps" in options:
        small["epochs"] = None
    return TrainConfig(
        data, run, **small | {"evaluations": 3, "patience": 99, "checkpoint_seconds": 0.0} | options
    )


def ends_with(run):
    """All that a run leaves but times and its own name."""
    summary = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    for name in ("run", "seconds", "rows_per_second", "waiting", "config"):
        del summary[name]
    with (run / "log.csv").open(encoding="utf-8") as file:
        log = [{k: v for k, v in x.items() if k != "seconds"} for x in csv.DictReader(file)]
    weights = torch.load(run / "best.pt", weights_only=True)["weights"]
    return summary, log, {name: w.tolist() for name, w in weights.items()}


def interrupted(cfg, monkeypatch, after: int) -> None:
    """Train until `after` groups are done, then fall over in the middle of a step."""
    done = 0

    def falls(*args, **options):
        nonlocal done
        done += 1
        if done > after:
            raise KeyboardInterrupt
        return gradients(*args, **options)

    gradients, threads = training.gradients, torch.get_num_threads()
    with monkeypatch.context() as patched:
        patched.setattr(training, "gradients", falls)
        with pytest.raises(KeyboardInterrupt):
            train(cfg)
    assert not (cfg.run / "metrics.json").exists()
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("optimizer", "seconds", "after"),
    [("adam", 0.0, 5), ("adam", 1e9, 17), ("adagrad", 0.0, 17), ("adagrad", 1e9, 2)],
)
@pytest.mark.parametrize("model", ["tin", "dien"])
def test_resumed_ends_as_uninterrupted(
    planted, tmp_path, monkeypatch, model, optimizer, seconds, after
):
    cfg = config(
        planted, tmp_path / "whole", model=model, optimizer=optimizer, checkpoint_seconds=seconds
    )
    train(cfg)
    cfg = replace(cfg, run=tmp_path / "broken")
    interrupted(cfg, monkeypatch, after)
    # And once more, so that a resumed run can be resumed.
    interrupted(replace(cfg, resume=True), monkeypatch, 3)
    events = []
    train(replace(cfg, resume=True), events.append)
    (started,) = (e for e in events if isinstance(e, Started))
    assert (started.resumed > 0) == (seconds == 0 or after > 4)
    assert ends_with(tmp_path / "broken") == ends_with(tmp_path / "whole")


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 20, "evaluations": None, "evaluate_every": 7},
        {"amp": True, "loss_weight": 3.0},
        {"tables": "bfloat16", "model": "din_apart", "clip": 0.5},
        {"loss_weight": "balanced", "evaluations": None, "evaluate_every": 5},
    ],
)
def test_resumed_with_other_settings_ends_as_uninterrupted(planted, tmp_path, monkeypatch, options):
    cfg = config(planted, tmp_path / "whole", **options)
    train(cfg)
    cfg = replace(cfg, run=tmp_path / "broken")
    interrupted(cfg, monkeypatch, 17)
    train(replace(cfg, resume=True))
    assert ends_with(tmp_path / "broken") == ends_with(tmp_path / "whole")
    if "amp" in options:  # or it would have been forgotten in both
        train(replace(cfg, run=tmp_path / "plain", amp=False))
        assert ends_with(tmp_path / "plain") != ends_with(tmp_path / "whole")


def test_resumed_when_the_rows_are_streamed(planted, tmp_path, monkeypatch):
    # The setting is in whole MB: here each block holds what fits 20 KB.
    plain = Shards.__init__
    monkeypatch.setattr(
        Shards, "__init__", lambda self, out, **how: plain(self, out, **how | {"memory_mb": 0.02})
    )
    cfg = config(planted, tmp_path / "whole", clip=0.5)
    train(cfg)
    cfg = replace(cfg, run=tmp_path / "broken")
    interrupted(cfg, monkeypatch, 14)
    train(replace(cfg, resume=True))
    assert ends_with(tmp_path / "broken") == ends_with(tmp_path / "whole")


def train_and_die(cfg):
    """Train until the second evaluation, and end as by `kill -9`."""
    seen = []

    def kill(event):
        seen.append(event)
        if sum(isinstance(e, Evaluated) for e in seen) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    train(cfg, kill)


@pytest.mark.parametrize("more", [{}, {"amp": True, "loss_weight": 2.0, "steps": 22}])
def test_killed_in_the_middle(planted, tmp_path, more):
    more = more if "steps" in more else {"epochs": 2}
    cfg = config(planted, tmp_path / "whole", threads=1, **more)
    train(cfg)
    killed = replace(cfg, run=tmp_path / "killed")
    process = FORKS.Process(target=train_and_die, args=(killed,), daemon=True)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    # Killed between the evaluation and its checkpoint: the line is there, and is made again.
    assert len((tmp_path / "killed/log.csv").read_text().splitlines()) == 3
    train(replace(killed, resume=True))
    assert ends_with(tmp_path / "killed") == ends_with(tmp_path / "whole")


def test_what_cannot_be_resumed(planted, tmp_path, monkeypatch):
    cfg = config(planted, tmp_path / "run")
    interrupted(cfg, monkeypatch, 20)
    with pytest.raises(UsageError, match="other settings") as caught:
        train(replace(cfg, lr=0.5, resume=True))
    assert "lr 0.02" in str(caught.value)
    with pytest.raises(UsageError, match="tables float32"):
        train(replace(cfg, tables="bfloat16", resume=True))
    with pytest.raises(UsageError, match="cannot have this value"):
        replace(cfg, resume=True, force=True)
    last = tmp_path / "run/last.pt"
    content = last.read_bytes()
    last.write_bytes(content[:1000])
    with pytest.raises(InputError, match="cannot be read"):
        train(replace(cfg, resume=True))
    last.write_bytes(content)
    train(replace(cfg, resume=True))
    with pytest.raises(UsageError, match="earlier run") as caught:
        train(cfg)
    assert "--resume" in str(caught.value)


def test_a_finished_run_is_found_done_and_left_as_it_is(planted, tmp_path):
    cfg = config(planted, tmp_path / "run", epochs=1)
    result = train(cfg)
    before = state_of(cfg.run)
    events = []
    assert train(replace(cfg, resume=True), events.append) == result
    assert events == [Found()]
    with pytest.raises(UsageError, match="other settings") as caught:
        train(replace(cfg, lr=0.5, resume=True))
    assert "lr 0.02" in str(caught.value)
    assert state_of(cfg.run) == before
    # It is the folder's result, wherever the folder is now.
    moved = cfg.run.rename(tmp_path / "moved")
    assert train(replace(cfg, run=moved, resume=True)) == replace(result, run=moved)


def state_of(run):
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in (run, *run.rglob("*"))
    }


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda found: "{", "metrics.json cannot be read"),
        (lambda found: json.dumps(found | {"steps": None}), "steps: expected a whole number"),
        (
            lambda found: json.dumps(found | {"metrics": {"test": {}}}),
            "metrics.test.rows: expected",
        ),
        (lambda found: json.dumps({"run": "", "steps": 1}), "dataset: expected a value"),
    ],
)
def test_a_finished_run_that_is_damaged(planted, tmp_path, damage, said):
    cfg = config(planted, tmp_path / "run", epochs=1)
    train(cfg)
    path = cfg.run / "metrics.json"
    path.write_text(damage(json.loads(path.read_text(encoding="utf-8"))), encoding="utf-8")
    with pytest.raises(InputError, match="cannot be read") as caught:
        train(replace(cfg, resume=True))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("splits", "less", "more"),
    [
        (SPLITS, {"epochs": 1}, {"epochs": 3}),
        (SPLITS, {"epochs": 1, "optimizer": "adagrad"}, {"epochs": 2}),
        (SPLITS, {"patience": 1, "epochs": 4}, {"patience": 99}),
        (("train", "test"), {"epochs": 1}, {"epochs": 2}),
        # In the middle of an epoch, which is gone on with.
        (
            SPLITS,
            {"steps": 7, "evaluations": None, "evaluate_every": 7},
            {"steps": 21, "threads": 2, "checkpoint_seconds": 9.0},
        ),
    ],
)
def test_a_finished_run_is_trained_further(make_dataset, tmp_path, splits, less, more):
    data = make_dataset(splits=splits)
    cfg = config(data, tmp_path / "run", **less)
    train(cfg)
    cfg, events = replace(cfg, resume=True, **more), []
    train(cfg, events.append)
    whole = replace(cfg, run=tmp_path / "whole", threads=1, resume=False)
    expected = train(whole)
    assert expected.steps == ends_with(whole.run)[0]["steps"] > events[0].resumed > 0
    found, wanted = ends_with(cfg.run), ends_with(whole.run)
    if "threads" in more:  # which is said, and changes the last digits at most
        assert events[0].notes == ("threads 2 for 1: the numbers may differ in their last digits",)
        assert found[0]["steps"] == wanted[0]["steps"] == 21
    else:
        assert found == wanted
    # It is finished again, and so is found done.
    assert train(cfg, events.append).steps == expected.steps
    assert events[-1] == Found()


def test_what_cannot_be_trained_further(planted, tmp_path):
    cfg = replace(config(planted, tmp_path / "run"), resume=True)
    train(cfg)
    (cfg.run / "last.pt").rename(tmp_path / "away")
    before = state_of(cfg.run)
    for change, said in (({"epochs": 3}, "kept no state"), ({"epochs": 1}, "other settings")):
        with pytest.raises(UsageError, match=said):
            train(replace(cfg, **change))
    assert state_of(cfg.run) == before


@pytest.mark.parametrize("done", [True, False])
def test_a_run_goes_on_with_its_own_data_alone(make_dataset, tmp_path, monkeypatch, done):
    """Wherever that lies; other rows under the same path are refused."""
    data = make_dataset()
    cfg = config(data, tmp_path / "run", epochs=1)
    if done:
        train(cfg)
    else:
        interrupted(cfg, monkeypatch, 7)
    moved = data.rename(tmp_path / "moved")
    make_dataset(seed=7).rename(data)
    before = state_of(cfg.run)
    for more in ({}, {"epochs": 2}):
        with pytest.raises(ContractError, match="of another data set") as caught:
            train(replace(cfg, resume=True, **more))
        assert "rows of train" in str(caught.value)
    if not done:  # the checkpoint itself says of which data it is
        path = cfg.run / "config.json"
        told = json.loads(path.read_text())
        path.write_text(json.dumps({**told, "digests": None}))
        before = state_of(cfg.run)
        with pytest.raises(ContractError, match="of another data set"):
            train(replace(cfg, resume=True))
        assert state_of(cfg.run) == before
        path.write_text(json.dumps(told))
    cfg, events = replace(cfg, data=moved, resume=True, epochs=2), []
    train(cfg, events.append)
    assert events[0].notes == ()
    assert json.loads((cfg.run / "config.json").read_text())["data"] == str(moved)
    train(replace(cfg, run=tmp_path / "whole", resume=False))
    assert ends_with(cfg.run) == ends_with(tmp_path / "whole")


def test_a_run_of_fewer_settings_goes_on(planted, tmp_path, monkeypatch):
    cfg = config(planted, tmp_path / "run", epochs=1)
    interrupted(cfg, monkeypatch, 7)
    path = cfg.run / "config.json"
    old = json.loads(path.read_text())
    del old["amp"]
    path.write_text(json.dumps(old))
    train(replace(cfg, resume=True))


def test_resuming_nothing_begins_and_says_so(planted, tmp_path):
    events = []
    train(config(planted, tmp_path / "run", epochs=1, resume=True), events.append)
    assert events[0].resumed == 0
    assert (tmp_path / "run/metrics.json").exists()
    train(config(planted, tmp_path / "other", epochs=1), events.append)
    assert [e for e in events if isinstance(e, Started)][1].resumed is None


def test_an_unfinished_run_is_begun_again_by_force_alone(planted, tmp_path, monkeypatch):
    cfg = config(planted, tmp_path / "run")
    interrupted(cfg, monkeypatch, 20)
    left = (cfg.run / "last.pt").read_bytes()
    with pytest.raises(UsageError, match="was interrupted") as refused:
        train(cfg)
    assert "--resume" in str(refused.value)
    assert (cfg.run / "last.pt").read_bytes() == left
    events = []
    train(replace(cfg, force=True), events.append)
    assert events[0].resumed is None
    train(replace(cfg, run=tmp_path / "other"))
    assert ends_with(tmp_path / "run") == ends_with(tmp_path / "other")


def test_one_training_at_a_time_in_a_folder(planted, tmp_path):
    cfg = config(planted, tmp_path / "run", epochs=1)

    def begin_another(event):
        if isinstance(event, Started):
            for more in ({}, {"force": True}, {"resume": True}):
                with pytest.raises(EnvironmentFault, match="Another run is at work"):
                    train(replace(cfg, lr=0.5, **more))

    train(cfg, begin_another)
    train(replace(cfg, run=tmp_path / "other"))
    assert ends_with(tmp_path / "run") == ends_with(tmp_path / "other")


def test_a_data_set_is_no_run(planted):
    before = sorted(planted.rglob("*"))
    with pytest.raises(UsageError, match="is a data set"):
        train(config(planted, planted, force=True))
    assert sorted(planted.rglob("*")) == before


def test_a_run_without_its_config_is_not_resumed(planted, tmp_path, monkeypatch):
    cfg = config(planted, tmp_path / "run")
    interrupted(cfg, monkeypatch, 20)
    (cfg.run / "config.json").unlink()
    for more in ({"resume": True}, {"force": True}, {}):
        with pytest.raises(UsageError, match="no run of tinprep wrote") as refused:
            train(replace(cfg, **more))
        assert "log.csv, best.pt, last.pt" in str(refused.value)
