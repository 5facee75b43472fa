"""What is in the raw files that one should know of is counted, told, and dropped on wish."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.manifest import Share, load
from tests.alibaba_made import RawLog, alibaba, read_made, write_csv
from tests.amazon_made import read_shards
from tests.conftest import Ended, amazon, finished, refused, tinprep, write_raw
from tests.oracle import Review
from trainer.training.schedule import Schedule

DAY = 86_400
NIGHT = 1_494_000_000  # 2017-05-06 00:00 in Beijing
# Six users with five reviews each on different days, of some of twelve items.
REVIEWS: list[Review | None] = [
    Review(f"U{user}", f"I{(user + 2 * n) % 12:02}", (10 * n + user) * DAY)
    for user in range(6)
    for n in range(5)
]
META: list[tuple[str, str | None]] = [(f"I{k:02}", f"C{k % 3}") for k in range(12)]
FIELDS = "category", "brand"  # the ads' are 0 to 3, the behaviours' are 7
LOG = RawLog(
    [(u, NIGHT + day * DAY + u, u, "p", u % 2) for u in range(4) for day in range(4)],
    [(ad, ad, ad, ad, ad, "9.5") for ad in range(4)],
    [(u, *range(8)) for u in range(4)],
    [(u, NIGHT - 60 * n, "pv", 7, 7) for u in range(4) for n in range(3)],
)


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal in which no line of a table is folded."""
    monkeypatch.setenv("COLUMNS", "250")


def told(out: Path, ended: Ended, *said: str) -> None:
    """Assert that a command, and `inspect` later, say all this; and that `verify` agrees."""
    finished(ended)
    for one in (ended, tinprep("inspect", out, "--rows", 0)):
        for text in said:
            assert text in " ".join(one.said.replace("│", " ").split()), (text, one.out)
    finished(tinprep("verify", out))


def test_reviews_that_stand_twice(tmp_path: Path) -> None:
    out, twice = tmp_path / "out", tmp_path / "twice"
    # The same again, but not where the first is, and some of it only in another second.
    raw = write_raw(tmp_path / "raw", [*REVIEWS, *REVIEWS, Review("U0", "I00", 1)], META)
    ended = amazon(raw, twice)
    told(
        twice,
        ended,
        "repeated reviews 30 of 61 (49.2%)",
        "test positives in own history 6 of 6 (100.0%)",
    )
    assert "warning: many more targets of one label" in ended.said
    assert "Records stand twice in the raw file: --duplicates drop" in ended.said
    assert "only_new" not in ended.said  # which this command cannot say
    ended = amazon(raw, out, "--duplicates", "drop")
    told(out, ended, "repeated reviews, dropped 30 of 61 (49.2%)")
    assert "Warning" not in ended.said
    # What is left is what a file without the repeats gives.
    plain = write_raw(tmp_path / "plain", [*REVIEWS, *[None] * 30, Review("U0", "I00", 1)], META)
    finished(amazon(plain, tmp_path / "once", "--max-rejected", "50%"))
    assert read_shards(out) == read_shards(tmp_path / "once")


def test_drop_is_not_what_the_released_code_does(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", REVIEWS, META)
    refused(amazon(raw, tmp_path / "out", "--parity", "--duplicates", "drop"), 2, "--parity")
    refused(amazon(raw, tmp_path / "out", "--duplicates", "some"), 2, "keep or drop")


def test_impressions_that_stand_twice_or_contradict_each_other(tmp_path: Path) -> None:
    other = [(*one[:4], 1 - one[4]) for one in LOG.impressions[::4]]
    slot = [(*LOG.impressions[0][:3], "another", 1)]
    shown = [*LOG.impressions, *LOG.impressions[:3], *other, *slot]
    raw = RawLog(shown, LOG.ads, LOG.profiles, [*LOG.behaviours, LOG.behaviours[0]])
    raw.write(tmp_path / "raw")
    lines = ["both clicked and not 4 of 17 (23.5%)", "repeated behaviours 1 of 13 (7.7%)"]
    lines += [f"no {name} of the behaviours is one that a target may" for name in FIELDS]
    kept, out = tmp_path / "kept", tmp_path / "out"
    told(kept, alibaba(tmp_path / "raw", kept), "repeated impressions 7 of 24 (29.2%)", *lines)
    ended = alibaba(tmp_path / "raw", out, "--duplicates", "drop")
    told(out, ended, "repeated impressions, dropped 7 of 24 (29.2%)", lines[0])
    assert load(out).shares["repeated behaviours, dropped"] == Share(1, 13)
    rows = read_made(out)
    # Of the contradicting ones the click stays, be it the first line or not.
    assert len(rows) == 17
    by_line = {row: shown[row][4] for row in rows}
    assert by_line == {row: made["label"] for row, made in rows.items()}
    assert {row for row in rows if row >= len(LOG.impressions)} == {19, 21, 23}
    assert all(made["label"] for row, made in rows.items() if row % 4 == 0 and row < 16)


def test_nonclk_that_contradicts_clk(tmp_path: Path) -> None:
    raw, out = LOG.write(tmp_path / "raw"), tmp_path / "out"
    fields = [[*map(str, one[:4]), str(1 - one[4]), str(one[4])] for one in LOG.impressions]
    fields[3][4], fields[4][4], fields[5][4] = "NULL", "", fields[5][5]
    write_csv(raw / "raw_sample.csv", map(",".join, fields))
    refused(alibaba(raw, out), 3, "nonclk is not 1 - clk", "raw_sample.csv:7")
    assert not (out / "manifest.json").exists()
    told(out, alibaba(raw, out, "--max-rejected", "10%"), "refused: nonclk is not 1 - clk 1")
    assert sorted(read_made(out)) == [row for row in range(16) if row != 5]


def test_a_log_of_real_kind_gives_no_alarm(tmp_path: Path) -> None:
    """That people click more often on what they looked at before is what a model is for."""
    shown = [
        (u, NIGHT + d * DAY + 60 * u, (u + d) % 4, "p", (u + d) % 2)
        for u in range(40)
        for d in range(8)
    ]
    seen = [
        (u, t - 30, "pv", ad, ad) for u, t, ad, _, click in shown if u % (3 if click else 9) == 0
    ]
    raw = RawLog(shown, LOG.ads, LOG.profiles, seen).write(tmp_path / "raw")
    ended = alibaba(raw, tmp_path / "out")
    finished(ended)
    assert "test positives in own history" in ended.said
    assert "Warning" not in ended.said


# An impression's ad, profile and behaviours, each missing for some.
HOLED = RawLog(
    [(u, NIGHT + d * DAY + u, (u + d) % 5, "p", u % 2) for u in range(8) for d in range(5)],
    [
        (0, 1, 1, 1, 1, "0"),
        (1, None, 1, 1, 1, "-2.5"),
        (2, 1, 1, 1, None, None),
        (3, *[4] * 4, "4"),
    ],
    [(u, *range(8)) for u in range(6)],
    [(u, NIGHT - 5, "pv", 1, 1) for u in range(10)],
)
LOSSES = {
    "impressions of ads not in ad_feature": Share(8, 40),
    "ads without a category": Share(1, 4),
    "ads without a brand": Share(1, 4),
    "impressions of users without a profile": Share(8, 32),
    "behaviours of users without impressions": Share(2, 10),
}


def test_what_a_join_of_impressions_lacks(tmp_path: Path) -> None:
    raw, out = HOLED.write(tmp_path / "raw"), tmp_path / "out"
    flags = ("--max-rejected", "50%", "--max-missing", "25%")
    others = ["ads with a price of 0 or less 2 of 4", "ads without a price 1 of 4"]
    told(out, alibaba(raw, out, *flags), *(f"{name} {s}" for name, s in LOSSES.items()), *others)
    assert load(out).shares.items() >= LOSSES.items()


@pytest.mark.parametrize("name", LOSSES)
def test_too_large_a_loss_of_impressions_is_an_error(tmp_path: Path, name: str) -> None:
    log = RawLog(*(list(rows) for rows in vars(HOLED).values()))
    if "not in ad_feature" not in name:
        log.ads.append((4, 1, 1, 1, 1, "4"))
    if "a category" not in name:
        log.ads[1] = (1, 1, 1, 1, 1, "2")
    if "a brand" not in name:
        log.ads[2] = (2, 1, 1, 1, 1, "3")
    if "profile" not in name:
        log.profiles += [(6, *range(8)), (7, *range(8))]
    if "without impressions" not in name:
        log.behaviours[8:] = []
    raw, out = log.write(tmp_path / "raw"), tmp_path / "out"
    flags = ("--max-rejected", "0", "--max-missing", "9.9%")  # a lost ad is a join's first
    refused(alibaba(raw, out, *flags), 3, f"missing: {name}", "9.900%", "--max-missing")
    assert not (out / "manifest.json").exists()
    finished(alibaba(raw, out, "--max-rejected", "50%", "--max-missing", "0.30"))


def test_what_the_meta_file_lacks(tmp_path: Path) -> None:
    meta = [(item, None if item == "I03" else category) for item, category in META[:9]]
    raw, out = write_raw(tmp_path / "raw", REVIEWS, meta), tmp_path / "out"
    lines = "items without a meta line 3 of 12", "items whose meta line has no category 1 of 12"
    told(out, amazon(raw, out), *lines)
    out = tmp_path / "few"
    refused(amazon(raw, out, "--max-missing", "24%"), 3, lines[0][:25], "24.000%", "meta_Beauty")
    assert not (out / "manifest.json").exists()
    finished(amazon(raw, out, "--max-missing", "25%"))
    refused(amazon(raw, tmp_path / "odd", "--max-missing", "nan"), 2, "--max-missing")
    finished(amazon(raw, tmp_path / "without", "--no-meta", "--max-missing", "0"))


@pytest.mark.parametrize(
    ("days", "flags", "said"),
    [
        (1, (), "--split-at 1494000025"),
        (2, (), f"--split-at {NIGHT + DAY} (of prepare"),
        (4, ("--split-at", NIGHT), f"give a time from {NIGHT + 1}"),
    ],
)
def test_a_log_with_nothing_to_train_on(
    tmp_path: Path, days: int, flags: tuple[object, ...], said: str
) -> None:
    shown = [(u, NIGHT + d * DAY + 10 * u, u, "p", u % 2) for u in range(4) for d in range(days)]
    raw, out = tmp_path / "raw", tmp_path / "out"
    RawLog(shown, LOG.ads, LOG.profiles, LOG.behaviours).write(raw)
    got = f"impressions of {days} day{'s' * (days > 1)}"
    refused(alibaba(raw, out, *flags), 3, "nothing to train on", got, said, raw / "raw_sample.csv")
    assert not (out / "manifest.json").exists()
    if not flags:  # what is advised works
        at = said.split()[1]
        finished(alibaba(raw, out, "--split-at", at))
        assert load(out).rows["train"]
        assert load(out).rows["test"]


def test_few_steps_are_told_once_with_what_would_suit(tmp_path: Path) -> None:
    out = tmp_path / "out"
    shown = [
        (u, NIGHT + d * DAY + u, u % 4, "p", click)
        for u in range(800)
        for d in range(4)
        for click in range(2)
    ]
    RawLog(shown, LOG.ads, LOG.profiles, LOG.behaviours).write(tmp_path / "raw")
    finished(alibaba(tmp_path / "raw", out, "--sessions", "none", "--max-len", 2))
    how = ("--model", "avg_concat", "--dim", 2, "--run")
    ended = tinprep("train", out, *how, tmp_path / "few")
    finished(ended)
    assert ended.err.count("1 optimizer steps, too few to learn much") == 1
    assert "for 3,200 rows --batch-size 32 --epochs 4 would suit" in ended.err
    ended = tinprep("train", out, *how, tmp_path / "asked", "--steps", 2)
    finished(ended)
    assert "optimizer steps" not in ended.err


@given(st.integers(1, 10**7), st.integers(1, 1 << 14), st.integers(1, 9))
def test_what_is_advised_makes_steps_enough(rows: int, batch: int, epochs: int) -> None:
    asked: dict[str, Any] = {"steps": None, "evaluations": None, "evaluate_every": None}
    plan = Schedule.of({**asked, "batch_size": batch, "epochs": epochs}, rows, has_valid=True)
    advice = plan.advice(rows)
    assert (advice is None) == (plan.steps >= 200)
    if advice and (named := re.search("--batch-size ([0-9]+) --epochs ([0-9]+)", advice)):
        asked |= {"batch_size": int(named[1]), "epochs": int(named[2])}
        assert Schedule.of(asked, rows, has_valid=True).steps >= 200


NOWHERE = """
[tables.shown]
files = "shown[1].csv"
user = "uid"
time = { column = "at", unit = "s" }
label = "clicked"
fields = { ad = "ad" }
[tables.clicks]
files = "clicks.csv"
user = "uid"
time = { column = "at", unit = "s" }
fields = { category = "category", brand = "brand" }
[lookups.ad]
files = "ads.csv"
key = "ad"
fields = { category = "category", brand = "brand" }
[lookups.user]
files = "users.csv"
key = "uid"
features = { age = "age" }
[target]
table = "shown"
split = { by = "day", timezone = "UTC" }
[histories.history]
table = "clicks"
"""


def test_what_is_nowhere_to_be_found_is_told(tmp_path: Path) -> None:
    """An ad's brand, in clicks; users, as another file spells them; what test is of; its clicks."""
    users, days = range(4), range(4)
    files = {
        "shown1": ["what `shown[1].csv` as a pattern would find"],
        "shown[1]": ["uid,at,ad,clicked"]
        + [
            f"{u},{DAY * d + u},{9 if d == 3 else u},{u % 2 * (d < 3)}" for u in users for d in days
        ],
        "clicks": ["uid,at,category,brand", *(f"{u},{u},c{u}," for u in users)],
        "ads": ["ad,category,brand", *(f"{ad},C{ad},b{ad}" for ad in (*users, 9))],
        "users": ["uid,age", *(f"{u + 100},{u}" for u in users)],
    }
    for name, lines in files.items():
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "ads.toml").write_text(NOWHERE)
    ended = tinprep("prepare", tmp_path / "ads.toml", "--out", tmp_path / "out[1]")
    finished(ended)
    for what in (
        "user values that are not in lookups.user: all 4, so what is looked up by user is unknown",
        "clicks without a brand: all 4.",
        "no category of the clicks is one that a target may have",
        "all 4 of test are 0, so no AUC exists on them",
        "train knows none: test targets of unknown ad, 4",
    ):
        assert what in ended.said
    assert "no brand of the clicks" not in ended.said
