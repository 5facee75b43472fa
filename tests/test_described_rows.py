"""Rows of descriptions that no preset has, each held to a brute force over plain Python values.

Hypothesis draws the log and what is made of it: which events are targets, which stand in
histories, how they are split, filtered and drawn from, and what has an id. The brute force knows
values, never ids.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import Config
from pipeline.description import Description, History, Lookup, Negatives, Table
from pipeline.description.split import ByColumn, ByDay, ByOrder, ByTime, Rule
from pipeline.flow import prepare
from pipeline.readers.lines import Block, Part, blocks
from pipeline.readers.parsed import Parsed, Refused, read
from pipeline.verify import verify
from schemas.errors import InputError
from schemas.manifest import SPLITS, Manifest, Share

HOUR, DAY = 3_600, 86_400
VALID_AT, TEST_AT = 2 * DAY + 7, 3 * DAY + HOUR
TEXT, FLAG = (pl.String, pa.large_string()), (pl.Boolean, pa.bool_())
TYPES: dict[str, tuple[Any, pa.DataType]] = {
    "user": TEXT,
    "time": (pl.Int64, pa.int64()),
    "item": TEXT,
    "is_target": FLAG,
    "in_history": FLAG,
    "split": TEXT,
    "outside": FLAG,
    "genre": TEXT,
    "label": (pl.Int64, pa.int64()),
}
GENRES = {"a": "x", "b": "y", "c": "x", "d": None, "f": "z", "q": "w"}
MAX_LEN = 3


class Event(NamedTuple):
    """One line of a log."""

    user: str
    time: int
    item: str | None
    is_target: bool = True
    in_history: bool = True
    split: str | None = "train"
    outside: bool = False
    label: int = 1


class View(NamedTuple):
    """One line of another log."""

    user: str
    time: int
    item: str | None
    in_history: bool = True


@dataclass(frozen=True)
class Asked:
    """What is made of the logs.

    Attributes:
        split: `order`, `order-2` without valid, `time`, `day` or `column`.
        target: whether targets are those with the mask, or all.
        history: likewise.
        views: whether histories are of the other log.
        window: of histories.
        only_new: whether what a user has touched before is no target.
        drop: whether repeats are left out.
        negatives: pool, exclude and weight; None for none.
        train: whether only what train holds has an id.
        k_core: events that users and items have at least of each other; 0 for any.
        min_history: behaviours that a target needs.
        label: whether events have labels.
        lookup: whether items have a genre: `late`, read for the items that there are; `all`, where
            every line counts; or `none`.
    """

    split: str = "order"
    target: bool = False
    history: bool = False
    views: bool = False
    window: str = "order"
    only_new: bool = False
    drop: bool = False
    negatives: tuple[str, str, str] | None = None
    train: bool = False
    k_core: int = 0
    min_history: int = 0
    label: bool = False
    lookup: str = "none"

    @property
    def unfiltered(self) -> bool:
        """Whether events that are outside what the table is of count as touched."""
        return self.negatives is not None and self.negatives[1] == "unfiltered"

    @property
    def rule(self) -> Rule:
        """The rule of the splits."""
        rules: dict[str, Rule] = {
            "order": ByOrder(True),
            "order-2": ByOrder(False),
            "time": ByTime(VALID_AT, TEST_AT, "UTC"),
            "day": ByDay("UTC"),
            "column": ByColumn(),
        }
        return rules[self.split]


@dataclass(frozen=True)
class JsonLines:
    """A line of JSON a record, each with just these columns."""

    names: tuple[str, ...]

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        return {name: TYPES[name][1] for name in self.names}

    def blocks(self, part: Part) -> Generator[Block]:
        return blocks(part)

    def parse(self, file: str, block: Block) -> Parsed:
        rows = [json.loads(line) for line in block.data.decode().splitlines()]
        frame = pl.DataFrame(rows, {name: TYPES[name][0] for name in self.names})
        number = pl.int_range(pl.len()) + block.first_line
        return Parsed(
            frame.select(number.alias("row"), *self.names), Refused(file).frame(), block.lines
        )


@dataclass(frozen=True)
class LogConfig(Config):
    """Where the logs are, and what is made of them."""

    asked: Asked = Asked()
    strict: bool = False

    @property
    def raw_folder(self) -> Path:
        assert self.raw is not None
        return self.raw

    def obtain(self) -> list[Path]:
        return [self.raw_folder / f"{name}.json" for name in ("log", "views", "items")]

    def absent(self) -> tuple[str, list[Path] | None]:
        return "", self.obtain()

    def description(self, paths: list[Path]) -> Description:
        asked = self.asked
        masks = {
            "is_target": asked.target,
            "in_history": asked.history and not asked.views,
            "outside": asked.unfiltered,
        }
        log = Table(
            "events",
            "log",
            (paths[0],),
            JsonLines(Event._fields),
            ("item",),
            masks=tuple(name for name, there in masks.items() if there),
            split=asked.split == "column",
            label=asked.label,
            drop=asked.drop,
        )
        views = Table(
            "views",
            "views",
            (paths[1],),
            JsonLines(View._fields),
            ("item",),
            masks=("in_history",) if asked.history else (),
            drop=asked.drop,
        )
        items = Lookup(
            "item",
            "items",
            paths[2],
            lambda path, wanted: read(JsonLines(("item", "genre")), path),
            JsonLines(("item", "genre")).columns,
            without="items without a line",
            lacks="items without a {}",
            repeated="line of an item that had one",
            fields=("genre",),
            all_lines=asked.lookup == "all",
        )
        history = History(
            "views" if asked.views else "events",
            self.max_len,
            asked.window,
            self.session_gap,
            where=asked.history,
        )
        drawn = asked.negatives
        return Description(
            "log",
            (log, views) if asked.views else (log,),
            () if asked.lookup == "none" else (items,),
            asked.rule,
            {"history": history},
            self.layout,
            self.bins,
            None if drawn is None else Negatives("item", 2, 7, None, *drawn),
            only_new=asked.only_new,
            vocabulary_from="train" if asked.train else "all",
            k_core=asked.k_core,
            min_history=asked.min_history,
            strict=self.strict,
        )


USERS = st.sampled_from(["u0", "u1", "u2", "u10"])
ITEMS = st.sampled_from(["a", "b", "c", "d", "é", "f", None])
TIMES = st.integers(0, 4 * 8).map(lambda n: n * 3 * HOUR)  # often the same
SPLIT = st.sampled_from([*SPLITS, None])
RARELY = st.sampled_from([False, False, False, True])
EVENTS = st.lists(
    st.builds(Event, USERS, TIMES, ITEMS, *[st.booleans()] * 2, SPLIT, RARELY, st.just(1)),
    max_size=40,
)
VIEWS = st.lists(st.builds(View, USERS, TIMES, ITEMS, st.booleans()), max_size=30)
NEGATIVES = st.tuples(
    st.sampled_from(["all", "train"]),
    st.sampled_from(["ever", "unfiltered", "history"]),
    st.sampled_from(["uniform", "popularity"]),
)
ASKED = st.builds(
    Asked,
    st.sampled_from(["order", "order-2", "time", "day", "column"]),
    target=st.booleans(),
    history=st.booleans(),
    views=st.booleans(),
    window=st.sampled_from(["order", "before"]),
    only_new=st.booleans(),
    drop=st.booleans(),
    negatives=st.none() | NEGATIVES,
    train=st.booleans(),
    k_core=st.sampled_from([0, 0, 2, 3]),
    min_history=st.sampled_from([0, 0, 1, 2]),
    lookup=st.sampled_from(["none", "late", "all"]),
).map(lambda asked: replace(asked, window="before") if asked.views else asked)


@dataclass(frozen=True)
class Row:
    """What a target's row holds.

    Attributes:
        event: the target.
        split: its split.
        history: the behaviours, oldest first.
        allowed: what may be drawn for it.
    """

    event: Event
    split: str
    history: list[Event | View]
    allowed: set[str]


@dataclass(frozen=True)
class Expected:
    """What a data set is to hold.

    Attributes:
        rows: by line.
        left_out: how many targets leave nothing to draw.
        shares: some of the manifest's.
        counts: how often each item that has an id occurs, where only what train holds has one.
    """

    rows: dict[int, Row]
    left_out: int
    shares: dict[str, Share]
    counts: Counter[str]


Lines = list[tuple[int, Any]]  # with their numbers


def once(lines: Lines) -> Lines:
    """The lines of which none before is the same."""
    found: dict[Any, tuple[int, Any]] = {}
    for n, one in lines:
        found.setdefault((one.user, one.time, one.item), (n, one))
    return list(found.values())


def core(lines: Lines, least: int) -> Lines:
    """The lines whose users and items have enough of them."""
    users, items = Counter(one.user for _, one in lines), Counter(one.item for _, one in lines)
    return [
        (n, one)
        for n, one in lines
        if users[one.user] >= least and (one.item is None or items[one.item] >= least)
    ]


def in_order(lines: Lines) -> Lines:
    """Lines by time; those of one time stay in the order of the file."""
    return sorted(lines, key=lambda line: (line[1].time, line[0]))


def by_force(events: list[Event], views: list[View], asked: Asked) -> Expected:
    """What a data set is to hold, from its description alone."""
    inside = [line for line in enumerate(events) if not (asked.unfiltered and line[1].outside)]
    kept = in_order(once(inside) if asked.drop else inside)
    every = kept
    while asked.k_core and kept != (kept := core(kept, asked.k_core)):
        pass
    known = {one.user for _, one in kept}
    others = [line for line in enumerate(views) if line[1].user in known]
    others = in_order(once(others) if asked.drop else others)
    may = [n for n, one in kept if one.is_target or not asked.target]
    last_day = max(one.time // DAY for n, one in kept if n in may)

    split: dict[int, str] = {}
    history: dict[int, Lines] = {}
    old = 0
    for user in known:
        own = [line for line in kept if line[1].user == user]
        targets = []
        for at, (n, one) in enumerate(own):
            before = [o.item for _, o in own[:at]]
            if n in may and asked.only_new and one.item is not None and one.item in before:
                old += 1
            elif n in may and (at or not asked.split.startswith("order")):
                targets.append((n, one))
            past = own[:at]
            if asked.views:
                past = [line for line in others if line[1].user == user]
            if asked.window == "before":
                past = [line for line in past if line[1].time < one.time]
            past = [line for line in past if line[1].in_history or not asked.history]
            history[n] = past[-MAX_LEN:]
        for back, (n, one) in enumerate(reversed(targets)):
            if asked.split == "column":
                named = one.split
            elif asked.split == "time":
                named = SPLITS[(one.time >= VALID_AT) + (one.time >= TEST_AT)]
            elif asked.split == "day":
                named = {0: "test", 1: "valid"}.get(last_day - one.time // DAY, "train")
            else:
                named = {0: "test", 1: "valid" if asked.split == "order" else "train"}.get(
                    back, "train"
                )
            if named is not None:
                split[n] = named

    enough = {n for n in split if len(history[n]) >= asked.min_history}
    short = Share(len(split) - len(enough), len(split))
    split = {n: named for n, named in split.items() if n in enough}
    cut = VALID_AT if asked.split == "time" else (last_day - 1) * DAY
    of_views = others if asked.views else []
    if asked.split in ("time", "day"):
        seen = [line for line in kept if line[1].time < cut]
        of_views = [line for line in of_views if line[1].time < cut]
    elif asked.split == "column":
        seen, of_views = [line for line in kept if line[1].split == "train"], []
    else:
        seen = [line for line in kept if split.get(line[0], "train") == "train"]

    users = {one.user for _, one in seen}
    of_views = [line for line in of_views if line[1].user in users]
    pool, exclude, weight = asked.negatives or ("all", "ever", "uniform")
    values = {one.item for _, one in [*kept, *(enumerate(views) if asked.views else ())]}
    values |= {*GENRES} if asked.lookup == "all" else set()
    if (pool, weight) != ("all", "uniform"):
        values = {one.item for _, one in [*seen, *of_views]}
    rows = {}
    for n, named in split.items():
        target = events[n]
        touched = {one.item for _, one in kept if one.user == target.user}
        if exclude == "unfiltered":
            touched |= {one.item for one in events if one.user == target.user and one.outside}
        if exclude == "history":
            touched = {target.item, *(one.item for _, one in history[n])}
        allowed = {item for item in values - touched if item is not None}
        if allowed or asked.negatives is None:
            rows[n] = Row(target, named, [one for _, one in history[n]], allowed)

    held = {n: events[n] for n, row in rows.items() if row.split == "train"}
    of_others: dict[int, Any] = {}
    for n in [*held]:
        (of_others if asked.views else held).update(history[n])
    if asked.negatives is not None:
        held.update(seen)
        of_others.update(of_views)
    counts = Counter(
        one.item for one in [*held.values(), *of_others.values()] if one.item is not None
    )
    repeated = Share(len(inside) - len(once(inside)), len(inside))
    shares = {f"repeated events{', dropped' * asked.drop}": repeated}
    if asked.k_core:
        shares["events outside the k-core"] = Share(len(every) - len(kept), len(every))
    if asked.min_history:
        shares[f"events with fewer than {asked.min_history} behaviours before them"] = short
    if asked.only_new:
        shares["events of what the user had touched before"] = Share(old, len(may))
    return Expected(rows, len(split) - len(rows), shares, counts)


def made(
    events: list[Event], views: list[View], asked: Asked, folder: Path, **more: Any
) -> tuple[Path, Manifest]:
    """The data set of some logs."""
    raw, out = folder / "raw", folder / "out"
    raw.mkdir(parents=True, exist_ok=True)
    lines = {
        "log": [one._asdict() for one in events],
        "views": [one._asdict() for one in views],
        "items": [{"item": item, "genre": genre} for item, genre in GENRES.items()],
    }
    for name, records in lines.items():
        text = "".join(json.dumps(record) + "\n" for record in records)
        (raw / f"{name}.json").write_text(text, encoding="utf-8")
    shape = {"max_len": MAX_LEN, "bins": 2, "buckets": 2, "layout": "ragged", **more}
    return out, prepare(LogConfig(out, raw, asked=asked, **shape))


def values_of(out: Path, name: str) -> dict[int, Any]:
    """The value of each id of a vocabulary."""
    frame = pl.read_parquet(out / "vocabulary" / f"{name}.parquet")
    return {1: None, **dict(frame.select("id", "value").iter_rows())}


def rows_of(out: Path, told: Manifest) -> dict[int, list[tuple[str, dict[str, Any]]]]:
    """The rows of each line, with their splits."""
    found: dict[int, list[tuple[str, dict[str, Any]]]] = {}
    for split in SPLITS:
        for path in told.shard_paths(out, split):
            for row in pl.read_parquet(path).to_dicts():
                found.setdefault(row["row"], []).append((split, row))
    return found


@settings(max_examples=20)
@given(events=EVENTS, views=VIEWS, asked=ASKED)
def test_every_row_is_what_a_brute_force_says(
    events: list[Event], views: list[View], asked: Asked, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # Users of their own make sure of train, and of something to draw.
    sure = [
        Event(f"sure {user}", n * DAY, item, split="train" if n < 4 else "test")
        for user in range(3)
        for n, item in enumerate("abcdea")
    ]
    sure += [Event(f"other {user}", n, item) for user in range(3) for n, item in enumerate("ghi")]
    events, views = [*events, *sure], [*views, *(View(*one[:3]) for one in sure)]
    out, told = made(events, views, asked, tmp_path_factory.mktemp("log"))
    want = by_force(events, views, asked)
    users, items = values_of(out, "user"), values_of(out, "item")
    genres = values_of(out, "genre") if asked.lookup != "none" else {}
    if asked.train:
        counts = pl.read_parquet(out / "vocabulary" / "item.parquet").select("value", "count")
        if (asked.negatives or "-")[0] != "all":
            assert dict(counts.iter_rows()) == want.counts
        of_genres = {GENRES.get(item) for item in counts["value"]} - {None}
        assert {*genres.values()} - {None} == (of_genres if genres else set())
    found = rows_of(out, told)
    assert found.keys() == want.rows.keys()
    assert told.rejected.get("touched every item", 0) == want.left_out
    for n, rows in found.items():
        wanted = want.rows[n]
        target = wanted.event
        for split, row in rows:
            assert (split, users[row["user"]]) == (wanted.split, target.user)
            assert (row["target_time"], row["label"]) == (target.time, int(row is rows[0][1]))
            assert row["history_time"] == [one.time for one in wanted.history]
            past = [known(one.item, items) for one in wanted.history]
            assert [items[i] for i in row["history_item"]] == past
            if genres:
                past = [known(GENRES.get(one.item or ""), genres) for one in wanted.history]
                assert [genres[i] for i in row["history_genre"]] == past
        drawn = [items[row["target_item"]] for _, row in rows]
        assert drawn[0] == known(target.item, items)
        assert len(drawn) == 1 + 2 * (asked.negatives is not None)
        assert {*drawn[1:]} <= wanted.allowed
        if genres:
            names = [target.item, *drawn[1:]]
            got = [genres[row["target_genre"]] for _, row in rows]
            assert got == [known(GENRES.get(name or ""), genres) for name in names]
    assert {name: told.shares[name] for name in want.shares} == want.shares
    assert verify(out).findings == ()


def known(value: str | None, words: dict[int, Any]) -> str | None:
    """A value as rows can tell it."""
    return value if value in words.values() else None


def decoded(out: Path, told: Manifest, split: str) -> list[tuple[Any, ...]]:
    """The rows of a split, with values in place of ids."""
    users, items = values_of(out, "user"), values_of(out, "item")
    genres = values_of(out, "genre")
    return [
        (
            n,
            users[row["user"]],
            items[row["target_item"]],
            genres[row["target_genre"]],
            [items[i] for i in row["history_item"]],
            [genres[i] for i in row["history_genre"]],
            *(row[name] for name in ("label", "target_time", "history_time")),
            *(row[name] for name in ("history_interval_bin", "history_session")),
        )
        for n, rows in sorted(rows_of(out, told).items())
        for of, row in rows
        if of == split
    ]


def at(low: int, high: int) -> st.SearchStrategy[Event]:
    """Events of some time."""
    flags = [st.booleans()] * 2
    return st.builds(
        Event, USERS, st.integers(low, high), ITEMS, *flags, SPLIT, st.just(False), st.just(1)
    )


EARLY = st.lists(at(0, VALID_AT - 1), max_size=25)
LATE = st.lists(at(VALID_AT, TEST_AT + DAY), max_size=15)


@settings(max_examples=20)
@given(early=EARLY, one=LATE, other=LATE, asked=ASKED)
def test_what_happens_from_valid_on_changes_nothing_of_train(
    early: list[Event],
    one: list[Event],
    other: list[Event],
    asked: Asked,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    negatives = asked.negatives and ("train", "history", asked.negatives[2])
    asked = replace(asked, split="time", train=True, k_core=0, negatives=negatives, lookup="late")
    early += [Event("sure", n * HOUR, item) for n, item in enumerate("abcde")]
    found = []
    for later in (one, other):
        events = [*early, Event("new", TEST_AT, "z"), *later]
        views = [View(*event[:3], event.in_history) for event in events]
        out, told = made(events, views, asked, tmp_path_factory.mktemp("log"))
        words = [
            pl.read_parquet(out / "vocabulary" / f"{name}.parquet").to_dict(as_series=False)
            for name in ("item", "genre")
        ]
        bins = told.histories["history"].bins
        found.append((decoded(out, told, "train"), words, bins))
    assert found[0] == found[1]
    assert found[0][0]


@pytest.mark.parametrize(
    ("asked", "events", "said"),
    [
        (Asked(label=True), [Event("u", n, "a") for n in range(5)], "the same label"),
        (
            Asked("time", window="before"),
            [Event("u", 0, "a"), Event("u", 1, "b"), Event("u", TEST_AT, "c")],
            "no target in the split valid",
        ),
        (
            Asked("order-2", history=True),
            [Event("u", n, "ab"[n % 2], in_history=False) for n in range(5)],
            "history history is empty: none of the events stands before",
        ),
        (Asked(target=True), [Event("u", n, "a", is_target=False) for n in range(5)], "a target"),
        (Asked("column"), [Event("u", 0, "a", split="test")], "none of the events is of train"),
        (Asked("column"), [Event("u", 0, "a", split="later")], "names another one"),
        (Asked(k_core=3), [Event("u", 0, "a"), Event("u", 1, "b")], "Nothing of the events stays"),
        (Asked(only_new=True), [Event("u", n, "a") for n in range(9)], "nothing to train on"),
        (Asked(min_history=3), [Event("u", n, "a") for n in range(4)], "nothing to train on"),
    ],
)
def test_logs_of_no_use_are_refused(
    asked: Asked, events: list[Event], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as refused:
        made(events, [], asked, tmp_path, strict=True)
    assert said in str(refused.value)


@pytest.mark.parametrize("exclude", ["ever", "unfiltered", "history"])
def test_what_is_drawn_depends_on_neither_buckets_nor_threads(exclude: str, tmp_path: Path) -> None:
    events = [
        Event(f"u{n % 7}", n * HOUR, "abcdefghijk"[(n * n + n // 3) % 11], outside=n % 9 == 0)
        for n in range(150)
    ]
    asked = Asked("time", negatives=("train", exclude, "popularity"), train=True)
    found = []
    for n, shape in enumerate(({"buckets": 1}, {"buckets": 5, "threads": 3})):
        out, told = made(events, [], asked, tmp_path / str(n), **shape)
        found.append(rows_of(out, told))
    assert found[0] == found[1]


def test_popular_values_are_drawn_as_often_as_they_occur(tmp_path: Path) -> None:
    events = [Event(f"u{n}", 0, "x" if n % 4 else "y") for n in range(400)]
    events += [Event("u", n + 1, "z") for n in range(3)]
    asked = Asked("order-2", negatives=("train", "history", "popularity"))
    targets = [Event(f"t{n}", k, "z") for n in range(600) for k in range(3)]
    out, told = made([*events, *targets], [], asked, tmp_path)
    items = values_of(out, "item")
    drawn = Counter(
        items[row["target_item"]]
        for rows in rows_of(out, told).values()
        for _, row in rows
        if row["label"] == 0
    )
    assert drawn.keys() == {"x", "y"}
    assert 0.70 < drawn["x"] / drawn.total() < 0.80


@pytest.mark.parametrize(
    ("asked", "change", "what"),
    [
        (Asked(only_new=True), {"only_new": "item"}, "not new"),
        (Asked(), {"min_history": 2}, "too few behaviours"),
        (Asked(), {"k_core": 9}, "too few events"),
        (Asked(), {"delay": 4}, "future behaviour"),
        (Asked(), {"within": 0}, "old behaviour"),
        (Asked(negatives=("all", "history", "uniform")), {}, "negative"),
    ],
)
def test_verify_finds_what_breaks_a_promise(
    asked: Asked, change: dict[str, Any], what: str, tmp_path: Path
) -> None:
    events = [Event(f"u{n % 3}", n, "abcdefgh"[n % 8]) for n in range(24)]
    out, told = made(events, [], asked, tmp_path, layout="padded")
    assert verify(out).findings == ()
    raw = json.loads((out / "manifest.json").read_text())
    (raw["histories"]["history"] if {*change} & {"delay", "within"} else raw["target"]).update(
        change
    )
    (out / "manifest.json").write_text(json.dumps(raw))
    if not change or "only_new" in change:
        # The newest behaviour of each row becomes what its target, or its last negative, is.
        for shard in told.shards:
            table = pl.read_parquet(out / shard.path)
            target = table["target_item"]
            ids = table["history_item"].to_list()
            each = 3 if asked.negatives else 1
            for k, row in enumerate(ids):
                row[table["history_length"][k] - 1] = target[k // each * each + each - 1]
            schema = pq.read_schema(out / shard.path)
            changed = table.with_columns(pl.Series("history_item", ids)).to_arrow()
            columns = [changed[name].combine_chunks() for name in schema.names]
            plain = [
                pa.array(column.to_pylist(), schema.field(n).type)
                for n, column in enumerate(columns)
            ]
            pq.write_table(pa.Table.from_arrays(plain, schema=schema), out / shard.path)
    assert what in verify(out).counts
