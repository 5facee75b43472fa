"""Data sets of the Alibaba path: raw files to make them of, the command, and what it made.

`RawLog` writes raw files, `alibaba` runs the command, `read_made` reads the shards (both layouts),
`check_rows` and `agree` hold them against the oracle.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.manifest import load
from tests.alibaba_oracle import ABSENT_AD, Expected
from tests.alibaba_raw import FILES, PROFILE
from tests.amazon_made import check_shares
from tests.conftest import Ended, tinprep
from tests.oracle import SPLITS

HEADERS = {
    "raw_sample.csv": "user,time_stamp,adgroup_id,pid,nonclk,clk",
    "ad_feature.csv": "adgroup_id,cate_id,campaign_id,customer,brand,price",
    "user_profile.csv": ",".join(("userid", *PROFILE)) + " ",
    "behavior_log.csv": "user,time_stamp,btag,cate,brand",
}


@dataclass
class RawLog:
    """A raw log, each row a tuple in its file's order; None is a missing value.

    Attributes:
        impressions: user, time, ad, pid, click.
        ads: ad, category, campaign, customer, brand, price.
        profiles: user, then the eight fields.
        behaviours: user, time, btag, category, brand.
    """

    impressions: list[tuple[Any, ...]]
    ads: list[tuple[Any, ...]]
    profiles: list[tuple[Any, ...]] = field(default_factory=list)
    behaviours: list[tuple[Any, ...]] = field(default_factory=list)

    def write(self, folder: Path, *, gzipped: bool = False) -> Path:
        """Write the four files; a missing value is NULL, in profiles nothing."""
        clicks = [(*row[:4], 1 - row[4], row[4]) for row in self.impressions]
        tables = (clicks, self.ads, self.profiles, self.behaviours)
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in zip(FILES, tables, strict=True):
            none = "" if name == "user_profile.csv" else "NULL"
            lines = [",".join(none if x is None else str(x) for x in row) for row in rows]
            write_csv(folder / name, lines, gzipped=gzipped)
        return folder


def write_csv(path: Path, lines: Iterable[str], *, gzipped: bool = False) -> None:
    """Write one raw file with its header, plain or gzipped beside the plain one's name."""
    text = "".join(f"{line}\n" for line in (HEADERS[path.name], *lines)).encode()
    if gzipped:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(text, 1))
    else:
        path.write_bytes(text)


def alibaba(raw: Path, out: Path, *flags: object) -> Ended:
    """Run `tinprep alibaba` on a raw folder."""
    return tinprep("alibaba", "--raw", raw, "--out", out, *flags)


def read_made(out: Path) -> dict[int, dict[str, Any]]:
    """Every row of every shard below `out`, as `Expected.rows` has them, of either layout.

    Raises:
        AssertionError: a row is there twice, something is null, padding is not 0, or a list is
            not as long as its length column says.
    """
    rows: dict[int, dict[str, Any]] = {}
    for split in SPLITS:
        for path in sorted((out / split).glob("part-*.parquet")):
            for row in _rows_of(pq.read_table(path, partitioning=None), path):
                assert row["row"] not in rows, f"{path}: row {row['row']} is there twice"
                rows[row["row"]] = {"split": split, **row}
    return rows


def _rows_of(table: pa.Table, path: Path) -> Iterator[dict[str, Any]]:
    columns: dict[str, list[Any]] = {}
    lengths = table["history_length"].to_pylist()
    per_session: list[list[int]] = []
    if "session_length" in table.column_names:
        padded = pa.types.is_fixed_size_list(table.schema.field("session_length").type)
        listed = [[n for n in row if n] for row in table["session_length"].to_pylist()]
        for row, kept in zip(table["session_length"].to_pylist(), listed, strict=True):
            want = kept + [0] * (len(row) - len(kept)) if padded else kept
            assert row == want, f"{path}: session_length {row}"
        per_session = listed
    for name in table.column_names:
        column = table[name].combine_chunks()
        assert column.null_count == 0, f"{path}: {name} has nulls"
        where = f"{path}: {name}"
        if name.startswith("history_") and name != "history_length":
            columns[name] = _lists(column, lengths, where)
        elif name == "session_length":
            columns[name] = per_session
        elif name.startswith("session_"):
            count = table.schema.field("session_length").type
            columns[name] = [
                _sessions_of(cells, kept, count, where)
                for cells, kept in zip(column.to_pylist(), per_session, strict=True)
            ]
        else:
            columns[name] = column.to_pylist()
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))


def _lists(column: pa.Array, lengths: list[int], where: str) -> list[list[int]]:
    """Lists without their padding."""
    flat = column.flatten()
    assert flat.null_count == 0, f"{where} has nulls in its lists"
    if pa.types.is_fixed_size_list(column.type):
        matrix = flat.to_numpy().reshape(len(column), column.type.list_size)
        padding = np.arange(column.type.list_size) >= np.array(lengths, int)[:, None]
        assert not matrix[padding].any(), f"{where}: padding is not 0"
        return [cells[:n].tolist() for cells, n in zip(matrix, lengths, strict=True)]
    made: list[list[int]] = column.to_pylist()
    assert [len(cells) for cells in made] == lengths, f"{where}: not history_length long"
    return made


def _sessions_of(
    cells: list[int], lengths: list[int], count: pa.DataType, where: str
) -> list[list[int]]:
    """One row's sessions, each a list, from the cells of either layout."""
    padded = pa.types.is_fixed_size_list(count)
    width = len(cells) // count.list_size if padded else 0
    made, end = [], 0
    for k, length in enumerate(lengths):
        begin = k * width if padded else end
        assert not any(cells[end:begin]), f"{where}: padding is not 0"
        end = begin + length
        made.append(cells[begin:end])
    assert not any(cells[end:]) and (padded or end == len(cells)), f"{where}: {cells} {lengths}"
    return made


def check_rows(made: dict[int, dict[str, Any]], expected: Expected) -> None:
    """Assert that the rows made are exactly the expected ones, in every column."""
    assert sorted(made) == sorted(expected.rows), "the impressions differ"
    for row, want in expected.rows.items():
        got = made[row]
        assert got.keys() == want.keys(), set(got) ^ set(want)
        if got | {"price": want["price"]} != want:
            wrong = [name for name in want if got[name] != want[name] and name != "price"]
            said = "; ".join(f"{name} {got[name]} is not {want[name]}" for name in wrong)
            raise AssertionError(f"row {row}: {said}")
        # Stored as float32.
        close = math.isclose(got["price"], want["price"], rel_tol=1e-5, abs_tol=1e-5)
        assert close, f"row {row}: price {got['price']} is not {want['price']}"


def agree(out: Path, expected: Expected) -> None:
    """Assert that a data set is what the oracle says: its manifest, its tables and every row."""
    made, rows = load(out), read_made(out)
    check_rows(rows, expected)
    told = {name.split(",")[0]: (s.count, s.of) for name, s in made.shares.items()}
    assert {name: told[name] for name in expected.shares} == expected.shares
    without = sum(row["history_length"] == 0 for row in rows.values())
    assert told["impressions without behaviours"] == (without, len(rows))
    check_shares(rows.values(), ("category", "brand"), told)
    assert {
        "impressions": told["repeated impressions"][0],
        "both": told["impressions both clicked and not"][0],
        "behaviours": told["repeated behaviours"][0],
    } == expected.repeats
    assert {name: n for name, n in made.rows.items() if n} == {
        name: n for name, n in expected.sizes.items() if n
    }
    assert made.fields == ["category", "brand"]
    assert made.history.bins.edges_s == expected.edges
    assert made.history.bins.train_counts == expected.train_counts
    assert made.rejected.get(ABSENT_AD, 0) == expected.left_out.get(ABSENT_AD, 0)
    assert made.vocabulary == {f: len(known) + 2 for f, known in expected.vocabulary.items()}
    for name, known in expected.vocabulary.items():
        words = pl.read_parquet(out / "vocabulary" / f"{name}.parquet")
        assert dict(words.select("value", "id").rows()) == known, name
        assert dict(words.select("value", "count").rows()) == expected.counts[name], name
    ads = pl.read_parquet(out / "lookups/ad.parquet")
    assert ads.columns == ["ad", "category", "brand", "campaign", "customer", "price"]
    known_ads = ads.filter(pl.col("ad") > 1)
    assert known_ads["ad"].is_unique().all()
    assert {row[0]: row[1:] for row in known_ads.iter_rows()} == expected.ads
    profiles = pl.read_parquet(out / "lookups/user.parquet")
    assert profiles.columns == ["user", *PROFILE]
    assert profiles["user"].is_unique().all()
    assert {row[0]: row[1:] for row in profiles.iter_rows()} == expected.profiles
