"""What `tinprep amazon` says of raw files and folders that are not what they should be."""

from __future__ import annotations

import gzip
import json
import tarfile
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from schemas.manifest import NAME, load
from tests.amazon_made import shards
from tests.conftest import (
    amazon,
    finished,
    meta_file,
    refused,
    reviews_file,
    tinprep,
    write_lines,
    write_raw,
    zstd,
)
from tests.oracle import Review

META: list[tuple[str, str | None]] = [(f"B{n}", "Red") for n in range(9)]
GOOD: list[Review | None] = [
    Review(f"A{u}", f"B{(u + n) % 9}", 86_400 * n) for u in range(40) for n in range(5)
]
USAGE, INPUT = 2, 3


def test_truncated_gzip(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", GOOD, META)
    for path in (reviews_file(raw), meta_file(raw)):
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        refused(amazon(raw, tmp_path / "out"), INPUT, path, "cut short or damaged")
        assert not (tmp_path / "out" / NAME).exists()
        path.write_bytes(data)
    finished(amazon(raw, tmp_path / "out"))


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_an_archive_saved_as_a_gzip(tmp_path: Path, mode: str) -> None:
    raw = write_raw(tmp_path / "raw", GOOD, META)
    text = tmp_path / "reviews.json"
    text.write_bytes(gzip.decompress(reviews_file(raw).read_bytes()))
    with tarfile.open(reviews_file(raw), mode) as archive:  # type: ignore[call-overload]
        archive.add(text, text.name)
    for file, what, do in (
        (reviews_file(raw).read_bytes(), "a tar archive", "unpack it"),
        (b"<html>404</html>", "a web page", "again"),
        (pa.compress(text.read_bytes(), "lz4", asbytes=True), "an lz4 file", "unpack it"),
    ):
        reviews_file(raw).write_bytes(file)
        refused(amazon(raw, tmp_path / "out"), INPUT, reviews_file(raw), what, do)


def test_files_are_read_whatever_their_packing_and_name(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", GOOD, META)
    finished(amazon(raw, tmp_path / "usual"))
    texts = [gzip.decompress(path.read_bytes()) for path in (reviews_file(raw), meta_file(raw))]
    ways = (".json", bytes), (".json.gz", bytes), (".json.zst", zstd), (".json", gzip.compress)
    for at, (ending, packed) in enumerate(ways):
        odd, out = tmp_path / f"odd{at}", tmp_path / f"out{at}"
        odd.mkdir()
        (odd / f"reviews_Beauty_5{ending}").write_bytes(packed(texts[0]))
        other, packed = ways[at - 1]
        (odd / f"meta_Beauty{other}").write_bytes(packed(texts[1]))
        finished(amazon(odd, out))
        assert shards(out).equals(shards(tmp_path / "usual"))
    # What is published comes first; of others there must be one.
    (odd / "reviews_Beauty_5.json.zst").write_bytes(b"")
    refused(amazon(odd, tmp_path / "two"), INPUT, "more than once", "reviews_Beauty_5.json.zst")
    (odd / "reviews_Beauty_5.json.gz").write_bytes(texts[0])
    finished(amazon(odd, tmp_path / "two"))


@pytest.mark.parametrize(
    "there",
    [
        *("reviews_Beauty.json.gz", "reviews Beauty_5.json", "reviews_Beauty_5 (1).json.gz"),
        *("reviews_beauty_5.json.gz", "Beauty_5.json.gz", "reviews_Beauty_5.json.gz.part"),
        *("reviews_Beauty_5.zip", "reviews-Beauty-5-part1.json", "old/reviews_Beauty_5.json.gz"),
    ],
)
def test_files_with_nearly_the_name_are_told(tmp_path: Path, there: str) -> None:
    raw = write_raw(tmp_path / "raw", GOOD, META)
    (raw / there).parent.mkdir(exist_ok=True)
    reviews_file(raw).rename(raw / there)
    told = f"no such file, but there is {there}"
    refused(amazon(raw, tmp_path / "out"), INPUT, told, "give it the expected name")


# Forms of a meta line: strict JSON with what Python has no word for, the release of 2018, and a
# Python literal with the names that other languages and NumPy print.
FORMS = {
    "JSON": '{"asin": "%s", "title": null, "x": [NaN, true], "categories": [[], ["%s"]]}',
    "2018": '{"category": ["Beauty", "%s"], "tech1": null, "asin": "%s"}',
    "names": "{'asin': '%s', 'x': [null, nan, true], 'price': -inf, 'categories': [['A', '%s']]}",
}


@pytest.mark.parametrize("form", FORMS)
def test_meta_is_read_in_every_form(tmp_path: Path, form: str) -> None:
    several = [(item, f"Red {n % 3}") for n, (item, _) in enumerate(META)]
    raw = write_raw(tmp_path / "raw", GOOD, several)
    finished(amazon(raw, tmp_path / "usual"))
    pairs = (pair[::-1] if form == "2018" else pair for pair in several)
    write_lines(meta_file(raw), (FORMS[form] % pair for pair in pairs))
    finished(amazon(raw, tmp_path / "out", "--max-rejected", 0))
    assert shards(tmp_path / "out").equals(shards(tmp_path / "usual"))
    category = "vocabulary/category.parquet"
    made, usual = (pl.read_parquet(tmp_path / out / category) for out in ("out", "usual"))
    assert made.equals(usual)
    assert made.height == 3


def test_a_key_that_no_line_has_is_named(tmp_path: Path) -> None:
    raw, out = write_raw(tmp_path / "raw", GOOD, META), tmp_path / "out"
    lines = [json.dumps({"asin": item, "main_cat": "Red", "title": "x"}) for item, _ in META]
    write_lines(meta_file(raw), lines)
    keys = "9 reviewed items without any; the keys of the first line are asin, main_cat, title"
    refused(amazon(raw, out), INPUT, meta_file(raw), "categories", keys, "--no-meta")
    for none in ([], ["", ""]):
        write_lines(meta_file(raw), none)
        refused(amazon(raw, out), INPUT, meta_file(raw), "no items", "--no-meta")
    write_lines(reviews_file(raw), [json.dumps({"user_id": "A", "asin": "B", "timestamp": 1})] * 9)
    refused(amazon(raw, out, "--no-meta"), INPUT, f"{reviews_file(raw)}:1", "no reviewerID 9")
    assert not (out / NAME).exists()


def test_no_control_byte_reaches_a_terminal(tmp_path: Path) -> None:
    odd = "\x1b]0;owned\x07\x9b31m\u202e"
    reviews = [Review(f"{odd}{r.user}", f"{odd}{r.item}", r.time) for r in GOOD if r]
    meta = [(f"{odd}{item}", f"{category}{odd}") for item, category in META]
    raw, out = write_raw(tmp_path / f"raw{odd}", reviews, meta), tmp_path / f"out{odd}"
    with gzip.open(reviews_file(raw), "at") as file:
        file.write(f"{odd}\n")
    said = [amazon(raw, out, "--max-rejected", 0), amazon(raw, out, "--max-rejected", "1%")]
    said.append(tinprep("inspect", out))
    (out / "train" / odd).touch()
    said += [
        tinprep("verify", out),
        amazon(raw, out, "--bins", 3),
        amazon(raw / odd, tmp_path / "new"),
    ]
    (raw / f"reviews_Books_5 {odd}.json").touch()
    said.append(amazon(raw, tmp_path / "books", category="Books"))
    assert [ended.code for ended in said] == [INPUT, 0, 0, 4, USAGE, INPUT, INPUT]
    # The table at the end of a preparation breaks the name of its folder into lines.
    assert all("\\x1b]0;owned\\x07" in ended.closed_up for ended in [said[0], *said[2:]])
    assert not set("".join(ended.out + ended.err for ended in said)) & set("\x1b\x07\x9b\u202e")


@pytest.mark.parametrize(("limit", "fails"), [("1.9%", True), ("2%", False), ("0.02", False)])
def test_lines_that_are_not_json(tmp_path: Path, limit: str, fails: bool) -> None:
    lines = [*GOOD[:7], None, *GOOD[7:100], None, None, *GOOD[100:196], None]
    assert len(lines) == 200
    raw, out = write_raw(tmp_path / "raw", lines, META), tmp_path / "out"
    ended = amazon(raw, out, "--max-rejected", limit)
    if fails:
        refused(ended, INPUT, f"{reviews_file(raw)}:8", "not JSON", "--max-rejected")
        assert not (out / NAME).exists()
        return
    finished(ended)
    table = pl.read_parquet(out / "rejected" / "reviews.parquet")
    assert table["line"].to_list() == [8, 102, 103, 200]
    assert set(table["reason"]) == {"not JSON"}
    assert set(table["file"]) == {reviews_file(raw).name}
    assert load(out).rejected["not JSON"] == 4


def test_times_in_milliseconds(tmp_path: Path) -> None:
    late = [Review(r.user, r.item, 1_370_000_000_000 + r.time) for r in GOOD if r]
    raw = write_raw(tmp_path / "raw", late, META)
    refused(amazon(raw, tmp_path / "out"), INPUT, f"{reviews_file(raw)}:1", "like milliseconds")


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", GOOD, META)
    finished(amazon(raw, tmp_path / "plain"))
    for path in (reviews_file(raw), meta_file(raw)):
        path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + gzip.decompress(path.read_bytes())))
    finished(amazon(raw, tmp_path / "marked"))
    assert load(tmp_path / "marked").rejected == {}
    for name in ("train", "valid", "test"):
        plain, marked = (
            pl.read_parquet(tmp_path / out / name / "*.parquet") for out in ("plain", "marked")
        )
        assert marked.equals(plain)


@pytest.mark.parametrize(
    ("reviews", "split", "said"),
    [
        (1, "tin", "give reviews of users who have more"),
        (3, "tin", "--split din makes no valid, and wants 3"),
        (2, "din", "a user with 3 reviews or more"),
    ],
)
def test_nothing_to_train_on(tmp_path: Path, reviews: int, split: str, said: str) -> None:
    few = [
        Review(f"A{u}", f"B{(u + n) % 9}", 86_400 * n) for u in range(40) for n in range(reviews)
    ]
    raw, out = write_raw(tmp_path / "raw", few, META), tmp_path / "out"
    got = f"40 users with {reviews} at the most"
    refused(amazon(raw, out, "--split", split), INPUT, got, said, reviews_file(raw))
    assert not (out / NAME).exists()
    if split == "tin" and reviews == 3:
        finished(amazon(raw, out, "--split", "din"))


def test_nobody_leaves_an_item_to_draw(tmp_path: Path) -> None:
    every = [Review(f"A{u}", f"B{n}", 86_400 * n) for u in range(3) for n in range(5)]
    raw, out = write_raw(tmp_path / "raw", every, META), tmp_path / "out"
    refused(amazon(raw, out), INPUT, "nothing to train on", "touched every item")
    assert not (out / NAME).exists()


def test_a_history_that_is_too_long_to_be_stored_is_not_cut(tmp_path: Path) -> None:
    one = [Review("A", f"B{n % 9}", n) for n in range(32_769)]
    raw, out = write_raw(tmp_path / "raw", [*one, *GOOD], META), tmp_path / "out"
    refused(amazon(raw, out, "--parity"), INPUT, "at most 32,767 behaviours", "32,768", "--max-len")
    assert not (out / NAME).exists()


def test_what_is_strange_but_no_fault_is_noted(tmp_path: Path) -> None:
    raw, out = write_raw(tmp_path / "raw", GOOD, [("other", "Red")]), tmp_path / "out"
    finished(amazon(raw, out))
    assert load(out).notes[0] == "No category is known: each is the unknown one."


def test_nothing_refused_leaves_no_rejected_folder(tmp_path: Path) -> None:
    finished(amazon(write_raw(tmp_path / "raw", GOOD, META), tmp_path / "out"))
    assert not (tmp_path / "out" / "rejected").exists()


def test_bad_times_and_missing_fields_have_their_reasons(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", GOOD, META)
    with gzip.open(reviews_file(raw), "at") as file:
        file.write('{"reviewerID": "A1", "asin": "B1", "unixReviewTime": -5}\n')
        file.write('{"reviewerID": "A1", "asin": "B1"}\n{"reviewerID": "A1"}\n')
    refused(amazon(raw, tmp_path / "out"), INPUT, f"{reviews_file(raw)}:201")
    finished(amazon(raw, tmp_path / "out", "--max-rejected", "10%"))
    reasons = pl.read_parquet(tmp_path / "out" / "rejected" / "reviews.parquet")["reason"]
    assert reasons.to_list() == ["negative unixReviewTime", "no unixReviewTime", "no asin"]


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused(amazon(tmp_path / "absent", out), INPUT, tmp_path / "absent")
    raw = write_raw(tmp_path / "raw", GOOD, None)
    refused(amazon(raw, out), INPUT, meta_file(raw).name, "--no-meta")
    refused(amazon(raw, out, category="Books"), INPUT, "reviews_Books_5.json.gz")
    assert not out.exists()


def test_without_meta_there_is_no_step_that_reads_it(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", GOOD, META)
    for out, flags in ((tmp_path / "out", []), (tmp_path / "without", ["--no-meta"])):
        ended = amazon(raw, out, *flags)
        finished(ended)
        steps = [step.name for step in load(out).steps]
        assert ("read meta" in steps) == ("read meta" in ended.err) == (not flags)
        assert load(out).vocabulary["category"] == (2 if flags else 3)


def test_musical_instruments_without_meta(music: Path, tmp_path: Path) -> None:
    out, name = tmp_path / "out", "Musical_Instruments"
    refused(amazon(music, out, category=name), INPUT, meta_file(music, name).name)
    finished(amazon(music, out, "--no-meta", category=name))
    made = load(out)
    assert made.vocabulary == {"user": 1_429 + 2, "item": 900 + 2, "category": 2}
    assert made.targets == 2 * (10_261 - 1_429)
    counts = pl.read_parquet(out / "vocabulary" / "item.parquet")["count"]
    assert counts.sum() == 10_261
    for path in made.shard_paths(out, "test"):
        assert set(pl.read_parquet(path)["target_category"]) == {1}


def test_a_finished_folder_is_left_as_it_is_or_replaced_by_force(tmp_path: Path) -> None:
    raw, out = write_raw(tmp_path / "raw", GOOD, META), tmp_path / "out"
    finished(amazon(raw, out, "--bins", 4))
    before = {
        p: p.stat().st_mtime_ns for p in out.rglob("*.*") if p.suffix in (".json", ".parquet")
    }
    finished(amazon(raw, out, "--bins", 4))
    assert {p: p.stat().st_mtime_ns for p in before} == before
    refused(amazon(raw, out, "--bins", 5), USAGE, out, "--force")
    assert {p: p.stat().st_mtime_ns for p in before} == before
    finished(amazon(raw, out, "--bins", 5, "--force"))
    assert load(out).history.bins.count == 5


@pytest.mark.parametrize(
    "flags",
    [
        *(["--bins", 0], ["--max-len", 0], ["--layout", "wide"], ["--negatives", 0]),
        *(
            ["--max-rejected", "much"],
            ["--memory", "1"],
            ["--parity", "--negatives", 2],
            ["--parity", "--seed", 7],
            ["--mirror", "http://127.0.0.1:9/"],  # beside --raw
            ["--nope"],
        ),
    ],
)
def test_flags_out_of_range(tmp_path: Path, flags: list[object]) -> None:
    raw = write_raw(tmp_path / "raw", GOOD[:10], META)
    refused(amazon(raw, tmp_path / "out", *flags), USAGE, flags[0])
    assert not (tmp_path / "out").exists()
