"""What rows have besides ids: weights, numbers, lists, and what is passed through.

A made shop: visits with a weight, a price paid, tags and a request's name; goods with a price and
colours, users with a list of interests. Each row is held to a brute force over dictionaries.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from pipeline.config import Config
from pipeline.description import Description, History, Lookup, Negatives, Table
from pipeline.description.split import ByDay, ByOrder
from pipeline.engines.tally import Tally
from pipeline.flow import prepare
from pipeline.inspection import inspect
from pipeline.steps import intervals
from pipeline.steps.numbers import Moments, moments
from pipeline.verify import verify
from schemas.errors import InputError
from schemas.manifest import SPLITS, Manifest
from schemas.shards import UNITS
from tests.json_events import JsonLines, write

WORDS = pa.list_(pa.large_string())
VISITS = JsonLines(
    {
        "user": pa.int64(),
        "time": pa.int64(),
        "good": pa.large_string(),
        "slot": pa.int64(),
        "paid": pa.float64(),
        "scroll": pa.float64(),
        "tag": pa.list_(pa.int64()),
        "weight": pa.float64(),
        "request": pa.large_string(),
        "size": pa.int64(),
        "score": pa.float64(),
    }
)
GOODS = JsonLines(
    {"good": pa.large_string(), "kind": pa.large_string(), "price": pa.float64(), "colour": WORDS}
)
PEOPLE = JsonLines({"user": pa.int64(), "interest": WORDS})
SLOTS = JsonLines({"slot": pa.int64(), "zone": pa.large_string(), "height": pa.float64()})
SCALES = ("log", "standard", "none")
LISTS = {"tag": 2, "colour": 3, "interest": 1}


@dataclass(frozen=True)
class Shop(Config):
    """Where the files are, and how numbers are scaled."""

    paid: str = "log"
    price: str = "standard"
    all_lines: bool = True
    negatives: int = 2
    unit: str = "s"
    window: str = "order"
    by_day: bool = False
    rule: str = "first"
    refuse: bool = False
    limit: float | None = None
    of_table: bool = False
    own_kind: bool = False

    @property
    def raw_folder(self) -> Path:
        assert self.raw is not None
        return self.raw

    def obtain(self) -> list[Path]:
        return [self.raw_folder / name for name in ("visits", "goods", "people", "slots")]

    def absent(self) -> tuple[str, list[Path] | None]:
        return "", self.obtain()

    def description(self, paths: list[Path]) -> Description:
        visits = Table(
            name="visits",
            file="visits",
            paths=(paths[0],),
            reader=JsonLines({**VISITS.columns, **GOODS.columns}) if self.of_table else VISITS,
            fields=("good", "kind") if self.own_kind else ("good",),
            features=("slot",),
            numbers={"paid": self.paid, "scroll": "none"},
            lists={"tag": LISTS["tag"]},
            keep=("request", "size", "score"),
            weight=True,
        )
        texts = {"without": "{} without a line", "lacks": "{} lacks", "repeated": "{} repeated"}

        def lookup(key: str, path: Path, reader: JsonLines, **columns: Any) -> Lookup:
            told = {
                name: text.replace("{}", key) + " {}" * (name == "lacks")
                for name, text in texts.items()
            }
            return Lookup(
                key, key + "s", path, reader, reader.columns,
                all_lines=self.all_lines, lines=key + "s", **told, **columns,
            )  # fmt: skip

        goods = lookup(
            "good",
            paths[1],
            GOODS,
            fields=("kind",),
            numbers={"price": self.price},
            repeated_rule=self.rule,
            table="visits" if self.of_table else None,
            refuse="no such good" if self.refuse else None,
            max_missing=self.limit,
            lists={"colour": LISTS["colour"]},
        )
        people = lookup("user", paths[2], PEOPLE, lists={"interest": LISTS["interest"]})
        slots = lookup("slot", paths[3], SLOTS, features=("zone",), numbers={"height": "log"})
        return Description(
            "shop",
            (visits,),
            (goods, people, slots),
            ByDay("Asia/Tokyo") if self.by_day else ByOrder(True),
            {"history": History("visits", self.max_len, self.window, 1)},
            self.layout,
            self.bins,
            Negatives("good", self.negatives, 7) if self.negatives else None,
            unit=self.unit,
            timezone="Asia/Tokyo",
        )


Row = dict[str, Any]
NUMBERS = st.none() | st.sampled_from([-2.5, 0.0, 0.1, 1.0, 3.0, 1e8, 1e300])
VISIT = st.fixed_dictionaries(
    {
        "user": st.integers(0, 4),
        "time": st.integers(0, 10),
        "good": st.sampled_from("abcde"),
        "slot": st.none() | st.integers(0, 2),
        "paid": NUMBERS,
        "scroll": NUMBERS,
        "tag": st.none() | st.lists(st.none() | st.integers(0, 4), max_size=5),
        "weight": st.sampled_from([0.0, 0.25, 1.0, 3.5]),
        "request": st.none() | st.text("xyz é", max_size=3),
        "size": st.none() | st.integers(-(2**63), 2**63 - 1),
        "score": NUMBERS,
    }
)
TEXTS = st.none() | st.lists(st.sampled_from(["red", "blue", "grün", ""]), max_size=5)
GOOD = st.fixed_dictionaries(
    {
        "good": st.sampled_from("abcdx"),
        "kind": st.none() | st.sampled_from("kl"),
        "price": NUMBERS,
        "colour": TEXTS,
    }
)
SLOT = st.tuples(st.integers(0, 3), st.none() | st.sampled_from("tb"), NUMBERS)
PERSON = st.fixed_dictionaries({"user": st.integers(0, 6), "interest": TEXTS})
# A user of his own makes sure of train, of a good that he has none of, and of one with no line.
OWN = [
    {**dict.fromkeys(VISITS.columns), "user": 9, "time": t, "good": g, "weight": 1.0, "paid": 2.0}
    for t, g in enumerate("abcdf")
] + [
    {**dict.fromkeys(VISITS.columns), "user": 8, "time": t, "good": "a", "weight": 2.0}
    for t in range(4)
]


def values(held: list[Any] | None, most: int) -> list[Any]:
    """Of a list what is stored: each value once, no missing one, the first ones."""
    return list(dict.fromkeys(one for one in held or () if one is not None))[:most]


def logged(number: float | None, scale: str) -> float | None:
    """A number on its scale; None where there is none."""
    if number is None or (scale == "log" and number <= 0):
        return None
    if scale == "none" and abs(number) > float(np.finfo(np.float32).max):
        return None
    return math.log(number) if scale == "log" else number


def scaled(number: float | None, scale: str, train: list[float | None]) -> float:
    """What a row holds, given what the train targets have."""
    value = logged(number, scale)
    if value is None:
        return 0.0
    if scale == "none":
        return value
    known = [v for one in train if (v := logged(one, scale)) is not None]
    if not known:
        known = [0.0]
    mean = math.fsum(known) / len(known)
    differ = max(known) - min(known) > 1e-9 * (1 if scale == "log" else max(map(abs, known)))
    big = max(map(abs, known)) or 1.0
    std = big * math.sqrt(math.fsum(((v - mean) / big) ** 2 for v in known) / len(known))
    most = float(np.finfo(np.float32).max)
    return min(max((value - mean) / (std if differ else 1.0), -most), most)


def made(folder: Path, visits: list[Row], goods: list[Row], people: list[Row], **how: Any) -> Any:
    raw, slots = folder / "raw", how.pop("slots", [])
    raw.mkdir()
    tables = {"visits": visits, "goods": goods, "people": people, "slots": slots}
    for name, rows in tables.items():
        write(raw / name, rows)
    out = folder / "out"
    how = {"max_len": 3, "bins": 2, **how}
    return out, prepare(Shop(out, raw, **how))


def words(out: Path, name: str) -> dict[int, Any]:
    frame = pl.read_parquet(out / "vocabulary" / f"{name}.parquet")
    return {1: None, **dict(frame.select("id", "value").rows())}


def rows_of(out: Path, told: Manifest) -> dict[tuple[str, int], list[Row]]:
    found: dict[tuple[str, int], list[Row]] = {}
    for split in SPLITS:
        for path in told.shard_paths(out, split):
            for row in pl.read_parquet(path).to_dicts():
                found.setdefault((split, row["row"]), []).append(row)
    return found


@settings(max_examples=10)
@given(
    visits=st.lists(VISIT, max_size=25),
    goods=st.lists(GOOD, max_size=6),
    people=st.lists(PERSON, max_size=4),
    slots=st.lists(SLOT, max_size=4),
    paid=st.sampled_from(SCALES),
    price=st.sampled_from(SCALES),
    layout=st.sampled_from(["padded", "ragged"]),
    all_lines=st.booleans(),
    negatives=st.sampled_from([0, 2]),
)
def test_every_row_is_what_a_brute_force_says(
    visits: list[Row],
    goods: list[Row],
    people: list[Row],
    slots: list[tuple[Any, ...]],
    paid: str,
    price: str,
    layout: str,
    all_lines: bool,
    negatives: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    visits = [*visits, *OWN]
    places = [dict(zip(SLOTS.columns, slot, strict=True)) for slot in slots]
    out, told = made(
        tmp_path_factory.mktemp("shop"), visits, goods, people,
        paid=paid, price=price, layout=layout, all_lines=all_lines, negatives=negatives,
        slots=places,
    )  # fmt: skip
    good_of = {row["good"]: row for row in reversed(goods)}
    person_of = {row["user"]: row for row in reversed(people)}
    slot_of = {row["slot"]: row for row in reversed(places)}
    word = {name: words(out, name) for name in ("good", "kind", "slot", "zone", *LISTS)}
    heights = [slot_of.get(visit["slot"], {}).get("height") for visit in visits]
    found = rows_of(out, told)
    train = [visits[n] for split, n in found if split == "train"]
    of_slots = [heights[n] for split, n in found if split == "train"]
    of_goods = [good_of.get(row["good"], {}).get("price") for row in train]
    assert len(found) == told.targets // (1 + negatives)
    for (_, n), rows in found.items():
        visit = visits[n]
        assert [row["label"] for row in rows] == [1, *[0] * negatives]
        for row in rows:
            good = good_of.get(word["good"][row["target_good"]], {})
            assert row["weight"] == visit["weight"]
            assert [row[name] for name in ("request", "size", "score")] == [
                visit[name] for name in ("request", "size", "score")
            ]
            slot = slot_of.get(visit["slot"], {})
            assert word["slot"][row["slot"]] == visit["slot"]
            assert word["zone"][row["zone"]] == slot.get("zone")
            close = {"rel": 1e-5, "abs": 1e-5}
            for name, of, scale, every in (
                ("paid", visit, paid, [one["paid"] for one in train]),
                ("scroll", visit, "none", []),
                ("price", good, price, of_goods),
                ("height", slot, "log", of_slots),
            ):
                assert row[name] == pytest.approx(scaled(of.get(name), scale, every), **close)
            person = person_of.get(visit["user"], {})
            for name, of in (("tag", visit), ("colour", good), ("interest", person)):
                want, length = values(of.get(name), LISTS[name]), row[f"{name}_length"]
                ids = list(row[name])
                assert [word[name][i] for i in ids[:length]] == want
                padding = (LISTS[name] - length) * (layout == "padded")
                assert ids[length:] == [0] * padding
        assert word["good"][rows[0]["target_good"]] == visit["good"]
    assert verify(out).findings == ()
    # What is told adds up.
    lost = sum(values(one["tag"], 2) == [] for one in visits)
    assert told.shares["visits without a tag"].count == lost
    assert told.shares["visits without a paid"].count == sum(v["paid"] is None for v in visits)
    counts = dict(pl.read_parquet(out / "vocabulary/tag.parquet").select("value", "count").rows())
    tags = [tag for one in visits for tag in values(one["tag"], 2)]
    assert counts == {tag: tags.count(tag) for tag in tags}
    assert told.lists == LISTS


def damaged(out: Path, column: str, change: Any) -> None:
    """Change a column of the first train shard, as a faulty writer would."""
    path = sorted((out / "train").glob("*.parquet"))[0]
    table = pq.read_table(path)
    field = table.schema.field(column)
    held = table[column].to_pylist()
    change(held)
    at = table.schema.get_field_index(column)
    table = table.set_column(at, field, pa.array(held, field.type))
    pq.write_table(table, path)


def put(row: int, value: Any, cell: int | None = None) -> Any:
    """What puts a value in a row, or in a cell of its list."""

    def change(held: list[Any]) -> None:
        if cell is None:
            held[row] = value
        else:
            held[row] = [*held[row][:cell], value, *held[row][cell + 1 :]]

    return change


@pytest.mark.parametrize(
    ("column", "change", "what"),
    [
        ("weight", put(0, float("nan")), "weight"),
        ("weight", put(0, -1.0), "weight"),
        ("weight", put(1, 7.0), "negative unlike its positive"),
        ("request", put(1, "another"), "negative unlike its positive"),
        ("size", put(1, None), "negative unlike its positive"),
        ("paid", put(0, float("inf")), "number"),
        ("paid", put(0, 0.5), "statistics"),
        ("price", put(1, 9.0), "lookups/good.parquet disagrees"),
        ("tag", put(0, 99, 0), "id outside its vocabulary"),
        ("tag", put(0, 2, 1), "padding"),
        ("tag_length", put(0, 3), "list length"),
        ("tag", put(1, 4, 0), "negative unlike its positive"),
        ("colour", put(1, 1, 0), "lookups/good.parquet disagrees"),
        ("colour_length", put(1, 2), "lookups/good.parquet disagrees"),
        ("interest_length", put(0, 0), "lookups/user.parquet disagrees"),
    ],
)
def test_a_fault_is_found(column: str, change: Any, what: str, tmp_path: Path) -> None:
    visit: Row = {"slot": 1, "scroll": 2.0, "weight": 2.0, "request": "r", "size": 5, "score": 0.5}
    visits = [
        {**visit, "user": u, "time": t, "good": "abcde"[(u + t) % 5], "paid": t + 1.5,
         "tag": [t % 3]}
        for u in range(3)
        for t in range(4)
    ]  # fmt: skip
    goods = [
        {"good": g, "kind": "k", "price": n + 1.0, "colour": [g]} for n, g in enumerate("abcde")
    ]
    people = [{"user": u, "interest": ["it"]} for u in range(3)]
    out, _ = made(tmp_path, visits, goods, people, negatives=1, buckets=1)
    assert verify(out).sound
    damaged(out, column, change)
    assert what in verify(out).counts


def test_lists_of_a_lookup_are_held_to_their_vocabulary(tmp_path: Path) -> None:
    goods = [{"good": g, "kind": "k", "price": 1.0, "colour": ["red", "blue"]} for g in "abcdef"]
    out, _ = made(tmp_path, OWN, goods, [])
    path = out / "lookups/good.parquet"
    table = pq.read_table(path)
    assert table.schema.field("colour").type == pa.list_(pa.int32())
    for value in ([99], [2] * 4, None, [2, None]):
        held = [value, *table["colour"].to_pylist()[1:]]
        at = table.schema.get_field_index("colour")
        pq.write_table(table.set_column(at, "colour", pa.array(held, pa.list_(pa.int32()))), path)
        assert "table" in verify(out).counts


NUMBER = st.floats(allow_nan=False, allow_infinity=False)


@given(numbers=st.lists(NUMBER, min_size=1), cuts=st.lists(st.integers(0, 100), max_size=4))
def test_moments_are_exact_however_numbers_are_cut(numbers: list[float], cuts: list[int]) -> None:
    parts = np.split(np.array(numbers), sorted(cut % len(numbers) for cut in cuts))
    found = sum((moments(part, "standard") for part in parts), Moments())
    exact = [Fraction(number) for number in numbers]
    mean = sum(exact) / len(exact)
    assert found.mean == float(mean)
    variance = sum((number - mean) ** 2 for number in exact) / len(exact)
    assert abs(Fraction(found.std) ** 2 - variance) <= variance * Fraction(1, 10**14) + Fraction(
        5e-324
    )


# Half of a day and of its second, and one more of the unit: days and bins are cut between.
STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(0, 1), st.integers(0, 1)),
    max_size=20,
)


@example(steps=[(0, 9, 0, 0)], unit="s", window="order", by_day=True)
@settings(max_examples=10)
@given(
    steps=STEPS,
    unit=st.sampled_from([*UNITS]),
    window=st.sampled_from(["order", "before"]),
    by_day=st.booleans(),
)
def test_times_are_compared_in_their_unit(
    steps: list[tuple[int, int, int, int]],
    unit: str,
    window: str,
    by_day: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    a_second = UNITS[unit]
    begin = (1_764_428_400 - 1) * a_second  # a second before midnight in Tokyo
    steps = [*steps, *((9, half, 0, 1) for half in range(10))]  # every split has some
    visits = [
        {
            **dict.fromkeys(VISITS.columns),
            "user": user,
            "time": begin + half * 43_200 * a_second + part * a_second // 2 + more,
            "good": "abcdefg"[n % 7],
            "weight": 1.0,
        }
        for n, (user, half, part, more) in enumerate(steps)
    ]
    how = {"unit": unit, "window": window, "by_day": by_day, "negatives": 0, "buckets": 2}
    out, told = made(tmp_path_factory.mktemp("times"), visits, [], [], **how)
    assert told.time_unit == unit
    found = rows_of(out, told)
    ordered = sorted(range(len(visits)), key=lambda n: (visits[n]["user"], visits[n]["time"], n))
    last = max(visit["time"] for visit in visits)
    days = [(visit["time"] // a_second + 9 * 3_600) // 86_400 for visit in visits]
    gaps: list[int] = []
    for n in ordered:
        user, time = visits[n]["user"], visits[n]["time"]
        of_user = [m for m in ordered if visits[m]["user"] == user]
        earlier = [visits[m]["time"] for m in of_user[: of_user.index(n)]]
        if by_day:
            of_last = (last // a_second + 9 * 3_600) // 86_400
            split = {0: "test", 1: "valid"}.get(of_last - days[n], "train")
        elif not earlier:
            assert not any(row == n for _, row in found)
            continue
        else:
            split = {0: "test", 1: "valid"}.get(len(of_user) - 1 - of_user.index(n), "train")
        kept = [at for at in earlier if window == "order" or at < time][-3:]
        (row,) = found[split, n]
        length = row["history_length"]
        assert (row["target_time"], list(row["history_time"])[:length]) == (time, kept)
        gaps += [time - at for at in kept] if split == "train" else []
    gaps.sort()
    edge = gaps[(len(gaps) + 1) // 2 - 1] if gaps else 0
    assert told.history.bins.edges_s == [edge]
    for (row,) in found.values():
        length = row["history_length"]
        want = [1 + (row["target_time"] - at > edge) for at in list(row["history_time"])[:length]]
        assert list(row["history_interval_bin"])[:length] == want
    assert verify(out).findings == ()
    assert "Tokyo" in render(inspect(out, 2))


def render(shown: Any) -> str:
    with io.StringIO() as text:
        Console(file=text, width=200).print(shown)
        return text.getvalue()


@pytest.mark.parametrize(
    ("rule", "goods", "said"),
    [
        ("equal", [("a", "k"), ("b", None), ("a", "k")], None),
        ("equal", [("a", "k"), ("b", None), ("a", "l"), ("b", "l")], "lines 1 and 3"),
        ("equal", [("b", None), ("a", "k"), ("a", None)], "lines 2 and 3"),
        ("refuse", [("a", "k"), ("x", "k"), ("x", "k")], "lines 2 and 3"),
        ("refuse", [("x", "l"), ("a", "k"), ("x", "k")], "lines 1 and 3"),
        ("first", [("a", "k"), ("a", "l"), ("a", "k"), ("a", "l")], None),
    ],
)
@pytest.mark.parametrize("all_lines", [True, False])
def test_a_repeated_key(
    rule: str,
    goods: list[tuple[str, str | None]],
    said: str | None,
    all_lines: bool,
    tmp_path: Path,
) -> None:
    rows = [{"good": g, "kind": kind, "price": None, "colour": None} for g, kind in goods]
    how = {"rule": rule, "all_lines": all_lines}
    if said is not None and (all_lines or all(good != "x" for good, _ in goods)):
        with pytest.raises(InputError) as refused:
            made(tmp_path, OWN, rows, [], **how)
        assert said in str(refused.value)
        return
    out, told = made(tmp_path, OWN, rows, [], **how)
    known = [good for good, _ in goods if all_lines or good != "x"]
    assert told.rejected.get("good repeated", 0) == len(known) - len({*known})
    unlike = told.shares.get("goods that differ from the first one of their good")
    assert (unlike.count if unlike else 0) == (2 if rule == "first" else 0)
    assert verify(out).findings == ()


@pytest.mark.parametrize(("limit", "fine"), [(0.75, True), (0.74, False)])
def test_a_lookup_has_a_limit_of_its_own(limit: float, fine: bool, tmp_path: Path) -> None:
    # Of four goods one has a line.
    goods = [{"good": "a", "kind": None, "price": None, "colour": None}]
    visits = [visit for visit in OWN if visit["good"] != "d"]
    how = {"limit": limit, "all_lines": False}
    if fine:
        made(tmp_path, visits, goods, [], **how)
        return
    with pytest.raises(InputError) as refused:
        made(tmp_path, visits, goods, [], **how)
    assert "max_missing" in str(refused.value)
    assert "--max-missing" not in str(refused.value)


@pytest.mark.parametrize("all_lines", [True, False])
def test_what_is_nowhere_can_be_refused(all_lines: bool, tmp_path: Path) -> None:
    goods = [
        {"good": good, "kind": good, "price": 1.0, "colour": [good]}
        for good in ("a", "b", "c", "x")
    ]
    out, told = made(tmp_path, OWN, goods, [], all_lines=all_lines, refuse=True, max_rejected=0.5)
    assert told.rejected["no such good"] == 2
    assert [*words(out, "good").values()] == [None, "a", "b", "c", *(["x"] if all_lines else [])]
    assert [*words(out, "kind").values()] == [None, "a", "b", "c", *(["x"] if all_lines else [])]
    assert {row for _, row in rows_of(out, told)} <= {1, 2, 6, 7, 8}
    assert verify(out).findings == ()


def test_inspect_shows_what_a_row_has_besides(tmp_path: Path) -> None:
    more = {"tag": [3, 1, 3], "request": "r=1", "size": None, "score": 0.5, "slot": 4}
    goods = [{"good": good, "kind": "k", "price": 2.0, "colour": ["red"]} for good in "abcdf"]
    out, _ = made(tmp_path, [{**visit, **more} for visit in OWN], goods, [], price="none")
    shown = " ".join(render(inspect(out, 2)).split())
    for said in ("tag [3, 1]", "colour [red]", "price 2;", "request r=1", "size None", "slot 4"):
        assert said in shown
    assert "weight" in shown


KINDS = st.none() | st.sampled_from("klm")
SALE = st.tuples(
    st.integers(0, 3), st.integers(0, 5), st.sampled_from("abc"), KINDS, TEXTS, NUMBERS
)


@settings(max_examples=10)
@given(sales=st.lists(SALE, max_size=20), own_kind=st.booleans(), buckets=st.sampled_from([1, 3]))
def test_a_table_of_events_says_what_is_known_of_a_good(
    sales: list[tuple[Any, ...]],
    own_kind: bool,
    buckets: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    sales = [*sales, *((9, t, "abcd"[t], "k", ["red"], 2.0) for t in range(4))]
    sales += [(8, t, "e", "m", None, None) for t in range(4)]
    names = ("user", "time", "good", "kind", "colour", "price")
    more = dict.fromkeys(VISITS.columns) | {"weight": 1.0}
    visits = [more | dict(zip(names, sale, strict=True)) for sale in sales]
    how = {"of_table": True, "own_kind": own_kind, "all_lines": False, "buckets": buckets}
    out, told = made(tmp_path_factory.mktemp("sales"), visits, [], [], **how, price="none")
    first: dict[str, Row] = {}
    unlike = 0
    for visit in visits:
        one = {"kind": visit["kind"], "price": visit["price"], "colour": values(visit["colour"], 3)}
        unlike += first.setdefault(visit["good"], one) != one
    word = {name: words(out, name) for name in ("good", "kind", "colour")}
    ordered = sorted(range(len(visits)), key=lambda n: (visits[n]["user"], visits[n]["time"], n))
    for (_, n), rows in rows_of(out, told).items():
        of_user = [m for m in ordered if visits[m]["user"] == visits[n]["user"]]
        before = of_user[: of_user.index(n)][-3:]
        for row in rows:
            good = word["good"][row["target_good"]]
            kind = visits[n]["kind"] if own_kind and row["label"] else first[good]["kind"]
            assert word["kind"][row["target_kind"]] == kind
            ids = list(row["colour"])[: row["colour_length"]]
            assert [word["colour"][i] for i in ids] == first[good]["colour"]
            price = scaled(first[good]["price"], "none", [])
            assert row["price"] == pytest.approx(price, rel=1e-6)
            kinds = [visits[m]["kind"] for m in before]
            if not own_kind:
                kinds = [first[visits[m]["good"]]["kind"] for m in before]
            ids = list(row["history_kind"])[: row["history_length"]]
            assert [word["kind"][i] for i in ids] == kinds
    share = told.shares.get("goods that differ from the first one of their good")
    assert (share.count if share else 0) == unlike
    counts = dict(pl.read_parquet(out / "vocabulary/kind.parquet").select("value", "count").rows())
    kinds = [(visit if own_kind else first[visit["good"]])["kind"] for visit in visits]
    assert counts == {kind: kinds.count(kind) for kind in kinds if kind is not None}
    assert verify(out).findings == ()


@given(
    gaps=st.lists(st.integers(0, 5_000), max_size=60),
    bins=st.integers(1, 9),
    a_second=st.sampled_from([*UNITS.values()]),
)
def test_edges_are_those_of_the_unit(gaps: list[int], bins: int, a_second: int) -> None:
    every, by_second, within = Tally(), Tally(), Tally()
    found = np.array(gaps, np.int64)
    every.add(found)
    by_second.add(found // a_second)
    counts = intervals.counted(by_second)
    within.add(found[np.isin(found // a_second, intervals.cells(counts, bins))])
    some = intervals.refined(counts, intervals.counted(within), a_second)
    exact = intervals.counted(every)
    cuts = intervals.edges(exact, bins)
    assert intervals.edges(some, bins).tolist() == cuts.tolist()
    assert intervals.bin_counts(some, cuts) == intervals.bin_counts(exact, cuts)
