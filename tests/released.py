"""The released DIN and TIN preprocessing of Amazon, as an algorithm, for the parity check.

Written from its description in the specification, with its order of random draws: one stream of
`random.seed(1234)`, users in sorted order, one draw of `randint(0, items - 1)` per review of the
user, the first review included, repeated while it hits an item of the user's whole history.
Its ids are ranks from 0; ours are theirs + 2.
"""

from __future__ import annotations

import ast
import gzip
import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHIFT = 2

# (user, history, target, label)
Sample = tuple[int, tuple[int, ...], int, int]


@dataclass(frozen=True)
class Released:
    """The samples of each split and each item's category, in ids that are ranks from 0."""

    train: Counter[Sample]
    valid: Counter[Sample]
    test: Counter[Sample]
    categories: list[int]


def read_reviews(path: Path) -> list[tuple[str, str, int]]:
    """(user, item, time) of each line of a reviews file, in order."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        decoded = (json.loads(line) for line in lines)
        return [(r["reviewerID"], r["asin"], r["unixReviewTime"]) for r in decoded]


def read_meta(path: Path) -> list[tuple[str, str]]:
    """(item, last element of its last path) of each line of a meta file, in order."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        decoded = (ast.literal_eval(line) for line in lines)
        return [(m["asin"], m["categories"][-1][-1]) for m in decoded]


def released(
    reviews: Sequence[tuple[str, str, int]], meta: Sequence[tuple[str, str]], seed: int = 1234
) -> Released:
    """The samples that the released code makes, with a valid split as TIN adds it.

    Raises:
        ValueError: a reviewed item has no meta line, or several: the released code has no rule.
    """
    reviewed = {item for _, item, _ in reviews}
    kept = [(item, category) for item, category in meta if item in reviewed]
    category_of = dict(kept)
    if len(kept) != len(reviewed) or category_of.keys() != reviewed:
        raise ValueError("every reviewed item needs exactly one meta line")

    item_rank = {item: rank for rank, item in enumerate(sorted(category_of))}
    category_rank = {c: rank for rank, c in enumerate(sorted(set(category_of.values())))}
    users = sorted({user for user, _, _ in reviews})
    categories = [category_rank[category_of[item]] for item in sorted(category_of)]

    behaviours: dict[str, list[tuple[int, int]]] = {user: [] for user in users}
    for user, item, time in reviews:
        behaviours[user].append((time, item_rank[item]))

    stream = random.Random(seed)
    train: Counter[Sample] = Counter()
    valid: Counter[Sample] = Counter()
    test: Counter[Sample] = Counter()
    for user_rank, user in enumerate(users):
        items = [item for _, item in sorted(behaviours[user], key=lambda pair: pair[0])]
        touched = set(items)
        negatives = []
        for _ in items:
            draw = stream.randint(0, len(item_rank) - 1)
            while draw in touched:
                draw = stream.randint(0, len(item_rank) - 1)
            negatives.append(draw)
        n = len(items)
        for i in range(1, n):
            into = test if i == n - 1 else valid if i == n - 2 else train
            history = tuple(items[:i])
            into[user_rank, history, items[i], 1] += 1
            into[user_rank, history, negatives[i], 0] += 1
    return Released(train, valid, test, categories)


def as_released(shard_rows: Iterable[dict[str, Any]], split: str) -> Counter[Sample]:
    """One split of shard rows (see `oracle.read_shards`) as samples in the released ids."""
    return Counter(
        (
            row["user"] - SHIFT,
            tuple(item - SHIFT for item in row["history_item"]),
            row["target_item"] - SHIFT,
            row["label"],
        )
        for row in shard_rows
        if row["split"] == split
    )
