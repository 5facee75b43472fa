"""Manifests, checkpoints and runs that are damaged, or a stranger's: a plain word, and soon."""

from __future__ import annotations

import copy
import json
import re
import shutil
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from pipeline.cli.app import app
from schemas.errors import TinprepError
from schemas.plain import for_spreadsheet, from_spreadsheet, printable
from tests.trainer.conftest import write_alibaba, write_dataset
from trainer.analysis.report.runs import by_seed, read_runs
from trainer.data.shards import Shards

SMALL = ["--dim", 4, "--hidden", 4, "--threads", 1, "--device", "cpu"]
SECONDS = 10  # for what takes one where nothing else is at work


def refused(code, *words):
    """The message of a command that soon ends in one error, in which no terminal is addressed."""
    began = time.monotonic()
    ended = CliRunner().invoke(app, [str(word) for word in words])
    assert time.monotonic() - began < SECONDS
    assert isinstance(ended.exception, SystemExit), ended.output
    assert ended.exit_code == code, ended.output
    assert ended.output.count("error: ") == 1
    assert ended.output.replace("\n", "").isprintable()
    return ended.output


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data set of reviews, one of impressions, and a run on each, stopped and finished."""
    folder = tmp_path_factory.mktemp("hostile")
    sets = write_dataset(folder / "a", layout="padded"), write_alibaba(folder / "b")
    words = ["train", sets[0], "--run", folder / "run", "--steps", 4, "--evaluate-every", 2, *SMALL]
    ended = CliRunner().invoke(app, [str(word) for word in words])
    assert ended.exit_code == 0, ended.output
    return sets, folder / "run", words


def bins(count):
    return {"count": count, "edges_s": list(range(count - 1)), "train_counts": [1] * count}


def of_history(**change):
    bins_of_four = {"count": 4, "edges_s": [249, 499, 749], "train_counts": [1, 1, 1, 1]}
    told = {"table": "events", "fields": ["category"], "max_len": 12, "window": "before"}
    told |= {"session_gap": 1_800, "sessions": None, "bins": bins_of_four, "lengths": {}}
    return {"histories": {"history": told | change}}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"vocabulary": {"item": 10**12}}, 4),
        ({"vocabulary": {"item": 2 * 10**9}}, 4),
        ({"vocabulary": {"category": -1}}, 4),
        (of_history(max_len=10**9), 4),
        (of_history(max_len=32_767), 4),
        (of_history(max_len=0), 4),
        (of_history(bins=bins(100_000)), 4),
        (of_history(bins=bins(256)), 4),
        ({"fields": []}, 4),
        ({"fields": ["category"] * 10_000}, 4),
        ({"fields": ["category", "user"]}, 4),
        ({"rows": {"train": 10**15}}, 4),
        ({"rows": {"train": -1}}, 4),
        ({"rows": {"train": 0}}, 2),
        ({"shards": []}, 4),
        (of_history(lengths={"train": [1] * 100_000}), 4),
        (of_history(lengths={"train": [-1] * 13}), 4),
        (of_history(sessions=[999, 999]), 4),
        (of_history(sessions=[10**50, 1]), 4),
        ({"layout": "\x1b[31mred\x07"}, 4),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("kind", [0, 1], ids=["reviews", "impressions"])
def test_a_manifest_that_declares_what_is_not_there(made, tmp_path, kind, change, code):
    out = tmp_path / "data"
    shutil.copytree(made[0][kind], out)
    manifest = json.loads((out / "manifest.json").read_text())
    if "item" in change.get("vocabulary", ()) and kind:
        change = {"vocabulary": {"brand": change["vocabulary"]["item"]}}
    for key, value in change.items():
        manifest[key] = manifest[key] | value if isinstance(value, dict) else value
    (out / "manifest.json").write_text(json.dumps(manifest))
    model = ("din", "dsin")[kind]
    refused(code, "train", out, "--run", tmp_path / "run", "--model", model, "--steps", 1, *SMALL)
    assert not list(tmp_path.glob("run/*.pt"))


@pytest.mark.parametrize("held", ['{"name": "x"}', '{"model": "gpt", "lr": 1}', "{", "[]"])
def test_a_folder_of_others_is_no_run_to_resume(made, tmp_path, held):
    (tmp_path / "config.json").write_text(held)
    for data in ((), (made[0][0],)):
        told = refused(2, "train", *data, "--run", tmp_path, "--resume", *SMALL)
        assert "no run of tinprep" in told
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("config.json", held)]


def repeated(content):
    """A table of a hundred billion rows, each the same four numbers."""
    content["weights"]["fields.tables.item.weight"] = torch.zeros(4).as_strided((10**11, 4), (0, 1))
    content["built"]["inputs"]["fields"]["item"] = 10**11


def nested(content):
    """Lists of lists, ten to the sixtieth power of them."""
    content["weights"] = [0]
    for _ in range(60):
        content["weights"] = [content["weights"]] * 10


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["built"].update(hidden=[1] * 200_000),
        lambda c: c["built"].update(hidden=[10**9]),
        lambda c: c["built"].update(dim=10**30),
        lambda c: c["built"].update(attention_dim=-1),
        lambda c: c["built"].update(model="\x1b[31m"),
        lambda c: c["built"]["inputs"]["histories"]["history"].update(bins=2_000_000),
        lambda c: c["built"]["inputs"]["histories"]["history"].update(max_len=10**9),
        lambda c: c["built"]["inputs"]["histories"]["history"].update(sessions=[10**9] * 2),
        lambda c: c["built"]["inputs"].update(numbers=["x"] * 100_000),
        lambda c: c["built"]["inputs"].update(others={f"f{i}": 1 for i in range(100_000)}),
        lambda c: c["built"]["inputs"]["fields"].update(item=10**12),
        lambda c: c.update(built=None),
        repeated,
        nested,
    ],
)
def test_a_checkpoint_that_declares_what_is_not_there(made, tmp_path, change):
    run = tmp_path / "run"
    shutil.copytree(made[1], run)
    content = torch.load(run / "best.pt", weights_only=True)
    change(content)
    torch.save(content, run / "best.pt")
    assert "cannot be read" in refused(3, "evaluate", run)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["at"].update(in_epoch=10**6),
        lambda c: c["at"].update(step=3),
        lambda c: c["at"].update(epoch="0"),
        lambda c: c["at"].update(best_gauc=float("nan")),
        lambda c: c["at"].update(rows=-1),
        lambda c: c["at"].pop("seconds"),
        lambda c: c["optimizer"]["adam"]["state"][0].update(exp_avg=torch.zeros(1)),
        lambda c: c["optimizer"]["adam"]["state"][0].pop("exp_avg_sq"),
        lambda c: c["optimizer"].update(dense=[]),
        lambda c: c["random"].update(cpu=torch.zeros(3)),
        lambda c: c["weights"].popitem(),
    ],
)
def test_a_state_to_resume_from_that_no_training_left(made, tmp_path, change):
    run = tmp_path / "run"
    shutil.copytree(made[1], run)
    (run / "metrics.json").unlink()  # as if it had been stopped at its end
    content = torch.load(run / "last.pt", weights_only=True)
    change(content)
    torch.save(content, run / "last.pt")
    words = [run if word == made[1] else word for word in made[2]]
    assert "cannot be read" in refused(3, *words, "--resume")


@pytest.mark.parametrize("name", ["best.pt", "last.pt"])
def test_a_checkpoint_with_a_flipped_bit_is_damaged(made, tmp_path, name):
    run = shutil.copytree(made[1], tmp_path / "run")
    held = bytearray((run / name).read_bytes())
    middle = held.index(b"/data/0") + 600  # in the first weights
    held[middle] ^= 0x41
    (run / name).write_bytes(held)
    further = ["train", "--run", run, "--resume", "--steps", 6]
    found = refused(3, *(["evaluate", run] if name == "best.pt" else further))
    assert "is not what was written" in found


@pytest.mark.parametrize("text", ["x,1,1,1,1,1,1,1", "1,1,nan,1,1,1,1,1", "1,1,1e999,1,1,1,1,1"])
def test_a_log_that_no_training_left(made, tmp_path, text):
    run = tmp_path / "run"
    shutil.copytree(made[1], run)
    (run / "metrics.json").unlink()
    with (run / "log.csv").open("a") as log:
        log.write(text + "\n")
    words = [run if word == made[1] else word for word in made[2]]
    assert "log cannot be read" in refused(3, *words, "--resume")
    (run / "metrics.json").write_bytes((made[1] / "metrics.json").read_bytes())
    assert "cannot be read" in refused(3, "report", made[0][0], run, "--out", tmp_path / "page")


HOSTILE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(
        [10**4000, -(2**63), 1e308, -1e308, 5e-324, "\x1b[31m\x07", "A" * 10**5, "=1"]
    )
    | st.floats()
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(data=st.data(), value=HOSTILE)
def test_whatever_a_run_s_files_hold_a_report_shows_it_or_refuses_it(made, data, value):
    (reviews, _), run, _ = made
    kept = {name: (run / name).read_bytes() for name in ("metrics.json", "log.csv")}
    content = json.loads(kept["metrics.json"])
    place = content
    while True:
        key = data.draw(st.sampled_from(sorted(place)))
        if not (isinstance(place[key], dict) and place[key]) or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = copy.deepcopy(value)
    lines = [line.split(b",") for line in kept["log.csv"].splitlines()]
    if data.draw(st.booleans()):
        number, at = data.draw(st.integers(1, len(lines) - 1)), data.draw(st.integers(0, 7))
        lines[number][at] = str(value).encode(errors="replace")[:5000]
    try:
        (run / "metrics.json").write_text(json.dumps(content))
        (run / "log.csv").write_bytes(b"\n".join(b",".join(line) for line in lines))
        for line in by_seed(read_runs([run], Shards(reviews))):
            assert printable(line.name) == line.name
    except TinprepError as error:
        assert len(str(error)) < 12_000
        assert str(error).replace("\n", "").isprintable()
    finally:
        for name, was in kept.items():
            (run / name).write_bytes(was)


@given(st.text())
def test_a_spreadsheet_runs_no_text_and_a_terminal_obeys_none(text):
    cell = for_spreadsheet(text)
    assert from_spreadsheet(cell) == text
    assert not re.match(r"\s*[=@]|[\t\r\n]|\s*[+-](?![0-9.])", cell)
    shown = printable(text)
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]", shown)
    assert printable(shown) == shown


def test_what_a_spreadsheet_would_run_is_a_text():
    for text in ("=cmd|' /C calc'!A0", "+1+1", "-1+cmd", "@SUM(1)", "\t=1", "\r=1"):
        assert for_spreadsheet(text) == f"'{text}"
    for text in ("-1.5e-07", "plain"):
        assert for_spreadsheet(text) == text
