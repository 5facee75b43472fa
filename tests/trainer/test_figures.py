from __future__ import annotations

import csv
import json
import struct
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from schemas.errors import ContractError, UsageError
from schemas.plain import duration
from tests.trainer.conftest import write_dataset
from trainer.analysis.figures import Shown, fig1, fig4
from trainer.analysis.plots import cell
from trainer.analysis.tables import markdown
from trainer.data.shards import Shards


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data set with names for its categories, whose manifest counts its behaviours."""
    out = write_dataset(tmp_path_factory.mktemp("figures") / "data", users=80)
    rows = Shards(out).split("train")
    count = np.bincount(rows.histories["history"].columns["history_interval_bin"], minlength=5)[1:]
    path = out / "manifest.json"
    made = json.loads(path.read_text())
    made["histories"]["history"]["bins"]["train_counts"] = count.tolist()
    path.write_text(json.dumps(made))
    return out


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def drawn(stem: Path) -> str:
    """Check a picture's two files; give the SVG, where each text is a comment by its outlines."""
    head = stem.with_suffix(".png").read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    wide, high = struct.unpack(">II", head[16:24])
    assert wide == 1200
    assert 200 < high < 3000
    svg = stem.with_suffix(".svg").read_text(encoding="utf-8")
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    return svg


@pytest.mark.parametrize("by", ["position", "interval"])
def test_fig1(data, tmp_path, by):
    found = fig1(data, tmp_path, Shown("c3", top=3, positions=5, by=by))
    rows = lines(tmp_path / "fig1.csv")
    assert len(rows) == found.values.size
    at = {(r["category"], int(r["place"])): r for r in rows}
    for r, name in enumerate(found.rows):
        for p, place in enumerate(found.places):
            line = at[name, place]
            assert float(line["value"]) == pytest.approx(found.values[r, p], rel=1e-8)
            assert int(line["present"]) == found.counts[r, p]
            assert int(line["present_positives"]) == found.positives[r, p]
            assert (line["unit"], line["target_category"], line["by"]) == ("bits", "c3", by)
    text = (tmp_path / "fig1.md").read_text(encoding="utf-8")
    assert "| **c3** |" in text
    assert f"{found.targets:,} targets of 'c3'" in text
    svg = drawn(tmp_path / "fig1")
    shown = ["c3", "mutual information", "behaviour's category", "planted (synthetic data)"]
    shown.append("newest behaviour" if by == "position" else "over 12.5 min")
    for word in (*shown, *found.rows):
        assert word in svg
    for value, against in zip(found.values.flat, found.against().flat, strict=True):
        assert f"<!-- {cell(value, bool(against), factor=1e3)} -->" in svg
    assert (tmp_path / "ctc.parquet").exists()


def test_fig4(data, tmp_path):
    counts = fig4(data, tmp_path)
    rows = Shards(data).split("train")
    seconds = (
        np.repeat(rows.scalars["target_time"], rows.lengths)
        - rows.histories["history"].columns["history_time"]
    )
    bounds = {k: (0, 1) if k < 0 else (2**k, 2 ** (k + 1)) for k in counts}
    assert sum(counts.values()) == len(seconds)
    for k, (low, high) in bounds.items():
        assert counts[k] == int(((seconds >= low) & (seconds < high)).sum())
    table = lines(tmp_path / "fig4.csv")
    assert [int(r["behaviours"]) for r in table] == list(counts.values())
    assert sum(float(r["share"]) for r in table) == pytest.approx(1, abs=1e-4)
    assert "| 2 | 4.15 min | 8.32 min |" in (tmp_path / "fig4.md").read_text()
    svg = drawn(tmp_path / "fig4")
    for edge in ("4.15 min", "8.32 min", "12.5 min", "share of behaviours in train, %"):
        assert f"<!-- {edge} -->" in svg


def test_fig4_tells_when_manifest_and_shards_disagree(make_dataset, tmp_path):
    with pytest.raises(ContractError, match="another number of behaviours"):
        fig4(make_dataset(), tmp_path)


def test_the_same_figure_is_the_same_bytes(data, tmp_path):
    for name in ("a", "b"):
        fig1(data, tmp_path / name, Shown("c3"))
    for file in ("fig1.csv", "fig1.md", "fig1.png", "fig1.svg"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    names = {p.name for p in (tmp_path / "a").iterdir()}
    files = {"fig1.csv", "fig1.md", "fig1.png", "fig1.svg", "ctc.parquet"}
    assert names == files | {".tinprep.json"}


def test_without_matplotlib_one_clear_error_and_no_work(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for figure in (lambda: fig1(data, tmp_path), lambda: fig4(data, tmp_path)):
        with pytest.raises(UsageError, match="matplotlib") as error:
            figure()
        assert "tinprep[plot]" in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be(data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="folder cannot be made"):
        fig4(data, tmp_path / "file")


def test_values_units_and_names_are_for_people(data, tmp_path):
    assert [duration(s) for s in (0, 59, 60, 950_400, 64_022_400)] == [
        "0 s", "59 s", "1 min", "11 d", "2.03 y",
    ]  # fmt: skip
    assert cell(0.00617, factor=1e3) == "6.17"
    assert cell(0.00577, True, factor=1e3) == "5.77↓"
    assert [cell(x) for x in (12.345, 1234.5, float("nan"))] == ["12.3", "1234", "-"]
    assert markdown(("a", "b"), [("x|y", 1)]) == "| a | b |\n| --- | ---: |\n| x\\|y | 1 |\n"


def test_a_map_of_one_value_has_no_range(data, tmp_path):
    found = fig1(data, tmp_path, Shown("c3", top=2))
    flat = replace(found, values=np.full(found.values.shape, 3.0)).normalised()
    assert not flat.values.any()


def test_fig1_of_beauty_shows_both_patterns_of_the_paper(beauty_out, tmp_path):
    """2.1, in the figure's own numbers: own category strongest, and less with each position."""
    found = fig1(beauty_out, tmp_path, everything=False, threads=1)
    table = lines(tmp_path / "fig1.csv")
    values = {(r["category"], int(r["place"])): float(r["value"]) for r in table}
    assert (found.category, len(values)) == ("Attribute 34", 50)
    own = np.array([values[found.category, p] for p in range(1, 11)])
    # Decay: an order of magnitude from the newest behaviour to the oldest ones.
    assert own[0] > 1.8 * own[1] > 1.8 * own[3]
    assert own[0] > 8 * own[5:].mean()
    assert np.corrcoef(np.log(np.arange(1, 11)), np.log(own))[0, 1] < -0.9
    # Own category: the strongest at the newest place, and of all that speak for the target also
    # in sum. One category speaks against it nearly as loudly; the paper's measure has no sign.
    against = found.against()
    newest = found.values[:, 0]
    assert newest.argmax() == found.own
    sums = np.where(against, 0.0, found.values).sum(1)
    assert sums.argmax() == found.own
    assert sums[found.own] > 4 * np.sort(sums)[-2]
    assert against.sum(1).max() == 10
