"""A table of several files is what one file of all their lines is, but for who names what."""

from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.readers.lines import Part
from pipeline.readers.own_tables import open_table
from pipeline.readers.raw_files import names_of
from pipeline.readers.shares import Placed, Share, blocks_of, placed, rows_of
from pipeline.readers.values import Column
from schemas.manifest import load
from tests.conftest import finished, refused, tinprep
from tests.test_prepare_described import same_rows

HEADER = "user,item,time\n"
COLUMNS = (
    Column("user", "user", "text"),
    Column("item", "item", "whole"),
    Column("time", "time", "time"),
)
RECORDS = st.sampled_from(
    ["a,1,5\n", "b,2,6\n", "a,x,7\n", "\n", '"a\nb",3,8\n', "a,1\n", '"c,1,2\n', "d,4,9\n"]
)


@settings(max_examples=40, deadline=None)
@given(files=st.lists(st.lists(RECORDS, max_size=5), min_size=1, max_size=4), zipped=st.booleans())
def test_rows_count_through_the_files(folder: Path, files: list[list[str]], zipped: bool) -> None:
    paths = [folder / f"part-{n}" for n in range(len(files))]
    for path, lines in zip(paths, files, strict=True):
        data = (HEADER + "".join(lines)).encode()
        path.write_bytes(gzip.compress(data) if zipped else data)
    reader = open_table(paths, "csv", COLUMNS, block_bytes=20)
    expected, told, first = [], [], 0
    for n, path in enumerate(paths):
        for block in reader.blocks(Part(path)):
            parsed = reader.parse("", block)
            expected += [(n, row + first, *rest) for row, *rest in parsed.rows.rows()]
            assert all(
                reader.parse("", block).line_of(row) >= row + 2  # type: ignore[misc]
                for row in parsed.rows["row"]
            )
        told.append(first)
        first += rows_of(reader, path)
    # Read in one go; or each file for itself, where it is known at which row it begins.
    alone = [
        Share((Placed(of.part, of.name, of.number, row),))
        for of, row in zip(placed(paths), told, strict=True)
    ]
    for shares in ([Share(tuple(placed(paths)))], alone):
        found = [
            (at.of.number, row + at.first_row, *rest)
            for share in shares
            for at in blocks_of(reader, share)
            for row, *rest in reader.parse(at.of.name, at.block).rows.rows()
        ]
        assert found == expected


DESCRIPTION = """
[tables.log]
files = "FILES"
user = "user"
time = { column = "time", unit = "s" }
fields = { item = "item" }
order = "file"
[target]
table = "log"
split = { by = "order" }
negatives = { per_positive = 1, pool = "all" }
[vocabulary]
from = "all"
[histories.history]
table = "log"
"""


def lines_of(users: int) -> list[str]:
    return [
        f"u{u},{(u * 7 + n) % 23},{1_000_000 + n // 3}\n" for n in range(8) for u in range(users)
    ]


def test_several_files_make_the_data_set_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = lines_of(9)
    lines[40] = "u1,2,never\n"
    Path("one.csv").write_text(HEADER + "".join(lines))
    for n, (begin, end) in enumerate(((0, 30), (30, 30), (30, 72))):
        path = Path(f"logs/day={n}/log.csv")
        path.parent.mkdir(parents=True)
        data = (HEADER + "".join(lines[begin:end])).encode()
        path.write_bytes(data if n else gzip.compress(data))
    # A folder behind a link is one as well, and one that is reached again is none.
    Path("logs/day=1").rename("elsewhere")
    for name, to in (("day=1", "../elsewhere"), (".day=1", "../elsewhere"), ("day=0/all", "..")):
        Path("logs", name).symlink_to(to)
    for name, files in (("one", "one.csv"), ("globbed", "logs/**/*.csv"), ("many", "logs")):
        Path(f"{name}.toml").write_text(DESCRIPTION.replace("FILES", files))
        more = ("--max-rejected", "5%", "--buckets", 3)
        finished(tinprep("prepare", f"{name}.toml", "--out", name, *more))
    assert same_rows(Path("one"), Path("many"))
    assert same_rows(Path("one"), Path("globbed"))
    told = load(Path("many"))
    named = [f"day={n}/log.csv" for n in range(3)]
    assert [(one.file, one.first_row) for one in told.inputs] == list(
        zip(named, (0, 30, 30), strict=True)
    )
    rejected = pl.read_parquet("many/rejected/log.parquet")
    assert rejected.select("file", "line").rows() == [(named[2], 12)]
    finished(tinprep("verify", "many"))
    # Which file it is is said of the first line that is refused.
    ended = tinprep("prepare", "many.toml", "--out", "none")
    refused(ended, 3, f"logs/{named[2]}:12", "not a whole number in time")


def test_what_no_log_is_meant_to_be_is_told(tmp_path: Path) -> None:
    """A file under two names, events that repeat others, and a time of 0 for none."""
    (tmp_path / "logs").mkdir()
    for name in ("a.csv", "a (1).csv"):
        (tmp_path / "logs" / name).write_text(HEADER + "".join(lines_of(9)) + "u1,3,2000000000\n")
    (tmp_path / "d.toml").write_text(DESCRIPTION.replace("FILES", "logs"))
    for more, said in (((), 3), (("--duplicates", "drop"), 2)):
        ended = tinprep("prepare", tmp_path / "d.toml", "--out", tmp_path / "out", "--force", *more)
        finished(ended)
        told = [one for one in load(tmp_path / "out").notes if one.startswith("Warning")]
        assert len(told) == said, told
        said_ = " ".join(ended.said.split())
        assert all(one.replace("Warning", "warning")[:40] in said_ for one in told)
        assert "a (1).csv and a.csv hold the same bytes" in told[0]
        assert "to 2033-05-18 03:33:20 (2000000000)" in told[-1]


def test_files_are_called_by_their_names_or_their_folders() -> None:
    assert names_of([Path("/a/x.csv"), Path("/b/y.csv")]) == ["x.csv", "y.csv"]
    same = [Path("/a/d=1/x.csv"), Path("/a/d=2/x.csv")]
    assert names_of(same) == ["d=1/x.csv", "d=2/x.csv"]
