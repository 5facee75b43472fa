"""Scoring with a bundle, by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas import bundle
from schemas.bundle import Bundle
from schemas.checked import Misfit, build
from schemas.errors import ContractError, EnvironmentFault
from trainer.data.batches import Batch
from trainer.data.inputs import Inputs, as_now, require_alike
from trainer.data.shards import Shards

Columns = dict[str, NDArray[Any]]
_BATCH_ROWS = 4096


def required(name: str) -> ModuleType:
    """A package of the extra.

    Raises:
        EnvironmentFault: it is not installed.
    """
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError:
        raise EnvironmentFault(
            "Exporting, and scoring with what was exported, need further packages.",
            expected=f"the package {name}",
            got="not installed",
            do="pip install 'tinprep[export]'",
        ) from None


class Scorer:
    """A bundle's model at work.

    Args:
        made: what the bundle says of itself.
        model: its graph.
        threads: of ONNX Runtime; one is the fastest for requests of hundreds of candidates.

    Raises:
        EnvironmentFault: ONNX Runtime is not installed.
    """

    def __init__(self, made: Bundle, model: Path, threads: int = 1) -> None:
        self.bundle = made
        self.inputs = {one.name: one for one in made.inputs}
        runtime = required("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        self.session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    @classmethod
    def of(cls, folder: Path | str, threads: int = 1) -> Scorer:
        """That of a bundle; raises as `schemas.bundle.load`."""
        made = bundle.load(Path(folder))
        return cls(made, Path(folder) / bundle.MODEL, threads)

    def score(self, columns: Columns) -> NDArray[np.float32]:
        """Give the logit and the probability of each row, 2 x B.

        Args:
            columns: of the bundle's `inputs`, each as its `type` and `sides` say: in a request
                those of the history have one row.
        """
        return np.stack(self.session.run(self.bundle.outputs, columns))

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
            new[1:] |= (column[1:] != column[:-1]).reshape(rows - 1, -1).any(1)
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

    Args:
        scorer: the bundle's.
        shards: a data set that means what that of the training meant.
        split: which split.
        also: columns to read beside the model's.

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
