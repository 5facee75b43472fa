"""When a synthetic Taobao impression is clicked: the planted law, as pure functions.

The log odds of a click are `base` plus, for each of the user's latest `window` page views (`pv`)
strictly before the impression, at target-relative position p (1 is the newest) and `interval`
seconds away,

    (category_gain * [its category is the target's] + brand_gain * [its brand is the target's])
      * exp(-position_decay * (p - 1)) * exp(-interval_decay * interval / interval_scale_s)

Page views of one second are ordered by category, then brand (as numbers), the oldest first. An ad
without a brand matches no brand. Nothing else tells a click: not the user, the ad, the hour.

The idea that such a correlation exists, by position and by interval, is that of the TIN paper's
section 2; the law and its numbers are ours.
"""

from __future__ import annotations

import numpy as np

from pipeline.synthetic.alibaba_recipe import AlibabaRecipe
from schemas.arrays import Bools, Floats, Int64s

LAW = {
    "1 history": "Of each impression the user's latest `window` behaviours with btag pv and a time "
    "strictly before it count, ordered by time, category, brand; the newest has position p = 1.",
    "2 gain": "Each one adds (category_gain if its category is the target's, plus brand_gain if "
    "its brand is the target's) * exp(-position_decay * (p - 1)) * "
    "exp(-interval_decay * interval / interval_scale_s) to the log odds, interval in seconds.",
    "3 click": "The impression is clicked with probability 1 / (1 + exp(-log odds)), where the log "
    "odds are base_log_odds plus all gains. base_log_odds makes `click_rate` the expected rate.",
    "4 target": "With probability `retarget` the ad is of the category of one of the latest "
    "`window` such behaviours, each as likely, if that category has ads; otherwise its category is "
    "drawn by popularity, (rank + 8) ** -category_exponent, among those that have ads.",
}


def gain(
    recipe: AlibabaRecipe,
    position: Int64s,
    interval: Int64s,
    same_category: Bools,
    same_brand: Bools,
) -> Floats:
    """What each behaviour adds to the log odds of a click.

    Args:
        position: target-relative position of each behaviour, 1 for the newest; any shape.
        interval: seconds from the behaviour to the impression, in a shape that goes with it.
        same_category: whether its category is the target's.
        same_brand: whether its brand is the target's.

    Returns:
        float64 of the common shape; 0 where neither is the same.
    """
    match = recipe.category_gain * same_category + recipe.brand_gain * same_brand
    fall = recipe.position_decay * (position - 1.0)
    fall = fall + recipe.interval_decay * (interval / recipe.interval_scale_s)
    return np.asarray(match * np.exp(-fall))


def click_log_odds(
    recipe: AlibabaRecipe, base: float, interval: Int64s, same_category: Bools, same_brand: Bools
) -> Floats:
    """Log odds of a click of N impressions with histories of P behaviours.

    Args:
        recipe: the law's knobs; behaviours beyond its `window` count for nothing.
        base: log odds without any gain, `base_log_odds` in the data's SYNTHETIC.json.
        interval: int64 [N, P], seconds; column p - 1 holds position p, the newest behaviour first.
        same_category: bool [N, P]; False where there is no behaviour.
        same_brand: bool [N, P]; False where there is no behaviour.

    Returns:
        float64 [N].
    """
    seen = min(recipe.window, interval.shape[1])
    position = np.arange(1, seen + 1)
    every = gain(
        recipe, position, interval[:, :seen], same_category[:, :seen], same_brand[:, :seen]
    )
    return np.asarray(base + every.sum(axis=1))


def click_probability(log_odds: Floats) -> Floats:
    """Turn log odds into probabilities without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * log_odds)))


def fit_base(gains: Floats, rate: float) -> float:
    """Find the base log odds at which impressions with these summed gains [N] average `rate`."""
    low, high = -50.0 - float(gains.max(initial=0.0)), 50.0
    for _ in range(100):
        middle = (low + high) / 2
        below = click_probability(middle + gains).mean() < rate
        low, high = (middle, high) if below else (low, middle)
    return round(low, 6)
