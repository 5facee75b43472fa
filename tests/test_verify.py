"""`verify` finds each of many kinds of planted damage, and nothing in sound data sets."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.verify import LIMIT, Report, verify
from schemas.errors import ContractError, InputError, UsageError
from schemas.manifest import NAME, SPLITS
from tests.alibaba_made import RawLog, alibaba
from tests.alibaba_oracle import PROFILE
from tests.conftest import SHARED, amazon, finished, write_raw
from tests.oracle import Review

DAY = 86_400
MAY_3 = 1_493_740_800  # midnight in Beijing, where the days begin
Columns = dict[str, list[Any]]
REVIEWS, IMPRESSIONS = ("padded reviews", "ragged reviews"), ("padded ads", "ragged ads")
PADDED, RAGGED = (REVIEWS[0], IMPRESSIONS[0]), (REVIEWS[1], IMPRESSIONS[1])
ALL = REVIEWS + IMPRESSIONS
BOTH = (REVIEWS[0], IMPRESSIONS[1])  # where the layout does not matter


# ---- small data sets, and copies of them to damage


def review_files(folder: Path) -> Path:
    """40 users with 2 to 14 reviews of 60 items in 5 categories; one item has none."""
    draw = random.Random(1)
    reviews: list[Review | None] = []
    for user in range(40):
        day = 0
        for item in draw.sample(range(60), 2 + user % 13):
            day += draw.choice([0, 1, 1, 2, 5, 30])
            reviews.append(Review(f"U{user:02}", f"I{item:02}", 1_300_000_000 + day * DAY))
    draw.shuffle(reviews)
    seen = sorted({r.item for r in reviews if r})
    meta = [(item, None if item == seen[3] else f"C{int(item[1:]) % 5}") for item in seen]
    return write_raw(folder, reviews, meta)


def impression_files(folder: Path) -> Path:
    """30 users with 0 to 29 behaviours, and impressions on 4 days; 3 users have no profile."""
    draw = random.Random(2)
    impressions, behaviours = [], []
    for user in range(30):
        time = MAY_3 + 1000
        for _ in range(user):
            time += draw.choice([0, 1, 60, 60, 600, 600, 1800, 1801, 20_000])
            brand = draw.choice([None, 1, 2, 3, 4])
            behaviours.append((user, time, "pv", draw.randrange(8), brand))
        for day in (3, 4, 5, 5, 6):
            at = MAY_3 + day * DAY + draw.randrange(DAY)
            impressions.append((user, at, draw.randrange(12), f"p{user % 2}", draw.randrange(2)))
    ads = [
        (ad, ad % 8, ad // 2, ad // 3, None if ad == 5 else ad % 6, ad + 0.5) for ad in range(12)
    ]
    profiles = [(user, *(user % n for n in range(2, 2 + len(PROFILE)))) for user in range(27)]
    return RawLog(impressions, ads, profiles, behaviours).write(folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sound data sets by name."""
    base = tmp_path_factory.mktemp("verify")
    raw, log = review_files(base / "raw"), impression_files(base / "log")
    outs = {name: base / name.replace(" ", "-") for name in ALL}
    shape = ("--bins", 4, "--max-len", 8, "--buckets", 2)
    finished(amazon(raw, outs["padded reviews"], *shape))
    finished(amazon(raw, outs["ragged reviews"], *shape, "--layout", "ragged", "--negatives", 3))
    few = ("--sessions", "3x4", "--bins", 5, "--max-len", 9, "--buckets", 2)
    finished(alibaba(log, outs["padded ads"], *few))
    finished(alibaba(log, outs["ragged ads"], *few, "--layout", "ragged"))
    return outs


@dataclass
class Copy:
    """A data set that may be damaged."""

    out: Path

    def manifest(self, change: Callable[[dict[str, Any]], object]) -> None:
        path = self.out / NAME
        raw = json.loads(path.read_text())
        change(raw)
        path.write_text(json.dumps(raw))

    def read(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.out / NAME).read_text())
        return found

    def path(self, split: str = "train") -> Path:
        """The first shard of a split."""
        return next(
            self.out / s["path"] for s in self.read()["shards"] if s["path"].startswith(split)
        )

    def paths(self) -> list[Path]:
        return [self.out / s["path"] for s in self.read()["shards"]]

    def table(self, split: str = "train") -> pa.Table:
        return pq.ParquetFile(self.path(split)).read()

    def write(self, path: Path, table: pa.Table, **how: Any) -> None:
        """Replace a shard, and all that the manifest says of it."""
        pq.write_table(table, path, **how)
        self.settle()

    def edit(self, change: Callable[[Columns], object], split: str = "train") -> None:
        """Change the first shard's rows, and all that the manifest says of them."""
        path, table = self.path(split), self.table(split)
        columns = table.to_pydict()
        change(columns)
        self.write(path, pa.Table.from_pydict(columns, schema=table.schema))

    def settle(self) -> None:
        """Make the manifest agree with the shards in checksums, rows, lengths and bins."""
        raw = self.read()
        raw["rows"] = dict.fromkeys(SPLITS, 0)
        lengths = {name: np.zeros(raw["max_len"] + 1, int) for name in SPLITS}
        bins = np.zeros(256, int)
        for shard in raw["shards"]:
            path = self.out / shard["path"]
            split = path.parent.name
            table = pq.ParquetFile(path).read()
            shard["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
            shard["rows"] = len(table)
            raw["rows"][split] += len(table)
            if not {"history_length", "history_interval_bin"} <= set(table.column_names):
                continue
            kept = np.clip(table["history_length"].to_numpy(), 0, raw["max_len"])
            lengths[split] += np.bincount(kept, minlength=raw["max_len"] + 1)
            if split == "train":
                for cells, n in zip(table["history_interval_bin"].to_pylist(), kept, strict=True):
                    bins += np.bincount(cells[:n], minlength=256)
        raw["history_lengths"] = {name: n.tolist() for name, n in lengths.items()}
        raw["bins"]["train_counts"] = bins[1 : raw["bins"]["count"] + 1].tolist()
        (self.out / NAME).write_text(json.dumps(raw))

    def small(self, name: str, change: Callable[[Columns], object]) -> None:
        """Change a table beside the shards."""
        table = pq.ParquetFile(self.out / name).read()
        columns = table.to_pydict()
        change(columns)
        pq.write_table(pa.Table.from_pydict(columns, schema=table.schema), self.out / name)


def copied(made: dict[str, Path], name: str, to: Path) -> Copy:
    shutil.copytree(made[name], to)
    return Copy(to)


def checked(out: Path) -> Report:
    return verify(out, threads=1)


def at(columns: Columns, least: int = 4, label: int | None = None) -> int:
    """A row with so many behaviours."""
    for row, length in enumerate(columns["history_length"]):
        if length >= least and label in (None, columns["label"][row]):
            return row
    raise AssertionError("no such row")


# ---- the damage


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


def of_manifest(change: Callable[[dict[str, Any]], object]) -> Any:
    return lambda copy: copy.manifest(change)


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


# what is done, what must be found, in which data sets, how
DAMAGE: list[tuple[str, str, tuple[str, ...], Callable[[Copy], Any]]] = [
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
    ("a wrong edge", "interval bin", BOTH, move_edge),
    ("a wrong edge, followed by all bins", "bin edge", BOTH, move_edge_everywhere),
    # the schema
    ("a column of another type", "schema", ALL, retype("target_time", pa.float64())),
    ("a wider column", "schema", ALL, retype("label", pa.int64())),
    ("a column that may be null", "schema", ALL, retype("user", pa.int32(), nullable=True)),
    ("a null", "schema", ALL, nulls),
    (
        "columns in another order",
        "schema",
        ALL,
        schema(lambda t: t.select([*t.column_names[1:], t.column_names[0]])),
    ),
    ("a column too few", "schema", ALL, schema(lambda t: t.drop_columns(["history_session"]))),
    (
        "lists of any size",
        "schema",
        PADDED,
        lambda c: retype("history_time", pa.list_(pa.field("element", pa.int64(), nullable=False)))(
            c
        ),
    ),
    # rows
    ("a dropped row", "target without all its rows", REVIEWS, drop(1)),
    ("a dropped row", "targets of a user", IMPRESSIONS, drop(1)),
    ("a dropped target", "targets of a user", BOTH, drop_target),
    ("a dropped test target", "test targets of a user", REVIEWS, drop(4, "test")),
    ("a target twice", "row twice", BOTH, repeat_target),
    ("a train target in test", "test targets of a user", REVIEWS, into("test")),
    ("a train target in valid", "valid targets of a user", REVIEWS, into("valid")),
    ("a train impression in test", "split order", IMPRESSIONS, into("test")),
    ("a train impression in valid", "split order", IMPRESSIONS, into("valid")),
    (
        "an impression of another day",
        "split order",
        IMPRESSIONS,
        cell("target_time", to_day(3 * DAY)),
    ),
    ("a target after all calendars", "time", BOTH, cell("target_time", 1 << 60)),
    ("a row below 0", "row number", BOTH, cell("row", -1)),
    ("a row of another target", "negative unlike its positive", REVIEWS, cell("row", 10**6)),
    ("a user with no id", "id outside its vocabulary", BOTH, cell("user", 1)),
    ("a user beyond the vocabulary", "id outside its vocabulary", BOTH, cell("user", 10**6)),
    ("another user's target", "targets of a user", BOTH, target("user", other_id)),
    ("a label of 2", "label", BOTH, cell("label", 2)),
    ("labels exchanged", "order of labels", REVIEWS, swap_labels),
    ("a target field of 0", "id outside its vocabulary", BOTH, cell("target_category", 0)),
    ("a feature beyond", "id outside its vocabulary", IMPRESSIONS, cell("pid", 99)),
    ("no price", "number", IMPRESSIONS, cell("price", float("nan"))),
    # columns
    (
        "item and category exchanged",
        "items.parquet disagrees",
        REVIEWS,
        swap("target_item", "target_category"),
    ),
    (
        "history fields exchanged",
        "items.parquet disagrees",
        REVIEWS,
        swap("history_item", "history_category"),
    ),
    (
        "category and brand exchanged",
        "ads.parquet disagrees",
        IMPRESSIONS,
        swap("target_category", "target_brand"),
    ),
    (
        "position and session exchanged",
        "history position",
        ALL,
        swap("history_position", "history_session"),
    ),
    ("features exchanged", "ads.parquet disagrees", IMPRESSIONS, swap("campaign", "customer")),
    (
        "profile fields exchanged",
        "profiles.parquet disagrees",
        IMPRESSIONS,
        swap("cms_segid", "age_level"),
    ),
    (
        "a category of another item",
        "items.parquet disagrees",
        REVIEWS,
        cell("target_category", other_id),
    ),
    (
        "a behaviour's category",
        "items.parquet disagrees",
        REVIEWS,
        cell("history_category", other_id),
    ),
    ("an ad's brand", "ads.parquet disagrees", IMPRESSIONS, cell("target_brand", other_id)),
    ("an ad's price", "ads.parquet disagrees", IMPRESSIONS, cell("price", to_day(1))),
    ("a profile's field", "profiles.parquet disagrees", IMPRESSIONS, cell("age_level", other_id)),
    # histories
    ("a history's 0", "id outside its vocabulary", ALL, cell("history_category", 0)),
    (
        "an id beyond the vocabulary",
        "id outside its vocabulary",
        ALL,
        cell("history_category", 10**6),
    ),
    ("an unknown item", "id outside its vocabulary", REVIEWS, cell("history_item", 1)),
    ("a future behaviour", "future behaviour", ALL, cell("history_time", 1 << 40, place=3)),
    (
        "a behaviour of the target's second",
        "future behaviour",
        IMPRESSIONS,
        same_second,
    ),
    ("behaviours out of order", "time order", ALL, swap_times),
    ("a position", "history position", ALL, cell("history_position", to_day(1))),
    ("positions from the oldest on", "history position", ALL, from_the_oldest),
    ("a bin one off", "interval bin", ALL, cell("history_interval_bin", lambda b: b % 4 + 1)),
    ("bin 0", "interval bin", ALL, cell("history_interval_bin", 0)),
    ("a bin that there is not", "interval bin", ALL, cell("history_interval_bin", 77)),
    ("a session", "history session", ALL, cell("history_session", to_day(1))),
    ("a newest session of 2", "history session", ALL, later_sessions),
    ("padding", "padding", PADDED, pad),
    ("a length too small", "padding", PADDED, cell("history_length", to_day(-1))),
    ("a length too large", "id outside its vocabulary", (REVIEWS[0],), cell("history_length", 8)),
    ("a length over max_len", "history_length", ALL, cell("history_length", 99)),
    ("a length below 0", "history_length", ALL, cell("history_length", -1)),
    ("a length unlike its lists", "list length", RAGGED, cell("history_length", to_day(-1))),
    (
        "a list too long",
        "list length",
        RAGGED,
        lambda c: c.edit(lambda cols: cols["history_time"][0].append(5)),
    ),
    ("histories exchanged", "newest behaviours of a user", REVIEWS, swap_histories),
    # negatives
    ("a negative in its history", "negative", REVIEWS, negative_from("history")),
    ("a negative that is the positive", "negative", REVIEWS, negative_from("positive")),
    ("a negative of the future", "negative", REVIEWS, negative_from("future")),
    ("a negative's own history", "negative unlike its positive", REVIEWS, other_history),
    (
        "a negative's own time",
        "negative unlike its positive",
        REVIEWS,
        cell("target_time", to_day(1), label=0),
    ),
    # sessions
    (
        "a session of 2",
        "session length",
        IMPRESSIONS,
        sessions(lambda c, r: c["session_length"][r].__setitem__(0, 2)),
    ),
    (
        "a session of 5",
        "session length",
        IMPRESSIONS,
        sessions(lambda c, r: c["session_length"][r].__setitem__(0, 5)),
    ),
    ("sessions exchanged", "sessions", IMPRESSIONS, sessions(swap_sessions)),
    ("a session too few", "sessions", IMPRESSIONS, sessions(drop_session)),
    ("a session's behaviour", "sessions", IMPRESSIONS, sessions(other_cell)),
    (
        "a session's id of 0",
        "id outside its vocabulary",
        IMPRESSIONS,
        sessions(lambda c, r: c["session_brand"][r].__setitem__(0, 0)),
    ),
    (
        "padding of sessions",
        "session padding",
        (IMPRESSIONS[0],),
        lambda c: c.edit(lambda cols: cols["session_brand"][0].__setitem__(11, 2)),
    ),
    (
        "session cells too many",
        "list length",
        (IMPRESSIONS[1],),
        sessions(lambda c, r: c["session_brand"][r].append(2)),
    ),
    # tables
    ("ids with a hole", "vocabulary", BOTH, set_words("user", "id", 3, 99)),
    ("values out of order", "vocabulary", REVIEWS, set_words("item", "value", 3, "A")),
    ("values out of order", "vocabulary", IMPRESSIONS, set_words("brand", "value", 1, 10**9)),
    ("a value twice", "vocabulary", REVIEWS, set_words("item", "value", 3, "I02")),
    ("a count of 0", "vocabulary", BOTH, set_words("category", "count", 0, 0)),
    ("a count of a user", "targets of a user", BOTH, set_words("user", "count", 5, 77)),
    ("a value too few", "vocabulary", BOTH, cut_table("vocabulary/category.parquet")),
    ("an item's category", "items.parquet disagrees", REVIEWS, bump("items.category")),
    ("an ad's campaign", "ads.parquet disagrees", IMPRESSIONS, bump("ads.campaign")),
    (
        "a profile's gender",
        "profiles.parquet disagrees",
        IMPRESSIONS,
        bump("profiles.final_gender_code"),
    ),
    ("an item too few", "table", REVIEWS, cut_table("items.parquet")),
    ("an ad too few", "table", IMPRESSIONS, cut_table("ads.parquet")),
    ("a profile too few", "profiles.parquet disagrees", IMPRESSIONS, cut_table("profiles.parquet")),
]


CASES = [
    pytest.param(name, what, damage, id=f"{said} ({name})")
    for said, what, names, damage in DAMAGE
    for name in names
]


@pytest.mark.parametrize(("name", "what", "damage"), CASES)
def test_planted_damage_is_found(
    made: dict[str, Path],
    tmp_path: Path,
    name: str,
    what: str,
    damage: Callable[[Copy], Any],
) -> None:
    copy = copied(made, name, tmp_path / "out")
    damage(copy)
    report = checked(copy.out)
    assert what in report.counts, report.counts
    found = [f for f in report.findings if f.what == what]
    assert found
    assert all(f.where and f.expected and f.got for f in found)
    error = report.error(copy.out)
    assert isinstance(error, ContractError)
    assert what in str(error)


def test_the_table_has_at_least_twenty_kinds() -> None:
    assert len({said for said, *_ in DAMAGE}) >= 90
    assert len({what for _, what, *_ in DAMAGE}) >= 30


# ---- sound data sets


def test_sound_data_sets_are_sound(made: dict[str, Path]) -> None:
    for name, out in made.items():
        report = checked(out)
        assert report.sound, (name, report.findings)
        manifest = Copy(out).read()
        assert report.rows == sum(manifest["rows"].values()) > 0
        assert report.shards == len(manifest["shards"])
        assert report.seconds > 0


@pytest.mark.parametrize(
    "flags",
    [
        "--split din --ties hash",
        "--parity --bins 3",
        "--max-len 1 --bins 1 --session-gap 0",
        "--negatives 5 --max-len 3 --bins 255 --layout ragged --no-meta",
    ],
)
def test_sound_reviews(tmp_path: Path, flags: str) -> None:
    finished(amazon(review_files(tmp_path / "raw"), tmp_path / "out", *flags.split()))
    assert checked(tmp_path / "out").findings == ()


@pytest.mark.parametrize(
    "flags",
    [
        "--sessions none",
        f"--split-at {MAY_3 + 5 * DAY} --sessions 2x2 --session-gap 0 --max-len 4",
        "--user-fraction 0.5 --min-count 9 --timezone America/New_York",
        "--behaviors-since all --max-len 1 --layout ragged --bins 1",
        f"--behaviors-since {MAY_3 + 90 * DAY}",
    ],
)
def test_sound_impressions(tmp_path: Path, flags: str) -> None:
    finished(alibaba(impression_files(tmp_path / "raw"), tmp_path / "out", *flags.split()))
    assert checked(tmp_path / "out").findings == ()


def test_a_user_who_touched_every_item(tmp_path: Path) -> None:
    """Such a user gives no rows; what is refused is told apart from what is lost."""
    reviews: list[Review | None] = [Review("all", f"I{k}", k * DAY) for k in range(5)]
    reviews += [Review("some", f"I{k}", k * DAY) for k in range(4)]
    finished(amazon(write_raw(tmp_path / "raw", reviews, []), tmp_path / "out"))
    assert checked(tmp_path / "out").findings == ()
    (tmp_path / "out/rejected/targets.parquet").unlink()
    assert checked(tmp_path / "out").counts == {"targets of a user": 1}


def test_real_reviews(beauty_out: Path) -> None:
    report = verify(beauty_out)
    assert report.sound, report.findings
    assert report.rows == 352_278


def test_real_impressions(tmp_path: Path) -> None:
    raw = SHARED / "data" / "kuairand_tianchi"
    if not raw.is_dir():
        pytest.skip(f"the real data is not here: {raw} (see TINPREP_SHARED)")
    finished(alibaba(raw, tmp_path / "out"))
    report = verify(tmp_path / "out")
    assert report.sound, report.findings
    assert report.rows == 64_942


@pytest.mark.parametrize("name", ALL)
def test_row_groups_may_be_of_any_size(made: dict[str, Path], tmp_path: Path, name: str) -> None:
    copy = copied(made, name, tmp_path / "out")
    for path in copy.paths():
        pq.write_table(pq.ParquetFile(path).read(), path, row_group_size=3)
    copy.settle()
    assert checked(copy.out).findings == ()


# ---- what is told


def test_where_a_finding_is(made: dict[str, Path], tmp_path: Path) -> None:
    copy = copied(made, "ragged reviews", tmp_path / "out")
    table = copy.table()
    columns = table.to_pydict()
    row = at(columns, 3)
    columns["history_item"][row][2] = 777
    table = pa.Table.from_pydict(columns, schema=table.schema)
    copy.write(copy.path(), table, row_group_size=10)
    report = checked(copy.out)
    [finding] = [f for f in report.findings if f.got == "777"][:1]
    path = copy.path().relative_to(copy.out).as_posix()
    assert finding.what == "id outside its vocabulary"
    assert finding.where == f"{path}: row group {row // 10}, row {row}, history_item[2]"
    size = copy.read()["vocabulary"]["item"]
    assert finding.expected == f"1 to {size - 1}"


def test_all_are_counted_and_some_are_shown(made: dict[str, Path], tmp_path: Path) -> None:
    copy = copied(made, "padded ads", tmp_path / "out")
    rows = len(copy.table())
    copy.edit(lambda columns: columns.update(label=[2] * rows, pid=[99] * rows))
    report = checked(copy.out)
    assert report.counts == {"label": rows, "id outside its vocabulary": rows}
    assert len(report.findings) == 2 * LIMIT
    assert not report.sound


def test_several_kinds_are_found_at_once(made: dict[str, Path], tmp_path: Path) -> None:
    copy = copied(made, "padded reviews", tmp_path / "out")
    cell("history_position", 9)(copy)
    without("items.parquet")(copy)
    stray(copy)
    flip(copy)
    assert {"history position", "missing file", "stray file", "checksum"} <= set(
        checked(copy.out).counts
    )


def test_threads_change_nothing(made: dict[str, Path], tmp_path: Path) -> None:
    copy = copied(made, "padded ads", tmp_path / "out")
    swap("target_category", "target_brand")(copy)
    steps = []
    one, many = checked(copy.out), verify(copy.out, lambda *step: steps.append(step), threads=3)
    assert (one.findings, one.counts) == (many.findings, many.counts)
    assert steps == [("verify", k + 1, one.shards) for k in range(one.shards)]


def test_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        verify(tmp_path)


def test_threads_out_of_range(made: dict[str, Path]) -> None:
    with pytest.raises(UsageError):
        verify(made["padded ads"], threads=0)


def test_nothing_is_written(made: dict[str, Path]) -> None:
    out = made["ragged ads"]
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(out.rglob("*"))}
    checked(out)
    assert {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(out.rglob("*"))} == before


# ---- any damage


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_changed_value_of_reviews_is_found(
    made: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Whatever value changes in whatever row, but a negative's item for another untouched one."""
    name = data.draw(st.sampled_from(REVIEWS))
    copy = copied(made, name, tmp_path_factory.mktemp("any") / "out")
    split = data.draw(st.sampled_from(SPLITS))
    path = copy.path(split)
    before = pq.ParquetFile(path).read()

    def change(columns: Columns) -> None:
        column = data.draw(st.sampled_from(sorted(set(columns) - {"target_item"})))
        row = data.draw(st.integers(0, len(columns[column]) - 1))
        value = data.draw(st.integers(0, 127))
        if isinstance(columns[column][row], list):
            place = data.draw(st.integers(0, len(columns[column][row]) - 1))
            columns[column][row][place] = value
        else:
            columns[column][row] = value

    copy.edit(change, split)
    same = pq.ParquetFile(path).read().equals(before)
    assert checked(copy.out).sound == same


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_flipped_byte_is_found(
    made: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Also where nothing says that a byte is other: the checks end, with findings or without."""
    name = data.draw(st.sampled_from(ALL))
    copy = copied(made, name, tmp_path_factory.mktemp("byte") / "out")
    path = copy.path(data.draw(st.sampled_from(SPLITS)))
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    assert checked(copy.out).counts["checksum"] == 1
