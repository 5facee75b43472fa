"""What the synthetic Amazon data is made from: its recipe, its sizes and its random streams."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np

from pipeline.synthetic.folder import check_ranges
from schemas.expected import AMAZON_COUNTS

CORE = 5
META_LINES = 498_196
_FULL = AMAZON_COUNTS["Electronics"]


@dataclass(frozen=True)
class AmazonRecipe:
    """Everything that the synthetic Amazon data depends on, besides the category's name.

    Attributes:
        scale: size relative to the real Electronics (1.0: 1,689,188 reviews); see `AmazonSizes`.
        position_decay: how fast the choice of a past behaviour falls with its position; 0: not.
        interval_decay: how fast a repeat's probability falls with the interval; 0: not.
        interval_scale_days: the interval, in days, over which `interval_decay` is counted.
        repeat: probability that the chosen behaviour's category is repeated at interval 0.
        window: K, the latest behaviours among which one is chosen.
        category_exponent: how unequal categories are (0: all alike).
        item_skew: how unequal the items of a category are (0: all alike). At 0.35 popularity
            alone ranks a review's item above a random one two times in three.
        same_day: mean probability that a user's next review falls on the day of the one before;
            it differs from user to user.

    Raises:
        UsageError: a value is out of its range.
    """

    scale: float = 1.0
    seed: int = 0
    position_decay: float = 1.0
    interval_decay: float = 1.0
    interval_scale_days: float = 365.0
    repeat: float = 0.9
    window: int = 20
    category_exponent: float = 1.5
    item_skew: float = 0.35
    same_day: float = 0.33

    def __post_init__(self) -> None:
        ranges = {
            "scale": (0 < self.scale <= 50, "above 0, at most 50"),
            "seed": (0 <= self.seed < 2**63, "a whole number from 0 to 2**63 - 1"),
            "position_decay": (0 <= self.position_decay <= 100, "from 0 to 100"),
            "interval_decay": (0 <= self.interval_decay <= 1e6, "from 0 to 1e6"),
            "interval_scale_days": (0 < self.interval_scale_days < math.inf, "above 0"),
            "repeat": (0 <= self.repeat <= 1, "from 0 to 1"),
            "window": (1 <= self.window <= 1000, "from 1 to 1000"),
            "category_exponent": (0 <= self.category_exponent <= 3, "from 0 to 3"),
            "item_skew": (0 <= self.item_skew <= 0.8, "from 0 to 0.8"),
            "same_day": (0 <= self.same_day <= 0.9, "from 0 to 0.9"),
        }
        check_ranges(self, ranges)


@dataclass(frozen=True)
class AmazonSizes:
    """Exact counts of the data that a scale gives: the real ones times `scale`, with minima."""

    users: int
    items: int
    categories: int
    reviews: int
    meta_lines: int

    @classmethod
    def of(cls, scale: float) -> AmazonSizes:
        """Give the counts at `scale`; below about 0.01 some stay at their minimum."""
        users = max(100, round(_FULL.users * scale))
        items = max(60, round(_FULL.items * scale))
        return cls(
            users=users,
            items=items,
            categories=max(10, round(_FULL.categories * scale)),
            reviews=max(8 * users, round(_FULL.reviews * scale)),
            meta_lines=max(items * 2, round(META_LINES * scale)),
        )


def stream(recipe: AmazonRecipe, category: str, purpose: str) -> np.random.Generator:
    """Make a random stream that depends on the seed, the category and the purpose only."""
    name = zlib.crc32(f"{category}/{purpose}".encode())
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([recipe.seed, name])))
