"""Graphs and bundles: their scores are those of PyTorch, for any number of rows and behaviours."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from pipeline.cli.app import app
from schemas import bundle
from schemas.errors import ContractError, InputError, UsageError
from tests.trainer.batches import INPUTS, ONE, WITH_SESSIONS, make, make_batch, saved
from tests.trainer.conftest import write_alibaba, write_dataset
from trainer.data.shards import Shards
from trainer.export import graph, write
from trainer.export.precision import narrow, table_bytes
from trainer.export.scoring import Scorer, scores
from trainer.export.write import clock_of, export
from trainer.models.interest import build
from trainer.models.recipes import RECIPES
from trainer.training.scoring import logits

pytest.importorskip("onnxruntime")

FEATURES = replace(
    INPUTS,
    others={"cat": 50, "class": 5},  # as the exporter itself calls things
    numbers=("score",),
    lists={"val_0": (7, 3)},
    shared={"cat": "item"},
    histories={"history": replace(ONE, fields=("category",))},
)
TWO = replace(FEATURES, histories={"clicks": ONE, "orders": replace(ONE, fields=("category",))})
EVERY = [
    *((model, encoding, INPUTS) for model, one in RECIPES.items() for encoding in one.encodings),
    *((model, None, WITH_SESSIONS) for model, one in RECIPES.items() if one.sessions),
    ("tin", None, FEATURES),
    *((model, None, TWO) for model, one in RECIPES.items() if one.all_histories),
]
# Of the encodings, those of one that encodes the target too and of one that does not; of experts,
# those that read all that there is. The mix without another expert than TIN is the same graph with
# less in it.
GRAPHS = [
    (model, encoding, inputs)
    for model, encoding, inputs in EVERY
    if (encoding in (None, RECIPES[model].encodings[0]) or model in ("tin", "sasrec_released"))
    and (inputs is TWO or not RECIPES[model].experts)
    and (model == "tin_mix_wo_tin" or not model.startswith("tin_mix_wo_"))
]
# A graph takes a second or two to make: these have every part that a graph has in its own way.
FEW = [
    ("tin", "tte-pt", INPUTS),
    ("sim", "timestamp", INPUTS),
    ("dien", None, INPUTS),
    ("dsin", None, WITH_SESSIONS),
    ("bst", "coe", INPUTS),
    ("tin", "tte-t", TWO),
    ("tin_mix", None, TWO),
]
ALL = bool(os.environ.get("TINPREP_EXPORTS"))
LENGTHS = [0, 1, 2, 3, 20]


@pytest.fixture(scope="module", autouse=True)
def looked_up_once() -> Iterator[None]:
    """PyTorch reads its tables of operators for each graph anew: a third of a graph's time."""
    from torch._export import utils
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with pytest.MonkeyPatch.context() as patch:
        tables = cache(ONNXRegistry.from_torchlib.__func__)
        patch.setattr(ONNXRegistry, "from_torchlib", classmethod(tables))
        name = "_collect_all_valid_cia_ops_for_namespace"
        patch.setattr(utils, name, cache(getattr(utils, name)))
        yield


def features(rows):
    g = torch.Generator().manual_seed(1)
    return {
        "cat": torch.randint(1, 50, (rows,), generator=g, dtype=torch.int32),
        "class": torch.randint(1, 5, (rows,), generator=g, dtype=torch.int32),
        "score": torch.randn(rows, generator=g),
        "val_0": torch.randint(1, 7, (rows, 3), generator=g, dtype=torch.int32),
        "val_0_length": torch.arange(rows, dtype=torch.int32) % 4,
    }


def with_two(lengths, others, **how):
    """A batch whose history is `clicks` as well, with `orders` of other lengths beside it."""
    batch, other = make_batch(lengths, **how), make_batch(others, padding=how.get("padding", 0))
    names = [name for name in batch if name.startswith("history_")]
    clicks = {name.replace("history", "clicks"): batch[name] for name in names}
    return batch | clicks | {name.replace("history", "orders"): other[name] for name in names}


def asked(length, candidates, padding=0, wider=0):
    """A request, and the same as rows; the padding holds `padding`, and is `wider` than it must."""
    width = min(20, max(1, length) + wider)
    one = with_two([length], [20 - length], width=width, padding=padding)
    many = make_batch([1] * candidates, seed=length) | features(candidates)
    of_history = {name: column for name, column in one.items() if not name.startswith("target_")}
    rows = {name: torch.cat([column] * candidates) for name, column in of_history.items()}
    return many | of_history, many | rows


@pytest.mark.parametrize(("model", "encoding", "inputs"), EVERY)
def test_pytorch_scores_a_request_as_rows(model, encoding, inputs):
    m = make(model, encoding, inputs, scale=0.5)
    for length in (0, 1, 20):
        for candidates in (1, 4):
            request, rows = asked(length, candidates)
            torch.testing.assert_close(m(request), m(rows), rtol=1e-4, atol=1e-5)


def run(session, model, batch):
    columns = {name: batch[name].numpy() for name in model.columns}
    types = {one.name: one.type for one in graph.inputs_of(model, request=True)}
    return session.run(None, {bundle.in_graph(n): c.astype(types[n]) for n, c in columns.items()})


@pytest.mark.parametrize(("model", "encoding", "inputs"), GRAPHS if ALL else FEW)
def test_a_graph_scores_as_pytorch_does(model, encoding, inputs, tmp_path):
    import onnxruntime

    m = make(model, encoding, inputs, scale=0.5)
    # Of several histories the ways of rows are those of one history, but for these models'.
    several = inputs is TWO and model not in ("tin", "din_apart") and not RECIPES[model].experts
    with_rows = not several if ALL else encoding == "tte-pt"
    for request in (True, False) if with_rows else (True,):
        path = tmp_path / f"{request}.onnx"
        graph.write(m, path, graph.inputs_of(m, request))
        session = onnxruntime.InferenceSession(path)
        for length in LENGTHS:
            for candidates in (1, 4):
                one, rows = asked(length, candidates)
                expected = torch.sigmoid(m(rows)).numpy()
                given = one if request else rows
                _, score = run(session, m, given)
                np.testing.assert_allclose(score, expected, rtol=0, atol=1e-5)
                # Neither the padding nor the other candidates change a score.
                wide, wide_rows = asked(length, candidates, padding=3, wider=4)
                _, again = run(session, m, wide if request else wide_rows)
                np.testing.assert_allclose(again, score, rtol=0, atol=1e-6)
                alone = {n: c[-1:] for n, c in given.items()}
                np.testing.assert_allclose(run(session, m, alone)[1], score[-1:], rtol=0, atol=1e-6)
        if not request:  # rows of unlike length
            batch = with_two([3, 0, 20, 1], [0, 0, 5, 2]) | features(4)
            np.testing.assert_allclose(
                run(session, m, batch)[1], torch.sigmoid(m(batch)).numpy(), rtol=0, atol=1e-5
            )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data set, a run on it, and the run's bundle."""
    folder = tmp_path_factory.mktemp("export")
    data = write_alibaba(folder / "data")
    run = saved(data, folder / "run", "tin", "tte-t")
    return data, run, folder / "bundle", export(run, folder / "bundle")


def test_a_bundle_scores_a_split_as_the_run(made):
    data, _, folder, said = made
    assert bundle.load(folder).to_json() == said.to_json()
    scorer, shards = Scorer.of(folder), Shards(data)
    parts = [*scores(scorer, shards, "valid", ("row",))]
    stored = {name: column for column, name in shards.facts.stored.items()}
    one = {n: parts[0][0][stored.get(n, n)].numpy()[:1] for n in scorer.inputs}
    assert scorer.rows(one)[1] == pytest.approx(parts[0][1][1][:1], abs=1e-6)
    found = [(b["row"], s[1]) for b, s in parts]
    rows, by_bundle = (np.concatenate(part) for part in zip(*found, strict=True))
    from trainer.training.runs import load

    expected = {
        row: score
        for batch, logit in logits(load(made[1]), shards, "valid", ("row",))
        for row, score in zip(batch["row"].tolist(), torch.sigmoid(logit).tolist(), strict=True)
    }
    assert len(rows) == shards.manifest.rows["valid"]
    for row, score in zip(rows.tolist(), by_bundle.tolist(), strict=True):
        assert score == pytest.approx(expected[row], abs=1e-5)
    assert (said.measured.split, said.measured.rows) == ("test", shards.manifest.rows["test"])
    assert said.measured.gauc == pytest.approx(said.measured.run_gauc, abs=1e-6)
    assert said.measured.largest_change < 1e-5
    assert said.data.histories == shards.manifest.histories
    assert (said.data.shards, said.data.steps) == ([], [])
    assert (said.clock.step, said.clock.offset) == (1, 0)


def test_the_clock_is_the_coarsest_that_the_targets_times_fit():
    shards = SimpleNamespace(splits=("train", "test"))
    days = {"train": [3 * 86_400 - 7, 86_400 - 7], "test": [8 * 86_400 - 7]}
    shards.split = lambda name, _: SimpleNamespace(scalars={"target_time": np.array(days[name])})
    assert clock_of(shards) == bundle.Clock(86_400, 86_400 - 7)
    days |= {"train": [5], "test": [5]}
    assert clock_of(shards) == bundle.Clock(1, 0)


@pytest.mark.parametrize(
    ("precision", "most", "change"), [("fp16", 0.52, 1e-3), ("int8", 0.3, 1e-2)]
)
def test_narrow_tables_take_less_and_change_little(precision, most, change):
    inputs = replace(INPUTS, fields={"item": 5000, "category": 90})
    wide, model = (build("tin_released", "tte-p", inputs, dim=64, hidden=(20,)) for _ in range(2))
    for one in (wide, model):
        torch.manual_seed(0)
        for p in one.parameters():
            torch.nn.init.normal_(p, std=0.1)
    before = table_bytes(model)
    narrow(model, precision)
    assert table_bytes(model) < most * before
    batch = make_batch([0, 1, 5, 20] * 50)
    moved = (torch.sigmoid(model(batch)) - torch.sigmoid(wide(batch))).abs().max()
    assert 0 < moved < change


def test_the_command_line_exports_and_says_what_came_of_it(made, tmp_path, monkeypatch):
    _, run, _, _ = made
    words = ["export", run, "--out", tmp_path / "bundle", "--precision", "int8", "--shape", "rows"]
    ended = CliRunner().invoke(app, [str(word) for word in words])
    assert ended.exit_code == 0, ended.output
    for said in (
        "tin (tte-t) for rows",
        "tables in int8",
        "320 rows of test: GAUC",
        "of predict's",
    ):
        assert said in ended.output
    assert bundle.load(tmp_path / "bundle").shape == "rows"
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    ended = CliRunner().invoke(app, [str(word) for word in [*words[:3], tmp_path / "other"]])
    assert ended.exit_code == 5
    assert "pip install 'tinprep[export]'" in ended.output
    assert not (tmp_path / "other").exists()


def test_a_bundle_is_whole_or_not_there(made, tmp_path, monkeypatch):
    _, run, _, _ = made

    def stops(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("trainer.export.write._measured", stops)
    with pytest.raises(KeyboardInterrupt):
        export(run, tmp_path / "to" / "bundle")
    assert [*tmp_path.iterdir()] == []


def test_what_a_killed_export_left_is_removed_by_the_next(made, tmp_path):
    _, run, _, _ = made
    if not (child := os.fork()):
        try:
            with write._whole(tmp_path / "bundle"):
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    (tmp_path / left.name.replace("tinprep-", "tinprep-0")).mkdir()  # of another name
    export(run, tmp_path / "bundle")
    assert len([*tmp_path.iterdir()]) == 2 and not left.exists()


def test_a_folder_of_others_stays(made, tmp_path):
    data, run, folder, _ = made
    with pytest.raises(UsageError, match="holds a bundle"):
        export(run, folder)
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(UsageError, match="tinprep did not write"):
        export(run, tmp_path, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]
    with pytest.raises(UsageError, match="folder of a data set"):
        export(run, data / "bundle")


def test_a_bundle_that_was_changed_is_refused_and_replaced_by_none(made, tmp_path):
    _, run, folder, _ = made
    shutil.copytree(folder, tmp_path / "bundle")
    (tmp_path / "bundle" / "vocabulary" / "user.parquet").write_bytes(b"other")
    with pytest.raises(ContractError, match="not what was written"):
        Scorer.of(tmp_path / "bundle")
    with pytest.raises(UsageError, match="were changed"):
        export(run, tmp_path / "bundle", force=True)
    text = (folder / bundle.NAME).read_text()
    flipped = text.replace('"step": ', '"step": 1')
    assert flipped != text
    texts = ("{", "no bundle"), ('{"format": 9}', "another version"), (flipped, "does not say")
    for text, error in texts:
        (tmp_path / "bundle" / bundle.NAME).write_text(text)
        with pytest.raises(ContractError, match=error):
            bundle.load(tmp_path / "bundle")
    with pytest.raises(InputError, match="no bundle here"):
        bundle.load(tmp_path)
    other = write_dataset(tmp_path / "other")
    with pytest.raises(ContractError, match="not like the one"):
        next(scores(Scorer.of(folder), Shards(other), "test", ()))


def test_what_cannot_be_exported(made, tmp_path):
    _, run, _, _ = made
    with pytest.raises(UsageError, match="--precision"):
        export(run, tmp_path / "b", precision="fp8")
    with pytest.raises(UsageError, match="--shape"):
        export(run, tmp_path / "b", shape="row")
    with pytest.raises(InputError, match="checkpoint"):
        export(tmp_path, tmp_path / "b")
