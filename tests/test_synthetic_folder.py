"""The folder of synthetic files: whole or not, and never in place of other data."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.synthetic import alibaba as synthetic_alibaba
from pipeline.synthetic.alibaba import FILES, AlibabaRecipe, synthesize_alibaba
from pipeline.synthetic.amazon import MARKER, AmazonRecipe, synthesize_amazon
from schemas.errors import EnvironmentFault, UsageError
from tests.synthetic_read import unpack

REVIEWS, META = "reviews_Electronics_5.json.gz", "meta_Electronics.json.gz"
ADS, _, SHOWN, BEHAVED = FILES
Steps = dict[str, list[tuple[int, int]]]


@dataclass(frozen=True)
class Maker:
    """Who makes a folder of synthetic files.

    Attributes:
        make: makes the files of a recipe in a folder.
        small: a recipe of few rows.
        files: what it makes, the marker aside.
        stages: what its progress is told of, in this order.
        wrong: what its recipe refuses.
    """

    make: Callable[..., None]
    small: Any
    files: tuple[str, ...]
    stages: tuple[str, ...]
    wrong: tuple[dict[str, Any], ...]


AMAZON = Maker(
    synthesize_amazon,
    AmazonRecipe(scale=0.002, seed=3),
    (REVIEWS, META),
    ("draw", "reviews", "meta"),
    ({"scale": 0}, {"scale": float("nan")}, {"repeat": 1.1}, {"interval_decay": -1}),
)
ALIBABA = Maker(
    synthesize_alibaba,
    AlibabaRecipe(scale=0.00005, seed=3),
    FILES,
    ("ads", "profiles", "behaviours"),
    (
        *({"scale": 0}, {"scale": float("nan")}, {"click_rate": 1}),
        *({"window": 0}, {"categories": 19}, {"new_run": 0.0}),
    ),
)
BOTH = pytest.mark.parametrize("maker", [AMAZON, ALIBABA], ids=["amazon", "alibaba"])


def of_each(attribute: str) -> Any:
    """Parametrize with each maker and each of what it has of `attribute`."""
    pairs = [
        pytest.param(maker, value, id=f"{name}-{value}")
        for name, maker in (("amazon", AMAZON), ("alibaba", ALIBABA))
        for value in getattr(maker, attribute)
    ]
    return pytest.mark.parametrize(("maker", attribute.removesuffix("s")), pairs)


def contents(folder: Path) -> dict[str, Any]:
    """What each file holds: a gzipped one by its lines, as its header has a time."""
    return {
        path.name: unpack(path) if path.suffix == ".gz" else path.read_bytes()
        for path in folder.iterdir()
    }


def recipe_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / MARKER).read_text())["recipe"]
    return found


@BOTH
def test_same_recipe_same_data_and_another_seed_other_data(tmp_path: Path, maker: Maker) -> None:
    one, two, seed = (tmp_path / name for name in ("one", "two", "seed"))
    maker.make(one, maker.small)
    maker.make(two, maker.small)
    maker.make(seed, replace(maker.small, seed=4))
    assert contents(one) == contents(two)
    assert set(contents(one)) == {MARKER, *maker.files}
    for name in maker.files:
        assert contents(one)[name] != contents(seed)[name]


def test_another_category_has_other_reviews(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    synthesize_amazon(one, AMAZON.small)
    synthesize_amazon(other, AMAZON.small, category="Cell_Phones")
    there = contents(other)
    assert contents(one)[REVIEWS] != there["reviews_Cell_Phones_5.json.gz"]
    assert "'Cell Phones'" in there["meta_Cell_Phones.json.gz"][0]


@BOTH
def test_same_call_again_does_nothing(tmp_path: Path, maker: Maker) -> None:
    maker.make(tmp_path, maker.small)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert set(before) == {MARKER, *maker.files}
    calls: list[str] = []
    maker.make(tmp_path, maker.small, progress=lambda what, done, total: calls.append(what))
    assert not calls
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_another_recipe_replaces_what_was_made_up(tmp_path: Path) -> None:
    synthesize_alibaba(tmp_path, ALIBABA.small)
    old = contents(tmp_path)
    synthesize_alibaba(tmp_path, replace(ALIBABA.small, category_gain=0.0))
    assert contents(tmp_path)[BEHAVED] == old[BEHAVED]
    assert contents(tmp_path)[SHOWN] != old[SHOWN]
    assert recipe_of(tmp_path)["category_gain"] == 0.0


@of_each("files")
def test_a_file_that_is_missing_is_made_again(tmp_path: Path, maker: Maker, file: str) -> None:
    maker.make(tmp_path, maker.small)
    whole = contents(tmp_path)
    (tmp_path / file).unlink()
    maker.make(tmp_path, maker.small)
    assert contents(tmp_path) == whole


@BOTH
def test_progress_counts_up_to_the_total(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, maker: Maker
) -> None:
    monkeypatch.setattr(synthetic_alibaba, "_BLOCK_ROWS", 10_000)
    seen: Steps = {}

    def note(what: str, done: int, total: int) -> None:
        seen.setdefault(what, []).append((done, total))

    maker.make(tmp_path, maker.small, progress=note)
    assert tuple(seen) == maker.stages
    assert maker is AMAZON or len(seen["behaviours"]) > 2
    for steps in seen.values():
        assert steps == sorted(steps)
        assert steps[-1][0] == steps[-1][1]


@of_each("stages")
def test_interrupted_run_leaves_nothing_and_can_be_run_again(
    tmp_path: Path, maker: Maker, stage: str
) -> None:
    def interrupt(what: str, done: int, total: int) -> None:
        if what == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        maker.make(tmp_path, maker.small, progress=interrupt)
    assert list(tmp_path.iterdir()) == []
    maker.make(tmp_path, maker.small)
    before = contents(tmp_path)
    assert set(before) == {MARKER, *maker.files}
    if maker is ALIBABA:  # which may be replaced: until then, what was there stays
        with pytest.raises(KeyboardInterrupt):
            maker.make(tmp_path, replace(maker.small, seed=9), progress=interrupt)
        assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("maker", "renames"),
    [*((AMAZON, n) for n in range(3)), *((ALIBABA, n) for n in range(5))],
    ids=[*(f"amazon-{n}" for n in range(3)), *(f"alibaba-{n}" for n in range(5))],
)
def test_made_up_files_never_lie_under_final_names_without_their_marker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, maker: Maker, renames: int
) -> None:
    if maker is ALIBABA:
        maker.make(tmp_path, replace(maker.small, seed=9))
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
            maker.make(tmp_path, maker.small)
    left = {path.name for path in tmp_path.iterdir()}
    assert len(left) == (renames if maker is AMAZON else max(renames, 1))
    assert not left or MARKER in left
    maker.make(tmp_path, maker.small)
    assert set(contents(tmp_path)) == {MARKER, *maker.files}
    assert recipe_of(tmp_path)["seed"] == maker.small.seed


def holds(name: str, text: str = "real") -> Callable[[Path], None]:
    """Fill a folder with one file."""

    def fill(folder: Path) -> None:
        (folder / name).write_text(text)

    return fill


def made(maker: Maker, recipe: Any, *real: str, **options: Any) -> Callable[[Path], None]:
    """Fill a folder with synthetic files, of which some are then real ones."""

    def fill(folder: Path) -> None:
        maker.make(folder, recipe, **options)
        for name in real:
            (folder / name).write_bytes(b"real")

    return fill


ELSEWHERE = {
    "amazon-real": (AMAZON, holds("reviews_Beauty_5.json.gz")),
    "amazon-same-recipe-and-real": (AMAZON, made(AMAZON, AMAZON.small, META)),
    "amazon-other-recipe": (AMAZON, made(AMAZON, replace(AMAZON.small, repeat=0.5))),
    "amazon-other-category": (AMAZON, made(AMAZON, AMAZON.small, category="Beauty")),
    "amazon-strange-marker": (AMAZON, holds(MARKER, "[]")),
    "alibaba-real": (ALIBABA, holds(SHOWN)),
    "alibaba-real-zipped": (ALIBABA, holds(f"{BEHAVED}.gz")),
    "alibaba-same-recipe-and-real": (ALIBABA, made(ALIBABA, ALIBABA.small, ADS)),
    "alibaba-of-amazon": (ALIBABA, made(AMAZON, AmazonRecipe(scale=0.001))),
    "alibaba-strange-marker": (ALIBABA, holds(MARKER, "[]")),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_data_of_another_origin_is_never_replaced(tmp_path: Path, name: str) -> None:
    maker, fill = ELSEWHERE[name]
    fill(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UsageError) as caught:
        maker.make(tmp_path, maker.small)
    assert caught.value.where is not None
    assert caught.value.expected
    assert caught.value.got
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@BOTH
def test_bad_calls_say_what_is_wrong(tmp_path: Path, maker: Maker) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match="cannot be made"):
            maker.make(out, maker.small)
    for wrong in maker.wrong:
        with pytest.raises(UsageError) as caught:
            type(maker.small)(**wrong)
        assert caught.value.where in wrong


def test_a_category_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name a file"):
        synthesize_amazon(tmp_path, AMAZON.small, category="../Books")
