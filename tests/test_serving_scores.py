"""A bundle in use: its scores of requests are those of `predict`, and it proves itself."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from pipeline.serving.requests import Words
from schemas.bundle import checksum
from tests.conftest import finished, refused, tinprep, zstd
from tests.serving_made import DAY

pytest.importorskip("onnxruntime")


@pytest.fixture
def made(bundle_made: Path) -> Path:
    return bundle_made


def test_scores_of_requests_are_those_of_predict(made: Path, tmp_path: Path) -> None:
    out, log, told = tmp_path / "scores.parquet", tmp_path / "log.jsonl", tmp_path / "p.parquet"
    asked = ("--events", made / "data", "--requests", made / "requests.jsonl")
    said = tinprep("score", made / "bundle", *asked, "--out", out, "--log", log)
    finished(said)
    finished(tinprep("predict", made / "run", made / "data", "--split", "test", "--out", told))
    found = pl.read_parquet(out).with_columns(row=pl.col("id").cast(pl.Int64))
    wanted = pl.read_parquet(told)
    # A target's row, and then those of its negatives.
    wanted = wanted.with_columns(candidate=pl.int_range(pl.len()).over("row").cast(pl.Int32))
    both = found.join(wanted, on=["row", "candidate"])
    assert both.height == found.height == wanted.height > 100
    assert (both["score"] - both["score_right"]).abs().max() < 1e-5  # type: ignore[operator]
    assert "of unknown item" in said.out
    text = tmp_path / "scores.csv"
    finished(tinprep("score", made / "bundle", *asked, "--out", text))
    assert pl.read_csv(text, schema=found.drop("row").schema).equals(found.drop("row"))
    said = tinprep("verify", made / "bundle", "--log", log, "--events", made / "data")
    finished(said)
    assert f"{len(log.read_text().splitlines())} logged requests" in said.out


def test_candidates_and_later_events_change_no_score(made: Path, tmp_path: Path) -> None:
    first, *_ = (json.loads(line) for line in (made / "requests.jsonl").open())
    alone = [first | {"candidates": [one]} for one in first["candidates"]]
    earlier = first | {"time": first["time"] - 3 * DAY, "arrived": {}}
    stranger = first | {"user": "nobody", "arrived": {}}
    path, out = tmp_path / "requests.jsonl", tmp_path / "scores.parquet"
    lines = [first, *alone, earlier, stranger]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked = ("--events", made / "data", "--requests", path, "--out", out)
    finished(tinprep("score", made / "bundle", *asked))
    scores = pl.read_parquet(out).group_by("line", maintain_order=True).agg("score")["score"]
    assert scores[0].to_list() == pytest.approx([one[0] for one in scores[1:-2]], abs=1e-6)
    assert scores[0].to_list() != pytest.approx(scores[-2].to_list(), abs=1e-6)
    assert scores[0].to_list() != pytest.approx(scores[-1].to_list(), abs=1e-6)


def _asked(**more: object) -> str:
    candidate = {"item": "i1", "category": "c1", "device": "d1", "spent": 3, **more}
    return json.dumps({"user": "u1", "time": 1_600_900_000, "candidates": [candidate]})


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("[]", "a JSON object"),
        (
            '{"user": "u1", "time": 1600900000000, "candidates": [{"item": "i1"}]}',
            "like one of another unit",
        ),
        (_asked().replace("1600900000", "1600900"), "like one of another unit"),
        ('{"user": "u1", "candidates": [{}]}', "time"),
        ('{"user": "u1", "time": 1600900000, "candidates": []}', "candidates"),
        ('{"user": "u1", "time": 1600900000, "candidates": [{"item": "i1"}]}', "lacks device"),
        (
            '{"user": "u1", "time": "2020-09-23", "candidates": [{}]}',
            "a date, a time and a zone",
        ),
        (
            '{"user": "u1", "time": 1600900000, "candidates": '
            '[{"item": 7.5, "category": "c1", "device": "d1", "spent": 3}]}',
            "item of another type",
        ),
        ('{"user": "u1", "time": 1%s, "candidates": [{}]}' % ("0" * 30), "time: below"),
        ('{"user": "u1", "time": 1, "candidates": [{"itm": "i1"}]}', "did you mean item?"),
        ('{"user": "u1", "time": 1, "candidates": [{}], "arrived": {"bought": 1}}', "bought"),
        (_asked(word=[[]]), "text"),
        ('{"user": "u1", "time": 1600900000.5, "candidates": [{}]}', "time"),
        (_asked(price=float("nan")), "null for a missing value"),
        (_asked(price=10**400), "a number"),
    ],
)
def test_what_is_no_request_is_told_with_its_line(
    made: Path, line: str, told: str, tmp_path: Path
) -> None:
    path, out = tmp_path / "requests.jsonl", tmp_path / "scores.parquet"
    path.write_text((made / "requests.jsonl").open().readline() + line + "\n")
    asked = ("--events", made / "data", "--requests", path, "--out", out)
    refused(tinprep("score", made / "bundle", *asked), 3, told, "requests.jsonl:2")
    assert not out.exists()
    path.write_text("\n")
    refused(tinprep("score", made / "bundle", *asked), 3, "no requests", "empty lines")
    assert not out.exists()


def test_requests_as_other_programs_write_them(made: Path, tmp_path: Path) -> None:
    first, *_ = (json.loads(line) for line in (made / "requests.jsonl").open())
    odd = json.dumps(first | {"time": float(first["time"])}) + "\n"
    path, out = tmp_path / "requests.jsonl", tmp_path / "scores.parquet"
    asked = ("--events", made / "data", "--requests", path, "--out", out)
    scores = []
    for data in (json.dumps(first).encode(), gzip.compress(odd.encode()), zstd(odd.encode())):
        path.write_bytes(data)
        finished(tinprep("score", made / "bundle", *asked))
        scores.append(pl.read_parquet(out))
    assert scores[0].equals(scores[1])
    assert scores[0].equals(scores[2])
    path.write_bytes(gzip.compress(odd.encode() * 99)[:-9])
    refused(tinprep("score", made / "bundle", *asked), 3, path, "gzip or zstd")


@pytest.mark.parametrize(
    ("values", "alike", "odd"),
    [
        ([7, 2**60], [7, 7.0, "7", "007", " 7.0", np.int8(7)], [True, 7.5, [7], "x", 2.0**60]),
        (["7", "x"], ["7", 7, 7.0, np.str_("7"), np.float32(7)], [True, 7.5, [7]]),
    ],
)
def test_values_that_are_the_same_have_one_id(
    values: list[Any], alike: list[Any], odd: list[Any]
) -> None:
    words = object.__new__(Words)
    words.ids, words.whole = {value: id_ for id_, value in enumerate(values, 2)}, values[0] == 7
    assert [words.of(raw) for raw in alike] == [2] * len(alike)
    none = [None, "", " ", np.nan, np.float32(np.nan)]
    assert [words.of(raw) for raw in (values[1], *none)] == [3] + [1] * len(none)
    for one in odd:
        with pytest.raises(ValueError, match="a whole number" if words.whole else "text"):
            words.of(one)


def test_a_bundle_proves_itself(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(made / "bundle", folder)
    said = tinprep("verify", folder)
    finished(said)
    assert "golden requests" in said.out
    # As another version might do it: the files are whole, and the windows mean something else.
    bundle = json.loads((folder / "bundle.json").read_text())
    bundle["data"]["histories"]["bought"]["within"] = DAY
    (folder / "bundle.json").write_text(json.dumps(bundle))
    refused(tinprep("verify", folder), 4, "does not say what was written")
    bundle["sha256"] = checksum(bundle)
    (folder / "bundle.json").write_text(json.dumps(bundle))
    refused(tinprep("verify", folder), 4, "A golden request does not come out as it did.")
    bundle = json.loads((made / "bundle" / "bundle.json").read_text())
    bundle["inputs"][0]["name"] = "another"
    bundle["sha256"] = checksum(bundle)
    (folder / "bundle.json").write_text(json.dumps(bundle))
    refused(tinprep("verify", folder), 4, "do not fit together", "another")
    (folder / "model.onnx").write_bytes(b"x" + (folder / "model.onnx").read_bytes()[1:])
    refused(tinprep("verify", folder), 4, "model.onnx")


def test_events_of_another_data_set_are_refused(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "other"
    told = ("prepare", made / "log.toml", "--out", out, "--bins", "4")
    finished(tinprep(*told))
    asked = ("--requests", made / "requests.jsonl", "--out", tmp_path / "scores.parquet")
    refused(tinprep("score", made / "bundle", "--events", out, *asked), 4, "bin edges")
    out = tmp_path / "same"
    finished(tinprep("prepare", made / "log.toml", "--out", out))
    refused(tinprep("score", made / "bundle", "--events", out, *asked), 2, "--keep-events")


def test_what_is_there_is_not_replaced(made: Path, tmp_path: Path) -> None:
    path, out, bundle = tmp_path / "requests.jsonl", tmp_path / "scores.parquet", made / "bundle"
    told = (made / "requests.jsonl").read_text()
    path.write_text(told)
    asked = ("score", bundle, "--events", made / "data", "--requests", path, "--out")
    for to in (path, tmp_path, bundle / "golden/x", made / "data/x", path / "x"):
        refused(tinprep(*asked, to), 2, str(to if to != path / "x" else path))
    refused(tinprep(*asked, out, "--log", out), 2, "another file")
    assert path.read_text() == told
    assert [*tmp_path.iterdir()] == [path]


def test_new_events_of_some_leave_the_others_theirs(made: Path, tmp_path: Path) -> None:
    first, *_ = (json.loads(line) for line in (made / "requests.jsonl").open())
    new, out, path = tmp_path / "new.csv", tmp_path / "data", tmp_path / "requests.jsonl"
    other = "u1" if first["user"] != "u1" else "u2"
    row = f"{other},i1,c1,buy,{first['time'] + DAY},d1,3\n"
    new.write_text("user,item,category,kind,second,device,spent\n" + row)
    finished(tinprep("transform", made / "data", "--events", new, "--out", out, "--keep-events"))
    path.write_text(json.dumps(first) + "\n")
    asked = ("--requests", path, "--out", tmp_path / "scores.parquet")
    log = tmp_path / "log.jsonl"
    finished(tinprep("score", made / "bundle", "--events", made / "data", *asked, "--log", log))
    finished(tinprep("verify", made / "bundle", "--log", log, "--events", out))
