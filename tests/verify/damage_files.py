"""Damage to whole files, the manifest, and the tables beside the shards."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.identity import key_of
from schemas.manifest import NAME, WITHOUT_META, WITHOUT_PROFILE, in_history, load
from tests.verify.made import BOTH, DAY, IMPRESSIONS, REVIEWS, Columns, Copy, checked

# What is done, what must be found, in which data sets, how.
Planted = tuple[str, str, tuple[str, ...], Callable[[Copy], Any]]


def flip(copy: Copy) -> None:
    data = bytearray(copy.path().read_bytes())
    data[len(data) // 3] ^= 1
    copy.path().write_bytes(data)


def cut_file(copy: Copy) -> None:
    path = copy.path()
    path.write_bytes(path.read_bytes()[:-100])


def other_footer(copy: Copy) -> None:
    path = copy.path()
    path.write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    copy.manifest(
        lambda m: m["shards"][0].update(sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    )


def stray(copy: Copy) -> None:
    shutil.copy(copy.path(), copy.path().with_name("part-99999.parquet"))


def of_manifest(change: Callable[[dict[str, Any]], object]) -> Any:
    return lambda copy: copy.manifest(change)


def resettle(**settings: Any) -> Any:
    """Other settings, with the key that they make."""

    def damage(copy: Copy) -> None:
        copy.manifest(lambda m: m["config"].update(settings))
        key = key_of(load(copy.out))
        copy.manifest(lambda m: m["config"].update(key=key))
        assert set(checked(copy.out).counts) == {"manifest"}

    return damage


def move_edge(copy: Copy) -> None:
    def change(m: dict[str, Any]) -> None:
        m["bins"]["edges_s"][1] += 2 * DAY

    copy.manifest(change)


def move_edge_everywhere(copy: Copy) -> None:
    """Another edge, with every bin of every shard as it says."""
    raw = copy.read()
    edges = raw["bins"]["edges_s"]
    edges[0] = edges[0] + (edges[1] - edges[0]) // 2
    copy.manifest(lambda m: m["bins"].update(edges_s=edges))
    for path in copy.paths():
        table = pq.ParquetFile(path).read()
        columns = table.to_pydict()
        for row, n in enumerate(columns["history_length"]):
            columns["history_interval_bin"][row][:n] = [
                1 + sum(e < columns["target_time"][row] - t for e in edges)
                for t in columns["history_time"][row][:n]
            ]
        pq.write_table(pa.Table.from_pydict(columns, schema=table.schema), path)
    copy.settle()


def set_words(name: str, column: str, row: int, value: Any) -> Any:
    return lambda copy: copy.small(
        f"vocabulary/{name}.parquet", lambda c: c[column].__setitem__(row, value)
    )


def bump(name: str) -> Any:
    """Another id of a vocabulary of at least 3, in a table beside the shards."""
    table, column = name.split(".")

    def change(columns: Columns) -> None:
        columns[column][2] = 2 + (columns[column][2] - 1) % 2

    return lambda copy: copy.small(f"{table}.parquet", change)


def without(name: str) -> Any:
    return lambda copy: (copy.out / name).unlink()


def cut_table(name: str) -> Any:
    def damage(copy: Copy) -> None:
        table = pq.ParquetFile(copy.out / name).read()
        pq.write_table(table.slice(1), copy.out / name)

    return damage


def narrow(name: str, column: str) -> Any:
    """A table beside the shards without one of its columns."""

    def damage(copy: Copy) -> None:
        table = pq.ParquetFile(copy.out / name).read()
        pq.write_table(table.drop_columns([column]), copy.out / name)

    return damage


FILE_DAMAGE: list[Planted] = [
    # files
    ("a flipped byte", "checksum", BOTH, flip),
    ("a shard cut short", "unreadable shard", BOTH, cut_file),
    ("a shard with another footer", "unreadable shard", BOTH, other_footer),
    ("a missing shard", "missing shard", BOTH, lambda c: c.path("test").unlink()),
    ("a stray shard", "stray file", BOTH, stray),
    ("a half-written shard", "stray file", BOTH, lambda c: (c.out / "train/.tmp-x").touch()),
    ("no vocabulary", "missing file", BOTH, without("vocabulary/user.parquet")),
    (
        "a stray vocabulary",
        "stray file",
        BOTH,
        lambda c: shutil.copy(c.out / "vocabulary/user.parquet", c.out / "vocabulary/x.parquet"),
    ),
    ("no items", "missing file", REVIEWS, without("items.parquet")),
    ("no profiles", "missing file", IMPRESSIONS, without("profiles.parquet")),
    (
        "ads that are no Parquet",
        "unreadable file",
        IMPRESSIONS,
        lambda c: (c.out / "ads.parquet").write_bytes(b"no"),
    ),
    # the manifest
    ("no JSON", "manifest", BOTH, lambda c: (c.out / NAME).write_text("{")),
    ("another format", "manifest", BOTH, of_manifest(lambda m: m.update(format=2))),
    ("a lacking key", "manifest", BOTH, of_manifest(lambda m: m.pop("bins"))),
    ("rows that are text", "manifest", BOTH, of_manifest(lambda m: m["rows"].update(train="9"))),
    ("max_len 0", "manifest", BOTH, of_manifest(lambda m: m.update(max_len=0))),
    ("max_len that is text", "manifest", BOTH, of_manifest(lambda m: m.update(max_len="5"))),
    ("an unknown layout", "manifest", BOTH, of_manifest(lambda m: m.update(layout="wide"))),
    (
        "edges that decrease",
        "manifest",
        BOTH,
        of_manifest(lambda m: m["bins"]["edges_s"].reverse()),
    ),
    ("an edge too few", "manifest", BOTH, of_manifest(lambda m: m["bins"]["edges_s"].pop())),
    ("a shard twice", "manifest", BOTH, of_manifest(lambda m: m["shards"].append(m["shards"][0]))),
    (
        "an unknown timezone",
        "manifest",
        IMPRESSIONS,
        of_manifest(lambda m: m["config"].update(timezone="Nowhere")),
    ),
    ("a field too few", "schema", BOTH, of_manifest(lambda m: m["fields"].pop())),
    ("another seed", "manifest", BOTH, of_manifest(lambda m: m["config"].update(seed=9))),
    ("another version", "manifest", BOTH, of_manifest(lambda m: m.update(version="9.9"))),
    ("another raw file", "manifest", BOTH, of_manifest(lambda m: m["inputs"][0].update(bytes=9))),
    ("no key", "manifest", BOTH, of_manifest(lambda m: m["config"].pop("key"))),
    ("another length in the settings", "manifest", BOTH, resettle(max_len=77)),
    ("another layout in the settings", "manifest", BOTH, resettle(layout="any")),
    ("other bins in the settings", "manifest", BOTH, resettle(bins=99)),
    ("no item", "manifest", REVIEWS, of_manifest(lambda m: m["fields"].remove("item"))),
    ("rows of a split", "manifest", BOTH, of_manifest(lambda m: m["rows"].update(test=1))),
    (
        "rows of a shard",
        "rows of a shard",
        BOTH,
        of_manifest(lambda m: m["shards"][0].update(rows=1)),
    ),
    (
        "a wrong checksum",
        "checksum",
        BOTH,
        of_manifest(lambda m: m["shards"][0].update(sha256="0" * 64)),
    ),
    (
        "the size of a vocabulary",
        "vocabulary",
        BOTH,
        of_manifest(lambda m: m["vocabulary"].update(category=99)),
    ),
    (
        "a count of a bin",
        "bin counts",
        BOTH,
        of_manifest(
            lambda m: m["bins"]["train_counts"].append(m["bins"]["train_counts"].pop() + 1)
        ),
    ),
    (
        "a count of lengths",
        "history lengths",
        BOTH,
        of_manifest(lambda m: m["history_lengths"]["test"].reverse()),
    ),
    ("another digest", "digest", BOTH, of_manifest(lambda m: m["digests"].update(colour="0"))),
    ("a digest too few", "digest", BOTH, of_manifest(lambda m: m["digests"].popitem())),
    (
        "lines that were never refused",
        "rejected",
        BOTH,
        lambda c: (
            (c.out / "rejected").mkdir(),
            pq.write_table(pa.table({"reason": ["odd"]}), c.out / "rejected/reviews.parquet"),
        ),
    ),
    (
        "another count",
        "counts",
        IMPRESSIONS,
        of_manifest(lambda m: m["counts"].update({"impressions without behaviours": 1})),
    ),
    (
        "another share of targets in their own history",
        "shares",
        BOTH,
        of_manifest(lambda m: m["shares"][in_history("test", 1)].update(of=10**6)),
    ),
    (
        "fewer items without a meta line",
        "shares",
        REVIEWS,
        of_manifest(lambda m: m["shares"].update({WITHOUT_META: {"count": 1, "of": 60}})),
    ),
    (
        "a count that is told otherwise as a share",
        "shares",
        IMPRESSIONS,
        of_manifest(lambda m: m["shares"][WITHOUT_PROFILE].update(count=1)),
    ),
    (
        "more of a share than there are",
        "manifest",
        BOTH,
        of_manifest(lambda m: m["shares"][in_history("test", 1)].update(count=10**6)),
    ),
    ("a wrong edge", "interval bin", BOTH, move_edge),
    ("a wrong edge, followed by all bins", "bin edge", BOTH, move_edge_everywhere),
]
