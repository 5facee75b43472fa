"""Settings from a file, and what the command line makes of them."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from pipeline.cli.app import app
from schemas.errors import InputError, UsageError
from trainer.training.config import TrainConfig, merged, read_settings

SMALL = ["--dim", "8", "--hidden", "8", "--threads", "1", "--device", "cpu"]


def invoke(*words):
    return CliRunner().invoke(app, ["train", *map(str, words)])


def config_of(run):
    return json.loads((run / "config.json").read_text(encoding="utf-8"))


def ended(run):
    found = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    return found["metrics"], found["steps"], found["best_step"]


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_a_toml_file_is_read(tmp_path):
    path = write(
        tmp_path / "a.toml",
        'data = "d"\nbatch-size = 64\nlr = 1\nhidden = [80, 40]\namp = true\nloss_weight = 2.5\n',
    )
    found = read_settings(path)
    assert TrainConfig(**found | {"run": tmp_path}).batch_size == 64
    assert found["hidden"] == (80, 40)
    assert (found["amp"], found["lr"], found["loss_weight"]) == (True, 1, 2.5)
    assert str(found["data"]) == "d"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("batchsize = 3", "no setting batchsize"),
        ("config = 'x.toml'", "no setting config"),
        ("batch_size = 3.5", "batch_size"),
        ("batch_size = true", "batch_size"),
        ("lr = '0.1'", "lr"),
        ("amp = 1", "amp"),
        ("hidden = '80,40'", "hidden"),
        ("hidden = [80.0]", "hidden"),
        ("loss_weight = 'heavy'", "loss_weight"),
        ("model = 3", "model"),
        ("batch_size = 3\nbatch-size = 4", "batch-size"),
    ],
)
def test_a_setting_that_is_none_is_refused_with_its_file_and_key(tmp_path, text, what):
    path = write(tmp_path / "a.toml", text)
    with pytest.raises(UsageError) as caught:
        read_settings(path)
    assert what in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_settings(tmp_path / "none.toml")
    with pytest.raises(InputError, match="cannot be read"):
        read_settings(write(tmp_path / "a.json", "{"))
    with pytest.raises(UsageError, match="TOML or JSON"):
        read_settings(write(tmp_path / "a.yaml", "lr: 1"))
    with pytest.raises(UsageError, match="wrong type"):
        read_settings(write(tmp_path / "b.json", "[1]"))


def test_settings_of_other_processes_are_refused(tmp_path):
    path = write(tmp_path / "config.json", '{"ranks": 2, "steps": null, "lr": 0.5}')
    with pytest.raises(UsageError, match="number of processes"):
        read_settings(path)
    assert read_settings(path, world=2) == {"lr": 0.5}


def test_a_flag_drops_the_file_s_other_way_to_say_it():
    file = {"epochs": 3, "evaluations": 2, "lr": 0.1}
    assert merged(file, {"steps": 9}) == {"evaluations": 2, "lr": 0.1, "steps": 9}
    assert merged({"evaluate_every": 5}, {"evaluations": 1}) == {"evaluations": 1}
    assert merged(file, {"lr": 0.2}) == file | {"lr": 0.2}


def test_flags_win_and_a_run_is_repeated_from_its_config(planted, tmp_path):
    file = write(
        tmp_path / "a.toml",
        f'data = "{planted}"\nlr = 0.02\nepochs = 1\ndim = 4\nloss_weight = "balanced"\n',
    )
    first = invoke("--config", file, "--run", tmp_path / "one", "--steps", 15, *SMALL)
    assert first.exit_code == 0, first.output
    found = config_of(tmp_path / "one")
    assert (found["lr"], found["dim"], found["steps"], found["epochs"]) == (0.02, 8, 15, None)
    assert found["loss_weight"] == 1.0  # as many positives as negatives: settled
    again = invoke("--config", tmp_path / "one/config.json", "--run", tmp_path / "two")
    assert again.exit_code == 0, again.output
    assert ended(tmp_path / "two") == ended(tmp_path / "one")
    assert ended(tmp_path / "two")[1] == 15
    assert config_of(tmp_path / "two") == found | {"run": str(tmp_path / "two")}
    onto_itself = invoke("--config", tmp_path / "one/config.json")
    assert onto_itself.exit_code == 2  # the run is not replaced


@pytest.mark.parametrize(
    ("words", "where"),
    [
        ((), "DATA"),
        (("--steps", 3, "--epochs", 2), "--steps"),
        (("--evaluate-every", 3, "--evaluations", 2), "--evaluate-every"),
        (("--loss-weight", "heavy"), "--loss-weight"),
        (("--loss-weight", "-1"), "--loss-weight"),
        (("--steps", 0), "--steps"),
    ],
)
def test_what_cannot_be_asked_for(planted, tmp_path, words, where):
    ended = invoke(*([planted] if words else []), "--run", tmp_path / "run", *words)
    assert ended.exit_code == 2
    assert where in ended.output
    assert not (tmp_path / "run").exists()
