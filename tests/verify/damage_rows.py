"""Damage to the rows of shards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.verify.made import Columns, Copy, at


def cell(name: str, value: Any, *, least: int = 4, place: int = 0, **which: Any) -> Any:
    """Set a column of a row, or a place in its list, to a value, or what a function makes of it."""

    def damage(copy: Copy) -> None:
        def change(columns: Columns) -> None:
            row = at(columns, least, **which)
            old = columns[name][row]
            if isinstance(old, list):
                old[place] = value(old[place]) if callable(value) else value
            else:
                columns[name][row] = value(old) if callable(value) else value

        copy.edit(change)

    return damage


def target(name: str, value: Callable[[Any], Any]) -> Any:
    """Change a column in all rows of a target: so no row differs from its positive's."""

    def damage(copy: Copy) -> None:
        def change(columns: Columns) -> None:
            one = columns["row"][at(columns)]
            for row, of in enumerate(columns["row"]):
                if of == one:
                    columns[name][row] = value(columns[name][row])

        copy.edit(change)

    return damage


def drop(rows: int, split: str = "train") -> Any:
    def damage(copy: Copy) -> None:
        table = copy.table(split)
        copy.write(copy.path(split), table.slice(rows))

    return damage


def drop_target(copy: Copy) -> None:
    table = copy.table()
    row = table["row"].to_pylist()
    copy.write(copy.path(), table.filter(pa.array([r != row[-1] for r in row])))


def repeat_target(copy: Copy) -> None:
    table = copy.table()
    row = table["row"].to_pylist()
    again = table.filter(pa.array([r == row[0] for r in row]))
    copy.write(copy.path(), pa.concat_tables([table, again]))


def into(split: str) -> Any:
    """Move a train target of the first shard to another split."""

    def damage(copy: Copy) -> None:
        table = copy.table()
        row = table["row"].to_pylist()
        moved = pa.array([r == row[0] for r in row])
        other = copy.path(split)
        rest = pq.ParquetFile(other).read()
        pq.write_table(pa.concat_tables([rest, table.filter(moved)]), other)
        copy.write(copy.path(), table.filter(pa.array([r != row[0] for r in row])))

    return damage


def swap(one: str, other: str) -> Any:
    """Exchange what two columns hold."""

    def change(columns: Columns) -> None:
        columns[one], columns[other] = columns[other], columns[one]

    return lambda copy: copy.edit(change)


def schema(change: Callable[[pa.Table], pa.Table]) -> Any:
    return lambda copy: copy.write(copy.path(), change(copy.table()))


def retype(name: str, kind: pa.DataType, nullable: bool = False) -> Any:
    def change(table: pa.Table) -> pa.Table:
        place = table.column_names.index(name)
        return table.set_column(place, pa.field(name, kind, nullable), table[name].cast(kind))

    return schema(change)


def nulls(copy: Copy) -> None:
    table = copy.table()
    values = [None, *table["user"].to_pylist()[1:]]
    copy.write(copy.path(), table.set_column(1, "user", pa.array(values, pa.int32())))


def swap_times(copy: Copy) -> None:
    def change(columns: Columns) -> None:
        for row, times in enumerate(columns["history_time"]):
            if columns["history_length"][row] > 3 and times[0] != times[2]:
                times[0], times[2] = times[2], times[0]
                return

    copy.edit(change)


def from_the_oldest(copy: Copy) -> None:
    """Positions counted from the wrong end."""

    def change(columns: Columns) -> None:
        for row, n in enumerate(columns["history_length"]):
            columns["history_position"][row][:n] = columns["history_position"][row][:n][::-1]

    copy.edit(change)


def later_sessions(copy: Copy) -> None:
    """Sessions that begin at 2."""

    def change(columns: Columns) -> None:
        for row, n in enumerate(columns["history_length"]):
            cells = columns["history_session"][row]
            cells[:n] = [session + 1 for session in cells[:n]]

    copy.edit(change)


def pad(copy: Copy) -> None:
    def change(columns: Columns) -> None:
        row = next(r for r, n in enumerate(columns["history_length"]) if n < 7)
        columns["history_time"][row][-1] = 5

    copy.edit(change)


def swap_histories(copy: Copy) -> None:
    """Two users' whole histories exchanged, of targets with as many behaviours."""

    def change(columns: Columns) -> None:
        own = [n for n in columns if n.startswith("history_")] + ["target_time"]
        rows: dict[int, list[int]] = {}
        for row, of in enumerate(columns["row"]):
            rows.setdefault(of, []).append(row)
        targets = [r for r in rows.values() if columns["history_length"][r[0]] == 2]
        one = targets[0]
        other = next(r for r in targets if columns["user"][r[0]] != columns["user"][one[0]])
        for a, b in zip(one, other, strict=True):
            for name in own:
                columns[name][a], columns[name][b] = columns[name][b], columns[name][a]

    copy.edit(change)


def negative_from(which: str) -> Any:
    """A negative that its user touches, with the right category."""

    def damage(copy: Copy) -> None:
        items = pq.ParquetFile(copy.out / "items.parquet").read().to_pydict()
        category = dict(zip(items["item"], items["category"], strict=True))
        later = copy.table("test").to_pydict()
        firsts = [r for r, label in enumerate(later["label"]) if label]
        last = {later["user"][r]: later["target_item"][r] for r in firsts}

        def change(columns: Columns) -> None:
            row = at(columns, label=0)
            item = {
                "history": columns["history_item"][row][1],
                "positive": columns["target_item"][row - 1],
                "future": last[columns["user"][row]],
            }[which]
            columns["target_item"][row] = item
            columns["target_category"][row] = category[item]

        copy.edit(change)

    return damage


def other_history(copy: Copy) -> None:
    """A negative whose history is not its positive's, but would do by itself."""

    def change(columns: Columns) -> None:
        row = at(columns, label=0)
        for name in ("history_item", "history_category"):
            cells = columns[name][row]
            cells[0], cells[1] = cells[1], cells[0]

    copy.edit(change)


def swap_labels(copy: Copy) -> None:
    def change(columns: Columns) -> None:
        columns["label"][0], columns["label"][1] = 0, 1

    copy.edit(change)


def with_sessions(columns: Columns, least: int = 2) -> int:
    """A row with so many sessions."""
    return next(r for r, n in enumerate(columns["session_length"]) if sum(map(bool, n)) >= least)


def sessions(change: Callable[[Columns, int], object], least: int = 2) -> Any:
    return lambda copy: copy.edit(lambda columns: change(columns, with_sessions(columns, least)))


def swap_sessions(columns: Columns, row: int) -> None:
    lengths = columns["session_length"][row]
    lengths[0], lengths[1] = lengths[1], lengths[0]
    for name in ("session_category", "session_brand"):
        cells = columns[name][row]
        if len(cells) == 12:
            cells[:8] = cells[4:8] + cells[:4]
        else:
            first, both = lengths[1], lengths[0] + lengths[1]
            cells[:both] = cells[first:both] + cells[:first]


def drop_session(columns: Columns, row: int) -> None:
    """Without the row's latest session."""
    lengths = columns["session_length"][row]
    fixed = len(columns["session_category"][row]) == 12
    width = 4 if fixed else lengths[0]
    columns["session_length"][row] = lengths[1:] + [0] * fixed
    for name in ("session_category", "session_brand"):
        columns[name][row] = columns[name][row][width:] + [0] * (4 * fixed)


def other_cell(columns: Columns, row: int) -> None:
    cells = columns["session_category"][row]
    cells[0] = 2 + (cells[0] - 1) % 8


def to_day(seconds: int) -> Callable[[Any], Any]:
    return lambda old: old + seconds


def other_id(old: int) -> int:
    return 2 if old != 2 else 3


def same_second(copy: Copy) -> None:
    def change(columns: Columns) -> None:
        row = at(columns)
        newest = columns["history_length"][row] - 1
        columns["history_time"][row][newest] = columns["target_time"][row]

    copy.edit(change)
