"""The folder of synthetic Alibaba files: whole or not, and never in place of other data."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.sources import synthetic_alibaba
from pipeline.sources.synthetic import AmazonRecipe, synthesize_amazon
from pipeline.sources.synthetic_alibaba import (
    FILES,
    MARKER,
    AlibabaRecipe,
    synthesize_alibaba,
)
from schemas.errors import EnvironmentFault, UsageError

ADS, _, SHOWN, BEHAVED = FILES
SMALL = AlibabaRecipe(scale=0.00005, seed=3)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# Writing


def test_same_recipe_same_bytes_and_another_seed_other_bytes(tmp_path: Path) -> None:
    one, two, seed = (tmp_path / name for name in ("one", "two", "seed"))
    synthesize_alibaba(one, SMALL)
    synthesize_alibaba(two, SMALL)
    synthesize_alibaba(seed, replace(SMALL, seed=4))
    assert contents(one) == contents(two)
    assert set(contents(one)) == {MARKER, *FILES}
    for name in FILES:
        assert contents(one)[name] != contents(seed)[name]


def test_same_call_again_does_nothing_and_another_recipe_replaces(tmp_path: Path) -> None:
    synthesize_alibaba(tmp_path, SMALL)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    calls: list[str] = []
    synthesize_alibaba(tmp_path, SMALL, lambda what, done, total: calls.append(what))
    assert not calls
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    old = contents(tmp_path)
    synthesize_alibaba(tmp_path, replace(SMALL, category_gain=0.0))
    assert contents(tmp_path)[BEHAVED] == old[BEHAVED]
    assert contents(tmp_path)[SHOWN] != old[SHOWN]
    assert json.loads((tmp_path / MARKER).read_text())["recipe"]["category_gain"] == 0.0


def test_missing_file_is_made_again(tmp_path: Path) -> None:
    synthesize_alibaba(tmp_path, SMALL)
    whole = contents(tmp_path)
    (tmp_path / SHOWN).unlink()
    synthesize_alibaba(tmp_path, SMALL)
    assert contents(tmp_path) == whole


def test_progress_counts_up_to_the_total(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic_alibaba, "_BLOCK_ROWS", 10_000)
    seen: dict[str, list[tuple[int, int]]] = {}
    synthesize_alibaba(
        tmp_path,
        SMALL,
        lambda what, done, total: seen.setdefault(what, []).append((done, total)),
    )
    assert list(seen) == ["ads", "profiles", "behaviours"]
    assert len(seen["behaviours"]) > 2
    for steps in seen.values():
        assert steps == sorted(steps)
        assert steps[-1][0] == steps[-1][1]


@pytest.mark.parametrize("stage", ["ads", "profiles", "behaviours"])
def test_interrupted_run_leaves_what_was_there(tmp_path: Path, stage: str) -> None:
    def interrupt(what: str, done: int, total: int) -> None:
        if what == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesize_alibaba(tmp_path, SMALL, interrupt)
    assert list(tmp_path.iterdir()) == []
    synthesize_alibaba(tmp_path, SMALL)
    before = contents(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        synthesize_alibaba(tmp_path, replace(SMALL, seed=9), interrupt)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("renames", range(5))
def test_made_up_files_never_lie_under_final_names_without_their_marker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    synthesize_alibaba(tmp_path, replace(SMALL, seed=9))
    rename = Path.replace
    done: list[Path] = []

    def fail_late(self: Path, target: Path) -> Path:
        if len(done) == renames:
            raise OSError(28, "No space left on device", str(target))
        done.append(target)
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", fail_late)
        with pytest.raises(EnvironmentFault, match="cannot be written"):
            synthesize_alibaba(tmp_path, SMALL)
    left = {path.name for path in tmp_path.iterdir()}
    assert len(left) == max(renames, 1)
    assert MARKER in left
    synthesize_alibaba(tmp_path, SMALL)
    assert set(contents(tmp_path)) == {MARKER, *FILES}
    assert json.loads((tmp_path / MARKER).read_text())["recipe"]["seed"] == SMALL.seed


def real_file(folder: Path) -> None:
    (folder / SHOWN).write_bytes(b"real")


def real_zipped_file(folder: Path) -> None:
    (folder / f"{BEHAVED}.gz").write_bytes(b"real")


def same_recipe_and_real_file(folder: Path) -> None:
    synthesize_alibaba(folder, SMALL)
    (folder / ADS).write_bytes(b"real")


def amazon(folder: Path) -> None:
    synthesize_amazon(folder, AmazonRecipe(scale=0.001))


def strange_marker(folder: Path) -> None:
    (folder / MARKER).write_text("[]")


@pytest.mark.parametrize(
    "fill", [real_file, real_zipped_file, same_recipe_and_real_file, amazon, strange_marker]
)
def test_data_of_another_origin_is_never_replaced(
    tmp_path: Path, fill: Callable[[Path], None]
) -> None:
    fill(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(UsageError) as caught:
        synthesize_alibaba(tmp_path, SMALL)
    assert caught.value.where is not None
    assert caught.value.expected
    assert caught.value.got
    assert contents(tmp_path) == before


def test_bad_calls_say_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="not a folder"):
        synthesize_alibaba(tmp_path / "file", SMALL)
    with pytest.raises(EnvironmentFault):
        synthesize_alibaba(tmp_path / "file" / "below", SMALL)
    for wrong in (
        {"scale": 0},
        {"scale": float("nan")},
        {"click_rate": 1},
        {"window": 0},
        {"categories": 19},
        {"new_run": 0.0},
    ):
        with pytest.raises(UsageError) as caught:
            AlibabaRecipe(**wrong)
        assert caught.value.where in wrong
