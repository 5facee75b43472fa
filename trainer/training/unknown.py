"""Ids that training takes for unknown ones, by chance, so that the unknown id is trained as well.

The unknown id may stand in no row of train. Its vector then is what it was drawn as, while new
events have many values without an id of their own (word dropout: Iyyer et al. 2015).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from schemas.manifest import FIRST_ID, UNKNOWN_ID
from schemas.shards import session_prefix
from trainer.data.batches import PLACE, Batch
from trainer.data.inputs import Inputs
from trainer.models.interest import TARGET
from trainer.training.hashing import mixed

_BITS = 24


def with_unknown(
    batches: Iterator[list[Batch]], inputs: Inputs, rate: float, seed: int, epoch: int
) -> Iterator[list[Batch]]:
    """The same batches with some ids replaced by the unknown one.

    Whether an id is replaced is a pure function of the seed, the epoch, the row, the vocabulary and
    the id: one value of a row is unknown wherever it stands in it, or nowhere.

    Args:
        batches: each as a list of groups, with the column `PLACE`.
        inputs: which columns are ids, and of which vocabulary.
        rate: the share of ids that are replaced.
        epoch: another one replaces others.
    """
    begins = [one for called in inputs.histories for one in (called, session_prefix(called))]
    prefixes = [TARGET, *(f"{one}_" for one in begins)]
    of = {prefix + name: name for prefix in prefixes for name in inputs.fields}
    of |= {name: inputs.shared.get(name, name) for name in (*inputs.others, *inputs.lists)}
    numbers = {name: n for n, name in enumerate(sorted({*of.values()}))}
    columns = {column: numbers[vocabulary] for column, vocabulary in of.items()}
    key = mixed(mixed(torch.tensor(seed)) + epoch)
    replaced = partial(_replaced, columns=columns, rate=rate, key=key)
    yield from (list(map(replaced, groups)) for groups in batches)


def _replaced(batch: Batch, columns: dict[str, int], rate: float, key: Tensor) -> Batch:
    """A batch of B rows with some ids replaced; see `with_unknown`."""
    of_row = mixed(key + batch[PLACE])
    found = dict(batch)
    for column, number in columns.items():
        if (ids := batch.get(column)) is None:
            continue
        row = mixed(of_row + number).view(-1, *[1] * (ids.dim() - 1))
        chance = (mixed(row + ids) >> 7) & ((1 << _BITS) - 1)
        gone = (chance < int(rate * (1 << _BITS))) & (ids >= FIRST_ID)
        found[column] = ids.masked_fill(gone, UNKNOWN_ID)
    return found
