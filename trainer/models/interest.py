"""A model: readers of histories over shared embedding tables, and a head; and how any is built.

Shape legend: B rows of a batch, N behaviours of a history, D width of an embedded target by the
fields that some behaviours have (`dim` times their number), U width of all histories' interests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from schemas.checked import OPEN
from trainer.data.batches import HISTORY, Batch
from trainer.data.facts import TableNumbers, Width, Widths
from trainer.data.inputs import Inputs
from trainer.models import layers as parts
from trainer.models.base import TARGET, InterestModel
from trainer.models.mix import MixModel
from trainer.models.reader import Read, Reader
from trainer.models.recipes import RECIPES, Recipe, choose

__all__ = ["TARGET", "Built", "HeadModel", "InterestModel", "build"]

_ODD = 0x9E3779B97F4A7C15 - (1 << 64)  # 2^64 by the golden ratio, as a signed number


class HeadModel(InterestModel):
    """An interest u of each history, then MLP([u, t, (u * t), other features]).

    Each history has a reader of its own; what they look up is shared. t is the target by the fields
    that some behaviours have, the rest are features as others are. A history whose behaviours have
    fewer is queried, and multiplied, by t's part of those. With one history t has its time; with
    several, each has its own time for the target, and the head sees t without any. The arguments
    are those of `build`.

    The parts of an only reader are the model's own.
    """

    def __init__(
        self,
        recipe: Recipe,
        encoding: str,
        inputs: Inputs,
        dim: int,
        hidden: tuple[int, ...],
        attention_dim: int | None = None,
        tables: TableNumbers = "float32",
    ) -> None:
        super().__init__()
        self.inputs = inputs
        both, own_dim = inputs.of_behaviours, attention_dim or dim
        width = dim * len(both)
        self.fields = parts.Fields(both, dim, tables)
        self.attention_fields = parts.Fields(both, own_dim, tables) if recipe.apart else None
        self.readers = {
            called: Reader(recipe, encoding, inputs, called, dim, own_dim)
            for called in inputs.histories
        }
        for called, reader in self.readers.items():
            if len(self.readers) > 1:
                self.add_module(f"of {called}", reader)
                continue
            # The names that weights have always had.
            for name, part in reader.named_children():
                self.add_module(name, part)
        self.auxiliary = recipe.auxiliary(width) if recipe.auxiliary else None
        self.register_buffer("behaviours", None, persistent=False)
        self.product = recipe.product
        self.plain_head = recipe.plain_head or len(self.readers) > 1
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
        self.others = parts.Fields(of_others, dim, tables) if of_others else None
        features = dim * (len(self.singles) + len(self.lists)) + len(inputs.numbers)
        interest = sum(reader.width for reader in self.readers.values())
        self.transform: nn.Module | None = None
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
        targets = [TARGET + name for name in inputs.fields]
        read = [column for reader in self.readers.values() for column in reader.columns]
        of_lists = [column for name in inputs.lists for column in (name, f"{name}_length")]
        wanted = (*targets, *read, *inputs.others, *inputs.numbers, *of_lists)
        self.columns: tuple[str, ...] = tuple(dict.fromkeys(wanted))

    def interest(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Give the user's interests u_BU (Eq. 2 for `tin`), and t_BD as the head sees it."""
        if len(self.readers) == 1:
            return self._one(batch)[:2]
        target = {name: batch[TARGET + name] for name in self.fields.names}
        readers = [*self.readers.values()]
        views = [reader.view(batch) for reader in readers]
        ids = [target, *(reader.ids(view) for reader, view in zip(readers, views, strict=True))]
        of_target, *of_histories = self.fields.apart(*ids)
        v_BD, own = torch.cat(of_target, dim=1), self.attention_fields
        query, *keys = own.apart(*ids) if own is not None else [[]] * len(ids)
        interests = []
        for reader, view, fields, key in zip(readers, views, of_histories, keys, strict=True):
            asked_BD = self.part(reader, v_BD)
            factors = reader.factors(view, v_BD.shape[0])
            if factors is not None:
                interests.append(reader.factored(view, asked_BD, fields, factors))
                continue
            both_ND, own_NA = torch.cat([asked_BD, torch.cat(fields, dim=1)]), None
            if own is not None:
                asked_BA = self.part(reader, torch.cat(query, dim=1))
                own_NA = torch.cat([asked_BA, torch.cat(key, dim=1)])
            interests.append(reader(view, both_ND, v_BD.shape[0], own_NA).u)
        return torch.cat(interests, dim=1), v_BD

    def _one(self, batch: Batch) -> tuple[Tensor, Tensor, Read, Batch]:
        """As `interest`, of the only history, with all that its reader makes of its view."""
        (reader,) = self.readers.values()
        view = reader.view(batch)
        ids = ({name: batch[TARGET + name] for name in self.fields.names}, reader.ids(view))
        both_ND, own = self.fields(*ids), self.attention_fields
        rows = batch[TARGET + self.fields.names[0]].shape[0]
        read: Read = reader(view, both_ND, rows, own(*ids) if own is not None else None)
        return read.u, both_ND[:rows] if self.plain_head else read.t, read, view

    def part(self, reader: Reader, embedded: Tensor) -> Tensor:
        """What an embedding by all fields has of a reader's."""
        names = self.fields.names
        if len(reader.fields) == len(names):
            return embedded
        each = embedded.chunk(len(names), dim=1)
        return torch.cat([each[names.index(name)] for name in reader.fields], dim=1)

    def _draw(self, batch: Batch, row_M: Tensor, place_M: Tensor) -> Tensor:
        """Another behaviour for each of M places of the history, M x D.

        Of `behaviours`, or where that is not set of the targets; by a hash of the row and the
        place, so that a row has the same ones in every epoch, on every rank and device.
        """
        fields, among = self.fields.names, self.behaviours
        if among is None:
            among = torch.stack([batch[TARGET + name] for name in fields], dim=1)
        key_M = place_M
        for name in fields:
            for ids_M in (batch[TARGET + name][row_M], batch[HISTORY + name][row_M, place_M]):
                key_M = (key_M ^ ids_M) * _ODD
                key_M = key_M ^ (key_M >> 29)
        drawn = among[(key_M >> 8) % len(among)]
        out: Tensor = self.fields(dict(zip(fields, drawn.unbind(1), strict=True)))
        return out

    def _table(self, vocabulary: str) -> nn.Module:
        owner = (
            self.fields if self.others is None or vocabulary in self.fields.names else self.others
        )
        return owner[vocabulary]

    def forward(self, batch: Batch) -> Tensor:
        """Score a batch; see `InterestModel`."""
        return self.head(batch, *self.interest(batch))

    def with_auxiliary(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Score a batch, and give the recipe's auxiliary loss of each row: both B.

        None where the recipe has no such loss.
        """
        if self.auxiliary is None:
            return self.head(batch, *self.interest(batch)), None
        u_BU, t_BD, read, view = self._one(batch)
        extra_B = self.auxiliary(read.state, read.x, read.mask, partial(self._draw, view))
        return self.head(batch, u_BU, t_BD), extra_B

    def head(self, batch: Batch, u_BU: Tensor, t_BD: Tensor) -> Tensor:
        """Give the logits, B, of interests and target as `interest` gives them."""
        asked_BU = t_BD
        if self.transform is not None:
            u_BU = self.transform(u_BU)
        elif len(self.readers) > 1 and self.product:
            asked = [self.part(reader, t_BD) for reader in self.readers.values()]
            asked_BU = torch.cat(asked, dim=1)
        seen = [u_BU, t_BD, u_BU * asked_BU] if self.product else [u_BU, t_BD]
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
    embeddings: str | None = None
    mix: str | None = None
    tables: TableNumbers = "float32"

    def build(self) -> InterestModel:
        """The model, with new weights; raises as the function."""
        return build(**vars(self))

    def require_borne_out(self, weights: Mapping[str, Tensor]) -> None:
        """Hold these sizes to weights that there are, before memory is taken for them.

        A width or a vocabulary is a side of some tensor, a field and a layer have a tensor each, or
        where all fields have one table a number at least.

        Raises:
            ValueError: they are larger.
        """
        numbers = sum(weight.numel() for weight in weights.values())
        of_lists = [size for size, _ in self.inputs.lists.values()]
        sizes = (*self.inputs.fields.values(), *self.inputs.others.values(), *of_lists)
        tensors = numbers if RECIPES[self.model].experts else len(weights)
        few = max(len(sizes), len(self.inputs.histories)) <= tensors
        few = few and len(self.inputs.numbers) <= numbers
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
    embeddings: str | None = None,
    mix: str | None = None,
    tables: TableNumbers = "float32",
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
        embeddings: which expert reads which table set, see `trainer.models.experts.sets_of`, for a
            recipe of experts.
        mix: how experts' vectors meet: their `average`, or by a learned `gate`; None for the first.
        tables: what the vocabularies' tables are held in. Those of an encoding are small, and stay
            in float32; so does an item's bias, which goes into the logit as it is.

    Raises:
        UsageError: no such recipe, or the recipe cannot take the encoding, the width, several
            histories, table sets or a mix.
    """
    recipe, encoding = choose(model, encoding, attention_dim, inputs.histories, embeddings, mix)
    if not recipe.experts:
        return HeadModel(recipe, encoding, inputs, dim, hidden, attention_dim, tables)

    def made(of: Recipe, inner: int = 1) -> MixModel:
        encoded = encoding if of is recipe else of.encodings[0]
        return MixModel(of, encoded, inputs, dim, hidden, embeddings, mix, inner, tables)

    if not recipe.flat:
        return made(recipe)
    with torch.device("meta"):  # sizes alone
        like, one, two = (
            sum(p.numel() for p in m.parameters())
            for m in (made(RECIPES["tin_mix"]), made(recipe, 1), made(recipe, 2))
        )
    # A flat DNN's numbers are linear in the width of its layer more.
    return made(recipe, max(1, 1 + round((like - one) / (two - one))))
