"""The raw Alibaba files as dicts, by the csv module: for oracles."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

FILES = ("raw_sample.csv", "ad_feature.csv", "user_profile.csv", "behavior_log.csv")
PROFILE = (
    *("cms_segid", "cms_group_id", "final_gender_code", "age_level"),
    *("pvalue_level", "shopping_level", "occupation", "new_user_class_level"),
)


def raw_rows(folder: Path, name: str) -> Iterator[dict[str, str | None]]:
    """The rows of a raw file, plain or gzipped; None is a missing value."""
    path = folder / name
    with path.open() if path.exists() else gzip.open(f"{path}.gz", "rt") as file:
        lines = csv.reader(file)
        header = [column.strip() for column in next(lines)]
        for line in lines:
            values = [None if value in ("", "NULL") else value for value in line]
            yield dict(zip(header, values, strict=True))


def number(value: str | None) -> int | None:
    """A whole number, or nothing."""
    return None if value is None else int(value)


def needed(value: str | None) -> int:
    """A whole number that must be there."""
    assert value is not None
    return int(value)


def first_of_each(rows: Iterable[dict[str, Any]], key: str) -> tuple[dict[int, Any], int]:
    """The first row of each key, in the file's order, and how many rows repeat one."""
    kept: dict[int, Any] = {}
    repeats = 0
    for row in rows:
        if int(row[key]) in kept:
            repeats += 1
        else:
            kept[int(row[key])] = row
    return kept, repeats
