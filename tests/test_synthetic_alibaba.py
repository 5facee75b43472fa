"""Synthetic Alibaba files: counts, values, and clicks that follow the law."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from pipeline.synthetic import alibaba as synthetic_alibaba
from pipeline.synthetic.alibaba import (
    FILES,
    MARKER,
    AlibabaRecipe,
    AlibabaSizes,
    click_log_odds,
    synthesize_alibaba,
)
from pipeline.synthetic.alibaba_draw import Block, draw_block
from pipeline.synthetic.alibaba_law import click_probability, fit_base
from pipeline.synthetic.alibaba_market import Market, People
from pipeline.synthetic.alibaba_recipe import KINDS
from tests.synthetic_read import AlibabaFiles, Histories, read_histories
from trainer.metrics import logloss as mean_logloss

RECIPE = AlibabaRecipe(scale=0.0005, seed=3)
BLOCK_ROWS = 100_000  # so that this small log takes several blocks
ADS, PROFILES, SHOWN, BEHAVED = FILES
DAY_S, FIRST_DAY = 86_400, 1_494_000_000
BEIJING_S = 8 * 3600
HEADERS = {
    SHOWN: "user,time_stamp,adgroup_id,pid,nonclk,clk",
    ADS: "adgroup_id,cate_id,campaign_id,customer,brand,price",
    PROFILES: "userid,cms_segid,cms_group_id,final_gender_code,age_level,pvalue_level,"
    "shopping_level,occupation,new_user_class_level ",
    BEHAVED: "user,time_stamp,btag,cate,brand",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> AlibabaFiles:
    folder = tmp_path_factory.mktemp("synthetic")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(synthetic_alibaba, "_BLOCK_ROWS", BLOCK_ROWS)
        synthesize_alibaba(folder, RECIPE)
    tables = [pl.read_csv(folder / name, null_values=["NULL", ""]) for name in FILES]
    return AlibabaFiles(folder, json.loads((folder / MARKER).read_text()), *tables)


@pytest.fixture(scope="module")
def blocks() -> list[Block]:
    market, people = Market.open(RECIPE), People.gather(RECIPE)
    bounds = people.blocks(BLOCK_ROWS)
    return [draw_block(RECIPE, market, people, bounds, k) for k in range(len(bounds) - 1)]


# The files


def test_counts_at_scale_1_are_the_real_ones() -> None:
    sizes = AlibabaSizes.of(1.0)
    assert (sizes.users, sizes.ads, sizes.profiles) == (1_141_729, 846_811, 1_061_768)
    assert (sizes.impressions, sizes.behaviours) == (26_557_961, 723_268_134)
    assert sum(KINDS.values()) == sizes.behaviours
    assert AlibabaRecipe().click_rate * sizes.impressions == pytest.approx(1_366_056)


def test_counts_of_the_files_are_exact(files: AlibabaFiles) -> None:
    sizes = AlibabaSizes.of(RECIPE.scale)
    assert len(files.shown) == sizes.impressions == round(26_557_961 * 0.0005) == 13_279
    assert len(files.behaved) == sizes.behaviours == round(723_268_134 * 0.0005)
    assert len(files.ads) == files.ads["adgroup_id"].n_unique() == sizes.ads
    assert files.shown["user"].n_unique() == sizes.users == 571
    assert len(files.profiles) == files.profiles["userid"].n_unique() == sizes.profiles
    assert files.ads["campaign_id"].n_unique() == sizes.campaigns
    assert files.ads["customer"].n_unique() == sizes.customers
    assert files.ads["cate_id"].n_unique() == sizes.ad_categories
    assert files.ads["cate_id"].n_unique() < files.behaved["cate"].n_unique() <= sizes.categories


def test_headers_and_lines_are_as_the_real_files_have_them(files: AlibabaFiles) -> None:
    for name, header in HEADERS.items():
        text = (files.folder / name).read_bytes()
        assert text.startswith(header.encode() + b"\n")
        assert text.endswith(b"\n")
        assert text.count(header.encode()) == 1
        assert b'"' not in text
        assert b"\r" not in text
    assert not files.shown.null_count().sum_horizontal().item()
    assert not files.behaved.null_count().sum_horizontal().item()
    assert b"NULL" in (files.folder / ADS).read_bytes()
    assert b"NULL" not in (files.folder / PROFILES).read_bytes()


def test_values_are_in_the_real_ranges(files: AlibabaFiles) -> None:
    assert set(files.shown["pid"]) == {"430548_1007", "430539_1007"}
    assert ((files.shown["nonclk"] + files.shown["clk"]) == 1).all()
    assert set(files.shown["clk"]) == {0, 1}
    assert files.ads["price"].min() == 0.01
    assert files.ads["price"].max() == 1e8
    assert 0.25 < files.ads["brand"].null_count() / len(files.ads) < 0.42
    lowest_highest = {
        "cms_segid": (0, 96),
        "cms_group_id": (0, 12),
        "final_gender_code": (1, 2),
        "age_level": (0, 6),
        "pvalue_level": (1, 3),
        "shopping_level": (1, 3),
        "occupation": (0, 1),
        "new_user_class_level ": (1, 4),
    }
    for name, (lowest, highest) in lowest_highest.items():
        assert files.profiles[name].is_between(lowest, highest).drop_nulls().all(), name
    empty = files.profiles.null_count().row(0, named=True)
    assert 0.46 < empty.pop("pvalue_level") / len(files.profiles) < 0.62
    assert 0.24 < empty.pop("new_user_class_level ") / len(files.profiles) < 0.40
    assert not any(empty.values())
    kinds = dict(files.behaved["btag"].value_counts().iter_rows())
    for kind, count in KINDS.items():
        assert kinds[kind] / len(files.behaved) == pytest.approx(count / 723_268_134, rel=0.06)


def test_ids_refer_to_what_there_is(files: AlibabaFiles) -> None:
    assert set(files.shown["adgroup_id"]) <= set(files.ads["adgroup_id"])
    assert set(files.profiles["userid"]) < set(files.shown["user"])
    count = len(set(files.shown["user"]) | set(files.behaved["user"]))
    assert files.behaved["user"].max() == count
    assert files.behaved["user"].min() == 1
    assert files.ads["adgroup_id"].max() == len(files.ads)
    # Categories and brands of ads are those of behaviours.
    shared = set(files.ads["cate_id"]) & set(files.behaved["cate"])
    assert len(shared) > 0.9 * files.ads["cate_id"].n_unique()
    assert set(files.ads["brand"].drop_nulls()) & set(files.behaved["brand"])


def test_some_users_lack_a_profile_behaviours_or_impressions(files: AlibabaFiles) -> None:
    shown, behaved = set(files.shown["user"]), set(files.behaved["user"])
    assert (len(shown) - len(files.profiles)) / len(shown) == pytest.approx(0.07, abs=0.005)
    assert len(shown - behaved) / len(shown) == pytest.approx(0.035, abs=0.005)
    assert len(behaved - shown) == 2
    each = files.behaved["user"].value_counts()["count"]
    assert each.max() > 8 * each.median()


def test_times_are_within_the_real_days(files: AlibabaFiles) -> None:
    times = files.shown["time_stamp"]
    assert times.min() >= FIRST_DAY
    assert times.max() <= 1_494_691_186
    assert set((times - FIRST_DAY) // DAY_S) == set(range(8))
    behaved = files.behaved["time_stamp"]
    assert FIRST_DAY - 14 * DAY_S <= behaved.min() < FIRST_DAY - 13 * DAY_S
    assert FIRST_DAY + 7 * DAY_S < behaved.max() < FIRST_DAY + 8 * DAY_S
    hour = np.bincount((behaved.to_numpy() + BEIJING_S) // 3600 % 24, minlength=24)
    assert hour[20:23].min() > 5 * hour[3:5].max()


def test_behaviours_come_in_sessions(files: AlibabaFiles) -> None:
    ordered = files.behaved.sort("user", "time_stamp")
    gap = np.diff(ordered["time_stamp"])[np.diff(ordered["user"]) == 0]
    assert 0.8 < (gap <= 1800).mean() < 0.99
    assert 5 < np.median(gap) < 60
    assert (gap > 3600).mean() > 0.01
    cut = np.r_[True, (np.diff(ordered["time_stamp"]) > 1800) | (np.diff(ordered["user"]) > 0)]
    length = np.diff(np.r_[np.flatnonzero(cut), len(cut)])
    assert (length > 2).mean() > 0.7
    assert (length > 10).mean() > 0.3


def test_lines_are_in_no_order(files: AlibabaFiles) -> None:
    for table in (files.shown, files.behaved):
        user, time = table["user"].to_numpy(), table["time_stamp"].to_numpy()
        most = np.bincount(user).max() / len(user)
        assert (user[1:] == user[:-1]).mean() < 4 * most
        assert 0.4 < (time[1:] > time[:-1]).mean() < 0.6
    assert not files.profiles["userid"].is_sorted()
    assert not files.ads["adgroup_id"].is_sorted()


def test_some_behaviours_are_repeated_exactly(files: AlibabaFiles) -> None:
    repeats = len(files.behaved) - files.behaved.n_unique()
    # Besides those made on purpose, a few come about by chance: there are few brands at this scale.
    assert 0.9 * RECIPE.duplicates < repeats / len(files.behaved) < 1.7 * RECIPE.duplicates


def test_click_rate_is_the_real_one(files: AlibabaFiles) -> None:
    n = len(files.shown)
    assert files.shown["clk"].mean() == pytest.approx(0.051437, abs=4 * (0.0488 / n) ** 0.5)


def test_marker_says_that_and_how_the_data_is_made_up(files: AlibabaFiles) -> None:
    marker = files.marker
    assert marker["synthetic"] is True
    assert marker["dataset"] == "alibaba"
    assert AlibabaRecipe(**marker["recipe"]) == RECIPE
    counts = marker["counts"]
    assert counts["impressions"] == len(files.shown)
    assert counts["clicks"] == files.shown["clk"].sum()
    assert counts["behaviours"] == len(files.behaved)
    assert counts["behaviours_pv"] == (files.behaved["btag"] == "pv").sum()
    assert counts["profiles"] == len(files.profiles)
    assert marker["first_impression"] == files.shown["time_stamp"].min()
    assert marker["last_impression"] == files.shown["time_stamp"].max()
    for knob in ("category_gain", "brand_gain", "position_decay", "interval_decay", "window"):
        assert knob in json.dumps(marker["law"])
        assert marker["parameters"][knob] == getattr(RECIPE, knob)
    assert marker["files"] == {name: (files.folder / name).stat().st_size for name in FILES}


# The planted law


@pytest.fixture(scope="module")
def histories(files: AlibabaFiles) -> Histories:
    return read_histories(files, bisect_left)


def test_clicks_follow_the_law_as_read_from_the_files(
    files: AlibabaFiles, histories: Histories, blocks: list[Block]
) -> None:
    assert len(blocks) > 2
    base = files.marker["parameters"]["base_log_odds"]
    log_odds = click_log_odds(RECIPE, base, *histories)
    drawn = base + np.concatenate([block.gains for block in blocks])
    np.testing.assert_allclose(log_odds, drawn, atol=1e-9)
    luck = np.concatenate([block.luck for block in blocks])
    clicked = files.shown["clk"].to_numpy() > 0
    assert ((luck < click_probability(log_odds)) == clicked).all()
    assert 0.45 < luck.mean() < 0.55


def test_a_behaviour_at_the_impressions_own_second_does_not_count(
    files: AlibabaFiles, histories: Histories
) -> None:
    # There are such behaviours, and they would matter: so the test above can tell.
    upto = read_histories(files, bisect_right)
    assert (histories[0] != upto[0]).any()
    odds, wrong = (click_log_odds(RECIPE, 0.0, *read) for read in (histories, upto))
    assert (odds != wrong).any()


def test_log_odds_are_calibrated_and_explain_the_clicks(
    files: AlibabaFiles, blocks: list[Block]
) -> None:
    gains = np.concatenate([block.gains for block in blocks])
    clicked = files.shown["clk"].to_numpy()
    base = files.marker["parameters"]["base_log_odds"]
    assert base == fit_base(gains, RECIPE.click_rate)
    probability = click_probability(base + gains)
    for low, high in pairwise((-1.0, 0.001, 0.5, 1.5, 3.0, 1e9)):
        band = (gains > low) & (gains <= high)
        error = np.sqrt((probability * (1 - probability))[band].sum()) / band.sum()
        assert abs(clicked[band].mean() - probability[band].mean()) < 4 * error
    share = clicked.mean()
    constant = np.full(len(clicked), np.log(share / (1 - share)))
    assert mean_logloss(clicked, base + gains) < 0.93 * mean_logloss(clicked, constant)


def test_click_rates_fall_with_position_and_with_interval(
    files: AlibabaFiles, histories: Histories
) -> None:
    interval, same, _ = histories
    clicked = files.shown["clk"].to_numpy()
    newest = np.where(same.any(axis=1), same.argmax(axis=1) + 1, 99)
    rates = [clicked[(newest >= a) & (newest < b)].mean() for a, b in ((1, 4), (4, 13), (13, 51))]
    assert rates[0] > 1.4 * rates[1]
    assert rates[1] > 1.4 * rates[2]
    away = interval[np.arange(len(newest)), np.minimum(newest - 1, 49)]
    close = newest < 4
    assert clicked[close & (away < 900)].mean() > 1.5 * clicked[close & (away > 4 * 3600)].mean()
    assert clicked[close & (away > 8 * 3600)].mean() < 2 * clicked[newest == 99].mean() + 0.02
