"""Synthetic Amazon files: counts, lines and values as the real ones have them."""

from __future__ import annotations

import ast
import json
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.synthetic.amazon import MARKER, AmazonRecipe, AmazonSizes, synthesize_amazon
from pipeline.synthetic.law import draw_reviews, history_lengths
from schemas.expected import AMAZON_COUNTS
from tests.conftest import SHARED
from tests.synthetic_read import repeat_share, step_of, unpack

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
