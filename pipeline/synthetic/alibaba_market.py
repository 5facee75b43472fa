"""Who and what the synthetic Taobao log is about: categories, brands, ads, users and profiles.

Inside, categories, brands, ads and users are numbered from 0; `category_id` and its like give the
numbers that the files carry.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from pipeline.synthetic.alibaba_recipe import AlibabaRecipe, AlibabaSizes, stream
from pipeline.synthetic.shelf import apportion
from schemas.arrays import Floats, Int32s, Int64s

_RANK_SHIFT = 8.0
_TABLE = 1 << 20  # entries of a table that turns a uniform draw into a category
_MOST_BEHAVIOURS, _MOST_IMPRESSIONS = 50_000, 3_000
_BRANDLESS_ADS = 1 / 3
NO_BRAND = 0


@dataclass(frozen=True)
class Market:
    """Categories, brands and ads.

    Legend: C categories, B brands, A ads. Category 0 is the most popular one; the ads of category
    c are ad_start[c] .. ad_start[c + 1] - 1, its brands brand_start[c] and the brand_size[c] - 1
    after it (brands may serve several categories).

    Attributes:
        category_id: int32 [C]; number in the files.
        brand_id: int32 [B]; number in the files.
        popular: int32 [2**20]; category at each quantile of popularity.
        advertised: int32 [2**20]; the same among the categories that have ads.
        brand_start: int32 [C].
        brand_size: int32 [C]; at least 1.
        ad_start: int64 [C + 1].
        ad_brand: int32 [A]; brand in the files' numbers, 0 for none.
        ads: the table ad_feature.csv in the order of the ads' inner numbers.
    """

    category_id: Int32s
    brand_id: Int32s
    popular: Int32s
    advertised: Int32s
    brand_start: Int32s
    brand_size: Int32s
    ad_start: Int64s
    ad_brand: Int32s
    ads: pl.DataFrame

    @classmethod
    def open(cls, recipe: AlibabaRecipe) -> Market:
        """Draw the market of a recipe."""
        sizes = AlibabaSizes.of(recipe.scale, recipe.categories)
        draws = stream(recipe, "market")
        rank = np.arange(sizes.categories) + 1.0
        weight: Floats = np.power(rank + _RANK_SHIFT, -recipe.category_exponent)
        # A few of the best-known categories have no ads, many of the least known ones neither.
        with_ads = np.zeros(sizes.categories, bool)
        order = np.argsort(np.arange(sizes.categories) * draws.uniform(0.6, 1.4, sizes.categories))
        with_ads[order[: sizes.ad_categories]] = True
        ads_in = np.zeros(sizes.categories, np.int64)
        share = weight[with_ads] ** 0.9
        spare = sizes.ads - sizes.ad_categories
        ads_in[with_ads] = 1 + apportion(spare * share / share.sum(), spare)
        ad_start = np.concatenate([[0], np.cumsum(ads_in)])

        ideal = 2.0 * sizes.brands * weight**0.5 / (weight**0.5).sum()
        brand_size = np.clip(ideal, 1, sizes.brands).astype(np.int32)
        room = sizes.brands - brand_size + 1
        brand_start = (draws.random(sizes.categories) * room).astype(np.int32)
        brand_id = (draws.permutation(sizes.brands) + 1).astype(np.int32)
        category_id = (draws.permutation(sizes.categories + sizes.categories // 200) + 1).astype(
            np.int32
        )[: sizes.categories]

        category = np.repeat(np.arange(sizes.categories), ads_in)
        place = (brand_size[category] * draws.random(sizes.ads) ** 5).astype(np.int64)
        ad_brand = brand_id[brand_start[category] + place]
        ad_brand[draws.random(sizes.ads) < _BRANDLESS_ADS] = NO_BRAND
        campaign = _members(sizes.ads, sizes.campaigns, draws)
        customer = _members(sizes.campaigns, sizes.customers, draws)[campaign - 1]
        ads = pl.DataFrame(
            {
                "adgroup_id": (draws.permutation(sizes.ads) + 1).astype(np.int32),
                "cate_id": category_id[category],
                "campaign_id": campaign,
                "customer": customer,
                "brand": ad_brand,
                "price": _prices(sizes.ads, draws),
            }
        ).with_columns(pl.col("brand").replace(NO_BRAND, None))
        return cls(
            category_id=category_id,
            brand_id=brand_id,
            popular=_quantiles(weight),
            advertised=_quantiles(np.where(with_ads, weight, 0.0)),
            brand_start=brand_start,
            brand_size=brand_size,
            ad_start=ad_start,
            ad_brand=ad_brand,
            ads=ads,
        )


def _quantiles(weight: Floats) -> Int32s:
    """int32 [2**20]: category at each quantile of `weight`."""
    counts = apportion(_TABLE * weight / weight.sum(), _TABLE)
    return np.asarray(np.repeat(np.arange(len(weight), dtype=np.int32), counts))


def _members(count: int, groups: int, draws: np.random.Generator) -> Int32s:
    """Put `count` members into groups 1..`groups`, none empty, some large."""
    extra = (groups * draws.random(count - groups) ** 2).astype(np.int64)
    group = np.concatenate([np.arange(groups), extra])
    return np.asarray((draws.permutation(groups)[draws.permutation(group)] + 1).astype(np.int32))


def _prices(count: int, draws: np.random.Generator) -> Floats:
    """Heavy-tailed prices with two decimals; the least is 0.01 and the greatest 1e8."""
    price = np.exp(5.2 + 1.5 * draws.standard_normal(count))
    odd = draws.random(count) < 0.001
    price[odd] = 10 ** draws.uniform(-2, 8, int(odd.sum()))
    lowest, highest = draws.permutation(count)[:2]
    price[lowest], price[highest] = 0.01, 1e8
    return np.asarray(np.clip(np.round(price, 2), 0.01, 1e8))


@dataclass(frozen=True)
class People:
    """The users in the order in which their lines are made, which is random.

    Attributes:
        user: int32 [U]; number in the files.
        behaviours: int64 [U]; how many each one has, 0 for some.
        impressions: int64 [U]; 0 for the bystanders.
    """

    user: Int32s
    behaviours: Int64s
    impressions: Int64s

    @classmethod
    def gather(cls, recipe: AlibabaRecipe) -> People:
        """Draw the users of a recipe and how active each one is; the sums are exact."""
        sizes = AlibabaSizes.of(recipe.scale)
        draws = stream(recipe, "people")
        count = sizes.users + sizes.bystanders
        role = draws.permutation(count)
        bystander, silent = role < sizes.bystanders, role >= count - sizes.silent
        taste = draws.standard_normal(count)
        other = draws.standard_normal(count)
        active = np.where(silent, 0.0, np.exp(1.1 * taste))
        shown = np.where(bystander, 0.0, np.exp(0.9 * (0.5 * taste + 0.75**0.5 * other)))
        return cls(
            user=(draws.permutation(count) + 1).astype(np.int32),
            behaviours=share_out(active, sizes.behaviours, _MOST_BEHAVIOURS),
            impressions=share_out(shown, sizes.impressions, _MOST_IMPRESSIONS),
        )

    def blocks(self, rows: int) -> Int64s:
        """int64 [blocks + 1]: bounds of runs of users with about `rows` lines each."""
        start = np.cumsum(self.behaviours + self.impressions) - self.behaviours - self.impressions
        last = int(start[-1]) // rows
        inner = np.unique(np.searchsorted(start, rows * np.arange(1, last + 1)))
        return np.concatenate([[0], inner[inner < len(start)], [len(start)]])


def share_out(weight: Floats, total: int, most: int) -> Int64s:
    """Whole numbers near to proportional to `weight` [U] with an exact sum.

    Where the weight is 0 the number is 0, elsewhere at least 1 and at most `most`.

    Raises:
        ValueError: the sum cannot be met within these bounds.
    """
    holds = weight > 0
    if not int(holds.sum()) <= total <= most * int(holds.sum()):
        raise ValueError(f"{total} cannot be shared out among {int(holds.sum())}")

    def counts(factor: float) -> Int64s:
        return np.where(holds, np.clip(weight * factor, 1, most), 0).astype(np.int64)

    low, high = 0.0, 1.0
    while counts(high).sum() < total:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if counts(middle).sum() <= total else (low, middle)
    result = counts(low)
    while missing := total - int(result.sum()):
        result[np.flatnonzero(holds & (result < most))[:missing]] += 1
    return result


def draw_profiles(recipe: AlibabaRecipe, people: People) -> pl.DataFrame:
    """Draw the table user_profile.csv: about 93% of the users with impressions, in no order."""
    sizes = AlibabaSizes.of(recipe.scale)
    draws = stream(recipe, "profiles")
    shown = people.user[people.impressions > 0]
    user = draws.permutation(shown)[: sizes.profiles]
    n = len(user)
    gender = draws.choice(np.array([1, 2], np.int8), n, p=[0.36, 0.64])
    age = draws.choice(np.arange(7, dtype=np.int8), n, p=[0.002, 0.06, 0.2, 0.3, 0.24, 0.18, 0.018])
    group = np.where(age == 0, 0, age + 6 * (gender == 1))
    segment = np.where(draws.random(n) < 0.45, 0, draws.integers(1, 97, n))
    level = draws.choice(np.arange(4, dtype=np.int8), n, p=[0.54, 0.12, 0.27, 0.07])
    new = draws.choice(np.arange(5, dtype=np.int8), n, p=[0.32, 0.11, 0.33, 0.18, 0.06])
    return pl.DataFrame(
        {
            "userid": user,
            "cms_segid": segment,
            "cms_group_id": group,
            "final_gender_code": gender,
            "age_level": age,
            "pvalue_level": level,
            "shopping_level": draws.choice(np.array([1, 2, 3], np.int8), n, p=[0.08, 0.11, 0.81]),
            "occupation": (draws.random(n) < 0.06).astype(np.int8),
            "new_user_class_level ": new,
        }
    ).with_columns(pl.col("pvalue_level", "new_user_class_level ").replace(0, None))
