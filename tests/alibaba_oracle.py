"""An independent, slow and obvious account of the Alibaba path, to hold the pipeline against.

It knows the specification and nothing of the pipeline: the csv module, dicts and loops, one
impression at a time, every history and session cut anew from all of the user's behaviours.

Raw files are taken to be sound: what is refused is for other tests. `alibaba_made.py` reads what
was written and compares.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from tests.alibaba_raw import PROFILE, first_of_each, needed, number, raw_rows
from tests.oracle import FIRST, SPLITS, UNKNOWN, interval_bin, quantile_edges, sessions

HISTORY = ("category", "brand", "position", "interval_bin", "time", "session")
ABSENT_AD = "ad is not in ad_feature"
# GAUC needs to know whose an impression is, so a user of few impressions stays himself.
NEVER_RARE = ("user",)


class Behaviour(NamedTuple):
    """A kept behaviour with ids; its fields stand in the order in which behaviours are sorted."""

    time: int
    category: int
    brand: int
    btag: str


@dataclass(frozen=True)
class Expected:
    """What a data set must hold.

    Attributes:
        rows: by `row`: every column of its shard and `split`; histories have `history_length`
            entries, `session_<field>` one list a session, the latest first.
        vocabulary: field -> value -> id, only the values that have one of their own.
        counts: field -> value -> occurrences, of the same values.
        edges: the interval bins' edges in seconds; all 0 where train has no behaviour.
        train_counts: behaviours stored in train in bins 1..bins.
        ads: ad id -> (category, brand, campaign, customer, price).
        profiles: user id -> the eight fields, for users with impressions.
        price: mean and standard deviation of ln(price) over the train impressions.
        left_out: what was not kept -> how many.
        repeats: what stands there again -> how many.
        shares: what is missing, or odd -> how many, and of how many.
    """

    rows: dict[int, dict[str, Any]]
    vocabulary: dict[str, dict[Any, int]]
    counts: dict[str, dict[Any, int]]
    edges: list[int]
    train_counts: list[int]
    ads: dict[int, tuple[Any, ...]]
    profiles: dict[int, tuple[int, ...]]
    price: tuple[float, float]
    left_out: dict[str, int]
    repeats: dict[str, int]
    shares: dict[str, tuple[int, int]]

    @property
    def sizes(self) -> dict[str, int]:
        """Rows of each split."""
        counted = Counter(row["split"] for row in self.rows.values())
        return {name: counted[name] for name in SPLITS}


def numbered(counted: Counter[Any], min_count: int) -> dict[Any, int]:
    """value -> id from 2 on, of the values that occur often enough; text sorts by its bytes."""
    often = [value for value, n in counted.items() if value is not None and n >= min_count]
    often.sort(key=lambda value: value.encode() if isinstance(value, str) else value)
    return {value: FIRST + rank for rank, value in enumerate(often)}


def cut(behaviours: Sequence[Behaviour], gap: int) -> list[list[Behaviour]]:
    """Ordered behaviours as sessions, oldest first: a new one after strictly more than `gap`."""
    made: list[list[Behaviour]] = []
    for behaviour in behaviours:
        if made and behaviour.time - made[-1][-1].time <= gap:
            made[-1].append(behaviour)
        else:
            made.append([behaviour])
    return made


def split_by_day(day: date, last: date) -> str:
    """The split of an impression of `day`, where `last` is the impressions' last day."""
    return {last: "test", last - timedelta(days=1): "valid"}.get(day, "train")


def oracle(
    raw: Path,
    *,
    max_len: int = 50,
    bins: int = 10,
    split_at: int | None = None,
    behaviors: Sequence[str] = ("pv",),
    since: int | str | None = None,
    session_shape: tuple[int, int] | None = (5, 10),
    session_gap: int = 1800,
    timezone: str = "Asia/Shanghai",
    user_fraction: float = 1.0,
    min_count: int = 1,
    duplicates: str = "keep",
) -> Expected:
    """What the Alibaba path must make of the four raw files in the folder `raw`.

    Args:
        raw: folder of the raw files.
        max_len: L, the latest behaviours kept in a history.
        bins: equal-frequency bins of the interval.
        split_at: seconds; impressions before go to train, others to test. None: split by day.
        behaviors: btags that are kept.
        since: seconds, `all`, or None for the start of the day three days before the first
            impression's.
        session_shape: (M, K), or None for no session columns.
        session_gap: seconds; a session ends where the gap is strictly more.
        timezone: of the days.
        user_fraction: share of the profiles' users that are kept; below 1 nobody else is.
        min_count: values that occur less often are unknown.
        duplicates: `drop` keeps one impression of the same user, time, ad and pid, the first that
            is clicked, or the first; and one behaviour of those that are stored alike.
    """
    zone = ZoneInfo(timezone)
    left_out: Counter[str] = Counter()
    ad_rows = list(raw_rows(raw, "ad_feature.csv"))
    profile_rows = list(raw_rows(raw, "user_profile.csv"))
    ads, left_out["repeated ad"] = first_of_each(ad_rows, "adgroup_id")
    profiles, left_out["repeated user"] = first_of_each(profile_rows, "userid")
    chosen: set[int] | None = None
    if user_fraction < 1:
        size = round(user_fraction * len(profile_rows))
        draw = np.random.RandomState(1024).choice(len(profile_rows), size=size, replace=False)
        chosen = {needed(profile_rows[k]["userid"]) for k in draw}

    impressions: list[tuple[int, int, int, int, str | None, int]] = []
    for row, line in enumerate(raw_rows(raw, "raw_sample.csv")):
        user, ad = needed(line["user"]), needed(line["adgroup_id"])
        if ad not in ads:
            left_out[ABSENT_AD] += 1
        elif chosen is not None and user not in chosen:
            left_out["impression of a user not chosen"] += 1
        else:
            time, label = needed(line["time_stamp"]), needed(line["clk"])
            impressions.append((row, user, time, ad, line["pid"], label))

    same: defaultdict[tuple[Any, ...], list[tuple[Any, ...]]] = defaultdict(list)
    for one in impressions:
        same[one[1:5]].append(one)
    repeats = {
        "impressions": len(impressions) - len(same),
        "both": sum({one[5] for one in ones} == {0, 1} for ones in same.values()),
        "behaviours": 0,
    }
    if duplicates == "drop":
        impressions = [max(ones, key=lambda one: (one[5], -one[0])) for ones in same.values()]

    def day_of(time: int) -> date:
        return datetime.fromtimestamp(time, zone).date()

    if since is None:
        early = day_of(min(time for _, _, time, *_ in impressions)) - timedelta(days=3)
        from_time = datetime(early.year, early.month, early.day, tzinfo=zone).timestamp()
    else:
        from_time = -math.inf if since == "all" else int(since)
    kept: defaultdict[int, list[tuple[int, int | None, int | None, str]]] = defaultdict(list)
    for line in raw_rows(raw, "behavior_log.csv"):
        user, time, btag = needed(line["user"]), needed(line["time_stamp"]), line["btag"]
        assert btag is not None
        if btag not in behaviors or time <= 0 or time < from_time:
            left_out["behaviour"] += 1
        elif chosen is not None and user not in chosen:
            left_out["behaviour of a user not chosen"] += 1
        else:
            kept[user].append((time, number(line["cate"]), number(line["brand"]), btag))

    counted: dict[str, Counter[Any]] = {
        "user": Counter(user for _, user, *_ in impressions),
        "ad": Counter(number(ad["adgroup_id"]) for ad in ad_rows),
        "category": Counter(number(ad["cate_id"]) for ad in ad_rows),
        "brand": Counter(number(ad["brand"]) for ad in ad_rows),
        "campaign": Counter(number(ad["campaign_id"]) for ad in ad_rows),
        "customer": Counter(number(ad["customer"]) for ad in ad_rows),
        "pid": Counter(pid for *_, pid, _ in impressions),
        **{f: Counter(number(p[f]) for p in profile_rows) for f in PROFILE},
    }
    counted["ad"].update(ad for _, _, _, ad, *_ in impressions)
    for behaviours in kept.values():
        counted["category"].update(category for _, category, _, _ in behaviours)
        counted["brand"].update(brand for _, _, brand, _ in behaviours)
    ids = {f: numbered(n, 1 if f in NEVER_RARE else min_count) for f, n in counted.items()}

    def the_id(field: str, value: Any) -> int:
        return ids[field].get(value, UNKNOWN)

    # Values order behaviours and tell repeats, also those that are too rare for an id.
    of_value = {f: numbered(counted[f], 1) for f in ("category", "brand")}

    def place(behaviour: tuple[int, Any, Any, str]) -> tuple[int, int, int, str]:
        time, category, brand, btag = behaviour
        places = (of_value["category"].get(category, 0), of_value["brand"].get(brand, 0))
        return time, *places, btag

    values = {user: sorted(behaviours, key=place) for user, behaviours in kept.items()}

    prices = [None if ad["price"] is None else float(ad["price"]) for ad in ads.values()]
    of_nobody = sum(len(ones) for user, ones in kept.items() if user not in counted["user"])
    readable = sum(1 for _ in raw_rows(raw, "raw_sample.csv"))
    shares = {
        "impressions of ads not in ad_feature": (left_out[ABSENT_AD], readable),
        "impressions of users without a profile": (
            sum(user not in profiles for _, user, *_ in impressions),
            len(impressions),
        ),
        "behaviours of users without impressions": (of_nobody, sum(map(len, kept.values()))),
        "ads without a category": (sum(a["cate_id"] is None for a in ads.values()), len(ads)),
        "ads without a brand": (sum(a["brand"] is None for a in ads.values()), len(ads)),
        "ads without a price": (prices.count(None), len(ads)),
        "ads with a price of 0 or less": (sum(p is not None and p <= 0 for p in prices), len(ads)),
    }
    with_impressions = {user for _, user, *_ in impressions}
    ordered: dict[int, list[Behaviour]] = {}
    for user, of_user in values.items():
        alike = {behaviour[:3]: behaviour for behaviour in of_user}
        if user in with_impressions:
            repeats["behaviours"] += len(of_user) - len(alike)
        ordered[user] = [
            Behaviour(time, the_id("category", category), the_id("brand", brand), btag)
            for time, category, brand, btag in (alike.values() if duplicates == "drop" else of_user)
        ]

    last_day = max(day_of(time) for _, _, time, *_ in impressions)
    splits: dict[int, str] = {}
    for row, _, time, *_ in impressions:
        if split_at is None:
            splits[row] = split_by_day(day_of(time), last_day)
        else:
            splits[row] = "train" if time < split_at else "test"

    ln_price: dict[int, float] = {}  # of the ads that have one
    for ad, values in ads.items():
        if values["price"] is not None and float(values["price"]) > 0:
            ln_price[ad] = math.log(float(values["price"]))
    in_train = [
        ln_price[ad]
        for row, _, _, ad, *_ in impressions
        if splits[row] == "train" and ad in ln_price
    ]
    mean = math.fsum(in_train) / len(in_train) if in_train else 0.0
    variance = math.fsum((x - mean) ** 2 for x in in_train) / len(in_train) if in_train else 0.0
    # As scikit-learn's StandardScaler: where all are equal, nothing is divided.
    deviation = math.sqrt(variance) if len(set(in_train)) > 1 else 1.0

    histories: dict[int, list[Behaviour]] = {}
    before: dict[int, list[Behaviour]] = {}
    for row, user, time, *_ in impressions:
        before[row] = [b for b in ordered.get(user, []) if b.time < time]
        histories[row] = before[row][-max_len:]
    train_intervals = [
        time - behaviour.time
        for row, _, time, *_ in impressions
        if splits[row] == "train"
        for behaviour in histories[row]
    ]
    # Where there is nothing to cut, every edge is 0.
    edges = quantile_edges(train_intervals, bins) if train_intervals else [0] * (bins - 1)

    rows: dict[int, dict[str, Any]] = {}
    for row, user, time, ad, pid, label in impressions:
        history = histories[row]
        price = 0.0
        if ad in ln_price:
            price = (ln_price[ad] - mean) / deviation
        profile = profiles.get(user, {})
        rows[row] = {
            "split": splits[row],
            "row": row,
            "user": the_id("user", user),
            "target_category": the_id("category", number(ads[ad]["cate_id"])),
            "target_brand": the_id("brand", number(ads[ad]["brand"])),
            "target_time": time,
            "label": label,
            "ad": the_id("ad", ad),
            "campaign": the_id("campaign", number(ads[ad]["campaign_id"])),
            "customer": the_id("customer", number(ads[ad]["customer"])),
            "pid": the_id("pid", pid),
            **{f: the_id(f, number(profile.get(f))) for f in PROFILE},
            "price": price,
            "history_length": len(history),
            "history_category": [b.category for b in history],
            "history_brand": [b.brand for b in history],
            "history_position": list(range(len(history), 0, -1)),
            "history_interval_bin": [interval_bin(time - b.time, edges) for b in history],
            "history_time": [b.time for b in history],
            "history_session": sessions([b.time for b in history], session_gap),
        }
        if session_shape is not None:
            most, longest = session_shape
            long_enough = [s for s in cut(before[row], session_gap) if len(s) > 2]
            shown = [s[-longest:] for s in reversed(long_enough)][:most]
            rows[row] |= {
                "session_category": [[b.category for b in s] for s in shown],
                "session_brand": [[b.brand for b in s] for s in shown],
                "session_length": [len(s) for s in shown],
            }

    in_bin = Counter(
        b for r in rows.values() if r["split"] == "train" for b in r["history_interval_bin"]
    )
    ad_fields = {"category": "cate_id", "brand": "brand", "campaign": "campaign_id"}
    ad_fields["customer"] = "customer"
    return Expected(
        rows=rows,
        vocabulary=ids,
        counts={f: {v: counted[f][v] for v in known} for f, known in ids.items()},
        edges=edges,
        train_counts=[in_bin[k] for k in range(1, bins + 1)],
        ads={
            ids["ad"][ad]: (
                *(the_id(f, number(values[name])) for f, name in ad_fields.items()),
                None if values["price"] is None else float(values["price"]),
            )
            for ad, values in ads.items()
            if ad in ids["ad"]
        },
        profiles={
            ids["user"][user]: tuple(the_id(f, number(profile[f])) for f in PROFILE)
            for user, profile in profiles.items()
            if user in ids["user"]
        },
        price=(mean, deviation),
        left_out=dict(left_out),
        repeats=repeats,
        shares=shares,
    )
