"""Damage to tables beside the shards, and to what the manifest says of them and of lines read."""

from __future__ import annotations

import shutil
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.verify.damage_files import Planted, of_manifest
from tests.verify.made import BOTH, IMPRESSIONS, REVIEWS, Copy, checked


def flip_table(name: str) -> Any:
    """Another byte where no value lies: in the name of the program that wrote the file."""

    def damage(copy: Copy) -> None:
        path = copy.out / name
        data = path.read_bytes()
        assert data.count(b"parquet-cpp-arrow") == 1
        path.write_bytes(data.replace(b"parquet-cpp-arrow", b"parquet-cpp-Arrow"))

    return damage


def unlisted(copy: Copy) -> None:
    """A table with another byte, and no word of it in the manifest."""
    flip_table("vocabulary/user.parquet")(copy)
    copy.manifest(
        lambda m: m.update(
            tables=[t for t in m["tables"] if not t["path"].endswith("user.parquet")]
        )
    )


def listed(name: str) -> Any:
    """A shard's copy, listed as a table, where the file system takes the name."""

    def damage(copy: Copy) -> None:
        with suppress(OSError):
            shutil.copy(copy.path(), copy.out / name)
        shard = next(s for s in copy.read()["shards"] if copy.out / s["path"] == copy.path())
        copy.manifest(lambda m: m["tables"].append({**shard, "path": name}))

    return damage


def repeated(name: str) -> Any:
    """A table with each row twice."""

    def damage(copy: Copy) -> None:
        path = copy.out / f"{name}.parquet"
        table = pq.ParquetFile(path).read()
        pq.write_table(pa.concat_tables([table, table]), path)

    return damage


def read_more(what: str) -> Any:
    """One line more that was read."""
    name = f"{what} read"
    return of_manifest(lambda m: m["counts"].update({name: m["counts"][name] + 1}))


def other_mean(copy: Copy) -> None:
    """Another mean of the prices, with every price as it says."""
    how = copy.read()["numbers"]["price"]
    copy.manifest(lambda m: m["numbers"]["price"].update(mean=how["mean"] + how["std"]))
    for path in copy.paths():
        table = pq.ParquetFile(path).read()
        columns = table.to_pydict()
        columns["price"] = [p - 1 if p else p for p in columns["price"]]
        pq.write_table(pa.Table.from_pydict(columns, schema=table.schema), path)
    copy.settle()
    assert checked(copy.out).counts == {"statistics": 1, "digest": 1}


TABLE_DAMAGE: list[Planted] = [
    ("a flipped byte of the items", "checksum", REVIEWS, flip_table("items.parquet")),
    ("a flipped byte of the ads", "checksum", IMPRESSIONS, flip_table("ads.parquet")),
    ("a flipped byte of the users", "checksum", BOTH, flip_table("vocabulary/user.parquet")),
    (
        "a stray table",
        "stray file",
        BOTH,
        lambda c: shutil.copy(c.path(), c.out / "all.parquet"),
    ),
    (
        "a wrong checksum of a table",
        "checksum",
        BOTH,
        of_manifest(lambda m: m["tables"][0].update(sha256="0" * 64)),
    ),
    (
        "rows of a table",
        "rows of a table",
        BOTH,
        of_manifest(lambda m: m["tables"][0].update(rows=1)),
    ),
    ("a table that is not listed", "manifest", BOTH, unlisted),
    ("a shard among the tables", "manifest", BOTH, listed("train/part-99999.parquet")),
    ("a table elsewhere", "manifest", BOTH, listed("all.parquet")),
    ("a table of a long name", "manifest", BOTH, listed(f"vocabulary/{'a' * 300}.parquet")),
    ("rows below none", "manifest", BOTH, of_manifest(lambda m: m["tables"][0].update(rows=-1))),
    ("items without end", "table", REVIEWS, repeated("items")),
    ("ads without end", "table", IMPRESSIONS, repeated("ads")),
    ("a vocabulary without end", "vocabulary", BOTH, repeated("vocabulary/user")),
    ("a table twice", "manifest", BOTH, of_manifest(lambda m: m["tables"].append(m["tables"][0]))),
    (
        "a table that is not there",
        "missing file",
        BOTH,
        of_manifest(lambda m: m["tables"].append({**m["tables"][0], "path": "rejected/x.parquet"})),
    ),
    ("lines that were never read", "counts", REVIEWS, read_more("reviews")),
    ("impressions that were never read", "counts", IMPRESSIONS, read_more("impressions")),
    ("behaviours that were never read", "counts", IMPRESSIONS, read_more("behaviours")),
    ("another mean, followed by all prices", "statistics", IMPRESSIONS, other_mean),
    (
        "a vocabulary beyond memory",
        "vocabulary",
        BOTH,
        of_manifest(lambda m: m["vocabulary"].update(user=(1 << 31) - 1)),
    ),
]
