"""A reader of one history: what makes a user's interest of it, for a target.

Shape legend: B rows of a batch, L history (padded), N behaviours, D width of an embedded behaviour
(`dim` times the number of its fields) and of the target by the same fields, A width of one in the
attention's own tables, U width of the interest: D for each of the recipe's contexts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from schemas.shards import session_prefix
from trainer.data.batches import HISTORY, LENGTH, SESSION, SESSION_LENGTH, Batch
from trainer.data.inputs import Inputs
from trainer.models.attention import (
    ScaledDotProduct,
    Uniform,
    WeightedSum,
    masked_softmax,
    products,
)
from trainer.models.encodings import ENCODINGS, Factor
from trainer.models.recipes import NoContext, Recipe
from trainer.models.sessions import SessionCells


class Read(NamedTuple):
    """What a reader makes of a history.

    Attributes:
        u: the user's interest, B x U.
        t: the encoded target, B x D.
        x: the encoded behaviours, or what sessions make of them, B x L x D.
        mask: which of them are there, B x L.
        state: what the last context made of them, B x L x D.
    """

    u: Tensor
    t: Tensor
    x: Tensor
    mask: Tensor
    state: Tensor


class _Attend(Function):
    """Scaled dot-product attention and its pool, over behaviours that come field by field.

    Left to autograd, each behaviour's gradient is two products of vectors and their sum; here it is
    one product of matrices.
    """

    @staticmethod
    def forward(
        ctx: Any, score_BL: Tensor, mask_BL: Tensor, t_BD: Tensor, *fields: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Give the pool, BD, and the weights; `score_BL` is added to the fields' products."""
        for e, t in zip(fields, torch.split(t_BD, fields[0].shape[2], dim=1), strict=True):
            score_BL = score_BL + products(e, t)
        ctx.scale = 1 / math.sqrt(t_BD.shape[1])
        weight_BL = masked_softmax(score_BL * ctx.scale, mask_BL)
        ctx.save_for_backward(weight_BL, t_BD, *fields)
        return _sums(weight_BL, fields), weight_BL

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_u: Tensor, of_weight: Tensor) -> tuple[Tensor | None, ...]:
        """Give the gradients of all but the mask."""
        weight_BL, t_BD, *fields = ctx.saved_tensors
        pairs = [torch.split(each, fields[0].shape[2], dim=1) for each in (t_BD, of_u)]
        for e, of_part in zip(fields, pairs[1], strict=True):
            of_weight = of_weight + products(e, of_part)
        mean = (weight_BL * of_weight).sum(1, keepdim=True)
        of_score = weight_BL * (of_weight - mean) * ctx.scale
        both_BL2 = torch.stack([of_score, weight_BL], dim=2)
        of_fields = [
            torch.bmm(both_BL2, torch.stack(pair, dim=1)) for pair in zip(*pairs, strict=True)
        ]
        return of_score, None, _sums(of_score, fields), *of_fields


def _sums(weight_BL: Tensor, fields: Sequence[Tensor]) -> Tensor:
    """The behaviours' weighted sums, field beside field, BD."""
    return torch.cat([torch.bmm(weight_BL.unsqueeze(1), e) for e in fields], dim=2).squeeze(1)


class Reader(nn.Module):
    """u = pool(weight(x, t), represent(x, t)) of one history.

    x are the encoded behaviours in their context, t is the encoded target by the fields that they
    have. All parts read the history as if it were the only one, from `history_` columns; see
    `view`. `called` is which of the histories; the others are as for `interest.build`.

    Attributes:
        fields: those by which behaviours and targets are compared.
        columns: the shards' columns that it reads.
        width: U.
    """

    def __init__(
        self,
        recipe: Recipe,
        encoding: str,
        inputs: Inputs,
        called: str,
        dim: int,
        attention_dim: int,
    ) -> None:
        super().__init__()
        one = inputs.histories[called]
        self.fields, width = one.fields, dim * len(one.fields)
        of_attention = attention_dim * len(one.fields) if recipe.apart else width
        self.encoding = ENCODINGS[encoding](inputs, one, width)
        self.encoding.encode_target = recipe.encode_target
        self.searches = nn.ModuleList(build(inputs.group_field) for build in recipe.searches)
        self.cells = SessionCells(one) if recipe.sessions else None
        self.extractor = (
            recipe.sessions(width, self.cells.shape) if recipe.sessions and self.cells else None
        )
        self.contexts = nn.ModuleList(build(width) for build in recipe.contexts)
        self.attentions = nn.ModuleList(recipe.attention(of_attention) for _ in recipe.contexts)
        self.pools = nn.ModuleList(recipe.pool(width) for _ in recipe.contexts)
        self.representation = recipe.representation()
        self.width = width * len(recipe.contexts)
        # Whether weights and pool are linear in the behaviours as they are.
        kinds = recipe.attention in (ScaledDotProduct, Uniform), recipe.pool is WeightedSum
        self.linear = all(kinds) and recipe.contexts == (NoContext,) and not recipe.apart
        self.prefix = self.cells.prefix if self.cells else HISTORY
        readers = [m for m in (self.encoding, *self.searches, self.cells) if m is not None]
        read = [self.prefix + name for name in self.fields]
        read += [column for m in readers for column in m.columns]
        begins = {HISTORY: f"{called}_", SESSION: f"{session_prefix(called)}_"}
        stored = {
            column: of + column.removeprefix(name)
            for column in (*read, LENGTH)
            for name, of in begins.items()
            if column.startswith(name)
        }
        # Each once: the search reads columns that may be fields.
        self.columns = tuple(
            dict.fromkeys(stored.get(column, column) for column in (*read, LENGTH))
        )
        self.renamed = {column: of for column, of in stored.items() if column != of}

    def view(self, batch: Batch) -> Batch:
        """A batch as this reader's parts read it, its sessions' behaviours picked."""
        batch = batch | {column: batch[of] for column, of in self.renamed.items()}
        if self.cells is not None:
            names = tuple(self.prefix + name for name in self.fields)
            picked, length_BM = self.cells(batch, names)
            batch |= {**picked, SESSION_LENGTH: length_BM}
        return batch

    def ids(self, view: Batch) -> dict[str, Tensor]:
        """Field -> the ids of the behaviours of a view, N."""
        return {name: view[self.prefix + name].flatten() for name in self.fields}

    def forward(self, view: Batch, both_ND: Tensor, rows: int, own_NA: Tensor | None) -> Read:
        """Read a batch.

        Args:
            view: the batch, see `view`.
            both_ND: the embedded targets, by the reader's fields, then the behaviours.
            rows: B.
            own_NA: both in the attention's own tables; None without such.
        """
        both_ND = self.encoding(both_ND, view)
        t_BD, x_ND = both_ND.split([rows, both_ND.shape[0] - rows])  # type: ignore[no-untyped-call]
        if self.extractor is not None:
            x_BLD, mask_BL = self.extractor(x_ND, view[SESSION_LENGTH])
        else:
            x_BLD = x_ND.view(view[LENGTH].shape[0], -1, x_ND.shape[1])
            places = torch.arange(x_BLD.shape[1], device=x_BLD.device)
            mask_BL = places < view[LENGTH].unsqueeze(1)
        masks = [search(view, mask_BL) for search in self.searches]
        masks = masks or [mask_BL] * len(self.contexts)
        interests, state_BLD = [], x_BLD
        for narrowed_BL, context, attention, pool in zip(
            masks, self.contexts, self.attentions, self.pools, strict=True
        ):
            state_BLD, seen_BL = context(x_BLD, t_BD, narrowed_BL)
            query_BA, key_BLA = t_BD, state_BLD
            if own_NA is not None:
                query_BA = own_NA[:rows]
                key_BLA = own_NA[rows:].view(view[LENGTH].shape[0], -1, own_NA.shape[1])
            weight_BL = attention(key_BLA, query_BA, seen_BL)
            interests.append(self.representation(pool(state_BLD, weight_BL, seen_BL), t_BD))
        # Without an attention, candidates that share a history share the interest.
        interests = [u.expand(rows, -1) for u in interests]
        u_BU = interests[0] if len(interests) == 1 else torch.cat(interests, dim=1)
        return Read(u_BU, t_BD, x_BLD, mask_BL, state_BLD)

    def factors(self, view: Batch, rows: int) -> list[Factor] | None:
        """What `factored` takes; None where it does not serve, as in a graph or a request."""
        length_B = view[LENGTH]
        other = torch.compiler.is_exporting() or torch.is_autocast_enabled(length_B.device.type)
        if other or not self.linear or length_B.shape[0] != rows:
            return None
        return self.encoding.factors(view)

    def factored(
        self, view: Batch, v_BD: Tensor, fields: list[Tensor], factors: list[Factor]
    ) -> Tensor:
        """Give the interest as `forward`, for attention by scaled dot product, or none.

        Behaviours are never put together from their fields and their time, which is most of the
        time of a small model: <e + p, t> = <e, t> + <p, t>, and p is one of few rows of a matrix.

        Args:
            v_BD: the embedded targets.
            fields: the embedded behaviours, field by field, N x D/F.
            factors: see `Encoding.factors`.
        """
        rows, t_BD = len(v_BD), v_BD
        for matrix_SD, at_B, _ in factors:
            t_BD = t_BD + matrix_SD[at_B]
        each = [e.view(rows, -1, e.shape[1]) for e in fields]
        mask_BL = torch.arange(each[0].shape[1], device=t_BD.device) < view[LENGTH].unsqueeze(1)
        if isinstance(self.attentions[0], ScaledDotProduct):
            score_BL = t_BD.new_zeros(mask_BL.shape)
            for matrix_SD, _, at_BL in factors:
                score_BL = score_BL + (t_BD @ matrix_SD.T).gather(1, at_BL)
            u_BU, weight_BL = _Attend.apply(score_BL, mask_BL, t_BD, *each)  # type: ignore[no-untyped-call]
        else:
            weight_BL = self.attentions[0](t_BD.unsqueeze(1), t_BD, mask_BL)
            u_BU = torch.cat([self.pools[0](e, weight_BL, mask_BL) for e in each], dim=1)
        for matrix_SD, _, at_BL in factors:
            of_rows = u_BU.new_zeros(rows, len(matrix_SD))
            u_BU = u_BU + of_rows.scatter_add(1, at_BL, weight_BL) @ matrix_SD
        out: Tensor = self.representation(u_BU, t_BD)
        return out
