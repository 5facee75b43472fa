"""A model as an ONNX graph, which is the model's own code as PyTorch's exporter follows it.

Its inputs are the shards' columns that the model reads, by their names, its outputs `logit` and
`score`, the probability of a positive label. In the graph of *rows* each has a history of its own;
in that of a *request* one history serves all of its candidates. With several histories each has its
own L, and columns called as it is.

| column | of rows | of a request |
|---|---|---|
| `target_<field>`, `<feature>`, ... | B | B |
| `history_length` | B | 1 |
| `history_<field>`, `history_position`, ... | B x L | 1 x L |
| `session_<field>`, `session_length` | B x M K, B x M | 1 x M K, 1 x M |

An input that would be called as an output is has a dot behind its name. B and L are any numbers
from 1: a history without behaviours has length 0 and L = 1, of padding. Of M sessions of K
behaviours, M and K are the data set's.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from schemas.bundle import OUTPUTS, Input, in_graph
from schemas.shards import session_prefix
from trainer.models.interest import TARGET, InterestModel
from trainer.models.reader import Reader

_TYPES = {"int32": torch.int32, "int64": torch.int64, "float32": torch.float32}
# A file of protobuf, which a graph is, holds less than 2 GiB: larger tables lie beside it.
_LARGEST = 1_500_000_000


class _Scored(nn.Module):
    """A model whose batch is as many arguments as it has columns."""

    def __init__(self, model: InterestModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, *columns: Tensor) -> tuple[Tensor, Tensor]:
        logit = self.model(dict(zip(self.model.columns, columns, strict=True)))
        return logit, torch.sigmoid(logit)


def inputs_of(
    model: InterestModel, request: bool, stored: Mapping[str, str] | None = None
) -> list[Input]:
    """The inputs of a model's graph, in the order of its columns.

    Args:
        request: whether one history serves all rows.
        stored: column -> what the shards call it, of those that they call otherwise.
    """
    found = [_input(model, column, request) for column in model.columns]
    return [replace(one, name=(stored or {}).get(one.name, one.name)) for one in found]


def _input(model: InterestModel, column: str, request: bool) -> Input:
    kind = "int64" if column == f"{TARGET}time" else "int32"
    kind = "float32" if column in model.inputs.numbers else kind
    for called, reader in model.readers.items():
        if column in reader.columns and not column.startswith(TARGET):
            first: int | str = 1 if request else "rows"
            kind = "int64" if column == f"{called}_time" else kind
            return Input(column, kind, [first, *_of_history(reader, called, column)], True)
    values = [model.inputs.lists[column][1]] if column in model.inputs.lists else []
    return Input(column, kind, ["rows", *values], False)


def _of_history(reader: Reader, called: str, column: str) -> list[int | str]:
    """The sides, but for the first, of a column that a reader reads of its history."""
    if column == f"{called}_length":
        return []
    if reader.cells is not None and reader.cells.stored:
        count, most = reader.cells.shape
        return [count if column == f"{session_prefix(called)}_length" else count * most]
    return [f"places_of_{called}"]


def write(model: InterestModel, path: Path, inputs: Sequence[Input]) -> None:
    """Write a model's graph. The model is on the CPU, and cannot be trained afterwards.

    Args:
        path: of the graph; tables that it cannot hold lie beside it.
        inputs: as `inputs_of` gives them.
    """
    named = dict.fromkeys(side for one in inputs for side in one.sides if isinstance(side, str))
    any_length = {name: torch.export.Dim(name, min=1) for name in named}
    # Sides of the example that the exporter follows: unequal, and neither 0 nor 1, which it would
    # take for lengths that never change.
    some = {name: 3 + 2 * at for at, name in enumerate(named)}
    examples, dynamic = [], []
    for one in inputs:
        sides = [some[side] if isinstance(side, str) else side for side in one.sides]
        examples.append(torch.ones(sides, dtype=_TYPES[one.type]))
        dynamic.append({at: any_length[s] for at, s in enumerate(one.sides) if isinstance(s, str)})
    with _quiet():
        program = torch.onnx.export(
            _Scored(model).eval().requires_grad_(False),
            tuple(examples),
            input_names=(names := [in_graph(one.name) for one in inputs]),
            output_names=OUTPUTS,
            dynamic_shapes=(tuple(dynamic),),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    _keep_apart(program.model.graph, {*names, *OUTPUTS})
    weights = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    program.save(path, external_data=weights > _LARGEST)


def _keep_apart(made: Any, taken: Set[str]) -> None:
    """Rename what the exporter calls as a column is, such as `cat`, or as an output."""
    outputs = {id(value) for value in made.outputs}
    within = [value for node in made.all_nodes() for value in node.outputs]
    for value in [*within, *made.initializers.values()]:
        if value.name in taken and id(value) not in outputs:
            value.name = f"{value.name}.within"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of its own work."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
