"""Everything at once, by the command line, on two small data sets; then what makes it stale."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from schemas.errors import InputError, UsageError
from tests.conftest import finished, refused, tinprep
from tests.trainer.conftest import write_alibaba, write_dataset
from tests.trainer.test_figures import drawn, lines
from trainer.analysis import results_page as results
from trainer.analysis.paper_tables import fig5
from trainer.analysis.reproduce import NAMES, SETTINGS
from trainer.analysis.results_page import BEGIN, END, excerpt, page, put_excerpt, stale
from trainer.analysis.trials import Trials
from trainer.data.shards import Shards
from trainer.models.recipes import RECIPES

OPTIONS = {
    "jobs": 1,
    "setting": "small",
    "seeds": 1,
    "models": "din,tin",
    "widths": "2,4",
    "dim": 4,
    "epochs": 1,
    "batch-size": 64,
    "threads": 1,
    "device": "cpu",
}
PICTURES = ("fig1-shop", "fig3-shop", "fig4-ads", "fig4-shop", "fig5-shop")


def counted(out: Path, dataset: str) -> Path:
    """Count a data set's behaviours by bin, and give it a name."""
    rows = Shards(out).split("train")
    count = np.bincount(rows.histories["history"].columns["history_interval_bin"], minlength=5)[1:]
    path = out / "manifest.json"
    made = json.loads(path.read_text())
    made["histories"]["history"]["bins"]["train_counts"] = count.tolist()
    path.write_text(json.dumps(made | {"dataset": dataset}))
    return out


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """`tinprep reproduce all` on a shop and on ads: how it ended, and its folder."""
    folder = tmp_path_factory.mktemp("reproduced")
    shop = counted(write_dataset(folder / "shop", users=40), "amazon-Planted")
    ads = counted(write_alibaba(folder / "ads", users=30), "alibaba")
    return again(folder, shop, ads), folder


def again(folder: Path, *data: Path):
    options = [x for name, value in OPTIONS.items() for x in (f"--{name}", value)]
    sets = data or (folder / "shop", folder / "ads")
    where = ("--out", folder / "docs", "--runs", folder / "runs")
    return tinprep("reproduce", "all", *sets, *where, *options)


@pytest.fixture
def docs(made, tmp_path):
    """A copy of the page and its folder, with a README that shows it."""
    shutil.copytree(made[1] / "docs", tmp_path / "docs")
    readme = tmp_path / "README.md"
    readme.write_text(f"above\n{BEGIN}\n{END}\nbelow\n", encoding="utf-8")
    put_excerpt(tmp_path / "docs", readme)
    return tmp_path / "docs", readme


def test_every_name_has_its_files(made):
    ended, folder = made
    finished(ended)
    found = {p.name for p in (folder / "docs" / "results").iterdir()}
    tables = {f"{name}.{e}" for name in (*NAMES[:4], "fig5") for e in ("csv", "md")}
    figures = {f"{name}.{e}" for name in PICTURES for e in ("png", "svg")}
    drawn_from = {f"{name}.{e}" for name in PICTURES[:4] for e in ("csv", "md")}
    assert found == tables | figures | drawn_from | {"about.json", ".tinprep.json"}
    for name in PICTURES:
        drawn(folder / "docs" / "results" / name)


def test_what_the_paper_has_of_amazon_alone_is_of_the_shop_alone(made):
    folder = made[1] / "docs" / "results"
    for name, sets in (
        ("table1", {"shop", "ads"}),
        ("table4", {"shop", "ads"}),
        ("table2", {"shop"}),
        ("table3", {"shop"}),
        ("fig5", {"shop"}),
    ):
        assert {row["data"] for row in lines(folder / f"{name}.csv")} == sets


def test_the_page_has_the_tables_that_were_written(made):
    folder = made[1] / "docs" / "results"
    text = page(made[1] / "docs")
    for name in (*NAMES[:4], "fig5"):
        title, _, written = (folder / f"{name}.md").read_text(encoding="utf-8").partition("\n\n")
        assert title.replace("# ", "## ") in text
        assert written.replace("## ", "### ").rstrip() in text
    row = next(r for r in lines(folder / "table1.csv") if r["model"] == "din")
    found = (row["code"], row["seeds"], row["synthetic"], row["paper_gauc"])
    assert found == ("011", "1", "True", "")


def test_figure_5_varies_one_width_and_keeps_the_other(made):
    folder = made[1]
    rows = lines(folder / "docs" / "results" / "fig5.csv")
    pairs = [(row["varied"], int(row["attention"]), int(row["representation"])) for row in rows]
    assert pairs == [
        *(("attention", width, 8) for width in (0, 2, 4, 8)),
        *(("representation", 8, width) for width in (2, 4, 8)),
    ]
    runs = [
        "avg_product-none",
        *(f"din_apart-none-attention_dim{n}" for n in (1, 2, 4)),
        *(f"din_apart-none-dim{n}-attention_dim4" for n in (1, 2)),
        "din_apart-none-attention_dim4",
    ]
    for row, run in zip(rows, runs, strict=True):
        summary = json.loads((folder / "runs" / f"shop-{run}-0" / "metrics.json").read_text())
        assert float(row["gauc"]) == summary["metrics"]["test"]["gauc"]
    svg = (folder / "docs" / "results" / "fig5-shop.svg").read_text(encoding="utf-8")
    for word in ("0 (none)", "no attention", "GAUC on test", "amazon-Planted (synthetic data)"):
        assert word in svg


def test_widths_that_the_fields_cannot_share_are_refused(made):
    trials = Trials((made[1] / "shop",), made[1] / "none")
    for wrong in (3, 1, 0):
        with pytest.raises(UsageError, match="cannot share this width"):
            fig5(trials, (wrong,))
    assert not (made[1] / "none").exists()


def test_a_second_time_trains_nothing_and_gives_the_same(made):
    _, folder = made
    files = sorted((folder / "docs").rglob("*.*"))
    before = {path: path.read_bytes() for path in files}
    scored = {p: p.stat().st_mtime_ns for p in (folder / "runs").rglob("*") if p.is_file()}
    ended = again(folder)
    finished(ended)
    assert " rows/s" not in ended.err
    assert "is finished" in ended.err
    assert {path: path.read_bytes() for path in files} == before
    # Not scored again either: nothing was written in any run's folder.
    assert {p: p.stat().st_mtime_ns for p in (folder / "runs").rglob("*") if p.is_file()} == scored


def test_the_page_says_what_made_it(made):
    text = (made[1] / "docs" / "results.md").read_text(encoding="utf-8")
    about = json.loads((made[1] / "docs" / "results" / "about.json").read_text(encoding="utf-8"))
    assert "tinprep reproduce all" in about["command"]
    assert "--batch-size 64" in about["command"]
    assert about["runs"] == len(list((made[1] / "runs").iterdir()))
    for said in (about["command"], about["date"], about["machine"], "amazon-Planted (synthetic"):
        assert said in text
    assert text.count("![") == len(PICTURES)


def test_a_page_just_made_is_not_stale(docs):
    assert stale(*docs) == []
    ended = tinprep("results", docs[0], "--readme", docs[1], "--check")
    finished(ended)
    text = docs[1].read_text(encoding="utf-8")
    assert text.startswith("above\n") and text.endswith("below\n")
    assert "| `tin` |" in text
    assert excerpt(*docs) in text
    assert "(docs/results.md)" in text


def edited(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("docs/results.md", "results.md is not what"),
        ("docs/results/table1.csv", "table1.csv is not the table"),
        ("docs/results/fig1-shop.csv", "fig1-shop.csv is not the table"),
        ("README.md", "README.md does not show"),
    ],
)
def test_an_edited_text_is_stale(docs, file, said):
    edited(docs[1].parent / file, "tin" if "fig1" not in file else "0", "nit")
    (found,) = stale(*docs)
    assert said in found
    ended = tinprep("results", docs[0], "--readme", docs[1], "--check")
    assert ended.code == 4
    assert "are stale" in ended.err


def test_a_missing_picture_is_stale(docs):
    (docs[0] / "results" / "fig5-shop.svg").unlink()
    (found,) = stale(*docs)
    assert "fig5-shop.svg is missing" in found


def test_other_recipes_settings_or_format_are_stale(docs, monkeypatch):
    monkeypatch.setitem(RECIPES, "tin", replace(RECIPES["tin"], product=True))
    monkeypatch.setitem(SETTINGS, "small", replace(SETTINGS["small"], seeds=9))
    monkeypatch.setattr(results, "FORMAT", 99)
    found = " ".join(stale(*docs))
    for said in ("recipes differ from the code's: tin.", "settings differ from the code's: seeds",
                 "format differs from the code's: 1 and 99"):  # fmt: skip
        assert said in found


def test_texts_are_written_anew(docs):
    edited(docs[0] / "results.md", "tin", "nit")
    edited(docs[1], "tin", "nit")
    finished(tinprep("results", docs[0], "--readme", docs[1]))
    assert stale(*docs) == []


def test_mistakes_are_said(docs, tmp_path):
    for wrong in (("table7",), ("fig2",), ("fig4", "--setting", "large"), ("fig4", "--by", "x")):
        ended = tinprep("reproduce", wrong[0], tmp_path, *wrong[1:])
        assert ended.code == 2
        assert "There is no such choice" in ended.err
    assert tinprep("reproduce", "fig5", tmp_path, "--widths", "2;4").code == 2
    for name, option, value in (
        ("table1", "--widths", "2"),
        ("table3", "--models", "tin"),
        ("table2", "--encoding", "coe"),
        ("fig4", "--category", "Red"),
    ):
        refused(tinprep("reproduce", name, tmp_path, option, value), 2, f"{name} is not made with")
    for command in (("correlate", tmp_path), ("reproduce", "fig1", tmp_path)):
        both = ("--by", "interval", "--positions", "10", "--out", tmp_path / "out")
        refused(tinprep(*command, *both), 2, "--positions", "--by interval")
    assert tinprep("results", tmp_path / "nothing").code == 3
    docs[1].write_text("no marks", encoding="utf-8")
    with pytest.raises(InputError, match="no place for the results"):
        put_excerpt(*docs)
