"""One split as it is stored: its row groups, read at once or block by block."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from schemas import manifest
from schemas.errors import ContractError
from schemas.shards import MOST_BEHAVIOURS
from trainer.arrow import SESSION
from trainer.pieces import Piece, pieces_of
from trainer.rows import HISTORY, Index, Rows, concat


class StoredSplit:
    """Some columns of a split's shards.

    Args:
        made: the manifest.
        out: its folder.
        split: which split.
        columns: which columns.
        memory_mb: a split that needs more is read in blocks.

    Attributes:
        pieces: its row groups.
        nbytes: what the columns need in memory, without padding.
        fits: whether that is within `memory_mb`.

    Raises:
        InputError: a shard is missing or damaged.
        ContractError: the shards hold another number of rows than the manifest says.
    """

    def __init__(
        self,
        made: manifest.Manifest,
        out: Path,
        split: str,
        columns: tuple[str, ...],
        memory_mb: float,
    ) -> None:
        self.columns, self.memory_mb = columns, memory_mb
        self.sessions = sessions_of(made, out)
        self.limits, self.max_len = _limits(made), made.max_len
        self.pieces: list[Piece] = [
            piece
            for path in made.shard_paths(out, split)
            for piece in pieces_of(path, columns, self.sessions)
        ]
        rows, expected = sum(p.rows for p in self.pieces), made.rows.get(split, 0)
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

    def shares(self, seed: int | None, epoch: int, world: int) -> list[list[Piece]]:
        """The row groups of each of `world` ranks, in their order."""
        pieces = self.pieces
        if seed is not None:
            order = np.random.default_rng((seed, epoch)).permutation(len(pieces))
            pieces = [pieces[i] for i in order]
        return [pieces[rank::world] for rank in range(world)]

    def blocks(self, share: list[Piece]) -> Iterator[tuple[Rows, bool]]:
        """Rows to be shuffled together, and whether they are the last."""
        held: list[Piece] = []
        blocks = [held]
        for piece in share:
            # A third: a block, its shuffled chunk and the next block's pieces exist at a time.
            if held and sum(p.nbytes for p in (*held, piece)) > self.memory_mb * 2**20 / 3:
                held = []
                blocks.append(held)
            held.append(piece)
        for i, block in enumerate(blocks if share else []):
            yield self.read(block), i == len(blocks) - 1

    def read(self, pieces: list[Piece]) -> Rows:
        """Some of the row groups, one after the other."""
        return concat(
            piece.read(self.columns, self.limits, self.max_len, self.sessions) for piece in pieces
        )


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


def sessions_of(made: manifest.Manifest, out: Path) -> tuple[int, int] | None:
    """M and K of the manifest's `sessions`, e.g. "5x10"; None for "none" or where it has none.

    Raises:
        ContractError: it is neither.
    """
    text = made.config.get("sessions")
    if text is None or text == "none":
        return None
    found = re.fullmatch("([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", str(text))
    if found is None or int(found[1]) * int(found[2]) > MOST_BEHAVIOURS:
        raise ContractError(
            "The manifest's sessions cannot be read.",
            where=out / manifest.NAME,
            expected='`sessions` of `config` like "5x10", or "none"',
            got=ascii(text)[:100],
        )
    return int(found[1]), int(found[2])


def _limits(made: manifest.Manifest) -> dict[str, int]:
    """Column -> the smallest integer that is too large for it."""
    sizes = made.vocabulary
    limits = dict(sizes)
    for name in made.fields:
        for prefix in ("target_", HISTORY, SESSION):
            limits[f"{prefix}{name}"] = sizes[name]
    limits[f"{HISTORY}position"] = made.max_len + 1
    limits[f"{HISTORY}interval_bin"] = made.bins.count + 1
    limits["label"] = 2
    return limits
