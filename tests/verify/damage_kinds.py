"""Damage to types and names: columns that stand twice, values of another type, no shards at all."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.manifest import SPLITS
from tests.verify.damage_files import Planted, of_manifest
from tests.verify.made import ALL, BOTH, IMPRESSIONS, REVIEWS, Copy


def twice(name: str) -> Any:
    """The last column of a table beside the shards once more."""

    def damage(copy: Copy) -> None:
        table = pq.ParquetFile(copy.out / name).read()
        last = table.column_names[-1]
        pq.write_table(table.append_column(last, table[last]), copy.out / name)

    return damage


def twice_in_a_shard(copy: Copy) -> None:
    table = copy.table()
    pq.write_table(table.append_column("label", table["label"]), copy.path())
    copy.settle()


def words(values: Any) -> Any:
    """Other values in the vocabulary of users."""

    def damage(copy: Copy) -> None:
        path = copy.out / "vocabulary/user.parquet"
        table = pq.ParquetFile(path).read()
        pq.write_table(table.set_column(0, "value", values(len(table))), path)

    return damage


def refused(*columns: pa.Array) -> Any:
    """A table of refused lines with these columns, all of them reasons."""

    def damage(copy: Copy) -> None:
        (copy.out / "rejected").mkdir()
        table = pa.table(list(columns), names=["reason"] * len(columns))
        pq.write_table(table, copy.out / "rejected/reviews.parquet")

    return damage


def price(**how: Any) -> Any:
    return of_manifest(lambda m: m["numbers"]["price"].update(how))


def no_shards(copy: Copy) -> None:
    for path in copy.paths():
        path.unlink()
    copy.manifest(lambda m: m.update(shards=[], rows=dict.fromkeys(SPLITS, 0)))


def no_behaviours(copy: Copy) -> None:
    """Histories without behaviours in a shard whose sessions stay."""

    def change(columns: dict[str, list[Any]]) -> None:
        for name, column in columns.items():
            if name.startswith("history_"):
                ragged = [len(x) for x in columns["session_brand"]].count(12) < len(column)
                empty: Any = [] if ragged else [0] * 9
                columns[name] = [empty if isinstance(x, list) else 0 for x in column]

    copy.edit(change)


KIND_DAMAGE: list[Planted] = [
    ("a column of a vocabulary twice", "vocabulary", BOTH, twice("vocabulary/user.parquet")),
    ("a column of the items twice", "table", REVIEWS, twice("items.parquet")),
    ("a column of the ads twice", "table", IMPRESSIONS, twice("ads.parquet")),
    ("a column of the profiles twice", "table", IMPRESSIONS, twice("profiles.parquet")),
    ("a column of a shard twice", "schema", ALL, twice_in_a_shard),
    (
        "values that are lists",
        "vocabulary",
        BOTH,
        words(lambda n: pa.array([[k] for k in range(n)])),
    ),
    (
        "values that are floats",
        "vocabulary",
        BOTH,
        words(lambda n: pa.array([k / 2 for k in range(n)])),
    ),
    ("refused for a number", "rejected", REVIEWS, refused(pa.array([1]))),
    ("refused for a list", "rejected", REVIEWS, refused(pa.array([["odd"]]))),
    ("two reasons", "rejected", REVIEWS, refused(pa.array(["odd"]), pa.array(["odd"]))),
    (
        "lines refused that are nowhere",
        "rejected",
        BOTH,
        of_manifest(lambda m: m["rejected"].update(odd=5)),
    ),
    (
        "a shard of another name",
        "manifest",
        BOTH,
        of_manifest(lambda m: m["shards"][0].update(path="train/part-0.parquet")),
    ),
    ("no shards at all", "targets of a user", BOTH, no_shards),
    ("a mean beyond all floats", "manifest", IMPRESSIONS, price(mean=10**400)),
    ("a deviation that is no number", "manifest", IMPRESSIONS, price(std=True)),
    ("a deviation of next to nothing", "ads.parquet disagrees", IMPRESSIONS, price(std=1e-320)),
    (
        "seconds beyond all floats",
        "manifest",
        BOTH,
        of_manifest(lambda m: m["steps"][0].update(seconds=10**400)),
    ),
    ("a field twice", "manifest", BOTH, of_manifest(lambda m: m["fields"].append(m["fields"][0]))),
    (
        "a feature that is named like a column",
        "manifest",
        BOTH,
        of_manifest(lambda m: m["vocabulary"].update(history_time=5)),
    ),
    (
        "a number that is named like a column",
        "manifest",
        BOTH,
        of_manifest(lambda m: m["numbers"].update(row={"mean": 0, "std": 1})),
    ),
    ("sessions of no history", "sessions", IMPRESSIONS, no_behaviours),
]
