"""`tinprep synthesize` and the demo data: files that the same program then prepares."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cli import demo
from pipeline.synthetic.amazon import MARKER
from schemas.manifest import NAME, load
from tests.alibaba_raw import FILES
from tests.conftest import finished, refused, tinprep


def test_synthesized_reviews_are_prepared(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    finished(
        tinprep("synthesize", "amazon", "--out", raw, "--scale", 0.002, "--category", "Beauty")
    )
    assert {path.name for path in raw.iterdir()} == {
        *(MARKER, "reviews_Beauty_5.json.gz", "meta_Beauty.json.gz")
    }
    finished(tinprep("amazon", "--raw", raw, "--category", "Beauty", "--out", out))
    assert load(out).synthetic


def test_a_synthesized_log_is_made(tmp_path: Path) -> None:
    ended = tinprep("synthesize", "alibaba", "--out", tmp_path / "raw", "--scale", 0.00005)
    finished(ended)
    assert {path.name for path in (tmp_path / "raw").iterdir()} == {MARKER, *FILES}
    assert "".join(str(tmp_path / "raw").split()) in ended.closed_up


@pytest.mark.parametrize("source", ["amazon", "alibaba"])
def test_what_cannot_be_synthesized_is_said(tmp_path: Path, source: str) -> None:
    refused(tinprep("synthesize", source, "--out", tmp_path / "raw", "--scale", 0), 2, "scale")


def test_demo_data_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "AMAZON_SCALE", 0.002)
    monkeypatch.setattr(demo, "ALIBABA_SCALE", 0.0002)
    said: list[str] = []
    outs = demo.demo_data(lambda step, done, total: said.append(step))
    assert {"draw", "transform", "behaviours"} <= {*said}
    assert [load(out).dataset for out in outs] == ["amazon-Electronics", "alibaba"]
    assert all(load(out).synthetic for out in outs)
    said.clear()
    before = [(out / NAME).read_bytes() for out in outs]
    assert demo.demo_data(lambda step, done, total: said.append(step)) == outs
    assert not said
    assert [(out / NAME).read_bytes() for out in outs] == before


@pytest.mark.parametrize(
    ("source", "scale"), [("amazon", "AMAZON_SCALE"), ("alibaba", "ALIBABA_SCALE")]
)
def test_a_demo_is_prepared_from_files_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, scale: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, scale, 0.002 if source == "amazon" else 0.0002)
    refused(tinprep(source, "--demo", "--raw", "elsewhere"), 2, "--raw")
    assert not list(tmp_path.iterdir())
    ended = tinprep(source, "--demo", "--out", "here", "--bins", 3)
    finished(ended)
    made = load(tmp_path / "here")
    assert (made.synthetic, made.history.bins.count) == (True, 3)
    assert "synthetic data" in ended.said
