"""One split as it is stored: its row groups, read at once or block by block."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from schemas import manifest
from schemas.errors import ContractError
from schemas.shards import session_prefix
from trainer.data.batches import PLACE, Index, Rows, concat
from trainer.data.facts import Facts
from trainer.data.row_groups import RowGroup, Wanted, row_groups_of


class StoredSplit:
    """Some columns of a split's shards.

    One that needs more than `memory_mb` is read in blocks. `PLACE` may be among the columns.

    Attributes:
        pieces: its row groups.
        nbytes: what the columns need in memory, without padding.
        fits: whether that is within `memory_mb`.
    """

    def __init__(
        self,
        made: manifest.Manifest,
        out: Path,
        split: str,
        columns: tuple[str, ...],
        facts: Facts,
        memory_mb: float,
    ) -> None:
        self.memory_mb = memory_mb
        self.wanted = Wanted(
            tuple(name for name in columns if name != PLACE),
            _limits(made, facts.histories),
            facts.histories,
            {name: most for name, most in made.lists.items() if name in columns},
            PLACE in columns,
            facts.stored,
        )
        self.pieces: list[RowGroup] = []
        rows, expected = 0, made.rows.get(split, 0)
        for path in made.shard_paths(out, split):
            self.pieces += row_groups_of(path, self.wanted, rows)
            rows = sum(piece.rows for piece in self.pieces)
        if rows != expected:
            raise ContractError(
                f"The shards of {split} hold another number of rows than the manifest says.",
                where=out,
                expected=f"{expected:,} rows",
                got=f"{rows:,} rows",
                do="make the data set again",
            )
        self.nbytes = sum(p.nbytes for p in self.pieces)
        self.fits = self.nbytes <= memory_mb * 2**20
        self._kept: Rows | None = None

    def whole(self) -> Rows:
        """All rows, read once and kept."""
        if self._kept is None:
            self._kept = self.read(self.pieces)
        return self._kept

    def shares(self, seed: int | None, epoch: int, world: int) -> list[list[RowGroup]]:
        """The row groups of each of `world` ranks, in their order."""
        pieces = self.pieces
        if seed is not None:
            order = np.random.default_rng((seed, epoch)).permutation(len(pieces))
            pieces = [pieces[i] for i in order]
        return [pieces[rank::world] for rank in range(world)]

    def blocks(self, share: list[RowGroup]) -> Iterator[tuple[Rows, bool]]:
        """Rows to be shuffled together, and whether they are the last."""
        held: list[RowGroup] = []
        blocks = [held]
        for piece in share:
            # A third: a block, its shuffled chunk and the next block's pieces exist at a time.
            if held and sum(p.nbytes for p in (*held, piece)) > self.memory_mb * 2**20 / 3:
                held = []
                blocks.append(held)
            held.append(piece)
        for i, block in enumerate(blocks if share else []):
            yield self.read(block), i == len(blocks) - 1

    def read(self, pieces: list[RowGroup]) -> Rows:
        """Some of the row groups, one after the other."""
        return concat(piece.read(self.wanted) for piece in pieces)


def batch_sizes(rows: int, size: int) -> Index:
    """Rows of each batch of at most `size`: all but the last are full."""
    return np.diff(np.minimum(np.arange(-(-rows // size) + 1) * size, rows))


def dealt_sizes(rows: int, size: int, rank: int, world: int) -> Index:
    """A rank's rows in each batch of `size`, where row i of all goes to rank i mod `world`."""
    bounds = np.minimum(np.arange(-(-rows // size) + 1) * size, rows)
    return np.diff((bounds + world - 1 - rank) // world)


def spread_sizes(mine: int, batches: int) -> Index:
    """A rank's `mine` rows spread evenly over a number of batches, some perhaps empty."""
    return np.diff(np.arange(batches + 1) * mine // max(1, batches))


def _limits(made: manifest.Manifest, histories: dict[str, manifest.History]) -> dict[str, int]:
    """Column -> the smallest integer that is too large for it."""
    sizes = made.vocabulary
    limits = {"user": sizes["user"]} if "user" in sizes else {}
    for name, feature in made.features.items():
        if feature.vocabulary in sizes:
            limits[name] = sizes[feature.vocabulary]
    for name in made.fields:
        limits[f"target_{name}"] = sizes[name]
    for called, one in histories.items():
        for name in one.fields:
            limits[f"{called}_{name}"] = limits[f"{session_prefix(called)}_{name}"] = sizes[name]
        limits[f"{called}_position"] = one.max_len + 1
        limits[f"{called}_interval_bin"] = one.bins.count + 1
    limits["label"] = 2
    return limits
