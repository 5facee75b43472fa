"""Reviews of raw Amazon files: what we read is what Python reads; whole and real files."""

from __future__ import annotations

import gzip
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import astuple

from fuzz.reviews import exact
from pipeline.readers import review_lines as said
from pipeline.readers.amazon_parse import Reviews, read_meta
from pipeline.readers.parsed import TOO_LONG, read
from schemas import tables
from schemas.errors import InputError
from schemas.tables import Rejected, check
from tests.amazon_lines import gather, one_by_one
from tests.conftest import SHARED

BEAUTY = SHARED / "data" / "amazon_beauty"
MUSIC = SHARED / "data" / "amazon_musical_instruments"
GOOD = '{"reviewerID": "A1", "asin": "0528881469", "unixReviewTime": 1370131200}'
IDS = ["A2IBPI20UZIR0U", "0528881469", "1384719342", "972345678X", "true", "false", "tom", "", "é"]
ID_TEXTS = [
    *(json.dumps(i) for i in IDS),
    *("7", "-7", "-0", "0", "1e16", "100000.0", "18446744073709551616", "9" * 30, "true", "null"),
    *('["A"]', '{"a": 1}', '"\\ud800"', '"A\\ud800"', '"\\u0041"', '"A\\u0000"', '"a b"', '"\\q"'),
]
TIMES = [
    *("1370131200", "0", "-0", "-1", "5.0", "5.5", "1e3", "null", "true", "[5]", "007", "+5"),
    *('"5"', '"5.0"', '" 5"', '""', "NaN", "1370131200.0", "-1.0", "1e300", "1e999"),
    *(
        "99999999999",
        "100000000000",
        str(2**63 - 1),
        str(2**63),
        "9" * 25,
        "9" * 5_000,
        "-" + "9" * 25,
    ),
]
OTHERS = [
    *("5.0", "NaN", "-Infinity", "1e999", "1.", "9" * 5_000, '"\\ud800"', '"a\tb"', '"\\u00zz"'),
    *("[0, 0]", '"{} [] \\" , é"', "[" * 40 + "]" * 40, "[" * 300 + "]" * 300, '{"a": {}}'),
    *("[" * 3_000 + "]" * 3_000, "[1,]", "{}", "1 2", "/* */ 1", "'x'", '"\u2028"', '"'),
]
KEYS = ["reviewerID", "asin", "unixReviewTime", "as\\u0069n", "helpful", "asin "]


@st.composite
def review_lines(draw: st.DrawFn) -> bytes:
    """A line that is good, odd or broken."""
    kind = draw(st.integers(0, 9))
    if kind < 3:
        text = GOOD
    elif kind < 8:
        pairs = [
            ("reviewerID", draw(st.sampled_from(ID_TEXTS))),
            ("asin", draw(st.sampled_from(ID_TEXTS))),
            ("unixReviewTime", draw(st.sampled_from(TIMES))),
            *draw(
                st.lists(
                    st.tuples(st.sampled_from(KEYS), st.sampled_from(ID_TEXTS + TIMES + OTHERS)),
                    max_size=2,
                )
            ),
        ]
        # Most have just one thing wrong, or nothing.
        good = ['"A1"', '"B1"', "5"]
        keep = draw(st.integers(0, 3))
        pairs[:3] = [p if i == keep else (p[0], good[i]) for i, p in enumerate(pairs[:3])]
        if draw(st.booleans()):
            pairs = draw(st.permutations(pairs))
        if draw(st.integers(0, 5)) == 0:
            pairs.pop()
        colon = draw(st.sampled_from([": ", ":", " : "]))
        text = "{" + ", ".join(f'"{key}"{colon}{value}' for key, value in pairs) + "}"
    else:
        text = draw(
            st.sampled_from(
                [
                    *("", "  ", "\t\r", "x", "5", "null", "[]", f"[{GOOD}]", "{}", GOOD[:-1]),
                    *(GOOD[20:], GOOD * 2, f"{GOOD} {GOOD}", f"{GOOD} x", f"{GOOD},", f" {GOOD}"),
                    *(f"{GOOD}\r", f"\ufeff{GOOD}", f"{GOOD}\0", f"{GOOD}\u00a0"),
                    GOOD.replace('"', "'"),
                ]
            )
        )
    line = text.encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 15)) == 0:
        at = draw(st.integers(0, len(line)))
        odd = [b"\xff", b"\xed\xa0\x80", *(bytes([k]) for k in (0, 1, 8, 11, 12, 27, 31, 127))]
        line = line[:at] + draw(st.sampled_from(odd)) + line[at:]
    return line


@settings(max_examples=250, deadline=None)
@given(
    lines=st.lists(review_lines(), min_size=1, max_size=8),
    block_bytes=st.sampled_from([1, 100, 300, 8 << 20]),
)
def test_reviews_are_what_python_says(folder: Path, lines: list[bytes], block_bytes: int) -> None:
    path = folder / "reviews.json"
    path.write_bytes(b"\n".join(lines) + b"\n")
    expected = one_by_one(lines, exact)
    assert gather(list(read(Reviews(block_bytes), path))) == expected


def test_each_odd_value_in_each_field(folder: Path) -> None:
    good = {"reviewerID": '"A1"', "asin": '"B1"', "unixReviewTime": "5"}
    values = ID_TEXTS + TIMES + OTHERS
    lines = [
        ("{" + ", ".join(f'"{k}": {v}' for k, v in (good | {key: value}).items()) + "}").encode()
        for key in (*good, "x")
        for value in values
    ]
    path = folder / "odd.json"
    path.write_bytes(b"\n".join(lines))
    expected = one_by_one(lines, exact)
    for block_bytes in (1, 8 << 20):
        assert gather(list(read(Reviews(block_bytes), path))) == expected


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("", "", ("A1", "0528881469", 1370131200)),
        ("}", ', "x": [NaN, -Infinity, 1e999, "\\ud800"]}', ("A1", "0528881469", 1370131200)),
        ("}", ', "asin": 7}', ("A1", "7", 1370131200)),
        ("1370131200", "1370131200.0", ("A1", "0528881469", 1370131200)),
        ("1370131200", "1e3", ("A1", "0528881469", 1000)),
        ("1370131200", '"5"', ("A1", "0528881469", 5)),
        ("1370131200", "99999999999", ("A1", "0528881469", 99999999999)),
        ("}", "", said.NOT_JSON),
        ("}", "}x", said.NOT_JSON),
        ("}", f', "x": {"[" * 3_000}{"]" * 3_000}}}', said.NOT_JSON),
        (GOOD, "[1]", said.NOT_OBJECT),
        ("reviewerID", "reviewer", said.NO_USER),
        ('"A1"', '""', said.NO_USER),
        ('"A1"', "null", said.NO_USER),
        ('"A1"', "true", said.USER_NOT_TEXT),
        ('"A1"', "1.5", said.USER_NOT_TEXT),
        ('"A1"', '"\\ud800"', said.USER_NOT_TEXT),
        ("asin", "asin2", said.NO_ITEM),
        ('"0528881469"', "[]", said.ITEM_NOT_TEXT),
        ("unix", "posix", said.NO_TIME),
        ("1370131200", "NaN", said.NO_TIME),
        ("1370131200", "1.5", said.TIME_NOT_WHOLE),
        ("1370131200", "false", said.TIME_NOT_WHOLE),
        ("1370131200", '"5.5"', said.TIME_NOT_WHOLE),
        ("1370131200", "-1", said.TIME_NEGATIVE),
        ("1370131200", str(2**63), said.TIME_TOO_LARGE),
        ("1370131200", str(2**63 - 1), said.MILLISECONDS),
        ("1370131200", "100000000000", said.MILLISECONDS),
    ],
)
def test_one_review(old: str, new: str, expected: Any) -> None:
    text = GOOD.replace(old, new) if old else GOOD
    found = said.read_review(text)
    assert (found if isinstance(found, str) else astuple(found)) == expected
    assert (None if isinstance(expected, str) else expected) == exact(text)


def test_what_is_json_does_not_depend_on_the_stack() -> None:
    deep = GOOD[:-1] + f', "x": {"[" * 1_500}{"]" * 1_500}}}'
    limit = sys.getrecursionlimit()
    assert said.read_review(deep) == said.read_review(GOOD)
    assert sys.getrecursionlimit() == limit


def test_what_is_json_does_not_depend_on_other_threads() -> None:
    deep = [GOOD[:-1] + f', "x": {"[" * n}{"]" * n}}}' for n in (900, 1_200, 1_500, 1_900)]
    limit, interval = sys.getrecursionlimit(), sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(said.read_review, deep * 1_000))
    finally:
        sys.setswitchinterval(interval)
    assert all(review == said.read_review(GOOD) for review in found)
    assert sys.getrecursionlimit() == limit


def test_one_odd_line_in_a_large_block_is_found(folder: Path) -> None:
    lines = [GOOD.encode()] * 5_000
    lines[1_234], lines[2_000], lines[4_999] = b"{", b"", GOOD.replace('"A1"', "1e9").encode()
    path = folder / "large.json"
    path.write_bytes(b"\n".join(lines))
    (parsed,) = read(Reviews(), path)
    assert parsed.rows["row"].to_list() == [i for i in range(4_999) if i not in (1_234, 2_000)]
    assert parsed.rejected.rows() == [
        ("large.json", 1_235, said.NOT_JSON, "{"),
        ("large.json", 5_000, said.USER_NOT_TEXT, lines[-1].decode()),
    ]


def test_long_lines_are_refused(folder: Path) -> None:
    long = GOOD[:-1] + ', "x": "' + "é" * (9 << 20) + '"}'
    path = folder / "long.json"
    path.write_text(f"{GOOD}\n{long}\n{GOOD}\n", encoding="utf-8")
    rows, refused = gather(list(read(Reviews(), path)))
    assert [row[0] for row in rows] == [0, 2]
    assert refused == [2]
    rejected = pl.concat([parsed.rejected for parsed in read_meta(path, pl.Series(["B1"]))])
    assert rejected.filter(line=2).select("reason", "text").rows() == [(TOO_LONG, long[:200])]


def test_leaving_early_stops_every_thread(folder: Path) -> None:
    path = folder / "early.json"
    path.write_bytes(f"{GOOD}\n".encode() * 10_000)
    before = threading.active_count()
    stream = read(Reviews(1_000), path)
    next(stream)
    assert threading.active_count() > before
    stream.close()
    give_up = time.monotonic() + 120
    while threading.active_count() > before:
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_damage_comes_after_the_blocks_before_it(folder: Path) -> None:
    path = folder / "cut.json.gz"
    path.write_bytes(gzip.compress(f"{GOOD}\n".encode() * 50_000, mtime=0)[:-40])
    rows = 0
    with pytest.raises(InputError, match="cut short or damaged"):
        for parsed in read(Reviews(100_000), path):
            rows += parsed.rows.height
    assert rows > 0


# ---- the real files


def real(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"{path} is not here (set TINPREP_SHARED)")
    return path


def test_beauty() -> None:
    path = real(BEAUTY / "reviews_Beauty_5.json.gz")
    parsed = list(read(Reviews(), path))
    rows = pl.concat([block.rows for block in parsed])
    check(tables.events("reviews", Reviews.columns, ["item"]), rows, path)
    assert sum(block.rejected.height for block in parsed) == 0
    assert rows["row"].to_list() == list(range(198_502))
    assert (rows["user"].n_unique(), rows["item"].n_unique()) == (22_363, 12_101)

    items = list(read_meta(real(BEAUTY / "meta_Beauty.json.gz"), rows["item"].unique()))
    meta = pl.concat([block.rows for block in items])
    texts = dict.fromkeys(("item", "category"), pa.large_string())
    check(tables.lines("lines", "item", texts), meta, path)
    check(Rejected, pl.concat([block.rejected for block in items]), path)
    assert meta["item"].n_unique() == meta.height == 12_101
    assert (meta["category"].n_unique(), meta["category"].null_count()) == (195, 0)


def test_musical_instruments() -> None:
    path = real(MUSIC / "reviews_Musical_Instruments_5.json.gz")
    rows, refused = gather(list(read(Reviews(1 << 20), path)))
    lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    assert refused == []
    assert rows == [
        (i, x["reviewerID"], x["asin"], x["unixReviewTime"]) for i, x in enumerate(lines)
    ]
    assert len({row[1] for row in rows}) == 1_429
