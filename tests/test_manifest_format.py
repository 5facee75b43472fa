"""A data set of another format is refused with what to do about it, and that then works."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pyarrow as pa
import pytest

from schemas.errors import ContractError
from schemas.manifest import FORMAT, NAME, load
from schemas.shards import Shape, history_type, schema_of
from tests.conftest import amazon, finished, tinprep
from tests.golden_sets import raw_amazon


def rewrite(out: Path, **changes: object) -> None:
    """Change keys of a manifest; None takes one away."""
    path = out / NAME
    made = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    kept = {key: value for key, value in made.items() if value is not None}
    path.write_text(json.dumps(kept), encoding="utf-8")


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Path]:
    raw, out = raw_amazon(tmp_path / "raw"), tmp_path / "out"
    finished(amazon(raw, out, "--max-rejected", "20%"))
    return raw, out


@pytest.mark.parametrize("older", [FORMAT - 1, None])
def test_an_older_one_is_refused_and_made_again(made: tuple[Path, Path], older: int | None) -> None:
    raw, out = made
    (out / "lookups/item.parquet").rename(out / "items.parquet")
    rewrite(out, format=older, tables=None)  # which the first ones did not list
    ended = tinprep("inspect", out)
    assert ended.code == 4
    assert "made by an older tinprep" in ended.said
    assert f"tinprepamazon--categoryBeauty--out{out}--force" in ended.closed_up
    assert tinprep("verify", out).code == 4
    ended = amazon(raw, out, "--max-rejected", "20%")
    assert ended.code == 4
    assert "--force" in ended.said
    finished(amazon(raw, out, "--max-rejected", "20%", "--force"))
    assert tinprep("verify", out).code == 0


def test_a_newer_one_is_left_alone(made: tuple[Path, Path]) -> None:
    raw, out = made
    rewrite(out, format=FORMAT + 1, version="9.1")
    before = (out / NAME).read_bytes()
    for ended in (tinprep("inspect", out), amazon(raw, out, "--max-rejected", "20%")):
        assert ended.code == 4
        assert "made by a newer tinprep" in ended.said
        assert "install tinprep 9.1 or newer" in ended.said
    assert (out / NAME).read_bytes() == before


@pytest.mark.parametrize(
    "held", ['{"name": "my app", "icons": []}', f'{{"format": {FORMAT}}}', "[]"]
)
def test_the_manifest_of_another_program_is_no_older_one(tmp_path: Path, held: str) -> None:
    (tmp_path / NAME).write_text(held)
    for command in ("inspect", "verify"):
        ended = tinprep(command, tmp_path)
        assert ended.code == 4
        assert "--force" not in ended.said.replace("(`--force`)", "")
    assert ("no manifest of tinprep's" in ended.said) == ("format" not in held)


def test_more_bins_than_there_can_be_are_soon_refused(made: tuple[Path, Path]) -> None:
    count = 2_000_000
    edges = {"edges_s": list(range(count - 1)), "train_counts": [1] * count}
    histories = json.loads((made[1] / NAME).read_text(encoding="utf-8"))["histories"]
    histories["history"]["bins"] = {"count": count, **edges}
    rewrite(made[1], histories=histories)
    began = time.monotonic()
    for command in ("inspect", "verify"):
        ended = tinprep(command, made[1])
        assert ended.code == 4
        assert "bins.count" in ended.said
    assert time.monotonic() - began < 60


def test_one_without_the_keys_that_came_later_is_read_as_it_was_meant(
    made: tuple[Path, Path],
) -> None:
    told, later = load(made[1]), dict.fromkeys(("time_unit", "weight", "keep"))
    rewrite(made[1], **later)
    assert not later.keys() & json.loads((made[1] / NAME).read_text(encoding="utf-8")).keys()
    assert load(made[1]) == told
    assert (told.time_unit, told.weight, told.keep, told.lists) == ("s", False, {}, {})
    finished(tinprep("verify", made[1]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"time_unit": "min"}, "s or ms or us"),
        ({"keep": {"request": "binary"}}, "int64 or string or float64"),
        ({"keep": {"../up": "int64"}}, "letters, digits and underscores"),
        ({"features": {"tag": {"kind": "list", "vocabulary": "tag"}}}, "with a max_len"),
        ({"features": {"tag": {"kind": "id", "vocabulary": "t", "max_len": 3}}}, "with a max_len"),
        ({"features": {"tag": {"kind": "list", "vocabulary": "t", "max_len": 1 << 20}}}, "32767"),
    ],
)
def test_columns_that_there_cannot_be_are_refused(
    changes: dict[str, object], said: str, made: tuple[Path, Path]
) -> None:
    rewrite(made[1], **changes)
    with pytest.raises(ContractError) as refused:
        load(made[1])
    assert said in str(refused.value)


def test_columns_stand_in_their_order() -> None:
    schema = schema_of(
        ("item",),
        {"clicks": Shape(("item",), 3)},
        "padded",
        weight=True,
        features=("slot",),
        numbers=("price",),
        lists={"tag": 2, "genre": 5},
        keep={"request": "string", "score": "float64", "n": "int64"},
    )
    first = ["row", "user", "target_item", "target_time", "label", "weight", "slot", "price"]
    first += ["tag", "tag_length", "genre", "genre_length", "request", "score", "n"]
    assert schema.names[: len(first) + 2] == [*first, "clicks_length", "clicks_item"]
    assert schema.field("genre").type == history_type(pa.int32(), "padded", 5)
    assert [f.name for f in schema if f.nullable] == ["request", "score", "n"]


def test_keys_of_a_later_version_do_not_matter(made: tuple[Path, Path]) -> None:
    rewrite(made[1], colour="blue")
    finished(tinprep("inspect", made[1]))
