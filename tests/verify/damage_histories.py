"""Damage to histories that each row would do with by itself: all rows of a target are alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow.parquet as pq

from tests.verify.damage_files import Planted
from tests.verify.made import IMPRESSIONS, REVIEWS, Columns, Copy, at


def alike(change: Callable[[Columns, int], object], least: int = 4) -> Any:
    """Change each row of a target with so many behaviours, by columns and row."""

    def damage(copy: Copy) -> None:
        def of_target(columns: Columns) -> None:
            one = columns["row"][at(columns, least)]
            for row in [r for r, of in enumerate(columns["row"]) if of == one]:
                change(columns, row)

        copy.edit(of_target)

    return damage


def swap_oldest(columns: Columns, row: int) -> None:
    for name in ("history_item", "history_category"):
        cells = columns[name][row]
        cells[0], cells[1] = cells[1], cells[0]


def repeat_newest(columns: Columns, row: int) -> None:
    """All but the newest behaviour are of the newest one's item."""
    newest = columns["history_length"][row] - 1
    for name in ("history_item", "history_category"):
        cells = columns[name][row]
        cells[:newest] = [cells[newest]] * newest


def a_second_earlier(columns: Columns, row: int) -> None:
    columns["history_time"][row][1] -= 1


def untouched_item(copy: Copy) -> None:
    """A behaviour in the middle is of an item that no row of its user has."""
    items = pq.ParquetFile(copy.out / "items.parquet").read().to_pydict()
    category = dict(zip(items["item"], items["category"], strict=True))

    def change(columns: Columns, row: int) -> None:
        user = columns["user"][row]
        of = [r for r, one in enumerate(columns["user"]) if one == user]
        touched = {item for r in of for item in columns["history_item"][r]}
        touched |= {columns["target_item"][r] for r in of}
        item = next(item for item in category if item not in touched)
        columns["history_item"][row][2] = item
        columns["history_category"][row][2] = category[item]

    alike(change)(copy)


HISTORY_DAMAGE: list[Planted] = [
    ("old behaviours exchanged", "histories of a user", REVIEWS, alike(swap_oldest)),
    ("the newest behaviour throughout", "histories of a user", REVIEWS, alike(repeat_newest)),
    ("a behaviour a second earlier", "histories of a user", REVIEWS, alike(a_second_earlier)),
    ("another behaviour in the middle", "histories of a user", REVIEWS, untouched_item),
    (
        "the oldest of a cut history exchanged",
        "histories of a user",
        REVIEWS,
        alike(swap_oldest, least=8),
    ),
]


def other_first(copy: Copy) -> None:
    """The first behaviour of users with one target is of another item, of the same category."""
    items = pq.ParquetFile(copy.out / "items.parquet").read().to_pydict()
    category = dict(zip(items["item"], items["category"], strict=True))

    def change(columns: Columns) -> None:
        users = columns["user"]
        rows = [r for r, n in enumerate(columns["history_length"]) if n == 1]
        for row in rows:
            of = {columns["target_item"][r] for r in rows if users[r] == users[row]}
            old = columns["history_item"][row][0]
            others = set(items["item"]) - of - {old}
            columns["history_item"][row][0] = min(x for x in others if category[x] == category[old])

    copy.edit(change, "test")


def later_of_a_user(change: Callable[[Columns, int], object]) -> Any:
    """Change a row whose user has one before it, by columns and row."""

    def damage(copy: Copy) -> None:
        def later(columns: Columns) -> None:
            user, length = columns["user"], columns["history_length"]
            change(
                columns,
                next(r for r in range(1, len(user)) if user[r] == user[r - 1] and length[r] > 3),
            )

        copy.edit(later)

    return damage


def first_of_a_split(split: str) -> Any:
    """Change all rows of a user in a split alike, whose past a split before tells, too."""

    def damage(copy: Copy) -> None:
        earlier = {
            user
            for user, length in zip(
                *copy.table().select(["user", "history_length"]).to_pydict().values(), strict=True
            )
            if length > 3
        }

        def change(columns: Columns) -> None:
            user = next(u for u in columns["user"] if u in earlier)
            for row in [r for r, of in enumerate(columns["user"]) if of == user]:
                other_brand(columns, row)

        copy.edit(change, split)

    return damage


def other_brand(columns: Columns, row: int) -> None:
    cells = columns["history_brand"][row]
    cells[1] = 2 if cells[1] != 2 else 3


def swap_tied(columns: Columns) -> None:
    """Exchange two behaviours of one second, wherever there are some."""
    for row, times in enumerate(columns["history_time"]):
        for k in range(columns["history_length"][row] - 1):
            ids = [columns[f"history_{name}"][row] for name in ("category", "brand")]
            if times[k] == times[k + 1] and any(x[k] != x[k + 1] for x in ids):
                for cells in ids:
                    cells[k], cells[k + 1] = cells[k + 1], cells[k]
                return
    raise AssertionError("no such row")


def backwards(copy: Copy) -> None:
    """The rows of a shard in the other order."""
    copy.edit(lambda columns: [column.reverse() for column in columns.values()])


PAST_DAMAGE: list[Planted] = [
    ("rows in another order", "order of rows", IMPRESSIONS, backwards),
    ("another past", "histories of a user", IMPRESSIONS, later_of_a_user(other_brand)),
    ("another past in valid", "histories of a user", IMPRESSIONS, first_of_a_split("valid")),
    ("another past in test", "histories of a user", IMPRESSIONS, first_of_a_split("test")),
    (
        "behaviours of a second exchanged",
        "time order",
        IMPRESSIONS,
        lambda copy: copy.edit(swap_tied),
    ),
]
