"""Scoring with a bundle, by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from schemas import bundle
from schemas.checked import Misfit, build
from schemas.errors import ContractError
from schemas.scorer import Columns, Graph
from trainer.data.batches import Batch
from trainer.data.inputs import Inputs, as_now, require_alike
from trainer.data.shards import Shards

_BATCH_ROWS = 4096


class Scorer(Graph):
    """A bundle's model, for rows as shards have them."""

    @classmethod
    def of(cls, folder: Path | str, threads: int = 1) -> Scorer:
        """That of a bundle; raises as `schemas.bundle.load`."""
        made = bundle.load(Path(folder))
        return cls(made, Path(folder) / bundle.MODEL, threads)

    def rows(self, columns: Columns) -> NDArray[np.float32]:
        """The same of rows as shards have them, each with its own history.

        Neighbours of one history, e.g. a positive and its negatives, are scored as one request.
        """
        if self.bundle.shape == "rows":
            return self.score(columns)
        of_history = {
            name: column for name, column in columns.items() if self.inputs[name].of_history
        }
        rows = len(next(iter(columns.values())))
        new = np.ones(rows, bool)
        new[1:] = False
        for column in of_history.values():
            differ = column[1:] != column[:-1]
            new[1:] |= differ.any(tuple(range(1, differ.ndim)))
        begins = np.flatnonzero(new)
        found = [
            self.score(
                {
                    name: column[lo : lo + 1] if name in of_history else column[lo:hi]
                    for name, column in columns.items()
                }
            )
            for lo, hi in zip(begins, [*begins[1:], rows], strict=True)
        ]
        return np.concatenate(found, axis=1)


def scores(
    scorer: Scorer, shards: Shards, split: str, also: tuple[str, ...]
) -> Iterator[tuple[Batch, NDArray[np.float32]]]:
    """Score every row of a split with a bundle.

    Yields:
        Some rows, in the split's order, and their logits and probabilities, 2 x B.

    Raises:
        ContractError: ids, bins, numbers or histories mean something else to the model.
    """
    try:
        trained = build(Inputs, as_now(scorer.bundle.trained_on))
    except Misfit as error:
        raise ContractError(
            f"The bundle says what cannot be: trained_on.{error.at[:200]}.",
            expected=error.expected,
            got=error.got,
            do="export the run again",
        ) from None
    require_alike(trained, shards)
    read = {stored: column for column, stored in shards.facts.stored.items()}
    names = {name: read.get(name, name) for name in scorer.inputs}
    for batch in shards.batches(split, batch_size=_BATCH_ROWS, columns=(*names.values(), *also)):
        yield batch, scorer.rows({name: batch[column].numpy() for name, column in names.items()})
