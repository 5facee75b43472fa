"""A model: the parts of a recipe between embeddings and head.

Shape legend: B rows of a batch, L history (padded), D width of an embedded behaviour or target
(`dim` times the number of fields), A width of one in the attention's own tables, U width of the
interest, F width of the other features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer import parts
from trainer.encodings import ENCODINGS
from trainer.inputs import Inputs, inputs_of
from trainer.recipes import RECIPES, Recipe, choose
from trainer.rows import HISTORY, LENGTH, Batch
from trainer.sessions import SessionCells, SessionInterests

__all__ = ["RECIPES", "Inputs", "InterestModel", "Recipe", "build", "choose", "inputs_of"]

TARGET = "target_"


class InterestModel(nn.Module):
    """u = pool(weight(x, t), represent(x, t)), then MLP([u, t, (u * t), other features]).

    x are the encoded behaviours in their context, t is the encoded target.

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
        width = dim * len(inputs.fields)
        self.fields = parts.Fields(inputs.fields, dim)
        of_attention = (attention_dim or dim) * len(inputs.fields) if recipe.apart else width
        self.attention_fields = (
            parts.Fields(inputs.fields, attention_dim or dim) if recipe.apart else None
        )
        self.encoding = ENCODINGS[encoding](inputs, width, recipe.encode_target)
        self.search = recipe.search() if recipe.search else None
        self.cells = SessionCells(inputs) if recipe.sessions else None
        self.extractor = SessionInterests(width, self.cells.shape) if self.cells else None
        self.contexts = nn.ModuleList(build(width) for build in recipe.contexts)
        self.attentions = nn.ModuleList(recipe.attention(of_attention) for _ in recipe.contexts)
        self.pools = nn.ModuleList(recipe.pool(width) for _ in recipe.contexts)
        self.representation = recipe.representation()
        self.auxiliary = recipe.auxiliary() if recipe.auxiliary else None
        self.product = recipe.product
        self.others = parts.Fields(inputs.others, dim) if inputs.others else None
        self.numbers = inputs.numbers
        features = dim * len(inputs.others) + len(inputs.numbers)
        interest = width * len(recipe.contexts)
        head = interest + width + (interest if recipe.product else 0) + features
        self.transform: nn.Module = nn.Identity()
        self.norm: nn.Module = nn.Identity()
        self.bias: parts.Table | None = None
        if recipe.released:
            self.transform = nn.Sequential(parts.ScaleShift(width), parts.dense(width, width))
            self.norm = parts.ScaleShift(head)
            self.bias_column, size = next((TARGET + n, s) for n, s in inputs.fields.items())
            self.bias = parts.Table(size, 1)
            nn.init.zeros_(self.bias.weight)
        self.mlp = parts.mlp(head, hidden, recipe.activation)
        self.prefix = self.cells.prefix if self.cells else HISTORY
        named = [p + n for p in (TARGET, self.prefix) for n in inputs.fields]
        readers = [m for m in (self.encoding, self.search, self.cells) if m is not None]
        read = [column for m in readers for column in m.columns]
        # Each once: the search reads columns that may be fields.
        wanted = (*named, *read, *inputs.others, *inputs.numbers, LENGTH)
        self.columns: tuple[str, ...] = tuple(dict.fromkeys(wanted))

    def interest(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Give the user's interest u_BU (Eq. 2 for `tin`) and the encoded target t_BD."""
        u_BU, t_BD, _ = self._interest(batch, auxiliary=False)  # noqa: N806
        return u_BU, t_BD

    def _interest(self, batch: Batch, auxiliary: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        rows, length_BM = len(batch[LENGTH]), None  # noqa: N806
        if self.cells is not None:
            names = tuple(self.prefix + name for name in self.inputs.fields)
            picked, length_BM = self.cells(batch, names)  # noqa: N806
            batch = batch | picked
        # Targets first, then behaviours: one look-up a table costs half of two.
        both_ND = self.encoding(self.fields(batch, (TARGET, self.prefix)), batch)  # noqa: N806
        t_BD, x_ND = both_ND.split([rows, len(both_ND) - rows])  # noqa: N806
        if self.extractor is not None:
            x_BLD, mask_BL = self.extractor(x_ND, length_BM)  # noqa: N806
        else:
            x_BLD = x_ND.view(rows, -1, x_ND.shape[1])  # noqa: N806
            places = torch.arange(x_BLD.shape[1], device=x_BLD.device)
            mask_BL = places < batch[LENGTH].unsqueeze(1)  # noqa: N806
        if self.search is not None:
            mask_BL = self.search(batch, mask_BL)  # noqa: N806
        interests, extra_B = [], None  # noqa: N806
        for context, attention, pool in zip(
            self.contexts, self.attentions, self.pools, strict=True
        ):
            state_BLD, seen_BL = context(x_BLD, t_BD, mask_BL)  # noqa: N806
            key_BLA, query_BA = state_BLD, t_BD  # noqa: N806
            if self.attention_fields is not None:
                own_NA = self.attention_fields(batch, (TARGET, self.prefix))  # noqa: N806
                query_BA = own_NA[:rows]  # noqa: N806
                key_BLA = own_NA[rows:].view(rows, -1, own_NA.shape[1])  # noqa: N806
            weight_BL = attention(key_BLA, query_BA, seen_BL)  # noqa: N806
            interests.append(self.representation(pool(state_BLD, weight_BL), t_BD))
            if auxiliary and self.auxiliary is not None:
                extra_B = self.auxiliary(state_BLD, x_BLD, mask_BL)  # noqa: N806
        u_BU = interests[0] if len(interests) == 1 else torch.cat(interests, dim=1)  # noqa: N806
        return u_BU, t_BD, extra_B

    def forward(self, batch: Batch) -> Tensor:
        """Score a batch.

        Args:
            batch: the columns named in `columns`, as `trainer.data` makes them.

        Returns:
            Logits of a positive label, B.
        """
        return self._head(batch, *self.interest(batch))

    def with_auxiliary(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Score a batch, and give the recipe's auxiliary loss of each row: both B.

        None where the recipe has no such loss.
        """
        u_BU, t_BD, extra_B = self._interest(batch, auxiliary=True)  # noqa: N806
        return self._head(batch, u_BU, t_BD), extra_B

    def _head(self, batch: Batch, u_BU: Tensor, t_BD: Tensor) -> Tensor:  # noqa: N803
        u_BU = self.transform(u_BU)  # noqa: N806
        seen = [u_BU, t_BD, u_BU * t_BD] if self.product else [u_BU, t_BD]
        if self.others is not None:
            seen.append(self.others(batch, ("",)))
        seen += [batch[name].unsqueeze(1) for name in self.numbers]
        logit_B: Tensor = self.mlp(self.norm(torch.cat(seen, dim=1))).squeeze(1)  # noqa: N806
        if self.bias is not None:
            logit_B = logit_B + self.bias(batch[self.bias_column]).squeeze(1)  # noqa: N806
        return logit_B


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


@dataclass(frozen=True)
class Description:
    """A recipe in a line.

    Attributes:
        name: the recipe.
        code: temporal information, target-aware attention, target-aware representation (3.3).
        encodings: the temporal encodings it takes, the default first.
        source: where it comes from, and how it departs from the original.
        parameters: how many numbers are learned, with the default encoding.
        beside_tables: how many of those are outside the fields' embedding tables.
    """

    name: str
    code: tuple[bool, bool, bool]
    encodings: tuple[str, ...]
    source: str
    parameters: int
    beside_tables: int


def describe(
    inputs: Inputs, *, dim: int = 64, hidden: tuple[int, ...] = (80, 40)
) -> list[Description]:
    """Describe every recipe, in the order of the table.

    Args:
        inputs: of the data set whose sizes count, from `inputs_of`.
        dim: as in `build`.
        hidden: as in `build`.
    """
    found = []
    with torch.device("meta"):  # sizes alone, no memory
        for name, recipe in RECIPES.items():
            model = build(name, None, inputs, dim=dim, hidden=hidden)
            all_tables = (model.fields, model.attention_fields, model.others)
            tables = [t for t in all_tables if t is not None]
            count = sum(p.numel() for p in model.parameters())
            in_tables = sum(p.numel() for t in tables for p in t.parameters())
            found.append(
                Description(
                    name, recipe.code, recipe.encodings, recipe.source, count, count - in_tables
                )
            )
    return found
