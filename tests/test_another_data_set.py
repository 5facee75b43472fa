"""A data set that nobody has a preset for: the flow asks its description alone.

Ratings with text for users and films, split by day, with negatives, a history strictly before the
target, of ratings or of views, a feature of the rating, and genres by a lookup: what no preset
combines. Each row is held to a brute force.
"""

from __future__ import annotations

import csv
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.config import Config
from pipeline.description import Description, History, Lookup, Negatives, Table
from pipeline.description.split import ByDay
from pipeline.flow import prepare
from pipeline.readers.lines import Block, Part, blocks
from pipeline.readers.parsed import Parsed, Refused, read
from pipeline.verify import verify
from schemas.manifest import SPLITS, Manifest
from trainer import Shards

DAY = 86_400
COLUMNS = {
    "user": pa.large_string(),
    "film": pa.large_string(),
    "device": pa.large_string(),
    "time": pa.int64(),
}


@dataclass(frozen=True)
class Lines:
    """Comma-separated text without a header; a line with another number of fields is refused."""

    columns: Mapping[str, pa.DataType]

    def blocks(self, part: Part) -> Generator[Block]:
        return blocks(part)

    def parse(self, file: str, block: Block) -> Parsed:
        refused, rows = Refused(file), []
        for number, line in enumerate(block.data.decode().splitlines(), block.first_line):
            fields = next(csv.reader([line]))
            if len(fields) == len(self.columns):
                rows.append([number, *fields])
            else:
                refused.add(number, "wrong number of columns", line.encode())
        schema = {"row": pl.Int64, **dict.fromkeys(self.columns, pl.String)}
        frame = pl.DataFrame(rows, schema, orient="row")
        numbers = [name for name, kind in self.columns.items() if pa.types.is_integer(kind)]
        return Parsed(frame.cast(dict.fromkeys(numbers, pl.Int64)), refused.frame(), block.lines)


VIEWS = Lines({name: kind for name, kind in COLUMNS.items() if name != "device"})
FILMS = Lines(dict.fromkeys(("film", "genre", "studio"), pa.large_string()))


@dataclass(frozen=True)
class FilmsConfig(Config):
    """Where they are, and whether histories are of views in place of ratings."""

    views: bool = False
    order: str = "file"

    @property
    def raw_folder(self) -> Path:
        assert self.raw is not None
        return self.raw

    def obtain(self) -> list[Path]:
        return [self.raw_folder / f"{name}.csv" for name in ("ratings", "films", "views")]

    def absent(self) -> tuple[str, list[Path] | None]:
        return "", self.obtain()

    def description(self, paths: list[Path]) -> Description:
        ratings = Table(
            "ratings",
            "ratings",
            (paths[0],),
            Lines(COLUMNS),
            ("film",),
            ("device",),
            order=self.order,
        )
        films = Lookup(
            "film",
            "films",
            paths[1],
            lambda path, wanted: read(FILMS, path),
            FILMS.columns,
            without="films without a line",
            lacks="films without a {}",
            repeated="line of a film that had one",
            fields=("genre",),
            features=("studio",),
        )
        views = Table("views", "views", (paths[2],), VIEWS, ("film",), order="fields")
        history = History("views" if self.views else "ratings", self.max_len, "before", 3_600)
        return Description(
            "films",
            (ratings, views) if self.views else (ratings,),
            (films,),
            ByDay("UTC"),
            {"history": history},
            self.layout,
            self.bins,
            Negatives("film", 2, 7),
            train={"group_field": "genre"},
            strict=False,
        )


Rating = tuple[int, int, int, int]
View = tuple[int, int, int]
RATINGS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 11), st.integers(0, 2), st.integers(0, 5 * 24)),
    min_size=1,
    max_size=40,
)


SEEN = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 13), st.integers(0, 5 * 24)))


def made(
    ratings: list[Rating], folder: Path, views: list[View] | None = None, order: str = "file"
) -> tuple[Path, Manifest]:
    raw = folder / "raw"
    raw.mkdir(parents=True)
    lines = [f"u{u},f{f},d{d},{hour * 3_600}" for u, f, d, hour in ratings]
    (raw / "ratings.csv").write_text("\n".join(lines) + "\n")
    (raw / "films.csv").write_text("".join(f"f{f},g{f % 3},s{f % 5}\n" for f in range(0, 12, 2)))
    lines = [f"u{u},f{f},{hour * 3_600}\n" for u, f, hour in views or ()]
    (raw / "views.csv").write_text("".join(lines))
    out, of_views = folder / "out", views is not None
    shape = {"max_len": 3, "bins": 2, "buckets": 2, "layout": "ragged"}
    config = FilmsConfig(out, raw, views=of_views, order=order, **shape)  # type: ignore[arg-type]
    return out, prepare(config)


def words(out: Path, name: str) -> dict[int, str]:
    frame = pl.read_parquet(out / "vocabulary" / f"{name}.parquet")
    return {1: "?", **dict(frame.select("id", "value").rows())}


@given(ratings=RATINGS, views=st.none() | SEEN, order=st.sampled_from(["file", "fields"]))
@example(ratings=[(0, 10, 0, 0), (0, 11, 0, 0)], views=None, order="file")
def test_every_row_is_what_a_brute_force_says(
    ratings: list[Rating],
    views: list[View] | None,
    order: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    # A user of his own makes sure of train, and of a film that the others leave.
    ratings = [*ratings, (9, 11, 0, 0), (8, 10, 1, 5 * 24)]
    out, told = made(ratings, tmp_path_factory.mktemp("films"), views, order)
    film, genre, user, device = (words(out, n) for n in ("film", "genre", "user", "device"))
    studio = words(out, "studio")
    rated: dict[str, set[str]] = {}
    for u, f, _, _ in ratings:
        rated.setdefault(f"u{u}", set()).add(f"f{f}")
    last = max(hour // 24 for *_, hour in ratings)
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for split in SPLITS:
        for path in told.shard_paths(out, split):
            for row in pl.read_parquet(path).to_dicts():
                found.setdefault((split, row["row"]), []).append(row)
    users = {u for u, *_ in ratings}
    # Ratings stand in the order of their lines, or as views do in that of their films.
    rank = {name: k if order == "fields" else 0 for k, name in film.items()}
    behaviours = [(u, hour, (rank[f"f{f}"], n), f) for n, (u, f, _, hour) in enumerate(ratings)]
    if views is not None:
        lost = sum(u not in users for u, *_ in views)
        assert told.counts["views of users without ratings"] == lost
        rank = {name: k for k, name in film.items()}
        behaviours = [(u, hour, (rank[f"f{f}"], 0), f) for u, f, hour in views]
    every = {f"f{f}" for _, f, _, _ in ratings} | {f"f{f}" for _, f, _ in views or ()}
    given = [n for n, (u, *_) in enumerate(ratings) if rated[f"u{u}"] != every]
    assert sorted(row for _, row in found) == given  # others leave no negative to draw
    assert told.rejected.get("touched every film", 0) == len(ratings) - len(given)
    for n in given:
        u, f, d, hour = ratings[n]
        day = hour // 24
        split = "test" if day == last else "valid" if day == last - 1 else "train"
        positive, *others = found[split, n]
        before = sorted(b[1:] for b in behaviours if b[0] == u and b[1] < hour)[-3:]
        for row in (positive, *others):
            assert (user[row["user"]], device[row["device"]]) == (f"u{u}", f"d{d}")
            assert row["target_time"] == hour * 3_600
            assert [film[i] for i in row["history_film"]] == [f"f{o}" for _, _, o in before]
            assert row["history_time"] == [h * 3_600 for h, _, _ in before]
        assert [row["label"] for row in (positive, *others)] == [1, 0, 0]
        assert film[positive["target_film"]] == f"f{f}"
        for row in (positive, *others):
            name = film[row["target_film"]]
            number = int(name[1:])
            known = number in range(0, 12, 2)
            assert genre[row["target_genre"]] == (f"g{number % 3}" if known else "?")
            assert studio[row["studio"]] == (f"s{number % 5}" if known else "?")
        assert all(film[row["target_film"]] not in rated[f"u{u}"] for row in others)
    assert verify(out).findings == ()


def test_it_can_be_trained_on(tmp_path: Path) -> None:
    ratings = [(u, (u + n) % 12, n % 3, 24 * n) for u in range(6) for n in range(5)]
    out, told = made(ratings, tmp_path)
    assert (told.target.split["by"], told.target.negatives) is not None
    shards = Shards(out)
    assert (shards.facts.key, shards.facts.group_field) == ("film", "genre")
    batch = next(shards.batches("train", batch_size=8))
    assert len(batch["label"]) == 8


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: {"lookups": (replace(d.lookups[0], key="actor"),)}, "column of no table"),
        (lambda d: {"lookups": (*d.lookups, replace(d.lookups[0], key="user"))}, "one column"),
    ],
)
def test_what_no_step_could_make_is_refused(change: Any, said: str, tmp_path: Path) -> None:
    d = FilmsConfig(tmp_path / "out", tmp_path).description([tmp_path] * 3)
    with pytest.raises(ValueError, match=said):
        replace(d, **change(d))
