"""Two baselines that only count, to stand beside every table of models.

Shape legend: B rows of a batch, L behaviours (padded), N rows of a split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from schemas.manifest import FIRST_ID
from trainer.data.batches import Array, Index
from trainer.data.shards import Shards
from trainer.metrics import Floats, Integers, Metrics, evaluate

_ROWS = 65_536
_TARGET = "target_"


@dataclass(frozen=True)
class Scored:
    """Scored rows of a split, each array of N.

    Attributes:
        user: user of each row.
        label: 1 positive, 0 negative.
        score: larger where a positive is thought likelier.
    """

    user: Integers
    label: Integers
    score: Floats

    def measure(self) -> Metrics:
        """The metrics of the scores' order; None for logloss, as they are no probabilities."""
        return replace(evaluate(self.user, self.label, self.score), logloss=None)


def popularity(shards: Shards, split: str) -> Scored:
    """Score a row by how often its target is that of a positive of train."""
    columns = shards.key_columns
    sizes = shards.manifest.vocabulary
    dims = tuple(sizes[name.removeprefix(_TARGET)] for name in columns)

    def keys(rows: dict[str, Array]) -> Index:
        # Past 2^64 a key wraps round, so that two targets might share one, by an unlikely chance.
        found = np.zeros(len(rows[columns[0]]), np.int64)
        for name, size in zip(columns, dims, strict=True):
            found = found * size + rows[name].astype(np.int64)
        return found

    train = _batches(shards, "train", ("label", *columns))
    positives = np.concatenate([keys(rows)[rows["label"].astype(bool)] for rows in train])
    known, count = np.unique(positives, return_counts=True)
    # An end that no key reaches, so that every search finds a place.
    known, count = np.append(known, -1), np.append(count, 0)

    def score(rows: dict[str, Array]) -> Floats:
        key = keys(rows)
        place = np.searchsorted(known[:-1], key)
        return np.where(known[place] == key, count[place], 0).astype(np.float64)

    return _scored(shards, split, columns, score)


def group_share(shards: Shards, split: str) -> Scored:
    """Score a row by the share of its behaviours that are of the target's group, e.g. category.

    0 where there is no behaviour. An unknown group is the same as no other. Of several histories
    those count whose behaviours have a group.
    """
    group, target = shards.facts.group_field, f"{_TARGET}{shards.facts.group_field}"
    histories = [name for name, one in shards.facts.histories.items() if group in one.fields]

    def score(rows: dict[str, Array]) -> Floats:
        # Padding is 0, below the first real id, so it never counts.
        wanted = rows[target].astype(np.int64)[:, None]
        every = sum(rows[f"{name}_length"] for name in histories)
        same = sum((rows[f"{name}_{group}"] == wanted).sum(1) for name in histories)
        share: Floats = np.where(wanted[:, 0] >= FIRST_ID, same, 0) / np.maximum(every, 1)
        return share

    return _scored(shards, split, (target, *(f"{name}_{group}" for name in histories)), score)


def baselines_of(shards: Shards) -> dict[str, Callable[[Shards, str], Scored]]:
    """The baselines that a data set has, by name: the second where it has a `group_field`."""
    group = shards.facts.group_field
    grouped = {} if group is None else {f"{group}_share": group_share}
    return {"popularity": popularity, **grouped}


def _batches(shards: Shards, split: str, columns: tuple[str, ...]) -> Iterator[dict[str, Array]]:
    for batch in shards.batches(split, batch_size=_ROWS, columns=columns):
        yield {name: tensor.numpy() for name, tensor in batch.items()}


def _scored(
    shards: Shards,
    split: str,
    columns: tuple[str, ...],
    score: Callable[[dict[str, Array]], Floats],
) -> Scored:
    parts = [
        (rows["user"], rows["label"].astype(np.int8), score(rows))
        for rows in _batches(shards, split, ("user", "label", *columns))
    ]
    user, label, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Scored(user, label, scores)
