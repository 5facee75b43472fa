"""What `tinprep alibaba` says of raw files that are not what they should be."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from schemas.manifest import NAME, load
from tests.alibaba_made import RawLog, alibaba, read_made, write_csv
from tests.alibaba_raw import FILES
from tests.conftest import finished, refused

DAY = 86_400
NIGHT = 1_494_000_000  # 2017-05-06 00:00 in Beijing
USAGE, INPUT = 2, 3
SAMPLE, ADS, PROFILES, LOG = FILES
# Columns of each file where a whole number must be.
NUMBERS = {SAMPLE: (0, 1, 2, 5), ADS: (0, 1, 2, 3, 4), PROFILES: (0, 1, 8), LOG: (0, 1, 3, 4)}
CLICK_TIMES = [NIGHT + n * DAY // 4 for n in range(32)]
GOOD = RawLog(
    impressions=[(u, t + u, u % 9, "430548_1007", u % 2) for u in range(40) for t in CLICK_TIMES],
    ads=[(a, a % 3, a, a, None if a == 4 else a, "9.5") for a in range(60)],
    profiles=[(u, 1, 2, 1, 3, None, 3, 0, None) for u in range(60)],
    behaviours=[(u, NIGHT + 97 * n + u, "pv", n % 3, n % 5) for u in range(40) for n in range(30)],
)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return GOOD.write(tmp_path / "raw")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines()


def add(path: Path, *lines: str) -> int:
    """Append lines; returns the 1-based number of the first."""
    with path.open("a") as file:
        file.writelines(f"{line}\n" for line in lines)
    return len(lines_of(path)) - len(lines) + 1


def test_good_files_leave_no_rejected_folder(raw: Path, out: Path) -> None:
    finished(alibaba(raw, out))
    assert not (out / "rejected").exists()
    assert not any(load(out).rejected.values())
    assert load(out).targets == len(GOOD.impressions)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_names_the_four(raw: Path, out: Path, name: str) -> None:
    (raw / name).unlink()
    refused(alibaba(raw, out), INPUT, *FILES)
    assert not (out / NAME).exists()


@pytest.mark.parametrize(
    "there",
    [
        *("RAW_SAMPLE.csv", "Raw Sample.CSV.gz", "raw_sample (1).csv", "raw_sample.csv.zip"),
        *("raw_sample_00.csv", "raw_samples.csv", "raw_sample.csv.aa", "archive/raw_sample.csv"),
        "raw_sample.csv/part-00000",
    ],
)
def test_files_with_nearly_the_name_are_told(raw: Path, out: Path, there: str) -> None:
    text = (raw / SAMPLE).read_bytes()
    (raw / SAMPLE).unlink()
    (raw / there).parent.mkdir(exist_ok=True)
    (raw / there).write_bytes(text)
    for folder in (raw, Path(f"file://{raw}")):
        told = f"no {SAMPLE}, but there is {there if there[0] != SAMPLE[0] else there[:13]}"
        refused(alibaba(folder, out), INPUT, told, "give it the expected name")


def test_a_file_that_is_there_twice(raw: Path, out: Path) -> None:
    (raw / f"{LOG}.gz").write_bytes(b"")
    refused(alibaba(raw, out), INPUT, raw, "more than once", f"{LOG}, {LOG}.gz")


def test_a_missing_folder(tmp_path: Path, out: Path) -> None:
    refused(alibaba(tmp_path / "absent", out), INPUT, tmp_path / "absent", *FILES)
    assert not (out / NAME).exists()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["shuffled", "another", "absent", "short", "empty"])
def test_a_header_that_is_not_the_files(raw: Path, out: Path, name: str, how: str) -> None:
    header, *lines = lines_of(raw / name)
    columns = header.split(",")
    bad = {
        "shuffled": [",".join([columns[1], columns[0], *columns[2:]]), *lines],
        "another": [header.replace(columns[1], "something"), *lines],
        "absent": lines,
        "short": [",".join(columns[:-1]), *lines],
        "empty": [],
    }[how]
    (raw / name).write_text("".join(f"{line}\n" for line in bad))
    want = "" if how == "empty" else f"{raw / name}:1"
    refused(alibaba(raw, out), INPUT, raw / name, want, columns[0])
    assert not (out / NAME).exists()


@pytest.mark.parametrize("name", FILES)
def test_a_row_with_too_few_columns(raw: Path, out: Path, name: str) -> None:
    short = lines_of(raw / name)[1].rpartition(",")[0]
    line = add(raw / name, short)
    refused(alibaba(raw, out, "--max-rejected", 0), INPUT, f"{raw / name}:{line}", "column")
    finished(alibaba(raw, out, "--max-rejected", "10%"))
    (reason,) = load(out).rejected
    assert "column" in reason
    assert load(out).rejected[reason] == 1


@pytest.mark.parametrize("name", FILES)
def test_what_is_no_number(raw: Path, out: Path, name: str) -> None:
    good = lines_of(raw / name)[1].split(",")
    added = [
        ",".join(bad if k == place else x for k, x in enumerate(good))
        for bad in ("x1", "1e3", "1_0", "-1", "4.5", "\u0661", "9" * 20)
        for place in NUMBERS[name]
        # The real log has behaviours before 1970, which are left out.
        if (name, place, bad) != (LOG, 1, "-1")
    ]
    first = add(raw / name, *added)
    refused(alibaba(raw, out, "--max-rejected", 0), INPUT, f"{raw / name}:{first}")
    finished(alibaba(raw, out, "--max-rejected", "50%"))
    made = load(out)
    assert sum(made.rejected.values()) == len(added)
    assert made.targets == len(GOOD.impressions)
    (table,) = (out / "rejected").iterdir()
    shown = pl.read_parquet(table)
    assert shown["line"].to_list() == list(range(first, first + len(added)))
    assert shown["file"].unique().to_list() == [name]
    assert shown["text"].to_list() == added


def test_files_that_another_program_has_saved_again(raw: Path, out: Path, tmp_path: Path) -> None:
    finished(alibaba(raw, tmp_path / "before"))
    for name, style in zip(FILES, ("always", "necessary", "non_numeric", "always"), strict=True):
        frame = pl.read_csv(raw / name, null_values="NULL")
        frame = frame.with_columns(pl.selectors.integer().cast(pl.Float64))
        frame.write_csv(raw / name, null_value="nan", quote_style=style)
    finished(alibaba(raw, out, "--max-rejected", 0))
    assert read_made(out) == read_made(tmp_path / "before")


def test_a_missing_value_where_none_may_be(raw: Path, out: Path) -> None:
    for name in (SAMPLE, LOG):
        good = lines_of(raw / name)[1].split(",")
        add(raw / name, *(",".join(["NULL", *good[1:]]), ",".join([good[0], "", *good[2:]])))
    finished(alibaba(raw, out, "--max-rejected", "10%"))
    assert sum(load(out).rejected.values()) == 4


@pytest.mark.parametrize("name", [SAMPLE, LOG])
def test_times_in_milliseconds(raw: Path, out: Path, name: str) -> None:
    lines = lines_of(raw / name)[1:]
    add(raw / name, lines[0].replace(str(NIGHT)[:4], str(NIGHT)[:4] + "000", 1))
    finished(alibaba(raw, out, "--max-rejected", "1%"))
    assert sum(load(out).rejected.values()) == 1
    assert "millisecond" in next(iter(load(out).rejected))
    every = [line.split(",") for line in lines]
    write_csv(raw / name, (",".join([x[0], x[1] + "000", *x[2:]]) for x in every))
    ended = alibaba(raw, out, "--force")
    refused(ended, INPUT, f"{raw / name}:2", "millisecond")
    assert not (out / NAME).exists()


def test_a_label_and_a_btag_that_are_none(raw: Path, out: Path) -> None:
    good = lines_of(raw / SAMPLE)[1].rpartition(",")[0]
    add(raw / SAMPLE, f"{good},2", f"{good},NULL", f"{good},")
    add(raw / LOG, f"1,{NIGHT},click,1,1", f"1,{NIGHT},,1,1", f"1,{NIGHT},PV,1,1")
    finished(alibaba(raw, out, "--max-rejected", "10%"))
    assert sum(load(out).rejected.values()) == 6
    assert load(out).targets == len(GOOD.impressions)


def test_rows_count_refused_lines_too(raw: Path, out: Path) -> None:
    lines = lines_of(raw / SAMPLE)[1:]
    write_csv(raw / SAMPLE, [lines[0], "nonsense", *lines[1:]])
    finished(alibaba(raw, out, "--max-rejected", "1%"))
    want = [0, *range(2, len(lines) + 1)]
    assert sorted(read_made(out)) == want


@pytest.mark.parametrize("name", [SAMPLE, ADS])
def test_no_impression_that_can_be_used(raw: Path, out: Path, name: str) -> None:
    write_csv(raw / name, [])
    refused(alibaba(raw, out), INPUT, raw / SAMPLE, "" if name == SAMPLE else "ad_feature")
    assert not (out / NAME).exists()


@pytest.mark.parametrize(
    ("log", "kept", "said"),
    [
        ([], 0, "None of the behaviours counts, so every history is empty."),
        ([f"{u},{NIGHT + 30 * DAY},pv,1,1" for u in range(40)], 40, "Warning: nothing stands"),
        (
            [f"{u},{NIGHT},pv,1,1" for u in range(9_000, 9_040)],
            0,
            "None of the behaviours counts, so every history is empty. 40 are of users without",
        ),
    ],
)
def test_no_behaviours_give_empty_histories_and_say_so(
    raw: Path, out: Path, log: list[str], kept: int, said: str
) -> None:
    write_csv(raw / LOG, log)
    finished(alibaba(raw, out))
    made = load(out)
    assert sum(note.startswith(said) for note in made.notes) == 1
    assert sum("history is empty" in note for note in made.notes) == 1
    assert made.counts["behaviours kept"] == kept
    assert made.history.bins.train_counts == [0] * made.history.bins.count
    rows = read_made(out).values()
    assert len(rows) == len(GOOD.impressions)
    assert not any(row["history_length"] or row["session_length"] for row in rows)


def test_no_prices_are_said(raw: Path, out: Path, tmp_path: Path) -> None:
    finished(alibaba(raw, tmp_path / "other"))
    assert not any("price" in note for note in load(tmp_path / "other").notes)
    unknown = ("NULL", "", "0", "-1")
    ads = [line.rpartition(",")[0] for line in lines_of(raw / ADS)[1:]]
    write_csv(raw / ADS, [f"{ad},{unknown[i % 4]}" for i, ad in enumerate(ads)])
    finished(alibaba(raw, out))
    assert sum("No price of a train row is known" in note for note in load(out).notes) == 1
    assert {row["price"] for row in read_made(out).values()} == {0.0}


def test_no_profiles_is_a_log_of_unknown_users(raw: Path, out: Path) -> None:
    write_csv(raw / PROFILES, [])
    finished(alibaba(raw, out))
    assert load(out).vocabulary["age_level"] == 2
    assert {row["age_level"] for row in read_made(out).values()} == {1}


def test_windows_line_ends_and_a_byte_order_mark(raw: Path, out: Path, tmp_path: Path) -> None:
    for name in FILES:
        text = (raw / name).read_text().replace("\n", "\r\n")
        (raw / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
    finished(alibaba(raw, out))
    finished(alibaba(GOOD.write(tmp_path / "plain"), tmp_path / "other"))
    assert read_made(out) == read_made(tmp_path / "other")


@pytest.mark.parametrize(
    "flags",
    [
        *(["--sessions", "5"], ["--sessions", "0x3"], ["--behaviors", "click"]),
        *(["--behaviors", ""], ["--behaviors-since", "yesterday"], ["--split-at", "noon"]),
        *(["--timezone", "Mars/Olympus"], ["--user-fraction", 0], ["--user-fraction", 1.5]),
        *(["--min-count", 0], ["--max-len", 0], ["--bins", 0], ["--layout", "wide"]),
    ],
    ids=str,
)
def test_flags_out_of_range(raw: Path, out: Path, flags: list[object]) -> None:
    refused(alibaba(raw, out, *flags), USAGE, flags[0])
    assert not out.exists()
