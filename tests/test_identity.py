"""What fits together is known by content: by what ids, bins, numbers and histories mean."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.digests import of_vocabulary
from schemas.plain import from_spreadsheet
from tests.alibaba_made import RawLog, alibaba
from tests.alibaba_raw import PROFILE, raw_rows
from tests.conftest import Ended, amazon, finished, refused, tinprep, write_raw
from tests.oracle import Review
from tinprep import predict

DAY = 86_400
MAY_6 = 1_494_000_000
FEW = ("--epochs", 1, "--dim", 2, "--hidden", 2, "--threads", 1, "--device", "cpu")


USERS = [f"U{user}" for user in range(10)]


def reviews(
    folder: Path, item: str = "B", days: int = 1, shift: int = 0, users: list[str] = USERS
) -> Path:
    """10 users with 5 reviews of 12 items in 3 categories, some on one day."""
    made: list[Review | None] = [
        Review(name, f"{item}{(u + k * k) % 12:02}", DAY * (10_000 + days * (k + u * k // 3)))
        for u, name in enumerate(users)
        for k in range(5)
    ]
    return write_raw(folder, made, [(f"{item}{i:02}", f"C{(i + shift) % 3}") for i in range(12)])


def log(folder: Path, dear: float = 1) -> Path:
    """8 users with behaviours of three kinds, and impressions on 3 days."""
    users = range(8)
    ads = [(ad, ad % 3, ad, ad, ad % 2 or None, dear * (1 + ad) ** dear) for ad in range(6)]
    shown = [
        (u, MAY_6 + (day + 4) * DAY + u, (u + day + n) % 6, "p", n)
        for u in users
        for day in range(3)
        for n in (0, 1)
    ]
    kinds = ("pv", "pv", "cart", "fav")
    done = [
        (u, MAY_6 + 3 * DAY + 600 * k + u, kinds[k % 4], k % 3, k % 2)
        for u in users
        for k in range(9)
    ]
    profiles = [(u, *[u % 2] * len(PROFILE)) for u in users]
    return RawLog(shown, ads, profiles, done).write(folder)


@pytest.fixture(scope="module")
def amazon_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`data`, and a `run` on it."""
    folder = tmp_path_factory.mktemp("amazon")
    finished(amazon(reviews(folder / "raw"), folder / "data", "--bins", 3))
    finished(tinprep("train", folder / "data", "--run", folder / "run", *FEW))
    return folder


@pytest.fixture(scope="module")
def alibaba_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of an Alibaba log."""
    folder = tmp_path_factory.mktemp("alibaba")
    finished(alibaba(log(folder / "raw"), folder / "data", "--bins", 3))
    finished(tinprep("train", folder / "data", "--run", folder / "run", *FEW))
    return folder


def uses(run: Path, data: Path, to: Path) -> list[Ended]:
    """The commands that put a run to use on a data set."""
    return [
        tinprep("evaluate", run, "--data", data),
        tinprep("predict", run, data, "--out", to / "scores.csv"),
        tinprep("report", data, run, "--out", to / "report.html"),
    ]


@pytest.mark.parametrize(
    ("differs", "raw", "flags"),
    [
        ("vocabulary of item", {"item": "A"}, ()),
        ("bin edges", {"days": 2}, ()),
        ("window rule", {}, ("--ties", "hash")),
        ("window rule", {}, ("--max-len", 3)),
    ],
)
def test_reviews_that_mean_something_else_are_refused(
    amazon_run: Path, tmp_path: Path, differs: str, raw: dict[str, int], flags: tuple[object, ...]
) -> None:
    other = tmp_path / "data"
    finished(amazon(reviews(tmp_path / "raw", **raw), other, "--bins", 3, *flags))
    before = sorted(tmp_path.iterdir())
    for ended in uses(amazon_run / "run", other, tmp_path):
        refused(ended, 4, differs)
    assert sorted(tmp_path.iterdir()) == before


def test_the_same_made_otherwise_is_the_same(
    amazon_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other negatives, files, buckets and layout; from any folder, by any path."""
    raw = reviews(tmp_path / "raw")
    for path in list(raw.iterdir()):
        path.rename(path.with_name(path.name.replace("Beauty", "Shampoo")))
    flags = ("--bins", 3, "--seed", 9, "--buckets", 3, "--layout", "ragged")
    other = tmp_path / "other"
    finished(amazon(raw, other, *flags, "--negatives", 2, category="Shampoo"))
    run = amazon_run / "run"
    for data in (other, amazon_run / "data"):
        finished(tinprep("evaluate", run, "--data", data))
        finished(tinprep("predict", run, data, "--out", tmp_path / "scores.csv"))
    # The rows of test are other ones: the run's figures are none of this data set.
    refused(
        tinprep("report", other, run, "--out", tmp_path / "page.html"), 4, "not of the data set"
    )
    same = tmp_path / "same"
    finished(amazon(raw, same, "--bins", 3, "--buckets", 3, category="Shampoo"))
    finished(tinprep("report", same, run, "--out", tmp_path / "page.html"))

    # A manifest of before keeps no digests: they are made of what there is.
    made = json.loads((same / "manifest.json").read_text())
    del made["digests"]
    (same / "manifest.json").write_text(json.dumps(made))
    finished(tinprep("evaluate", run, "--data", same))
    finished(tinprep("verify", same))
    path = same / "vocabulary/user.parquet"
    words = pq.read_table(path)
    pq.write_table(words.set_column(0, "value", pa.array([f"V{i}" for i in range(10)])), path)
    refused(tinprep("report", same, run, "--out", tmp_path / "page.html"), 4, "vocabulary of user")


def test_a_run_is_bound_to_no_path(
    amazon_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(amazon_run / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    finished(tinprep("train", "data", "--run", "run", *FEW))
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    shutil.move("../run", "moved")
    finished(tinprep("evaluate", "moved"))
    finished(tinprep("train", "--run", "moved", "--resume"))
    (tmp_path / "data").rename("data")
    refused(tinprep("evaluate", "moved"), 3, "not where it was", "--data")
    refused(tinprep("train", "--run", "moved", "--resume"), 3, "not where it was")
    finished(tinprep("evaluate", "moved", "--data", "data"))
    refused(tinprep("train", "--run", "moved", "--resume", "--lr", 1), 3, "not where it was")
    refused(tinprep("train", "data", "--run", "moved", "--resume", "--lr", 1), 2, "other settings")
    other = ("train", "data", "--run", "moved", "--resume", "--model", "flat_dnn")
    refused(tinprep(*other), 2, "other settings", "model flat_dnn")
    # By its own settings, to more epochs, from where the data are now.
    finished(tinprep("train", "data", "--run", "moved", "--resume", "--epochs", 2))
    assert json.loads(Path("moved/metrics.json").read_text())["config"]["dim"] == 2
    finished(tinprep("train", "--run", "moved", "--resume", "--epochs", 3))
    assert json.loads(Path("moved/metrics.json").read_text())["config"]["epochs"] == 3


def test_each_score_has_its_user_and_item(amazon_run: Path, tmp_path: Path) -> None:
    """As in the raw files, with every negative; and no name is a spreadsheet's formula."""
    names = ["=cmd|' /C calc'!A0", "+1+1", "-2", "@x", "\t=1", "\r=1", "'=1", "1e5", "\uff1d1", "é"]
    raw, data = reviews(tmp_path / "raw", users=names), tmp_path / "data"
    finished(amazon(raw, data, "--bins", 3, "--negatives", 3))
    with gzip.open(next(raw.glob("reviews*")), "rt") as file:
        lines = [json.loads(line) for line in file]
    finished(tinprep("predict", amazon_run / "run", data, "--out", tmp_path / "s.parquet"))
    scores = pq.read_table(tmp_path / "s.parquet").to_pylist()
    assert list(scores[0]) == ["split", "row", "user", "item", "category", "label", "score"]
    for score in scores:
        line = lines[score["row"]]
        assert score["user"] == line["reviewerID"]
        assert (score["item"] == line["asin"]) == score["label"]
        assert score["category"] == f"C{int(score['item'][1:]) % 3}"
    assert {score["user"] for score in scores} == {*names}
    # A negative may be drawn twice.
    assert len({(s["row"], s["item"]) for s in scores}) > len(scores) * 3 / 4

    twice = predict(amazon_run / "run", data, tmp_path / "t.csv", splits=("test", "test"))
    assert twice.rows == sum(score["split"] == "test" for score in scores)

    finished(tinprep("predict", amazon_run / "run", data, "--out", tmp_path / "s.csv"))
    with (tmp_path / "s.csv").open(newline="", encoding="utf-8") as file:
        told = [score["user"] for score in csv.DictReader(file)]
    assert [from_spreadsheet(cell) for cell in told] == [score["user"] for score in scores]
    assert {cell for cell in told if cell[0] in "=+-@\t\r\uff1d"} == {"-2"}


OWN = """
[tables.log]
files = ["old.csv", "new.csv"]
user = "user"
time = {{ column = "day", timezone = "UTC" }}
fields = {{ item = "film" }}
[target]
table = "log"
split = {{ {} }}
negatives = {{ per_positive = 1 }}
[histories.history]
table = "log"
"""


@pytest.mark.parametrize(
    "split",
    ['by = "time", valid = "2026-01-04", test = "2026-01-05", timezone = "UTC"', 'by = "order"'],
)
def test_new_events_are_scored_where_train_stays_what_it_was(tmp_path: Path, split: str) -> None:
    log = [f"U{u},F{(u + k * k) % 12},2026-01-0{k}" for k in range(1, 6) for u in range(10)]
    new = [f"U{u},F{99 if u == 0 else u},2026-01-06" for u in range(10)]
    new += ["NEW,F4,2026-01-06", "NEW,F5,2026-01-07"]
    (tmp_path / "old.csv").write_text("\n".join(["user,film,day", *log]))
    (tmp_path / "new.csv").write_text("user,film,day\n")
    described, run = tmp_path / "own.toml", tmp_path / "run"
    described.write_text(OWN.format(split))
    finished(tinprep("prepare", described, "--out", tmp_path / "old"))
    finished(tinprep("train", tmp_path / "old", "--run", run, *FEW))
    (tmp_path / "new.csv").write_text("\n".join(["user,film,day", *new]))
    finished(tinprep("prepare", described, "--out", tmp_path / "new"))
    ended = tinprep("predict", run, tmp_path / "new", "--out", tmp_path / "new.parquet")
    if "order" in split:
        refused(ended, 4, "not like the one", "bin edges")
        return
    finished(ended)
    assert "no id for them: 1 of item." in ended.out
    finished(tinprep("predict", run, tmp_path / "old", "--out", tmp_path / "old.parquet"))
    before, after = (
        pl.read_parquet(tmp_path / f"{name}.parquet").filter(label=1).sort("row")
        for name in ("old", "new")
    )
    same = ["split", "row", "user", "item"]
    assert after.filter(pl.col("row") < len(log)).select(same).equals(before.select(same))
    assert after["score"][: len(before)].to_list() == pytest.approx(before["score"].to_list())
    found = after.filter(pl.col("row") >= len(log)).select(same)
    told = [(row, *line.split(",")[:2]) for row, line in enumerate(new, len(log))]
    told = [(row, user, None if item == "F99" else item) for row, user, item in told]
    assert found.rows() == [("test", *one) for one in told]


def test_impressions_have_their_user_and_ad(alibaba_run: Path, tmp_path: Path) -> None:
    run, data = alibaba_run / "run", alibaba_run / "data"
    finished(tinprep("predict", run, data, "--out", tmp_path / "s.parquet"))
    scores = pq.read_table(tmp_path / "s.parquet").to_pylist()
    shown = list(raw_rows(alibaba_run / "raw", "raw_sample.csv"))
    assert sorted(s["row"] for s in scores) == list(range(len(shown)))
    for score in scores:
        line = shown[score["row"]]
        assert (str(score["user"]), str(score["ad"])) == (line["user"], line["adgroup_id"])
        assert (score["category"], score["brand"]) == (score["ad"] % 3, score["ad"] % 2 or None)


VALUES = st.lists(st.text("ab\0é", max_size=3), max_size=4) | st.lists(
    st.integers(0, 3), min_size=1, max_size=4
)


@settings(max_examples=30)
@given(VALUES, VALUES, st.integers(0, 4))
@example(["ab", "c"], ["a", "bc"], 1)
@example(["1"], [1], 0)
def test_a_digest_is_of_values_and_ids_alone(one: list[Any], other: list[Any], cut: int) -> None:
    def of(values: list[Any], kind: pa.DataType) -> str:
        # Of slices in two chunks, with counts beside them.
        rows = pa.array([*values[:1], *values], kind)[len(values[:1]) :]
        ids = pa.array(range(2, len(values) + 2), pa.int32())
        value = pa.chunked_array([rows[:cut], rows[cut:]], kind)
        return of_vocabulary(pa.table({"value": value, "id": ids, "count": ids}))

    texts = (pa.string(), pa.large_string())
    first, second = (
        {of(v, kind) for kind in ((pa.int64(),) if isinstance([*v, ""][0], int) else texts)}
        for v in (one, other)
    )
    assert len(first) == len(second) == 1
    assert (first == second) == (one == other)


def test_a_run_that_does_not_say_of_which_data_it_is_is_refused(
    amazon_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(amazon_run / "run", run)
    kept = torch.load(run / "best.pt")
    del kept["built"]["inputs"]["digests"]
    torch.save(kept, run / "best.pt")
    for ended in uses(run, amazon_run / "data", tmp_path)[:2]:
        refused(ended, 3, "older tinprep", "train again")


@pytest.mark.parametrize("hidden", ["vocabulary", "manifest"])
def test_a_data_set_that_is_not_what_its_manifest_says_is_refused(
    amazon_run: Path, tmp_path: Path, hidden: str
) -> None:
    data = tmp_path / "data"
    shutil.copytree(amazon_run / "data", data)
    if hidden == "vocabulary":
        path = data / "vocabulary/item.parquet"
        words = pq.read_table(path)
        pq.write_table(words.set_column(0, "value", words["value"].combine_chunks()[::-1]), path)
    else:
        made = json.loads((data / "manifest.json").read_text())
        made["histories"]["history"]["bins"]["edges_s"][0] += 1
        (data / "manifest.json").write_text(json.dumps(made))
    for ended in uses(amazon_run / "run", data, tmp_path):
        refused(ended, 4, "not what its manifest says")


@pytest.mark.parametrize(
    ("differs", "dear", "flags"),
    [
        ("scale of price", 2, ()),
        ("window rule", 1, ("--behaviors", "pv,cart")),
        ("window rule", 1, ("--behaviors-since", "all")),
    ],
)
def test_impressions_that_mean_something_else_are_refused(
    alibaba_run: Path, tmp_path: Path, differs: str, dear: float, flags: tuple[object, ...]
) -> None:
    other = tmp_path / "data"
    finished(alibaba(log(tmp_path / "raw", dear), other, "--bins", 3, *flags))
    for ended in uses(alibaba_run / "run", other, tmp_path)[:2]:
        refused(ended, 4, differs)
