"""What the synthetic Taobao data is made from: its recipe, its sizes and its random streams."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np

from pipeline.synthetic.folder import check_ranges, knob

# Real counts of the Taobao display-ad log (tianchi data set 56).
USERS = 1_141_729
ADS = 846_811
IMPRESSIONS = 26_557_961
CLICKS = 1_366_056
BEHAVIOURS = 723_268_134
PROFILES = 1_061_768
CATEGORIES, AD_CATEGORIES = 12_900, 6_769
BRANDS, CAMPAIGNS, CUSTOMERS = 461_000, 423_436, 255_875
# Behaviours by kind; they add up to BEHAVIOURS.
KINDS = {"pv": 688_904_345, "cart": 15_946_033, "fav": 9_301_837, "buy": 9_115_919}

_FEWEST_CATEGORIES = 20

# Beijing days (UTC+8): behaviours from 04-22, impressions from 05-06 to 05-13 23:59:46 (2017).
DAY_S = 86_400
FIRST_BEHAVIOUR_S = 1_492_790_400
LAST_BEHAVIOUR_S = 1_494_691_199
FIRST_IMPRESSION_S = 1_494_000_000
LAST_IMPRESSION_S = 1_494_691_186


@dataclass(frozen=True)
class AlibabaRecipe:
    """Everything that the synthetic Taobao data depends on.

    Attributes:
        scale: size relative to the real log (1.0: 26,557,961 impressions); see `AlibabaSizes`.
        category_gain: what a behaviour in the target's category adds to the log odds of a click
            at position 1 and interval 0.
        brand_gain: what one of the target's brand adds, besides.
        position_decay: how fast both fall with the position: exp(-position_decay * (p - 1)).
        interval_decay: how fast both fall with the interval:
            exp(-interval_decay * interval / interval_scale_s).
        interval_scale_s: the seconds over which `interval_decay` is counted.
        window: the latest behaviours that the law looks at.
        click_rate: expected share of impressions that are clicked.
        retarget: share of impressions whose ad is drawn from the category of one of the user's
            latest `window` behaviours; the others' follow the popularity of categories.
        category_exponent: how unequal categories are (0: all alike).
        categories: how many there are; None for as many as the scale gives, see `AlibabaSizes`.
        new_run: share of behaviours that begin a new run of one category (1: no runs, so that
            behaviours next to one another are no more alike than others).
        duplicates: share of behaviours that repeat another line exactly.

    Raises:
        UsageError: a value is out of its range.
    """

    scale: float = knob(1.0, lambda v: 0 < v <= 10, "above 0, at most 10")
    seed: int = knob(0, lambda v: 0 <= v < 2**63, "a whole number from 0 to 2**63 - 1")
    category_gain: float = knob(1.5, lambda v: 0 <= v <= 100, "from 0 to 100")
    brand_gain: float = knob(0.8, lambda v: 0 <= v <= 100, "from 0 to 100")
    position_decay: float = knob(0.2, lambda v: 0 <= v <= 100, "from 0 to 100")
    interval_decay: float = knob(1.0, lambda v: 0 <= v <= 1e6, "from 0 to 1e6")
    interval_scale_s: float = knob(3600.0, lambda v: 0 < v < math.inf, "above 0")
    window: int = knob(50, lambda v: 1 <= v <= 1000, "from 1 to 1000")
    click_rate: float = knob(CLICKS / IMPRESSIONS, lambda v: 0 < v < 1, "above 0, below 1")
    retarget: float = knob(0.4, lambda v: 0 <= v <= 1, "from 0 to 1")
    category_exponent: float = knob(1.1, lambda v: 0 <= v <= 3, "from 0 to 3")
    categories: int | None = knob(
        None,
        lambda v: v is None or _FEWEST_CATEGORIES <= v <= CATEGORIES,
        f"from {_FEWEST_CATEGORIES} to {CATEGORIES:,}, or None",
    )
    new_run: float = knob(0.4, lambda v: 0 < v <= 1, "above 0, at most 1")
    duplicates: float = knob(0.005, lambda v: 0 <= v <= 0.5, "from 0 to 0.5")

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class AlibabaSizes:
    """Counts of the data that a scale gives.

    Users, ads and what belongs to them are the real counts times `scale`, with minima; categories
    shrink with its square root and brands with its 0.75th power, so that a small log still has
    both. All but `ad_categories`, `categories` and `brands`, which bound what occurs, are exact.
    """

    users: int
    bystanders: int
    silent: int
    profiles: int
    ads: int
    campaigns: int
    customers: int
    ad_categories: int
    categories: int
    brands: int
    impressions: int
    behaviours: int

    @classmethod
    def of(cls, scale: float, categories: int | None = None) -> AlibabaSizes:
        """Give the counts at `scale`; below about 0.0001 some stay at their minimum.

        `categories`, where it is given, takes the place of the count by scale.
        `users` have impressions, `silent` of them no behaviours; `bystanders` have behaviours but
        no impressions.
        """
        users = max(50, round(USERS * scale))
        ads = max(50, round(ADS * scale))
        campaigns = max(25, round(CAMPAIGNS * scale))
        categories = categories or max(_FEWEST_CATEGORIES, round(CATEGORIES * scale**0.5))
        return cls(
            users=users,
            bystanders=max(1, users // 200),
            silent=max(1, round(0.035 * users)),
            profiles=round(users * PROFILES / USERS),
            ads=ads,
            campaigns=min(ads, campaigns),
            customers=max(15, min(campaigns, round(CUSTOMERS * scale))),
            ad_categories=min(ads, round(categories * AD_CATEGORIES / CATEGORIES)),
            categories=categories,
            brands=max(100, round(BRANDS * scale**0.75)),
            impressions=max(10 * users, round(IMPRESSIONS * scale)),
            behaviours=max(200 * users, round(BEHAVIOURS * scale)),
        )


def stream(recipe: AlibabaRecipe, purpose: str, block: int = 0) -> np.random.Generator:
    """Make a random stream that depends on the seed, the purpose and the block only."""
    name = zlib.crc32(f"alibaba/{purpose}".encode())
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([recipe.seed, name, block])))
