"""The Taobao display-ad log (tianchi 56): its tables, its days."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from math import fsum, sqrt
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from pipeline.config import AlibabaConfig
from pipeline.sources.alibaba_columns import PROFILE_FIELDS
from pipeline.split import Days
from schemas.errors import InputError
from schemas.expected import ALIBABA_COUNTS
from schemas.manifest import Share

FIELDS = ("category", "brand")
AD_FEATURES = ("ad", "campaign", "customer")
FEATURES = (*AD_FEATURES, "pid", *PROFILE_FIELDS)

NO_AD = "ad is not in ad_feature"

# DSIN's sample of users: the seed in its released preprocessing.
_SAMPLE_SEED = 1024
_DAYS_BEFORE = 3
# Logarithms this close are of one price: a deviation made of them would be their rounding.
_ONE_PRICE = 1e-9


def sampled_users(profiles: pl.Series, fraction: float) -> npt.NDArray[np.int64] | None:
    """The users that DSIN's sample of the profiles holds; None for all users, profile or not.

    DSIN samples the rows of user_profile with pandas and seed 1024, which is this call.

    Args:
        profiles: (profiles,) users in the file's order.
        fraction: share of them.
    """
    if fraction == 1:
        return None
    rows = len(profiles)
    chosen = np.random.RandomState(_SAMPLE_SEED).choice(
        rows, size=round(fraction * rows), replace=False
    )
    return np.unique(profiles.to_numpy()[chosen])


def days(config: AlibabaConfig, first: int, last: int) -> Days:
    """Where the splits meet.

    Args:
        config: `split_at` and `timezone`.
        first: second of the first impression.
        last: second of the last one.
    """
    if config.split_at is not None:
        return Days(config.split_at, config.split_at)
    zone = ZoneInfo(config.timezone)
    test = _day(last, zone)
    return Days(_midnight(test - timedelta(days=1), zone), _midnight(test, zone))


def require_train(config: AlibabaConfig, days: Days, first: int, last: int, path: Path) -> None:
    """Refuse a log without an impression to train on; `first` and `last` as in `days`.

    Raises:
        InputError: there is none before where train ends.
    """
    if first < days.valid:
        return
    zone = ZoneInfo(config.timezone)
    span = (_day(last, zone) - _day(first, zone)).days + 1
    # A day for train and one for test, else most of the time for train.
    at = days.test if first < days.test else first + (last - first) * 4 // 5 + 1
    choice = f"--split-at {at}" if first < at <= last else "a longer log"
    if config.split_at is not None:
        expected = f"--split-at a second after the first impression's, {first}"
        do = f"give a second from {first + 1} to {last}, e.g. {choice}, or leave --split-at out"
    else:
        expected = (
            "impressions of three days or more: the last is for test, the one before for valid"
        )
        do = f"give a longer log, or {choice} for one without valid"
    raise InputError(
        "There is nothing to train on: no impression is early enough.",
        where=path,
        expected=expected,
        got=f"impressions of {span} day{'s' * (span > 1)}, from {_told(first, zone)} to "
        f"{_told(last, zone)}, {config.timezone}",
        do=do,
    )


def without(ads: pl.DataFrame, columns: tuple[str, ...]) -> dict[str, Share]:
    """How many ads lack each of some values; of an ad with several lines the first counts."""
    first = ads.unique("ad", keep="first", maintain_order=True)
    return {f"ads without a {n}": Share(first[n].null_count(), first.height) for n in columns}


def without_profile(users: pa.Table, profiles: pl.Series) -> int:
    """How many impressions are of users without a profile; `users` is their vocabulary."""
    unknown = ~pl.col("value").is_in(profiles.unique().implode())
    return int(pl.DataFrame(users).filter(unknown)["count"].sum())


def since(config: AlibabaConfig, first: int) -> int:
    """The second from which on behaviours count; `first` is the first impression's."""
    if config.behaviors_since == "all":
        return 1
    if config.behaviors_since != "default":
        return max(1, int(config.behaviors_since))
    zone = ZoneInfo(config.timezone)
    return max(1, _midnight(_day(first, zone) - timedelta(days=_DAYS_BEFORE), zone))


def bounds(config: AlibabaConfig, days: Days, since: int) -> list[str]:
    """Where the splits meet and from when behaviours count, for people."""
    valid, test, begin = (
        _told(s, ZoneInfo(config.timezone)) for s in (days.valid, days.test, since)
    )
    first = f"Valid begins at {valid}, test" if days.valid < days.test else "Test begins"
    return [f"{first} at {test}; behaviours count from {begin} on; {config.timezone}."]


def _told(second: int, zone: ZoneInfo) -> str:
    return f"{datetime.fromtimestamp(second, zone):%Y-%m-%d %H:%M:%S} ({second})"


def _day(second: int, zone: ZoneInfo) -> date:
    return datetime.fromtimestamp(second, zone).date()


def _midnight(day: date, zone: ZoneInfo) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp())


def price_numbers(
    price: npt.NDArray[np.float64], shown: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
    """Prices standardised by their statistics over the train impressions, and those.

    Prices run from 0.01 to 1e8, so it is their natural logarithm that is standardised: no single
    price then decides the scale, and none has to be cut off. A price that is missing, or not above
    0, becomes 0, the mean. Sums are exact, so that no order of the rows can change a digit.

    Args:
        price: (ads,) NaN where there is none.
        shown: (ads,) train impressions of each ad.
    """
    usable = price > 0
    log = np.zeros(len(price))
    log[usable] = np.log(price[usable])
    weight = np.where(usable, shown, 0)
    total = int(weight.sum())
    mean = fsum((log * weight).tolist()) / total if total else 0.0
    variance = fsum(((log - mean) ** 2 * weight).tolist()) / total if total else 0.0
    shown_logs = log[weight > 0]
    differ = len(shown_logs) > 0 and np.ptp(shown_logs) > _ONE_PRICE
    std = sqrt(variance) if differ else 1.0
    standard = np.where(usable, (log - mean) / std, 0.0).astype(np.float32)
    how = {"of": "natural logarithm", "mean": mean, "std": std, "train_rows": total}
    return standard, how


def notes(read: dict[str, int]) -> list[str]:
    """Where the line counts of real files differ from the published ones.

    Args:
        read: file -> data lines.
    """
    differ = [
        f"{name} has {lines:,} lines, the published one {ALIBABA_COUNTS[name]:,}"
        for name, lines in read.items()
        if lines != ALIBABA_COUNTS[name]
    ]
    return [f"Not the published files: {'; '.join(differ)}."] if differ else []
