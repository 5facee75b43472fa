"""The parts that user-interest models are composed of.

Shape legend: B rows of a batch, L history (padded), D width of an embedded behaviour or target.
`x_BLD` are the encoded behaviours, `t_BD` the encoded target, `mask_BL` is true where a behaviour
is and false in the padding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainer.rows import Batch

# Large enough to vanish in a softmax, small enough to stay finite in float32.
_HIDDEN = -1e30


class Table(nn.Embedding):
    """An embedding table whose gradient is sparse; `trainer.optimizer` gives it dense Adam.

    Args:
        size: number of ids, padding and unknown included.
        width: numbers per id.
        scale: None for Glorot's uniform limit sqrt(6 / (size + width)), else the standard
            deviation of a normal.
    """

    def __init__(self, size: int, width: int, scale: float | None = None) -> None:
        self.scale = scale
        super().__init__(size, width, sparse=True)

    def reset_parameters(self) -> None:
        """Draw the initial values: small, as attention saturates otherwise."""
        if self.scale is None:
            nn.init.xavier_uniform_(self.weight)
        else:
            nn.init.normal_(self.weight, std=self.scale)


class Fields(nn.Module):
    """Ids of several fields, embedded one table each and concatenated (A.1).

    Args:
        sizes: field -> ids, in the order of concatenation.
        width: numbers per field.
    """

    def __init__(self, sizes: dict[str, int], width: int) -> None:
        super().__init__()
        self.tables = nn.ModuleDict({name: Table(size, width) for name, size in sizes.items()})

    def forward(self, batch: Batch, prefixes: Sequence[str]) -> Tensor:
        """Embed the columns `<prefix><field>` of all prefixes in one look-up a table.

        Args:
            batch: ids of B, or of B x L.
            prefixes: which columns; one after another in the result.

        Returns:
            N x D, N being the ids of all prefixes.
        """
        return torch.cat(
            [
                table(torch.cat([batch[prefix + name].flatten() for prefix in prefixes]))
                for name, table in self.tables.items()
            ],
            dim=1,
        )


class TargetAware(nn.Module):
    """Target-aware temporal encoding (3.2.1): p_f(X_i) is added to behaviours, p_0 to the target.

    Row 0 of the table is the target's origin and is learned like the others: no `padding_idx`.

    Args:
        column: where the behaviours' indices are: positions for TTE-P, interval bins for TTE-T.
        size: indices, the origin included.
        width: D.
    """

    def __init__(self, column: str, size: int, width: int) -> None:
        super().__init__()
        self.column = column
        self.table = Table(size, width)

    def forward(self, e_ND: Tensor, batch: Batch) -> Tensor:  # noqa: N803
        """Encode B targets followed by their B x L behaviours; N = B + B L."""
        index = batch[self.column]
        origin = index.new_zeros(len(index))
        place_ND: Tensor = self.table(torch.cat([origin, index.flatten()]))  # noqa: N806
        return e_ND + place_ND


class NoTime(nn.Module):
    """No temporal information."""

    def forward(self, e_ND: Tensor, batch: Batch) -> Tensor:  # noqa: N803
        """Return targets and behaviours as they are."""
        return e_ND


class ScaledDotProduct(nn.Module):
    """Target-aware attention (3.2.2): softmax over the history of <t, x_i> / sqrt(D)."""

    def scores(self, x_BLD: Tensor, t_BD: Tensor) -> Tensor:  # noqa: N803
        """Give the scores before the softmax, BL (z of Eq. 4)."""
        return torch.bmm(x_BLD, t_BD.unsqueeze(2)).squeeze(2) / math.sqrt(t_BD.shape[-1])

    def forward(self, x_BLD: Tensor, t_BD: Tensor, mask_BL: Tensor) -> Tensor:  # noqa: N803
        """Return weights BL: 0 in the padding, all 0 for an empty history."""
        weights = self.scores(x_BLD, t_BD).masked_fill(~mask_BL, _HIDDEN).softmax(1)
        # The softmax of an empty history is uniform over its padding.
        return weights * mask_BL


class Uniform(nn.Module):
    """No attention: each of n behaviours weighs 1/n."""

    def forward(self, x_BLD: Tensor, t_BD: Tensor, mask_BL: Tensor) -> Tensor:  # noqa: N803
        """Return weights BL: 0 in the padding, all 0 for an empty history."""
        weights = mask_BL.to(x_BLD.dtype)
        return weights / weights.sum(1, keepdim=True).clamp(min=1.0)


class WeightedSum(nn.Module):
    """Pool by sum_i a_i r_i; linear, so that a product with the target may follow it."""

    def forward(self, x_BLD: Tensor, weight_BL: Tensor) -> Tensor:  # noqa: N803
        """Return BD."""
        return torch.bmm(weight_BL.unsqueeze(1), x_BLD).squeeze(1)


class Product(nn.Module):
    """Target-aware representation (3.2.2): r_i = x_i * t, element by element.

    t is the same for all i, so sum_i a_i (x_i * t) = (sum_i a_i x_i) * t: applied after a linear
    pool the B x L x D product never exists.
    """

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Multiply; shapes broadcast."""
        return x * t


class Plain(nn.Module):
    """The behaviour as it is: r_i = x_i."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return x."""
        return x


class ScaleShift(nn.Module):
    """Learned scale and shift of each column: a batch norm that never sees training mode.

    Source: the released code, whose norms keep their initial moving mean 0 and variance 1.
    """

    def __init__(self, width: int, epsilon: float = 1e-3) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))
        self.shift = nn.Parameter(torch.zeros(width))
        self.constant = 1.0 / math.sqrt(1.0 + epsilon)

    def forward(self, x: Tensor) -> Tensor:
        """Return x * scale / sqrt(1 + epsilon) + shift."""
        return torch.addcmul(self.shift, x, self.scale, value=self.constant)


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
