"""Experts on feature interactions (paper 4.6): what each makes of the embedded fields of a row.

A field is a field of the target, an id feature, a multi-valued feature (the mean of its values), a
number (times a learned vector), or one of a history's (the mean of its behaviours).

Shape legend: B rows of a batch, F fields, D width of an embedded field, G groups of fields, U width
of all histories' interests by TIN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from trainer.models.layers import dense

_CROSS_LAYERS = 2
# Above so many numbers a row a cross layer's matrix is a product of two thinner ones.
_FULL_RANK, _RANK = 1024, 256
# Rows whose products are made at a time: 222 fields' are 3 MB, which caches hold.
_ROWS = 16


@dataclass(frozen=True)
class Shape:
    """What experts must know to be built.

    Attributes:
        groups: of each of F fields, the number of its group.
        parts: of each of G groups, its part: 0 or 1.
        compared: the first fields, those that TIN compares with behaviours.
        width: D.
        interest: U; 0 without TIN.
    """

    groups: tuple[int, ...]
    parts: tuple[int, ...]
    compared: int
    width: int
    interest: int = 0


class Expert(nn.Module):
    """What is made of a row's fields, for a dense layer to read.

    It is called with TIN's interests, B x U, or None, and the fields in each table set that it
    reads, B x F x D; it gives B x `out`.

    Attributes:
        sets: how many table sets it reads.
        out: how many numbers a row it gives.
    """

    sets = 1

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.out = len(shape.groups) * shape.width


class GwPFM(Expert):
    """Group-weighted part-aware factorization machine, before its sum over D.

    sum_i w_i * e_i^own + sum_(i<j) r_g(i)g(j) e_i^p(j) * e_j^p(i): with groups g, parts p and two
    embeddings of a field, one for fields of its own part and one for those of the other. With one
    embedding and a group for each field its sum over D is FwFM's logit with linear terms of the
    fields' embeddings.

    Fields of a group weigh the same, so they are added up first: F D + G^2 D products for F^2 D.
    """

    sets = 2

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        fields, groups = len(shape.groups), len(shape.parts)
        self.out = shape.width
        self.linear = nn.Parameter(torch.empty(fields, shape.width))
        nn.init.xavier_uniform_(self.linear)
        self.weight = nn.Parameter(torch.ones(groups * (groups + 1) // 2))
        low, high = torch.tril_indices(groups, groups)
        place = torch.zeros(groups, groups, dtype=torch.int64)
        place[low, high] = place[high, low] = torch.arange(len(low))
        of_group = torch.tensor(shape.groups)
        part = torch.tensor(shape.parts)
        self.register_buffer("place", place, persistent=False)
        self.register_buffer("of_group", of_group, persistent=False)
        member = (torch.arange(groups).unsqueeze(1) == of_group).float()
        self.register_buffer("member", member, persistent=False)
        other = part.unsqueeze(1) != part
        self.register_buffer("other", other.float(), persistent=False)

    def forward(self, interest: Tensor | None, other_BFD: Tensor, own_BFD: Tensor) -> Tensor:
        """Give the sum, BD.

        Args:
            interest: not read.
            other_BFD: the embeddings that face the other part.
            own_BFD: those that face their own part.
        """
        place, of_group = self.get_buffer("place"), self.get_buffer("of_group")
        member, other = self.get_buffer("member"), self.get_buffer("other")
        r_GG = self.weight[place]
        across_BGD, within_BGD = member @ other_BFD, member @ own_BFD
        pairs_BD = (across_BGD * ((r_GG * other) @ across_BGD)).sum(1)
        pairs_BD = pairs_BD + (within_BGD * ((r_GG * (1 - other)) @ within_BGD)).sum(1)
        # No field meets itself.
        of_itself_F = r_GG.diagonal()[of_group].unsqueeze(1)
        pairs_BD = pairs_BD - (of_itself_F * own_BFD * own_BFD).sum(1)
        return (self.linear * own_BFD).sum(1) + pairs_BD / 2


class _Pairs(Function):
    """Embeddings, and the inner products of each two of them; see `IPNN`.

    Left to autograd, the gradient of F (F - 1) / 2 products is spread over F^2 zeros and multiplied
    twice; here it is looked up in both places and multiplied once, some rows at a time.
    """

    @staticmethod
    def forward(ctx: Any, e_BFD: Tensor, pair_P: Tensor, at_FF: Tensor) -> Tensor:
        """Give B x (F D + P): `pair_P` says where the pairs stand in F x F."""
        ctx.save_for_backward(e_BFD, at_FF)
        rows, fields, width = e_BFD.shape
        made = e_BFD.new_empty(rows, fields * width + len(pair_P))
        for begin in range(0, rows, _ROWS):
            e, out = e_BFD[begin : begin + _ROWS], made[begin : begin + _ROWS]
            product_BFF = torch.bmm(e, e.transpose(1, 2))
            out[:, : fields * width] = e.flatten(1)
            out[:, fields * width :] = product_BFF.flatten(1).index_select(1, pair_P)
        return made

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_made: Tensor) -> tuple[Tensor, None, None]:
        """Give the gradient of the embeddings; `at_FF` says which pair two fields are."""
        e_BFD, at_FF = ctx.saved_tensors
        _, fields, width = e_BFD.shape
        of_e = torch.empty_like(e_BFD)
        for begin in range(0, len(e_BFD), _ROWS):
            some = of_made[begin : begin + _ROWS]
            of_product = some[:, fields * width :].index_select(1, at_FF.flatten())
            of_product = of_product.view(-1, fields, fields)
            of_product.diagonal(dim1=1, dim2=2).zero_()
            of_e[begin : begin + _ROWS] = torch.baddbmm(
                some[:, : fields * width].view(-1, fields, width),
                of_product,
                e_BFD[begin : begin + _ROWS],
            )
        return of_e, None, None


class IPNN(Expert):
    """Inner-product neural network's input: [e_1, ..., e_F, <e_i, e_j> for i < j]."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        fields = len(shape.groups)
        low, high = torch.triu_indices(fields, fields, offset=1)
        at = torch.zeros(fields, fields, dtype=torch.int64)
        at[low, high] = at[high, low] = torch.arange(len(low))
        self.register_buffer("pairs", low * fields + high, persistent=False)
        self.register_buffer("at", at, persistent=False)
        self.out += len(low)

    def forward(self, interest: Tensor | None, e_BFD: Tensor) -> Tensor:
        """Give embeddings and products, B x (F D + F (F - 1) / 2)."""
        pair_P = self.get_buffer("pairs")
        if not torch.compiler.is_exporting():
            made: Tensor = _Pairs.apply(e_BFD, pair_P, self.get_buffer("at"))  # type: ignore[no-untyped-call]
            return made
        product_BFF = torch.bmm(e_BFD, e_BFD.transpose(1, 2))
        return torch.cat([e_BFD.flatten(1), product_BFF.flatten(1).index_select(1, pair_P)], dim=1)


class DCNv2(Expert):
    """Deep and cross network's cross layers: x_(l+1) = x_0 * (W_l x_l + b_l) + x_l.

    Args:
        rank: W = U V with so many columns of U; None for a whole matrix.
    """

    def __init__(self, shape: Shape, layers: int = _CROSS_LAYERS, rank: int | None = None) -> None:
        super().__init__(shape)
        if rank is None and self.out > _FULL_RANK:
            rank = _RANK
        self.layers = nn.ModuleList(
            dense(self.out, self.out)
            if rank is None
            else nn.Sequential(nn.Linear(self.out, rank, bias=False), dense(rank, self.out))
            for _ in range(layers)
        )

    def forward(self, interest: Tensor | None, e_BFD: Tensor) -> Tensor:
        """Give the last x, B x F D."""
        first_BN = e_BFD.flatten(1)
        x_BN = first_BN
        for layer in self.layers:
            x_BN = torch.addcmul(x_BN, first_BN, layer(x_BN))
        return x_BN


class FlatDNN(Expert):
    """The embeddings, one beside the other, for a plain MLP; `out` is of one table set."""

    def forward(self, interest: Tensor | None, *e_BFD: Tensor) -> Tensor:
        """Give them, B x F D."""
        return torch.cat([e.flatten(1) for e in e_BFD], dim=1)


class TIN(Expert):
    """The interest of each history (Eq. 2) beside the target."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.compared = shape.compared
        self.out = shape.interest + shape.compared * shape.width

    def forward(self, interest: Tensor | None, e_BFD: Tensor) -> Tensor:
        """Give [u_1, ..., u_K, t], B x (U + D for each field that is compared)."""
        assert interest is not None
        return torch.cat([interest, e_BFD[:, : self.compared].flatten(1)], dim=1)


EXPERTS: dict[str, type[Expert]] = {
    "gwpfm": GwPFM,
    "ipnn": IPNN,
    "dcn_v2": DCNv2,
    "flat_dnn": FlatDNN,
    "tin": TIN,
}
# These share a table set (4.6); each of the others has its own.
_SHARING = ("tin", "gwpfm", "flat_dnn")


def sets_of(experts: Sequence[str], embeddings: str | None) -> list[tuple[str, int]]:
    """Which expert reads which table set: one of an expert for each pair.

    Args:
        embeddings: `shared`: one set for all; `apart`: one each; a number M: so many, dealt to the
            experts in turn, and where they are more than the experts, an expert works on each of
            its sets by itself, with weights of its own; None: TIN, GwPFM and the flat DNN share
            one, as in the paper, and the others have one each.
    """
    if embeddings == "shared":
        return [(name, 0) for name in experts]
    if embeddings is None:
        apart = [name for name in experts if name not in _SHARING]
        first = int(len(apart) < len(experts))
        return [(n, first + apart.index(n) if n in apart else 0) for n in experts]
    count = len(experts) if embeddings == "apart" else int(embeddings)
    return [(experts[k % len(experts)], k % count) for k in range(max(count, len(experts)))]
