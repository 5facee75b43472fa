"""Presets of the language on made-up files in exactly the form of the published ones."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
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


def kuairand(raw: Path, draw: random.Random) -> None:
    signals = "is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view"
    header = (
        f"user_id,video_id,date,hourmin,time_ms,{signals},play_time_ms,duration_ms,"
        "profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab"
    )
    since = {"standard_4_08_to_4_21": 1649347200, "standard_4_22_to_5_08": 1650556800}
    since["random_4_22_to_5_08"] = since["standard_4_22_to_5_08"]
    for name, begin in since.items():
        lines = [header]
        for _ in range(300):
            at = begin * 1_000 + draw.randrange((14 if "4_21" in name else 17) * DAY * 1_000)
            told = datetime.fromtimestamp(at // 1_000, ZoneInfo("Asia/Shanghai"))
            of = ",".join(str(draw.randrange(2)) for _ in range(7))
            lines.append(
                f"{draw.randrange(12)},{draw.randrange(30)},{told:%Y%m%d,%H00},{at},{of},"
                f"1385,20990,0,0,0,{int('random' in name)},{draw.randrange(15)}"
            )
        (raw / f"log_{name}_pure.csv").write_text("\n".join(lines) + "\n")
    videos = [
        "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,"
        "server_width,server_height,music_id,music_type,tag"
    ]
    tags = ("39", '"12,65"', "")
    for v in range(30):
        seconds, music, tag = (
            "" if v == 4 else f"{9000 + v}.0",
            "" if v == 5 else "9.0",
            tags[v % 3],
        )
        videos.append(
            f"{v},{v % 7},{('NORMAL', 'AD')[v % 2]},2022-04-10,LongImport,0.0,{seconds},720.0,"
            f"1280.0,9155697141,{music},{tag}"
        )
    (raw / "video_features_basic_pure.csv").write_text("\n".join(videos) + "\n")
    people = [
        "user_id,user_active_degree,is_lowactive_period,is_live_streamer,is_video_author,"
        "follow_user_num,follow_user_num_range,fans_user_num,fans_user_num_range,friend_user_num,"
        "friend_user_num_range,register_days,register_days_range,"
        + ",".join(f"onehot_feat{n}" for n in range(18))
    ]
    for u in range(12):
        streams = "-124" if u == 3 else "0"
        encrypted = ",".join("" if u == n == 4 else str(n % 2) for n in range(18))
        people.append(
            f'{u},full_active,0,{streams},1,5,"(0,10]",312,"[100,1k)",0,0,3624,730+,{encrypted}'
        )
    (raw / "user_features_pure.csv").write_text("\n".join(people) + "\n")


def retailrocket(raw: Path, draw: random.Random) -> None:
    lines = ["timestamp,visitorid,event,itemid,transactionid"]
    for n in range(900):
        at = 1_430_600_000_000 + draw.randrange(138 * DAY * 1_000)
        event = draw.choice(("view", "view", "view", "addtocart", "transaction"))
        bought = n if event == "transaction" else ""
        lines.append(f"{at},{draw.randrange(20)},{event},{draw.randrange(60)},{bought}")
    (raw / "events.csv").write_text("\n".join(lines) + "\n")
    header = "timestamp,itemid,property,value"
    parts: dict[str, list[str]] = {"part1": [header], "part2": [header]}
    for item in range(54):
        for n in range(1 + item % 3):
            told = parts[draw.choice((*parts,))]
            week = 1_431_226_800_000 + n * 7 * DAY * 1_000
            told.append(f"{week},{item},categoryid,{1000 + (item + n) % 5}")
            told.append(f"{week},{item},available,{n % 2}")
            told.append(f"{week},{item},888,1116713 960601 n277.200")
    for name, told in parts.items():
        (raw / f"item_properties_{name}.csv").write_text("\n".join(told) + "\n")
    (raw / "category_tree.csv").write_text("categoryid,parentid\n1000,1003\n1003,\n")


def yambda(raw: Path, draw: random.Random) -> None:
    kinds = ("listen", "like", "dislike", "unlike", "undislike")
    of = [
        (u * 10, 5 * draw.randrange(4_600_000, 5_200_000), kind)
        for u in range(1, 16)
        for kind in draw.choices(kinds, (4, 2, 2, 1, 1), k=60)
    ]
    # As much in the last two days, which are valid and test.
    of += [(u, 25_820_000 + 5 * n, kind) for n, (u, _, kind) in enumerate(of) if n % 3 == 0]
    of += [(u, 25_913_600 + 5 * n, kind) for n, (u, _, kind) in enumerate(of) if n % 4 == 0]
    of.sort(key=lambda one: one[:2])
    heard = [kind == "listen" for *_, kind in of]
    types = {"uid": pl.UInt32, "timestamp": pl.UInt32, "item_id": pl.UInt32, "is_organic": pl.UInt8}
    types |= {"played_ratio_pct": pl.UInt16, "track_length_seconds": pl.UInt32}
    frame = pl.DataFrame(
        {
            "uid": [u for u, *_ in of],
            "timestamp": [at for _, at, _ in of],
            "item_id": [7 * draw.randrange(40) for _ in of],
            "is_organic": [draw.randrange(2) for _ in of],
            "played_ratio_pct": [draw.randrange(120) if one else None for one in heard],
            "track_length_seconds": [200 if one else None for one in heard],
            "event_type": [kind for *_, kind in of],
        },
        schema=types | {"event_type": pl.Enum(kinds)},
    )
    (raw / "flat" / "50m").mkdir(parents=True)
    frame.write_parquet(raw / "flat" / "50m" / "multi_event.parquet")
    artists = [(n % 9, 7 * n) for n in range(38)] + [(3, 7), (5, 7 * 99)]
    schema = {"artist_id": pl.Int64, "item_id": pl.Int64}
    pl.DataFrame(artists, schema, orient="row").write_parquet(raw / "artist_item_mapping.parquet")


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


def shown(told: Manifest) -> None:
    assert [*told.histories] == ["clicked", "liked", "viewed_long", "skipped"]
    assert (told.time_unit, told.fields) == ("ms", ["item", "author", "tag"])
    assert told.vocabulary["tag"] == 4  # padding and unknown, 39 and 12
    # The events are of all three files, the targets of two of them.
    assert sum(told.rows.values()) == 600
    assert told.counts["log read"] == 900


def visits(told: Manifest) -> None:
    assert [*told.histories] == ["viewed", "carted", "bought"]
    assert (told.time_unit, told.fields) == ("ms", ["item", "category"])
    assert told.vocabulary["category"] == 7
    assert all(told.rows.values())


def music(told: Manifest) -> None:
    names = ["listened", "skipped", "liked", "disliked", "unliked", "undisliked"]
    assert [*told.histories] == names
    assert all(told.rows.values())
    assert told.fields == ["item", "artist"]


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
    "kuairand": (kuairand, shown),
    "retailrocket": (retailrocket, visits),
    "yambda": (yambda, music),
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
