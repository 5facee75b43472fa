"""Every planted damage: what it is, the kind of finding, in which data sets, and what does it.

What does it says where the finding must be: a file, or a file and its row. Shards are damaged as a
faulty writer would: the manifest has their checksums, rows and counts.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pyarrow as pa

from schemas.manifest import NAME, SPLITS, WITHOUT_META, WITHOUT_PROFILE, in_history
from tests.verify.made import ADS, ALL, BOTH, DAY, PADDED, RAGGED, REVIEWS, Columns, Copy, at

Damage = Callable[[Copy], str]
Change = Callable[[Columns, int], object]
ITEMS, OF_ADS, PROFILES = "lookups/item.parquet", "lookups/ad.parquet", "lookups/user.parquet"
USERS, WORDS = "vocabulary/user.parquet", "vocabulary/item.parquet"
CATEGORIES = "vocabulary/category.parquet"
STRANGE = ("train/part-99999.parquet", "all.parquet", f"vocabulary/{'a' * 300}.parquet")

# ---- of files


def flip(name: str = "") -> Damage:
    """Another bit in the middle of a file, by default of the first train shard."""

    def damage(copy: Copy) -> str:
        path = copy.out / (name or copy.shard())
        data = bytearray(path.read_bytes())
        data[len(data) // 3] ^= 1
        path.write_bytes(data)
        return name or copy.shard()

    return damage


def content(data: bytes, name: str = "") -> Damage:
    """A file of other bytes, and no word of it in the manifest; what is left of it without any."""

    def damage(copy: Copy) -> str:
        path = copy.out / (name or copy.shard())
        path.write_bytes(data or path.read_bytes()[:-100])
        return name or copy.shard()

    return damage


def without(name: str) -> Damage:
    def damage(copy: Copy) -> str:
        (copy.out / name).unlink()
        return name

    return damage


def stray(name: str) -> Damage:
    """A shard's copy where none should be, where the file system takes the name."""

    def damage(copy: Copy) -> str:
        with suppress(OSError):
            shutil.copy(copy.out / copy.shard(), copy.out / name)
        return name

    return damage


# ---- of the manifest


def said(change: Callable[[dict[str, Any]], object]) -> Damage:
    return lambda copy: copy.manifest(change)


OF_HISTORY = "histories", "history"


def backwards(values: list[Any]) -> list[Any]:
    return values[::-1]


def shorter(values: list[Any]) -> list[Any]:
    return values[:-1]


def put(*keys: Any, value: Any) -> Damage:
    """Set a key of the manifest, or a place of a list, to a value, or to what a function makes."""

    def change(raw: Any) -> None:
        for key in keys[:-1]:
            raw = raw[key]
        raw[keys[-1]] = value(raw[keys[-1]]) if callable(value) else value

    return said(change)


def listed(name: str) -> Damage:
    """A shard's copy that is listed as a table."""

    def damage(copy: Copy) -> str:
        stray(name)(copy)
        return copy.manifest(lambda m: m["tables"].append({**m["shards"][0], "path": name}))

    return damage


def unlisted(copy: Copy) -> str:
    kept = [one for one in copy.read()["tables"] if one["path"] != USERS]
    return copy.manifest(lambda m: m.update(tables=kept))


def elsewhere(damage: Damage, where: str | Callable[[Copy], str]) -> Damage:
    """A damage that shows in another place."""

    def both(copy: Copy) -> str:
        damage(copy)
        return where if isinstance(where, str) else where(copy)

    return both


def last_table(copy: Copy) -> str:
    path: str = copy.read()["tables"][-1]["path"]
    return path


def nowhere(copy: Copy) -> str:
    path = "rejected/x.parquet"
    copy.manifest(lambda m: m["tables"].append({**m["tables"][0], "path": path}))
    return path


def no_shards(copy: Copy) -> str:
    for shard in copy.read()["shards"]:
        (copy.out / shard["path"]).unlink()
    copy.manifest(lambda m: m.update(shards=[], rows=dict.fromkeys(SPLITS, 0)))
    return "user 2"


def followed(
    change: Callable[[dict[str, Any]], object], cells: Callable[[Columns, Any], object]
) -> Damage:
    """Change the manifest, and every shard as it says then."""

    def damage(copy: Copy) -> str:
        copy.manifest(change)
        raw = copy.read()
        for shard in raw["shards"]:
            copy.edit(lambda columns: cells(columns, raw), shard["path"])
        return NAME

    return damage


def middle_edge(raw: dict[str, Any]) -> None:
    edges = raw["histories"]["history"]["bins"]["edges_s"]
    edges[0] += (edges[1] - edges[0]) // 2


def binned(columns: Columns, raw: dict[str, Any]) -> None:
    for row, n in enumerate(columns["history_length"]):
        target, times = columns["target_time"][row], columns["history_time"][row][:n]
        bins = [
            1 + sum(e < target - t for e in raw["histories"]["history"]["bins"]["edges_s"])
            for t in times
        ]
        columns["history_interval_bin"][row][:n] = bins


def other_mean(raw: dict[str, Any]) -> None:
    raw["numbers"]["price"]["mean"] += raw["numbers"]["price"]["std"]


def shifted(columns: Columns, raw: dict[str, Any]) -> None:
    columns["price"] = [price - 1 if price else price for price in columns["price"]]


# ---- of a table as a whole


def whole(change: Callable[[pa.Table], pa.Table], name: str = "") -> Damage:
    """Change a table, by default the first train shard."""

    def damage(copy: Copy) -> str:
        path = name or copy.shard()
        return copy.write(path, change(copy.table(path)))

    return damage


def retype(name: str, kind: pa.DataType, nullable: bool = False) -> Damage:
    def change(table: pa.Table) -> pa.Table:
        place = table.column_names.index(name)
        return table.set_column(place, pa.field(name, kind, nullable), table[name].cast(kind))

    return whole(change)


def twice(name: str = "") -> Damage:
    """A table's last column once more."""
    return whole(lambda t: t.append_column(t.column_names[-1], t[t.column_names[-1]]), name)


def doubled(name: str) -> Damage:
    return whole(lambda t: pa.concat_tables([t, t]), name)


def values(make: Callable[[int], Any]) -> Damage:
    """Other users."""
    return whole(lambda t: t.set_column(0, "value", pa.array(map(make, range(len(t))))), USERS)


def refused(**columns: Any) -> Damage:
    def damage(copy: Copy) -> str:
        (copy.out / "rejected").mkdir()
        copy.write("rejected/reviews.parquet", pa.table(columns))
        return NAME

    return damage


def drop(rows: int, split: str = "train", where: str = "") -> Damage:
    """Without the first rows of a shard: where nothing is said, its first user lacks a target."""

    def damage(copy: Copy) -> str:
        table = copy.table(copy.shard(split))
        name = copy.write(copy.shard(split), table.slice(rows))
        return f"{name}: row group 0, row " if where else f"user {table['user'][0]}"

    return damage


def repeat_target(copy: Copy) -> str:
    table = copy.table(copy.shard())
    rows = table["row"].to_pylist()
    again = table.filter(pa.array([row == rows[0] for row in rows]))
    name = copy.write(copy.shard(), pa.concat_tables([table, again]))
    return f"{name}: row group 0, row {len(rows)}"


def into(split: str) -> Damage:
    """Move a train target to another split."""

    def damage(copy: Copy) -> str:
        table, name = copy.table(copy.shard()), copy.shard(split)
        rows = table["row"].to_pylist()
        moved = table.filter(pa.array([row == rows[0] for row in rows]))
        copy.write(copy.shard(), table.slice(len(moved)))
        return copy.write(name, pa.concat_tables([copy.table(name), moved]))

    return damage


# ---- of rows


def swap(one: str, another: str) -> Damage:
    """Exchange what two columns of a shard hold."""

    def change(columns: Columns) -> None:
        columns[one], columns[another] = columns[another], columns[one]

    return lambda copy: copy.edit(change)


def row(change: Change, least: int = 4, label: int | None = None) -> Damage:
    """Change a row with so many behaviours."""

    def damage(columns: Columns) -> int:
        found = at(columns, least, label)
        change(columns, found)
        return found

    return lambda copy: copy.edit(damage)


def cell(name: str, value: Any, place: int = 0, **which: Any) -> Damage:
    """Set a column of a row, or a place in its list, to a value, or to what a function makes."""

    def change(columns: Columns, row: int) -> None:
        listed = isinstance(columns[name][row], list)
        of, key = (columns[name][row], place) if listed else (columns[name], row)
        of[key] = value(of[key]) if callable(value) else value

    return row(change, **which)


def plus(more: int) -> Callable[[Any], Any]:
    return lambda old: old + more


def other(old: int) -> int:
    """Another id."""
    return 2 if old != 2 else 3


def lists(name: str, change: Callable[[list[Any], int], list[Any]]) -> Damage:
    """Change the values of every row's list, by them and their number."""

    def every(columns: Columns) -> None:
        for cells, n in zip(columns[name], columns["history_length"], strict=True):
            cells[:n] = change(cells[:n], n)

    return lambda copy: copy.edit(every)


def swap_times(columns: Columns, row: int) -> None:
    times = columns["history_time"][row]
    first = next(k for k, time in enumerate(times) if time != times[0])
    times[0], times[first] = times[first], times[0]


def swap_oldest(columns: Columns, row: int) -> None:
    for name in ("history_item", "history_category"):
        cells = columns[name][row]
        cells[0], cells[1] = cells[1], cells[0]


def exchange_labels(columns: Columns) -> int:
    columns["label"][:2] = [0, 1]
    return 0


def pad(columns: Columns) -> int:
    row = next(r for r, n in enumerate(columns["history_length"]) if n < 7)
    columns["history_time"][row][-1] = 5
    return row


def same_second(columns: Columns, row: int) -> None:
    columns["history_time"][row][columns["history_length"][row] - 1] = columns["target_time"][row]


def exchange_histories(columns: Columns) -> None:
    """Two users' targets exchanged, with all before them."""
    own = [name for name in columns if name.startswith("history_")] + ["target_time"]
    rows: dict[int, list[int]] = {}
    for row, of in enumerate(columns["row"]):
        rows.setdefault(of, []).append(row)
    one, *others = [r for r in rows.values() if columns["history_length"][r[0]] == 2]
    another = next(r for r in others if columns["user"][r[0]] != columns["user"][one[0]])
    for a, b in zip(one, another, strict=True):
        for name in own:
            columns[name][a], columns[name][b] = columns[name][b], columns[name][a]


def negative_from(which: str) -> Damage:
    """A negative that its user touches, with the right category."""

    def damage(copy: Copy) -> str:
        items = copy.table(ITEMS).to_pydict()
        category = dict(zip(items["item"], items["category"], strict=True))
        later = copy.table(copy.shard("test")).to_pydict()
        tested = zip(later["user"], later["target_item"], later["label"], strict=True)
        last = {user: item for user, item, label in tested if label}

        def change(columns: Columns, row: int) -> None:
            item = {
                "history": columns["history_item"][row][1],
                "positive": columns["target_item"][row - 1],
                "future": last[columns["user"][row]],
            }[which]
            columns["target_item"][row], columns["target_category"][row] = item, category[item]

        first = row(change, label=0)(copy)
        # What is found over all shards is said of the target's first row.
        shard, _, number = first.rpartition(" ")
        return f"{shard} {int(number) - 1}" if which == "future" else first

    return damage


def session(change: Change) -> Damage:
    """Change a row that has two sessions."""

    def damage(columns: Columns) -> int:
        counts = [sum(map(bool, lengths)) for lengths in columns["session_length"]]
        found = next(row for row, count in enumerate(counts) if count > 1)
        change(columns, found)
        return found

    return lambda copy: copy.edit(damage)


def of_session(name: str, place: int, value: Any) -> Damage:
    return session(lambda c, r: c[f"session_{name}"][r].__setitem__(place, value))


def other_first(columns: Columns, row: int) -> None:
    cells = columns["session_category"][row]
    cells[0] = other(cells[0])


def swap_sessions(columns: Columns, row: int) -> None:
    lengths = columns["session_length"][row]
    first, both = lengths[0], lengths[0] + lengths[1]
    lengths[:2] = lengths[1], lengths[0]
    for name in ("session_category", "session_brand"):
        cells = columns[name][row]
        if len(cells) == 12:
            cells[:8] = cells[4:8] + cells[:4]
        else:
            cells[:both] = cells[first:both] + cells[:first]


def drop_session(columns: Columns, row: int) -> None:
    """Without the row's latest session."""
    lengths = columns["session_length"][row]
    fixed = len(columns["session_category"][row]) == 12
    width = 4 if fixed else lengths[0]
    columns["session_length"][row] = lengths[1:] + [0] * fixed
    for name in ("session_category", "session_brand"):
        columns[name][row] = columns[name][row][width:] + [0] * (4 * fixed)


def no_behaviours(columns: Columns) -> None:
    """Histories without behaviours whose sessions stay."""
    for name in [name for name in columns if name.startswith("history_")]:
        ragged = len(columns["session_brand"][0]) < 12 or len(columns["session_brand"][1]) < 12
        empty: Any = [] if ragged else [0] * 9
        columns[name] = [empty if isinstance(x, list) else 0 for x in columns[name]]


def value(name: str, column: str, place: int, to: Any) -> Damage:
    """Another value in a table beside the shards."""

    def change(columns: Columns) -> int:
        columns[column][place] = to(columns[column][place]) if callable(to) else to
        return place

    return lambda copy: copy.edit(change, name)


def shard(copy: Copy) -> str:
    return copy.shard()


ELEMENT = pa.list_(pa.field("element", pa.int64(), nullable=False))
# fmt: off
DAMAGE: dict[str, list[tuple[str, tuple[str, ...], Damage]]] = {
    "checksum": [
        ("a flipped bit", BOTH, flip()),
        ("a flipped bit of the items", REVIEWS, flip(ITEMS)),
        ("a flipped bit of the ads", ADS, flip(OF_ADS)),
        ("a flipped bit of the users", BOTH, flip(USERS)),
        ("a wrong checksum", BOTH, elsewhere(put("shards", 0, "sha256", value="0"), shard)),
        ("a wrong checksum of a table", BOTH,
         elsewhere(put("tables", -1, "sha256", value="0"), last_table)),
    ],
    "unreadable file": [
        ("a shard cut short", BOTH, content(b"")),
        ("a shard with another footer", BOTH, content(b"PAR1" + bytes(99) + b"PAR1")),
        ("ads that are no Parquet", ADS, content(b"no", OF_ADS)),
    ],
    "missing file": [
        ("a missing shard", BOTH, without("test/part-00000.parquet")),
        ("no vocabulary", BOTH, without(USERS)),
        ("no items", REVIEWS, without(ITEMS)),
        ("no profiles", ADS, without(PROFILES)),
        ("a table that is not there", BOTH, nowhere),
    ],
    "stray file": [
        ("a stray shard", BOTH, stray("train/part-99999.parquet")),
        ("a half-written shard", BOTH, stray("train/.tmp-x")),
        ("a stray vocabulary", BOTH, stray("vocabulary/x.parquet")),
        ("a stray table", BOTH, stray("all.parquet")),
    ],
    "manifest": [
        ("no JSON", BOTH, content(b"{", NAME)),
        ("another format", BOTH, put("format", value=99)),
        ("a lacking key", BOTH, said(lambda m: m.pop("histories"))),
        ("rows that are text", BOTH, put("rows", "train", value="9")),
        ("max_len 0", BOTH, put(*OF_HISTORY, "max_len", value=0)),
        ("max_len that is text", BOTH, put(*OF_HISTORY, "max_len", value="5")),
        ("an unknown layout", BOTH, put("layout", value="wide")),
        ("seconds beyond all floats", BOTH, put("steps", 0, "seconds", value=10**400)),
        ("edges that decrease", BOTH, put(*OF_HISTORY, "bins", "edges_s", value=backwards)),
        ("an edge too few", BOTH, put(*OF_HISTORY, "bins", "edges_s", value=shorter)),
        ("a shard twice", BOTH, said(lambda m: m["shards"].append(m["shards"][0]))),
        ("a shard of another name", BOTH, put("shards", 0, "path", value="train/part-0.parquet")),
        ("an unknown timezone", ADS, put("target", "split", "timezone", value="Nowhere")),
        ("another seed", BOTH, put("config", "seed", value=9)),
        ("another version", BOTH, put("version", value="9.9")),
        ("another raw file", BOTH, put("inputs", 0, "bytes", value=9)),
        ("no key", BOTH, said(lambda m: m["config"].pop("key"))),
        ("no item", REVIEWS, said(lambda m: m["fields"].remove("item"))),
        ("a field twice", BOTH, said(lambda m: m["fields"].append(m["fields"][0]))),
        ("a feature like a column", BOTH,
         put("features", "history_time", value={"kind": "id", "vocabulary": "user"})),
        ("a number like a column", BOTH, put("numbers", "row", value={"mean": 0, "std": 1})),
        ("a mean beyond all floats", ADS, put("numbers", "price", "mean", value=10**400)),
        ("a deviation that is no number", ADS, put("numbers", "price", "std", value=True)),
        ("rows of a split", BOTH, put("rows", "test", value=1)),
        ("rows below none", BOTH, put("tables", 0, "rows", value=-1)),
        ("a table twice", BOTH, said(lambda m: m["tables"].append(m["tables"][0]))),
        ("a table that is not listed", BOTH, unlisted),
        *((f"{name[:30]} among the tables", BOTH, listed(name)) for name in STRANGE),
    ],
    "schema": [
        ("a field too few", BOTH, elsewhere(said(lambda m: m["fields"].pop()), shard)),
        ("a column of another type", ALL, retype("target_time", pa.float64())),
        ("a wider column", ALL, retype("label", pa.int64())),
        ("a column that may be null", ALL, retype("user", pa.int32(), nullable=True)),
        ("columns in another order", ALL, whole(lambda t: t.select(t.column_names[::-1]))),
        ("a column too few", ALL, whole(lambda t: t.drop_columns(["history_session"]))),
        ("a column twice", ALL, twice()),
        ("lists of any size", PADDED, retype("history_time", ELEMENT)),
    ],
    "rows of a file": [
        ("rows of a shard", BOTH, elsewhere(put("shards", 0, "rows", value=1), shard)),
        ("rows of a table", BOTH, elsewhere(put("tables", -1, "rows", value=1), last_table)),
    ],
    "vocabulary": [
        ("a size too large", BOTH, elsewhere(put("vocabulary", "category", value=99), CATEGORIES)),
        ("a size beyond memory", BOTH,
         elsewhere(put("vocabulary", "user", value=2**31 - 1), USERS)),
        ("a vocabulary's column twice", BOTH, twice(USERS)),
        ("values that are lists", BOTH, values(lambda k: [k])),
        ("values that are floats", BOTH, values(lambda k: k / 2)),
        ("ids with a hole", BOTH, elsewhere(value(USERS, "id", 3, 99), USERS)),
        ("a value twice", REVIEWS, elsewhere(value(WORDS, "value", 3, "I02"), WORDS)),
        ("texts out of order", REVIEWS, value(WORDS, "value", 3, "A")),
        ("numbers out of order", ADS, value("vocabulary/brand.parquet", "value", 2, -7)),
        ("a count of 0", BOTH, value(CATEGORIES, "count", 0, 0)),
        ("users without end", BOTH, doubled(USERS)),
        ("a value too few", BOTH, whole(lambda t: t.slice(1), CATEGORIES)),
    ],
    "bin counts": [
        ("a count of a bin", BOTH, put(*OF_HISTORY, "bins", "train_counts", 1, value=plus(1))),
    ],
    "history lengths": [
        ("a count of lengths", BOTH, put(*OF_HISTORY, "lengths", "test", value=backwards)),
    ],
    "digest": [
        ("another digest", BOTH, put("digests", "colour", value="0")),
        ("a digest too few", BOTH, said(lambda m: m["digests"].popitem())),
    ],
    "rejected": [
        ("lines refused that are nowhere", BOTH, put("rejected", "odd", value=5)),
        ("lines that were never refused", BOTH, refused(reason=["odd"])),
        ("refused for a list", BOTH, refused(reason=[["odd"]])),
    ],
    "counts": [
        ("another count", ADS, put("counts", "impressions without behaviours", value=1)),
        ("another count of profiles", ADS, put("counts", WITHOUT_PROFILE, value=999)),
        ("fewer items without a meta line", REVIEWS,
         put("shares", WITHOUT_META, value={"count": 1, "of": 60})),
        ("reviews that were never read", REVIEWS, put("counts", "reviews read", value=plus(1))),
        ("impressions never read", ADS, put("counts", "impressions read", value=plus(1))),
        ("behaviours never read", ADS, put("counts", "behaviours read", value=plus(1))),
    ],
    "shares": [
        ("another share of profiles", ADS, put("shares", WITHOUT_PROFILE, "count", value=1)),
        ("another share in history", BOTH, put("shares", in_history("test", 1), "of", value=10**6)),
    ],
    "interval bin": [
        ("a wrong edge", BOTH,
         elsewhere(put(*OF_HISTORY, "bins", "edges_s", 1, value=plus(2 * DAY)), shard)),
        ("a bin one off", ALL, cell("history_interval_bin", lambda b: b % 4 + 1)),
        ("bin 0", ALL, cell("history_interval_bin", 0)),
        ("a bin that there is not", ALL, cell("history_interval_bin", 77)),
    ],
    "bin edge": [
        ("a wrong edge, and all bins by it", BOTH, followed(middle_edge, binned)),
    ],
    "statistics": [
        ("another mean, and all prices by it", ADS,
         elsewhere(followed(other_mean, shifted), "train, price")),
    ],
    "lookups/ad.parquet disagrees": [
        ("next to no deviation", ADS,
         elsewhere(put("numbers", "price", "std", value=1e-320), shard)),
        ("an ad's campaign", ADS, elsewhere(value(OF_ADS, "campaign", 2, other), shard)),
        ("an ad's price", ADS, cell("price", plus(1))),
        ("an ad's brand", ADS, cell("target_brand", other)),
        ("category and brand", ADS, swap("target_category", "target_brand")),
        ("campaign and customer", ADS, swap("campaign", "customer")),
    ],
    "targets of a user": [
        ("no shards at all", BOTH, no_shards),
        ("a count of a user", BOTH, elsewhere(value(USERS, "count", 5, 77), "user 7")),
        ("a dropped target", (REVIEWS[0],), drop(2)),
        ("a dropped impression", ADS, drop(1)),
        ("a dropped test target", REVIEWS, drop(4, "test")),
        ("another user's target", ADS, elsewhere(cell("user", other), "user ")),
    ],
    "table": [
        ("the items' column twice", REVIEWS, twice(ITEMS)),
        ("the profiles' column twice", ADS, twice(PROFILES)),
        ("items without end", REVIEWS, doubled(ITEMS)),
        ("an item too few", REVIEWS, whole(lambda t: t.slice(1), ITEMS)),
        ("an item twice", REVIEWS, value(ITEMS, "item", 3, 4)),
        ("a category that there is not", REVIEWS, value(ITEMS, "category", 3, 99)),
        ("no campaign", ADS, value(OF_ADS, "campaign", 3, None)),
        ("ads without prices", ADS, whole(lambda t: t.drop_columns(["price"]), OF_ADS)),
        ("profiles without ages", ADS, whole(lambda t: t.drop_columns(["age_level"]), PROFILES)),
    ],
    "lookups/item.parquet disagrees": [
        ("an item's category", REVIEWS, elsewhere(value(ITEMS, "category", 2, other), shard)),
        ("an item's other category", REVIEWS, cell("target_category", other)),
        ("item and category", REVIEWS, swap("target_item", "target_category")),
        ("histories' item and category", REVIEWS, swap("history_item", "history_category")),
        ("a behaviour's category", REVIEWS, cell("history_category", other)),
    ],
    "lookups/user.parquet disagrees": [
        ("a profile's gender", ADS, elsewhere(value(PROFILES, "final_gender_code", 2, other), "t")),
        ("a profile too few", ADS, elsewhere(whole(lambda t: t.slice(1), PROFILES), "t")),
        ("a profile's field", ADS, cell("age_level", other)),
        ("segment and age", ADS, swap("cms_segid", "age_level")),
    ],
    "target without all its rows": [
        ("a dropped row", REVIEWS, drop(1, where="row")),
    ],
    "row twice": [
        ("a target twice", BOTH, repeat_target),
    ],
    "split": [
        ("a train target in test", ALL, into("test")),
        ("a train target in valid", ALL, into("valid")),
        ("a target of another day", ADS, cell("target_time", plus(3 * DAY))),
    ],
    "time": [
        ("a target after all calendars", BOTH, cell("target_time", 1 << 60)),
        ("a behaviour before all times", ALL, cell("history_time", -1)),
    ],
    "row number": [
        ("a row below 0", BOTH, cell("row", -1)),
    ],
    "negative unlike its positive": [
        ("a row of another target", REVIEWS, cell("row", 10**6, label=0)),
        ("a negative's own history", REVIEWS, row(swap_oldest, label=0)),
        ("a negative's own time", REVIEWS, cell("target_time", plus(1), label=0)),
    ],
    "id outside its vocabulary": [
        ("a user with no id", BOTH, cell("user", 1)),
        ("a user beyond the vocabulary", BOTH, cell("user", 10**6)),
        ("a target field of 0", BOTH, cell("target_category", 0)),
        ("an unknown target", REVIEWS, cell("target_item", 1)),
        ("an unknown ad", ADS, cell("ad", 1)),
        ("a feature beyond", ADS, cell("pid", 99)),
        ("a history's 0", ALL, cell("history_category", 0)),
        ("an id beyond", ALL, cell("history_category", 10**6)),
        ("an unknown item", REVIEWS, cell("history_item", 1)),
        ("a length too large", PADDED, cell("history_length", 8)),
        ("a session's id of 0", ADS, of_session("brand", 0, 0)),
    ],
    "order of rows": [
        ("rows in another order", ALL, whole(lambda t: t.take([*range(len(t))][::-1]))),
    ],
    "time of a target": [
        ("histories exchanged", REVIEWS, lambda c: c.edit(exchange_histories)),
    ],
    "label": [
        ("a label of 2", BOTH, cell("label", 2)),
    ],
    "order of labels": [
        ("labels exchanged", REVIEWS, lambda c: c.edit(exchange_labels)),
    ],
    "number": [
        ("no price", ADS, cell("price", float("nan"))),
    ],
    "history position": [
        ("position and session", ALL, swap("history_position", "history_session")),
        ("a position", ALL, cell("history_position", plus(1))),
        ("positions from the oldest on", ALL, lists("history_position", lambda p, n: p[::-1])),
    ],
    "future behaviour": [
        ("a future behaviour", ALL, cell("history_time", 1 << 40, place=3)),
        ("one of the target's second", ADS, row(same_second)),
    ],
    "time order": [
        ("behaviours out of order", ALL, row(swap_times)),
    ],
    "history session": [
        ("a session", ALL, cell("history_session", plus(1))),
        ("sessions from 2 on", ALL, lists("history_session", lambda s, n: [x + 1 for x in s])),
    ],
    "padding": [
        ("padding", PADDED, lambda c: c.edit(pad)),
        ("a length too small", PADDED, cell("history_length", plus(-1))),
        ("padding of sessions", ADS[:1],
         lambda c: c.edit(lambda columns: columns["session_brand"][0].__setitem__(11, 2))),
    ],
    "history_length": [
        ("a length over max_len", ALL, cell("history_length", 99)),
        ("a length below 0", ALL, cell("history_length", -1)),
    ],
    "list length": [
        ("a length unlike its lists", RAGGED, cell("history_length", plus(-1))),
        ("a list too long", RAGGED, row(lambda c, r: c["history_time"][r].append(5))),
        ("session cells too many", ADS[1:], session(lambda c, r: c["session_brand"][r].append(2))),
    ],
    "negative": [
        ("a negative in its history", REVIEWS, negative_from("history")),
        ("a negative that is the positive", REVIEWS, negative_from("positive")),
        ("a negative of the future", REVIEWS, negative_from("future")),
    ],
    "session length": [
        ("a session of 2", ADS, of_session("length", 0, 2)),
        ("a session of 5", ADS, of_session("length", 0, 5)),
        ("four sessions", RAGGED[1:], session(lambda c, r: c["session_length"][r].extend([3, 3]))),
    ],
    "sessions": [
        ("sessions exchanged", ADS, session(swap_sessions)),
        ("a session too few", ADS, session(drop_session)),
        ("a session's behaviour", ADS, session(other_first)),
        ("sessions of no history", ADS, lambda c: c.edit(no_behaviours)),
    ],
}
# fmt: on
