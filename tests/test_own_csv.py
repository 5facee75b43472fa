"""CSV of a person's own: whatever the blocks are, rows are what a slow reader says.

The slow reader here splits records by a machine of a few states, and reads values one by one by
`values.read_value`, which has tests of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.readers import csv_text
from pipeline.readers.csv_text import BAD_QUOTES, WRONG_COLUMNS, CsvFormat
from pipeline.readers.own_tables import open_table
from pipeline.readers.parsed import read
from pipeline.readers.values import NOT_UTF8, NULLS, Column, Refusal, read_value

COLUMNS = (
    Column("user", "u", "whole"),
    Column("time", "t", "time"),
    Column("item", "i", "text", nullable=True),
    Column("tag", "g", "list", of="whole", separator="|"),
    Column("price", "n", "number", nullable=True),
)
NAMES = ("u", "t", "i", "g", "n")
NUMBER = Column("n", "n", "keep", nullable=True, of="number")

WHOLE = ["7", "12", "0", "007", "4.0", " 5", '"6"', '" 8 "', "+9", "2.", "0x10", "1e3", "-1", "1_0"]
WHOLE += ["", "NULL", "9223372036854775807", "9223372036854775808", "1.5", "x", "١", "nan", "\\N"]
TIMES = ["1511539200", "1511539200.0", "1.5e9", "-5", "1511539200000", "99999999999", "1.5", "12 "]
TEXTS = ["a", "007", "b c", " d ", "NA", " null ", "é", '"x,y"', '"x""y"', '12" vinyl', '"x\ny"']
TEXTS += ['"x\r\n\ny"', '""', '""""', '"a"b', ' "c"', '"open', "\r", "c\rd", "\0", "\x1f", '"a",']
LISTS = ["1|2|3", "7", "", "1||2", " 3 | 4 ", "x|1", "1|-2", '"5|6"', "NA|5", "|"]
NUMBERS = ["1.5", "3", "-2e3", "inf", "NaN", "", ".5", "5.", "1e999", "0x1p3", "7 ", "x", "1e-400"]
ODD = [
    b"",
    b" \t",
    b"1,2",
    b"a,b,c,d,e,f",
    b"\xff,1,2,3,4",
    b'"',
    b'1,2,"a\nb",4',
    b'x"\ny"',
    b",,,,",
]


def fields(texts: list[str], usual: int) -> st.SearchStrategy[str]:
    return st.sampled_from(texts[:usual]) | st.sampled_from(texts)


FIELDS = ((WHOLE, 3), (TIMES, 1), (TEXTS, 3), (LISTS, 2), (NUMBERS, 2))
LINES = st.one_of(
    st.tuples(*(fields(*of) for of in FIELDS)).map(lambda line: ",".join(line).encode()),
    st.sampled_from(ODD),
)


def records(text: bytes, form: CsvFormat) -> list[tuple[int, bytes, list[str] | str]]:
    """Each record: the line where it begins, its bytes, and its fields or why it has none."""
    lines = text.split(b"\n")
    lines = lines[:-1] if not lines[-1] else lines
    found: list[tuple[int, bytes, list[str] | str]] = []
    at = 0
    while at < len(lines):
        taken, fields = 1, split(lines[at], form)
        while fields is None and at + taken < len(lines):
            whole = b"\n".join(lines[at : at + taken + 1])
            if len(whole) + 1 > csv_text.RECORD_LIMIT:
                break
            taken, fields = taken + 1, split(whole, form)
        if taken > 1 and (fields is None or isinstance(fields, str) or len(fields) != len(NAMES)):
            taken, fields = 1, BAD_QUOTES
        data = b"\n".join(lines[at : at + taken])
        try:
            data.decode()
        except UnicodeDecodeError:
            fields = NOT_UTF8
        found.append((at, data, BAD_QUOTES if fields is None else fields))
        at += taken
    return found


def split(data: bytes, form: CsvFormat) -> list[str] | str | None:
    """The fields of some lines, `BAD_QUOTES`, or None where a quote is open at their end."""
    text = data.decode(errors="replace").removesuffix("\r")
    if '"' not in text:
        return text.split(form.delimiter)
    fields, at = [], 0
    while True:
        value = ""
        if text[at : at + 1] == '"':
            at += 1
            while True:
                end = text.find('"', at)
                if end < 0:
                    return None
                value, at = value + text[at:end], end + 1
                if text[at : at + 1] != '"':
                    break
                value, at = value + '"', at + 1
            if text[at : at + 1] not in ("", form.delimiter):
                return BAD_QUOTES
        else:
            end = text.find(form.delimiter, at)
            end = len(text) if end < 0 else end
            value, at = text[at:end], end
            if "\r" in value or "\n" in value:
                return BAD_QUOTES
        fields.append(value)
        if at == len(text):
            return fields
        at += 1


def by_hand(text: bytes, header: int) -> tuple[list[Any], list[tuple[int, str]], int]:
    """Rows, the refused (1-based) with their reasons, and how many are left out: `where n >= 2`."""
    nulls = frozenset(NULLS)
    rows, refused, left_out = [], [], 0
    for row, (line, data, found) in enumerate(records(text, CsvFormat())):
        if not data.strip(b" \t\r\n"):
            continue
        if not isinstance(found, str) and len(found) != len(NAMES):
            found = WRONG_COLUMNS
        if isinstance(found, str):
            refused.append((line + header + 1, found))
            continue
        values = dict(zip(NAMES, found, strict=True))
        try:
            number = read_value(values["n"], NUMBER, "s", nulls)
        except Refusal as refusal:
            refused.append((line + header + 1, f"{refusal} in n"))
            continue
        if number is None or number < 2:
            left_out += 1
            continue
        got: list[Any] = [row]
        for column in COLUMNS:
            try:
                got.append(read_value(values[column.source], column, "s", nulls))
            except Refusal as refusal:
                refused.append((line + header + 1, f"{refusal} in {column.source}"))
                break
        else:
            rows.append((*got, number < 100))
    return rows, refused, left_out


@settings(max_examples=120, deadline=None)
@given(
    lines=st.lists(LINES, max_size=12),
    end=st.sampled_from([b"\n", b"\n", b"\r\n"]),
    last=st.booleans(),
    header=st.booleans(),
    block_bytes=st.sampled_from([1, 30, 100, 8 << 20]),
    limit=st.sampled_from([1 << 20, 40]),
)
@example([b'1,2,"a', b'b",1,3'], b"\n", True, False, 1, 1 << 20)
def test_rows_are_what_a_slow_reader_says(
    folder: Path,
    lines: list[bytes],
    end: bytes,
    last: bool,
    header: bool,
    block_bytes: int,
    limit: int,
) -> None:
    text = end.join(lines) + end * (last and bool(lines))
    path = folder / "some.csv"
    path.write_bytes((b"\xef\xbb\xbfu,t,i,g,n" + end) * header + text)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(csv_text, "RECORD_LIMIT", limit)
        reader = open_table(
            [path],
            "csv",
            (*COLUMNS, Column("cheap", "n < 100", "mask")),
            where="n >= 2",
            csv=CsvFormat(columns=None if header else NAMES),
            types={"n": "number"},
            block_bytes=block_bytes,
        )
        parsed = list(read(reader, path))
        rows, refused, left_out = by_hand(text, header)
        lines_read = len(records(text, CsvFormat()))
    got = [row for block in parsed for row in block.rows.rows()]
    assert got == rows
    found = [pair for block in parsed for pair in block.rejected.select("line", "reason").rows()]
    assert found == refused
    assert sum(block.left_out for block in parsed) == left_out
    assert sum(block.lines for block in parsed) == lines_read
