"""The events of users that a data set has kept, as the features of a request need them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.serving.features import Past
from schemas.arrays import Int64s
from schemas.errors import ContractError, InputError
from schemas.manifest import NOBODIES, DataFile, Manifest, require_kept
from schemas.replacing import sha256


@dataclass(frozen=True)
class Pasts:
    """What users did that may stand in the histories of one name.

    Attributes:
        all: of all users, one after the other.
        offsets: (users + 1,) where each user's begin, by id.
    """

    all: Past
    offsets: Int64s

    def of(self, user: int) -> Past:
        """Those of one user, by id; none of an id beyond the others."""
        if user + 1 >= len(self.offsets):
            return Past(self.all.time[:0], {name: ids[:0] for name, ids in self.all.fields.items()})
        own = slice(self.offsets[user], self.offsets[user + 1])
        return Past(self.all.time[own], {name: ids[own] for name, ids in self.all.fields.items()})


def read(folder: Path, made: Manifest) -> Mapping[str, Pasts]:
    """The behaviours that a data set has kept: history -> those of its users.

    Raises:
        UsageError: it keeps none.
        InputError: a file is missing or damaged.
        ContractError: one is not the manifest's.
    """
    require_kept(folder, made)
    return {name: _pasts(folder, made, name) for name in made.histories}


def digest(made: Manifest) -> str:
    """The digest of the behaviours that a data set has kept."""
    listed = [[one.path, one.sha256] for one in made.tables if one.path.startswith("behaviours/")]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def nobodies(folder: Path, made: Manifest) -> dict[int | str, int]:
    """The ids of users whom the targets' table of a data set lacks, by their values.

    Raises:
        InputError: the file is missing or damaged.
        ContractError: it is not the manifest's.
    """
    listed = [one for one in made.tables if one.path == NOBODIES]
    if not listed:
        return {}
    table = _read(folder, listed[0])
    return dict(zip(table["value"].to_pylist(), table["id"].to_pylist(), strict=True))


def _pasts(folder: Path, made: Manifest, history: str) -> Pasts:
    files = [one for one in made.tables if one.path.startswith(f"behaviours/{history}-")]
    return _joined([_read(folder, one) for one in files])


def _read(folder: Path, file: DataFile) -> pa.Table:
    """A file of kept events, held to the manifest."""
    path = folder / file.path
    try:
        if (got := sha256(path)) != file.sha256:
            raise ContractError(
                "A file of kept events is not the one that was written.",
                where=path,
                expected=f"sha256 {file.sha256}",
                got=got,
                do="make the data set again",
            )
        return pq.read_table(path, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            "A file of kept events cannot be read.",
            where=path,
            expected="a Parquet file",
            got=str(error)[:200],
            do="make the data set again",
        ) from None


def _joined(parts: list[pa.Table]) -> Pasts:
    """Behaviours of buckets, in each of which users follow one another."""
    columns = {
        name: np.concatenate([part[name].to_numpy() for part in parts])
        for name in parts[0].column_names
    }
    user = columns.pop("user")
    # A user's events are in one bucket; buckets are in no order of ids.
    by = np.argsort(user, kind="stable")
    counts = np.bincount(user)
    time, fields = columns.pop("time")[by], {name: ids[by] for name, ids in columns.items()}
    return Pasts(Past(time, fields), np.append(0, np.cumsum(counts)))


def of_users(pasts: Mapping[str, Pasts], users: Sequence[int]) -> Mapping[str, pa.Table]:
    """History -> the behaviours of some users, by id, as a data set keeps them."""
    found = {}
    for name, of in pasts.items():
        each = [of.of(user) for user in users]
        columns = {"user": np.repeat(np.array(users, np.int32), [len(one.time) for one in each])}
        columns["time"] = np.concatenate([one.time for one in each])
        for field in of.all.fields:
            columns[field] = np.concatenate([one.fields[field] for one in each])
        found[name] = pa.table(columns)
    return found


def of_tables(tables: Mapping[str, pa.Table]) -> Mapping[str, Pasts]:
    """What `of_users` gave."""
    return {name: _joined([table]) for name, table in tables.items()}
