"""The fast readers that a description can name: each reads the same rows as the generic one does.

A reader has columns of its own names. What a description says of them tells people, and the generic
reader, where they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pipeline.description import language as told
from pipeline.description.binding import Fast, Said
from pipeline.description.split import day_start
from pipeline.presets.alibaba import BTAGS, sampled_users
from pipeline.presets.amazon import require_categories
from pipeline.readers import alibaba_columns as columns
from pipeline.readers.alibaba_parse import Csv, read_lookup
from pipeline.readers.amazon_parse import META, Reviews, read_meta
from schemas import manifest

Options = Mapping[str, Any]

REVIEWS: dict[str, Any] = {"reader": Reviews(), "expected": "JSON lines"}
META_LINES: dict[str, Any] = {
    "read": read_meta,
    "require": require_categories,
    "file": "meta",
    "without": manifest.WITHOUT_META,
    "lacks": manifest.WITHOUT_CATEGORY,
    "repeated": manifest.REPEATED_ITEM,
    "lines": "lines",
}
IMPRESSIONS: dict[str, Any] = {
    "file": "raw_sample",
    "expected": "lines of user, time, ad, pid, nonclk, clk",
    "reader": Csv(columns.IMPRESSIONS),
    "bytes_a_line": 60,
    "disk_bytes_a_line": 45,
    "lines_a_second": 1_000_000,
}
BEHAVIOURS: dict[str, Any] = {
    "file": "behavior_log",
    "bytes_a_line": 60,
    "disk_bytes_a_line": 16,
    "lines_a_second": 2_200_000,
}
ADS: dict[str, Any] = {
    "read": partial(read_lookup, columns.ADS),
    "file": "ad_feature",
    "without": "impressions of ads not in ad_feature",
    "lacks": "ads without a {}",
    "repeated": manifest.REPEATED_AD,
    "lines": "ads",
    "all_lines": True,
    "bytes_a_line": 150,
}
PROFILES: dict[str, Any] = {
    "read": partial(read_lookup, columns.PROFILES),
    "file": "user_profile",
    "without": manifest.WITHOUT_PROFILE,
    "lacks": "profiles without a {}",
    "repeated": manifest.REPEATED_PROFILE,
    "lines": "profiles",
    "all_lines": True,
    "bytes_a_line": 150,
}
"""Attributes of tables and lookups that have these files: what they are called, and sizes and
speeds, which are measured."""

_BTAGS = re.compile(r"btag\s*(?:=\s*('\w+')|in\s*\(\s*('\w+'(?:\s*,\s*'\w+')*)\s*\))", re.I)


def _reviews(said: Said, options: Options) -> Fast:
    types = dict.fromkeys(("user", "item"), "text")
    return Fast(("item",), types, REVIEWS, hooks={"fixed_bytes_a_line": 20})


def _meta(said: Said, options: Options) -> Fast:
    names = tuple(set(META) - {"row"})
    return Fast(names, dict.fromkeys(("item", "category"), "text"), META_LINES)


def _impressions(said: Said, options: Options) -> Fast:
    types = {"user": "whole", "ad": "whole", "pid": "text"}
    return Fast(("ad", "pid"), types, IMPRESSIONS, hooks={"fixed_bytes_a_line": 0})


def _behaviours(said: Said, options: Options) -> Fast | str:
    assert isinstance(said, told.Table)
    found = _BTAGS.fullmatch((said.where or "").strip())
    btags = tuple(re.findall(r"\w+", found[1] or found[2])) if found else ()
    if not btags or set(btags) - set(BTAGS):
        return f"where = \"btag = 'pv'\", or btag in ('pv', 'cart'), of {', '.join(BTAGS)}"
    return Fast(
        ("category", "brand"),
        dict.fromkeys(("user", "category", "brand"), "whole"),
        {**BEHAVIOURS, "reader": Csv(columns.BEHAVIORS, btags)},
        where=True,
        hooks={"since": partial(since, options)},
    )


def since(options: Options, first: int) -> int:
    """The second from which on behaviours count; `first` is the first impression's.

    It is that of the option `since`; or else begins the day that is `since_days` before the one of
    the first impression, in `timezone`.
    """
    days = options.get("since_days")
    if "since" in options or days is None:
        return int(options.get("since", 0))
    return max(1, day_start(first, days, options.get("timezone", "UTC")))


def _ads(said: Said, options: Options) -> Fast:
    ids = ("ad", "category", "brand", "campaign", "customer")
    assert isinstance(said, told.Lookup)
    refuse = "ad is not in ad_feature" if said.missing == "refuse" else None
    return Fast((*ids, "price"), dict.fromkeys(ids, "whole"), {**ADS, "refuse": refuse})


def _profiles(said: Said, options: Options) -> Fast:
    share = options.get("user_fraction", 1.0)
    return Fast(
        columns.PROFILE_FIELDS,
        dict.fromkeys(("user", *columns.PROFILE_FIELDS), "whole"),
        PROFILES,
        hooks={"sample": partial(sampled_users, share)},
    )


TABLES: dict[str, Callable[[Said, Options], Fast | str]] = {
    "amazon-2014": _reviews,
    "alibaba-raw-sample": _impressions,
    "alibaba-behavior-log": _behaviours,
}
LOOKUPS: dict[str, Callable[[Said, Options], Fast | str]] = {
    "amazon-2014-meta": _meta,
    "alibaba-ad-feature": _ads,
    "alibaba-user-profile": _profiles,
}
"""By name: what makes it of a table, or a lookup, and its options; or what it wants of them."""
