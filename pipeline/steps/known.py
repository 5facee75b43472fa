"""Known: what a data set has fitted, for the new events that follow those that it has kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.description import USER, Description, Table
from pipeline.identity import Identity
from pipeline.steps.core import Core
from pipeline.steps.finish import CORE, POOL
from pipeline.steps.negatives import Pool
from pipeline.steps.sql import arrow
from pipeline.steps.vocabulary import Encoder
from schemas import digests, manifest, vocabulary
from schemas.errors import ContractError
from schemas.manifest import FIRST_ID
from schemas.replacing import sha256


@dataclass(frozen=True)
class Known:
    """What is known of new events before they are read.

    Attributes:
        pool: value and weight of what negatives are drawn from; None for none.
        core_values: those of the k-core; None for none.
    """

    out: Path
    made: manifest.Manifest
    words: Mapping[str, pa.Table]
    pool: pa.Table | None
    core_values: pl.Series | None

    @staticmethod
    def of(d: Description) -> Known | None:
        """What the data set has fitted that `d` continues; None for none.

        Raises:
            InputError: a file of it is missing or damaged.
            ContractError: one is another than its manifest says.
        """
        if d.continues is None:
            return None
        out, made = d.continues, manifest.load(d.continues)
        digests.of_data(out, made)
        listed = {one.path: one for one in made.tables}
        for name in (POOL, CORE):
            if name in listed and (got := sha256(out / name)) != listed[name].sha256:
                _refuse(out / name, listed[name].sha256, got)
        words = {n: vocabulary.read(out / f"vocabulary/{n}.parquet") for n in made.vocabulary}
        pool = pq.read_table(out / POOL) if POOL in listed else None
        core = pl.Series(pq.read_table(out / CORE)["value"]) if CORE in listed else None
        return Known(out, made, words, pool, core)

    def check(self, paths: Sequence[Path], identity: Identity) -> None:
        """Make sure that the events that were read are those that were kept.

        Raises:
            ContractError: one is another.
        """
        listed = {self.out / one.path: one.sha256 for one in self.made.tables}
        for path, read in zip(paths, identity.inputs, strict=True):
            if path in listed and listed[path] != read.sha256:
                _refuse(path, listed[path], read.sha256)

    def users(self, new: pa.Table) -> pa.Table:
        """The vocabulary of users: new ones have ids of their own behind all others.

        Args:
            new: users of new events, in the order of values, with their counts.
        """
        fitted, found = pl.DataFrame(self.words[USER]), pl.DataFrame(new)
        more = found.select("value", more="count")
        counted = fitted.join(more, on="value", how="left", maintain_order="left")
        counted = counted.select("value", "id", pl.col("count") + pl.col("more").fill_null(0))
        others = found.join(fitted, on="value", how="anti", maintain_order="left")
        first = pl.lit(FIRST_ID + fitted.height, pl.Int32)
        others = others.with_columns(id=pl.int_range(pl.len(), dtype=pl.Int32) + first)
        return arrow(pl.concat([counted, others]))

    def core(self, table: Table) -> Core:
        """The values of the k-core; a user who has them has events enough by now."""
        assert self.core_values is not None
        return Core(table.ids[0], 1, self.core_values)

    def drawn(self, words: pa.Table) -> Pool:
        """What negatives are drawn from; `words` are those of ordered events."""
        assert self.pool is not None and self.made.target.negatives is not None
        weights = np.zeros(len(words), np.int64)
        at = Encoder(words).of(pl.Series(self.pool["value"])) - FIRST_ID
        weights[at] = self.pool["weight"].to_numpy()
        return Pool.of(weights, weighted=self.made.target.negatives.weight == "popularity")


def _refuse(path: Path, expected: str, got: str) -> None:
    raise ContractError(
        "A file of the data set is not what its manifest says.",
        where=path,
        expected=f"sha256 {expected}",
        got=got,
        do="make the data set again (`--force`)",
    )
