"""The vocabularies' counts against what the rows hold, where all shards could be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from pipeline.verify.contract import Contract
from pipeline.verify.findings import Findings
from pipeline.verify.tables import Lookup
from pipeline.verify.targets import Seen, Targets
from schemas.manifest import (
    FIRST_ID,
    NAME,
    OF_NOBODY,
    UNKNOWN_ID,
    WITHOUT_CATEGORY,
    WITHOUT_META,
    WITHOUT_PROFILE,
    repeated,
)

Int64s = npt.NDArray[np.int64]

_OUTSIDE_SAMPLE = "impressions of users outside the sample"
_BEHAVIOURS = (
    "behaviours kept",
    "behaviours of other kinds or times",
    OF_NOBODY,
)


def check_read(
    contract: Contract, targets: int, refused: Mapping[str, int], findings: Findings
) -> None:
    """Each line that was read was kept, is refused, or was left out.

    Args:
        contract: what the data set is held to.
        targets: lines of the targets' raw file that were kept.
        refused: raw file -> lines of it that were refused.
        findings: where breaches are noted.
    """
    told, shares = contract.made.counts, contract.made.shares

    def dropped(table: str) -> int:
        share = shares.get(repeated(table, dropped=True))
        return share.count if share else 0

    read = {"reviews read": targets + refused["reviews"] + dropped("reviews")}
    if not contract.leave_one_out:
        behaviours = [told.get(name, 0) for name in _BEHAVIOURS]
        read = {
            "impressions read": targets
            + refused["raw_sample"]
            + told.get(_OUTSIDE_SAMPLE, 0)
            + dropped("impressions"),
            "behaviours read": sum(behaviours) + refused["behavior_log"],
        }
    for name, want in read.items():
        if told.get(name, want) != want:
            findings.add("counts", f"{NAME}: counts, {name}", want, told[name])
    for name in sorted(told.keys() & shares.keys()):  # what is told twice
        if shares[name].count != told[name]:
            findings.add("shares", f"{NAME}: shares, {name}", told[name], shares[name].count)


def check_item_counts(
    targets: Targets,
    contract: Contract,
    counts: dict[str, Int64s],
    lookups: Sequence[Lookup],
    findings: Findings,
) -> None:
    """Hold the counts of items to the behaviours seen, and other fields' to their items'.

    A user's first behaviour is no target, but alone in the history of the second. Users without
    rows leave some of an item's unseen.

    Args:
        targets: of all shards.
        contract: what they are held to.
        counts: field -> (vocabulary,) how often each id occurs, of the vocabularies that are whole.
        lookups: the tables beside the shards that are whole.
        findings: where breaches are noted.
    """
    if "item" not in counts:
        return
    of_items = counts["item"]
    seen = _occurrences(targets.column("item"), len(of_items))
    if contract.made.max_len > 1:
        first = targets.column("length") == 1
        seen += _occurrences(targets.column("newest_item")[first], len(of_items))
    _by_id(findings, "item", of_items >= seen, of_items, seen, "at least ")
    if "user" in counts and of_items.sum() != (total := int(counts["user"].sum())):
        where = "vocabulary/item.parquet"
        findings.add("vocabulary counts", where, f"{total} in all, as of users", of_items.sum())
    for table in lookups:
        missing = [
            s for n in (WITHOUT_META, WITHOUT_CATEGORY) if (s := contract.made.shares.get(n))
        ]
        unknown = int(np.count_nonzero(table.ids["category"] == UNKNOWN_ID)) if missing else 0
        if sum(share.count for share in missing) != unknown:
            findings.add("shares", f"{NAME}: shares, {WITHOUT_META}", unknown, missing)
        for name in table.ids.keys() & counts.keys():
            of_item = np.maximum(table.ids[name], 0)
            sums = np.bincount(of_item, of_items, len(counts[name])).astype(np.int64)
            _by_id(findings, name, counts[name] == sums, counts[name], sums)


def check_impression_counts(
    seen: Sequence[Seen],
    targets: Targets,
    contract: Contract,
    counts: dict[str, Int64s],
    lookups: Sequence[Lookup],
    findings: Findings,
) -> None:
    """Hold the counts of an impression's own fields, and of users without a profile, to the rows.

    Args:
        seen: what each shard holds.
        targets: of all shards.
        contract: what they are held to.
        counts: as in `check_item_counts`.
        lookups: the same.
        findings: where breaches are noted.
    """
    for name in contract.own.intersection(counts):
        size = len(counts[name])
        held = sum((s.own[name] for s in seen), np.zeros(size, np.int64))
        _by_id(findings, name, counts[name] == held, counts[name], held)
    told = contract.made.counts.get(WITHOUT_PROFILE)
    for table in lookups:
        if table.key == "user" and told is not None:
            user = targets.column("user")
            real = (user >= 0) & (user < len(table.known))
            without = int(np.count_nonzero(~table.known[user[real]]))
            if without != told:
                findings.add("counts", f"{NAME}: counts, {WITHOUT_PROFILE}", without, told)


def _occurrences(ids: npt.NDArray[np.int32], size: int) -> Int64s:
    """(size,) how often each id occurs; those outside the vocabulary are found elsewhere."""
    return np.bincount(ids[(ids >= 0) & (ids < size)], minlength=size)


def _by_id(
    findings: Findings,
    name: str,
    good: npt.NDArray[np.bool_],
    told: Int64s,
    held: Int64s,
    bound: str = "",
) -> None:
    bad = np.flatnonzero(~good[FIRST_ID:]) + FIRST_ID
    for n, one in enumerate(bad[: findings.limit].tolist()):
        times = 1 if n else len(bad) - min(len(bad), findings.limit) + 1
        where = f"vocabulary/{name}.parquet: id {one}"
        findings.add("vocabulary counts", where, f"{bound}{held[one]}", told[one], times)
