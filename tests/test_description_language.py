"""The language of descriptions: what it takes, and how it says what it does not take."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.description import toml
from pipeline.description.checks import seconds, spec_of
from pipeline.description.toml import Source, canonical, json_schema
from schemas.errors import UsageError

EXAMPLES = {
    path.stem: path.read_text()
    for path in sorted((Path(__file__).parent / "descriptions").iterdir())
}
RATINGS = re.sub(" +#.*", "", EXAMPLES["ratings"])


def said(text: str) -> str:
    """What a description is refused with."""
    with pytest.raises(UsageError) as refused:
        spec_of(Source("mine.toml", text))
    return str(refused.value)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_are_of_the_language(name: str) -> None:
    said = canonical(spec_of(Source(name, EXAMPLES[name])))
    assert set(said["tables"]) == set(Source(name, EXAMPLES[name]).keys["tables"])
    # What is said of files is no part of what rows are a function of; all else is.
    paths = {"files", "format", "connection"}
    assert not any(paths & {*one} for one in (said["tables"] | said["lookups"]).values())


def test_a_description_is_known_by_what_it_says() -> None:
    source = Source("mine.toml", RATINGS)
    known = toml.digest(canonical(spec_of(source)))
    elsewhere = RATINGS.replace('"ratings.csv"', '["a.csv", "b.csv"]').replace(
        "[target]", "\n[target] # x"
    )
    explicit = RATINGS + 'window = "before"\nsession_gap = "30m"\n[vocabulary]\nmin_count = 1\n'
    other = RATINGS.replace("max_len = 50", "max_len = 49")
    digests = [
        toml.digest(canonical(spec_of(Source("b", t)))) for t in (elsewhere, explicit, other)
    ]
    assert [one == known for one in digests] == [True, True, False]


def test_every_key_is_documented_for_editors() -> None:
    def bare(node: Any, at: str) -> Iterator[str]:
        for name, one in node.get("properties", {}).items():
            if "description" not in one:
                yield f"{at}.{name}"
        for name, one in node.get("$defs", {}).items():
            yield from bare(one, name)

    schema = json_schema()
    assert not [*bare(schema, "")]
    assert {"tables", "target", "histories"} == set(schema["required"])


ERRORS = {
    "no TOML": ('user = "userId"', "user = userId", 4, "not TOML"),
    "unknown key": ("user =", "usr =", 4, "did you mean `user`?"),
    "unknown table": ("[lookups.item]", "[lookup.item]", 8, "did you mean `lookups`?"),
    "unknown key within": ("separator", "seperator", 11, "did you mean `separator`?"),
    "another type": ("max_len = 50", 'max_len = "50"', 18, "a whole number"),
    "out of range": ("max_len = 50", "max_len = 0", 18, "at least 1"),
    "none of the choices": ('"hash"', '"random"', 7, "'file', 'hash' or 'fields'"),
    "no table of time": (
        '{ column = "timestamp", unit = "s" }',
        '"timestamp"',
        5,
        "{ column = ... }",
    ),
    "no split": ('split = { by = "order" }', "", 12, "target.split"),
    "unknown split": ('by = "order"', 'by = "ordre"', 14, '"column" or "day" or "order" or "time"'),
    "a day without a zone": ('by = "order"', 'by = "day"', 14, "timezone"),
    "a date without a zone": ('by = "order"', 'by = "time", test = 2018-01-01', 14, "may mean any"),
    "no date": ('by = "order"', 'by = "time", timezone = "UTC", test = "Monday"', 14, "no time"),
    "no zone": ('by = "order"', 'by = "day", timezone = "Mars"', 14, "no timezone"),
    "valid after test": (
        'by = "order"',
        'by = "time", timezone = "UTC", test = 2018-01-01, valid = 2018-01-02',
        14,
        "begin before test",
    ),
    "a history of no table": (
        'table = "ratings"\nmax_len',
        'table = "rating"\nmax_len',
        17,
        "`ratings`?",
    ),
    "a target of no table": ('table = "ratings"\nsplit', 'table = "x"\nsplit', 13, "no table"),
    "nothing of a table": (
        "[target]",
        "[tables.b]\nfiles='b'\nuser='u'\ntime={column='t'}\nfields={item='i'}\n[target]",
        12,
        "Nothing is made",
    ),
    "a lookup of nothing": ("[lookups.item]", "[lookups.itm]", 8, "did you mean `item`?"),
    "nothing looked up": (
        'lists = { genre = { column = "genres", separator = "|", max_len = 6 } }',
        "",
        8,
        "Nothing is looked up",
    ),
    "no whence": ('files = "movies.csv"', "", 8, "none of them"),
    "twice whence": (
        'files = "movies.csv"',
        'files = "movies.csv"\ntable = "ratings"',
        10,
        "files and table",
    ),
    "no lookup for negatives": (
        'item = "movieId" }',
        'item = "movieId", shelf = "shelf" }',
        15,
        "has no shelf",
    ),
    "neither labels nor negatives": ("negatives = ", "#", 12, "nothing could be learned"),
    "labels and negatives": (
        'order = "hash"',
        'order = "hash"\nlabel = "rating > 4"',
        16,
        "label or negatives",
    ),
    "a column of two histories": (
        "[histories.history]",
        '[histories.a_session]\ntable = "ratings"\n[histories.a]\nsessions = [2, 3]',
        19,
        "a_session_item",
    ),
    "reserved": ("genre =", "user =", 11, "reserved"),
    "no name of a column": (
        '{ item = "movieId" }',
        '{ "my item" = "movieId" }',
        6,
        "letters, digits",
    ),
    "two of one name": (
        'order = "hash"',
        'order = "hash"\nfeatures = { genre = "g" }',
        12,
        "Two things have one name",
    ),
    "a list's length": (
        'order = "hash"',
        'order = "hash"\nkeep = ["genre_length"]',
        8,
        "Two things have one name",
    ),
    "no SQL": ('"rating >= 4"', '"rating >="', 3, "not SQL"),
    "no duration": (
        "max_len = 50",
        'max_len = 50\nsession_gap = "soon"',
        19,
        "a number with its unit",
    ),
    "no parameter": ('"ratings.csv"', '"{part}.csv"', 2, "no parameter"),
    "types of nothing": ("[tables.ratings]", '[types]\nfilm = "text"\n[tables.ratings]', 2, "item"),
    "csv of Parquet": (
        'order = "hash"',
        'format = "parquet"\ncsv = { delimiter = ";" }',
        8,
        "Only CSV",
    ),
    "group": ("[target]", '[train]\ngroup_field = "genre"\n[target]', 13, "no field"),
    "a lookup's zone": (
        'key = "movieId"',
        'key = "movieId"\ntime = { column = "at", timezone = "Mars" }',
        11,
        "no timezone",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_is_wrong_is_told_with_its_line(name: str) -> None:
    old, new, line, what = ERRORS[name]
    assert RATINGS.count(old) == 1
    told = said(RATINGS.replace(old, new))
    assert what in told
    assert f"mine.toml:{line}\n" in told, told


def test_negatives_keep_nothing_that_is_looked_up_of_the_target() -> None:
    """Of the target's shelf, beside a shelf of their own, it would tell the labels apart."""
    text = RATINGS.replace('item = "movieId" }', 'item = "movieId", shelf = "s" }')
    text = text.replace("per_positive", 'field = "item", per_positive')
    shelf = "[lookups.shelf]\nfiles = 's'\nkey = 's'\nfeatures = { room = 'r' }\n"
    text = text.replace("[lookups.item]", shelf + "[lookups.item]\nfields = { shelf = 's' }")
    told = said(text)
    assert "room in [lookups.item]" in told
    assert "mine.toml:11\n" in told


def test_a_history_ends_by_order_only_where_its_table_has_one() -> None:
    text = RATINGS.replace("max_len = 50", 'window = "order"')
    spec_of(Source("mine.toml", text))
    assert "no order" in said(text.replace('order = "hash"\n', ""))


@pytest.mark.parametrize(
    "told",
    [
        'user = 3 and "end" > 5 or timestamp < 7',
        "lower(kind) in ('buy', 'it''s') and not value is null",
        "user.id = 'x' and date '2026-01-01' < cast(day as date)",
    ],
)
def test_columns_may_be_called_as_they_are(told: str) -> None:
    spec_of(Source("mine.toml", RATINGS.replace('"rating >= 4"', f"'''{told}'''")))


@pytest.mark.parametrize("told", ["a >", "rank() over (a) > 3", "a = 1; drop", "a = 1, b", "3 = 3"])
def test_what_is_no_condition(told: str) -> None:
    assert "mine.toml:3" in said(RATINGS.replace("rating >= 4", told))


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ("45s", 45),
        ("30m", 1_800),
        ("12 h", 43_200),
        ("30d", 2_592_000),
        (7, 7),
        ("1w", 604_800),
        ("1y", None),
        ("", None),
    ],
)
def test_durations(told: str | int, found: int | None) -> None:
    assert seconds(told) == found
