"""Whether two data sets hold the same."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from pipeline.verify import verify
from schemas import manifest

SHOWN = (
    *("rows", "events", "target", "features", "histories", "lookups", "vocabulary", "known"),
    *("rejected", "counts", "shares", "numbers", "inputs"),
)


def same(one: Path, other: Path) -> None:
    """Assert that two sound data sets hold the same, whatever the order and files of their rows."""
    a, b = manifest.load(one), manifest.load(other)
    for name in SHOWN:
        assert getattr(a, name) == getattr(b, name), name
    assert a.config["key"] == b.config["key"]
    assert tables(one) == tables(other)
    for path in tables(one):
        assert _sorted(one / path).equals(_sorted(other / path)), path
    for split in manifest.SPLITS:
        rows, others = (_rows(m, out, split) for m, out in ((a, one), (b, other)))
        assert rows.equals(others), split
    for out, made in ((one, a), (other, b)):
        files = {p.relative_to(out).as_posix() for s in manifest.SPLITS for p in out.glob(f"{s}/*")}
        assert files == {shard.path for shard in made.shards}
        assert not (out / ".work").exists()
        assert verify(out).findings == ()


def tables(out: Path) -> set[Path]:
    """The tables beside the shards."""
    found = [
        path for name in ("vocabulary", "lookups", "rejected") for path in out.glob(f"{name}/*")
    ]
    return {path.relative_to(out) for path in found}


def _sorted(path: Path) -> pl.DataFrame:
    frame = pl.read_parquet(path)
    return frame.sort(frame.columns)


def _rows(made: manifest.Manifest, out: Path, split: str) -> pl.DataFrame:
    paths = made.shard_paths(out, split)
    if not paths:
        return pl.DataFrame()
    frame = pl.concat(pl.read_parquet(path) for path in paths)
    scalars = [name for name, kind in frame.schema.items() if not kind.is_nested()]
    return frame.sort(scalars)
