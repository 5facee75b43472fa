from __future__ import annotations

import gzip
from collections.abc import Generator
from itertools import chain
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.readers import alibaba_columns as columns
from pipeline.readers import alibaba_parse, values
from pipeline.readers.alibaba_columns import BTAGS, Column, Kind, read_line
from pipeline.readers.alibaba_parse import Csv
from pipeline.readers.lines import BLOCK_BYTES
from pipeline.readers.parsed import TOO_LONG, Parsed, read
from schemas.errors import InputError
from tests.alibaba_lines import GOOD, ODD, SAVED_AGAIN, files, header, one_by_one
from tests.amazon_lines import gather
from tests.conftest import SHARED

KUAIRAND = SHARED / "data" / "kuairand_tianchi"


def read_behaviors(
    path: Path, wanted: tuple[str, ...], block_bytes: int = BLOCK_BYTES, threads: int = 1
) -> Generator[Parsed]:
    """The behaviour log as the flow reads it."""
    return read(Csv(columns.BEHAVIORS, wanted, block_bytes), path, threads)


def read_as_expected(
    path: Path, layout: tuple[Column, ...], text: bytes, block_bytes: int, wanted: tuple[str, ...]
) -> None:
    """Hold the reader of a file to the exact reader of one line."""
    path.write_bytes(header(layout) + b"\n" + text)
    rows, refused = one_by_one(text.removesuffix(b"\n").split(b"\n"), layout)
    kept = rows
    if layout == columns.BEHAVIORS:  # only those of the kinds wanted, at a time after 0
        parsed = list(read_behaviors(path, wanted, block_bytes, threads=2))
        kept = [(*r[:3], *r[4:]) for r in rows if BTAGS[r[3]] in wanted and r[2] > 0]
        assert sum(p.left_out for p in parsed) == len(rows) - len(kept)
        assert sum(p.read for p in parsed) == len(rows) + len(refused)
    else:
        parsed = list(read(Csv(layout, None, block_bytes), path))
    assert gather(parsed)[0] == kept
    found = (block.rejected.select("line", "reason").rows() for block in parsed)
    assert list(chain.from_iterable(found)) == refused
    for block in parsed:
        assert block.rejected["file"].unique().to_list() in ([], [path.name])


@pytest.mark.parametrize("layout", GOOD, ids=lambda layout: layout[-1].name)
@settings(max_examples=250, deadline=None)
@given(
    data=st.data(),
    end=st.sampled_from([b"\n", b"\n", b"\r\n"]),
    last=st.booleans(),
    block_bytes=st.sampled_from([1, 60, 150, 8 << 20]),
    wanted=st.sampled_from([("pv",), ("pv", "cart"), BTAGS, ("fav",)]),
)
def test_many_lines_are_read_as_each_by_itself(
    folder: Path,
    layout: tuple[Column, ...],
    data: st.DataObject,
    end: bytes,
    last: bool,
    block_bytes: int,
    wanted: tuple[str, ...],
) -> None:
    text = end.join(data.draw(files(layout))) + end * last
    read_as_expected(folder / "some.csv", layout, text, block_bytes, wanted)


@pytest.mark.parametrize("layout", GOOD, ids=lambda layout: layout[-1].name)
def test_each_odd_value_in_each_field(
    folder: Path, layout: tuple[Column, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alibaba_parse, "_ONE_BY_ONE_BYTES", 1)
    lines = []
    for good in GOOD[layout]:
        for at in range(len(layout)):
            for odd in ODD:
                fields = good.split(b",")
                fields[at] = odd
                lines.append(b",".join(fields))
    read_as_expected(folder / "odd.csv", layout, b"\n".join(lines), 8 << 20, ("pv", "cart"))


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
        (columns.IMPRESSIONS, '1, "2" , 3,a,0,1', columns.BAD_QUOTES),
        (columns.IMPRESSIONS, '1, "2",3\t,"a, ""b""",0.,"1.0"', (1, 2, 3, 'a, "b"', 1)),
        (columns.IMPRESSIONS, '1,2,3,"a,0,1', columns.BAD_QUOTES),
        (columns.IMPRESSIONS, '1,2,"3"4,a,0,1', columns.BAD_QUOTES),
        (columns.IMPRESSIONS, '1,2,3,b"a,0,1', (1, 2, 3, 'b"a', 1)),
        (columns.IMPRESSIONS, "1,2,4.5,a,0,1", values.NOT_WHOLE),
        (columns.IMPRESSIONS, "1,1.494E+09,3,a,0,1", values.EXPONENT),
        (columns.ADS, "+1,null,3.0,<NA>,nan,\\N", (1, None, 3, None, None, None)),
        (columns.ADS, "9007199254740993.0,1,1,1,1,.5", (2**53 + 1, 1, 1, 1, 1, 0.5)),
        (columns.ADS, f"{2**63 - 1},NULL,3,,5,-6", (2**63 - 1, None, 3, None, 5, -6.0)),
        (columns.ADS, f"1,{2**63},3,4,5,6", columns.TOO_LARGE),
        (columns.ADS, "1,2,3,4,5,1e-05", (1, 2, 3, 4, 5, 1e-05)),
        (columns.ADS, "1,2,3,4,5,1_0", columns.NOT_DECIMAL),
        (columns.ADS, "1,2,3,4,5," + "9" * 400, columns.TOO_LARGE),
        (columns.BEHAVIORS, "1,-5,pv,,NULL", (1, -5, 3, None, None)),
        (columns.BEHAVIORS, "1,5,click,2,3", columns.UNKNOWN_BTAG),
        (columns.BEHAVIORS, "1,5,,2,3", columns.NO_VALUE),
        (columns.BEHAVIORS, "1,5,pv,-2,3", columns.NEGATIVE),
    ],
)
def test_one_line(layout: tuple[Column, ...], line: str, expected: Any) -> None:
    assert read_line(line, layout) == expected


@pytest.mark.parametrize("layout", GOOD, ids=lambda layout: layout[-1].name)
def test_usual_lines_and_those_saved_again_are_read_at_once(
    folder: Path, layout: tuple[Column, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agreement above would hold as well if every line were read by itself."""
    monkeypatch.setattr(alibaba_parse, "read_line", None)
    path = folder / "usual.csv"
    found = []
    for lines, end in ((GOOD, b"\n"), (GOOD, b"\r\n"), (SAVED_AGAIN, b"\r\n")):
        path.write_bytes(end.join([header(layout), *lines[layout]]))
        found += [parsed.rows.rows() for parsed in read(Csv(layout), path)]
    assert len(found[0]) == len(GOOD[layout])
    assert found[1:] == found[:1] * 2


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
    assert whole[1] == [2, 1_236, 2_002, 3_001]
    monkeypatch.setattr(alibaba_parse, "_ONE_BY_ONE_BYTES", 700)
    for block_bytes, threads in ((8 << 20, 1), (3_000, 3), (100, 2)):
        assert gather(list(read_behaviors(path, ("pv",), block_bytes, threads))) == whole


@pytest.mark.parametrize("name", ["b.csv", "b.csv.gz"])
def test_gzip_bom_blanks_and_quotes_in_the_header(folder: Path, name: str) -> None:
    head = b'\xef\xbb\xbf user ,"time_stamp", btag,cate,"brand" \r\n'
    text = head + b"1,2,pv,3,4\r\n5,6,buy,,NULL"
    (folder / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    (parsed,) = read_behaviors(folder / name, BTAGS)
    assert parsed.rows.rows() == [(0, 1, 2, 3, 4), (1, 5, 6, None, None)]
    assert parsed.rows.schema == {
        "row": pl.Int64,
        "user": pl.Int64,
        "time": pl.Int64,
        "category": pl.Int64,
        "brand": pl.Int64,
    }


@pytest.mark.parametrize(
    ("head", "got"),
    [
        (b"user,time_stamp,cate,btag,brand", "user,time_stamp,cate,btag,brand"),
        (b",user,time_stamp,btag,cate,brand", ",user,time_stamp,btag,cate,brand"),
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
        list(read(Csv(columns.ADS), path))
    path.write_bytes(header(columns.ADS))
    assert list(read(Csv(columns.ADS), path)) == []


def test_long_lines_are_refused(folder: Path) -> None:
    path = folder / "long.csv"
    good = GOOD[columns.IMPRESSIONS][0]
    long = b"1,2,3," + b"a" * (17 << 20) + b",0,1"
    path.write_bytes(b"\n".join([header(columns.IMPRESSIONS), good, long, good]))
    parsed: list[Parsed] = list(read(Csv(columns.IMPRESSIONS), path))
    assert [row[0] for p in parsed for row in p.rows.rows()] == [0, 2]
    rejected = pl.concat([p.rejected for p in parsed])
    assert rejected.rows() == [("long.csv", 3, TOO_LONG, long[:200].decode())]
    assert all(p.rows.schema == parsed[0].rows.schema for p in parsed)


def test_stopping_early_ends_the_threads(folder: Path) -> None:
    path = folder / "early.csv"
    path.write_bytes(b"\n".join([header(columns.BEHAVIORS), *[b"1,2,pv,3,4"] * 1_000]))
    stream = read_behaviors(path, ("pv",), 50, 2)
    assert isinstance(next(stream), Parsed)
    stream.close()
    with pytest.raises(StopIteration):
        next(stream)


def test_every_kind_says_what_it_is() -> None:
    assert len({kind.value for kind in Kind}) == len(Kind)


@pytest.mark.skipif(not KUAIRAND.is_dir(), reason="the shared KuaiRand data is not here")
def test_real_files_are_what_polars_reads() -> None:
    names = ("raw_sample", "ad_feature", "user_profile", "behavior_log")
    layouts = (columns.IMPRESSIONS, columns.ADS, columns.PROFILES, columns.BEHAVIORS)
    for name, layout in zip(names, layouts, strict=True):
        path = KUAIRAND / f"{name}.csv"
        btags = BTAGS if layout == columns.BEHAVIORS else None
        parsed = list(read(Csv(layout, btags), path))
        assert sum(p.rejected.height for p in parsed) == 0
        rows = pl.concat([p.rows for p in parsed]).drop("row")
        expected = pl.read_csv(path, null_values=["NULL"], infer_schema_length=None)
        expected = expected.rename({c: c.strip() for c in expected.columns})
        kept = [column for column in layout if column.kind is not Kind.OPPOSITE]
        expected = expected.select([pl.col(c.header).alias(c.name) for c in kept])
        if btags is not None:
            expected = expected.filter(pl.col("time") > 0).drop("btag")
        assert rows.equals(expected.cast(dict(rows.schema)))
