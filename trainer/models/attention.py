"""Which behaviours count, how much, and as what: search, attention, pool and representation.

Shape legend: B rows of a batch, L behaviours (padded) or whatever the context made of them, D width
of an embedded behaviour or target. `x_BLD` are the encoded behaviours, `t_BD` the encoded target,
`mask_BL` is true where a behaviour is and false in the padding. In a request, B candidates share
one history: then behaviours and mask, and what is made of them alone, have 1 row for B.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from schemas.errors import UsageError
from trainer.data.batches import HISTORY, LENGTH, Batch
from trainer.models.layers import Unlearned, dense


class Latest(nn.Module):
    """SIM's short-term interest: only the latest 10 behaviours stay."""

    columns = ()

    def __init__(self, group_field: str | None) -> None:
        super().__init__()

    def forward(self, batch: Batch, mask_BL: Tensor) -> Tensor:
        """Narrow the mask."""
        places = torch.arange(mask_BL.shape[1], device=mask_BL.device)
        return mask_BL & (places >= batch[LENGTH].unsqueeze(1) - 10)


class SameGroup(nn.Module):
    """SIM's hard search: only behaviours of the target's group stay, e.g. of its category.

    The original searches a history of thousands for the latest of them; ours are at most L.

    Raises:
        UsageError: the data set has no such field.
    """

    def __init__(self, group_field: str | None) -> None:
        super().__init__()
        if group_field is None:
            raise UsageError(
                "This model looks for behaviours of the target's group, and there are no groups.",
                expected="a data set with a `group_field`, e.g. category",
                got="none",
            )
        self.columns = (f"{HISTORY}{group_field}", f"target_{group_field}")

    def forward(self, batch: Batch, mask_BL: Tensor) -> Tensor:
        """Narrow the mask."""
        behaviour, target = (batch[name] for name in self.columns)
        return mask_BL & (behaviour == target.unsqueeze(1))


def masked_softmax(score_BL: Tensor, mask_BL: Tensor) -> Tensor:
    """Softmax over the behaviours: 0 in the padding, all 0 where there is none.

    Shapes broadcast, so scores may be B x L x H for H heads, with a mask of B x L x 1.
    """
    weights = score_BL.masked_fill(~mask_BL, torch.finfo(score_BL.dtype).min).softmax(1)
    # The softmax of an empty history is uniform over its padding.
    return weights * mask_BL


def products(x_BLD: Tensor, t_BD: Tensor) -> Tensor:
    """<x_i, t> of each behaviour and its target, BL; of one history for all by one product."""
    if x_BLD.shape[0] != t_BD.shape[0]:
        return t_BD @ x_BLD[0].T
    return torch.bmm(x_BLD, t_BD.unsqueeze(2)).squeeze(2)


class TargetAttention(Unlearned, ABC):
    """Weights by a softmax over the history of a score of behaviour and target."""

    @abstractmethod
    def scores(self, x_BLD: Tensor, t_BD: Tensor) -> Tensor:
        """Give the scores before the softmax, BL (z of Eq. 4)."""

    def forward(self, x_BLD: Tensor, t_BD: Tensor, mask_BL: Tensor) -> Tensor:
        """Return weights BL: 0 in the padding, all 0 for an empty history."""
        return masked_softmax(self.scores(x_BLD, t_BD), mask_BL)


class ScaledDotProduct(TargetAttention):
    """Target-aware attention (3.2.2): <t, x_i> / sqrt(D)."""

    def scores(self, x_BLD: Tensor, t_BD: Tensor) -> Tensor:
        """Give the scores, BL."""
        return products(x_BLD, t_BD) / math.sqrt(t_BD.shape[-1])


class Bilinear(TargetAttention):
    """x_i W t, with W learned: DIEN's Eq. 12 and both of DSIN's activations (its Eqs. 8 and 9)."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.form = nn.Parameter(torch.empty(width, width))
        nn.init.xavier_uniform_(self.form)

    def scores(self, x_BLD: Tensor, t_BD: Tensor) -> Tensor:
        """Give the scores, BL."""
        return products(x_BLD, t_BD @ self.form.T)


class ActivationUnit(TargetAttention):
    """DIN's MLP on [x, t, x - t, x * t], 80-40-1 with sigmoids, then a softmax.

    As in DIN's released code for Amazon, which divides the scores by sqrt(D). The paper of DIN has
    neither that nor the softmax, and Dice for the sigmoid.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.first = dense(4 * width, 80)
        self.second, self.last = dense(80, 40), dense(40, 1)

    def scores(self, x_BLD: Tensor, t_BD: Tensor) -> Tensor:
        """Give the scores, BL.

        The first layer is linear in x, t and x * t: W [x, t, x - t, x * t] is taken apart so that
        the B x L x 4D input never exists.
        """
        on_x, on_t, on_difference, on_product = self.first.weight.chunk(4, dim=1)
        of_t = torch.addmm(self.first.bias, t_BD, (on_t - on_difference).T).unsqueeze(1)
        of_x = x_BLD @ (on_x + on_difference).T
        h = torch.sigmoid(of_x + of_t + (x_BLD * t_BD.unsqueeze(1)) @ on_product.T)
        score: Tensor = self.last(torch.sigmoid(self.second(h))).squeeze(2)
        return score / math.sqrt(t_BD.shape[-1])


class Uniform(Unlearned):
    """No attention: each of n behaviours weighs 1/n."""

    def forward(self, x_BLD: Tensor, t_BD: Tensor, mask_BL: Tensor) -> Tensor:
        """Return weights BL: 0 in the padding, all 0 for an empty history."""
        weights = mask_BL.to(x_BLD.dtype)
        return weights / weights.sum(1, keepdim=True).clamp(min=1.0)


class TriangularMean(Unlearned):
    """A mean in which older behaviours weigh more: all that TIN's released SASRec does.

    Its self-attention has no weights, and its softmax runs over the looking places: A = softmax
    over i of <x_i, x_j> / sqrt(D), i and j real. Then A is 0 where i < j, so that nothing looks
    ahead, and u = 1/n sum_i sum_j A_ij x_j. So x_j weighs 1/n sum_(i >= j) A_ij. Without what is
    dropped each would weigh 1/n; with equal scores the j-th of n, oldest first, weighs
    (n + 1 - j) / n^2.
    """

    def forward(self, x_BLD: Tensor, t_BD: Tensor, mask_BL: Tensor) -> Tensor:
        """Return weights BL: 0 in the padding, all 0 for an empty history."""
        score_BLL = torch.bmm(x_BLD, x_BLD.transpose(1, 2)) / math.sqrt(x_BLD.shape[-1])
        seen_BLL = masked_softmax(score_BLL, mask_BL.unsqueeze(2)).tril()
        return seen_BLL.sum(1) * mask_BL / mask_BL.sum(1, keepdim=True).clamp(min=1)


class Last(Unlearned):
    """No attention: all weight on the last behaviour's state."""

    def forward(self, x_BLD: Tensor, t_BD: Tensor, mask_BL: Tensor) -> Tensor:
        """Return weights BL: 0 in the padding, all 0 for an empty history."""
        after = torch.nn.functional.pad(mask_BL[:, 1:], (0, 1))
        return (mask_BL & ~after).to(x_BLD.dtype)


class AtTarget(Unlearned):
    """All weight on the target's own state, the one that `TargetTransformer` gives."""

    def forward(self, x_BLD: Tensor, t_BD: Tensor, mask_BL: Tensor) -> Tensor:
        """Return weights BL: 0 where there is no behaviour beside the target, so no interest."""
        return mask_BL.to(x_BLD.dtype)


class WeightedSum(Unlearned):
    """Pool by sum_i a_i r_i; linear, so that a product with the target may follow it."""

    def forward(self, x_BLD: Tensor, weight_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Return BD."""
        if x_BLD.shape[0] != weight_BL.shape[0]:
            return weight_BL @ x_BLD[0]
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
