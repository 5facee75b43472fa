"""An independent, slow and obvious account of the Amazon path, to hold the pipeline against.

It knows the specification and nothing of the pipeline: plain loops over plain lists, one target at
a time, every history rebuilt from the whole list of reviews' order. Nothing here draws a random
number: negatives are checked by what must hold of them.

`oracle` says what the positives must be; `amazon_made.py` reads what was written (both layouts)
and compares the two.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal, NamedTuple

import numpy as np

PADDING, UNKNOWN, FIRST = 0, 1, 2
SPLITS = ("train", "valid", "test")
SEQUENCES = ("item", "category", "position", "interval_bin", "time", "session")


class Review(NamedTuple):
    """One line of the reviews file; `time` in unix seconds."""

    user: str
    item: str
    time: int


@dataclass(frozen=True)
class Row:
    """A positive target as its shard must hold it; lists have `history_length` entries."""

    row: int
    split: str
    user: int
    target_item: int
    target_category: int
    target_time: int
    label: int
    history_length: int
    history_item: list[int]
    history_category: list[int]
    history_position: list[int]
    history_interval_bin: list[int]
    history_time: list[int]
    history_session: list[int]
    history_interval: list[int]


@dataclass(frozen=True)
class Expected:
    """What a data set must hold.

    Attributes:
        rows: one per positive target, in the file's order of reviews.
        vocabulary: field (`item`, `category`, `user`) -> value -> id.
        counts: field -> value -> occurrences in the reviews.
        item_category: item id -> category id.
        edges: the `bins - 1` edges in seconds; empty when the train split has no behaviour.
        train_counts: stored behaviours of train positives in bins 1..bins.
        touched: user id -> the item ids of the user's whole history, the future included.
        repeated: reviews of the same user, item and time as an earlier one.
        listed: reviewed items with a meta line, and those of them with a category.
    """

    rows: list[Row]
    vocabulary: dict[str, dict[str, int]]
    counts: dict[str, Counter[str]]
    item_category: dict[int, int]
    edges: list[int]
    train_counts: list[int]
    touched: dict[int, set[int]] = field(repr=False)
    repeated: int = 0
    listed: tuple[int, int] = (0, 0)


def ids(values: Iterable[str]) -> dict[str, int]:
    """value -> id: 0 is padding, 1 unknown, from 2 on in the order of the UTF-8 bytes."""
    ordered = sorted(set(values), key=lambda value: value.encode("utf-8"))
    return {value: FIRST + rank for rank, value in enumerate(ordered)}


def quantile_edges(intervals: Sequence[int], bins: int) -> list[int]:
    """The `bins - 1` equal-frequency edges; each is an interval that occurs.

    The ranks are fractions: as a float, 9/11 of 77 is a hair above 63, and the edge one too far.
    """
    if not intervals or bins == 1:
        return []
    ranks: Any = np.array([Fraction(k, bins) for k in range(1, bins)], dtype=object)
    exact: Any = np.array(intervals, dtype=object)
    return [int(edge) for edge in np.quantile(exact, ranks, method="inverted_cdf")]


def interval_bin(interval: int, edges: Sequence[int]) -> int:
    """b(t) = 1 + (number of edges < t)."""
    return 1 + sum(1 for edge in edges if edge < interval)


def sessions(times: Sequence[int], gap: int) -> list[int]:
    """The session of each behaviour, oldest first: 1 is the latest; a new one after > `gap`."""
    numbers: list[int] = []
    session, later = 1, None
    for time in reversed(times):
        if later is not None and later - time > gap:
            session += 1
        numbers.append(session)
        later = time
    return numbers[::-1]


def split_of(index: int, reviews: int, split: Literal["tin", "din"]) -> str | None:
    """The split of a user's 0-based `index` of `reviews`; None where it is no target."""
    if index < 1:
        return None
    if index == reviews - 1:
        return "test"
    if index == reviews - 2 and split == "tin":
        return "valid"
    return "train"


def in_history(rows: Iterable[dict[str, Any]], fields: Sequence[str]) -> Counter[tuple[Any, ...]]:
    """(split, label, whether the target is one of its own behaviours) -> rows, of any data set."""
    return Counter(
        (
            row["split"],
            row["label"],
            row[f"target_{fields[0]}"] >= FIRST  # two unknown ones need not be one
            and tuple(row[f"target_{name}"] for name in fields)
            in zip(*(row[f"history_{name}"] for name in fields), strict=True),
        )
        for row in rows
    )


def not_in_train(
    rows: Iterable[dict[str, Any]], fields: Sequence[str]
) -> dict[tuple[str, str], tuple[int, int]]:
    """(split, field) -> distinct ids of its targets that no train row holds; all of them."""
    held: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    for row in rows:
        for name in fields:
            held[row["split"], name].add(row[f"target_{name}"])
            if row["split"] == "train":
                held["train", name].update(row[f"history_{name}"])
    return {
        (split, name): (len(ids - held["train", name]), len(ids))
        for split in ("valid", "test")
        for name in fields
        for ids in [held[split, name] - {UNKNOWN}]
    }


def oracle(
    reviews: Sequence[Review | None],
    meta: Sequence[tuple[str, str | None]],
    *,
    max_len: int,
    bins: int,
    split: Literal["tin", "din"] = "tin",
    session_gap: int = 86_400,
    duplicates: Literal["keep", "drop"] = "keep",
) -> Expected:
    """What the Amazon path must make of these raw files.

    Args:
        reviews: the lines of the reviews file in order; None is a line that was refused, which
            still counts as a row of the file.
        meta: (item, last element of its last path or None), in the file's order; of a repeated
            item the first line counts, and only items that are reviewed count.
        max_len: L, the latest behaviours kept.
        bins: equal-frequency bins of the interval.
        split: `tin` (train, valid, test) or `din` (train, test).
        session_gap: seconds; a session ends where the gap is strictly more.
        duplicates: `drop` leaves out each review that is as an earlier one.
    """
    kept = [(row, review) for row, review in enumerate(reviews) if review is not None]
    first: dict[Review, int] = {}
    for row, review in kept:
        first.setdefault(review, row)
    repeated = len(kept) - len(first)
    if duplicates == "drop":
        kept = [(row, review) for review, row in first.items()]
    reviewed = {review.item for _, review in kept}
    category_of: dict[str, str | None] = {}
    for item, category in meta:
        if item in reviewed and item not in category_of:
            category_of[item] = category

    users = ids(review.user for _, review in kept)
    items = ids(reviewed)
    categories = ids(c for c in category_of.values() if c is not None)
    item_category = {
        items[item]: UNKNOWN if (c := category_of.get(item)) is None else categories[c]
        for item in reviewed
    }
    counts: dict[str, Counter[str]] = {
        "user": Counter(review.user for _, review in kept),
        "item": Counter(review.item for _, review in kept),
        "category": Counter(
            c for _, review in kept if (c := category_of.get(review.item)) is not None
        ),
    }

    by_user: defaultdict[str, list[tuple[int, Review]]] = defaultdict(list)
    for row, review in kept:
        by_user[review.user].append((row, review))

    drafts: list[tuple[int, str, Review, list[Review]]] = []
    for behaviours in by_user.values():
        # Sorted by time alone: Python's sort is stable, so ties keep the file's order.
        ordered = sorted(behaviours, key=lambda pair: pair[1].time)
        for index, (row, target) in enumerate(ordered):
            name = split_of(index, len(ordered), split)
            if name is not None:
                before = [review for _, review in ordered[:index]]
                drafts.append((row, name, target, before[-max_len:]))
    drafts.sort(key=lambda draft: draft[0])

    train_intervals = [
        target.time - behaviour.time
        for _, name, target, history in drafts
        if name == "train"
        for behaviour in history
    ]
    edges = quantile_edges(train_intervals, bins)

    rows: list[Row] = []
    for row, name, target, history in drafts:
        length = len(history)
        intervals = [target.time - behaviour.time for behaviour in history]
        rows.append(
            Row(
                row=row,
                split=name,
                user=users[target.user],
                target_item=items[target.item],
                target_category=item_category[items[target.item]],
                target_time=target.time,
                label=1,
                history_length=length,
                history_item=[items[b.item] for b in history],
                history_category=[item_category[items[b.item]] for b in history],
                history_position=[length - k for k in range(length)],
                history_interval_bin=[interval_bin(t, edges) for t in intervals],
                history_time=[b.time for b in history],
                history_session=sessions([b.time for b in history], session_gap),
                history_interval=intervals,
            )
        )
    in_bin = Counter(b for r in rows if r.split == "train" for b in r.history_interval_bin)
    return Expected(
        rows=rows,
        vocabulary={"user": users, "item": items, "category": categories},
        counts=counts,
        item_category=item_category,
        edges=edges,
        train_counts=[in_bin[k] for k in range(1, bins + 1)],
        touched={
            users[user]: {items[review.item] for _, review in behaviours}
            for user, behaviours in by_user.items()
        },
        repeated=repeated,
        listed=(len(category_of), sum(c is not None for c in category_of.values())),
    )
