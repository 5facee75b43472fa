"""`tinprep describe`: drafts of descriptions, checks of them against the data, and the schema."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.description.checks import spec_of
from pipeline.description.toml import Source, canonical, written
from pipeline.presets.described import presets
from tests.conftest import finished, refused, tinprep

DAY = 86_400
START = 1_500_000_000


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ratings, films, a log without a header, and impressions."""
    monkeypatch.chdir(tmp_path)
    of = [(u, (u * 7 + n * n) % 40) for u in range(30) for n in range(10)]
    rated = [f"{u},{f},{n % 5 + 1},{START + n * DAY}" for n, (u, f) in enumerate(of)]
    Path("ratings.csv").write_text("userId,movieId,rating,timestamp\n" + "\n".join(rated) + "\n")
    films = [
        f'{f},"Film, the {f}th",{"Drama|Comedy" if f % 2 else "War|Drama"},' for f in range(40)
    ]
    Path("movies.csv").write_text("movieId,title,genres,note\n" + "\n".join(films) + "\n")
    kinds = ["view"] * 8 + ["cart", "buy"]
    log = [
        f"{u + 500};{f + 90};{f % 25 + 7000};{kinds[n % 10]};{START + n * 999}"
        for n, (u, f) in enumerate(of)
    ]
    Path("log.txt").write_text("\n".join(log) + "\n")
    shown = [
        {
            "uid": f"u{u}",
            "ad_id": f,
            "shown_at": f"2026-01-{1 + n % 28:02}T10:00:00Z",
            "clicked": int(n % 3 == 0),
        }
        for n, (u, f) in enumerate(of)
    ]
    with gzip.open("shown.csv.gz", "wt") as file:
        file.write(",".join(shown[0]) + "\n")
        file.writelines(",".join(map(str, one.values())) + "\n" for one in shown)
    return tmp_path


def draft(*files: str) -> tuple[str, dict[str, object]]:
    """The text of a draft, which holds together, and what it says."""
    ended = tinprep("describe", *files)
    finished(ended)
    assert "does not hold together" not in ended.out, ended.out
    source = Source("draft", ended.out)
    return ended.out, canonical(spec_of(source)) | {"keys": source.keys}


def test_a_draft_knows_ratings_and_what_they_are_of(here: Path) -> None:
    text, said = draft("ratings.csv", "movies.csv")
    keys = said["keys"]
    assert isinstance(keys, dict)
    table = keys["tables"]["ratings"]
    assert (table["user"], table["fields"]) == ("userId", {"item": "movieId"})
    assert table["time"] == {"column": "timestamp", "unit": "s"}
    genre = keys["lookups"]["item"]["lists"]["genre"]
    assert genre == {"column": "genres", "separator": "|", "max_len": 2}
    assert keys["target"]["split"]["by"] == "time"
    assert keys["target"]["negatives"] == {"per_positive": 1}
    assert '# where = "rating >= 4"' in text  # that is for a person to say
    assert "note" not in text  # no line has one


def test_a_draft_names_the_columns_of_a_log_without_a_header(here: Path) -> None:
    text, said = draft("log.txt")
    keys = said["keys"]
    assert isinstance(keys, dict)
    table = keys["tables"]["log"]
    assert table["csv"] == {
        "delimiter": ";",
        "columns": ["user", "item", "category", "kind", "time"],
    }
    assert keys["target"]["where"] in ("kind = 'buy'", "kind = 'cart'")
    # A history for each kind, and the kind is no field.
    wheres = {name: one["where"] for name, one in keys["histories"].items()}
    assert wheres == {kind: f"kind = '{kind}'" for kind in ("view", "cart", "buy")}
    assert table["fields"] == {"item": "item", "category": "category"}
    assert "not used" not in text
    Path("drafted.toml").write_text(text)
    finished(tinprep("describe", "drafted.toml", "--check"))
    # A drawn item has its category from the events themselves.
    assert keys["lookups"]["item"]["table"] == "log"
    assert "seems to have no header" in text
    assert "view 240" in text


def test_a_draft_of_numbered_kinds_and_reserved_names_holds(here: Path) -> None:
    lines = [f"u{n % 40},{n * n % 61 % 20},{n % 7 // 3 + 1},{START + n * 999}," for n in range(300)]
    Path("log.csv").write_text("user_id,item_id,behavior_type,time,\n" + "\n".join(lines) + "\n")
    goods = [f"{n},{n / 4 + 1 if n % 5 else ''}" for n in range(20)]
    Path("goods.csv").write_text("item_id,weight\n" + "\n".join(goods) + "\n")
    text, said = draft("log.csv", "goods.csv")
    keys = said["keys"]
    assert isinstance(keys, dict)
    assert keys["target"]["where"] == "behavior_type = 3"
    assert [*keys["lookups"]["item"]["numbers"]] == ["its_weight"]
    Path("numbered.toml").write_text(text)
    finished(tinprep("prepare", "numbered.toml", "--out", "made"))
    finished(tinprep("verify", "made"))  # of a lookup of numbers alone, too


def test_a_draft_names_histories_by_odd_kinds(here: Path) -> None:
    """Of those that are no names, or names of something else; the rarest are left to a person."""
    kinds = ["it's", "label", "add-to-cart", "add_to_cart", "买", '"in\u2028app"', "g"]
    lines = [
        f"u{n % 9},i{n % 20},{kinds[k]},2026-01-{1 + n % 28:02}T10:00:00Z"
        for k in range(len(kinds))
        for n in range(70 - k)
    ]
    Path("odd.csv").write_text("visitor,sku,Event Type,at\n" + "\n".join(lines) + "\n")
    text, said = draft("odd.csv")
    histories = said["histories"]
    assert isinstance(histories, dict)
    assert [*histories] == ["it_s", "kind_2", "add_to_cart", "kind_4", "kind_5", "kind_6"]
    assert histories["it_s"]["where"] == "\"Event Type\" = 'it''s'"
    assert "1 rarer kinds of Event Type are in no history: g" in text
    Path("odd.toml").write_text(text)
    finished(tinprep("describe", "odd.toml", "--check"))


def test_a_draft_knows_labels_and_zones(here: Path) -> None:
    _, said = draft("shown.csv.gz")
    keys = said["keys"]
    assert isinstance(keys, dict)
    table = keys["tables"]["shown"]
    assert table["label"] == "clicked"
    assert table["time"] == {"column": "shown_at"}
    assert "negatives" not in keys["target"]


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("%d.%m.%Y %H:%M", "day, month, year"),
        ("%m/%d/%Y %H:%M:%S", "month, day, year"),
        ("", "cut"),
    ],
)
def test_a_draft_reads_times_as_spreadsheets_and_scripts_write_them(
    here: Path, form: str, said: str
) -> None:
    """With the day or the month first, or with fractions; in a column that SQL has a word for."""
    times = [datetime(2026, 3, 1 + n, 10, 5, tzinfo=UTC) for n in range(14)]
    spelt = [t.strftime(form) if form else f"{t.timestamp() + 0.25}" for t in times]
    lines = [f"{t},u{n % 9},i{n}" for t in spelt for n in range(30)]
    Path("when.csv").write_text("when,user,item\n" + "\n".join(lines) + "\n")
    text, _ = draft("when.csv")
    assert said in text
    Path("when.toml").write_text(text)
    checked = tinprep("describe", "when.toml", "--check")
    finished(checked)
    assert "2026-03-13 10:05:00" in checked.out


def test_a_draft_joins_impressions_behaviours_and_a_catalogue(here: Path) -> None:
    """Users by their values, not by a device's name; what items have behaviours have, too."""
    of = [(f"c{u}", f"s{(u * 7 + n * n) % 40}", n) for u in range(30) for n in range(10)]
    devices = ["ios", "web", None]
    shown = {
        "device": [devices[n % 3] for _, _, n in of],
        "login": [u for u, _, _ in of],
        "sku": [i for _, i, _ in of],
        "ms": [START * 1_000 + n * DAY * 1_000 for _, _, n in of],
        "clicked": [None if n == 7 else n % 3 == 0 for _, _, n in of],
    }
    pq.write_table(pa.table(shown), "shown.parquet")
    did = [f"s{n}{u},{u},{i},m{i},2017-07-{10 + n}T10:00:00Z,view" for u, i, n in of]
    head = "session_id,customer_id,sku,brand,at,kind\n"
    Path("did.csv").write_text(head + "\n".join([*did, did[0]]))
    items = [f"s{n},{'abc'[n % 3]},ms{n}" for n in range(40)]
    Path("items.csv").write_text("sku,category,brand\n" + "\n".join(items) + "\n")
    text, said = draft("shown.parquet", "did.csv", "items.csv")
    keys = said["keys"]
    assert isinstance(keys, dict)
    users = [keys["tables"][name]["user"] for name in ("shown", "did")]
    assert users == ["login", "customer_id"]
    assert keys["tables"]["shown"]["label"] == "clicked"
    assert keys["lookups"]["item"]["fields"] == {"category": "category", "brand": "brand"}
    where = "# where = 'clicked is not null'"
    assert where in text
    Path("drafted.toml").write_text(text.replace(where, where[2:]))
    checked = tinprep("describe", "drafted.toml", "--check")
    finished(checked)
    assert "shown without" not in checked.out


def test_a_file_of_items_with_a_date_of_each_is_no_log(here: Path) -> None:
    """Beside one that names its users."""
    films = [f"{f},2014-04-{1 + f % 28:02},{f % 7 + 60}" for f in range(40)]
    Path("films.csv").write_text("movieId,released,studio\n" + "\n".join(films) + "\n")
    text, said = draft("ratings.csv", "films.csv")
    assert said["lookups"]["item"]["fields"] == {"studio": "studio"}  # type: ignore[index]
    assert "is a guess" not in text


def test_a_draft_is_written_once_beside_its_data(here: Path) -> None:
    Path("own").mkdir()
    finished(tinprep("describe", "ratings.csv", "movies.csv", "--out", "own/mine.toml"))
    text = Path("own/mine.toml").read_text()
    assert 'files = "../ratings.csv"' in text
    refused(tinprep("describe", "ratings.csv", "--out", "own/mine.toml"), 2, "such a file already")
    assert Path("own/mine.toml").read_text() == text


def test_files_that_hold_no_events_are_refused(here: Path) -> None:
    refused(tinprep("describe", "movies.csv"), 3, "who did what", "movieId, title, genres")
    Path("empty.csv").touch()
    refused(tinprep("describe", "empty.csv"), 3, "empty.csv")
    refused(tinprep("describe", "nothing.csv"), 3, "nothing.csv")
    # Too few users to be told from kinds, and no names to tell them by.
    lines = [f"u{n % 12},i{n % 13},{1_600_000_000 + n}" for n in range(96)]
    Path("few.csv").write_text("\n".join(lines) + "\n")
    refused(tinprep("describe", "few.csv"), 3, "users", "csv = { columns = [...] }")
    Path("array.json").write_text(json.dumps([{"user": n, "time": n} for n in range(9)]))
    refused(tinprep("describe", "array.json"), 3, "array.json", "jq -c")
    refused(tinprep("describe"), 2, "nothing to describe")


MINE = """
[tables.ratings]
files = "ratings.csv"
user = "userId"
time = { column = "timestamp", unit = "s" }
fields = { item = "movieId" }
order = "file"
[target]
table = "ratings"
split = { by = "order" }
negatives = { per_positive = 2, pool = "all" }
[histories.history]
table = "ratings"
[vocabulary]
from = "all"
"""


def test_a_check_shows_targets_and_keeps_nothing(here: Path) -> None:
    Path("mine.toml").write_text(MINE)
    before = sorted(Path().rglob("*"))
    ended = tinprep("describe", "mine.toml", "--check")
    finished(ended)
    assert sorted(Path().rglob("*")) == before
    assert ended.out.count("label 1") == 6
    assert "label 0" not in ended.out
    assert "in own history" in ended.said
    assert "ratings read │ 300" in ended.said
    Path("mine.toml").write_text(MINE.replace("histories.history", "histories.seen"))
    short = tinprep("describe", "mine.toml", "--check", "--raw", ".", "--rows", 50)
    finished(short)
    assert "before" in short.out


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("movieId", "movie", ("no column movie", "did you mean movieId")),
        ('unit = "s"', 'unit = "ms"', ("another unit", 'unit = "s"', "mine.toml:5")),
        ('negatives = { per_positive = 2, pool = "all" }\n', "", ("nothing could be learned",)),
        ('order = "file"', 'label = "rating"', ("label is not 0 or 1 in rating",)),
        ('{ column = "timestamp", unit = "s" }', '{ column = "userId" }', ("need a unit",)),
    ],
)
def test_a_check_says_what_does_not_fit(
    here: Path, old: str, new: str, said: tuple[str, ...]
) -> None:
    text = MINE.replace(old, new)
    if "label =" in new:
        text = "\n".join(line for line in text.splitlines() if "negatives" not in line)
    Path("mine.toml").write_text(text)
    ended = tinprep("describe", "mine.toml", "--check")
    assert ended.code in (2, 3)
    refused(ended, ended.code, *said)


def test_the_schema_and_presets_are_printed() -> None:
    schema = tinprep("describe", "--schema")
    finished(schema)
    assert json.loads(schema.out)["properties"]["tables"]["description"]
    for name in presets():
        shown = tinprep("describe", name)
        finished(shown)
        said = spec_of(Source(name, shown.out))
        # What is written of plain values says the same.
        again = Source(name, written(Source(name, shown.out).keys))
        assert canonical(spec_of(again)) == canonical(said)


def test_lists_and_types_of_parquet_are_drafted(here: Path) -> None:
    columns = {
        "session_id": pa.array([n % 9 for n in range(90)], pa.int64()),
        "sku": [f"s{n % 30}" for n in range(90)],
        "tags": [["a", "b"][: n % 3] for n in range(90)],
        "ts": pa.array([START * 1_000 + n for n in range(90)], pa.int64()),
    }
    pq.write_table(pa.table(columns), "events.parquet")
    _, said = draft("events.parquet")
    keys = said["keys"]
    assert isinstance(keys, dict)
    table = keys["tables"]["events"]
    assert (table["user"], table["fields"]["item"]) == ("session_id", "sku")
    assert table["time"] == {"column": "ts", "unit": "ms"}
