"""The law of the synthetic Alibaba clicks, and recipes of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.synthetic.alibaba import (
    AlibabaRecipe,
    AlibabaSizes,
    click_log_odds,
)
from pipeline.synthetic.alibaba_draw import Block, draw_block
from pipeline.synthetic.alibaba_law import click_probability, fit_base, gain
from pipeline.synthetic.alibaba_market import Market, People, share_out
from trainer.metrics import gauc

LAW = AlibabaRecipe(scale=0.003, seed=5)


def test_position_and_interval_each_tell_more_than_a_count() -> None:
    market, people = Market.open(LAW), People.gather(LAW)
    bounds = people.blocks(2_000_000)

    def draw(recipe: AlibabaRecipe) -> Block:
        return draw_block(recipe, market, people, bounds, 0)

    block = draw(LAW)
    base = fit_base(block.gains, LAW.click_rate)
    clicked = (block.luck < click_probability(base + block.gains)).astype(np.int8)

    def judge(**knobs: float) -> float:
        gains = draw(replace(LAW, **knobs)).gains  # type: ignore[arg-type]
        return gauc(block.impression_user, clicked, np.round(gains, 3))

    oracle = judge()
    count = judge(position_decay=0.0, interval_decay=0.0, brand_gain=0.0)
    assert 0.66 < oracle < 0.75
    assert 0.6 < count < oracle - 0.02
    assert judge(interval_decay=0.0) > count + 0.02
    assert judge(position_decay=0.0) > count + 0.02
    assert 0.3 < block.known.mean() < 0.5


@given(
    position=st.integers(1, 60),
    interval=st.integers(1, 10**6),
    position_decay=st.floats(0, 2),
    interval_decay=st.floats(0, 2),
    category_gain=st.floats(0.1, 5),
    brand_gain=st.floats(0.1, 5),
)
def test_gain_falls_with_position_and_interval(
    position: int, interval: int, **knobs: float
) -> None:
    recipe = AlibabaRecipe(**knobs)  # type: ignore[arg-type]

    def one(p: int, t: int, same_category: bool = True, same_brand: bool = False) -> float:
        flags = np.array([same_category]), np.array([same_brand])
        return float(gain(recipe, np.array([p]), np.array([t]), *flags)[0])

    here = one(position, interval)
    assert 0 <= one(position + 1, interval) <= here
    assert 0 <= one(position, interval + 60) <= here
    assert one(1, 0) == knobs["category_gain"]
    assert one(position, interval, False) == 0
    both = one(position, interval, True, True)
    assert both == pytest.approx(here + one(position, interval, False, True))
    assert one(position + 1, interval) == pytest.approx(here * np.exp(-knobs["position_decay"]))
    fall = np.exp(-knobs["interval_decay"])
    assert one(position, interval + 3600) == pytest.approx(here * fall)


@pytest.mark.parametrize(("new_run", "least", "most"), [(1.0, -0.02, 0.02), (0.2, 0.3, 1.0)])
def test_runs_make_neighbours_alike(new_run: float, least: float, most: float) -> None:
    recipe = AlibabaRecipe(scale=0.0002, seed=3, new_run=new_run, categories=300, duplicates=0.0)
    market, people = Market.open(recipe), People.gather(recipe)
    block = draw_block(recipe, market, people, people.blocks(10**9), 0)
    order = np.lexsort((block.time, block.user))
    user, category = block.user[order], block.category[order]

    def same(apart: int) -> float:
        of_one_user = user[apart:] == user[:-apart]
        return float((category[apart:] == category[:-apart])[of_one_user].mean())

    assert least < same(1) - same(50) < most


def test_behaviours_beyond_the_window_count_for_nothing() -> None:
    recipe = AlibabaRecipe(window=2, position_decay=0.0, interval_decay=0.0, category_gain=1.0)
    yes, no = np.ones((1, 5), bool), np.zeros((1, 5), bool)
    assert click_log_odds(recipe, -3.0, np.ones((1, 5), np.int64), yes, no).tolist() == [-1.0]
    assert click_log_odds(recipe, -3.0, np.ones((1, 1), np.int64), yes[:, :1], no[:, :1]) == [-2.0]
    nothing = np.zeros((1, 0), bool)
    assert click_log_odds(recipe, -3.0, np.zeros((1, 0), np.int64), nothing, nothing) == [-3.0]


@settings(max_examples=15, deadline=None)
@given(
    scale=st.floats(0.000001, 0.0003),
    seed=st.integers(0, 2**63 - 1),
    window=st.integers(1, 60),
    click_rate=st.floats(0.01, 0.9),
    retarget=st.floats(0, 1),
    category_exponent=st.floats(0, 3),
    categories=st.none() | st.integers(20, 300),
    new_run=st.floats(0.01, 1),
    duplicates=st.floats(0, 0.5),
)
def test_every_recipe_keeps_the_counts(**values: Any) -> None:
    recipe = AlibabaRecipe(**values)
    sizes = AlibabaSizes.of(recipe.scale, recipe.categories)
    market, people = Market.open(recipe), People.gather(recipe)
    assert len(market.category_id) == sizes.categories == (recipe.categories or sizes.categories)
    bounds = people.blocks(20_000)
    drawn = [draw_block(recipe, market, people, bounds, k) for k in range(len(bounds) - 1)]
    assert sum(len(block.user) for block in drawn) == sizes.behaviours
    assert sum(len(block.ad) for block in drawn) == sizes.impressions
    users = [set(block.impression_user.tolist()) for block in drawn]
    assert len(set().union(*users)) == sum(map(len, users)) == sizes.users
    assert len(market.ads) == sizes.ads
    gains = np.concatenate([block.gains for block in drawn])
    assert (gains >= 0).all()
    fitted = click_probability(fit_base(gains, recipe.click_rate) + gains).mean()
    assert fitted == pytest.approx(recipe.click_rate, rel=1e-3)


@given(
    weight=st.lists(st.just(0.0) | st.floats(1e-6, 1e6), min_size=1, max_size=30).filter(any),
    most=st.integers(1, 50),
    data=st.data(),
)
def test_sharing_out_keeps_sum_and_bounds(
    weight: list[float], most: int, data: st.DataObject
) -> None:
    holders = sum(w > 0 for w in weight)
    total = data.draw(st.integers(holders, most * holders))
    shares = share_out(np.array(weight), total, most)
    assert shares.sum() == total
    assert all((1 <= n <= most) if w > 0 else n == 0 for w, n in zip(weight, shares, strict=True))
    with pytest.raises(ValueError, match="shared out"):
        share_out(np.array(weight), most * holders + 1, most)
