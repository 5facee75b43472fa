"""Small data sets whose content and schemas are kept in `tests/golden/expected.json`.

`python -m tests.golden_sets` writes that file anew, for a change that is on purpose.

Raw files come from a recipe that uses nothing of Python's random numbers but `random()`, which is
promised to stay as it is. What is compared is logical: types and values, whatever the files' bytes,
the number of shards and the versions of libraries.
"""

from __future__ import annotations

import hashlib
import json
import random
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.manifest import SPLITS, Manifest, load
from tests.alibaba_made import RawLog, alibaba
from tests.conftest import Ended, amazon, finished, write_raw
from tests.oracle import Review

EXPECTED = Path(__file__).parent / "golden" / "expected.json"
NIGHT = 1_494_000_000  # 2017-05-06 00:00 in Beijing
DAY = 86_400
# What rows are ordered by, as far as a table has it, before they are compared.
ORDER = ("row", "label", "target_item", "line", "id", "item", "ad", "user")
# Of the manifest: what may differ between two runs that make the same rows.
HOW = ("version", "config", "inputs", "shards", "tables", "steps", "numbers")

# Table -> column -> its type and a checksum of its values.
Told = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Golden:
    """One data set: what makes its raw files, and what is run on them."""

    raw: Callable[[Path], Path]
    run: Callable[..., Ended]
    flags: tuple[object, ...]


def raw_amazon(folder: Path) -> Path:
    """Reviews by 60 users, ties and two bad lines among them; items without, and with two lines."""
    draw = random.Random(6).random
    items = [f"B{n:03}" for n in range(39)] + ["Bé"]
    reviews: list[Review | None] = [
        Review(f"A{user}", items[int(draw() ** 2 * 40)], int(draw() * 40) * DAY)
        for user in range(60)
        for _ in range(1 + int(draw() * 14))
    ]
    reviews[7:7] = [None]
    reviews[70:70] = [None]
    meta = [(item, f"Ça {n % 6}" if n % 9 else None) for n, item in enumerate(items)]
    return write_raw(folder, reviews, [*meta, meta[3], ("unreviewed", "Other")])


def raw_alibaba(folder: Path) -> Path:
    """Impressions of eight days and 60 users, some without a profile; an ad that is missing."""
    draw = random.Random(7).random

    def of(count: int) -> int:
        return int(draw() * count)

    impressions = [
        (of(60) << (33 * (n % 5 == 0)), NIGHT + of(8 * DAY), of(21), f"p{of(3)}", of(2))
        for n in range(600)
    ]
    ads = [(ad, of(5), of(9), of(7), of(6) or None, str((1 + of(10**6)) / 100)) for ad in range(20)]
    profiles = [(user, *(of(4) for _ in range(8))) for user in range(60) if user % 9]
    behaviours = [
        (user, start + 60 * n, ("pv", "pv", "pv", "cart")[of(4)], of(5), of(6) or None)
        for user in range(60)
        for start in (NIGHT - 2 * DAY + of(9 * DAY) for _ in range(6))
        for n in range(1 + of(8))
    ]
    return RawLog(impressions, ads, profiles, behaviours).write(folder)


_BAD = ("--max-rejected", "20%")
GOLDEN = {
    "amazon": Golden(raw_amazon, amazon, _BAD),
    "amazon-ragged": Golden(raw_amazon, amazon, (*_BAD, "--layout", "ragged", "--max-len", 6)),
    "amazon-parity": Golden(raw_amazon, amazon, (*_BAD, "--parity")),
    "amazon-din": Golden(raw_amazon, amazon, (*_BAD, "--split", "din", "--ties", "hash")),
    "alibaba": Golden(raw_alibaba, alibaba, _BAD),
    "alibaba-ragged": Golden(raw_alibaba, alibaba, (*_BAD, "--layout", "ragged")),
}


def told(out: Path) -> Told:
    """What a data set holds, table by table and column by column."""
    manifest = load(out)
    tables = {split: _joined(manifest.shard_paths(out, split)) for split in SPLITS}
    for path in sorted(out.rglob("*.parquet")):
        if path.parent.name not in SPLITS:
            name = path.relative_to(out).with_suffix("").as_posix()
            tables[name] = pq.read_table(path, partitioning=None)
    found = {name: _columns(table) for name, table in tables.items() if table is not None}
    return {"manifest": _manifest(manifest), **found}


def _joined(paths: list[Path]) -> pa.Table | None:
    tables = [pq.read_table(path, partitioning=None) for path in paths]
    return pa.concat_tables(tables) if tables else None


def _columns(table: pa.Table) -> dict[str, str]:
    names = [name for name in ORDER if name in table.column_names]
    table = table.sort_by([(name, "ascending") for name in names])
    return {
        field.name: f"{_type(field)} {_checksum(table[field.name].to_pylist())}"
        for field in table.schema
    }


def _type(field: pa.Field) -> str:
    """The type in words of our own, as Arrow's own may change."""
    kind, null = field.type, "?" if field.nullable else ""
    if pa.types.is_fixed_size_list(kind):
        return f"{_type(kind.value_field)}[{kind.list_size}]{null}"
    if pa.types.is_list(kind):
        return f"{_type(kind.value_field)}[]{null}"
    return f"{str(kind).removeprefix('large_')}{null}"


def _manifest(manifest: Manifest) -> dict[str, str]:
    kept = {key: value for key, value in asdict(manifest).items() if key not in HOW}
    return {key: _checksum(value) for key, value in kept.items()}


def _checksum(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def main() -> None:
    """Write the expected content anew."""
    made = {}
    for name, golden in GOLDEN.items():
        with tempfile.TemporaryDirectory() as folder:
            raw, out = golden.raw(Path(folder) / "raw"), Path(folder) / "out"
            finished(golden.run(raw, out, *golden.flags))
            made[name] = told(out)
    EXPECTED.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
