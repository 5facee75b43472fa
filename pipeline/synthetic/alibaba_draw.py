"""What the synthetic Taobao users do: one block of users at a time, drawn with NumPy.

A user's behaviours come in bursts: sessions start by the clock of the day, and within one the gaps
are seconds to minutes. Categories come in short runs, mostly of the user's few favourites, brands
by their popularity within the category. Most impressions follow shortly after a behaviour.
Each block has its own random streams, so blocks can be drawn in any order or at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.synthetic.alibaba_law import gain
from pipeline.synthetic.alibaba_market import Market, People
from pipeline.synthetic.alibaba_recipe import (
    DAY_S,
    FIRST_BEHAVIOUR_S,
    FIRST_IMPRESSION_S,
    KINDS,
    LAST_BEHAVIOUR_S,
    LAST_IMPRESSION_S,
    AlibabaRecipe,
    stream,
)
from schemas.arrays import Floats, Int32s, Int64s

Bytes = npt.NDArray[np.uint8]

# A sort key is the user's place in the block, then this many bits of seconds since the first day.
_TIME_BITS = 21
_TIME_MASK = (1 << _TIME_BITS) - 1
_SPAN_S = LAST_BEHAVIOUR_S - FIRST_BEHAVIOUR_S
_PV = list(KINDS).index("pv")

_U16 = 1 << 16
# Share of activity in each hour of a Beijing day, before normalising.
_HOURS = np.array(
    [30, 16, 8, 5, 4, 6, 14, 26, 38, 46, 52, 50, 52, 54, 52, 52, 52, 50, 50, 58, 72, 84, 80, 54]
)
_HOUR_EDGES = np.concatenate([[0.0], np.cumsum(_HOURS) / _HOURS.sum()])
# Tables over 16-bit draws: seconds between two behaviours of a session (log-logistic, median 18),
# the kind of a behaviour, and the place of a brand within its category.
_UNIT = (np.arange(_U16) + 0.5) / _U16
_GAP_S = np.clip(18 * (_UNIT / (1 - _UNIT)) ** 0.6, 0, 1500).astype(np.int32)
_KIND = np.searchsorted(
    np.cumsum(list(KINDS.values())) / sum(KINDS.values()), _UNIT, "right"
).astype(np.uint8)
_PLACE = (_UNIT**5).astype(np.float32)

_SAME_BRAND = round(0.4 * _U16)
_FAVOURITES, _FROM_FAVOURITES = 6, 0.65
_AFTER_BEHAVIOUR, _SAME_SECOND = 0.45, 0.05
_CELLS = 1_000_000  # behaviours of impressions compared at a time


@dataclass(frozen=True)
class Block:
    """The lines of some users, in no order. Legend: N behaviours, I impressions.

    Attributes:
        user: int32 [N].
        time: int32 [N]; unix seconds.
        kind: uint8 [N]; index into `KINDS`.
        category: int32 [N].
        brand: int32 [N].
        impression_user: int32 [I].
        impression_time: int32 [I].
        ad: int64 [I]; inner number of the ad, a row of `Market.ads`.
        gains: float64 [I]; the law's gains, summed.
        luck: float64 [I]; uniform: clicked where it is below the probability of a click.
        known: bool [I]; whether the target's category is among the latest `window` page views.
    """

    user: Int32s
    time: Int32s
    kind: Bytes
    category: Int32s
    brand: Int32s
    impression_user: Int32s
    impression_time: Int32s
    ad: Int64s
    gains: Floats
    luck: Floats
    known: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Behaviours:
    """Behaviours by user, time, category, brand, kind; categories are inner numbers."""

    key: Int64s
    kind: Bytes
    category: Int32s
    brand: Int32s


def draw_block(
    recipe: AlibabaRecipe, market: Market, people: People, bounds: Int64s, k: int
) -> Block:
    """Draw all lines of the users bounds[k] .. bounds[k + 1] - 1 of `people`."""
    users = slice(int(bounds[k]), int(bounds[k + 1]))
    user = people.user[users]
    draws = stream(recipe, "behaviours", k)
    behaviours = _draw_behaviours(recipe, market, people.behaviours[users], draws)
    shuffled = draws.permutation(len(behaviours.key))
    key = behaviours.key[shuffled]

    draws = stream(recipe, "impressions", k)
    views = np.flatnonzero(behaviours.kind == _PV)
    past = _Behaviours(
        behaviours.key[views],
        behaviours.kind[views],
        behaviours.category[views],
        behaviours.brand[views],
    )
    owner = np.repeat(np.arange(len(user)), people.impressions[users])
    owner = owner[draws.permutation(len(owner))]
    seconds = _impression_seconds(owner, past.key, len(user), draws)
    before = np.searchsorted(past.key, (owner << _TIME_BITS) | seconds, "left")
    first = np.searchsorted(past.key, np.arange(len(user)) << _TIME_BITS, "left")
    depth = np.minimum(before - first[owner], recipe.window)
    category, ad = _targets(recipe, market, past, before, depth, draws)
    gains, known = _sum_gains(recipe, past, before, depth, seconds, category, market.ad_brand[ad])
    return Block(
        user=user[key >> _TIME_BITS],
        time=((key & _TIME_MASK) + FIRST_BEHAVIOUR_S).astype(np.int32),
        kind=behaviours.kind[shuffled],
        category=market.category_id[behaviours.category[shuffled]],
        brand=behaviours.brand[shuffled],
        impression_user=user[owner],
        impression_time=(seconds + FIRST_BEHAVIOUR_S).astype(np.int32),
        ad=ad,
        gains=gains,
        luck=draws.random(len(owner)),
        known=known,
    )


def _clock(u: Floats, days: int) -> Int64s:
    """Uniform draws turned into seconds within `days` days, by the hours' shares."""
    day, part = np.divmod(u * days, 1.0)
    seconds = np.interp(part, _HOUR_EDGES, np.arange(25) * (DAY_S / 24))
    return np.asarray((day * DAY_S + seconds).astype(np.int64))


def _sixteen_bits(draws: np.random.Generator, count: int) -> npt.NDArray[np.uint16]:
    return draws.integers(0, _U16, count, dtype=np.uint16)


def _draw_keys(count: Int64s, draws: np.random.Generator) -> Int64s:
    """Sorted keys of the behaviours of users that have `count` [U] each."""
    total = int(count.sum())
    owner = np.repeat(np.arange(len(count)), count)
    # Who does more has longer sessions, not only more of them.
    opens = (_U16 / (4 + 0.5 * np.sqrt(count))).astype(np.uint16)
    fresh = _sixteen_bits(draws, total) < np.repeat(opens, count)
    fresh[(np.cumsum(count) - count)[count > 0]] = True
    session = np.cumsum(fresh) - 1
    gap = _GAP_S[_sixteen_bits(draws, total)]
    passed = np.cumsum(gap, dtype=np.int64)
    heads = np.flatnonzero(fresh)
    start = _clock(draws.random(len(heads)), (_SPAN_S + 1) // DAY_S) - passed[heads]
    seconds = passed + start[session]
    # What would fall behind the log's end is folded back into it.
    late = seconds > _SPAN_S
    seconds[late] = np.maximum(2 * _SPAN_S - seconds[late], 0)
    key: Int64s = (owner << _TIME_BITS) | seconds
    key.sort()
    return key


def _draw_behaviours(
    recipe: AlibabaRecipe, market: Market, count: Int64s, draws: np.random.Generator
) -> _Behaviours:
    key = _draw_keys(count, draws)
    total = len(key)
    fresh = _sixteen_bits(draws, total) < round(recipe.new_run * _U16)
    fresh[(np.cumsum(count) - count)[count > 0]] = True
    run = np.cumsum(fresh) - 1
    heads = np.flatnonzero(fresh)
    table = len(market.popular)
    favourite = market.popular[draws.integers(0, table, (len(count), _FAVOURITES))]
    which = (_FAVOURITES * draws.random(len(heads)) ** 1.5).astype(np.int64)
    liked = favourite[key[heads] >> _TIME_BITS, which]
    other = market.popular[draws.integers(0, table, len(heads))]
    run_category = np.where(draws.random(len(heads)) < _FROM_FAVOURITES, liked, other)
    category = run_category[run]
    stays = _sixteen_bits(draws, total) < _SAME_BRAND
    place = np.where(stays, _sixteen_bits(draws, len(heads))[run], _sixteen_bits(draws, total))
    offset = (market.brand_size[category] * _PLACE[place]).astype(np.int32)
    brand = market.brand_id[market.brand_start[category] + offset]
    kind = _KIND[_sixteen_bits(draws, total)]

    copies = np.flatnonzero(draws.random(total, dtype=np.float32) < recipe.duplicates)
    copies = copies[copies > 0]
    # A copy of a copy would need an order; the user must be the same one.
    copies = copies[key[copies] >> _TIME_BITS == key[copies - 1] >> _TIME_BITS]
    copies = copies[np.diff(copies, prepend=-1) > 1]
    for column in (key, category, brand, kind):
        column[copies] = column[copies - 1]
    _order_ties(key, category, market.category_id, brand, kind)
    return _Behaviours(key, kind, category, brand)


def _order_ties(
    key: Int64s, category: Int32s, category_id: Int32s, brand: Int32s, kind: Bytes
) -> None:
    """Order behaviours of one user and second by category, brand and kind, in place."""
    same = key[1:] == key[:-1]
    tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
    order = tied[np.lexsort((kind[tied], brand[tied], category_id[category[tied]], key[tied]))]
    for column in (category, brand, kind):
        column[tied] = column[order]


def _impression_seconds(
    owner: Int64s, viewed: Int64s, users: int, draws: np.random.Generator
) -> Int64s:
    """Time of each impression [I]: shortly after a page view, or any by the clock of the day."""
    begin, end = FIRST_IMPRESSION_S - FIRST_BEHAVIOUR_S, LAST_IMPRESSION_S - FIRST_BEHAVIOUR_S
    low = np.searchsorted(viewed, (np.arange(users) << _TIME_BITS) | begin, "left")[owner]
    high = np.searchsorted(viewed, np.arange(1, users + 1) << _TIME_BITS, "left")[owner]
    days = -(-(end - begin) // DAY_S)
    seconds = begin + _clock(draws.random(len(owner)), days)
    follows = np.flatnonzero((draws.random(len(owner)) < _AFTER_BEHAVIOUR) & (low < high))
    chosen = low[follows] + draws.random(len(follows)) * (high - low)[follows]
    delay = 1 + draws.exponential(90.0, len(follows))
    seconds[follows] = (viewed[chosen.astype(np.int64)] & _TIME_MASK) + delay.astype(np.int64)
    seconds = np.minimum(seconds, end)
    # Some ads are shown together.
    by_user = np.argsort(owner, kind="stable")
    again = np.flatnonzero(draws.random(len(owner)) < _SAME_SECOND)
    again = again[again > 0]
    again = again[owner[by_user[again]] == owner[by_user[again - 1]]]
    seconds[by_user[again]] = seconds[by_user[again - 1]]
    return seconds


def _targets(
    recipe: AlibabaRecipe,
    market: Market,
    past: _Behaviours,
    before: Int64s,
    depth: Int64s,
    draws: np.random.Generator,
) -> tuple[Int64s, Int64s]:
    """Category and ad of each impression [I]; `before` is where its history ends in `past`."""
    count = len(before)
    category = market.advertised[draws.integers(0, len(market.advertised), count)].astype(np.int64)
    asked = np.flatnonzero((draws.random(count) < recipe.retarget) & (depth > 0))
    back = (draws.random(len(asked)) * depth[asked]).astype(np.int64)
    wanted = past.category[before[asked] - 1 - back]
    ads_in = np.diff(market.ad_start)
    served = ads_in[wanted] > 0
    category[asked[served]] = wanted[served]
    ad = market.ad_start[category] + (ads_in[category] * draws.random(count) ** 2).astype(np.int64)
    return category, ad


def _sum_gains(
    recipe: AlibabaRecipe,
    past: _Behaviours,
    before: Int64s,
    depth: Int64s,
    seconds: Int64s,
    category: Int64s,
    brand: Int32s,
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Sum the law's gains of each impression [I]; say where the category occurs in its history."""
    gains, known = np.zeros(len(before)), np.zeros(len(before), bool)
    position = np.arange(1, recipe.window + 1)
    small = category.astype(np.int32)
    step = max(1, _CELLS // recipe.window)
    for start in range(0, len(before) if len(past.key) else 0, step):
        part = slice(start, start + step)
        cell = np.maximum(before[part, None] - position, 0)
        within = position <= depth[part, None]
        same_category = (past.category[cell] == small[part, None]) & within
        same_brand = (past.brand[cell] == brand[part, None]) & within
        row, column = np.nonzero(same_category | same_brand)
        interval = seconds[part][row] - (past.key[cell[row, column]] & _TIME_MASK)
        each = gain(
            recipe, position[column], interval, same_category[row, column], same_brand[row, column]
        )
        size = len(within)
        gains[part] = np.bincount(row, each, minlength=size)
        known[part] = same_category.any(axis=1)
    return gains, known
