"""The counts behind the correlation, in memory: how many targets have a behaviour where.

`sql/correlation/ctc.sql` says what is counted, takes whatever it needs from disk, and is the truth
that tests hold this to. Hashing every behaviour takes most of its time. Where a number for each
(target's category, behaviour's category, place) fits into memory, adding to it takes a tenth.

Legend: K categories of targets, C ids of categories, P places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.machine import usable_cores
from trainer.data import Shards
from trainer.rows import HISTORY, Index, Rows

_TARGET, _CATEGORY, _POSITION = "target_category", f"{HISTORY}category", f"{HISTORY}position"
# What a thread takes for the row group it counts, at the usual sizes, of ten positions, or of all
# behaviours.
_POSITIONS_BYTES, _BEHAVIOURS_BYTES = 16 << 20, 64 << 20
# Cells of the cube that are made into rows at a time.
_BLOCK = 1 << 20
_COUNTS = np.dtype(np.int64)
_LONG = ("targets", "positives", "present", "present_positives")
SCHEMA = pa.schema(
    [
        *((name, pa.int32()) for name in ("target_category", "category", "place")),
        *((name, pa.int64()) for name in _LONG),
        ("bits", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Cube:
    """Targets by category and label, and those that have a behaviour of a category at a place.

    Attributes:
        targets: ids of the targets' categories, K.
        totals: targets by label, K x 2.
        present: those with such a behaviour, by label, K x C x P x 2.
    """

    targets: Index
    totals: NDArray[np.int64]
    present: NDArray[np.int64]


def fits(
    shards: Shards, targets: int, column: str, places: int, memory_mb: int, threads: int | None
) -> bool:
    """Whether `count` stays within `memory_mb`, for so many categories of targets."""
    cube = targets * shards.manifest.vocabulary["category"] * places * 2 * _COUNTS.itemsize
    group = _POSITIONS_BYTES if column == _POSITION else _BEHAVIOURS_BYTES
    return cube + (threads or usable_cores()) * group <= memory_mb << 20


def count(
    shards: Shards,
    splits: Sequence[str],
    column: str,
    places: int,
    targets: Sequence[int],
    threads: int | None = None,
) -> Cube:
    """Count the targets of some categories, and where they have behaviours of which category.

    Args:
        shards: the data set, of either layout.
        splits: whose rows.
        column: of the places, `history_position` or `history_interval_bin`.
        places: the last place, P.
        targets: ids of the targets' categories, ascending, K.
        threads: row groups read at a time; None for all cores.

    Raises:
        InputError: a shard is missing or damaged.
        ContractError: a shard breaks its contract.
    """
    size = shards.manifest.vocabulary["category"]
    slots = np.full(size, -1, np.int64)
    slots[list(targets)] = np.arange(len(targets))
    totals = np.zeros(len(targets) * 2, _COUNTS)
    present = np.zeros(len(targets) * size * places * 2, _COUNTS)
    adding = Lock()
    one = _COUNTS.type(1)

    def add(read: Callable[[], Rows]) -> None:
        rows = read()
        slot = slots[rows.scalars[_TARGET]]
        wanted = np.flatnonzero(slot >= 0)
        label = rows.scalars["label"].astype(np.int64)
        # Of each row, the cell of category 0 at the first place.
        first = slot * (size * places * 2) + label
        if column == _POSITION:
            at = _by_position(rows, wanted, first, places)
        else:
            at = _distinct(rows, wanted, first, column, places)
        with adding:
            np.add.at(totals, slot[wanted] * 2 + label[wanted], one)
            np.add.at(present, at, one)

    # A position is where a behaviour lies in its history: no need to read it.
    columns = (_TARGET, "label", _CATEGORY, *(() if column == _POSITION else (column,)))
    groups = [read for split in splits for read in shards.row_groups(split, columns)]
    pool = ThreadPoolExecutor(threads or usable_cores())
    try:
        for _ in pool.map(add, groups):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    return Cube(
        np.array(targets, np.int64),
        totals.reshape(-1, 2),
        present.reshape(len(targets), size, places, 2),
    )


def _by_position(rows: Rows, wanted: Index, first: Index, places: int) -> Index:
    """Cells of the behaviours of wanted rows at positions up to `places`.

    The newest behaviour lies last in its history, and is at position 1.
    """
    flat, lengths, first = rows.histories[_CATEGORY], rows.lengths[wanted], first[wanted]
    last = rows.starts[wanted] + lengths - 1
    found = []
    for place in range(places):
        long = np.flatnonzero(lengths > place)
        if len(long) < len(lengths):
            lengths, first, last = lengths[long], first[long], last[long]
        at = flat[last - place].astype(np.int64)
        at *= places * 2
        at += first
        at += place * 2
        found.append(at)
    return np.concatenate(found)


def _distinct(rows: Rows, wanted: Index, first: Index, column: str, places: int) -> Index:
    """Cells of the behaviours of wanted rows, each cell once a row."""
    is_wanted = np.zeros(len(rows), np.bool_)
    is_wanted[wanted] = True
    row = np.repeat(np.arange(len(rows)), rows.lengths)
    place = rows.histories[column].astype(np.int64)
    kept = np.flatnonzero(is_wanted[row] & (place <= places))
    row = row[kept]
    category = rows.histories[_CATEGORY][kept].astype(np.int64)
    inside = (category * places + place[kept] - 1) * 2
    span = int(inside.max(initial=0)) + 1
    row, inside = np.divmod(np.unique(row * span + inside), span)
    return first[row] + inside


def tables(cube: Cube, missing: float) -> Iterator[pa.Table]:
    """The columns and rows of `ctc.sql`, in its order, in parts of bounded size.

    Args:
        cube: the counts.
        missing: what stands for a count of 0; see `ctc.sql`.
    """
    slab = cube.present[0].size if len(cube.present) else 1
    step = max(1, _BLOCK // slab)
    for first in range(0, len(cube.targets), step):
        block = slice(first, first + step)
        present = cube.present[block]
        slot, category = np.nonzero(present.any(axis=(2, 3)))
        yield _table(cube.targets[block], cube.totals[block], slot, category,
                     present[slot, category], missing)  # fmt: skip


def _table(
    targets: Index,
    totals: NDArray[np.int64],
    slot: Index,
    category: Index,
    present: NDArray[np.int64],
    missing: float,
) -> pa.Table:
    """Rows of some pairs at all places.

    Args:
        targets: K ids.
        totals: K x 2.
        slot: which of `targets`, of each pair.
        category: of behaviours, of each pair.
        present: pairs x P x 2.
        missing: what stands for a count of 0.
    """
    places = present.shape[1]
    n_10, n_11 = (present[:, :, label].ravel() for label in (0, 1))
    all_0, all_1 = (np.repeat(totals[slot, label], places) for label in (0, 1))
    columns = [
        np.repeat(targets[slot], places).astype(np.int32),
        np.repeat(category, places).astype(np.int32),
        np.tile(np.arange(1, places + 1, dtype=np.int32), len(slot)),
        all_0 + all_1,
        all_1,
        n_10 + n_11,
        n_11,
        information(n_11, n_10, all_1 - n_11, all_0 - n_10, missing),
    ]
    return pa.table(columns, schema=SCHEMA)


def information(
    n_11: NDArray[np.int64],
    n_10: NDArray[np.int64],
    n_01: NDArray[np.int64],
    n_00: NDArray[np.int64],
    missing: float,
) -> NDArray[np.float64]:
    """Mutual information of event and label, bits (paper, Eq. 1), as `ctc.sql` has it.

    Args:
        n_11: rows with the event and a positive label; all four are of one shape.
        n_10: with the event, negative.
        n_01: without it, positive.
        n_00: without it, negative.
        missing: what stands for a count of 0; margins are sums of the counts so mended.
    """
    a, b, c, d = (np.maximum(n, missing) for n in (n_11, n_10, n_01, n_00))
    event, no_event, positive, negative = a + b, c + d, a + c, b + d
    n = event + no_event
    total = np.zeros(n.shape)
    of = ((a, event, positive), (b, event, negative), (c, no_event, positive))
    for joint, of_event, of_label in (*of, (d, no_event, negative)):
        # 0 log 0 is 0.
        ratio = np.divide(joint * n, of_event * of_label, out=np.ones_like(n), where=joint > 0)
        total += joint * np.log2(ratio)
    # Rounding may leave a hair below 0.
    bits: NDArray[np.float64] = np.maximum(total / n, 0)
    return bits
