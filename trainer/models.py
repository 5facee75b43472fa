"""The user-interest models as a table of recipes over the parts.

Shape legend: B rows of a batch, L history (padded), D width of an embedded behaviour or target
(`dim` times the number of fields), F width of the other features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pyarrow as pa
import torch
from torch import Tensor, nn

from schemas.errors import UsageError
from trainer import parts
from trainer.data import Shards
from trainer.rows import HISTORY, LENGTH, Batch

ENCODINGS = ("tte-p", "tte-t", "none")
TARGET = "target_"


@dataclass(frozen=True)
class Recipe:
    """A model as a choice of parts (the paper's Table 5).

    Attributes:
        source: where the choice comes from.
        encodings: the temporal encodings it can take; the first is the default.
        attention: builds what gives the weights of the behaviours.
        representation: builds what makes r of x and t; it follows the pool, which is linear.
        pool: builds what makes one vector of the weighted behaviours.
        product: whether the head also sees u * t.
        released: the released code's norms, dense layer and item bias around the same parts.
        activation: of the head's hidden layers. The paper names none; sigmoid, as in DIN's released
            code, reached the best GAUC and logloss on the valid split of Amazon Beauty.
    """

    source: str
    encodings: tuple[str, ...] = ("tte-p", "tte-t")
    attention: Callable[[], nn.Module] = parts.ScaledDotProduct
    representation: Callable[[], nn.Module] = parts.Product
    pool: Callable[[], nn.Module] = parts.WeightedSum
    product: bool = False
    released: bool = False
    activation: str = "sigmoid"


_tin = Recipe("TIN, Eq. 2")
_no_time = ("none",)
RECIPES: dict[str, Recipe] = {
    "tin": _tin,
    "tin_released": replace(_tin, source="TIN, released code", released=True, product=True),
    "tin_wo_tte": replace(_tin, source="TIN, 4.2.1", encodings=_no_time),
    "tin_wo_ta": replace(_tin, source="TIN, 4.2.2", attention=parts.Uniform),
    "tin_wo_tr": replace(_tin, source="TIN, 4.2.3", representation=parts.Plain),
    "avg_concat": Recipe("TIN, Table 1", _no_time, parts.Uniform, parts.Plain),
    "avg_product": Recipe("TIN, Table 1", _no_time, parts.Uniform, parts.Plain, product=True),
}


@dataclass(frozen=True)
class Inputs:
    """What a model must know of a data set to be built.

    Attributes:
        fields: field of behaviours and targets -> ids.
        others: other id column -> ids.
        numbers: float columns, used as they are.
        max_len: the longest history.
        bins: interval bins.
    """

    fields: dict[str, int]
    others: dict[str, int]
    numbers: tuple[str, ...]
    max_len: int
    bins: int


def inputs_of(shards: Shards) -> Inputs:
    """Read what a model must know from the manifest and the shards' schema.

    The user's id is no feature: neither the paper nor the released code uses it.
    """
    m = shards.manifest
    schema = shards.schema(shards.splits[0])
    others = {
        name: size
        for name, size in m.vocabulary.items()
        if name != "user" and name not in m.fields and name in schema.names
    }
    numbers = tuple(f.name for f in schema if pa.types.is_floating(f.type))
    fields = {name: m.vocabulary[name] for name in m.fields}
    return Inputs(fields, others, numbers, m.max_len, m.bins.count)


def _encoding(name: str, inputs: Inputs, width: int) -> nn.Module:
    if name == "tte-p":
        return parts.TargetAware(f"{HISTORY}position", inputs.max_len + 1, width)
    if name == "tte-t":
        return parts.TargetAware(f"{HISTORY}interval_bin", inputs.bins + 1, width)
    return parts.NoTime()


def choose(model: str, encoding: str | None) -> tuple[Recipe, str]:
    """Look up a recipe and settle its temporal encoding.

    Raises:
        UsageError: no such recipe, or the recipe cannot take the encoding.
    """
    if model not in RECIPES:
        raise UsageError(
            "There is no such model.",
            where="--model",
            expected=f"one of {', '.join(RECIPES)}",
            got=model,
        )
    recipe = RECIPES[model]
    encoding = encoding or recipe.encodings[0]
    if encoding not in recipe.encodings:
        raise UsageError(
            f"The model {model} cannot take this temporal encoding.",
            where="--encoding",
            expected=f"one of {', '.join(recipe.encodings)}",
            got=encoding,
        )
    return recipe, encoding


class InterestModel(nn.Module):
    """u = pool(weight(x, t), represent(x, t)), then MLP([u, t, (u * t), other features]).

    Args:
        recipe: which parts.
        encoding: the temporal encoding, one of the recipe's.
        inputs: the data set's fields and sizes.
        dim: width of each field's embedding.
        hidden: widths of the head's hidden layers.

    Attributes:
        columns: the shards' columns that `forward` reads.
    """

    def __init__(
        self, recipe: Recipe, encoding: str, inputs: Inputs, dim: int, hidden: tuple[int, ...]
    ) -> None:
        super().__init__()
        width = dim * len(inputs.fields)
        self.fields = parts.Fields(inputs.fields, dim)
        self.encoding = _encoding(encoding, inputs, width)
        self.attention = recipe.attention()
        self.pool = recipe.pool()
        self.representation = recipe.representation()
        self.product = recipe.product
        self.others = parts.Fields(inputs.others, dim) if inputs.others else None
        self.numbers = inputs.numbers
        features = dim * len(inputs.others) + len(inputs.numbers)
        head = width * (3 if recipe.product else 2) + features
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
        named = [p + n for p in (TARGET, HISTORY) for n in inputs.fields]
        time = (self.encoding.column,) if isinstance(self.encoding, parts.TargetAware) else ()
        self.columns: tuple[str, ...] = (*named, *time, *inputs.others, *inputs.numbers, LENGTH)

    def interest(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Give the user's interest u_BD (Eq. 2 for `tin`) and the encoded target t_BD."""
        # Targets first, then behaviours: one look-up a table costs half of two.
        both_ND = self.encoding(self.fields(batch, (TARGET, HISTORY)), batch)  # noqa: N806
        rows = len(batch[LENGTH])
        t_BD, x_ND = both_ND.split([rows, len(both_ND) - rows])  # noqa: N806
        x_BLD = x_ND.view(rows, -1, x_ND.shape[1])  # noqa: N806
        places = torch.arange(x_BLD.shape[1], device=x_BLD.device)
        mask_BL = places < batch[LENGTH].unsqueeze(1)  # noqa: N806
        weight_BL = self.attention(x_BLD, t_BD, mask_BL)  # noqa: N806
        return self.representation(self.pool(x_BLD, weight_BL), t_BD), t_BD

    def forward(self, batch: Batch) -> Tensor:
        """Score a batch.

        Args:
            batch: the columns named in `columns`, as `trainer.data` makes them.

        Returns:
            Logits of a positive label, B.
        """
        u_BD, t_BD = self.interest(batch)  # noqa: N806
        u_BD = self.transform(u_BD)  # noqa: N806
        seen = [u_BD, t_BD, u_BD * t_BD] if self.product else [u_BD, t_BD]
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
) -> InterestModel:
    """Build a model by its recipe's name.

    Args:
        model: a key of `RECIPES`.
        encoding: `tte-p`, `tte-t` or `none`; None for the recipe's default.
        inputs: from `inputs_of`.
        dim: width of each field's embedding (A.1: 64).
        hidden: the head's hidden layers (A.1: 80-40 for Amazon, 200-80 for Alibaba).

    Raises:
        UsageError: no such recipe, or the recipe cannot take the encoding.
    """
    recipe, encoding = choose(model, encoding)
    return InterestModel(recipe, encoding, inputs, dim, hidden)
