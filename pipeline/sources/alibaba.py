"""The Taobao display-ad log (tianchi 56): its files, its tables, its days."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from math import fsum, sqrt
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.config import AlibabaConfig
from pipeline.sources.alibaba_columns import PROFILE_FIELDS
from pipeline.split import Days
from schemas.errors import EnvironmentFault, InputError
from schemas.expected import ALIBABA_COUNTS

NAMES = ("raw_sample.csv", "ad_feature.csv", "user_profile.csv", "behavior_log.csv")
FIELDS = ("category", "brand")
AD_FEATURES = ("ad", "campaign", "customer")
FEATURES = (*AD_FEATURES, "pid", *PROFILE_FIELDS)
KAGGLE = "pavansanagapati/ad-displayclick-data-on-taobaocom"
HOME = "https://tianchi.aliyun.com/dataset/56"

NO_AD = "ad is not in ad_feature"
REPEATED_AD = "ad_feature line of an ad that had one"
REPEATED_PROFILE = "user_profile line of a user that had one"

# DSIN's sample of users: the seed in its released preprocessing.
_SAMPLE_SEED = 1024
_DAYS_BEFORE = 3


def folder(config: AlibabaConfig) -> Path:
    """Where the raw files are."""
    return config.raw or Path("data/raw/alibaba")


def obtain(config: AlibabaConfig) -> list[Path]:
    """Paths of the four raw files, plain or gzipped, in the order of `NAMES`.

    Without `--raw`, files in `data/raw/alibaba` are used, else they are had through kagglehub,
    where that is installed: the data set's home wants an account.

    Raises:
        InputError: files are missing, and cannot be had.
        EnvironmentFault: a download failed.
    """
    at = folder(config)
    found = _found(at)
    if config.raw is None and any(path is None for path in found) and (came := _kaggle()):
        at, found = came, _found(came)
    absent = [name for name, path in zip(NAMES, found, strict=True) if path is None]
    if not absent:
        return [path for path in found if path is not None]
    given = "" if config.raw is None else f" --raw {config.raw}"
    raise InputError(
        "Raw files are missing." if at.is_dir() else "The folder of raw files does not exist.",
        where=at,
        expected=", ".join(NAMES) + " (each may be gzipped: .csv.gz)",
        got=f"no {', '.join(absent)}",
        do=f"download data set 56 from {HOME} (it wants a free account), unpack the four files "
        f"into {at}, and run `tinprep alibaba{given} --out {config.out}`; or, with an account "
        "at Kaggle, `pip install 'tinprep[kaggle]'` and run it again without --raw",
    )


def _found(at: Path) -> list[Path | None]:
    both = ([at / name, at / f"{name}.gz"] for name in NAMES)
    return [next((path for path in paths if path.is_file()), None) for paths in both]


def _kaggle() -> Path | None:
    """The folder that kagglehub has the data set in; None where it is not installed."""
    try:
        import kagglehub
    except ImportError:
        return None
    try:
        return Path(kagglehub.dataset_download(KAGGLE))
    except Exception as error:  # whatever it is, it is not ours
        raise EnvironmentFault(
            "The data set could not be had through kagglehub.",
            where=KAGGLE,
            got=f"{type(error).__name__}: {str(error)[:300]}",
            do=f"see to the network and the account, or put {', '.join(NAMES)} into a folder "
            "and name it with --raw",
        ) from error


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
    zone = ZoneInfo(config.timezone)

    def told(second: int) -> str:
        return f"{datetime.fromtimestamp(second, zone):%Y-%m-%d %H:%M:%S} ({second})"

    valid = f"Valid begins at {told(days.valid)}, test" if days.valid < days.test else "Test begins"
    later = f"behaviours count from {told(since)} on; {config.timezone}."
    return [f"{valid} at {told(days.test)}; {later}"]


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
    # Of a single price, only rounding errors could make a deviation.
    differ = len(np.unique(log[weight > 0])) > 1
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
