"""What the synthetic Amazon data is made from: its recipe, its sizes and its random streams."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np

from pipeline.synthetic.folder import check_ranges, knob
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

    scale: float = knob(1.0, lambda v: 0 < v <= 50, "above 0, at most 50")
    seed: int = knob(0, lambda v: 0 <= v < 2**63, "a whole number from 0 to 2**63 - 1")
    position_decay: float = knob(1.0, lambda v: 0 <= v <= 100, "from 0 to 100")
    interval_decay: float = knob(1.0, lambda v: 0 <= v <= 1e6, "from 0 to 1e6")
    interval_scale_days: float = knob(365.0, lambda v: 0 < v < math.inf, "above 0")
    repeat: float = knob(0.9, lambda v: 0 <= v <= 1, "from 0 to 1")
    window: int = knob(20, lambda v: 1 <= v <= 1000, "from 1 to 1000")
    category_exponent: float = knob(1.5, lambda v: 0 <= v <= 3, "from 0 to 3")
    item_skew: float = knob(0.35, lambda v: 0 <= v <= 0.8, "from 0 to 0.8")
    same_day: float = knob(0.33, lambda v: 0 <= v <= 0.9, "from 0 to 0.9")

    def __post_init__(self) -> None:
        check_ranges(self)


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
