"""`tinprep prepare`: a person's own logs by a description or by flags, or a preset's."""

from __future__ import annotations

import ast
import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from pipeline.description import toml
from pipeline.synthetic.alibaba import AlibabaRecipe, synthesize_alibaba
from pipeline.synthetic.amazon import AmazonRecipe, synthesize_amazon
from schemas.digests import differing
from schemas.manifest import SPLITS, Share, load
from tests.conftest import finished, refused, tinprep

RATINGS = """
[tables.ratings]
files = "ratings.csv"
user = "userId"
time = { column = "timestamp", unit = "s" }
fields = { item = "movieId" }
order = "file"
[target]
table = "ratings"
split = { by = "order" }
negatives = { per_positive = 1, pool = "all" }
[histories.history]
table = "ratings"
window = "order"
[vocabulary]
from = "all"
"""
FLAGS = ("--user", "userId", "--item", "movieId", "--time", "timestamp", "--unit", "s")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ratings, and their description."""
    monkeypatch.chdir(tmp_path)
    lines = [
        f"u{u},{(u * 7 + n) % 23},{n % 5},{1_000_000 + 60 * n}" for u in range(9) for n in range(8)
    ]
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + "\n".join(lines))
    (tmp_path / "mine.toml").write_text(RATINGS)
    return tmp_path


def rows(out: Path) -> dict[str, pl.DataFrame]:
    """The rows of each split."""
    told = load(out)
    return {s: pl.concat([pl.read_parquet(p) for p in told.shard_paths(out, s)]) for s in SPLITS}


def same_rows(one: Path, other: Path) -> bool:
    """Whether two data sets hold the same rows, vocabularies and lookups."""
    names = {
        p.relative_to(one) for kind in ("vocabulary", "lookups") for p in (one / kind).glob("*")
    }
    files = all(pl.read_parquet(one / n).equals(pl.read_parquet(other / n)) for n in names)
    first, second = rows(one), rows(other)
    return files and all(first[split].equals(second[split]) for split in SPLITS)


def test_a_description_is_prepared_verified_and_trained_on(here: Path) -> None:
    finished(tinprep("prepare", "mine.toml", "--out", "data/own"))
    told = load(Path("data/own"))
    assert told.dataset == "mine"
    assert told.rows == {"train": 9 * 5 * 2, "valid": 18, "test": 18}
    assert toml.digest(told.description) == told.config["description"]
    kinds = [
        pl.read_parquet(f"data/own/vocabulary/{n}.parquet")["value"].dtype for n in ("user", "item")
    ]
    assert kinds == [pl.String, pl.Int64]
    finished(tinprep("verify", "data/own"))
    finished(tinprep("inspect", "data/own"))
    finished(tinprep("train", "data/own", "--run", "run", "--epochs", 1, "--dim", 4))
    # It is found done, and known by what the description says, not by its name or folder.
    finished(tinprep("prepare", "mine.toml", "--out", "data/own"))
    Path("elsewhere").mkdir()
    Path("elsewhere/other.toml").write_text("# The same.\n" + RATINGS)
    finished(tinprep("prepare", "elsewhere/other.toml", "--raw", ".", "--out", "data/own"))
    ended = tinprep("prepare", "mine.toml", "--out", "data/own", "--max-len", 3)
    refused(ended, 2, "other settings")
    finished(tinprep("prepare", "mine.toml", "--out", "data/own", "--max-len", 3, "--force"))
    assert load(Path("data/own")).history.max_len == 3


def test_several_histories_are_as_the_page_shows_them(here: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "description.md").read_text(encoding="utf-8")
    page = page.partition("## Several histories")[2].partition("\n## ")[0]
    for name, kind in (("mine.toml", "toml"), ("log.csv", "csv")):
        Path(name).write_text(page.partition(f"```{kind}\n")[2].partition("```")[0])
    finished(tinprep("prepare", "mine.toml", "--out", "out"))
    items = dict(pl.read_parquet("out/vocabulary/item.parquet").select("id", "value").iter_rows())
    positive, negative = pl.read_parquet("out/train/*.parquet").iter_rows(named=True)
    shown = []
    for name in load(Path("out")).histories:
        ids, positions, times = (positive[f"{name}_{of}"] for of in ("item", "position", "time"))
        told = [
            ", ".join(items[one] for one in ids),
            ", ".join(map(str, positions)),
            ", ".join(f"{(positive['target_time'] - one) // 60} min" for one in times),
            str(positive[f"{name}_length"]),
        ]
        shown.append(f"| `{name}` | {' | '.join(told)} |")
        assert negative[f"{name}_item"] == ids
    assert (items[positive["target_item"]], items[negative["target_item"]]) == ("lamp", "sofa")
    assert "\n".join(shown) in page
    finished(tinprep("verify", "out"))
    ended = tinprep("inspect", "out")
    for told in ("history length, rows, carted", "viewed: 2", "carted: none"):
        assert told in ended.out
    finished(tinprep("describe", "mine.toml", "--check"))
    ended = tinprep("train", "out", "--run", "run")
    finished(ended)
    assert "histories read: carted, viewed" in ended.said


def tables_of(page: str) -> list[list[list[str]]]:
    """The tables of a page in Markdown, each its header and its rows."""
    runs = [run.splitlines() for run in page.split("\n\n") if run.startswith("|")]
    return [
        [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in (run[0], *run[2:])]
        for run in runs
    ]


def test_what_changes_over_time_is_as_the_page_shows_it(here: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "description.md").read_text(encoding="utf-8")
    page = page.partition("## What changes over time")[2].partition("\n## ")[0]
    Path("mine.toml").write_text(page.partition("```toml\n")[2].partition("```")[0])
    *files, (names, *wanted) = tables_of(page)
    for (first, *others), *lines in files:
        name, _, first = first.partition("`: ")
        said = [",".join(line) for line in ([first, *others], *lines)]
        Path(name).write_text("\n".join(said) + "\n")
    finished(tinprep("prepare", "mine.toml", "--out", "out"))
    told = load(Path("out"))
    words = {
        name: {1: "(unknown)"}
        | dict(pl.read_parquet(f"out/vocabulary/{name}.parquet").select("id", "value").iter_rows())
        for name in told.fields
    }
    paths = [path for split in SPLITS for path in told.shard_paths(Path("out"), split)]
    shown = []
    for row in pl.concat(map(pl.read_parquet, paths)).sort("row").iter_rows(named=True):
        ids = row["history_category"][: row["history_length"]]
        target = [words[name][row[f"target_{name}"]] for name in ("ad", "category")]
        behaviours = ", ".join(words["category"][one] for one in ids)
        shown.append([str(row["row"]), *target, f"{row['price']:g}", behaviours])
    assert names == ["row", "target_ad", "target_category", "price", "history_category"]
    assert shown == wanted
    what = "shown without an earlier line in lookups.ad"
    assert told.shares[what] == Share(1, 4)
    assert f"*{what}: 1 of 4*" in page
    finished(tinprep("verify", "out"))
    assert f"{what} │ 1 of 4" in " ".join(tinprep("inspect", "out").out.split())
    finished(tinprep("describe", "mine.toml", "--check"))
    finished(tinprep("train", "out", "--run", "run", "--epochs", 1, "--dim", 4))
    # `verify` looks lines up itself: one that holds from another time on is found.
    path = Path("out/lookups/ad.parquet")
    ads = pl.read_parquet(path)
    assert ads.columns == ["ad", "time", "category", "price"]
    ads.with_columns(pl.col("time") - 1).write_parquet(path)
    assert "lookups/ad.parquet disagrees (2)" in tinprep("verify", "out").said
    # Where it is asked for, an event for which nothing holds is refused.
    Path("mine.toml").write_text(
        Path("mine.toml").read_text().replace('key = "ad"', 'key = "ad"\nmissing = "refuse"')
    )
    finished(tinprep("prepare", "mine.toml", "--out", "refused", "--max-rejected", "99%"))
    left = pl.read_parquet("refused/rejected/shown.parquet")
    assert left["reason"].to_list() == ["ad has no earlier line in lookups.ad"]


def test_options_stand_in_place_of_keys(here: Path) -> None:
    flags = ["--bins", 3, "--layout", "ragged", "--negatives", 2, "--session-gap", 5, "--seed", 9]
    finished(tinprep("prepare", "mine.toml", "--out", "a", *flags, "--duplicates", "drop"))
    changed = RATINGS.replace("per_positive = 1", "per_positive = 2").replace(
        'window = "order"', 'window = "order"\nsession_gap = 5'
    )
    changed = changed.replace('order = "file"', 'order = "file"\nduplicates = "drop"')
    Path("other.toml").write_text('bins = 3\nlayout = "ragged"\nseed = 9\n' + changed)
    finished(tinprep("prepare", "other.toml", "--out", "b"))
    assert same_rows(Path("a"), Path("b"))
    keys = [load(Path(name)).config["key"] for name in "ab"]
    assert keys[0] == keys[1]


def test_data_sets_of_other_windows_are_not_taken_for_one_another(here: Path) -> None:
    """By the digests that a trained run compares; how columns are called does not matter."""
    text = RATINGS.replace('order = "file"', 'order = "file"\nwhere = "rating >= 0"') + "\n"
    text = "bins = 1\n" + text.replace('by = "order" }', 'by = "order" }\nonly_new = false')
    changed = [
        text.replace('window = "order"', 'window = "order"\nwhere = "rating < 9"'),
        text.replace('window = "order"', 'window = "before"'),
        text.replace('"rating >= 0"', '"rating >= -1"'),
        text.replace("only_new = false", "only_new = true"),
        text.replace("only_new = false", 'where = "rating < 9"'),
        text + "[filters]\nmin_history = 1\n",
        text + "[filters]\nk_core = 1\n",
    ]
    ratings = (here / "ratings.csv").read_text()
    (here / "other.csv").write_text(ratings.replace("userId,movieId", "who,what"))
    same = (
        text.replace("userId", "who").replace("movieId", "what").replace("ratings.csv", "other.csv")
    )
    found = []
    for n, one in enumerate((text, same, *changed)):
        (here / "mine.toml").write_text(one)
        finished(tinprep("prepare", "mine.toml", "--out", f"out{n}"))
        found.append(load(here / f"out{n}").digests)
    assert differing(found[0], found[1]) == []
    assert [differing(found[0], one) for one in found[2:]] == [["window rule"]] * len(changed)
    assert len({one["window rule"] for one in found}) == 1 + len(changed)


def test_what_is_new_is_told_by_the_first_field(here: Path) -> None:
    """Whatever else is the same; and in the order of the table, that of the hash too."""
    events = [("a", "i", "x", 1), ("a", "j", "x", 2), ("a", "i", "y", 3), ("a", "k", "x", 4)]
    events += [("b", "j", "y", 1), ("b", "j", "x", 2), ("b", "i", "y", 3), ("b", "k", "y", 4)]
    lines = ["userId,movieId,kind,timestamp", *(f"{u},{i},{k},{t}" for u, i, k, t in events)]
    (here / "ratings.csv").write_text("\n".join(lines))
    text = RATINGS.replace('"movieId"', '"movieId", kind = "kind"').replace(
        'by = "order" }\nnegatives = { per_positive = 1, pool = "all" }',
        'by = "time", test = 4 }\nonly_new = true',
    )
    (here / "mine.toml").write_text(
        text.replace('order = "file"', 'order = "file"\nlabel = "timestamp % 2"')
    )
    finished(tinprep("prepare", "mine.toml", "--out", "out"))
    told = load(here / "out")
    paths = [path for split in SPLITS for path in told.shard_paths(here / "out", split)]
    assert pl.concat(map(pl.read_parquet, paths))["row"].sort().to_list() == [0, 1, 3, 4, 6, 7]
    assert told.target.only_new == "item"
    assert told.shares["ratings of what the user had touched before"].count == 2


@pytest.mark.parametrize("pool", ["train", "all"])
def test_unknown_targets_of_one_label_are_told(here: Path, pool: str) -> None:
    """Where items come late, and negatives are of those that were seen."""
    lines = [
        f"u{u},{(u + n) % 9 if n < 6 else 50 + u},3,{60 * n}" for u in range(9) for n in range(8)
    ]
    (here / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + "\n".join(lines))
    split = 'split = { by = "time", valid = 360, test = 420 }'
    text = RATINGS.replace('split = { by = "order" }', split).replace('"all"', f'"{pool}"', 1)
    (here / "mine.toml").write_text(text.replace('from = "all"', 'from = "train"'))
    finished(tinprep("prepare", "mine.toml", "--out", "out"))
    warned = [note for note in load(here / "out").notes if "all of one label" in note]
    of_both = "valid 9 positives by item, no negatives; test 9 positives by item, no negatives"
    assert [of_both in note for note in warned] == ([True] if pool == "train" else [])


def test_nothing_is_written_by_a_dry_run(here: Path) -> None:
    ended = tinprep("prepare", "mine.toml", "--out", "data/own", "--dry-run")
    finished(ended)
    assert "at most 146" in ended.said
    with Path("ratings.csv").open("a") as log:
        log.write("1,1,4.0,978300000\n" * 100_000)
    dry = ("prepare", "mine.toml", "--out", "data/own", "--dry-run")
    said = [tinprep(*dry, *more).said for more in ((), ("--keep-events",))]
    stay = [int(of.split("of which ")[1].split(" MB stay")[0]) for of in said]
    assert stay[1] == stay[0] + 2  # 20 bytes an event
    assert not Path("data").exists()


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (("movieId", "movieid"), 3, ("no column movieid", "did you mean movieId")),
        (('"ratings.csv"', '"rating.csv"'), 3, ("no file of ratings", "there is ratings.csv")),
        ((', unit = "s"', ""), 2, ("need a unit", 'unit = "s"')),
        (("userId", "movieId + "), 2, ("movieId +",)),
        (('order = "file"', 'order = "file"\nwhere = "stars > 3"'), 2, ("stars", "mine.toml")),
        (('order = "file"', 'order = "file"\nreader = "quick"'), 2, ("no reader of this name",)),
        (
            ('order = "file"', 'order = "file"\nrow = "rating"'),
            2,
            ("Only queries have a `row`",),
        ),
    ],
)
def test_what_does_not_fit_the_files_is_told(
    here: Path, change: tuple[str, str], code: int, said: tuple[str, ...]
) -> None:
    assert RATINGS.count(change[0]) == 1
    Path("mine.toml").write_text(RATINGS.replace(*change))
    ended = tinprep("prepare", "mine.toml", "--out", "out")
    refused(ended, code, *said)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("ratings.csv", *FLAGS), "no --split"),
        (("ratings.csv", *FLAGS[2:], "--split", "order"), "no --user"),
        (("ratings.csv", *FLAGS, "--split", "1, 2,3"), "got: 1, 2"),
        (("mine.toml", *FLAGS, "--split", "order"), "stand in it"),
        (("ratings.csv",), "tinprep describe ratings.csv"),
        (("movielens-5m",), "movielens-1m"),
        (("mine.toml", "--set", "x"), "NAME=VALUE"),
        (("mine.toml", "--set", "x=y"), "no file's name has {braces}"),
        (("amazon-2018", "--set", "categry=Books"), "did you mean category?"),
        (("mine.toml", "--without", "item"), "no such lookup"),
    ],
)
def test_what_cannot_be_asked(here: Path, args: tuple[str, ...], said: str) -> None:
    ended = tinprep("prepare", *args, "--out", "out")
    assert ended.code in (2, 3)
    refused(ended, ended.code, said)


def test_ids_are_text_where_they_are_no_whole_numbers(here: Path) -> None:
    lines = Path("ratings.csv").read_text().splitlines()
    with_zeros = [lines[0], *(line.replace(",", ",00", 1) for line in lines[1:])]
    Path("ratings.csv").write_text("\n".join(with_zeros))
    finished(tinprep("prepare", "mine.toml", "--out", "zeros"))
    values = pl.read_parquet("zeros/vocabulary/item.parquet")["value"]
    assert values.dtype == pl.String
    assert all(value.startswith("00") for value in values)
    Path("whole.toml").write_text(RATINGS + '[types]\nitem = "whole"\n')
    finished(tinprep("prepare", "whole.toml", "--out", "whole"))
    assert pl.read_parquet("whole/vocabulary/item.parquet")["value"].dtype == pl.Int64


@pytest.mark.parametrize("column", [0, 1])
@pytest.mark.parametrize("odd", ["+{}", "-{}", "00{}", "'{}", "1.0e+01", "-", "{}\x1b[2J"])
def test_a_few_odd_ids_that_make_text_of_all_are_told(here: Path, column: int, odd: str) -> None:
    name = ("user", "item")[column]
    text = Path("ratings.csv").read_text().replace("\nu", "\n")
    lines = [line.split(",") for line in text.splitlines()]
    lines = [lines[0], *([*line] for _ in range(20) for line in lines[1:])]
    line = next(line for line in lines[40:] if line[2] == "4")
    line[column] = odd.format(line[column])
    Path("ratings.csv").write_text("\n".join(map(",".join, lines)))
    ended = tinprep("prepare", "mine.toml", "--out", "out")
    finished(ended)
    (note,) = [one for one in load(Path("out")).notes if "ids are text" in one]
    assert f"{name} (" in note
    assert repr(line[column]) in note
    assert "\x1b[2J" not in ended.out + ended.err
    for kind, lost in (("text", 0), ("whole", odd[:2] not in ("+{", "00"))):
        Path("said.toml").write_text(RATINGS + f'[types]\n{name} = "{kind}"\n')
        ended = tinprep("prepare", "said.toml", "--out", kind)
        finished(ended)
        assert "ids are text" not in ended.said
        assert sum(load(Path(kind)).rejected.values()) == lost


def test_the_first_preset_gives_the_rows_of_its_command(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    synthesize_amazon(raw, AmazonRecipe(scale=0.004, seed=3), category="Beauty")
    finished(tinprep("amazon", "--category", "Beauty", "--raw", raw, "--out", tmp_path / "a"))
    given = ("prepare", "amazon-2014", "--set", "category=Beauty", "--raw", raw)
    finished(tinprep(*given, "--out", tmp_path / "b"))
    assert same_rows(tmp_path / "a", tmp_path / "b")
    finished(
        tinprep(
            "amazon", "--category", "Beauty", "--raw", raw, "--no-meta", "--out", tmp_path / "c"
        )
    )
    finished(tinprep(*given, "--without", "item", "--out", tmp_path / "d"))
    c, d = (rows(tmp_path / name)["train"] for name in "cd")
    assert c.drop("target_category", "history_category").equals(d)


def test_the_second_preset_gives_the_rows_of_its_command(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    synthesize_alibaba(raw, AlibabaRecipe(scale=0.0005, seed=3))
    finished(tinprep("alibaba", "--raw", raw, "--out", tmp_path / "a"))
    finished(tinprep("prepare", "alibaba-ads", "--raw", raw, "--out", tmp_path / "b"))
    assert same_rows(tmp_path / "a", tmp_path / "b")
    made = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert made["description"]["tables"]["behaviours"]["where"] == "btag = 'pv'"


def test_ids_of_two_types_are_refused(here: Path) -> None:
    Path("films.csv").write_text("film,shelf\n" + "\n".join(f"{n:03},s{n % 4}" for n in range(23)))
    text = (
        RATINGS
        + '[lookups.item]\nfiles = "films.csv"\nkey = "film"\nfields = { shelf = "shelf" }\n'
    )
    Path("mine.toml").write_text(text)
    refused(
        tinprep("prepare", "mine.toml", "--out", "out"), 2, "two types", "000", 'item = "whole"'
    )
    Path("mine.toml").write_text(text + '[types]\nitem = "whole"\n')
    finished(tinprep("prepare", "mine.toml", "--out", "out"))
    told = load(Path("out"))
    assert told.fields == ["item", "shelf"]
    assert told.vocabulary["shelf"] == 2 + 4
    finished(tinprep("verify", "out"))


def test_a_fast_reader_gives_the_rows_of_the_generic_one(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    synthesize_amazon(raw, AmazonRecipe(scale=0.004, seed=4), category="Electronics")
    finished(tinprep("prepare", "amazon-2014", "--raw", raw, "--out", tmp_path / "fast"))
    text = tinprep("describe", "amazon-2014").out
    generic = "\n".join(line for line in text.splitlines() if not line.startswith("reader ="))
    # The generic reader wants JSON, whose values are not nested so deeply.
    meta = raw / "meta_Electronics.json.gz"
    items = [
        ast.literal_eval(line) for line in gzip.decompress(meta.read_bytes()).decode().splitlines()
    ]
    lines = [
        {"asin": one["asin"], "category": one["categories"][-1] if "categories" in one else None}
        for one in items
    ]
    meta.write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    (tmp_path / "generic.toml").write_text(generic.replace("categories[-1][-1]", "category[-1]"))
    finished(
        tinprep("prepare", tmp_path / "generic.toml", "--raw", raw, "--out", tmp_path / "generic")
    )
    assert same_rows(tmp_path / "fast", tmp_path / "generic")


def test_short_flags_keep_the_description_that_they_stand_for(here: Path) -> None:
    Path("raw").mkdir()
    Path("ratings.csv").rename("raw/log.csv")
    flags = (*FLAGS, "--split", "order", "--where", "rating > 0", "--label", "rating > 2")
    finished(tinprep("prepare", "raw/log.csv", *flags, "--out", "data/log"))
    kept = Path("data/log/description.toml")
    assert "rating > 2" in kept.read_text()
    finished(tinprep("prepare", kept, "--out", "again"))
    assert same_rows(Path("data/log"), Path("again"))
    # It is one of the data set's files: verified and replaced with it.
    finished(tinprep("verify", "data/log"))
    again = tinprep("prepare", "raw/log.csv", *flags, "--out", "data/log", "--bins", 2, "--force")
    finished(again)
    assert "bins = 2" in kept.read_text()


def test_tables_and_lookups_may_be_of_several_files(here: Path) -> None:
    lookup = '[lookups.item]\nfiles = "FILMS"\nkey = "film"\nrepeated = "first"\n'
    lookup += 'fields = { shelf = "shelf" }\n'
    films = [f"{n},s{n % 4}" for n in range(23)] + ["3,late"]
    Path("films.csv").write_text("\n".join(["film,shelf", *films]))
    Path("one.toml").write_text(RATINGS + lookup.replace("FILMS", "films.csv"))
    finished(tinprep("prepare", "one.toml", "--out", "one"))
    header, *rated = Path("ratings.csv").read_text().splitlines()
    for folder in ("films", "ratings"):
        Path(folder).mkdir()
    for n in range(3):
        part = films[n * 8 : n * 8 + 8]
        Path(f"films/{n}.csv").write_text("\n".join(["film,shelf", *part]))
        Path(f"ratings/{n}.csv").write_text("\n".join([header, *rated[n * 24 : n * 24 + 24]]))
    several = RATINGS.replace("ratings.csv", "ratings/*.csv") + lookup.replace("FILMS", "films")
    Path("several.toml").write_text(several)
    finished(tinprep("prepare", "several.toml", "--out", "several"))
    assert same_rows(Path("one"), Path("several"))
    finished(tinprep("verify", "several"))
    assert len(load(Path("several")).inputs) == 6
