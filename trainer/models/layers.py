"""The layers that every model has: embedding tables at its foot, the head on top.

Shape legend: N ids or rows, D width of an embedded behaviour or target.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate
from keyword import iskeyword
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding

from trainer.data.facts import TableNumbers

# Numbers of a narrow table that are drawn at a time.
_DRAWN = 1 << 20


class _Widened(Function):
    """Rows of a table in bfloat16, in float32, and so is their gradient.

    Left to autograd, the gradient would be rounded to bfloat16.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor) -> Tensor:
        """Give the rows."""
        ctx.save_for_backward(ids)
        ctx.shape = weight.shape
        return embedding(ids, weight).float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_rows: Tensor) -> tuple[Tensor, None]:
        """Give a sparse gradient, with a row that was looked up twice in it twice."""
        (ids,) = ctx.saved_tensors
        index, values = ids.reshape(1, -1).long(), of_rows.reshape(-1, ctx.shape[1])
        return torch.sparse_coo_tensor(index, values, ctx.shape, check_invariants=False), None


class Table(nn.Embedding):
    """An embedding table whose gradient is sparse; the optimizer makes it dense.

    What is looked up is in float32, whatever the table's own numbers.

    Args:
        size: number of ids, padding and unknown included.
        width: numbers per id.
        scale: None for Glorot's uniform limit sqrt(6 / (size + width)), else the standard
            deviation of a normal.
        numbers: what it is held in.
    """

    def __init__(
        self, size: int, width: int, scale: float | None = None, numbers: TableNumbers = "float32"
    ) -> None:
        self.scale = scale
        super().__init__(size, width, sparse=True, dtype=getattr(torch, numbers))

    def reset_parameters(self) -> None:
        """Draw the initial values: small, as attention saturates otherwise."""
        if self.scale is None:
            limit = math.sqrt(3.0) * math.sqrt(2.0 / (self.num_embeddings + self.embedding_dim))
            draw(self.weight, partial(nn.init.uniform_, a=-limit, b=limit))
        else:
            draw(self.weight, partial(nn.init.normal_, std=self.scale))

    def forward(self, ids: Tensor) -> Tensor:
        """Look up ids of any shape, in float32: their shape, then the width."""
        if self.weight.dtype == torch.bfloat16:
            found: Tensor = _Widened.apply(self.weight, ids)  # type: ignore[no-untyped-call]
            return found
        return super().forward(ids)


@torch.no_grad()
def draw(weight: Tensor, fill: Callable[[Tensor], object]) -> None:
    """Fill a weight with drawn values, the same but for rounding whatever its numbers.

    Args:
        weight: whose values are replaced; of a narrow one some rows at a time are drawn in float32,
            so that all of them never are in memory.
        fill: fills a tensor of float32 in place.
    """
    if weight.dtype == torch.float32:
        fill(weight)
        return
    for rows in torch.split(weight, max(1, _DRAWN // weight.shape[1])):
        drawn = torch.empty_like(rows, dtype=torch.float32)
        fill(drawn)
        rows.copy_(drawn)


class Fields(nn.Module):
    """Ids of several fields, embedded one table each and concatenated (A.1).

    Args:
        sizes: field -> ids, in the order of concatenation.
        width: numbers per field.
    """

    def __init__(
        self, sizes: dict[str, int], width: int, numbers: TableNumbers = "float32"
    ) -> None:
        super().__init__()
        self.width, self.names = width, tuple(sizes)
        self.tables = nn.ModuleDict(
            {_key(name): Table(size, width, numbers=numbers) for name, size in sizes.items()}
        )

    def __getitem__(self, name: str) -> nn.Module:
        """The table of a field."""
        return self.tables[_key(name)]

    def forward(self, *asked: Mapping[str, Tensor]) -> Tensor:
        """Embed the ids of several things in one look-up a table, which costs less than one each.

        Args:
            *asked: of each, field -> its ids.

        Returns:
            N x D, N being all of their ids, one thing after another.
        """
        each = [
            table(torch.cat([ids[name] for ids in asked]))
            for name, table in zip(self.names, self.tables.values(), strict=True)
        ]
        return torch.cat(each, dim=1)

    def apart(self, *asked: Mapping[str, Tensor]) -> list[list[Tensor]]:
        """As `forward`, each thing and each field that it has by itself."""
        counts = [next(iter(ids.values())).shape[0] for ids in asked]
        found: list[list[Tensor]] = [[] for _ in asked]
        for name, table in zip(self.names, self.tables.values(), strict=True):
            if having := {at: ids[name] for at, ids in enumerate(asked) if name in ids}:
                each = torch.split(
                    table(torch.cat([*having.values()])), [counts[at] for at in having]
                )
                for at, part in zip(having, each, strict=True):
                    found[at].append(part)
        return found


class OneTable(nn.Module):
    """Several vocabularies in one table: all ids of a batch are embedded by one look-up.

    Args:
        sizes: vocabulary -> ids.
        width: numbers per id and set.
        sets: how many embeddings each id has, side by side, each drawn by itself.
        numbers: what the table is held in.
    """

    def __init__(
        self, sizes: Mapping[str, int], width: int, sets: int, numbers: TableNumbers = "float32"
    ) -> None:
        super().__init__()
        self.width = width * sets
        ends = [*accumulate(sizes.values())]
        self.begins = dict(zip(sizes, [0, *ends], strict=False))
        self.table: nn.Module = Table(ends[-1], self.width, 0.0, numbers)
        weight = self.table.get_parameter("weight").detach()
        for name, size in sizes.items():
            limit, begin = math.sqrt(6 / (size + width)), self.begins[name]
            draw(weight[begin : begin + size], partial(nn.init.uniform_, a=-limit, b=limit))

    def forward(self, *ids: Tensor) -> Tensor:
        """Embed ids, moved by where their vocabulary begins, N x width, one after the other."""
        found: Tensor = self.table(torch.cat([each.flatten() for each in ids]))
        return found


def _key(name: str) -> str:
    """A field's key in a `ModuleDict`, which takes no name of an attribute of its own: `type`.

    Nor does the exporter a word of Python's: `class`.
    """
    return f"of {name}" if hasattr(_NONE, name) or iskeyword(name) else name


_NONE = nn.ModuleDict()


def mean_of_values(table: nn.Module, ids_BN: Tensor, length_B: Tensor) -> Tensor:
    """A multi-valued feature as the mean of its values' embeddings, B x D; zeros where it has none.

    Args:
        ids_BN: at most N values a row; what stands after a row's own has no effect.
        length_B: how many values each row has.
    """
    real_BN = torch.arange(ids_BN.shape[1], device=ids_BN.device) < length_B.unsqueeze(1)
    value_BND = table(ids_BN * real_BN)  # the padding's rows are masked below
    total_BD = torch.where(real_BN.unsqueeze(2), value_BND, 0.0).sum(1)
    mean_BD: Tensor = total_BD / length_B.clamp(min=1).unsqueeze(1)
    return mean_BD


class Unlearned(nn.Module):
    """A part without weights. Recipes build each part for a width; this one has no use for it."""

    def __init__(self, width: int = 0) -> None:
        super().__init__()


class ScaleShift(nn.Module):
    """Learned scale and shift of each column: a batch norm that never sees training mode.

    Source: the released code, whose norms keep their initial moving mean 0 and variance 1.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))
        self.shift = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return x * scale / sqrt(1 + epsilon) + shift, with the released code's epsilon."""
        return torch.addcmul(self.shift, x, self.scale, value=1.0 / math.sqrt(1.0 + 1e-3))


ACTIVATIONS = ("sigmoid", "relu", "prelu")


def activation(name: str, width: int) -> nn.Module:
    """Build one of `ACTIVATIONS`; PReLU learns one slope per unit.

    DIN's Dice is left out: its batch statistics would make a row's score depend on the others.
    """
    if name == "prelu":
        return nn.PReLU(width)
    return nn.ReLU() if name == "relu" else nn.Sigmoid()


def dense(inputs: int, outputs: int) -> nn.Linear:
    """Build a linear layer with Glorot weights and zero bias."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def mlp(inputs: int, hidden: Sequence[int], act: str) -> nn.Sequential:
    """Build the head's MLP: `hidden` layers with activations, then one logit."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [dense(inputs, width), activation(act, width)]
        inputs = width
    return nn.Sequential(*layers, dense(inputs, 1))
