"""JSON lines and Parquet of a person's own, several files, and what is wrong with a table."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from pipeline.readers import parquet_table
from pipeline.readers.csv_text import CsvFormat
from pipeline.readers.json_table import NOT_JSON, NOT_OBJECT
from pipeline.readers.lines import Part
from pipeline.readers.own_tables import head, open_source, open_table
from pipeline.readers.parsed import Parsed, read
from pipeline.readers.values import NOT_UTF8, Column, Refusal, read_value
from schemas.errors import InputError, TinprepError, UsageError

USER, TIME = Column("user", "u", "text"), Column("time", "t", "time")


def gathered(parsed: list[Parsed]) -> tuple[list[dict[str, Any]], list[tuple[int, str]]]:
    rows = [row for block in parsed for row in block.rows.to_dicts()]
    refused = [pair for b in parsed for pair in b.rejected.select("line", "reason").rows()]
    return rows, refused


JSON_COLUMNS = (
    USER,
    TIME,
    Column("item", "v.i", "whole", nullable=True),
    Column("tag", "g", "list"),
    Column("price", "p", "number", nullable=True),
)
KEYS = {"u": ("u",), "t": ("t",), "v.i": ("v", "i"), "g": ("g",), "p": ("p",)}
# What a file has first, so that its keys are known.
FIRST = b'{"u": "a", "t": 5, "v": {"i": 1}, "g": ["x"], "p": 1.5, "other": {"v": [1, {"t": 2}]}}'
SCALARS = st.sampled_from([None, True, 0, 7, "7", "7.0", 7.0, 1.5, -3, 2**63, "", "NA", "é", "x y"])
LEAVES = SCALARS | st.lists(SCALARS, max_size=3)
OBJECTS = st.fixed_dictionaries(
    {},
    optional={
        "u": st.sampled_from(["a", "b"]) | LEAVES,
        "t": st.sampled_from([5, 6.0]) | LEAVES,
        "v": st.fixed_dictionaries({}, optional={"i": SCALARS, "z": SCALARS}) | LEAVES,
        "g": st.lists(st.sampled_from(["x", "y"])) | LEAVES,
        "p": st.floats(-10, 10) | LEAVES,
        "deep": st.just([[{"u": "no"}]]),
    },
)
ODD = [b"", b"  ", b"5", b"null", b"[1]", b'{"u": "a"', b'{"u": "a"} x', b'{"u": "a"} {"u": "b"}']
ODD += [b'{"u": "\xff"}', b'{"x": "\xff"}', b'{"u": NaN, "t": 5}', b' {"u": "a", "t": 1}\t', b"{}"]
ODD += [b'{"u": "a", "u": "b", "t": 1, "t": 2}', b'{"u": "\\ud800", "t": 1}', b"{'u': 1}", b"{\r}"]
JSON_LINES = OBJECTS.map(lambda one: json.dumps(one).encode()) | st.sampled_from(ODD)


def by_hand(line: bytes) -> dict[str, Any] | str | None:
    """The row of a line, why it is refused, or None where nothing stands."""
    if not line.strip(b" \t\r"):
        return None
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return NOT_UTF8
    try:
        fields = json.loads(text, parse_constant=lambda _: None)
    except ValueError:
        return NOT_JSON
    if not isinstance(fields, dict):
        return NOT_OBJECT
    row = {}
    for column in JSON_COLUMNS:
        value: Any = fields
        for key in KEYS[column.source]:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, str) and "\ud800" in value:
            value = object()
        try:
            row[column.name] = read_value(value, column, "s", frozenset())
        except Refusal as refusal:
            return f"{refusal} in {column.source}"
    return row


@settings(max_examples=100, deadline=None)
@given(
    lines=st.lists(JSON_LINES, max_size=10),
    end=st.sampled_from([b"\n", b"\n", b"\r\n"]),
    block_bytes=st.sampled_from([1, 60, 8 << 20]),
)
def test_json_lines_say_what_each_says(
    folder: Path, lines: list[bytes], end: bytes, block_bytes: int
) -> None:
    path = folder / "some.jsonl"
    lines = [FIRST, *lines]
    path.write_bytes(b"\xef\xbb\xbf" + end.join(lines))
    reader = open_table([path], "jsonl", JSON_COLUMNS, block_bytes=block_bytes)
    rows, refused = gathered(list(read(reader, path)))
    expected = list(map(by_hand, lines))
    assert rows == [{"row": n, **of} for n, of in enumerate(expected) if isinstance(of, dict)]
    assert refused == [(n + 1, of) for n, of in enumerate(expected) if isinstance(of, str)]


FRAME = pl.DataFrame(
    {
        "u": ["a", None, "c", "a", "b"],
        "t": [datetime(2026, 11, 1, 0, 0, n) for n in range(5)],
        "v": [{"i": 1}, {"i": None}, None, {"i": -2}, {"i": 5}],
        "g": [["x"], None, [], ["y", None, "x"], ["z"]],
        "p": [1.5, float("nan"), 3.0, 4.0, float("inf")],
        "kind": pl.Series(["pv", "buy", None, "buy", "pv"], dtype=pl.Categorical),
    }
)


@pytest.mark.parametrize("group", [1, 2, 5])
@pytest.mark.parametrize("most", [1, 2, 1 << 20])
def test_parquet_is_read_by_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int, most: int
) -> None:
    """Whether a block is several row groups, one, or some rows of one."""
    monkeypatch.setattr(parquet_table, "_MOST_ROWS", most)
    monkeypatch.setattr(parquet_table, "_BLOCK_ROWS", min(most, 2))
    path = tmp_path / "day=3" / "some.bin"
    path.parent.mkdir()
    FRAME.write_parquet(path, row_group_size=group)
    reader = open_table(
        [path],
        "parquet",
        (
            Column("user", "u", "text"),
            Column("time", "t", "time", timezone="Asia/Shanghai"),
            Column("item", "v.i", "whole", nullable=True),
            Column("tag", "g", "list"),
            Column("price", "p", "number", nullable=True),
            Column("day", "day", "whole"),
            Column("bought", "kind = 'buy' and day = 3", "mask"),
        ),
        unit="ms",
    )
    rows, refused = gathered(list(read(reader, path)))
    begin = 1_793_462_400_000
    assert rows == [
        {"row": 0, "user": "a", "time": begin, "item": 1, "tag": ["x"], "price": 1.5, "day": 3}
        | {"bought": False},
        {"row": 2, "user": "c", "time": begin + 2_000, "item": None, "tag": [], "price": 3.0}
        | {"day": 3, "bought": False},
    ]
    assert refused == [
        (2, "missing value in u"),
        (4, "negative number in v.i"),
        (5, "infinite number in p"),
    ]
    alone = [list(read(reader, part)) for part in reader.parts(path) or ()]
    assert gathered([block for part in alone for block in part]) == (rows, refused)


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_folders_names_give_columns(tmp_path: Path, format: str) -> None:  # noqa: A002
    """Of any format, and in SQL; a column that the file has itself counts for itself."""
    paths = []
    for day, city, u in ((25, "a%2Fb", "x"), (26, "__HIVE_DEFAULT_PARTITION__", "y")):
        path = tmp_path / f"day={day}" / f"city={city}" / "u=z" / f"some.{format}"
        path.parent.mkdir(parents=True)
        frame = pl.DataFrame({"u": [u, "w"], "t": [1, 2]})
        write = {"csv": frame.write_csv, "jsonl": frame.write_ndjson}
        write.get(format, frame.write_parquet)(path)
        paths.append(path)
    more = (
        Column("day", "day", "whole"),
        Column("city", "city", "text", nullable=True),
        Column("late", "day + t > 26", "mask"),
    )
    reader = open_table(paths, format, (USER, TIME, *more), where="day * t <> 50")
    found = [gathered(list(read(reader, path)))[0] for path in paths]
    first = {"row": 0, "time": 1}
    assert found == [
        [first | {"user": "x", "day": 25, "city": "a/b", "late": False}],
        [
            first | {"user": "y", "day": 26, "city": None, "late": True},
            {"row": 1, "user": "w", "time": 2, "day": 26, "city": None, "late": True},
        ],
    ]
    source = open_source(paths, format)
    assert head(source, paths[0], ["day"])["day"].to_list() == [25, 25]


def test_files_are_known_by_their_content(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"  # packed, whatever its name says
    path.write_bytes(gzip.compress(b"u;t\n'a;b';5\nc;6\n"))
    form = CsvFormat(delimiter=";", quote="'")
    reader = open_table([path], "csv", (USER, TIME), csv=form)
    assert gathered(list(read(reader, path)))[0] == [
        {"row": 0, "user": "a;b", "time": 5},
        {"row": 1, "user": "c", "time": 6},
    ]


def test_other_delimiters_and_encodings(tmp_path: Path) -> None:
    path = tmp_path / "movies.dat"
    path.write_bytes("1::Misérables, Les::5\n2::x:y::6\n3::z\n".encode("latin-1"))
    form = CsvFormat(delimiter="::", columns=("u", "title", "t"), encoding="latin-1", quote=None)
    columns = (USER, TIME, Column("title", "title", "text"))
    rows, refused = gathered(list(read(open_table([path], "csv", columns, csv=form), path)))
    assert [(row["user"], row["title"]) for row in rows] == [("1", "Misérables, Les"), ("2", "x:y")]
    assert refused == [(3, "wrong number of columns")]
    path.write_bytes("u,t\n日,1\n".encode("gbk") + b"\xff\xff,2\n")
    rows, refused = gathered(
        list(read(open_table([path], "csv", (USER, TIME), csv=CsvFormat(encoding="gbk")), path))
    )
    assert ([row["user"] for row in rows], refused) == (["日"], [(3, NOT_UTF8)])


def test_rows_outside_say_who_touched_what(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("u,i,t,l,n\na,1,5,1,2\nb,2,x,,1\n,3,5,1,1\nc,4,x,1,2\nd,5,5,9,\ne,6,5,0,y\n")
    columns = (USER, Column("item", "i", "whole"), TIME, Column("label", "l", "label"))
    reader = open_table([path], "csv", columns, where="n >= 2", outside=True, types={"n": "number"})
    (parsed,) = read(reader, path)
    assert parsed.rows.rows() == [
        (0, "a", 1, 5, 1, False),
        (1, "b", 2, 0, 0, True),
        (4, "d", 5, 5, 0, True),
    ]
    assert parsed.left_out == 1  # nobody knows of whom it is
    assert parsed.rejected.select("line", "reason").rows() == [
        (5, "not a whole number in t"),
        (7, "not a number in n"),
    ]
    assert list(reader.columns)[-1] == "outside"


def test_a_condition_sees_its_own_row_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("u,t,timestamp,a b,,\nx,1,3,7,,\ny,2,4,,,\n")

    def where(text: str) -> list[str]:
        reader = open_table([path], "csv", (USER, TIME), where=text)
        return [row["user"] for row in gathered(list(read(reader, path)))[0]]

    assert where("timestamp > 3 or u in ('x')") == ["x", "y"]
    assert where('"a b" > 5') == ["x"]
    assert where('not "a b" > 5') == []  # null is false
    assert where("u like 'y%' and t between 1 and 2") == ["y"]
    secret = tmp_path / "secret.csv"
    secret.write_text("u\nx\n")
    for text in (
        f"u in (select u from read_csv('{secret}'))",
        "exists (select 1)",
        "t = max(t)",
        "row_number() over (order by t) = 1",
        "now() > t",
        "t > current_timestamp",
        "u = 'x'; drop table rows",
        "u = 'x' -- and more",
        "true",
        "t > 1, t",
        "t",
        "u > 3",
    ):
        with pytest.raises(TinprepError) as caught:
            where(text)
        assert caught.value.exit_code in (2, 3), text


@pytest.mark.parametrize("form", ["csv", "jsonl", "whole.parquet", "float.parquet"])
def test_a_whole_number_in_text_has_no_fraction(tmp_path: Path, form: str) -> None:
    """Whatever a file has it in, and whatever rows stand beside it."""
    numbers: list[float | None] = (
        [7, 7.5, None, 12] if form != "whole.parquet" else [7, 8, None, 12]
    )
    path, empty = tmp_path / f"log.{form}", tmp_path / "empty.jsonl"
    empty.touch()
    frame = pl.DataFrame({"u": list("abcd"), "n": numbers}, strict=False)
    if form == "csv":
        path.write_text(
            "u,n\n" + "".join(f"{u},{'' if n is None else n}\n" for u, n in frame.rows())
        )
    elif form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in frame.to_dicts()))
    else:
        frame.cast({"n": pl.Int64 if form == "whole.parquet" else pl.Float64}).write_parquet(path)
    columns = (
        Column("said", "concat('n', n)", "text"),
        Column("else", "if(u = 'z', u, coalesce(n, '~'))", "text"),
        Column("half", "case when u = 'z' then '' else concat('h', floor(n / 2)) end", "text"),
        Column("is_7", "n::text = '7'", "mask"),
    )
    files = [path, empty] if form == "jsonl" else [path]  # of which an empty one has no rows
    reader = open_table(files[::-1], form.split(".")[-1], columns, where="n * 2 <> 24 or n is null")
    rows, refused = gathered([block for file in files for block in read(reader, file)])
    assert not refused
    second = "8" if form == "whole.parquet" else "7.5"
    assert [tuple(row.values())[1:] for row in rows] == [
        ("n7", "7", "h3.0", True),  # as SQL writes what it computes
        (f"n{second}", second, "h4.0" if second == "8" else "h3.0", False),
        ("n", "~", "h", False),
    ]


CSV = "userId,time\na,1\n"
parquet.write_table(pa.table([[1], [2]], ["u", "u"]), TWICE := io.BytesIO())
Make = Callable[[Path], list[Path]]


def written(**files: bytes | str) -> Make:
    def make(folder: Path) -> list[Path]:
        paths = []
        for name, data in files.items():
            paths.append(folder / name.replace("_", "."))
            paths[-1].write_bytes(data if isinstance(data, bytes) else data.encode())
        return paths

    return make


@pytest.mark.parametrize(
    ("make", "form", "columns", "said"),
    [
        (written(a_csv=CSV), "csv", [Column("user", "userid", "text")], "did you mean userId?"),
        (written(a_csv=CSV), "csv", [Column("user", "user_id", "text")], "userId, time"),
        (written(a_csv=""), "csv", [USER], "The file is empty"),
        (written(a_csv="\nu,t\n"), "csv", [USER], "no header"),
        (written(a_csv="u,u\n"), "csv", [USER], "a name twice"),
        (written(a_csv="u,t\n", b_csv="7,7\n"), "csv", [USER], "put a header before"),
        (written(a_csv="u,t\n", b_csv="t,v\n"), "csv", [USER], "b.csv:1"),
        (written(a_csv=b"PAR1"), "csv", [USER], "a Parquet file"),
        (lambda folder: [folder / "none.csv"], "csv", [USER], "is missing"),
        (lambda folder: [folder], "csv", [USER], "is a folder"),
        (written(a_parquet=CSV), "parquet", [USER], "Parquet file cannot be read"),
        (lambda folder: [folder / "none.parquet"], "parquet", [USER], "is missing"),
        (written(a_parquet=gzip.compress(b"PAR1")), "parquet", [USER], "unpack it"),
        (written(a_parquet=TWICE.getvalue()), "parquet", [USER], "a column's name twice"),
        (written(a_jsonl="", b_jsonl="\n"), "jsonl", [USER], "no bytes"),
        (written(a_jsonl='[{"u": 1},\n{"u": 2}]\n'), "jsonl", [USER], "jq -c"),
        (written(a_jsonl='{"u": 1}\n'), "jsonl", [TIME], "no column t"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_at_once(
    make: Make, form: str, columns: list[Column], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        open_table(make(tmp_path), form, columns)
    assert said in str(caught.value)


def test_a_file_of_other_columns_is_refused(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for path, columns in zip(
        paths, ({"u": ["x"], "t": [1]}, {"u": ["x"]}, {"u": [1], "t": [1]}), strict=True
    ):
        parquet.write_table(pa.table(columns), path)
    for others, said in ((paths[:2], "t (Int64)"), (paths[::2], "u (String)")):
        with pytest.raises(InputError) as caught:
            open_table(others, "parquet", (USER, TIME))
        assert said in str(caught.value)
        assert str(others[1]) in str(caught.value)
    # What is not asked for may differ, and a column without any value has no type.
    assert open_table(paths[:2], "parquet", (USER,)).columns
    parquet.write_table(pa.table({"u": pa.nulls(1), "t": [1]}), tmp_path / "d")
    assert open_table([tmp_path / "d", paths[0]], "parquet", (USER, TIME)).columns


def test_types_of_parquet_that_others_write(tmp_path: Path) -> None:
    times = pa.array([1_600_041_600], pa.timestamp("s", "+05:30"))
    uuids = pa.array([bytes(range(16))], pa.uuid())
    parquet.write_table(pa.table({"t": times, "u": uuids}), path := tmp_path / "a")
    (parsed,) = read(open_table([path], "parquet", (Column("time", "t", "time"), USER)), path)
    assert parsed.rows.row(0) == (0, 1_600_041_600, "00010203-0405-0607-0809-0a0b0c0d0e0f")


def test_a_parquet_file_that_is_cut_short_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame({"u": ["x" * 100] * 1_000}).write_parquet(path, compression="uncompressed")
    data = bytearray(path.read_bytes())
    data[4:60] = bytes(56)
    path.write_bytes(data)
    reader = open_table([path], "parquet", (USER,))
    with pytest.raises(InputError, match="cannot be read"):
        list(read(reader, path))


def test_names_without_a_header_and_parts_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("a,1\nb,2\nc,x\nd,4\n")
    form = CsvFormat(columns=("u", "t"))
    reader = open_table([path], "csv", (USER, TIME), csv=form)
    rows, refused = gathered(list(read(reader, Part(path, 4, None, 1))))
    assert [row["row"] for row in rows] == [1, 3]
    assert refused == [(3, "not a whole number in t")]
    assert open_source([path], "csv", form).names == ("u", "t")


def test_usage_is_checked_before_anything_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("u,t\na,1\n")
    with pytest.raises(UsageError, match="encoding"):
        open_table([path], "csv", (USER,), csv=CsvFormat(encoding="utf-16"))
    with pytest.raises(UsageError, match="neither true nor false"):
        open_table([path], "csv", (USER, Column("is_target", "t + 1", "mask")))
