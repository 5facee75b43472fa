from __future__ import annotations

import ast
import gzip
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sources.synthetic import MARKER, AmazonRecipe, AmazonSizes, synthesize_amazon
from pipeline.sources.synthetic_law import Draw, draw_reviews, history_lengths
from schemas.errors import EnvironmentFault, UsageError
from schemas.expected import AMAZON_COUNTS
from tests.conftest import SHARED

RECIPE = AmazonRecipe(scale=0.015, seed=3)
SMALL = AmazonRecipe(scale=0.002, seed=3)
REVIEWS, META = "reviews_Electronics_5.json.gz", "meta_Electronics.json.gz"
DAY_S = 86_400


@dataclass
class Files:
    """The two files, line by line and parsed."""

    folder: Path
    review_lines: list[str]
    meta_lines: list[str]
    reviews: list[dict[str, Any]]
    meta: list[dict[str, Any]]


def unpack(path: Path) -> list[str]:
    return gzip.decompress(path.read_bytes()).decode("ascii").splitlines()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("synthetic")
    synthesize_amazon(folder, RECIPE)
    reviews, meta = unpack(folder / REVIEWS), unpack(folder / META)
    return Files(
        folder,
        reviews,
        meta,
        [json.loads(line) for line in reviews],
        [ast.literal_eval(line) for line in meta],
    )


@pytest.fixture(scope="module")
def leaf(files: Files) -> dict[str, str]:
    return {x["asin"]: x["categories"][-1][-1] for x in files.meta if "categories" in x}


# The files


def test_counts_at_scale_1_are_the_real_ones() -> None:
    real, sizes = AMAZON_COUNTS["Electronics"], AmazonSizes.of(1.0)
    assert (sizes.users, sizes.items, sizes.categories, sizes.reviews) == (
        real.users,
        real.items,
        real.categories,
        real.reviews,
    )
    assert sizes.meta_lines == 498_196
    lengths = history_lengths(sizes)
    assert int(lengths.sum()) == real.reviews
    assert int(lengths.min()) == 5
    assert abs(int(lengths.max()) - 431) <= 5
    assert len(lengths) == real.users


def test_counts_of_the_files_are_exact(files: Files, leaf: dict[str, str]) -> None:
    users = Counter(x["reviewerID"] for x in files.reviews)
    items = Counter(x["asin"] for x in files.reviews)
    assert len(files.reviews) == round(1_689_188 * 0.015) == 25_338
    assert len(users) == 2886
    assert len(items) == 945
    assert len({leaf[asin] for asin in items}) == 12
    assert len(files.meta) == len({x["asin"] for x in files.meta}) == 7473
    assert min(users.values()) == 5
    assert min(items.values()) >= 5
    assert max(Counter((x["reviewerID"], x["asin"]) for x in files.reviews).values()) == 1


def test_lines_are_as_the_standard_writers_write_them(files: Files) -> None:
    for line, review in zip(files.review_lines, files.reviews, strict=True):
        assert json.dumps(review) == line
    for line, item in zip(files.meta_lines, files.meta, strict=True):
        assert ascii(item) == line


def test_reviews_are_grouped_by_ascending_asin(files: Files) -> None:
    asins = [x["asin"] for x in files.reviews]
    assert asins == sorted(asins)
    assert [x["asin"] for x in files.meta] == sorted(x["asin"] for x in files.meta)
    assert {len(asin) for asin in asins} == {10}
    assert any(asin.isdigit() for asin in asins)


def test_times_are_midnights_that_agree_with_their_text(files: Files) -> None:
    times = np.array([x["unixReviewTime"] for x in files.reviews])
    assert (times % DAY_S == 0).all()
    years = Counter(int(x["reviewTime"][-4:]) for x in files.reviews)
    assert min(years) >= 1999
    assert max(years) == 2014
    assert years[2013] > years[2011] > years[2009] > years[2006]
    for review in files.reviews[:2000]:
        month, day, year = review["reviewTime"].replace(",", "").split()
        assert (
            np.datetime64(f"{year}-{month}-{int(day):02d}", "s").astype(int)
            == (review["unixReviewTime"])
        )


def test_about_half_of_the_rows_share_their_day(files: Files) -> None:
    days = Counter((x["reviewerID"], x["unixReviewTime"]) for x in files.reviews)
    tied = sum(n for n in days.values() if n > 1) / len(files.reviews)
    assert 0.4 < tied < 0.6


def test_text_holds_what_trips_readers(files: Files) -> None:
    texts = [x["reviewText"] for x in files.reviews]
    assert 450 < np.mean([len(text) for text in texts]) < 620
    for odd in ("\n", '"', "\\", "\t", "é", "😀", '"asin": "', "{"):
        assert any(odd in text for text in texts), odd
    assert any("\\u00e9" in line for line in files.review_lines)
    assert any("reviewerName" not in x for x in files.reviews)


def test_meta_holds_what_trips_readers(files: Files, leaf: dict[str, str]) -> None:
    reviewed = {x["asin"] for x in files.reviews}
    assert any("'categories':" in x.get("description", "") for x in files.meta)
    assert any("[" in x.get("description", "") for x in files.meta)
    assert any('"' in text and "'" in text for text in (x.get("title", "") for x in files.meta))
    assert any(line.count('"') == 2 for line in files.meta_lines)
    assert len({tuple(x) for x in files.meta}) > 20
    several = sum(len(x.get("categories", [])) > 1 for x in files.meta)
    assert 0.6 < several / len(files.meta) < 0.9
    assert sum(x["categories"][0][-1] != leaf[x["asin"]] for x in files.meta if x["asin"] in leaf)
    assert reviewed <= leaf.keys()
    assert any("categories" not in x for x in files.meta)
    assert set(leaf.values()) > {leaf[asin] for asin in reviewed}


def test_keys_are_those_of_real_reviews(files: Files) -> None:
    found = sorted(SHARED.glob("**/reviews_Musical_Instruments_5.json.gz"))
    if not found:
        pytest.skip(f"no real Amazon reviews under {SHARED}")
    real = [json.loads(line) for line in unpack(found[0])]
    assert {tuple(x) for x in files.reviews} == {tuple(x) for x in real}
    kinds = {key: type(value) for key, value in real[0].items()}
    assert {key: type(value) for key, value in files.reviews[0].items()} == kinds


def test_marker_says_that_and_how_the_data_is_made_up(files: Files) -> None:
    marker = json.loads((files.folder / MARKER).read_text())
    assert marker["synthetic"] is True
    assert AmazonRecipe(**marker["recipe"]) == RECIPE
    assert marker["counts"]["reviews"] == len(files.reviews)
    for knob in ("position_decay", "interval_decay", "repeat", "window", "interval_scale_days"):
        assert knob in json.dumps(marker["law"])
    assert marker["files"][META] == (files.folder / META).stat().st_size


# Writing


def contents(folder: Path, category: str = "Electronics") -> list[list[str]]:
    return [
        unpack(folder / f"{k.format(category)}")
        for k in ("reviews_{}_5.json.gz", "meta_{}.json.gz")
    ]


def test_same_recipe_same_data_and_another_seed_or_category_other_data(tmp_path: Path) -> None:
    one, two, seed, other = (tmp_path / name for name in ("one", "two", "seed", "other"))
    synthesize_amazon(one, SMALL)
    synthesize_amazon(two, SMALL)
    synthesize_amazon(seed, replace(SMALL, seed=4))
    synthesize_amazon(other, SMALL, category="Cell_Phones")
    assert contents(one) == contents(two)
    for x, y in zip(contents(one), contents(seed), strict=True):
        assert x != y
    assert contents(one)[0] != contents(other, "Cell_Phones")[0]
    assert "'Cell Phones'" in contents(other, "Cell_Phones")[1][0]


def test_same_call_again_does_nothing(tmp_path: Path) -> None:
    synthesize_amazon(tmp_path, SMALL)
    before = {path.name: path.stat() for path in tmp_path.iterdir()}
    assert set(before) == {REVIEWS, META, MARKER}
    calls: list[str] = []
    synthesize_amazon(tmp_path, SMALL, progress=lambda what, done, total: calls.append(what))
    assert not calls
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == {
        name: stat.st_mtime_ns for name, stat in before.items()
    }


def test_progress_counts_up_to_the_total(tmp_path: Path) -> None:
    seen: dict[str, list[tuple[int, int]]] = {}
    synthesize_amazon(
        tmp_path,
        SMALL,
        progress=lambda what, done, total: seen.setdefault(what, []).append((done, total)),
    )
    assert list(seen) == ["draw", "reviews", "meta"]
    for steps in seen.values():
        assert steps == sorted(steps)
        assert steps[-1][0] == steps[-1][1]


@pytest.mark.parametrize("stage", ["draw", "reviews", "meta"])
def test_interrupted_run_leaves_nothing_and_can_be_run_again(tmp_path: Path, stage: str) -> None:
    def interrupt(what: str, done: int, total: int) -> None:
        if what == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesize_amazon(tmp_path, SMALL, progress=interrupt)
    assert list(tmp_path.iterdir()) == []
    synthesize_amazon(tmp_path, SMALL)
    assert (tmp_path / META).exists()


def test_run_that_ended_between_the_renames_is_completed(tmp_path: Path) -> None:
    synthesize_amazon(tmp_path, SMALL)
    whole = contents(tmp_path)
    (tmp_path / META).unlink()
    synthesize_amazon(tmp_path, SMALL)
    assert contents(tmp_path) == whole


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_made_up_files_never_lie_under_final_names_without_the_marker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
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
            synthesize_amazon(tmp_path, SMALL)
    left = {path.name for path in tmp_path.iterdir()}
    assert len(left) == renames
    assert not left or MARKER in left
    synthesize_amazon(tmp_path, SMALL)
    assert {path.name for path in tmp_path.iterdir()} == {REVIEWS, META, MARKER}


def real_file(folder: Path) -> None:
    (folder / "reviews_Beauty_5.json.gz").write_bytes(b"real")


def same_recipe_and_real_file(folder: Path) -> None:
    synthesize_amazon(folder, SMALL)
    (folder / META).write_bytes(b"real")


def other_recipe(folder: Path) -> None:
    synthesize_amazon(folder, replace(SMALL, repeat=0.5))


def other_category(folder: Path) -> None:
    synthesize_amazon(folder, SMALL, category="Beauty")


def strange_marker(folder: Path) -> None:
    (folder / MARKER).write_text("[]")


@pytest.mark.parametrize(
    "fill", [real_file, same_recipe_and_real_file, other_recipe, other_category, strange_marker]
)
def test_data_of_another_origin_is_never_replaced(
    tmp_path: Path, fill: Callable[[Path], None]
) -> None:
    fill(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UsageError) as caught:
        synthesize_amazon(tmp_path, SMALL)
    assert caught.value.where is not None
    assert caught.value.expected
    assert caught.value.got
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_bad_calls_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name a file"):
        synthesize_amazon(tmp_path, SMALL, category="../Books")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="not a folder"):
        synthesize_amazon(tmp_path / "file", SMALL)
    with pytest.raises(EnvironmentFault):
        synthesize_amazon(tmp_path / "file" / "below", SMALL)
    for wrong in ({"scale": 0}, {"scale": float("nan")}, {"repeat": 1.1}, {"interval_decay": -1}):
        with pytest.raises(UsageError) as caught:
            AmazonRecipe(**wrong)
        assert caught.value.where in wrong


# The planted law


@settings(max_examples=20, deadline=None)
@given(
    scale=st.floats(0.0001, 0.004),
    seed=st.integers(0, 2**63 - 1),
    position_decay=st.sampled_from([0.0, 0.5, 100.0]),
    interval_decay=st.sampled_from([0.0, 1.0, 1e6]),
    repeat=st.floats(0, 1),
    window=st.integers(1, 40),
    category_exponent=st.floats(0, 3),
    item_skew=st.floats(0, 0.8),
    same_day=st.floats(0, 0.9),
)
def test_every_recipe_keeps_the_counts(**values: Any) -> None:
    recipe = AmazonRecipe(**values)
    sizes, draw = AmazonSizes.of(recipe.scale), draw_reviews(recipe, "Electronics")
    length = np.diff(draw.first)
    owner = np.repeat(np.arange(sizes.users), length)
    assert len(length) == sizes.users
    assert length.min() >= 5
    assert len(draw.item) == sizes.reviews
    assert np.bincount(draw.item, minlength=sizes.items).min() >= 1
    assert len(np.unique(draw.category_of)) == sizes.categories
    assert len(np.unique(owner * sizes.items + draw.item)) == sizes.reviews
    assert (np.diff(draw.day)[owner[1:] == owner[:-1]] >= 0).all()


LAW = AmazonRecipe(scale=0.2, seed=11, repeat=0.5)


def step_of(draw: Draw) -> npt.NDArray[np.int64]:
    """How many behaviours lie before each review."""
    return np.arange(len(draw.item)) - np.repeat(draw.first[:-1], np.diff(draw.first))


def repeat_share(draw: Draw, position: int, targets: npt.NDArray[np.int64]) -> float:
    category = draw.category_of[draw.item]
    return float((category[targets] == category[targets - position]).mean())


def test_position_knob_alone() -> None:
    draw = draw_reviews(replace(LAW, position_decay=0.4, interval_decay=0.0), "Electronics")
    targets = np.flatnonzero(step_of(draw) >= 20)
    share = [repeat_share(draw, p, targets) for p in (1, 2, 4, 8, 16)]
    assert all(a > 1.08 * b for a, b in pairwise(share)), share
    # The chosen positions follow exp(-0.4 (p - 1)) and the repeats happen with `repeat`.
    weight = np.exp(-0.4 * np.arange(20))
    got = np.bincount(draw.copied[targets], minlength=21)[1:] / len(targets)
    want = LAW.repeat * weight / weight.sum()
    assert np.abs(got - want).max() < 4 * np.sqrt(want.max() / len(targets))


def test_no_position_knob_no_position_decay() -> None:
    draw = draw_reviews(replace(LAW, position_decay=0.0, interval_decay=0.0), "Electronics")
    targets = np.flatnonzero(step_of(draw) >= 20)
    # Much older behaviours are even a little more alike: later ones had the time to repeat them.
    share = [repeat_share(draw, p, targets) for p in (1, 2, 4, 8)]
    assert max(share) < 1.1 * min(share), share
    got = np.bincount(draw.copied[targets], minlength=21)[1:] / len(targets)
    want = LAW.repeat / 20
    assert np.abs(got - want).max() < 4 * np.sqrt(want / len(targets))


@pytest.mark.parametrize("interval_decay", [0.0, 1.5])
def test_interval_knob(interval_decay: float) -> None:
    recipe = replace(LAW, position_decay=0.0, interval_decay=interval_decay)
    draw = draw_reviews(recipe, "Electronics")
    # A user's second review has one behaviour before it, so the choice is no part of the law.
    second = draw.first[:-1] + 1
    interval = (draw.day[second] - draw.day[second - 1]) / recipe.interval_scale_days
    category = draw.category_of[draw.item]
    expected = recipe.repeat * np.exp(-interval_decay * interval)
    shares = []
    for low, high in ((0.0, 0.01), (0.01, 0.3), (0.3, 1.0), (1.0, 20.0)):
        band = (interval >= low) & (interval < high)
        repeats = (draw.copied[second][band] > 0).mean()
        error = np.sqrt(0.25 / band.sum())
        assert abs(repeats - expected[band].mean()) < 4 * error
        shares.append((category[second][band] == category[second - 1][band]).mean())
    if interval_decay:
        assert all(a > 1.1 * b for a, b in pairwise(shares)), shares
    else:
        assert max(shares) < 1.03 * min(shares), shares


def test_without_repeats_a_category_is_as_likely_as_it_is_popular() -> None:
    draw = draw_reviews(replace(LAW, repeat=0.0), "Electronics")
    popularity = np.bincount(draw.category_of) / len(draw.category_of)
    targets = np.flatnonzero(step_of(draw) >= 1)
    assert repeat_share(draw, 1, targets) == pytest.approx((popularity**2).sum(), rel=0.05)
    assert not draw.copied.any()


def test_the_law_survives_the_order_in_which_files_are_read(
    files: Files, leaf: dict[str, str]
) -> None:
    """User, then time, ties as in the file: positions are nearly those of the draw."""
    rows = sorted(
        range(len(files.reviews)),
        key=lambda i: (files.reviews[i]["reviewerID"], files.reviews[i]["unixReviewTime"]),
    )
    user = np.array([files.reviews[i]["reviewerID"] for i in rows])
    category = np.array([leaf[files.reviews[i]["asin"]] for i in rows])
    read, drawn = [], []
    draw = draw_reviews(RECIPE, "Electronics")
    for p in (1, 2, 4, 8):
        together = user[p:] == user[:-p]
        read.append((category[p:] == category[:-p])[together].mean())
        drawn.append(repeat_share(draw, p, np.flatnonzero(step_of(draw) >= p)))
    assert all(a > 1.1 * b for a, b in pairwise(read)), read
    np.testing.assert_allclose(read, drawn, atol=0.01)


def auc(positive: npt.NDArray[np.float64], negative: npt.NDArray[np.float64]) -> float:
    """Share of pairs in the right order, ties half."""
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left")
    not_above = np.searchsorted(ordered, positive, "right")
    return float((below + not_above).mean() / 2 / len(negative))


def test_history_tells_positives_from_random_negatives_and_popularity_hardly_does() -> None:
    draw = draw_reviews(AmazonRecipe(scale=0.05), "Electronics")
    category, step = draw.category_of[draw.item], step_of(draw)
    random_item = np.random.default_rng(0).integers(0, len(draw.category_of), len(draw.item))
    scores = []
    for candidate in (category, draw.category_of[random_item]):
        score = np.zeros(len(candidate))
        for p in range(1, 21):
            known = np.flatnonzero(step >= p)
            score[known] += np.exp(-0.5 * (p - 1)) * (category[known - p] == candidate[known])
        scores.append(score[step >= 1])
    assert auc(scores[0], scores[1]) > 0.75
    reviews = np.bincount(draw.item).astype(float)
    assert 0.55 < auc(reviews[draw.item], reviews[random_item]) < 0.72
    size = np.bincount(draw.category_of).astype(float)
    assert auc(size[category], size[draw.category_of[random_item]]) == pytest.approx(0.5, abs=0.02)
