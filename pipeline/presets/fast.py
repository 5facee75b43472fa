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
from schemas import tables

Options = Mapping[str, Any]

REVIEWS: dict[str, Any] = {"reader": Reviews(), "model": tables.Reviews, "expected": "JSON lines"}
META_LINES: dict[str, Any] = {"read": read_meta, "raw": tables.Meta, "require": require_categories}
IMPRESSIONS: dict[str, Any] = {
    "reader": Csv(columns.IMPRESSIONS),
    "model": tables.Impressions,
    "bytes_a_line": 60,
    "disk_bytes_a_line": 45,
    "lines_a_second": 1_000_000,
    "header": 1,
}
BEHAVIOURS: dict[str, Any] = {
    "bytes_a_line": 60,
    "disk_bytes_a_line": 16,
    "lines_a_second": 2_200_000,
    "header": 1,
}
ADS: dict[str, Any] = {
    "read": partial(read_lookup, columns.ADS),
    "raw": tables.Ads,
    "all_lines": True,
    "bytes_a_line": 150,
}
PROFILES: dict[str, Any] = {
    "read": partial(read_lookup, columns.PROFILES),
    "raw": tables.Profiles,
    "all_lines": True,
    "bytes_a_line": 150,
}
"""Attributes of tables and lookups that have these files; sizes and speeds are measured."""

_BTAGS = re.compile(r"btag\s*(?:=\s*('\w+')|in\s*\(\s*('\w+'(?:\s*,\s*'\w+')*)\s*\))", re.I)


def _reviews(said: Said, options: Options) -> Fast:
    return Fast(("item",), dict.fromkeys(("user", "item"), "text"), {**REVIEWS, "header": 0})


def _meta(said: Said, options: Options) -> Fast:
    names = tuple(set(META) - {"row"})
    return Fast(names, dict.fromkeys(("item", "category"), "text"), META_LINES)


def _impressions(said: Said, options: Options) -> Fast:
    return Fast(("ad", "pid"), {"user": "whole", "ad": "whole", "pid": "text"}, IMPRESSIONS)


def _behaviours(said: Said, options: Options) -> Fast | str:
    assert isinstance(said, told.Table)
    found = _BTAGS.fullmatch((said.where or "").strip())
    btags = tuple(re.findall(r"\w+", found[1] or found[2])) if found else ()
    if not btags or set(btags) - set(BTAGS):
        return f"where = \"btag = 'pv'\", or btag in ('pv', 'cart'), of {', '.join(BTAGS)}"
    days, zone = options.get("since_days"), options.get("timezone", "UTC")
    return Fast(
        ("category", "brand"),
        dict.fromkeys(("user", "category", "brand"), "whole"),
        {**BEHAVIOURS, "reader": Csv(columns.BEHAVIORS, btags)},
        where=True,
        hooks={"since": partial(_since, days, zone)} if days is not None else {},
    )


def _since(days: int, timezone: str, first: int) -> int:
    """The start of the day so many days before that of the first impression."""
    return max(1, day_start(first, days, timezone))


def _ads(said: Said, options: Options) -> Fast:
    ids = ("ad", "category", "brand", "campaign", "customer")
    return Fast((*ids, "price"), dict.fromkeys(ids, "whole"), ADS)


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
