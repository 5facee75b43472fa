"""Reviews of raw Amazon files: the fast reader and the exact one agree; whole and real files."""

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
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.lines import line_offsets
from pipeline.sources import review_json
from pipeline.sources.amazon_parse import read_meta, read_reviews
from pipeline.sources.parsed import TOO_LONG
from schemas.errors import InputError
from schemas.tables import Meta, Rejected, Reviews, check
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
    *("1370131200", "0", "-0", "-1", "5.0", "1e3", "null", "true", '"5"', "[5]", "007", "+5"),
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
    *("[0, 0]", '"{} [] \\" , é"', "[" * 40 + "]" * 40, "[" * 1_010 + "]" * 1_010, '{"a": {}}'),
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
def test_reviews_are_what_the_exact_reader_says(
    folder: Path, lines: list[bytes], block_bytes: int
) -> None:
    path = folder / "reviews.json"
    path.write_bytes(b"\n".join(lines) + b"\n")
    expected = one_by_one(lines, review_json.read_review)
    assert gather(list(read_reviews(path, block_bytes))) == expected


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
    expected = one_by_one(lines, review_json.read_review)
    for block_bytes in (1, 8 << 20):
        assert gather(list(read_reviews(path, block_bytes))) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD, ("A1", "0528881469", 1370131200)),
        ('{"asin": 7, "reviewerID": "é", "unixReviewTime": 0, "asin": "x"}', ("é", "7", 0)),
        ('{"asin": "a", "reviewerID": "b", "unixReviewTime": 1, "x": 1e999}', ("b", "a", 1)),
        ("{", review_json.NOT_JSON),
        (GOOD + "x", review_json.NOT_JSON),
        (GOOD[:-1] + ', "x": NaN}', review_json.NOT_JSON),
        (GOOD[:-1] + f', "x": {"[" * 3_000}{"]" * 3_000}}}', review_json.NOT_JSON),
        ("[1]", review_json.NOT_OBJECT),
        ('{"asin": "a", "unixReviewTime": 1}', review_json.NO_USER),
        (GOOD.replace('"A1"', '""'), review_json.NO_USER),
        (GOOD.replace('"A1"', "null"), review_json.NO_USER),
        (GOOD.replace('"A1"', "true"), review_json.USER_NOT_TEXT),
        (GOOD.replace('"A1"', "1.5"), review_json.USER_NOT_TEXT),
        (GOOD.replace('"A1"', '"\\ud800"'), review_json.USER_NOT_TEXT),
        (GOOD.replace("asin", "asin2"), review_json.NO_ITEM),
        (GOOD.replace('"0528881469"', "[]"), review_json.ITEM_NOT_TEXT),
        (GOOD.replace("unix", "posix"), review_json.NO_TIME),
        (GOOD.replace("1370131200", "1.0"), review_json.TIME_NOT_WHOLE),
        (GOOD.replace("1370131200", "false"), review_json.TIME_NOT_WHOLE),
        (GOOD.replace("1370131200", "-1"), review_json.TIME_NEGATIVE),
        (GOOD.replace("1370131200", str(2**63)), review_json.TIME_TOO_LARGE),
        (GOOD.replace("1370131200", str(2**63 - 1)), review_json.MILLISECONDS),
        (GOOD.replace("1370131200", "1370131200000"), review_json.MILLISECONDS),
        (GOOD.replace("1370131200", "100000000000"), review_json.MILLISECONDS),
        (GOOD.replace("1370131200", "99999999999"), ("A1", "0528881469", 99999999999)),
    ],
)
def test_one_review(text: str, expected: Any) -> None:
    assert review_json.read_review(text) == expected


def test_what_is_json_does_not_depend_on_the_stack() -> None:
    deep = GOOD[:-1] + f', "x": {"[" * 1_500}{"]" * 1_500}}}'
    limit = sys.getrecursionlimit()
    assert review_json.read_review(deep) == ("A1", "0528881469", 1370131200)
    assert sys.getrecursionlimit() == limit


def test_what_is_json_does_not_depend_on_other_threads() -> None:
    deep = [GOOD[:-1] + f', "x": {"[" * n}{"]" * n}}}' for n in (900, 1_200, 1_500, 1_900)]
    limit, interval = sys.getrecursionlimit(), sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            found = set(pool.map(review_json.read_review, deep * 1_000))
    finally:
        sys.setswitchinterval(interval)
    assert found == {("A1", "0528881469", 1370131200)}
    assert sys.getrecursionlimit() == limit


def test_one_odd_line_in_a_large_block_is_found(folder: Path) -> None:
    lines = [GOOD.encode()] * 5_000
    lines[1_234], lines[2_000], lines[4_999] = b"{", b"", GOOD.replace('"A1"', "1e9").encode()
    path = folder / "large.json"
    path.write_bytes(b"\n".join(lines))
    (parsed,) = read_reviews(path)
    assert parsed.rows["row"].to_list() == [i for i in range(4_999) if i not in (1_234, 2_000)]
    assert parsed.rejected.rows() == [
        ("large.json", 1_235, review_json.NOT_JSON, "{"),
        ("large.json", 5_000, review_json.USER_NOT_TEXT, lines[-1].decode()),
    ]


def test_usual_reviews_take_the_fast_path() -> None:
    odd = GOOD.replace("A1", "t1").replace("0528881469", "1384719342")
    data = f"{GOOD}\n{odd}\n".encode() * 2
    scanned = review_json.scan_reviews(data, line_offsets(data))
    assert scanned is not None
    assert scanned["sure"].all()
    text = pl.Series([f"{GOOD}\n", GOOD[:-1] + ', "a": [0, 1.5], "b": {"c": "\\u00e9 \\""}}\r\n'])
    assert review_json.looks_good(text).all()


def test_long_lines_are_refused(folder: Path) -> None:
    long = GOOD[:-1] + ', "x": "' + "é" * (9 << 20) + '"}'
    path = folder / "long.json"
    path.write_text(f"{GOOD}\n{long}\n{GOOD}\n", encoding="utf-8")
    rows, refused = gather(list(read_reviews(path)))
    assert [row[0] for row in rows] == [0, 2]
    assert refused == [(2, TOO_LONG)]
    rejected = pl.concat([parsed.rejected for parsed in read_meta(path, pl.Series(["B1"]))])
    assert rejected.filter(line=2).select("reason", "text").rows() == [(TOO_LONG, long[:200])]


def test_leaving_early_stops_every_thread(folder: Path) -> None:
    path = folder / "early.json"
    path.write_bytes(f"{GOOD}\n".encode() * 10_000)
    before = threading.active_count()
    stream = read_reviews(path, 1_000)
    next(stream)
    assert threading.active_count() > before
    stream.close()
    give_up = time.monotonic() + 20
    while threading.active_count() > before:
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_damage_comes_after_the_blocks_before_it(folder: Path) -> None:
    path = folder / "cut.json.gz"
    path.write_bytes(gzip.compress(f"{GOOD}\n".encode() * 50_000, mtime=0)[:-40])
    rows = 0
    with pytest.raises(InputError, match="cut short or damaged"):
        for parsed in read_reviews(path, 100_000):
            rows += parsed.rows.height
    assert rows > 0


# ---- the real files


def real(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"{path} is not here (set TINPREP_SHARED)")
    return path


def test_beauty() -> None:
    path = real(BEAUTY / "reviews_Beauty_5.json.gz")
    parsed = list(read_reviews(path))
    rows = pl.concat([block.rows for block in parsed])
    check(Reviews, rows, path)
    assert sum(block.rejected.height for block in parsed) == 0
    assert rows["row"].to_list() == list(range(198_502))
    assert (rows["user"].n_unique(), rows["item"].n_unique()) == (22_363, 12_101)

    items = list(read_meta(real(BEAUTY / "meta_Beauty.json.gz"), rows["item"].unique()))
    meta = pl.concat([block.rows for block in items])
    check(Meta, meta, path)
    check(Rejected, pl.concat([block.rejected for block in items]), path)
    assert meta["item"].n_unique() == meta.height == 12_101
    assert (meta["category"].n_unique(), meta["category"].null_count()) == (195, 0)


def test_musical_instruments() -> None:
    path = real(MUSIC / "reviews_Musical_Instruments_5.json.gz")
    rows, refused = gather(list(read_reviews(path, 1 << 20)))
    lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    assert refused == []
    assert rows == [
        (i, x["reviewerID"], x["asin"], x["unixReviewTime"]) for i, x in enumerate(lines)
    ]
    assert len({row[1] for row in rows}) == 1_429
