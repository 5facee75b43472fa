"""Checks over all shards: totals, bins, each user's targets, splits, negatives, days."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from pipeline.verify.contract import LAST_SECOND, Contract
from pipeline.verify.findings import Findings
from pipeline.verify.targets import Seen, Targets
from schemas.manifest import FIRST_ID, NAME, SPLITS, Share, in_history, not_in_train

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

# Of the mean of rounded numbers: they have 24 bits.
_CLOSE = 1e-4


def check_totals(seen: Sequence[Seen], contract: Contract, findings: Findings) -> None:
    """Rows, history lengths and interval bins, as the manifest says them."""
    made = contract.made
    for name in SPLITS:
        of_split = [s for s in seen if s.split == name]
        rows = sum(s.rows for s in of_split)
        if rows != made.rows[name]:
            findings.add("rows of a split", f"{NAME}: rows.{name}", rows, made.rows[name])
        lengths = sum((s.lengths for s in of_split), np.zeros(made.max_len + 1, np.int64))
        told = np.array(made.history_lengths[name])
        if (differs := lengths != told).any():
            at = int(np.argmax(differs))
            where = f"{NAME}: history_lengths.{name}[{at}]"
            findings.add("history lengths", where, lengths[at], told[at], int(differs.sum()))
    counts = {
        "impressions without behaviours": sum(int(s.lengths[0]) for s in seen),
    }
    for name, count in counts.items():
        if made.counts.get(name, count) != count:
            findings.add("counts", f"{NAME}: counts, {name}", count, made.counts[name])
    for name, share in _shares(seen, contract):
        if made.shares.get(name, share) != share:
            findings.add("shares", f"{NAME}: shares, {name}", str(share), str(made.shares[name]))
    _check_bins(seen, contract, findings)
    _check_numbers(seen, contract, findings)


def _shares(seen: Sequence[Seen], contract: Contract) -> Iterator[tuple[str, Share]]:
    """What the rows say of targets in their own history, and of ids that train lacks."""
    fields = contract.made.fields
    ids = {
        f: {k: np.any([s.ids[f] for s in seen if s.split == k], axis=0) for k in SPLITS}
        for f in fields
    }
    for split in SPLITS:
        held = sum((s.in_history for s in seen if s.split == split), np.zeros((2, 2), np.int64))
        for label, of_label in enumerate(held.tolist()):
            yield in_history(split, label), Share(*of_label)
    for name, of_split in ids.items():
        for split in SPLITS[1:]:
            there = np.flatnonzero(of_split[split])
            there = there[there >= FIRST_ID]
            lacking = there[~np.isin(there, np.flatnonzero(of_split["train"]))]
            yield not_in_train(split, name), Share(len(lacking), len(there))


def _check_numbers(seen: Sequence[Seen], contract: Contract, findings: Findings) -> None:
    """Of the train rows whose number is known, the mean is 0 and the deviation 1.

    Others hold 0, and so does one that is the mean itself.
    """
    for name, how in contract.made.numbers.items():
        known, train = how.get("train_rows"), contract.made.rows["train"]
        if known is None:
            continue
        some, total, squares = sum((s.sums[name] for s in seen), np.zeros(3)).tolist()
        # Of numbers that are all one and the same, the deviation is taken to be 1.
        alike = squares <= _CLOSE and how["std"] == 1
        # The mean is rounded, too, which counts where numbers hardly differ.
        close = _CLOSE + 4 * np.finfo(float).eps * max(1, abs(how["mean"])) / how["std"]
        fine = some <= known <= train and abs(total) <= close * train
        if not (fine and (alike or abs(squares - known) <= close * known)):
            expected = f"{known} of {train} numbers with the mean 0 and the deviation 1"
            got = f"{some:.0f} numbers, their sum {total:g}, that of their squares {squares:g}"
            findings.add("statistics", f"train, {name}", expected, got)


def _check_bins(seen: Sequence[Seen], contract: Contract, findings: Findings) -> None:
    """The counts of the bins, and whether the edges are the quantiles of the intervals."""
    bins = contract.made.bins
    zeros = np.zeros(256, np.int64)
    counts = sum((s.bins for s in seen), zeros)[1 : bins.count + 1]
    if counts.tolist() != bins.train_counts:
        where = f"{NAME}: bins.train_counts"
        findings.add("bin counts", where, counts.tolist(), bins.train_counts)
    edges = np.array(bins.edges_s, np.int64)
    at_edges = sum((s.at_edges for s in seen), zeros)[1 : bins.count]
    total = int(counts.sum())
    up_to = np.cumsum(counts)
    for k, edge in enumerate(edges.tolist()):
        # Equal edges share their intervals, which are in the first of their bins.
        least = int(up_to[np.flatnonzero(edges == edge)[-1]])
        below = least - int(at_edges[edges == edge].sum())
        share = (k + 1) * total
        fine = least * bins.count >= share > below * bins.count if total else edge == 0
        if not fine:
            findings.add(
                "bin edge",
                f"{NAME}: bins.edges_s[{k}]",
                f"the smallest interval with {k + 1}/{bins.count} of the {total} at or below it",
                f"{edge}, with {below} below it and {least} at or below it",
            )


def check_rows(targets: Targets, findings: Findings) -> None:
    """Each raw row is a target once, in one split."""
    rows = targets.column("row")
    ordered = np.sort(rows)
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    for row in twice[: findings.limit].tolist():
        at = np.flatnonzero(rows == row)
        findings.add(
            "row twice",
            targets.where(int(at[1])),
            "a row of the raw file once, in one split",
            f"row {row} again, after {targets.where(int(at[0]))}",
            1 if row != twice[0] else len(twice) - min(len(twice), findings.limit) + 1,
        )


def check_users(
    targets: Targets, contract: Contract, counts: Int64s, refused: int, findings: Findings
) -> None:
    """As many targets of each user as the vocabulary counts.

    Args:
        targets: of all shards.
        contract: what they are held to.
        counts: (users + 2,) how often each user occurs.
        refused: targets of users who leave no negative to draw.
        findings: where breaches are noted.
    """
    made = np.bincount(_users(targets, len(counts)), minlength=len(counts))
    if not contract.leave_one_out:
        _by_user(findings, made == counts, "targets of a user", counts, made)
        return
    # A user's first behaviour has no history, so it is no target.
    want = np.maximum(counts - 1, 0)
    none = (made == 0) & (want > 0)
    _by_user(findings, (made == want) | none, "targets of a user", want, made)
    if (left_out := int(want[none].sum())) != refused:
        where = "rejected/targets.parquet"
        findings.add("targets of a user", where, f"{left_out} targets without rows", refused)


def check_leave_one_out(
    targets: Targets, contract: Contract, users: int, findings: Findings
) -> None:
    """Each user's last target is test, the one before it valid, and histories follow each other.

    Args:
        targets: of all shards.
        contract: what they are held to.
        users: the vocabulary's size.
        findings: where breaches are noted.
    """
    user, time = _users(targets, users), targets.column("time")
    train, valid, test = (targets.split == k for k in range(3))
    total = np.bincount(user, minlength=users)
    some = total > 0
    tin = contract.made.config.get("split", "tin") == "tin"
    for name, of_split, want in (
        ("test", test, some.astype(np.int64)),
        ("valid", valid, (total > 1).astype(np.int64) if tin else np.zeros(users, np.int64)),
    ):
        found = np.bincount(user[of_split], minlength=users)
        _by_user(findings, found == want, f"{name} targets of a user", want, found)
    most = contract.made.max_len
    length = targets.column("length")
    for of_split, want in ((test, total), (valid, total - 1)):
        wanted = np.minimum(want, most)[user]
        _targets_are(
            targets,
            findings,
            (length == wanted) | ~of_split,
            "history length",
            lambda k, wanted=wanted: f"{wanted[k]}, all before the target",
            lambda k: length[k],
        )
    count = np.bincount(user[train], minlength=users)
    long = np.maximum(count - most, 0)
    want = (count - long) * (count - long + 1) // 2 + long * most
    found = np.bincount(user[train], length[train], users).astype(np.int64)
    _by_user(findings, found == want, "history lengths of a user's train targets", want, found)
    last = np.full(users, np.iinfo(np.int64).max)
    for of_split in (test, valid):
        good = (time <= last[user]) | ~(of_split | train)
        _targets_are(
            targets,
            findings,
            good,
            "split order",
            lambda k, last=last: f"not after {last[user[k]]}, the user's target of a later split",
            lambda k: time[k],
        )
        last = last.copy()
        last[user[of_split]] = time[of_split]
    _targets_are(
        targets,
        findings,
        (time <= last[user]) | ~train,
        "split order",
        lambda k: f"not after {last[user[k]]}, the user's target of a later split",
        lambda k: time[k],
    )
    chain = np.zeros(users, np.uint64)
    np.add.at(chain, user, targets.column("link"))
    zeros = np.zeros(users, np.int64)
    what = "histories of a user"
    _by_user(findings, chain == 0, what, zeros, chain, "each the one before it, and its target")


def check_touched(targets: Targets, contract: Contract, users: int, findings: Findings) -> None:
    """No negative is an item that its user touches anywhere, the future included."""
    size = contract.made.vocabulary["item"]
    user = _users(targets, users).astype(np.int64)
    # The first behaviour is no target, but the only one in the history of the second.
    second = targets.column("length") == 1
    first = user[second] * size + targets.column("newest_item")[second]
    touched = np.concatenate([user * size + targets.column("item"), first])
    touched.sort()
    negative = targets.column("negative")
    each = contract.each - 1
    keys = np.repeat(user, each) * size + negative
    found = np.zeros(len(keys), np.bool_)
    if len(touched):
        found = touched[np.minimum(np.searchsorted(touched, keys), len(touched) - 1)] == keys
    bad = found.reshape(-1, each)
    _targets_are(
        targets,
        findings,
        ~np.any(bad, axis=1),
        "negative",
        lambda k: "items that the user never touches",
        lambda k: f"items {negative.reshape(-1, each)[k][bad[k]]} of user {user[k]}",
    )


def check_days(targets: Targets, contract: Contract, findings: Findings) -> None:
    """Train, valid and test follow each other in time, where the settings cut them."""
    time = targets.column("time")
    real = (time >= 0) & (time <= LAST_SECOND)
    if not real.any():
        return
    config = contract.made.config
    if config.get("split_at") is not None:
        valid = test = int(config["split_at"])
    else:
        zone = ZoneInfo(config["timezone"])
        day = datetime.fromtimestamp(int(time[real].max()), zone).date()
        test, valid = (
            int(datetime(d.year, d.month, d.day, tzinfo=zone).timestamp())
            for d in (day, day - timedelta(days=1))
        )
    low, high = np.iinfo(np.int64).min, np.iinfo(np.int64).max
    begins, ends = np.array([low, valid, test]), np.array([valid, test, high])
    _targets_are(
        targets,
        findings,
        (time >= begins[targets.split]) & (time < ends[targets.split]),
        "split order",
        lambda k: f"{begins[targets.split[k]]} to before {ends[targets.split[k]]}",
        lambda k: f"{time[k]}, in {SPLITS[targets.split[k]]}",
    )


def _users(targets: Targets, size: int) -> npt.NDArray[np.int32]:
    """(targets,) user ids; those outside the vocabulary, which are found elsewhere, as 0."""
    user = targets.column("user")
    return np.where((user >= 0) & (user < size), user, 0)


def _by_user(
    findings: Findings,
    good: Bools,
    what: str,
    want: Int64s,
    found: npt.NDArray[Any],
    expected: str = "",
) -> None:
    bad = np.flatnonzero(~good)
    for n, user in enumerate(bad[: findings.limit].tolist()):
        times = 1 if n else len(bad) - min(len(bad), findings.limit) + 1
        got = "others" if expected else found[user]
        findings.add(what, f"user {user}", expected or want[user], got, times)


def _targets_are(
    targets: Targets, findings: Findings, good: Bools, what: str, expected: Any, got: Any
) -> None:
    bad = np.flatnonzero(~good)
    for n, k in enumerate(bad[: findings.limit].tolist()):
        times = 1 if n else len(bad) - min(len(bad), findings.limit) + 1
        findings.add(what, targets.where(k), expected(k), got(k), times)
