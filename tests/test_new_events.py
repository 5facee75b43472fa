"""New events behind those that a data set was made of: what is kept, and what comes of them."""

from __future__ import annotations

import copy
import gzip
import json
import os
from bisect import bisect
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.presets.described import source_of
from pipeline.verify import verify
from schemas.digests import differing
from schemas.manifest import Share, load
from tests.conftest import Ended, amazon, finished, refused, tinprep, write_raw
from tests.description_made import Log, Made, descriptions
from tests.description_oracle import (
    FIRST,
    Oracle,
    Row,
    files_of,
    made_rows,
    made_vocabulary,
    opened,
    ordered,
    other_rows,
)
from tests.oracle import Review


class Following(Oracle):
    """What the new rows must hold of a log of which the first part was prepared before.

    Args:
        description: of the whole log.
        folder: of its files.
        before: of the first part.
        asked: how many of the targets' table, the last ones, are targets and no behaviours; all
            others are then behaviours and no targets. 0: all new ones are both.
    """

    def __init__(self, description: Path, folder: Path, before: Oracle, asked: int = 0) -> None:
        self.fitted, self.asked = before, asked
        self.first = len(before.raw[before.name])
        super().__init__(description, folder)
        ids = dict(before.vocabulary["user"])
        new = {e["user"] for e in self.events[self.name].rows if e["row"] >= self.first}
        for user in ordered(new - ids.keys()):
            ids[user] = len(ids) + FIRST
        self.vocabulary = before.vocabulary | {"user": ids}
        self.edges = {name: of or [0] * (self.bins[name] - 1) for name, of in before.edges.items()}
        self.scales, self.pool = before.scales, before.pool
        for name in ("rows_of", "train"):  # they were told by another pool
            self.__dict__.pop(name, None)

    def _split(self, candidates: Any) -> Any:
        super()._split(candidates)
        by_order = self.of_target["split"]["by"] == "order"

        def new(event: Row) -> str | None:
            may = event["rank"] or self.asked or not by_order
            return "new" if event["row"] >= self.first and may else None

        return new

    def _behaviours(self, events: Iterable[Row]) -> list[Row]:
        """Those of some events of the targets' table that are behaviours."""
        return [e for e in events if e["row"] < len(self.raw[self.name]) - self.asked]

    def _may_be_target(self, event: Row, events: Sequence[Row]) -> bool:
        if not self.asked:
            return super()._may_be_target(event, events)
        before = self._behaviours(events[: event["rank"]])
        alone = {**event, "rank": len(before)}
        return not self._behaviours([event]) and super()._may_be_target(alone, before)

    def _before(self, event: Row, name: str) -> list[Row]:
        found = super()._before(event, name)
        own = self.told["histories"][name]["table"] == self.name
        return self._behaviours(found) if own else found

    def _repeats(self, name: str) -> None:
        events = self.events[name]
        every = events.rows
        if name != self.name:
            super()._repeats(name)
            return
        stay = []
        behaviours = self._behaviours(every)
        for some in (behaviours, [e for e in every if e not in behaviours]):
            events.rows = some
            super()._repeats(name)
            stay += events.rows
        events.rows, events.every = sorted(stay, key=lambda e: e["row"]), every

    def _lookup(self, key: str) -> dict[Any, Row]:
        """As `Oracle._lookup`: of the targets' table, behaviours alone say anything."""
        events = self.events[self.name]
        every, events.rows = events.rows, self._behaviours(events.rows)
        found = super()._lookup(key)
        events.rows = every
        return found

    def _core(self) -> None:
        if self.told.get("filters", {}).get("k_core", 0):
            events, held = self.events[self.name], self.fitted.events[self.name].rows
            values = {event[self._key] for event in held} | {None}
            events.rows = [event for event in events.rows if event[self._key] in values]


EXAMPLES = int(os.environ.get("TINPREP_EXAMPLES", "8"))
SOME = settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def prepare(description: Path, out: Path, *flags: object) -> Ended:
    """Prepare what a description says, and keep its events."""
    return tinprep(
        "prepare", description, "--out", out, "--max-rejected", "100%", "--keep-events", *flags
    )


def split(made: Made, late: set[int], asked: set[int]) -> list[Made]:
    """The first part of the logs, the new one, the targets that are asked for, and all.

    Of each log it is as good as the same events; but for the targets' none is asked for.
    """
    parts: list[dict[str, Log]] = [{}, {}, {}, {}]
    for name, log in made.logs.items():
        count, of = max(len(log.rows), 1), made.description["target"]["table"]
        these = {n % count for n in asked} if name == f"tables.{of}" else set()
        those = {n % count for n in late} - these
        old = [row for n, row in enumerate(log.rows) if n not in these | those]
        new, last = ([row for n, row in enumerate(log.rows) if n in s] for s in (those, these))
        for part, rows in zip(parts, (old, new, last, old + new + last), strict=True):
            few = {"rows": rows, "parts": min(log.parts, len(rows) or 1)}
            part[name] = log if name.startswith("lookups") else Log(**(vars(log) | few))
    return [Made(copy.deepcopy(made.description), logs) for logs in parts]


@SOME
@given(
    made=descriptions(),
    late=st.sets(st.integers(0, 60), min_size=1, max_size=12),
    asked=st.one_of(st.just(set()), st.sets(st.integers(0, 60), min_size=1, max_size=8)),
)
def test_new_rows_are_those_of_the_whole_log(
    made: Made, late: set[int], asked: set[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With the vocabularies, edges, scales and pool of the first part."""
    folder = tmp_path_factory.mktemp("made")
    parts = split(made, late, asked)
    second, third = parts[1:3]
    paths = [one.write(folder / n) for one, n in zip(parts, "abcd", strict=True)]
    before = Oracle(paths[0], folder / "a")
    if before.wrong:
        return
    finished(prepare(paths[0], folder / "out"))
    events = []
    for name, table in second.description["tables"].items():
        if not second.logs[f"tables.{name}"].rows and (asked or name != before.name):
            continue
        for file in files_of(table["files"], folder / "b"):
            events += ["--events", f"{name}={file}"]
    if asked:
        for file in files_of(third.description["tables"][before.name]["files"], folder / "c"):
            events += ["--targets", file]
    how = ("--max-rejected", "100%", *["--keep-events"] * (len(late) % 2))
    ended = tinprep("transform", folder / "out", *events, "--out", folder / "new", *how)
    few = len(third.logs[f"tables.{before.name}"].rows)
    wanted = Following(paths[3], folder / "d", before, few)
    if not wanted.rows_of:
        assert ended.code == 3, ended.err
        return
    finished(ended)
    assert not other_rows(wanted, made_rows(folder / "new"))[:9]
    assert verify(folder / "new").findings == ()
    for name in load(folder / "new").histories if len(late) % 2 else ():
        there = behaviours(folder / "new", name)
        known = load(folder / "out").vocabulary["user"]
        for user, count in behaviours(folder / "out", name).items():
            # Users whom the targets' table lacks have ids of their own in each data set.
            assert user >= known or there.get(user, 0) >= count, (name, user)


def behaviours(out: Path, history: str) -> dict[int, int]:
    """User's id -> how many behaviours a data set keeps, in the order of ids."""
    rows = pl.read_parquet(out / f"behaviours/{history}-*.parquet")
    return dict(rows.group_by("user").len().sort("user").rows())


def decoded(out: Path, split: str) -> pl.DataFrame:
    """The rows of a split by `row`, with raw values for ids; null where there are none."""
    made = load(out)
    words = {n: made_vocabulary(out, n) for n in made.vocabulary}
    of = {n: {one["id"]: one["value"] for one in rows} for n, rows in words.items()}
    rows = pl.read_parquet(out / split / "*.parquet")
    for name in rows.columns:
        field = next((f for f in of if name in (f, f"target_{f}") or name.endswith(f"_{f}")), None)
        if field is None:
            continue
        kind = pl.Int64 if isinstance(words[field][0]["value"], int) else pl.String
        value = pl.element() if isinstance(rows.schema[name], pl.List | pl.Array) else pl.col(name)
        value = value.replace_strict(of[field], default=None, return_dtype=kind)
        if value.meta.root_names() != [name]:
            value = pl.col(name).cast(pl.List(pl.Int32)).list.eval(value)
        rows = rows.with_columns(value.alias(name))
    return rows.sort("row", pl.col("label"), descending=[False, True], maintain_order=True)


def test_kuairand_by_its_last_day(kuairand: Path, tmp_path: Path) -> None:
    """Where train is the same, new rows are those that test has when all is prepared at once."""
    cut = 1_652_000_000
    text = source_of("alibaba-ads")[0].text
    by_day = 'split = { by = "day", timezone = "Asia/Shanghai" }'
    by_time = f'split = {{ by = "time", valid = {cut - 200_000}, test = {cut - 100_000} }}'
    assert text.count(by_day) == 1
    path = tmp_path / "kuairand.toml"
    path.write_text(text.replace(by_day, by_time).replace('from = "all"', 'from = "train"'))
    for name in ("old", "new", "all"):
        (tmp_path / name).mkdir()
        for file in ("ad_feature.csv", "user_profile.csv"):
            (tmp_path / name / file).symlink_to(kuairand / file)
    for file in ("raw_sample.csv", "behavior_log.csv"):
        log = pl.read_csv(kuairand / file)
        old, new = (log.filter((pl.col("time_stamp") < cut) == of) for of in (True, False))
        assert new.height > 1_000
        for name, some in (("old", old), ("new", new), ("all", pl.concat([old, new]))):
            some.write_csv(tmp_path / name / file)
    finished(tinprep("prepare", path, "--raw", tmp_path / "all", "--out", tmp_path / "whole"))
    finished(prepare(path, tmp_path / "out", "--raw", tmp_path / "old"))
    events = [f"impressions={tmp_path / 'new/raw_sample.csv'}"]
    events += [f"behaviours={tmp_path / 'new/behavior_log.csv'}"]
    given = [word for one in events for word in ("--events", one)]
    ended = tinprep("transform", tmp_path / "out", *given, "--out", tmp_path / "rows")
    finished(ended)
    assert verify(tmp_path / "rows").findings == ()
    found, wanted = decoded(tmp_path / "rows", "new"), decoded(tmp_path / "whole", "test")
    assert found.equals(wanted.filter(pl.col("target_time") >= cut))
    digests = [load(tmp_path / one).digests for one in ("rows", "out", "whole")]
    assert differing(digests[0], digests[1]) == ["vocabulary of user"]
    assert differing(digests[1], digests[2]) == ["vocabulary of user"]


def test_beauty_by_order_one_part_after_the_other(beauty: Path, tmp_path: Path) -> None:
    """Two parts that follow each other give the histories of the whole file."""
    with gzip.open(beauty / "reviews_Beauty_5.json.gz", "rt") as file:
        every = [(json.loads(line), line) for line in file]
    of_some = [(one, line) for one, line in every if crc32(one["reviewerID"].encode()) % 5 == 0]
    lines = [(one["unixReviewTime"], line) for one, line in of_some]
    times = sorted(time for time, _ in lines)
    first, second = times[len(times) * 8 // 10], times[len(times) * 9 // 10]
    parts = [
        [line for time, line in lines if low <= time < high]
        for low, high in ((0, first), (first, second), (second, 1 << 40))
    ]
    for name, some in (("a", parts[:1]), ("b", parts[1:2]), ("c", parts[2:]), ("all", parts)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "meta_Beauty.json.gz").symlink_to(beauty / "meta_Beauty.json.gz")
        with gzip.open(tmp_path / name / "reviews_Beauty_5.json.gz", "wt", 1) as file:
            file.writelines(line for part in some for line in part)
    preset = ["amazon-2014", "--set", "category=Beauty"]
    finished(tinprep("prepare", *preset, "--raw", tmp_path / "all", "--out", tmp_path / "whole"))
    out, reviews = tmp_path / "out", "reviews_Beauty_5.json.gz"
    finished(prepare(Path(preset[0]), out, *preset[1:], "--raw", tmp_path / "a"))
    one, two = tmp_path / "one", tmp_path / "two"
    given = ("--events", tmp_path / "b" / reviews)
    finished(tinprep("transform", out, *given, "--out", one, "--keep-events"))
    finished(tinprep("transform", one, "--events", tmp_path / "c" / reviews, "--out", two))
    assert [verify(made).findings for made in (one, two)] == [(), ()]
    found = pl.concat([decoded(made, "new") for made in (one, two)])
    splits = [decoded(tmp_path / "whole", split) for split in ("train", "valid", "test")]
    wanted = pl.concat(splits).sort("row").filter(pl.col("row") >= len(parts[0]))
    known = {row["value"] for row in made_vocabulary(out, "item")}
    items = pl.element().replace_strict({n: n for n in known}, default=None)
    wanted = wanted.with_columns(
        pl.col("history_item").list.eval(items),
        pl.col("target_item").replace_strict({n: n for n in known}, default=None),
    )
    columns = ["row", "user", "target_item", "target_time", "history_item", "history_time"]
    columns += ["history_length", "history_session", "history_position"]
    positives = pl.col("label") == 1
    assert found.filter(positives).height > 5_000
    assert found.filter(positives).select(columns).equals(wanted.filter(positives).select(columns))
    edges = load(out).history.bins.edges_s
    for row in found.head(2_000).iter_rows(named=True):
        passed = [
            row["target_time"] - time for time in row["history_time"][: row["history_length"]]
        ]
        bins = [1 + sum(edge < time for edge in edges) for time in passed]
        assert list(row["history_interval_bin"])[: len(bins)] == bins


LOG = [
    f"{u},{item},{10 * n}"
    for u, of in zip("abcf", ("xyzw", "yzwv", "zwvu", ("007", *"nop")), strict=True)
    for n, item in enumerate(of, 1)
]
EVENTS = ("--user", "user", "--item", "item", "--time", "time", "--unit", "s", "--split", "order")


def written(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(["user,item,time", *lines]) + "\n")
    return path


def test_late_and_repeated_events_and_new_users_are_counted(tmp_path: Path) -> None:
    log = written(tmp_path / "log.csv", LOG)
    how = ("--duplicates", "drop", "--negatives", 1)
    finished(prepare(log, tmp_path / "out", *EVENTS, *how))
    new = written(tmp_path / "new.csv", ["a,x,10", "a,new,15", "b,x,60", "d,x,1", "d,w,2"])
    finished(tinprep("transform", tmp_path / "out", "--events", new, "--out", tmp_path / "rows"))
    to = ("--out", tmp_path / "kept", "--keep-events")
    finished(tinprep("transform", tmp_path / "out", "--events", new, *to))
    assert list(behaviours(tmp_path / "kept", "history").values()) == [5, 5, 4, 4, 2]
    made = load(tmp_path / "rows")
    assert load(tmp_path / "kept").shards == made.shards
    assert made.counts["events older than a kept one of their user"] == 1  # but for the repeated
    assert made.counts["users without an earlier event"] == 1
    assert made.shares["repeated events, dropped"] == Share(1, 5)
    assert made.shares["new targets of unknown item"] == Share(1, 3)
    rows = decoded(tmp_path / "rows", "new").filter(pl.col("label") == 1)
    assert rows["row"].to_list() == [17, 18, 20]  # the log has 16, and d's first is no target
    before = [[item for item in of if item] for of in rows["history_item"].to_list()]
    assert before == [["x"], ["y", "z", "w"], ["x"]]  # train does not know v
    assert any("new.csv is row 16" in note for note in made.notes)


def test_targets_need_no_labels(tmp_path: Path) -> None:
    def of(name: str, lines: list[str], stars: str = ",stars") -> Path:
        told = [f"{line},{n % 3}" if stars else line for n, line in enumerate(lines)]
        (tmp_path / name).write_text("\n".join([f"user,item,time{stars}", *told]) + "\n")
        return tmp_path / name

    out, run, scores = tmp_path / "out", tmp_path / "run", tmp_path / "scores.parquet"
    log = [f"{user},{'xyzw'[n % 4]},{21_600 * n}" for user in "abc" for n in range(16)]
    how = (*EVENTS[:-1], "day", "--timezone", "UTC", "--label", "stars > 1")
    finished(prepare(of("log.csv", log), out, *how))
    finished(tinprep("train", out, "--run", run, "--steps", 1))
    new, targets = (
        of("new.csv", ["a,w,500000", "b,y,500001"]),
        ["a,x,500002", "b,y,500002", "c,u,9", "e,x,1"],
    )
    made = []
    for name, stars in (("told", ",stars"), ("none", "")):
        given = ("--events", new, "--targets", of(f"{name}.csv", targets, stars), "--keep-events")
        finished(tinprep("transform", out, *given, "--out", tmp_path / name))
        finished(tinprep("predict", run, tmp_path / name, "--out", scores))
        made.append((decoded(tmp_path / name, "new"), pl.read_parquet(scores)))
    (told, with_labels), (none, without) = made
    assert told["label"].to_list() == [0, 0, 1, 0]
    assert none.equals(told.with_columns(label=pl.lit(0, pl.Int8)))
    assert without.equals(with_labels.drop("label"))
    # What new events say of labels is kept, whatever targets lack.
    kept = [pl.read_parquet(tmp_path / name / "events/*.parquet") for name in ("told", "none")]
    assert kept[0].equals(kept[1])
    assert load(tmp_path / "told").target.labelled
    assert not load(tmp_path / "none").target.labelled
    verify(tmp_path / "none")
    refused(tinprep("evaluate", run, "--data", tmp_path / "none", "--split", "new"), 2, "no labels")
    typing = of("typing.csv", targets, ",star")
    refused(
        tinprep("transform", out, "--targets", typing, "--out", tmp_path / "no"), 2, "mean star"
    )


TWO = """
[tables.shown]
files = "shown.csv"
user = "user"
time = { column = "time", unit = "s" }
label = "time % 2 = 0"
fields = { item = "coalesce(item, 'none')" }
[tables.clicks]
files = "clicks.csv"
user = "user"
time = { column = "time", unit = "s" }
fields = { item = "item" }
[target]
table = "shown"
split = { by = "time", test = 350 }
[histories.history]
table = "clicks"
"""


def test_a_history_is_said_to_be_empty_only_where_it_is(tmp_path: Path) -> None:
    written(tmp_path / "clicks.csv", LOG)
    shown = written(tmp_path / "shown.csv", [f"{line}{n % 3}" for n, line in enumerate(LOG)])
    (tmp_path / "d.toml").write_text(TWO)
    finished(prepare(tmp_path / "d.toml", tmp_path / "out"))
    to = ("--out", tmp_path / "rows")
    finished(tinprep("transform", tmp_path / "out", "--events", f"shown={shown}", *to))
    assert decoded(tmp_path / "rows", "new")["history_length"].max() == 4
    notes = load(tmp_path / "rows").notes
    assert not [one for one in notes if "empty" in one]
    assert [one for one in notes if one.startswith("Warning: half of the shown or more repeat")]
    # SQL sees text where it was text, though all that is new there are digits.
    new = written(tmp_path / "new.csv", ["f,007,601"])
    finished(tinprep("transform", tmp_path / "out", "--events", f"shown={new}", *to, "--force"))
    assert decoded(tmp_path / "rows", "new")["target_item"].to_list() == ["007"]


def test_what_cannot_be_transformed_is_refused(tmp_path: Path) -> None:
    log, new = written(tmp_path / "log.csv", LOG), written(tmp_path / "new.csv", ["a,x,60"])
    plain, out, to = tmp_path / "plain", tmp_path / "out", ("--out", tmp_path / "rows")
    finished(tinprep("prepare", log, *EVENTS, "--out", plain))
    finished(prepare(log, out, *EVENTS))
    refused(tinprep("transform", plain, "--events", new, *to), 2, "--keep-events")
    refused(tinprep("transform", out, "--events", tmp_path / "no.csv", *to), 3, "no such file")
    refused(tinprep("transform", out, "--events", log, *to, "--out", out), 2, "of their own")
    refused(tinprep("transform", out, *to), 2, "--targets FILE")
    both = ("--events", new, "--targets", new)
    refused(tinprep("transform", out, *both, *to), 2, "leave --targets out")
    only = written(tmp_path / "only.csv", ["e,x,60"])
    refused(tinprep("transform", out, "--events", only, *to), 3, "None of the new events")
    later = written(tmp_path / "later.csv", ["a,x,1600000000000"])
    refused(tinprep("transform", out, "--events", later, *to), 2, "another unit", "are read alike")
    reviews = [Review(*line.split(",")[:2], 10 * n) for n, line in enumerate(LOG)]
    raw = write_raw(tmp_path / "raw", reviews, None)
    finished(amazon(raw, tmp_path / "beauty", "--keep-events", "--no-meta"))
    of_beauty = tinprep("transform", tmp_path / "beauty", "--events", new, *to)
    refused(of_beauty, 2, "--no-meta")
    damaged = next(out.glob("events/events-*.parquet"))
    other = pl.read_parquet(damaged).with_columns(pl.col("time") - 1)
    other.write_parquet(damaged)
    refused(tinprep("transform", out, "--events", new, *to), 4, damaged, "sha256")
    assert not (tmp_path / "rows").exists()
    assert "checksum" in {finding.what for finding in verify(out).findings}


def test_a_lookup_of_what_is_not_kept_is_refused(tmp_path: Path) -> None:
    log, new = written(tmp_path / "log.csv", LOG), written(tmp_path / "new.csv", ["a,x,60"])
    finished(prepare(log, tmp_path / "plain", *EVENTS))
    said = (
        (tmp_path / "plain/description.toml")
        .read_text()
        .replace('item = "item"', 'item = "item", kind = "item"')
    )
    made = tmp_path / "made.toml"
    lookup = '[lookups.item]\ntable = "events"\nkey = "item"\nrepeated = "first"\n'
    made.write_text(f'{said}\n{lookup}fields = {{ kind = "upper(item)" }}\n')
    finished(prepare(made, tmp_path / "out", "--raw", tmp_path / "plain"))
    ended = tinprep("transform", tmp_path / "out", "--events", new, "--out", tmp_path / "rows")
    refused(ended, 2, "not kept with events")


def halves(folder: Path, name: str, key: str) -> list[Path]:
    """A raw folder's events in three folders: the first four fifths of the time, and two later."""
    (file,) = folder.glob(f"{name}*")
    lines = opened(file).decode().splitlines(keepends=True)
    header = [] if ".json" in file.name else [lines.pop(0)]
    place = header[0].strip().split(",").index(key) if header else 0
    times = [int(line.split(",")[place] if header else json.loads(line)[key]) for line in lines]
    ends = [sorted(times)[len(times) * n // 10] for n in (8, 9)]
    found = []
    for n, part in enumerate(("old", "new", "last")):
        some = [line for line, time in zip(lines, times, strict=True) if n == bisect(ends, time)]
        path = folder.parent / part / file.name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress("".join([*header, *some]).encode()))
        found.append(path)
    return found


COMMANDS: dict[str, tuple[list[object], dict[str, str]]] = {
    "amazon": (
        [*("--negatives", 2, "--bins", 4, "--max-len", 7, "--split", "din", "--ties", "hash")],
        {"reviews_": "unixReviewTime"},
    ),
    "alibaba": (
        [*("--behaviors", "pv,cart", "--sessions", "3x4", "--min-count", 2, "--layout", "ragged")],
        {"raw_sample": "time_stamp", "behavior_log": "time_stamp"},
    ),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_what_the_commands_made_goes_on_as_what_their_presets_made(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags, tables = COMMANDS[name]
    raw = tmp_path / "raw"
    finished(tinprep("synthesize", name, "--out", raw, "--scale", "0.0002"))
    parts = {table: halves(raw, table, key) for table, key in tables.items()}
    for path in raw.iterdir():
        if not any(path.name.startswith(table) for table in tables):
            (tmp_path / "old" / path.name).symlink_to(path)
    own, preset = tmp_path / "own", tmp_path / "preset"
    monkeypatch.chdir(tmp_path)  # lookups are found from another folder, too
    finished(tinprep(name, "--raw", "old", "--out", "own", "--keep-events", *flags))
    monkeypatch.chdir(raw)
    finished(prepare(own / "description.toml", preset, "--raw", tmp_path / "old"))
    assert load(own).shards == load(preset).shards
    files = [next(iter(parts.values()))[1:], *[of[1:2] for of in [*parts.values()][1:]]]
    names = [*load(own).events]
    events = [f"{n}={path}" for n, of in zip(names, files, strict=True) for path in of]
    given = [word for one in events for word in ("--events", one)]
    asked = ["--targets", *given[3:4], *given[:2], *given[4:]]
    asked[1] = str(asked[1]).partition("=")[2]
    for how, to in ((given, "all"), (asked, "asked")):
        for of in (own, preset):
            to_folder = tmp_path / f"{of.name}-{to}"
            finished(tinprep("transform", of, *how, "--out", to_folder, "--keep-events"))
            assert verify(to_folder).findings == ()
        found, wanted = (load(tmp_path / f"{of}-{to}") for of in ("own", "preset"))
        assert found.rows["new"] > 20
        assert found.shards == wanted.shards
        assert differing(found.digests, load(own).digests) in ([], ["vocabulary of user"])
