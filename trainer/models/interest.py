"""A model: the parts of a recipe between embeddings and head.

Shape legend: B rows of a batch, L history (padded), D width of an embedded behaviour (`dim` times
the number of its fields) and of the target by the same fields, A width of one in the attention's
own tables, U width of the interest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from schemas.checked import OPEN
from trainer.data.batches import HISTORY, LENGTH, Batch
from trainer.data.facts import Width, Widths
from trainer.data.inputs import Inputs
from trainer.models import layers as parts
from trainer.models.encodings import ENCODINGS
from trainer.models.recipes import Recipe, choose
from trainer.models.sessions import SessionCells

TARGET = "target_"
_ODD = 0x9E3779B97F4A7C15 - (1 << 64)  # 2^64 by the golden ratio, as a signed number


class InterestModel(nn.Module):
    """u = pool(weight(x, t), represent(x, t)), then MLP([u, t, (u * t), other features]).

    x are the encoded behaviours in their context, t is the encoded target. Where behaviours lack a
    field of the target, t is by those that they have, and the rest are features as others are.

    Args:
        recipe: which parts.
        encoding: the temporal encoding, one of the recipe's.
        inputs: the data set's fields and sizes.
        dim: width of each field's embedding.
        hidden: widths of the head's hidden layers.
        attention_dim: width of each field's embedding in the attention's own tables, where the
            recipe has such; None for `dim`.

    Attributes:
        columns: the shards' columns that `forward` reads.
        inputs: as given.
        behaviours: what an auxiliary loss draws from, P behaviours by the ids of their fields,
            P x fields; a training sets it.
    """

    def __init__(
        self,
        recipe: Recipe,
        encoding: str,
        inputs: Inputs,
        dim: int,
        hidden: tuple[int, ...],
        attention_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.inputs = inputs
        both = inputs.of_behaviours
        width = dim * len(both)
        self.fields = parts.Fields(both, dim)
        of_attention = (attention_dim or dim) * len(both) if recipe.apart else width
        self.attention_fields = parts.Fields(both, attention_dim or dim) if recipe.apart else None
        self.encoding = ENCODINGS[encoding](inputs, width, recipe.encode_target)
        self.searches = nn.ModuleList(build(inputs.group_field) for build in recipe.searches)
        self.cells = SessionCells(inputs) if recipe.sessions else None
        self.extractor = (
            recipe.sessions(width, self.cells.shape) if recipe.sessions and self.cells else None
        )
        self.contexts = nn.ModuleList(build(width) for build in recipe.contexts)
        self.attentions = nn.ModuleList(recipe.attention(of_attention) for _ in recipe.contexts)
        self.pools = nn.ModuleList(recipe.pool(width) for _ in recipe.contexts)
        self.representation = recipe.representation()
        self.auxiliary = recipe.auxiliary(width) if recipe.auxiliary else None
        self.behaviours: Tensor | None
        self.register_buffer("behaviours", None, persistent=False)
        self.product, self.plain_head = recipe.product, recipe.plain_head
        # A vocabulary has one table, whatever reads it: columns of one id, and those of several.
        alone = {name: size for name, size in inputs.fields.items() if name not in both}
        self.singles = [(TARGET + name, name) for name in alone]
        self.singles += [(name, inputs.shared.get(name, name)) for name in inputs.others]
        self.lists = [(name, inputs.shared.get(name, name)) for name in inputs.lists]
        self.numbers = inputs.numbers
        sizes = [
            *alone.values(),
            *inputs.others.values(),
            *(size for size, _ in inputs.lists.values()),
        ]
        of_others = dict(zip((of for _, of in (*self.singles, *self.lists)), sizes, strict=True))
        of_others = {name: size for name, size in of_others.items() if name not in both}
        self.others = parts.Fields(of_others, dim) if of_others else None
        features = dim * (len(self.singles) + len(self.lists)) + len(inputs.numbers)
        interest = width * len(recipe.contexts)
        self.transform: nn.Module = nn.Identity()
        if recipe.dense:
            self.transform = nn.Sequential(parts.ScaleShift(interest), parts.dense(interest, width))
            interest = width
        head = interest + width + (interest if recipe.product else 0) + features
        self.norm: nn.Module = nn.Identity()
        self.bias: parts.Table | None = None
        if recipe.norm:
            self.norm = parts.ScaleShift(head)
            self.bias_column, size = next((TARGET + n, s) for n, s in inputs.fields.items())
            self.bias = parts.Table(size, 1)
            nn.init.zeros_(self.bias.weight)
        self.mlp = parts.mlp(head, hidden, recipe.activation)
        self.prefix = self.cells.prefix if self.cells else HISTORY
        named = [TARGET + n for n in inputs.fields] + [self.prefix + n for n in both]
        readers = [m for m in (self.encoding, *self.searches, self.cells) if m is not None]
        read = [column for m in readers for column in m.columns]
        # Each once: the search reads columns that may be fields.
        of_lists = [column for name in inputs.lists for column in (name, f"{name}_length")]
        wanted = (*named, *read, *inputs.others, *inputs.numbers, *of_lists, LENGTH)
        self.columns: tuple[str, ...] = tuple(dict.fromkeys(wanted))

    def interest(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Give the user's interest u_BU (Eq. 2 for `tin`) and the encoded target t_BD."""
        u_BU, t_BD, _ = self._interest(batch, auxiliary=False)
        return u_BU, t_BD

    def _interest(self, batch: Batch, auxiliary: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        rows, length_BM = len(batch[LENGTH]), None
        if self.cells is not None:
            names = tuple(self.prefix + name for name in self.inputs.of_behaviours)
            picked, length_BM = self.cells(batch, names)
            batch = batch | picked
        # Targets first, then behaviours: one look-up a table costs half of two.
        plain_ND = self.fields(batch, (TARGET, self.prefix))
        both_ND = self.encoding(plain_ND, batch)
        t_BD, x_ND = both_ND.split([rows, len(both_ND) - rows])
        if self.extractor is not None:
            x_BLD, mask_BL = self.extractor(x_ND, length_BM)
        else:
            x_BLD = x_ND.view(rows, -1, x_ND.shape[1])
            places = torch.arange(x_BLD.shape[1], device=x_BLD.device)
            mask_BL = places < batch[LENGTH].unsqueeze(1)
        masks = [search(batch, mask_BL) for search in self.searches]
        masks = masks or [mask_BL] * len(self.contexts)
        interests, extra_B = [], None
        for narrowed_BL, context, attention, pool in zip(
            masks, self.contexts, self.attentions, self.pools, strict=True
        ):
            state_BLD, seen_BL = context(x_BLD, t_BD, narrowed_BL)
            key_BLA, query_BA = state_BLD, t_BD
            if self.attention_fields is not None:
                own_NA = self.attention_fields(batch, (TARGET, self.prefix))
                query_BA = own_NA[:rows]
                key_BLA = own_NA[rows:].view(rows, -1, own_NA.shape[1])
            weight_BL = attention(key_BLA, query_BA, seen_BL)
            interests.append(self.representation(pool(state_BLD, weight_BL, seen_BL), t_BD))
            if auxiliary and self.auxiliary is not None:
                draw = partial(self._draw, batch)
                extra_B = self.auxiliary(state_BLD, x_BLD, mask_BL, draw)
        u_BU = interests[0] if len(interests) == 1 else torch.cat(interests, dim=1)
        return u_BU, plain_ND[:rows] if self.plain_head else t_BD, extra_B

    def _draw(self, batch: Batch, row_M: Tensor, place_M: Tensor) -> Tensor:
        """Another behaviour for each of M places of the history, M x D.

        Of `behaviours`, or where that is not set of the targets; by a hash of the row and the
        place, so that a row has the same ones in every epoch, on every rank and device.
        """
        fields, among = self.inputs.of_behaviours, self.behaviours
        if among is None:
            among = torch.stack([batch[TARGET + name] for name in fields], dim=1)
        key_M = place_M
        for name in fields:
            for ids_M in (batch[TARGET + name][row_M], batch[HISTORY + name][row_M, place_M]):
                key_M = (key_M ^ ids_M) * _ODD
                key_M = key_M ^ (key_M >> 29)
        drawn = among[(key_M >> 8) % len(among)]
        out: Tensor = self.fields(dict(zip(fields, drawn.unbind(1), strict=True)), ("",))
        return out

    def _table(self, vocabulary: str) -> parts.Table:
        """The embeddings of a vocabulary."""
        owner = (
            self.fields if self.others is None or vocabulary in self.fields.names else self.others
        )
        return owner[vocabulary]

    def forward(self, batch: Batch) -> Tensor:
        """Score a batch.

        Args:
            batch: the columns named in `columns`, as `trainer.data.shards` makes them.

        Returns:
            Logits of a positive label, B.
        """
        return self._head(batch, *self.interest(batch))

    def with_auxiliary(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Score a batch, and give the recipe's auxiliary loss of each row: both B.

        None where the recipe has no such loss.
        """
        u_BU, t_BD, extra_B = self._interest(batch, auxiliary=True)
        return self._head(batch, u_BU, t_BD), extra_B

    def _head(self, batch: Batch, u_BU: Tensor, t_BD: Tensor) -> Tensor:
        u_BU = self.transform(u_BU)
        seen = [u_BU, t_BD, u_BU * t_BD] if self.product else [u_BU, t_BD]
        seen += [self._table(of)(batch[column]) for column, of in self.singles]
        seen += [batch[name].unsqueeze(1) for name in self.numbers]
        seen += [
            parts.mean_of_values(self._table(of), batch[name], batch[f"{name}_length"])
            for name, of in self.lists
        ]
        logit_B: Tensor = self.mlp(self.norm(torch.cat(seen, dim=1))).squeeze(1)
        if self.bias is not None:
            logit_B = logit_B + self.bias(batch[self.bias_column]).squeeze(1)
        return logit_B


@dataclass(frozen=True)
class Built:
    """What a checkpoint says of its model: the arguments of `build`."""

    __pydantic_config__ = OPEN
    model: str
    encoding: str
    inputs: Inputs
    dim: Width
    hidden: Widths
    attention_dim: Width | None = None

    def build(self) -> InterestModel:
        """The model, with new weights; raises as the function."""
        return build(**vars(self))

    def require_borne_out(self, weights: Mapping[str, Tensor]) -> None:
        """Hold these sizes to weights that there are, before memory is taken for them.

        A width or a vocabulary is a side of some tensor, a field and a layer have a tensor each.

        Raises:
            ValueError: they are larger.
        """
        numbers = sum(weight.numel() for weight in weights.values())
        of_lists = [size for size, _ in self.inputs.lists.values()]
        sizes = (*self.inputs.fields.values(), *self.inputs.others.values(), *of_lists)
        few = len(sizes) <= len(weights) and len(self.inputs.numbers) <= numbers
        if not few or max(*sizes, self.dim, *self.hidden, self.attention_dim or 0) > numbers:
            raise ValueError("sizes that its weights do not bear out")


def build(
    model: str,
    encoding: str | None,
    inputs: Inputs,
    *,
    dim: int = 64,
    hidden: tuple[int, ...] = (80, 40),
    attention_dim: int | None = None,
) -> InterestModel:
    """Build a model by its recipe's name.

    Args:
        model: a key of `RECIPES`.
        encoding: one of the recipe's; None for its default.
        inputs: from `inputs_of`.
        dim: width of each field's embedding (A.1: 64).
        hidden: the head's hidden layers (A.1: 80-40 for Amazon, 200-80 for Alibaba).
        attention_dim: width of each field's embedding in tables of the attention's own (A.2), for
            a recipe that has such; None for `dim`.

    Raises:
        UsageError: no such recipe, or the recipe cannot take the encoding or the width.
    """
    recipe, encoding = choose(model, encoding, attention_dim)
    return InterestModel(recipe, encoding, inputs, dim, hidden, attention_dim)
