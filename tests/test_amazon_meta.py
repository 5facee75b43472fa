"""Meta lines of raw Amazon files: the fast reader, the exact one and Python agree."""

from __future__ import annotations

import itertools
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.meta import exact
from pipeline.readers import meta_lines
from pipeline.readers.amazon_parse import read_meta
from tests.amazon_lines import gather, one_by_one

TEXTS = [
    *(
        "plain",
        "it's",
        'say "x"',
        "both ' and \"",
        "back\\slash",
        "tab\there",
        "nul\0",
        "line\nend",
    ),
    *(
        "é",
        "\u2028",
        "\U0001f600",
        "\ud800",
        "'categories': [['Fake']]",
        "'asin': 'B2'",
        "]]",
        "', '",
    ),
    *("x', 'categories': [['No']], 'y': '", "categories", "asin", "\x7f", "\x85", "u'x'", "#", ""),
]
KEYS_META = [
    "title",
    "brand",
    "related",
    "salesRank",
    "price",
    "Asin",
    "color",
    "also",
    "a'b",
    "x y",
]
texts = st.sampled_from(TEXTS)
numbers = st.sampled_from([0, 1, -5, 12.5, 1e300, 1e-7, 10**30, True, None])
paths = st.lists(st.lists(texts, max_size=3), max_size=3)
values = st.one_of(
    texts,
    numbers,
    st.lists(texts, max_size=3),
    st.dictionaries(texts, st.one_of(texts, numbers, st.lists(texts, max_size=2)), max_size=2),
    paths,
    st.sampled_from([(), (1,), {"a": {"b": []}}, b"bytes", 1j, {1, 2}, -1.0, [None], ["a", 1]]),
)
MUTATIONS = [
    *(("'", "'''"), ("'", '"'), ("'", "u'"), (", ", ","), (", ", ",  "), (": ", ":"), ("}", ",}")),
    *(
        ("{", " {"),
        ("{", "\t{"),
        ("{", "{ "),
        ("}", "} # x"),
        ("}", "}\r"),
        ("'", "' '"),
        ("[", "("),
    ),
    *(
        (": ", ": 'a' "),
        (": ", ": 00"),
        (": ", ": 1_0"),
        (": ", ": -"),
        (": ", ": 1 + "),
        ("}", ""),
    ),
    *(
        ("'", "\\'"),
        ("a", "\\x61"),
        ("a", "\\q"),
        ("a", "\\u12"),
        ("a", "\\N{DASH}"),
        ("a", "\x00"),
    ),
    *(
        ("]", ",]"),
        ("]", "]]"),
        ("[", "[["),
        ("'asin'", "'asin', 'asin'"),
        ("B1", "B2"),
        ("}", "}}"),
    ),
    *(("}", ", 'asin': 'B2'}"), ("}", ", 'categories': [['Z']]}"), ("}", ", '\\x61sin': 'B2'}")),
    *(
        ("}", ", 'categories': None}"),
        ("}", ", 'asin': 5}"),
        ("'", "b'"),
        ("None", "null"),
        ("True", "true"),
        ("12.5", "nan"),
        ("12.5", "NaN"),
        ("a", "é"),
        ("a", "\ufeff"),
    ),
]


@st.composite
def lines_of_items(draw: st.DrawFn) -> bytes:
    """A line that is good, odd or broken."""
    item = {"asin": draw(st.sampled_from(["B1", "B1", "B2", "0001", "b_-", "x y", "", 5, None]))}
    if draw(st.integers(0, 4)):
        item["categories"] = draw(paths if draw(st.integers(0, 5)) else values)
    if draw(st.integers(0, 3)) == 0:
        item["category"] = draw(st.one_of(st.lists(texts, max_size=3), values))
    item |= draw(st.dictionaries(st.sampled_from(KEYS_META), values, max_size=3))
    pairs = list(item.items())
    if draw(st.booleans()):
        pairs = draw(st.permutations(pairs))
    if draw(st.integers(0, 9)) == 0:
        pairs = pairs[1:]
    text = repr(dict(pairs))
    if draw(st.integers(0, 2)) == 0:
        with suppress(TypeError):
            text = json.dumps(dict(pairs), ensure_ascii=draw(st.booleans()))
    for old, new in draw(st.lists(st.sampled_from(MUTATIONS), max_size=2)):
        places = [i for i in range(len(text)) if text.startswith(old, i)]
        if places and draw(st.booleans()):
            at = draw(st.sampled_from(places))
            text = text[:at] + new + text[at + len(old) :]
    if draw(st.integers(0, 15)) == 0:
        text = draw(
            st.sampled_from(["", " \t", "5", "[]", "x", "set()", "{}", "{1, 2}", "('a', )"])
        )
    line = text.encode("utf-8", "replace")
    return line + b"\xff" if draw(st.integers(0, 15)) == 0 else line


@settings(max_examples=250, deadline=None)
@given(
    lines=st.lists(lines_of_items(), min_size=1, max_size=6),
    block_bytes=st.sampled_from([1, 200, 8 << 20]),
)
def test_items_are_what_python_says(folder: Path, lines: list[bytes], block_bytes: int) -> None:
    path = folder / "meta.json"
    path.write_bytes(b"\n".join(lines) + b"\n")
    rows, refused = one_by_one(lines, exact)
    wanted = ["B1", "0001", "x y"]
    found, reasons = gather(list(read_meta(path, pl.Series(wanted), block_bytes)))
    assert found == [row for row in rows if row[1] in wanted]
    assert reasons == refused


ITEM = "{'asin': 'B1', 'title': \"it's\", 'categories': [['A', 'B'], ['C', 'D']]}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ITEM, ("B1", "D")),
        ("{'asin': 'B1'}", ("B1", None)),
        ("{'asin': 'B1', 'categories': []}", ("B1", None)),
        ("{'asin': 'B1', 'categories': [['A'], []]}", ("B1", None)),
        ("{'asin': 'B1', 'categories': [['']]}", ("B1", "")),
        ("{'asin': 'B1', 'asin': 'B2', 'categories': [['A'], [\"x'y\"]]}", ("B2", "x'y")),
        ("{'asin': __import__('os').getcwd()}", meta_lines.NOT_READ),
        ("{'asin': 'B1'", meta_lines.NOT_READ),
        (
            '{"asin": "B1", "x": null, "categories": [["A"], ["B", "\\ud83d\\ude00"]]}',
            ("B1", "\U0001f600"),
        ),
        ('{"asin": "B1", "x": [NaN, "\\ud800"], "category": ["A", "B\\/C"]}', ("B1", "B/C")),
        ('{"asin": 7, "category": [], "categories": null}', ("7", None)),
        ("{'asin': 'B1', 'x': [null, -inf, true], 'categories': nan}", ("B1", None)),
        ("{'asin': 'B1', 'category': ['A', 'B']}", ("B1", "B")),
        ("{'asin': 'B1', 'categories': ['A'], 'category': ['B']}", ("B1", "A")),
        ("{'asin': 'B1', 'categories': None}", ("B1", None)),
        ("{'asin': 'B1', 'x': nobody}", meta_lines.NOT_READ),
        ('{"asin": null}', meta_lines.NO_ASIN),
        ("{[]: 1}", meta_lines.NOT_READ),
        ("(" * 300 + ")" * 300, meta_lines.NOT_READ),
        ("{'a': " + "-" * 100_000 + "1}", meta_lines.NOT_READ),
        ("['asin']", meta_lines.NOT_DICT),
        ("{'title': 'x'}", meta_lines.NO_ASIN),
        ("{'asin': ''}", meta_lines.NO_ASIN),
        ("{'asin': b'B1'}", meta_lines.ASIN_NOT_TEXT),
        ("{'asin': '\\ud800'}", meta_lines.ASIN_NOT_TEXT),
        ("{'asin': 'B1', 'categories': [['A', 1]]}", meta_lines.BAD_CATEGORIES),
        ("{'asin': 'B1', 'categories': 'A'}", meta_lines.BAD_CATEGORIES),
        ("{'asin': 'B1', 'category': ['A', ['B']]}", meta_lines.BAD_CATEGORIES),
        ('{"asin": "B1", "category": ["A", ["B"]]}', meta_lines.BAD_CATEGORIES),
    ],
)
def test_one_item(text: str, expected: Any) -> None:
    assert meta_lines.read_item(text) == expected
    assert exact(text) == (None if isinstance(expected, str) else expected)


def test_usual_items_take_the_fast_path() -> None:
    usual = [
        ITEM,
        "{'asin': 'B1', 'categories': [['A']], 'description': 'caf\\xc3\\xa9 [\\'x\\'] {}: é'}",
        "{'title': 'x', 'asin': 'B1', 'price': 9.99, 'categories': [[\"Men's\", \"Women's\"]]}",
        "{'categories': [['A', 'B']], 'related': {'also_bought': ['B2', 'B3']}, 'asin': 'B1'}",
        "{'asin': 'B1', 'salesRank': {'Toys & Games': 1}, 'title': 'x', 'brand': None}",
        "{'asin': 'B1', 'salesRank': {}, 'categories': [['A', 'B']], 'imUrl': 'http://x'}\r",
        "{'asin': 'B9', 'categories': [['A', 'B']], 'description': \"'categories': [['Z']]\"}",
    ]
    lines = pl.Series([f"{line}\n" for line in usual])
    scanned = meta_lines.scan_items(lines, frozenset(["B1"]))
    assert scanned.select("index", "sure", "item", "category").rows() == [
        (0, True, "B1", "D"),
        (1, True, "B1", "A"),
        (2, True, "B1", "Women's"),
        (3, True, "B1", "B"),
        (4, True, "B1", None),
        (5, True, "B1", "B"),
    ]


def test_a_description_cannot_mislead() -> None:
    tricky = [
        "{'asin': 'B1', 'description': \"'categories': [['Fake']]\", 'categories': [['Real']]}",
        "{'asin': 'B1', 'categories': [['Real']], 'title': \"'categories': [['Fake']]\"}",
        "{'asin': 'B1', 'description': \"'categories': [['Fake']]\"}",
    ]
    scanned = meta_lines.scan_items(pl.Series([f"{t}\n" for t in tricky]), frozenset(["B1"]))
    sure = dict(scanned.filter("sure").select("index", "category").rows())
    exact = [meta_lines.read_item(text) for text in tricky]
    assert exact == [("B1", "Real"), ("B1", "Real"), ("B1", None)]
    # Nor does it make the line a slow one.
    assert sure == {0: "Real", 1: "Real", 2: None}


def test_keys_that_are_words_of_a_text(folder: Path) -> None:
    fake = "', 'categories': [['Fake']], 'x': '"
    pairs = {"asin": "B1", "title": fake, "categories": [["A", "B"], [fake, "it's"]], "brand": fake}
    orders = [dict(order) for order in itertools.permutations(pairs.items())]
    lines = [repr(order) for order in orders]
    scanned = meta_lines.scan_items(pl.Series([f"{t}\n" for t in lines]), frozenset(["B1"]))
    assert {meta_lines.read_item(line) for line in lines} == {("B1", "it's")}
    sure = scanned.filter("sure")
    assert set(sure.select("item", "category").rows()) == {("B1", "it's")}
    assert sure.height == len(lines)
