"""Feature sets that a model can do without: planted noise goes, and what the law reads stays."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from tests.conftest import finished, refused, tinprep

DESCRIPTION = """\
bins = 4
[tables.shown]
files = "shown.csv"
user = "user"
time = { column = "at", unit = "s" }
label = "clicked"
fields = { item = "item" }
features = { slot = "slot", noise = "noise" }
numbers = { cost = { column = "cost" } }
[tables.seen]
files = "seen.csv"
user = "user"
time = { column = "at", unit = "s" }
fields = { item = "item" }
[target]
table = "shown"
split = { by = "time", valid = 6000, test = 8000 }
[histories.clicks]
table = "shown"
where = "clicked = 1"
max_len = 6
[histories.seen]
table = "seen"
max_len = 6
[lookups.slot]
files = "slots.csv"
key = "slot"
features = { corner = "corner" }
[vocabulary]
from = "all"
[train]
batch_size = 64
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A log whose clicks are at one parity of slot and item, more of what was clicked last."""
    folder, rng = tmp_path_factory.mktemp("selection"), np.random.default_rng(0)
    lines, last = [], np.zeros(80, int)
    for at in range(0, 10_000, 125):
        for user in range(80):
            slot = int(rng.integers(6))
            item = int(last[user]) if rng.random() < 0.5 else int(rng.integers(8))
            odds = 2.5 if (slot + item) % 2 else -2.5
            odds += 2.5 if item == last[user] else -2.5
            clicked = rng.random() < 1 / (1 + np.exp(-odds))
            last[user] = item if clicked else last[user]
            noise = (f"n{rng.integers(9)}", float(rng.normal()))
            lines.append((f"u{user}", at + user, f"i{item}", f"s{slot}", *noise, int(clicked)))
    names = ("user", "at", "item", "slot", "noise", "cost", "clicked")
    shown = pl.DataFrame(lines, schema=names, orient="row")
    shown.write_csv(folder / "shown.csv")
    seen = shown.select("user", "at").with_columns(
        pl.Series("item", [f"i{n}" for n in rng.integers(0, 8, len(shown))])
    )
    seen.write_csv(folder / "seen.csv")
    (folder / "slots.csv").write_text(
        "slot,corner\n" + "".join(f"s{n},c{n % 2}\n" for n in range(6))
    )
    (folder / "log.toml").write_text(DESCRIPTION)
    finished(tinprep("prepare", folder / "log.toml", "--out", folder / "data"))
    how = ("--dim", 8, "--lr", 0.01, "--epochs", 4, "--device", "cpu", "--model", "tin_mix")
    finished(tinprep("train", folder / "data", "--run", folder / "run", *how))
    return folder


def test_noise_is_dropped_and_a_description_without_it_is_prepared(made):
    run = made / "run"
    before = (run / "best.pt").read_bytes()
    told = tinprep("importance", run, "--select", made / "log.toml", "--sparsity", 0.003)
    finished(told)
    assert (run / "best.pt").read_bytes() == before
    slim = made / "log-selected.toml"
    finished(tinprep("prepare", slim, "--out", made / "slim"))
    manifest = json.loads((made / "slim" / "manifest.json").read_text())
    assert "clicks" in manifest["histories"]
    assert "seen" not in manifest["histories"]
    assert not {"noise", "cost"} & manifest["features"].keys()
    assert {"slot", "corner"} & manifest["features"].keys()  # either tells the parity
    assert [one["file"] for one in manifest["inputs"]][:1] == ["shown.csv"]


def test_what_cannot_be_selected(made, planted, tmp_path):
    mine, there = tmp_path / "log.toml", tmp_path / "log-selected.toml"
    mine.write_text((made / "log.toml").read_text())
    told = tinprep("importance", made / "run", "--select", mine, "--sparsity", 0)
    refused(told, 2, "--sparsity", "above 0")
    refused(tinprep("importance", made / "run", "--sparsity", 0.1), 2, "--sparsity", "no effect")
    told = tinprep("importance", made / "run", "--select", mine, "--draws", 3)
    refused(told, 2, "--draws", "no effect")
    finished(tinprep("train", made / "data", "--run", tmp_path / "tin", "--steps", 1, "--dim", 2))
    told = tinprep("importance", tmp_path / "tin", "--select", mine)
    refused(told, 2, "a model of experts")
    finished(tinprep("train", planted, "--run", tmp_path / "other", "--steps", 1, "--dim", 2))
    told = tinprep("importance", tmp_path / "other", "--select", mine)
    refused(told, 2, "not that of the data set", "seen")
    there.write_text("mine")
    refused(tinprep("importance", made / "run", "--select", mine), 2, there, "already")
    assert there.read_text() == "mine"
