"""Who reviews what and when in the synthetic Amazon data: the planted law, drawn with NumPy.

The law, for each review of a user after the first one (the target), given the user's past:

1. A past behaviour is chosen among the latest K (`window`): the one at target-relative position p
   (1 is the newest) with probability proportional to exp(-position_decay * (p - 1)).
2. With probability repeat * exp(-interval_decay * interval / interval_scale), where `interval` is
   the time from that behaviour to the target, the target takes that behaviour's category.
3. Otherwise the target's category is drawn from the popularity law: category of rank r with weight
   (r + 8) ** -category_exponent, rounded to whole items. It is proportional to the category's
   number of items, so that a negative drawn uniformly over items follows the same law and the
   category alone tells nothing.
4. The item is drawn within the category by a log-logistic popularity (`item_skew`); an item that
   the user has reviewed before gives way to the next one of the category. Where the user has
   reviewed all of them, the category is drawn anew from the popularity law.

So `interval_decay=0` leaves a law of positions alone, `position_decay=0` (with the interval's decay
kept) a law of intervals alone, `repeat=0` no correlation at all. A user's first category is the
popularity law in exact shares. At last the few items with fewer than five reviews take some over
from better-known items of the same category, so no category changes.

Amazon's times are days, and readers order a day's reviews as the file does: by asin. To keep the
drawn order, asins are given out so that an item's place in the asin order is its place in its
category's popularity scale, and a day's items are drawn at ascending places of that scale.
Only neighbours in small categories can still swap.

The idea that such a correlation exists, by position and by interval, is that of the TIN paper's
section 2; the law and its numbers are ours.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.synthetic.recipe import CORE, AmazonRecipe, AmazonSizes, stream
from pipeline.synthetic.shelf import Shelf, lift_rare_items, log_logistic
from schemas.arrays import Floats, Int64s

Progress = Callable[[str, int, int], None]

LAW = {
    "1 choice": "For each review of a user after the first (the target) one of the user's latest "
    "`window` earlier reviews is chosen, the one at target-relative position p (1 is the newest) "
    "with probability proportional to exp(-position_decay * (p - 1)).",
    "2 repeat": "With probability repeat * exp(-interval_decay * interval / interval_scale), where "
    "interval is the time from that review to the target and interval_scale is "
    "`interval_scale_days` days, the target takes its category.",
    "3 otherwise": "Otherwise the target's category is drawn with probability proportional to the "
    "category's number of items, which follows (rank + 8) ** -category_exponent. So it is where "
    "the user has reviewed every item of the category that step 2 or 3 gave.",
    "4 item": "The item is drawn in the category with weights (v / (1 - v)) ** item_skew, v "
    "uniform and fixed for each item; one that the user has reviewed gives way to the next one.",
    "5 first review": "The first categories of all users together follow the law of step 3 in "
    "exact shares.",
    "6 rare items": "At last items with fewer than 5 reviews take over some of better-known items "
    "of the same category, which changes no category.",
    "order": "Reviews of one user and day are drawn in the order of their asins, but for about 1% "
    "of neighbours, so that the order by time and then by line in the file is the drawn one.",
}

_EPOCH = dt.date(1970, 1, 1)
_FIRST_DAY = (dt.date(1999, 6, 13) - _EPOCH).days
_LAST_DAY = (dt.date(2014, 7, 23) - _EPOCH).days
# Tail of the history lengths: at scale 1 the longest is within a few reviews of the real 431.
_LENGTH_TAIL = 3.437
_MEAN_AGE_DAYS = 420.0
_MEDIAN_SPAN_DAYS = 450.0


@dataclass(frozen=True)
class Draw:
    """The drawn reviews, user by user, each user's oldest first.

    Legend: U users, N reviews, I items. Users come by falling length of their history.

    Attributes:
        first: int64 [U + 1]; reviews of user u are first[u] .. first[u + 1] - 1.
        day: int64 [N]; days since 1970-01-01, non-decreasing within a user.
        item: int64 [N]; 0-based in ascending order of asin.
        category_of: int64 [I]; category of each item, 0-based.
        copied: int64 [N]; position of the behaviour whose category was repeated, 0 for none.
    """

    first: Int64s
    day: Int64s
    item: Int64s
    category_of: Int64s
    copied: Int64s


def draw_reviews(recipe: AmazonRecipe, category: str, progress: Progress | None = None) -> Draw:
    """Draw every review under the planted law (see the module's text)."""
    sizes = AmazonSizes.of(recipe.scale)
    length = history_lengths(sizes)
    first = np.concatenate([[0], np.cumsum(length)])
    day = _days(first, recipe, stream(recipe, category, "days"))
    shelf = Shelf.stock(sizes, recipe, stream(recipe, category, "items"))
    draws = stream(recipe, category, "law")
    owner = np.repeat(np.arange(sizes.users), length)
    place = _ascending_within_day(draws.random(sizes.reviews), owner, day)

    behaviour_category = np.zeros(sizes.reviews, np.int64)
    item = np.zeros(sizes.reviews, np.int64)
    copied = np.zeros(sizes.reviews, np.int64)
    cumulative = np.cumsum(np.exp(-recipe.position_decay * np.arange(recipe.window)))
    longest = int(length[0])
    for step in range(longest):
        # Users come by falling length, so those with a review at this step are the first ones.
        users = int(np.searchsorted(-length, -step, side="left"))
        target = first[:users] + step
        if step == 0:
            chosen = draws.permutation(np.repeat(np.arange(sizes.categories), shelf.quota(users)))
        else:
            within = min(step, recipe.window)
            u = draws.random(users) * cumulative[within - 1]
            position = np.minimum(np.searchsorted(cumulative[:within], u, "right"), within - 1) + 1
            behaviour = target - position
            interval = (day[target] - day[behaviour]) / recipe.interval_scale_days
            accept = recipe.repeat * np.exp(-recipe.interval_decay * interval)
            repeats = draws.random(users) < accept
            fresh = shelf.draw_category(draws.random(users))
            chosen = np.where(repeats, behaviour_category[behaviour], fresh)
            copied[target] = np.where(repeats, position, 0)
            _leave_exhausted(chosen, target, step, behaviour_category, copied, shelf, draws)
        behaviour_category[target] = chosen
        item[target] = _unseen(shelf, chosen, place[target], target, step, item)
        if progress is not None:
            progress("draw", int(length.clip(max=step + 1).sum()), sizes.reviews)

    for least in (1, CORE):
        lift_rare_items(item, owner, shelf, least, stream(recipe, category, f"lift {least}"))
    return Draw(first, day, shelf.asin_order[item], shelf.category_by_asin(), copied)


def history_lengths(sizes: AmazonSizes) -> Int64s:
    """Lay out the reviews of each user, int64 [U], falling: 5 and a power-law tail, summing up."""
    extra = sizes.reviews - CORE * sizes.users
    quantile = (np.arange(sizes.users) + 0.5) / sizes.users
    shape = quantile ** (-1 / _LENGTH_TAIL) - 1
    most = sizes.items // 3 - CORE

    def tail(width: float) -> Int64s:
        return np.minimum(np.floor(width * shape), most).astype(np.int64)

    low, high = 0.0, 1e4
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if tail(middle).sum() <= extra else (low, middle)
    lengths = CORE + tail(low)
    lengths[::-1][: sizes.reviews - int(lengths.sum())] += 1
    return np.sort(lengths)[::-1].copy()


def _days(first: Int64s, recipe: AmazonRecipe, draws: np.random.Generator) -> Int64s:
    """Day of each review: growing density to 2014, heavy-tailed gaps, many on one day."""
    users, reviews = len(first) - 1, int(first[-1])
    length = np.diff(first)
    room = float(_LAST_DAY - _FIRST_DAY)
    age = -np.log1p(-draws.random(users)) * _MEAN_AGE_DAYS
    # x * room / (x + room) bends a time into the room there is, without heaping up at its end.
    age = age * room / (age + room)
    span = log_logistic(draws.random(users), 0.6) * _MEDIAN_SPAN_DAYS * (length / 8) ** 0.3
    room_left = room - age
    span = span * room_left / (span + room_left)

    gap = log_logistic(draws.random(reviews), 1.0)
    if recipe.same_day > 0:
        stays = draws.random(users) ** (1 / recipe.same_day - 1)
        gap[draws.random(reviews) < np.repeat(stays, length)] = 0.0
    gap[first[:-1]] = 0.0
    passed = np.cumsum(gap)
    passed -= np.repeat(passed[first[:-1]], length)
    total = passed[first[1:] - 1]
    share = passed / np.repeat(np.where(total > 0, total, 1.0), length)
    start = _LAST_DAY - age - span
    days = np.floor(np.repeat(start, length) + share * np.repeat(span, length)).astype(np.int64)
    return np.asarray(np.clip(days, _FIRST_DAY, _LAST_DAY))


def _ascending_within_day(u: Floats, owner: Int64s, day: Int64s) -> Floats:
    """Reorder the draws [N] so that those of one user and day ascend."""
    return np.asarray(u[np.lexsort((u, day, owner))])


def _leave_exhausted(
    chosen: Int64s,
    target: Int64s,
    step: int,
    behaviour_category: Int64s,
    copied: Int64s,
    shelf: Shelf,
    draws: np.random.Generator,
) -> None:
    """Draw anew, in place, the category of each user who has reviewed every item of it.

    It ends, since no history is longer than a third of the items.
    """
    ask = np.flatnonzero(shelf.size[chosen] <= step)
    while len(ask):
        past = behaviour_category[target[ask, None] - np.arange(1, step + 1)]
        used = (past == chosen[ask, None]).sum(axis=1)
        ask = ask[used >= shelf.size[chosen[ask]]]
        chosen[ask] = shelf.draw_category(draws.random(len(ask)))
        copied[target[ask]] = 0


def _unseen(
    shelf: Shelf, chosen: Int64s, place: Floats, target: Int64s, step: int, item: Int64s
) -> Int64s:
    """Take the item at `place` of each category, or the next that the user has not reviewed."""
    found = shelf.draw_item(chosen, place)
    ask = np.arange(len(found)) if step else np.zeros(0, np.int64)
    while len(ask):
        past = item[target[ask, None] - np.arange(1, step + 1)]
        ask = ask[(past == found[ask, None]).any(axis=1)]
        found[ask] = shelf.next_item(found[ask], chosen[ask])
    return found
