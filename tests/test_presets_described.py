"""Presets of the language on made-up files in exactly the form of the published ones."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.presets.described import presets
from schemas.manifest import Manifest, load
from tests.conftest import SHARED, finished, tinprep

GENRES = ("Action", "Children's", "Comedy", "Film-Noir", "Sci-Fi")
DAY = 86_400


def ratings(
    draw: random.Random, users: int = 12, films: int = 30
) -> list[tuple[int, int, int, int]]:
    """(user, film, stars, second) in no order, a user and film once."""
    found = [
        (u, f, draw.choice((1, 3, 4, 4, 5, 5)), 978_300_000 + draw.randrange(400 * DAY))
        for u in range(1, users + 1)
        for f in draw.sample(range(1, films + 1), 14)
    ]
    draw.shuffle(found)
    return found


def movielens_latest(raw: Path, draw: random.Random) -> None:
    lines = [f"{u},{f},{s}.0,{t}" for u, f, s, t in ratings(draw)]
    (raw / "ratings.csv").write_text(
        "userId,movieId,rating,timestamp\r\n" + "\r\n".join(lines) + "\r\n"
    )
    films = [
        f'{f},"Film, The ({1950 + f})",{"|".join(of) if f % 7 else "(no genres listed)"}'
        for f, of in ((f, draw.sample(GENRES, 2)) for f in range(1, 31))
    ]
    (raw / "movies.csv").write_text("movieId,title,genres\r\n" + "\r\n".join(films) + "\r\n")


def movielens_1m(raw: Path, draw: random.Random) -> None:
    lines = [f"{u}::{f}::{s}::{t}" for u, f, s, t in ratings(draw)]
    (raw / "ratings.dat").write_text("\n".join(lines) + "\n")
    films = [
        f"{f}::Misérables: No. {f}, Les ({1950 + f})::{'|'.join(draw.sample(GENRES, 2))}"
        for f in range(1, 31)
    ]
    (raw / "movies.dat").write_text("\n".join(films) + "\n", encoding="latin-1")
    people = [f"{u}::{'FM'[u % 2]}::{(1, 18, 25)[u % 3]}::{u % 21}::0{u}067" for u in range(1, 13)]
    (raw / "users.dat").write_text("\n".join(people) + "\n")


def movielens_100k(raw: Path, draw: random.Random) -> None:
    lines = [f"{u}\t{f}\t{s}\t{t}" for u, f, s, t in ratings(draw)]
    (raw / "u.data").write_text("\n".join(lines) + "\n")
    films = []
    for f in range(1, 31):
        flags = ["0"] * 19
        for one in draw.sample(range(1, 19), 2):
            flags[one] = "1"
        films.append(
            f"{f}|Postière {f} (1995)|01-Jan-1995||http://us.imdb.com/M/{f}|{'|'.join(flags)}"
        )
    (raw / "u.item").write_text("\n".join(films) + "\n", encoding="latin-1")
    people = [
        f"{u}|{20 + u}|{'FM'[u % 2]}|{('writer', 'other')[u % 2]}|8571{u % 9}" for u in range(1, 13)
    ]
    (raw / "u.user").write_text("\n".join(people) + "\n")


def taobao_userbehavior(raw: Path, draw: random.Random) -> None:
    lines = []
    for u in range(100, 115):
        for _ in range(60):
            item, kind = draw.randrange(40), draw.choice(("pv", "pv", "pv", "cart", "fav", "buy"))
            second = 1_511_539_200 + draw.randrange(-DAY, 9 * DAY)
            lines.append(f"{u},{item + 5000},{item % 6 + 90},{kind},{second}")
    (raw / "UserBehavior.csv").write_text("\n".join(lines) + "\n")


def amazon_2018(raw: Path, draw: random.Random) -> None:
    reviews = [
        {
            "overall": float(s),
            "vote": "3",
            "verified": True,
            "reviewTime": "09 1, 2016",
            "reviewerID": f"A{u}",
            "asin": f"B{f:09}",
            "style": {"Size:": " 7.0 oz"},
            "reviewText": 'It\'s "good"\nhere',
            "unixReviewTime": t - t % DAY,
        }
        for u, f, s, t in ratings(draw)
    ]
    reviews += reviews[:5]
    write_gz(raw / "Electronics_5.json.gz", reviews)
    items = [
        {
            "category": ["Electronics", f"Kind {f % 4}"] if f % 9 else [],
            "tech1": "",
            "description": ["x"],
            "title": f"Item {f}",
            "also_buy": [f"B{1:09}"],
            "brand": f"Brand {f % 3}",
            "asin": f"B{f:09}",
            "details": {"Weight:": "1"},
        }
        for f in [*range(1, 31), 4]
    ]
    write_gz(raw / "meta_Electronics.json.gz", items)


def amazon_2023(raw: Path, draw: random.Random) -> None:
    start, end = 1_500_000_000_000, 1_690_000_000_000
    lines = ["user_id,parent_asin,rating,timestamp"]
    for u in range(40):
        lines += [
            f"AE{u},B{f:09},{draw.randint(1, 5)}.0,{draw.randrange(start, end)}"
            for f in draw.sample(range(30), 8)
        ]
    (raw / "Electronics.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    items = [
        {
            "main_category": "All Electronics",
            "title": f"Item {f}",
            "average_rating": 4.5,
            "rating_number": 9,
            "features": [],
            "description": ["x"],
            "price": None if f % 2 else 9.99,
            "images": [{"thumb": "https://a", "variant": "MAIN"}],
            "videos": [],
            "store": f"Store {f % 3}",
            "categories": ["Electronics", f"Kind {f % 4}"] if f % 9 else [],
            "details": {"Brand": "x"},
            "parent_asin": f"B{f:09}",
            "bought_together": None,
        }
        for f in range(30)
    ]
    (raw / "meta_Electronics.jsonl.gz").write_bytes(
        gzip.compress("\n".join(map(json.dumps, items)).encode())
    )


def write_gz(path: Path, objects: list[dict[str, object]]) -> None:
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, objects)).encode()))


def genres(told: Manifest) -> None:
    assert told.features["genre"].kind == "list"
    assert told.rows["test"] == 24  # a user's last one, and its negative


def people(told: Manifest) -> None:
    genres(told)
    assert told.vocabulary["gender"] == 4
    assert told.features["age"].kind in ("id", "number")


def purchases(told: Manifest) -> None:
    assert told.fields == ["item", "category"]
    assert told.target.split["by"] == "day"
    assert told.counts["log left out by where"] > 0
    assert told.rows["train"] > told.rows["valid"] > 0


def kinds(told: Manifest) -> None:
    purchases(told)
    assert [*told.histories] == ["viewed", "carted", "favoured", "bought"]


def reviews(told: Manifest) -> None:
    assert told.fields == ["item", "category", "brand"]
    assert told.shares["repeated reviews, dropped"].count == 5


def cuts(told: Manifest) -> None:
    assert told.time_unit == "ms"
    assert (told.target.split["valid"], told.target.split["test"]) == (1628643414042, 1658002729837)
    assert all(told.rows.values())
    assert told.fields == ["item", "category", "store"]


MADE: dict[str, tuple[Callable[[Path, random.Random], None], Callable[[Manifest], None]]] = {
    "movielens-latest": (movielens_latest, genres),
    "movielens-1m": (movielens_1m, people),
    "movielens-100k": (movielens_100k, people),
    "taobao-userbehavior": (taobao_userbehavior, purchases),
    "taobao-userbehavior-kinds": (taobao_userbehavior, kinds),
    "amazon-2018": (amazon_2018, reviews),
    "amazon-2023": (amazon_2023, cuts),
}
# Those that a command makes too are held to it elsewhere.
OF_COMMANDS = {"amazon-2014", "alibaba-ads"}


def test_every_preset_is_tried() -> None:
    assert {*MADE} | OF_COMMANDS == {*presets()}


@pytest.mark.parametrize("name", MADE)
def test_a_preset_reads_files_of_the_published_form(name: str, tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    write, holds = MADE[name]
    write(raw, random.Random(name))
    finished(tinprep("describe", name, "--check", "--raw", raw))
    finished(tinprep("prepare", name, "--raw", raw, "--out", out, "--max-rejected", 0))
    finished(tinprep("verify", out))
    told = load(out)
    holds(told)
    assert not told.rejected.keys() - {r for r in told.rejected if "line of" in r or "touched" in r}


@pytest.mark.parametrize(
    ("name", "folder", "flags", "rows"),
    [
        ("movielens-latest", "movielens_latest_small", (), {"valid": 1_216, "test": 1_216}),
        ("taobao-userbehavior", "taobao_userbehavior", (), {"train": 138, "valid": 32, "test": 32}),
        (
            "amazon-2018",
            "amazon2018_all_beauty",
            ("--set", "category=All_Beauty", "--without", "item"),
            {"train": 2_400, "valid": 1_966, "test": 1_974},
        ),
    ],
)
def test_a_preset_makes_the_real_files(
    name: str, folder: str, flags: tuple[str, ...], rows: dict[str, int], tmp_path: Path
) -> None:
    raw = SHARED / "data" / folder
    if not raw.is_dir():
        pytest.skip(f"{raw} is not there")
    finished(tinprep("prepare", name, "--raw", raw, "--out", tmp_path / "out", *flags))
    told = load(tmp_path / "out")
    assert rows.items() <= told.rows.items()
    finished(tinprep("verify", tmp_path / "out"))
