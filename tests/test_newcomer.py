"""A stranger's log with another delimiter and a few broken lines: each refusal says the way on."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from pipeline.description.checks import spec_of
from pipeline.description.toml import Source
from schemas.manifest import load
from tests.conftest import finished, refused, tinprep

START_MS = 1_700_000_000_000
COLUMNS = ("--user", "member", "--item", "title_id", "--time", "ts", "--split", "order")


def line(n: int, ts: object = None, stars: object = None) -> str:
    when, given = ts or START_MS + n * 61_000, stars or n % 5 + 1
    return f"{when};{n % 40 + 1};{n * n % 97};{given};{'phone' if n % 3 else 'web'}"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with log.csv: of 2,400 lines one has no stars, one no time and one five of them."""
    monkeypatch.chdir(tmp_path)
    lines = [line(n) for n in range(2400)]
    lines[99] = lines[99].rpartition(";")[0]
    lines[499], lines[700] = line(499, "yesterday"), line(700, None, "five")
    Path("log.csv").write_text("ts;member;title_id;stars;device\n" + "\n".join(lines) + "\n")
    return tmp_path


def test_a_draft_takes_a_column_for_what_nearly_all_of_it_is(here: Path) -> None:
    drafted = tinprep("describe", "log.csv")
    finished(drafted)
    table = spec_of(Source("draft", drafted.out)).tables["log"]
    assert (table.user, table.time.column, table.time.unit) == ("member", "ts", "ms")
    slip = (
        "ts: 1 of 2,399 sampled values is no number, line 501: 'yesterday'; such lines are refused"
    )
    assert slip in drafted.out
    assert '# where = "try_cast(stars as double) >= 4"' in drafted.out
    assert "stars: 1 of 2,399 sampled values is no number, line 702: 'five'" in drafted.out
    # What it proposes can be done as it stands.
    Path("mine.toml").write_text(drafted.out.replace("# where =", "where ="))
    checked = tinprep("describe", "mine.toml", "--check")
    finished(checked)
    # The summary stands last, and then what to do next.
    assert checked.out.rindex("label 1") < checked.out.index("log read")
    assert checked.out.endswith("\nnext: tinprep prepare mine.toml\n")
    assert "rejected" not in checked.out
    made = tinprep("prepare", "mine.toml")
    finished(made)
    assert f"whatwasrefused│{Path('data/mine/rejected/log.parquet')}" in made.closed_up
    assert "targets of log with nothing in any history" in load(Path("data/mine")).shares
    assert made.out.endswith("\nnext: tinprep train data/mine\n")
    assert pl.read_parquet("data/mine/rejected/log.parquet")["line"].to_list() == [101, 501]


def test_a_draft_that_finds_no_times_says_which_value_is_none(here: Path) -> None:
    text = Path("log.csv").read_text().splitlines()
    days = [one.replace(one.partition(";")[0], f"{n % 27 + 1}/02/2024") for n, one in
            enumerate(text[1:])]  # fmt: skip
    Path("log.csv").write_text("\n".join([text[0], *days]))
    refused(
        tinprep("describe", "log.csv"),
        3,
        "ts: 2,399 of 2,399 sampled values are no number, line 2: '1/02/2024'",
        '--split order --delimiter ";"`',
    )


def test_the_columns_of_a_file_may_stand_between_other_delimiters(here: Path) -> None:
    refused(tinprep("prepare", "log.csv", *COLUMNS), 3, 'add --delimiter ";"')
    # One text among the times does not hide that they need a unit.
    refused(tinprep("prepare", "log.csv", *COLUMNS, "--delimiter", ";"), 2, "--time\n", "--unit ms")
    more = ("--delimiter", ";", "--unit", "ms")
    ended = tinprep("prepare", "log.csv", *COLUMNS, *more)
    finished(ended)
    assert 'csv = { delimiter = ";" }' in Path("data/log/description.toml").read_text()
    Path("tabs.log").write_text(Path("log.csv").read_text().replace(";", "\t"))
    tabs = tinprep("prepare", "tabs.log", *COLUMNS, *more[2:], "--delimiter", "\\t")
    finished(tabs)


@pytest.mark.parametrize(("key", "number", "dropped"), [("label", 7, "refused"),
                                                        ("where", 8, "left out")])  # fmt: skip
def test_sql_that_one_text_breaks_says_how_to_write_it(
    here: Path, key: str, number: int, dropped: str
) -> None:
    condition = f"{key} = \"stars >= 4 and device <> 'stars'\"\n"
    text = (
        '[tables.log]\nfiles = "log.csv"\ncsv = { delimiter = ";" }\nuser = "member"\n'
        'time = { column = "ts", unit = "ms" }\nfields = { item = "title_id" }\n'
        + ("" if key == "label" else 'order = "file"\n')
        + condition
        + '[target]\ntable = "log"\nsplit = { by = "order" }\n'
        + ("" if key == "label" else "negatives = { per_positive = 1 }\n")
        + '[histories.history]\ntable = "log"\n'
    )
    Path("mine.toml").write_text(text)
    way = "try_cast(stars as double) >= 4 and device <> 'stars'"
    broken = tinprep("prepare", "mine.toml")
    refused(
        broken,
        2,
        f"mine.toml:{number}",
        f"write {way}:",
        f"are {dropped};",
        "log.csv:702 has 'five'",
    )
    Path("mine.toml").write_text(text.replace("stars >= 4 and device <> 'stars'", way))
    checked = tinprep("describe", "mine.toml", "--check", "--max-rejected", "1%")
    finished(checked)
    # The command that it names is one.
    told = checked.out.splitlines()[-1]
    assert told == "next: tinprep prepare mine.toml --max-rejected 0.01"
    finished(tinprep(*told.split()[2:]))
    # Of a column of text nothing is proposed: no line would be left.
    Path("mine.toml").write_text(text.replace("stars >= 4", "device >= 4"))
    ended = tinprep("prepare", "mine.toml", "--out", "another")
    refused(ended, 2, "device is text")
    assert "try_cast" not in ended.said
