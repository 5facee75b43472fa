"""`tinprep inspect`, `verify`, `models`, `train`, `evaluate` and `predict` as a user runs them."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest

from schemas.manifest import load
from tests.conftest import amazon, finished, tinprep, write_raw
from tests.oracle import Review

CONTRACT, INPUT = 4, 3


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("look")
    reviews = [Review(f"A{u}", f"B{(u + n) % 9}", 86_400 * n) for u in range(40) for n in range(5)]
    write_raw(folder / "raw", reviews, [(f"B{n}", "Red" if n % 2 else None) for n in range(9)])
    finished(amazon(folder / "raw", folder / "out", "--bins", 3, "--max-len", 3))
    return folder / "out"


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "out")
    return tmp_path / "out"


def test_inspect_shows_rows_in_words(made: Path) -> None:
    ended = tinprep("inspect", made)
    finished(ended)
    for said in ("interval bins", "history length", "distinct item", "train: row", "target"):
        assert said in ended.said
    row = pl.read_parquet(made / "train" / "*.parquet").row(0, named=True)
    items = dict(pl.read_parquet(made / "vocabulary" / "item.parquet").select("id", "value").rows())
    assert items[row["target_item"]] in ended.said
    assert "1970-01-0" in ended.said
    assert "(unknown)" in ended.said


@pytest.mark.parametrize(
    ("file", "content", "code", "said"),
    [
        ("vocabulary/item.parquet", None, INPUT, "vocabulary is missing"),
        ("vocabulary/item.parquet", b"PAR1", INPUT, "vocabulary cannot be read"),
        ("train/part-00000.parquet", b"PAR1", INPUT, "shard cannot be read"),
        ("manifest.json", b"[[", CONTRACT, "manifest cannot be read"),
    ],
)
def test_inspect_of_damage(
    copy: Path, file: str, content: bytes | None, code: int, said: str
) -> None:
    (copy / file).unlink()
    if content is not None:
        (copy / file).write_bytes(content)
    ended = tinprep("inspect", copy)
    assert (ended.code, "Traceback" in ended.err) == (code, False), ended.err
    assert said in ended.said
    assert file in ended.closed_up


def test_inspect_of_other_tables(copy: Path) -> None:
    words = pl.read_parquet(copy / "vocabulary" / "item.parquet")
    for wrong in (
        words.drop("count"),
        words.with_columns(pl.col("id").cast(pl.Int64)),
        words.with_columns(pl.lit("same").alias("value")),
        words.reverse(),
        words.with_columns(value=pl.when(pl.col("id") > 2).then("value")),
    ):
        wrong.write_parquet(copy / "vocabulary" / "item.parquet")
        ended = tinprep("inspect", copy)
        assert ended.code == CONTRACT, ended.err
        assert "vocabulary breaks its contract" in ended.said
    words.write_parquet(copy / "vocabulary" / "item.parquet")
    shard = copy / "train" / "part-00000.parquet"
    pl.read_parquet(shard).drop("target_item").write_parquet(shard)
    ended = tinprep("inspect", copy)
    assert ended.code == CONTRACT, ended.err
    assert "no target_item" in ended.said


def test_inspect_of_ids_that_no_vocabulary_has(copy: Path) -> None:
    shard = copy / "train" / "part-00000.parquet"
    rows = pl.read_parquet(shard)
    size = load(copy).vocabulary["item"]
    last = pl.read_parquet(copy / "vocabulary" / "item.parquet")["value"][-1]
    for id_, said in (
        (size - 1, last),
        (size, f"(no item: {size})"),
        (-1, "(no item: -1)"),
        (0, "(padding)"),
    ):
        rows.with_columns(target_item=pl.lit(id_, pl.Int32)).write_parquet(shard)
        ended = tinprep("inspect", copy)
        finished(ended)
        assert f"target {said}" in ended.said


def test_inspect_of_no_rows_needs_no_vocabulary(copy: Path) -> None:
    shutil.rmtree(copy / "vocabulary")
    finished(tinprep("inspect", copy, "--rows", 0))


def test_inspect_of_a_timezone_that_is_none(copy: Path) -> None:
    path = copy / "manifest.json"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"timezone": "UTC"', '"timezone": "../etc"', 1))
    ended = tinprep("inspect", copy)
    assert ended.code == CONTRACT, ended.err
    assert "names no timezone" in ended.said


def test_verify_says_sound_and_finds_damage(made: Path, copy: Path) -> None:
    finished(tinprep("verify", made))
    shard = copy / "train" / "part-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-9])
    ended = tinprep("verify", copy)
    assert ended.code == CONTRACT
    assert "train/part-00000.parquet" in ended.closed_up


def test_a_training_is_measured_and_scores_rows(made: Path, tmp_path: Path) -> None:
    wrong = tinprep("models", made.with_name(f"{made.name}x"))
    assert wrong.code == 3 and f"no such file; did you mean {made.name}?" in wrong.said
    models = tinprep("models", made)
    finished(models)
    assert "tin_released" in models.said
    near = tinprep("train", made, "--model", "tim")
    assert near.code == 2 and "tim; did you mean tin?" in near.said
    run, scores = tmp_path / "run", tmp_path / "scores.parquet"
    flags = ("--epochs", 1, "--dim", 4, "--hidden", "4", "--threads", 1)
    first = tinprep("train", made, "--run", run, *flags)
    finished(first)
    measured = tinprep("evaluate", run, "--split", "test", "--by", "length")
    finished(measured)
    assert "GAUC" in measured.said or "gauc" in measured.said
    assert f"next: tinprep evaluate {run} --by length; tinprep predict {run} {made}" in first.out
    scored = tinprep("predict", run, made, "--out", scores)
    finished(scored)
    assert "unfinished" not in scored.out
    (run / "metrics.json").rename(tmp_path / "metrics.json")
    scored = tinprep("predict", run, made, "--out", scores)
    assert f"scores of {run} (unfinished: its best weights so far): {scores}" in scored.out
    (tmp_path / "metrics.json").rename(run / "metrics.json")
    rows = pl.read_parquet(scores)
    assert rows.columns == ["split", "row", "user", "item", "category", "label", "score"]
    assert rows.height == sum(
        pl.read_parquet(made / split / "*.parquet").height for split in ("train", "valid", "test")
    )
    again = tinprep("train", made, "--run", run, *flags)
    assert again.code == 2
    assert "--force" in again.said
    again = tinprep("train", made, "--run", run, *flags, "--resume")
    finished(again)
    assert "finished already" in again.err
    for table in (first, again):
        assert "tin (tte-p) on amazon-Beauty" in table.out
    assert again.out == first.out
