"""The items of the synthetic Amazon data: how many a category has, and how popular each one is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.synthetic.recipe import AmazonRecipe, AmazonSizes
from schemas.arrays import Floats, Int64s

_RANK_SHIFT = 8.0


@dataclass(frozen=True)
class Shelf:
    """The items of each category: those of category c are start[c] .. start[c + 1] - 1.

    `reach[i]` is c plus the share of category c's popularity up to and with item i, so that one
    search over all items answers a draw in any category. `asin_order[i]` is the item's rank by
    asin.
    """

    start: Int64s
    reach: Floats
    asin_order: Int64s

    @classmethod
    def stock(cls, sizes: AmazonSizes, recipe: AmazonRecipe, draws: np.random.Generator) -> Shelf:
        """Make the categories and items of a recipe."""
        rank = np.arange(1, sizes.categories + 1)
        weight = (rank + _RANK_SHIFT) ** -recipe.category_exponent
        ideal = (sizes.items - sizes.categories) * weight / weight.sum()
        size = 1 + apportion(ideal, sizes.items - sizes.categories)
        start = np.concatenate([[0], np.cumsum(size)])
        popularity = log_logistic(draws.random(sizes.items), recipe.item_skew)
        reach = np.zeros(sizes.items)
        for c, (lo, hi) in enumerate(zip(start[:-1].tolist(), start[1:].tolist(), strict=True)):
            part = np.cumsum(popularity[lo:hi])
            reach[lo:hi] = c + part / part[-1]
        owner = np.repeat(np.arange(sizes.categories), size)
        before = np.concatenate([[0.0], reach[:-1]])
        before[start[:-1]] = np.arange(sizes.categories)
        middle = (before + reach) / 2 - owner
        order = np.empty(sizes.items, np.int64)
        order[np.argsort(middle, kind="stable")] = np.arange(sizes.items)
        return cls(start, reach, order)

    @property
    def size(self) -> Int64s:
        """int64 [C]: items of each category."""
        return np.diff(self.start)

    def quota(self, users: int) -> Int64s:
        """int64 [C]: `users` shared out by popularity, each category at least its items."""
        return apportion(users * self.size / self.start[-1], users)

    def draw_category(self, u: Floats) -> Int64s:
        """Draw a category by popularity, which is its share of all items, for each uniform draw."""
        return np.asarray(np.searchsorted(self.start[1:], np.floor(u * self.start[-1]), "right"))

    def draw_item(self, category: Int64s, u: Floats) -> Int64s:
        """Draw an item of each category by popularity within it."""
        found = np.searchsorted(self.reach, category + u, "right")
        return np.clip(found, self.start[category], self.start[category + 1] - 1)

    def next_item(self, item: Int64s, category: Int64s) -> Int64s:
        """Take the item after each one in its category, the first after the last."""
        after = item + 1
        return np.where(after == self.start[category + 1], self.start[category], after)

    def category_by_asin(self) -> Int64s:
        """int64 [I]: category of each item, items by asin."""
        result = np.empty(len(self.asin_order), np.int64)
        result[self.asin_order] = np.repeat(np.arange(len(self.size)), self.size)
        return result


def apportion(ideal: Floats, total: int) -> Int64s:
    """Whole numbers next to `ideal` with an exact sum: the largest remainders get one more."""
    whole = np.floor(ideal).astype(np.int64)
    by_remainder = np.argsort(-(ideal - whole), kind="stable")
    whole[by_remainder[: total - int(whole.sum())]] += 1
    return whole


def log_logistic(u: Floats, spread: float) -> Floats:
    """Uniform draws turned into positive ones with median 1 and a power-law tail."""
    u = np.clip(u, 1e-12, 1 - 1e-12)
    return np.asarray((u / (1 - u)) ** spread)


def lift_rare_items(
    item: Int64s, owner: Int64s, shelf: Shelf, least: int, draws: np.random.Generator
) -> None:
    """Give each item `least` reviews, in place, out of those of its category's better-known items.

    With `least` 1 it always succeeds: the first behaviours alone give a category as many reviews
    as it has items.
    """
    count = np.bincount(item, minlength=len(shelf.reach))
    rare = np.flatnonzero(count < least)
    if not len(rare):
        return
    category = np.searchsorted(shelf.start, rare, "right") - 1
    by_item = np.argsort(item, kind="stable")
    edge = np.concatenate([[0], np.cumsum(count)])
    for c in np.unique(category).tolist():
        reviews = by_item[edge[shelf.start[c]] : edge[shelf.start[c + 1]]]
        givers = iter(draws.permutation(reviews).tolist())
        reviewers: dict[int, set[int]] = {}
        for to in rare[category == c].tolist():
            reviewers[to] = set(owner[by_item[edge[to] : edge[to + 1]]].tolist())
        for to, known in reviewers.items():
            while count[to] < least:
                giver = next(givers, None)
                if giver is None:
                    break
                user, old = int(owner[giver]), int(item[giver])
                if count[old] > least and user not in known:
                    item[giver] = to
                    known.add(user)
                    count[old] -= 1
                    count[to] += 1
