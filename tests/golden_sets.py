"""Data sets whose content is kept in `tests/golden/expected.json`.

`python -m tests.golden_sets` writes that file anew, for a change that is on purpose; it needs the
real data (see `TINPREP_SHARED`).

Content is what a reader gets of every table but the manifest: each column's name, type, nullness,
list width and values. How a file stores it does not count: row groups, encodings, compression. As
the number of buckets decides in which shard and where a row stands, `placed` tells that apart, of
the sets as they are made here, and the other checksums hold for any number.

Raw files of small sets come from a recipe that uses nothing of Python's random numbers but
`random()`, which is promised to stay as it is.
"""

from __future__ import annotations

import hashlib
import json
import random
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from schemas.manifest import FORMAT, SPLITS, load
from tests.alibaba_made import RawLog, alibaba
from tests.conftest import SHARED, Ended, amazon, finished, write_raw
from tests.oracle import Review

EXPECTED = Path(__file__).parent / "golden" / "expected.json"
NIGHT = 1_494_000_000  # 2017-05-06 00:00 in Beijing
DAY = 86_400
BUCKETS = ("--buckets", 3)
# What the rows of a split are ordered by, as far as they have it, before they are compared.
ORDER = ("row", "label", "target_item")

RENEW = (
    f"Data sets have changed. If that is on purpose: raise FORMAT ({FORMAT}) in "
    "schemas/manifest.py, unless what was made before still holds, run "
    "`python -m tests.golden_sets`, and say in the commit what changed and why."
)

# Table -> column -> its type and a checksum of its values; `placed` -> split -> a checksum.
Told = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Golden:
    """One data set.

    Attributes:
        command: what makes it.
        flags: of the command.
        real: where its raw files are; None for small ones, written by the command's recipe.
    """

    command: str
    flags: tuple[str, ...]
    real: Path | None = None

    def make(self, folder: Path, *how: object) -> Path:
        """Make it below a folder; returns where it is."""
        if self.real is not None and not self.real.is_dir():
            pytest.skip(f"the real data is not here: {self.real} (see TINPREP_SHARED)")
        run, write = _COMMANDS[self.command]
        raw, some_bad = self.real, ()
        if raw is None:
            raw, some_bad = write(folder / "raw"), ("--max-rejected", "20%")
        finished(run(raw, folder / "out", *some_bad, *self.flags, *how))
        return folder / "out"


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
    """Impressions of eight days and 60 users, some without a profile; an ad that is missing.

    Some impressions and behaviours stand twice; of the other files one line is bad.
    """
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
    ads[5:5] = profiles[5:5] = behaviours[5:5] = [("no", "such", "row")]
    log = RawLog(impressions + impressions[:9], ads, profiles, behaviours + behaviours[9:99])
    return log.write(folder)


# What a data set's name begins with -> its command and, of real data, its folder.
_SOURCES = {
    "amazon": ("amazon", None),
    "alibaba": ("alibaba", None),
    "beauty": ("amazon", SHARED / "data" / "amazon_beauty"),
    "kuairand": ("alibaba", SHARED / "data" / "kuairand_tianchi"),
}
_COMMANDS: dict[str, tuple[Callable[..., Ended], Callable[[Path], Path]]] = {
    "amazon": (amazon, raw_amazon),
    "alibaba": (alibaba, raw_alibaba),
}
_NAMES = """
amazon
amazon --layout ragged
amazon --parity
amazon --split din
amazon --ties hash
amazon --negatives 3
amazon --no-meta
amazon --duplicates drop
amazon --session-gap 432000
amazon --seed 7
amazon --bins 3
amazon --max-len 6
alibaba
alibaba --layout ragged
alibaba --user-fraction 0.5
alibaba --behaviors cart,pv
alibaba --behaviors-since 1494100000
alibaba --split-at 1494400000
alibaba --sessions 2x3
alibaba --sessions none
alibaba --session-gap 60
alibaba --min-count 20
alibaba --timezone America/New_York
alibaba --duplicates drop
alibaba --bins 3
alibaba --max-len 6
beauty
beauty --layout ragged
beauty --parity
kuairand
kuairand --layout ragged
"""


def _golden(name: str) -> Golden:
    source, *flags = name.split()
    command, real = _SOURCES[source]
    return Golden(command, tuple(flags), real)


GOLDEN = {name: _golden(name) for name in _NAMES.strip().split("\n")}


def expected() -> dict[str, Told]:
    """What is kept of every data set; the file says of flags only what they change."""
    kept: dict[str, Told] = json.loads(EXPECTED.read_text(encoding="utf-8"))
    whole = {name: {**kept[name.split()[0]], **tables} for name, tables in kept.items()}
    return {name: {t: of for t, of in all_.items() if of} for name, all_ in whole.items()}


def differences(out: Path, name: str, *, placed: bool = True) -> list[str]:
    """Every table and column that differs from what is kept, and what to do; nothing if none does.

    Args:
        out: the data set.
        name: of what is kept.
        placed: whether rows must also be in their shards and places.
    """
    got, want, found = told(out), expected()[name], []
    for table in sorted({*got, *want} - ({"placed"} if not placed else set())):
        now, before = got.get(table, {}), want.get(table, {})
        for column in sorted({*now, *before}):
            was, is_ = before.get(column, "absent"), now.get(column, "absent")
            if was != is_:
                found.append(f"{table}.{column}: was {was}, is {is_}")
    return [RENEW, *found] if found else []


def told(out: Path) -> Told:
    """What a data set holds, table by table and column by column, and where its rows are."""
    made, found, placed = load(out), {}, {}
    for split in SPLITS:
        if paths := made.shard_paths(out, split):
            shards = [pq.read_table(path, partitioning=None) for path in paths]
            table, sizes = pa.concat_tables(shards), [len(shard) for shard in shards]
            order = [name for name in ORDER if name in table.column_names]
            placed[split] = checksum([*table.select(order).columns, pa.array(sizes)])
            found[split] = columns(table.sort_by([(name, "ascending") for name in order]))
    for path in sorted(out.rglob("*.parquet")):
        if path.parent.name not in SPLITS:
            name = path.relative_to(out).with_suffix("").as_posix()
            found[name] = columns(pq.read_table(path, partitioning=None))
    return {**found, "placed": placed}


def columns(table: pa.Table) -> dict[str, str]:
    """Each column's type and a checksum of its values, in the table's order."""
    return {
        field.name: f"{_type(field)} {checksum([column])}"
        for field, column in zip(table.schema, table.columns, strict=True)
    }


def _type(field: pa.Field) -> str:
    """The type in words of our own, as Arrow's own may change."""
    kind, null = field.type, "?" if field.nullable else ""
    if pa.types.is_fixed_size_list(kind):
        return f"{_type(kind.value_field)}[{kind.list_size}]{null}"
    if pa.types.is_list(kind):
        return f"{_type(kind.value_field)}[]{null}"
    return f"{str(kind).removeprefix('large_')}{null}"


def checksum(arrays: Iterable[pa.Array | pa.ChunkedArray]) -> str:
    """A checksum of values, of which are null, and of how long lists are."""
    digest = hashlib.sha256()
    for array in arrays:
        whole = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
        for part in _parts(whole):
            digest.update(part)
    return digest.hexdigest()[:10]


def _parts(array: pa.Array) -> Iterable[Any]:
    """What an array holds, as bytes."""
    kind = array.type
    yield np.ascontiguousarray(array.is_valid())
    if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind):
        yield np.ascontiguousarray(pc.list_value_length(array).fill_null(0))
        yield from _parts(array.flatten())
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        texts = array.drop_null().to_pylist()
        yield json.dumps(texts).encode()
    else:
        yield np.ascontiguousarray(array.fill_null(0))


def main() -> None:
    """Write the expected content anew, a table a line."""
    made: dict[str, Told] = {}
    sets = []
    for name, golden in GOLDEN.items():
        with tempfile.TemporaryDirectory() as folder:
            tables = made[name] = told(golden.make(Path(folder), *BUCKETS))
        plain = {} if name in _SOURCES else made[name.split()[0]]
        changed = [t for t in {**plain, **tables} if tables.get(t) != plain.get(t)]
        lines = ",\n".join(f"  {json.dumps(t)}: {json.dumps(tables.get(t))}" for t in changed)
        sets.append(f" {json.dumps(name)}: {{\n{lines}\n }}")
    EXPECTED.write_text("{\n" + ",\n".join(sets) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
