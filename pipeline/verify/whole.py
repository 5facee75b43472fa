"""What no single shard can answer: splits, negatives, totals, bins, what the manifest counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.description.split import TEST, TRAIN, VALID
from pipeline.verify.blocks import Block, Place, Values
from pipeline.verify.contract import Contract, History, split_of
from pipeline.verify.findings import Findings
from pipeline.verify.tables import Table
from schemas.arrays import Bools, Int64s
from schemas.manifest import (
    FIRST_ID,
    NAME,
    SPLITS,
    UNKNOWN_ID,
    Manifest,
    Share,
    in_history,
    not_in_train,
    unknown_behaviours,
    unknown_targets,
)

_CLOSE = 1e-4  # of the mean of rounded numbers: they have 24 bits


class Seen:
    """What one shard holds, in short.

    Attributes:
        split: index into `Contract.splits`.
        whole: whether all could be read and cut.
        place: a row of it, for people.
        sums: what is added up over shards, by name:
            of a history: rows by length, behaviours by bin, those at the upper edge of their bin;
            of all of them: targets without a behaviour;
            by label: rows whose target is in no history of theirs, and those where it is;
            of a field: whether a target, or in train a history, holds an id;
            of a number: values other than 0, their sum, that of their squares;
            of a lookup: targets whose key it lacks.
        parts: column -> its values by target, a part a block; `touched` holds what a user's
            negatives may not be, as user * vocabulary + id.
    """

    def __init__(self, path: str, contract: Contract) -> None:
        self.split, self.contract = split_of(path), contract
        self.rows, self.whole = 0, False
        self.place: Place = str
        self.sums: dict[str, Any] = {}
        self.parts: dict[str, list[Values]] = {}

    def add(self, block: Block, lookups: Sequence[Table]) -> None:
        """Take in a block."""
        self.rows, self.place = self.rows + len(block), block.place
        for name, value in self._sums(block, lookups):
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        for name, value in self._of_targets(block):
            self.parts.setdefault(name, []).append(value)

    def _sums(self, block: Block, lookups: Sequence[Table]) -> Iterator[tuple[str, Any]]:
        contract = self.contract
        for rule in contract.histories:
            bins, offsets = block[rule.column("interval_bin")], block.offsets[rule.column("time")]
            at_edge = block[rule.column("interval")] == rule.bounds[1][bins]
            yield f"lengths {rule.name}", np.bincount(np.diff(offsets), minlength=rule.max_len + 1)
            yield f"bins {rule.name}", np.bincount(bins, minlength=256)
            yield f"edges {rule.name}", np.bincount(bins[at_edge], minlength=256)
        lengths = [block[rule.column("length")][:: contract.each] for rule in contract.histories]
        yield "no history", np.count_nonzero(np.sum(lengths, axis=0) == 0)
        again = _in_history(block, contract) + 2 * (block["label"] & 1)
        yield "again", np.bincount(again, minlength=4)
        for name in contract.made.fields:
            held = np.zeros(contract.made.vocabulary[name], np.bool_)
            columns = [f"target_{name}", *(rule.column(name) for rule in contract.histories)]
            for column in columns[: 1 if self.split else None]:
                if column in block.columns:
                    held[block[column].clip(0, len(held) - 1)] = True
            yield f"ids {name}", held
        for name in contract.made.numbers:
            numbers = block[name][:: contract.each].astype(np.float64)  # of positives
            squares = np.square(numbers)  # and no dot product: BLAS would start threads
            with np.errstate(invalid="ignore"):  # infinities are found elsewhere
                sums = np.count_nonzero(numbers), numbers.sum(), squares.sum()
            yield f"number {name}", np.array(sums)
        if contract.made.vocabulary_from == "train" or contract.made.continues is not None:
            yield from _unknown(block, contract)
        for table in lookups:
            keys = block[contract.target(table.rule.key)].clip(0, len(table.first) - 2)
            at = table.row(keys, block["target_time"])[:: contract.each]
            yield f"lacking {table.rule.file}", np.count_nonzero(at == table.rows)

    def _of_targets(self, block: Block) -> Iterator[tuple[str, Values]]:
        contract, each, rule = self.contract, self.contract.each, self.contract.negatives
        lengths = [h.column("length") for h in contract.histories if contract.split.by == "order"]
        for name in ("row", "user", "target_time", *lengths):
            yield name, block[name][::each].copy()
        if contract.new is not None:
            ids = block[contract.target(contract.new)][::each]
            user = block["user"][::each].astype(np.int64) * contract.made.vocabulary[contract.new]
            yield "new", user + ids
            yield "is_known", ids >= FIRST_ID
        if rule is not None and rule.ever:
            ids = block[f"target_{rule.field}"].reshape(-1, each)
            yield "negative", ids[:, 1:].copy()
            user = block["user"][::each].astype(np.int64) * contract.made.vocabulary[rule.field]
            yield "touched", user + ids[:, 0]
            for column in [h.column(rule.field) for h in contract.histories if h.own]:
                if column in block.columns:
                    # A user's first event is no target, but alone in the history of the second.
                    alone = np.flatnonzero(np.diff(block.offsets[column])[::each] == 1)
                    first = block[column][block.offsets[column][alone * each]]
                    yield "touched", user[alone] + first


def _unknown(block: Block, contract: Contract) -> Iterator[tuple[str, Any]]:
    """How many targets, and behaviours of them, have no id; and how many there are."""
    made, each = contract.made, contract.each
    for name in (*made.fields, *made.features):
        if name in made.fields or made.features[name].kind == "id":
            ids = block[contract.target(name)][::each]
            yield f"unknown {name}", np.array([np.count_nonzero(ids == UNKNOWN_ID), len(ids)])
    for rule in contract.histories:
        for name in rule.fields:
            column = rule.column(name)
            lengths = np.diff(block.offsets[column])
            of_targets = np.repeat(np.arange(len(block)) % each == 0, lengths)
            ids = block[column][of_targets]
            counts = np.array([np.count_nonzero(ids == UNKNOWN_ID), len(ids)])
            yield f"unknown {rule.name} {name}", counts


def _in_history(block: Block, contract: Contract) -> Bools:
    """(rows,) whether all fields of the target are those of one behaviour of a history."""
    again, (first, *others) = np.zeros(len(block), np.bool_), contract.made.fields
    for rule in [one for one in contract.histories if {first, *others} <= set(one.fields)]:
        offsets = block.offsets[rule.column(first)]
        target = np.repeat(block[f"target_{first}"], np.diff(offsets))
        # Two unknown values need not be one.
        at = np.flatnonzero((block[rule.column(first)] == target) & (target != UNKNOWN_ID))
        row = np.searchsorted(offsets, at, side="right") - 1
        for name in others:  # of the few that are left
            same = block[rule.column(name)][at] == block[f"target_{name}"][row]
            at, row = at[same], row[same]
        again[row] = True
    return again


class Targets:
    """The targets of all shards, one after the other; the shards' own parts are given up."""

    def __init__(self, seen: Sequence[Seen], contract: Contract) -> None:
        self.seen, self.contract = seen, contract
        counts = [one.rows // contract.each for one in seen]
        self.ends = np.cumsum(counts, dtype=np.int64)  # (shards,) one after each one's last target
        self.split = np.repeat(np.array([one.split for one in seen], np.int8), counts)
        parts = [one.parts for one in seen if one.parts] or [{}]
        names = [*parts[0]]
        self._columns = {n: np.concatenate([x for p in parts for x in p.pop(n)]) for n in names}
        # Ids outside the vocabulary are found elsewhere.
        self.user = self["user"].clip(0, contract.made.vocabulary["user"] - 1)

    def __getitem__(self, column: str) -> Values:
        """(targets,) values, as in `Seen.parts`."""
        return self._columns.get(column, np.zeros(0, np.int64))

    def where(self, target: int) -> str:
        """A target's first row, for people."""
        n = int(np.searchsorted(self.ends, target, side="right"))
        first = int(self.ends[n - 1]) if n else 0
        return self.seen[n].place((target - first) * self.contract.each)


def check_rows(targets: Targets, findings: Findings) -> None:
    """Each raw row is a target once; a shard's rows follow each other by user and time."""
    rows, user, time = targets["row"], targets["user"], targets["target_time"]
    ordered = np.sort(rows)
    if np.any(ordered[1:] == ordered[:-1]):
        order, once = np.argsort(rows, kind="stable"), np.ones(len(rows), np.bool_)
        once[order[1:]] = rows[order[1:]] != rows[order[:-1]]
        findings.each("row twice", once, targets.where, "a row of the raw file once", rows)
    good = np.ones(len(rows), np.bool_)
    good[1:] = (user[1:] > user[:-1]) | ((user[1:] == user[:-1]) & (time[1:] >= time[:-1]))
    good[targets.ends[targets.ends < len(rows)]] = True
    findings.each("order of rows", good, targets.where, "users, then times, in their order", user)


def check_users(targets: Targets, users: Int64s, refused: int, findings: Findings) -> None:
    """As many targets of each user as its count makes; users left out have `refused` in all.

    Where not every event is a target, as many at the most.
    """
    fitted = targets.contract.made.continues is None
    least = targets.contract.made.target.k_core if fitted else 0
    enough, of_user = users >= least, "vocabulary/user.parquet: id {}".format
    enough[:FIRST_ID] = True
    findings.each("too few events", enough, of_user, f"{least} or more", users)
    made = np.bincount(targets.user, minlength=len(users))
    no_first = targets.contract.split.by == "order" and not targets.contract.asked
    want = np.maximum(users - 1, 0) if no_first else users
    rule, every = targets.contract.negatives, targets.contract.every
    if not every or (rule is not None and not rule.ever):
        findings.each("targets of a user", made <= want, "user {}".format, want, made)
        if every and (lost := int((want - made).sum())) != refused:
            where, expected = "rejected/targets.parquet", f"{lost} targets without rows"
            findings.add("targets of a user", where, expected, refused)
        return
    left_out = (made == 0) & (want > 0) & (refused > 0)
    good = (made == want) | left_out
    findings.each("targets of a user", good, "user {}".format, want, made)
    if (lost := int(want[left_out].sum())) != refused:
        where, expected = "rejected/targets.parquet", f"{lost} targets without rows"
        findings.add("targets of a user", where, expected, refused)


def check_split(targets: Targets, refused: int, findings: Findings) -> None:
    """Each target is in the split that the rule puts it in; `refused` are left out."""
    contract, rule, split = targets.contract, targets.contract.split, targets.split
    where, time = targets.where, targets["target_time"]
    if rule.by == "column" or contract.made.continues is not None:
        return
    if rule.by != "order":
        last = int(time[(time >= 0) & (time <= rule.latest)].max(initial=0))
        valid, test = rule.days(last)
        if not contract.every or refused:  # the last one of all may be left out
            are_days = rule.cuts == rule.days(rule.cuts[1])  # two, one after the other
            fine = rule.by != "day" or (are_days and test <= rule.cuts[1])
            if not fine:
                expected = f"two days, none of them before the last target, at {last}"
                findings.add("split", f"{NAME}: target.split", expected, rule.cuts)
            valid, test = rule.cuts
        want = (time >= valid).astype(np.int8) + (time >= test)
    else:
        # Shards lie by split, and each has a user's targets in their order.
        order, total = np.argsort(targets.user, kind="stable"), np.bincount(targets.user)
        nth, in_order = np.empty(len(order), np.int32), time[order]
        nth[order] = np.arange(len(order)) - np.repeat(np.cumsum(total) - total, total)
        good = nth == 0
        good[order[1:]] |= in_order[1:] >= in_order[:-1]
        findings.each("time of a target", good, where, "not before the user's one before it", time)
        for history in contract.histories:
            if not history.own or history.where or history.by_time:
                continue
            found = targets[history.column("length")]
            length = np.minimum(nth + 1, history.max_len)
            same = contract.every and (contract.negatives is None or contract.negatives.ever)
            good = found == length if same else found >= length
            findings.each("history length", good, where, length, found)
        after = total[targets.user] - 1 - nth
        want = np.full(len(order), TRAIN, np.int8)
        want[(after == 1) & rule.valid] = VALID
        want[after == 0] = TEST
        if refused and contract.negatives is not None and not contract.negatives.ever:
            # Any of a user's targets may be left out, the last ones, too.
            want = np.where((split <= want) & (want > TRAIN) | (split == want), split, want)
    good = split == want
    names = contract.splits
    findings.each("split", good, where, lambda k: names[want[k]], lambda k: names[split[k]])


def check_new(targets: Targets, findings: Findings) -> None:
    """No user has two targets of the same, where each is of what its user had not touched."""
    name, key = targets.contract.new, targets["new"]
    if name is None or targets.contract.asked:
        return
    by, again = np.argsort(key, kind="stable"), np.zeros(len(key), np.bool_)
    again[by[1:]] = key[by[1:]] == key[by[:-1]]
    again &= targets["is_known"].astype(np.bool_)
    column = targets.contract.target(name)
    findings.each("not new", ~again, targets.where, f"another {column} than before", key)


def check_never_touched(targets: Targets, findings: Findings) -> None:
    """No negative is one that its user touches at any time, the future included."""
    rule, sizes = targets.contract.negatives, targets.contract.made.vocabulary
    if rule is None or not rule.ever or not len(targets.user):
        return
    touched, negative = np.sort(targets["touched"]), targets["negative"]
    keys = targets.user.astype(np.int64)[:, None] * sizes[rule.field] + negative
    at = np.minimum(np.searchsorted(touched, keys), len(touched) - 1)
    expected = f"no {rule.field} that the user ever touches"
    good = np.all((touched[at] != keys) | (negative < FIRST_ID), axis=1)
    findings.each("negative", good, targets.where, expected, negative)


def check_totals(
    seen: Sequence[Seen], known: dict[str, int], contract: Contract, findings: Findings
) -> None:
    """Hold what the manifest counts to the rows, and to `known` counts, for `Contract.sums`."""
    made = contract.made
    for rule in contract.histories:
        for k, split in enumerate(contract.splits):
            held = _sum(seen, f"lengths {rule.name}", np.zeros(rule.max_len + 1, np.int64), k)
            told = np.array(rule.lengths.get(split, 0 * held))
            where = f"{NAME}: histories.{rule.name}.lengths.{split}[{{}}]".format
            findings.each("history lengths", held == told, where, held, told)
        if made.continues is None:
            _check_bins(seen, rule, findings)
    for name in made.numbers if made.continues is None else ():
        _check_number(name, _sum(seen, f"number {name}", np.zeros(3), TRAIN), made, findings)
    for name, share in _shares(seen, contract):
        if made.shares.get(name, share) != share:
            findings.add("shares", f"{NAME}: shares, {name}", share, made.shares[name])
    known = {name: _sum(seen, name, number) for name, number in (known | {"no history": 0}).items()}
    shares = {name: share.count for name, share in made.shares.items()}
    counts = shares | made.counts | known
    for name, parts in contract.sums.items():
        want = sum(counts.get(part, 0) for part in parts)
        for what, listed in (("counts", made.counts), ("shares", shares), ("counts", known)):
            if counts.keys() & set(parts) and listed.get(name, want) != want:
                findings.add(what, f"{NAME}: {what}, {name}", want, listed[name])


def _sum(seen: Sequence[Seen], name: str, zero: Any, split: int | None = None) -> Any:
    """What shards hold together, of one split or of all; `zero` where there are none."""
    of_split = [one.sums for one in seen if split in (None, one.split)]
    return sum((sums[name] for sums in of_split if name in sums), start=zero)


def _shares(seen: Sequence[Seen], contract: Contract) -> Iterator[tuple[str, Share]]:
    """What the rows say of targets, by the manifest's names."""
    made = contract.made
    for k, split in enumerate(contract.splits):
        held = _sum(seen, "again", np.zeros(4, np.int64), k)
        for label, (others, again) in enumerate(held.reshape(2, 2).tolist()):
            yield in_history(split, label), Share(again, again + others)
    told = made.vocabulary_from == "train" or made.continues is not None
    for k, split in enumerate(contract.splits) if told else ():
        for name in (*contract.made.fields, *contract.made.features):
            counts = _sum(seen, f"unknown {name}", np.zeros(2, np.int64), k)
            yield unknown_targets(split, name), Share(*counts.tolist())
        for rule in contract.histories:
            for name in rule.fields:
                counts = _sum(seen, f"unknown {rule.name} {name}", np.zeros(2, np.int64), k)
                yield unknown_behaviours(split, rule.name, name), Share(*counts.tolist())
    for name in made.fields if made.continues is None else ():
        none = np.zeros(made.vocabulary[name], np.bool_)
        train, *others = (_sum(seen, f"ids {name}", none, k)[FIRST_ID:] for k in range(3))
        for split, held in zip(SPLITS[1:], others, strict=True):
            share = Share(int((held & ~train).sum()), int(held.sum()))
            yield not_in_train(split, name), share


def _check_bins(seen: Sequence[Seen], rule: History, findings: Findings) -> None:
    """The counts of the bins, and whether the edges are the quantiles of the intervals."""
    where = f"{NAME}: histories.{rule.name}.bins"
    bins, edges, none = rule.bins.count, np.array(rule.bins.edges_s), np.zeros(256, np.int64)
    counts = _sum(seen, f"bins {rule.name}", none, TRAIN)[1 : bins + 1]
    at_edges = _sum(seen, f"edges {rule.name}", none, TRAIN)[1 : bins + 1]
    if counts.tolist() != (told := rule.bins.train_counts):
        findings.add("bin counts", f"{where}.train_counts", counts.tolist(), told)
    total, up_to = int(counts.sum()), np.cumsum(counts)
    for k, edge in enumerate(rule.bins.edges_s):
        # Equal edges share their intervals, which are in the first of their bins.
        same = np.flatnonzero(edges == edge)
        least = int(up_to[same[-1]])
        below = least - int(at_edges[same].sum())
        fine = least * bins >= (k + 1) * total > below * bins if total else edge == 0
        if not fine:
            expected = f"the smallest interval with {k + 1}/{bins} of the {total} at or below it"
            got = f"{edge}, with {below} below it and {least} at or below it"
            findings.add("bin edge", f"{where}.edges_s[{k}]", expected, got)


def _check_number(name: str, sums: Values, made: Manifest, findings: Findings) -> None:
    """Of the train rows whose number is known, the mean is 0, the deviation 1; others hold 0."""
    (some, total, squares), train = sums.tolist(), made.rows.get("train", 0) // made.each
    mean, std, known = (made.numbers[name].get(key) for key in ("mean", "std", "train_rows"))
    if known is None or mean is None or std is None:
        return
    # The mean is rounded, too, which counts where numbers hardly differ.
    close = _CLOSE + 4 * np.finfo(float).eps * max(1, abs(mean)) / std
    # Of numbers that are all one and the same, the deviation is taken to be 1.
    fine = abs(squares - known) <= close * known or (squares <= _CLOSE and std == 1)
    if not (fine and some <= known <= train and abs(total) <= close * train):
        expected = f"{known} of {train} numbers with the mean 0 and the deviation 1"
        got = f"{some:.0f} numbers, their sum {total:g}, that of their squares {squares:g}"
        findings.add("statistics", f"train, {name}", expected, got)
