"""The law that synthetic reviews are drawn by: each knob alone, as it is told."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.synthetic.amazon import AmazonRecipe, AmazonSizes
from pipeline.synthetic.law import draw_reviews
from tests.synthetic_read import repeat_share, step_of


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
