"""What a manifest promises of its shards, as the checks need it."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.identity import key_of
from pipeline.verify.findings import Findings
from schemas.manifest import FIRST_ID, NAME, SPLITS, UNKNOWN_ID, DataFile, Manifest
from schemas.shape import is_finite
from schemas.shards import shard_schema

Int64s = npt.NDArray[np.int64]

OWN = frozenset({"pid"})
"""Columns of an impression that neither its ad nor its user tells."""

LAST_SECOND = 253_402_300_799 - 86_400
"""The end of the year 9999 in any timezone: no second of a log is later, and no calendar has it."""

_LEAST, _MOST = np.iinfo(np.int64).min, np.iinfo(np.int64).max
_BINS = 256
_SHARD = re.compile(rf"({'|'.join(SPLITS)})/part-[0-9]{{5}}\.parquet")
_TABLE = re.compile(r"(items|ads|profiles|(vocabulary|rejected)/[A-Za-z0-9_]{1,100})\.parquet")


@dataclass(frozen=True)
class Contract:
    """A manifest whose parts have the right types.

    Attributes:
        made: the manifest.
        schema: of each shard.
        sessions: (M, K) of DSIN's session columns, None for none.
    """

    made: Manifest
    schema: pa.Schema
    sessions: tuple[int, int] | None

    @property
    def leave_one_out(self) -> bool:
        """Whether targets are a user's own behaviours with negatives, else impressions."""
        return "negatives" in self.made.config

    @property
    def tables(self) -> dict[str, str]:
        """The tables beside the shards -> the id column that each is read by."""
        return {"items": "item"} if self.leave_one_out else {"ads": "ad", "profiles": "user"}

    @property
    def each(self) -> int:
        """Rows of a target: its own and its negatives'."""
        return 1 + int(self.made.config["negatives"]) if self.leave_one_out else 1

    @property
    def own(self) -> frozenset[str]:
        """The id columns that are of an impression itself: no table beside the shards has them."""
        return frozenset() if self.leave_one_out else OWN & set(self.features)

    @property
    def session_gap(self) -> int:
        """Seconds without a behaviour, more than which end a session."""
        return int(self.made.config["session_gap"])

    @property
    def features(self) -> tuple[str, ...]:
        """The id columns of a row besides its user's and its target's."""
        return _features(self.made)

    @cached_property
    def bounds(self) -> tuple[Int64s, Int64s]:
        """(256,) each: bin k holds the intervals above the first's k and up to the second's k.

        No interval fits a bin that there is not.
        """
        edges = np.asarray(self.made.bins.edges_s, np.int64)
        count = self.made.bins.count
        above, up_to = np.full(_BINS, _MOST), np.full(_BINS, _LEAST)
        above[1 : count + 1] = np.concatenate([[_LEAST], edges])
        up_to[1 : count + 1] = np.concatenate([edges, [_MOST]])
        return above, up_to

    def bin_of(self, interval: int) -> int:
        """The bin that an interval belongs to."""
        return 1 + sum(edge < interval for edge in self.made.bins.edges_s)

    def ids(self) -> dict[str, tuple[int, int]]:
        """Column of ids -> its least and its vocabulary's size; of the scalars."""
        made = self.made
        columns = {"user": "user", **{f"target_{name}": name for name in made.fields}}
        columns |= {name: name for name in self.features}
        return {
            column: (FIRST_ID if column in self._known else UNKNOWN_ID, made.vocabulary[name])
            for column, name in columns.items()
        }

    @property
    def _known(self) -> set[str]:
        """The columns of a row whose values all have ids."""
        if self.leave_one_out:
            return {"user", "target_item"}
        # A rarer ad than the settings ask for has none.
        return {"user", "ad"} if self.made.config.get("min_count") == 1 else {"user"}


def read(made: Manifest, findings: Findings) -> Contract | None:
    """What the manifest promises; None where its parts are of other types than they should be."""
    before = findings.counts.total()
    _check_types(made, findings)
    if findings.counts.total() > before:
        return None
    _check_values(made, findings)
    sessions = made.config.get("sessions", "none")
    shape = None if sessions == "none" else (int(n) for n in sessions.split("x"))
    pair = None if shape is None else (next(shape), next(shape))
    schema = shard_schema(
        tuple(made.fields),
        made.layout,
        made.max_len,
        features=_features(made),
        numbers=tuple(made.numbers),
        sessions=pair,
    )
    twice = [name for name, times in Counter(schema.names).items() if times > 1]
    if twice:
        findings.add("manifest", NAME, "fields and numbers that share no column", ", ".join(twice))
        return None
    return Contract(made, schema, pair)


def split_of(shard: DataFile) -> str:
    """The split that a shard belongs to, by its folder."""
    return PurePosixPath(shard.path).parts[0]


def _features(made: Manifest) -> tuple[str, ...]:
    return tuple(name for name in made.vocabulary if name not in ("user", *made.fields))


def _check_types(made: Manifest, findings: Findings) -> None:
    """What the other checks rely on."""

    def want(good: bool, key: str, expected: str, got: Any) -> None:
        if not good:
            findings.add("manifest", f"{NAME}: {key}", expected, repr(got)[:200])

    splits = dict.fromkeys(SPLITS)
    good = isinstance(made.rows, dict) and made.rows.keys() == splits.keys()
    good = good and all(_whole(n) for n in made.rows.values())
    want(good, "rows", f"a number for each of {', '.join(SPLITS)}", made.rows)
    named = isinstance(made.vocabulary, dict) and "user" in made.vocabulary
    good = named and all(_whole(n, FIRST_ID, 1 << 31) for n in made.vocabulary.values())
    want(good, "vocabulary", "a size of 2 or more for `user` and each field", made.vocabulary)
    good = named and isinstance(made.fields, list) and bool(made.fields)
    good = good and all(isinstance(f, str) and f in made.vocabulary for f in made.fields)
    want(good, "fields", "fields with a vocabulary", made.fields)
    if good and isinstance(made.config, dict):
        key = "item" if "negatives" in made.config else "ad"
        known = made.fields if key == "item" else made.vocabulary
        want(key in known, "fields", f"{key} among them", list(known))
    good = isinstance(made.config, dict) and _whole(made.config.get("session_gap"))
    want(good, "config", "settings with a session_gap", made.config)
    if good:
        kept = made.config.get("negatives", 1)
        want(_whole(kept, 1, 1_000), "config.negatives", "1 to 1,000", kept)
        kept = made.config.get("sessions", "none")
        good = kept == "none" or bool(re.fullmatch("[1-9][0-9]{0,2}x[1-9][0-9]{0,2}", str(kept)))
        want(good, "config.sessions", "MxK or none", kept)
        if "negatives" not in made.config:
            kept = made.config.get("split_at")
            want(kept is None or _whole(kept), "config.split_at", "unix seconds or null", kept)
            kept = made.config.get("timezone")
            want(_is_timezone(kept), "config.timezone", "a name such as Asia/Shanghai", kept)
    for key in ("counts", "rejected"):
        found = getattr(made, key)
        good = isinstance(found, dict) and all(_whole(n) for n in found.values())
        want(good, key, "numbers by name", found)
    good = all(_whole(s.count, 0, s.of) for s in made.shares.values())
    want(good, "shares", "a count from 0 to what it is of", made.shares)
    good = isinstance(made.numbers, dict) and all(
        isinstance(how, dict)
        and is_finite(how.get("mean"))
        and is_finite(how.get("std"))
        and how["std"] > 0
        and _whole(how.get("train_rows", 0))
        for how in made.numbers.values()
    )
    want(good, "numbers", "mean, std and train_rows of each float column", made.numbers)
    lengths = made.history_lengths
    want(lengths.keys() == splits.keys(), "history_lengths", "numbers for each split", lengths)
    for shard in made.shards:
        good = isinstance(shard.sha256, str) and _whole(shard.rows)
        good = good and bool(_SHARD.fullmatch(shard.path))
        want(good, "shards", "train, valid or test / part-00000.parquet, rows, sha256", shard)
    for table in made.tables:
        good = _whole(table.rows) and bool(_TABLE.fullmatch(table.path))
        want(good, "tables", "items, ads, profiles, or below vocabulary or rejected", table)


def _whole(value: Any, low: int = 0, high: int = _MOST) -> bool:
    """Whether it is a whole number within bounds, both included."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_timezone(name: Any) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
        return False
    return True


def _check_values(made: Manifest, findings: Findings) -> None:
    key = key_of(made)
    if made.config.get("key") != key:
        expected = f"the key of its config, inputs and version, {key}"
        findings.add("manifest", f"{NAME}: config.key", expected, made.config.get("key"))
    held = {"bins": made.bins.count, "max_len": made.max_len, "layout": made.layout}
    if made.config.get("parity"):
        held |= {"max_len": made.config.get("max_len"), "layout": "ragged"}  # L is the longest
    for name, value in held.items():
        if made.config.get(name) != value:
            where = f"{NAME}: config.{name}"
            findings.add("manifest", where, f"{value}, as the shards", made.config.get(name))
    edges = made.bins.edges_s
    if edges != sorted(edges):
        findings.add("manifest", f"{NAME}: bins.edges_s", "edges that do not decrease", edges)
    held = {name: sum(s.rows for s in made.shards if split_of(s) == name) for name in SPLITS}
    if held != made.rows:
        findings.add("manifest", f"{NAME}: rows", f"the sums over its shards, {held}", made.rows)
    paths = Counter(file.path for file in (*made.shards, *made.tables))
    for path in sorted(path for path, times in paths.items() if times > 1):
        findings.add("manifest", f"{NAME}: shards, tables", "each file once", path)
