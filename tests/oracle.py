"""An independent, slow and obvious account of the Amazon path, to hold the pipeline against.

It knows the specification and nothing of the pipeline: plain loops over plain lists, one target at
a time, every history rebuilt from the whole list of reviews' order. Nothing here draws a random
number: negatives are checked by what must hold of them.

`oracle` says what the positives must be, `read_shards` reads what was written (both layouts),
`check_positives` and `check_negatives` compare the two.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

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
    """

    rows: list[Row]
    vocabulary: dict[str, dict[str, int]]
    counts: dict[str, Counter[str]]
    item_category: dict[int, int]
    edges: list[int]
    train_counts: list[int]
    touched: dict[int, set[int]] = field(repr=False)


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


def oracle(
    reviews: Sequence[Review | None],
    meta: Sequence[tuple[str, str | None]],
    *,
    max_len: int,
    bins: int,
    split: Literal["tin", "din"] = "tin",
    session_gap: int = 86_400,
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
    """
    kept = [(row, review) for row, review in enumerate(reviews) if review is not None]
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
    )


def read_shards(out: Path) -> list[dict[str, Any]]:
    """Every row of every shard below `out`, as dicts with `split`, histories without padding.

    Raises:
        AssertionError: padding is not 0, or a list is not as long as its layout says.
    """
    rows: list[dict[str, Any]] = []
    for split in SPLITS:
        for path in sorted((out / split).glob("part-*.parquet")):
            table = pq.read_table(path, partitioning=None)
            width = {
                column.name: column.type.list_size
                for column in table.schema
                if pa.types.is_fixed_size_list(column.type)
            }
            rows.extend({"split": split, **_unpadded(r, width, path)} for r in table.to_pylist())
    return rows


def _unpadded(row: dict[str, Any], width: dict[str, int], path: Path) -> dict[str, Any]:
    """The row with its history lists cut to `history_length`, what is cut checked to be 0."""
    length = row["history_length"]
    trimmed = dict(row)
    for name in (f"history_{sequence}" for sequence in SEQUENCES):
        whole, where = row[name], f"{path.name} row {row['row']} {name}"
        assert len(whole) == width.get(name, length), f"{where}: {len(whole)} entries"
        assert not any(whole[length:]), f"{where}: padding is not 0: {whole[length:]}"
        trimmed[name] = whole[:length]
    return trimmed


def positives(shard_rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with label 1, in the raw file's order."""
    return sorted((r for r in shard_rows if r["label"] == 1), key=lambda r: r["row"])


def check_positives(shard_rows: Iterable[dict[str, Any]], expected: Expected) -> None:
    """Assert that the positives are exactly the expected rows, in every column."""
    got = positives(shard_rows)
    assert [r["row"] for r in got] == [r.row for r in expected.rows], "the targets differ"
    columns = [
        *("split", "user", "target_item", "target_category", "target_time", "label"),
        "history_length",
        *(f"history_{name}" for name in SEQUENCES),
    ]
    for ours, theirs in zip(got, expected.rows, strict=True):
        for name in columns:
            want = getattr(theirs, name)
            assert ours[name] == want, f"row {theirs.row} {name}: {ours[name]} is not {want}"


def check_negatives(
    shard_rows: Iterable[dict[str, Any]],
    expected: Expected,
    *,
    per_positive: int = 1,
    exhausted: int = 0,
) -> None:
    """Assert what must hold of every negative, whatever the draw.

    Each is a reviewed item that its user never touched, before or after; it carries its own
    category, and its positive's split, user, time and history; each positive has `per_positive` of
    them, or `exhausted` where its user has touched every item.
    """
    rows = list(shard_rows)
    of_row = {r["row"]: r for r in positives(rows)}
    drawn: Counter[int] = Counter()
    shared = [
        *("split", "user", "target_time", "history_length"),
        *(f"history_{name}" for name in SEQUENCES),
    ]
    for negative in rows:
        if negative["label"] == 1:
            continue
        where, item = f"negative of row {negative['row']}", negative["target_item"]
        assert negative["label"] == 0, f"{where}: label {negative['label']}"
        assert negative["row"] in of_row, f"{where}: it has no positive"
        assert item in expected.item_category, f"{where}: no item has the id {item}"
        assert item not in expected.touched[negative["user"]], f"{where}: the user touched {item}"
        assert negative["target_category"] == expected.item_category[item], f"{where}: category"
        for name in shared:
            assert negative[name] == of_row[negative["row"]][name], f"{where}: {name}"
        drawn[negative["row"]] += 1
    for row, positive in of_row.items():
        everything = len(expected.touched[positive["user"]]) == len(expected.item_category)
        want = exhausted if everything else per_positive
        assert drawn[row] == want, f"row {row}: {drawn[row]} negatives, not {want}"
