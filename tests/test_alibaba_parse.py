from __future__ import annotations

import gzip
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.engines.local import map_stream
from pipeline.lines import BLOCK_BYTES
from pipeline.sources import alibaba_columns as columns
from pipeline.sources import alibaba_rows
from pipeline.sources.alibaba_columns import BTAGS, Column, Kind, read_line
from pipeline.sources.alibaba_parse import (
    ParsedBehaviors,
    behavior_blocks,
    parse_behaviors,
    read_ads,
    read_impressions,
    read_profiles,
)
from pipeline.sources.alibaba_scan import LEAD, scan
from pipeline.sources.parsed import TOO_LONG, Parsed
from schemas.errors import InputError
from tests.alibaba_lines import GOOD, ODD, files, header, one_by_one
from tests.amazon_lines import gather
from tests.conftest import SHARED

KUAIRAND = SHARED / "data" / "kuairand_tianchi"


TABLES = {
    "impressions": (columns.IMPRESSIONS, read_impressions),
    "ads": (columns.ADS, read_ads),
    "profiles": (columns.PROFILES, read_profiles),
}


def read_behaviors(
    path: Path, wanted: tuple[str, ...], block_bytes: int = BLOCK_BYTES, threads: int = 1
) -> Generator[ParsedBehaviors]:
    """The behaviour log as the flow reads it."""
    parse = partial(parse_behaviors, file=path.name, behaviors=wanted)
    return map_stream(parse, behavior_blocks(path, block_bytes), threads)


def read_as_expected(
    folder: Path, name: str, lines: list[bytes], block_bytes: int, *, crlf: bool = False
) -> None:
    layout, read = TABLES[name]
    path = folder / f"{name}.csv"
    end = b"\r\n" if crlf else b"\n"
    path.write_bytes(end.join([header(layout), *lines, b""]))
    if crlf:
        lines = [line + b"\r" for line in lines]
    rows, refused = one_by_one(lines, layout)
    start = 0 if name == "impressions" else 1  # ads and profiles count the header as line 0
    rows = [(row[0] + start, *row[1:]) for row in rows]
    parsed = list(read(path, block_bytes))
    assert gather(parsed) == (rows, refused)
    for block in parsed:
        assert block.rejected["file"].unique().to_list() in ([], [path.name])


BLOCKS = st.sampled_from([1, 60, 150, 8 << 20])


@settings(max_examples=150, deadline=None)
@given(lines=files(columns.IMPRESSIONS), block_bytes=BLOCKS, crlf=st.booleans())
@example([b"1,2,3,a,x,0", "1,2,3,é,é,1".encode(), b"1,2,3,\xff,0,1"], 8 << 20, False)
def test_impressions(folder: Path, lines: list[bytes], block_bytes: int, crlf: bool) -> None:
    read_as_expected(folder, "impressions", lines, block_bytes, crlf=crlf)


@settings(max_examples=150, deadline=None)
@given(lines=files(columns.ADS), block_bytes=BLOCKS, crlf=st.booleans())
def test_ads(folder: Path, lines: list[bytes], block_bytes: int, crlf: bool) -> None:
    read_as_expected(folder, "ads", lines, block_bytes, crlf=crlf)


@settings(max_examples=100, deadline=None)
@given(lines=files(columns.PROFILES), block_bytes=BLOCKS, crlf=st.booleans())
def test_profiles(folder: Path, lines: list[bytes], block_bytes: int, crlf: bool) -> None:
    read_as_expected(folder, "profiles", lines, block_bytes, crlf=crlf)


def behaviors_as_expected(
    path: Path, lines: list[bytes], wanted: tuple[str, ...], block_bytes: int, threads: int
) -> None:
    path.write_bytes(b"\n".join([header(columns.BEHAVIORS), *lines]) + b"\n")
    rows, refused = one_by_one(lines, columns.BEHAVIORS)
    fitting = [row[1:] for row in rows if BTAGS[row[3]] in wanted]
    kept = [row for row in fitting if row[1] > 0]
    parsed = list(read_behaviors(path, wanted, block_bytes, threads))
    assert gather(parsed) == (kept, refused)
    counts = [sum(getattr(p, n) for p in parsed) for n in ("read", "other_btag", "no_time")]
    assert counts == [len(rows), len(rows) - len(fitting), len(fitting) - len(kept)]


@settings(max_examples=250, deadline=None)
@given(
    lines=files(columns.BEHAVIORS),
    wanted=st.sampled_from([("pv",), ("pv", "cart"), BTAGS, ("fav",)]),
    block_bytes=BLOCKS,
    threads=st.sampled_from([1, 2]),
)
def test_behaviors(
    folder: Path, lines: list[bytes], wanted: tuple[str, ...], block_bytes: int, threads: int
) -> None:
    behaviors_as_expected(folder / "behavior_log.csv", lines, wanted, block_bytes, threads)


@pytest.mark.parametrize("layout", GOOD)
def test_each_odd_value_in_each_field(folder: Path, layout: tuple[Column, ...]) -> None:
    lines = []
    for good in GOOD[layout]:
        for at in range(len(layout)):
            for odd in ODD:
                fields = good.split(b",")
                fields[at] = odd
                lines.append(b",".join(fields))
    for some in (lines, [line for line in lines if line.count(b",") == len(layout) - 1]):
        if layout == columns.BEHAVIORS:
            behaviors_as_expected(folder / "odd.csv", some, ("pv", "cart"), 8 << 20, 1)
        else:
            name = next(name for name, table in TABLES.items() if table[0] == layout)
            read_as_expected(folder, name, some, 8 << 20)


@pytest.mark.parametrize(
    ("layout", "line", "expected"),
    [
        (columns.IMPRESSIONS, "1,2,3,430548_1007,0,1", (1, 2, 3, "430548_1007", 1)),
        (columns.IMPRESSIONS, "1,2,3,a,1,1", columns.CONTRADICTION),
        (columns.IMPRESSIONS, "1,2,3,a,0,0", columns.CONTRADICTION),
        (columns.IMPRESSIONS, "1,2,3,a,-1,1", columns.CONTRADICTION),
        (columns.IMPRESSIONS, "1,2,3,a,x,1", columns.CONTRADICTION),
        (columns.IMPRESSIONS, "1,2,3,a,2,2", columns.BAD_LABEL),
        (columns.IMPRESSIONS, "1,2,3,a,NULL,1", (1, 2, 3, "a", 1)),
        (columns.IMPRESSIONS, "1,2,3,a,001.0,0", (1, 2, 3, "a", 0)),
        (columns.IMPRESSIONS, "1,2,3,NULL,,0\r", (1, 2, 3, None, 0)),
        (columns.IMPRESSIONS, "1,2,3,a,0", columns.WRONG_COLUMNS),
        (columns.IMPRESSIONS, "1,2,3,a,0,1,", columns.WRONG_COLUMNS),
        (columns.IMPRESSIONS, "NULL,2,3,a,0,1", columns.NO_VALUE),
        (columns.IMPRESSIONS, "1,,3,a,0,1", columns.NO_VALUE),
        (columns.IMPRESSIONS, "1,2,3,a,0,", columns.NO_VALUE),
        (columns.IMPRESSIONS, "1,-2,3,a,0,1", columns.NEGATIVE),
        (columns.IMPRESSIONS, "1,100000000000,3,a,0,1", columns.MILLISECONDS),
        (columns.IMPRESSIONS, "1,99999999999,3,a,0,1", (1, 99999999999, 3, "a", 1)),
        (columns.IMPRESSIONS, "1,2,3,a,0,2", columns.BAD_LABEL),
        (columns.IMPRESSIONS, '1,2,"3",a,0,1', columns.NOT_WHOLE),
        (columns.ADS, "1,null,3,4,5,6", columns.NOT_WHOLE),
        (columns.ADS, f"{2**63 - 1},NULL,3,,5,-6", (2**63 - 1, None, 3, None, 5, -6.0)),
        (columns.ADS, f"1,{2**63},3,4,5,6", columns.TOO_LARGE),
        (columns.ADS, "1,2,3,4,5,1e5", columns.NOT_DECIMAL),
        (columns.ADS, "1,2,3,4,5," + "9" * 400, columns.TOO_LARGE),
        (columns.BEHAVIORS, "1,-5,pv,,NULL", (1, -5, 3, None, None)),
        (columns.BEHAVIORS, "1,5,click,2,3", columns.UNKNOWN_BTAG),
        (columns.BEHAVIORS, "1,5,,2,3", columns.NO_VALUE),
        (columns.BEHAVIORS, "1,5,pv,-2,3", columns.NEGATIVE),
    ],
)
def test_one_line(layout: tuple[Column, ...], line: str, expected: Any) -> None:
    assert read_line(line, layout) == expected


@pytest.mark.parametrize("layout", GOOD)
def test_usual_lines_take_the_fast_path(layout: tuple[Column, ...]) -> None:
    """The agreement above would hold as well if nothing were ever sure."""
    last = GOOD[layout][0].replace(b"581738", b"%d" % (2**63 - 1))
    text = b"\n".join([*GOOD[layout], last + b"\r", b"x", GOOD[layout][0], b""])
    found = scan(np.frombuffer(bytes(LEAD) + text, np.uint8), layout)
    assert found.lines == 5
    assert found.sure is not None
    assert found.sure.tolist() == [0, 1, 2, 4]
    if layout != columns.BEHAVIORS:
        return
    assert [value.tolist() for value in found.values[:3]] == [
        [558157, 1, 558157, 558157],
        [1493741625, 1493741626, 1493741625, 1493741625],
        [3, 1, 3, 3],
    ]


def test_pieces_and_threads_change_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [b"%d,%d,pv,%d,%d" % (i, 10**9 + i, i % 7, i % 5) for i in range(3_000)]
    for at in (0, 1_234, 2_000, 2_999):
        lines[at] = lines[at].replace(b"pv", b"px")
    lines[500], lines[600] = b"", lines[600].replace(b",", b",000000000000000000000", 1)
    path = folder / "many.csv"
    path.write_bytes(b"\n".join([header(columns.BEHAVIORS), *lines]))
    whole = gather(list(read_behaviors(path, ("pv",))))
    assert [row[0] for row in whole[0]] == [
        i for i in range(2_999) if i not in (0, 500, 1_234, 2_000)
    ]
    assert [row[0] for row in whole[1]] == [2, 1_236, 2_002, 3_001]
    monkeypatch.setattr(alibaba_rows, "_PIECE_BYTES", 700)
    for block_bytes, threads in ((8 << 20, 1), (3_000, 3), (100, 2)):
        assert gather(list(read_behaviors(path, ("pv",), block_bytes, threads))) == whole


@pytest.mark.parametrize("name", ["b.csv", "b.csv.gz"])
def test_gzip_bom_and_blanks_in_the_header(folder: Path, name: str) -> None:
    text = b"\xef\xbb\xbf user ,time_stamp,btag,cate,brand \r\n1,2,pv,3,4\r\n5,6,buy,,NULL"
    (folder / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    (parsed,) = read_behaviors(folder / name, BTAGS)
    assert parsed.rows.rows() == [(1, 2, 3, 3, 4), (5, 6, 0, None, None)]
    assert parsed.rows.schema == {
        "user": pl.Int64,
        "time": pl.Int64,
        "btag": pl.UInt8,
        "category": pl.Int64,
        "brand": pl.Int64,
    }


@pytest.mark.parametrize(
    ("head", "got"),
    [
        (b"user,time_stamp,cate,btag,brand", "user,time_stamp,cate,btag,brand"),
        (b'"user",time_stamp,btag,cate,brand', '"user",time_stamp,btag,cate,brand'),
        (b"1,2,pv,3,4", "1,2,pv,3,4"),
        (b"", "an empty line"),
        (b"\xff\n", "�"),
        (b"x" * 5_000, "x" * 200),
    ],
)
@pytest.mark.parametrize("threads", [1, 2])
def test_another_header_is_an_error(folder: Path, head: bytes, got: str, threads: int) -> None:
    path = folder / "head.csv"
    path.write_bytes(head + b"\n1,2,pv,3,4\n")
    with pytest.raises(InputError) as caught:
        list(read_behaviors(path, ("pv",), threads=threads))
    error = caught.value
    assert (error.where, error.line, error.got) == (path, 1, got)
    assert error.expected is not None
    assert "user,time_stamp,btag,cate,brand" in error.expected
    assert error.do


def test_an_empty_file_is_an_error_and_a_bare_header_is_not(folder: Path) -> None:
    path = folder / "empty.csv"
    path.write_bytes(b"")
    with pytest.raises(InputError, match="empty"):
        list(read_ads(path))
    path.write_bytes(header(columns.ADS))
    assert list(read_ads(path)) == []


def test_long_lines_are_refused(folder: Path) -> None:
    path = folder / "long.csv"
    good = GOOD[columns.IMPRESSIONS][0]
    long = b"1,2,3," + b"a" * (17 << 20) + b",0,1"
    path.write_bytes(b"\n".join([header(columns.IMPRESSIONS), good, long, good]))
    parsed: list[Parsed] = list(read_impressions(path))
    assert [row[0] for p in parsed for row in p.rows.rows()] == [0, 2]
    rejected = pl.concat([p.rejected for p in parsed])
    assert rejected.rows() == [("long.csv", 3, TOO_LONG, long[:200].decode())]
    assert all(p.rows.schema == parsed[0].rows.schema for p in parsed)


def test_stopping_early_ends_the_threads(folder: Path) -> None:
    path = folder / "early.csv"
    path.write_bytes(b"\n".join([header(columns.BEHAVIORS), *[b"1,2,pv,3,4"] * 1_000]))
    stream = read_behaviors(path, ("pv",), 50, 2)
    assert isinstance(next(stream), ParsedBehaviors)
    stream.close()
    with pytest.raises(StopIteration):
        next(stream)


def test_every_kind_says_what_it_is() -> None:
    assert len({kind.value for kind in Kind}) == len(Kind)


@pytest.mark.skipif(not KUAIRAND.is_dir(), reason="the shared KuaiRand data is not here")
def test_real_files_are_what_polars_reads() -> None:
    for name, layout, read in (
        ("raw_sample", *TABLES["impressions"]),
        ("ad_feature", *TABLES["ads"]),
        ("user_profile", *TABLES["profiles"]),
        ("behavior_log", columns.BEHAVIORS, lambda path: read_behaviors(path, BTAGS)),
    ):
        path = KUAIRAND / f"{name}.csv"
        parsed = list(read(path))
        assert sum(p.rejected.height for p in parsed) == 0
        rows = pl.concat([p.rows for p in parsed]).drop("row", "line", strict=False)
        expected = pl.read_csv(path, null_values=["NULL"], infer_schema_length=None)
        expected = expected.rename({c: c.strip() for c in expected.columns})
        kept = [column for column in layout if column.kind is not Kind.OPPOSITE]
        expected = expected.select([pl.col(c.header).alias(c.name) for c in kept])
        if "btag" in rows.columns:
            code = pl.col("btag").replace_strict(list(BTAGS), range(4), return_dtype=pl.UInt8)
            expected = expected.with_columns(code)
        assert rows.equals(expected.cast(dict(rows.schema)))
