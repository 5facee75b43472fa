"""The production model of the paper's 4.6: several experts over several table sets, and one head.

Every expert makes a vector of what it reads, by a dense layer of its own; the vectors are averaged,
and an MLP makes the logit of that. So one expert alone is the model that is known by its name.

Shape legend: B rows of a batch, F fields (see `experts`), D width of an embedded field in one table
set, S sets, H width of an expert's vector, U width of all histories' interests.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from trainer.data.batches import LENGTH, Batch
from trainer.data.facts import TableNumbers
from trainer.data.inputs import Inputs
from trainer.models import layers as parts
from trainer.models.base import TARGET, InterestModel
from trainer.models.experts import EXPERTS, FlatDNN, Shape, sets_of
from trainer.models.reader import Reader
from trainer.models.recipes import Recipe


class _Layout(NamedTuple):
    """How looked-up rows become fields.

    Attributes:
        rows: B.
        singles: fields of one value.
        lists: multi-valued features; what means follow are of histories.
        sets: S.
        kept: the sets whose behaviours are wanted one by one.
    """

    rows: int
    singles: int
    lists: int
    sets: int
    kept: tuple[int, ...]

    def of_set(self, each: Tensor, at: int) -> Tensor:
        """One set's part of the last dimension, S D."""
        width = each.shape[-1] // self.sets
        return each[..., at * width : (at + 1) * width]


def _spread(
    found_NW: Tensor, number_BFW: Tensor | None, layout: _Layout, *weights: Tensor
) -> tuple[Tensor, ...]:
    """Make fields of what was looked up.

    Args:
        found_NW: rows of the table with all sets: of B rows the single values, then of each mean
            its values.
        number_BFW: the numbers' fields.
        weights: of each mean the values' weights, B x values, or 1 x values where all rows share.

    Returns:
        The fields in each set, B x F x D: singles, multi-valued features, numbers, histories. Then
        of each kept set the behaviours, all histories' one after the other.
    """
    begin = layout.rows * layout.singles
    parts = [found_NW[:begin].view(layout.rows, layout.singles, -1)]
    for k, weight_BN in enumerate([*weights, None]):
        if k == layout.lists:
            behaviours_NW = found_NW[begin:]
            parts += [] if number_BFW is None else [number_BFW]
        if weight_BN is not None:
            end = begin + weight_BN.numel()
            value_BNW = found_NW[begin:end].view(*weight_BN.shape, -1)
            mean_BFW = torch.bmm(weight_BN.to(value_BNW.dtype).unsqueeze(1), value_BNW)
            parts.append(mean_BFW.expand(layout.rows, -1, -1))
            begin = end
    if torch.compiler.is_exporting():  # a smaller graph, which is faster
        parts = [torch.cat(parts, 1)]
    sets = (torch.cat([layout.of_set(p, at) for p in parts], 1) for at in range(layout.sets))
    kept = (layout.of_set(behaviours_NW, at).contiguous() for at in layout.kept)
    return *sets, *kept


class _Spread(Function):
    """`_spread`, whose gradient is written once.

    Left to autograd, a behaviour's gradient in all sets is made, filled up with zeros and added up
    for each that reads it. With this and `experts._Pairs` a step of `tin_mix` takes a fifth less
    time, with 200 features and 10 histories.
    """

    @staticmethod
    def forward(
        ctx: Any, found_NW: Tensor, number_BFW: Tensor | None, layout: _Layout, *weights: Tensor
    ) -> tuple[Tensor, ...]:
        """See `_spread`; each row has histories of its own."""
        ctx.shape, ctx.layout = found_NW.shape, layout
        ctx.numbers = 0 if number_BFW is None else number_BFW.shape[1]
        ctx.save_for_backward(*weights)
        return _spread(found_NW, number_BFW, layout, *weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *of_each: Tensor) -> tuple[Tensor | None, ...]:
        """Give the gradients of the rows and of the numbers."""
        layout, weights = ctx.layout, ctx.saved_tensors
        of_fields, of_kept = of_each[: layout.sets], of_each[layout.sets :]
        of_found = of_fields[0].new_empty(ctx.shape)

        def all_sets(into_BFW: Tensor, first: int) -> None:
            for at, of_set in enumerate(of_fields):
                layout.of_set(into_BFW, at).copy_(of_set[:, first : first + into_BFW.shape[1]])

        begin = layout.rows * layout.singles
        all_sets(of_found[:begin].view(layout.rows, layout.singles, -1), 0)
        field, of_number = layout.singles, None
        for k, weight_BN in enumerate([*weights, None]):
            if k == layout.lists:
                behaviours = begin
                if ctx.numbers:
                    of_number = of_found.new_empty(layout.rows, ctx.numbers, ctx.shape[1])
                    all_sets(of_number, field)
                    field += ctx.numbers
            if weight_BN is not None:
                end = begin + weight_BN.numel()
                into_BNW = of_found[begin:end].view(*weight_BN.shape, -1)
                for at, of_set in enumerate(of_fields):
                    of_mean = of_set[:, field].unsqueeze(1)
                    torch.mul(weight_BN.unsqueeze(2), of_mean, out=layout.of_set(into_BNW, at))
                begin, field = end, field + 1
        for at, of_behaviours in zip(layout.kept, of_kept, strict=True):
            layout.of_set(of_found[behaviours:], at).add_(of_behaviours)
        return of_found, of_number, None, *(None for _ in weights)


class MixModel(InterestModel):
    """Experts over the fields of a row, and over its histories by TIN.

    The fields are: those of the target; id features; multi-valued features, each the mean of its
    values; numbers, each times a learned vector; and of each history each field that targets have
    too, the mean of its behaviours. For GwPFM the target's fields and what is known of it are one
    part, all else the other; each field of the target is a group, and so are what is known of it,
    the other features, and each history.

    All ids of a batch are looked up at once, in one table with all vocabularies and table sets.

    Args:
        recipe: which experts; with `flat` each is a flat DNN over the sets that it reads.
        encoding: of TIN, one of the recipe's.
        dim: D.
        hidden: H, then the widths of the head's hidden layers.
        embeddings: which expert reads which set, see `experts.sets_of`.
        mix: `average`, or `gate`: weights by a softmax of a dense layer of the fields.
        inner: width of a hidden layer more in each flat DNN of a `flat` recipe.
        tables: what the one table is held in.
    """

    def __init__(
        self,
        recipe: Recipe,
        encoding: str,
        inputs: Inputs,
        dim: int,
        hidden: tuple[int, ...],
        embeddings: str | None = None,
        mix: str | None = None,
        inner: int = 1,
        tables: TableNumbers = "float32",
    ) -> None:
        super().__init__()
        self.inputs, self.dim = inputs, dim
        self.auxiliary = None
        self.register_buffer("behaviours", None, persistent=False)
        roles = sets_of(recipe.experts, embeddings)
        sets = 1 + max(at for _, at in roles)
        self.reads: list[list[int]] = []
        for name, at in roles:
            more = range(sets, sets + EXPERTS[name].sets - 1)
            self.reads.append([at, *more])
            sets += len(more)
        self.sets = sets

        def names(shared: str) -> str:
            return inputs.shared.get(shared, shared)

        # The fields that behaviours have come first: those are what TIN compares.
        self.compared = [*inputs.of_behaviours]
        fields = [*self.compared, *(n for n in inputs.fields if n not in self.compared)]
        singles = [(TARGET + n, n) for n in fields] + [(n, names(n)) for n in inputs.others]
        self.singles = [column for column, _ in singles]
        self.numbers = [*inputs.numbers]
        sizes = inputs.fields | {names(n): size for n, size in inputs.others.items()}
        sizes |= {names(n): size for n, (size, _) in inputs.lists.items()}
        self.tables = parts.OneTable(sizes, dim, sets, tables)
        begins = self.tables.begins
        self.register_buffer(
            "begins", torch.tensor([begins[of] for _, of in singles]), persistent=False
        )
        self.lists = {n: begins[names(n)] for n in inputs.lists}
        self.of_numbers: nn.Parameter | None = None
        if self.numbers:
            self.of_numbers = nn.Parameter(torch.empty(len(self.numbers), dim * sets))
            nn.init.xavier_uniform_(self.of_numbers)

        def reader(called: str) -> Reader:
            return Reader(recipe, encoding, inputs, called, dim, dim)

        self.interests = nn.ModuleDict(
            {
                str(at): nn.ModuleList(reader(called) for called in inputs.histories)
                for at in dict.fromkeys(at for name, at in roles if name == "tin")
            }
            if not recipe.flat
            else {}
        )
        first = next(iter(self.interests.values()), None) or map(reader, inputs.histories)
        self.readers = dict(zip(inputs.histories, first, strict=True))  # type: ignore[arg-type]
        groups, of_part = self._groups()
        interest = sum(r.width for r in self.readers.values()) if self.interests else 0
        shape = Shape(groups, of_part, len(self.compared), dim, interest)
        experts = [FlatDNN(shape) if recipe.flat else EXPERTS[name](shape) for name, _ in roles]
        self.experts, self.outs = nn.ModuleList(experts), nn.ModuleList()
        for expert, read in zip(experts, self.reads, strict=True):
            made = expert.out * (len(read) if recipe.flat else 1)
            layers: list[nn.Module] = []
            for width in (inner, hidden[0]) if recipe.flat else hidden[:1]:
                layers += [parts.dense(made, width), parts.activation(recipe.activation, width)]
                made = width
            self.outs.append(nn.Sequential(*layers))
        self.gate = parts.dense(len(groups) * dim, len(roles)) if mix == "gate" else None
        self.mlp = parts.mlp(hidden[0], hidden[1:], recipe.activation)
        read_columns = [column for one in self.readers.values() for column in one.columns]
        # Of features, then of histories; see `gate_sets`.
        self.features = (*inputs.others, *inputs.lists, *inputs.numbers)
        self.gates: tuple[Tensor, Tensor] | None = None
        of_lists = [column for name in self.lists for column in (name, f"{name}_length")]
        wanted = (*self.singles, *read_columns, *self.numbers, *of_lists)
        self.columns = tuple(dict.fromkeys(wanted))

    def _groups(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Each field's group, and each group's part; fields in the order of `forward`."""
        inputs, count = self.inputs, len(self.inputs.fields)
        features = [*inputs.others, *inputs.lists, *inputs.numbers]
        # In the place of a group's number its name, which is then counted.
        named = [*map(str, range(count))]
        named += ["known" if name in inputs.of_target else "other" for name in features]
        named += [f"of {called}" for called, one in inputs.histories.items() for _ in one.fields]
        groups = [*dict.fromkeys(named)]
        part = tuple(int(not (n == "known" or n.isdecimal())) for n in groups)
        return tuple(map(groups.index, named)), part

    def gate_sets(self, gate_K: Tensor) -> None:
        """Multiply, from now on, each feature and each history by a number.

        Args:
            gate_K: of `features`, then of the histories.
        """
        features, histories = gate_K.split([len(self.features), len(self.inputs.histories)])  # type: ignore[no-untyped-call]
        counts = [len(one.fields) for one in self.inputs.histories.values()]
        targets = gate_K.new_ones(len(self.inputs.fields))
        of_fields = histories.repeat_interleave(torch.tensor(counts))
        widths = torch.tensor([reader.width for reader in self.readers.values()])
        self.gates = (
            torch.cat([targets, features, of_fields]),
            histories.repeat_interleave(widths),
        )

    def interest(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Give the interests that TIN makes, or else the histories' means, and the target.

        Of the first table set that is read so: B x U and B x D for each field that is compared.
        """
        e, interests = self._fields(batch)
        at = next(iter(interests), 0)
        t_BD = e[at][:, : len(self.compared)].flatten(1)
        if interests:
            return interests[at], t_BD
        pooled = sum(len(one.fields) for one in self.inputs.histories.values())
        return e[at][:, e[at].shape[1] - pooled :].flatten(1), t_BD

    def _fields(self, batch: Batch) -> tuple[list[Tensor], dict[int, Tensor]]:
        """Embed a batch.

        Returns:
            The fields in each set, B x F x D; by the sets that TIN reads its interests, B x U.
        """
        readers = [*self.readers.values()]
        views = [reader.view(batch) for reader in readers]
        single_BF = torch.stack([batch[name] for name in self.singles], dim=1)
        asked, weights = [single_BF + self.get_buffer("begins")], []
        for name, begin in self.lists.items():
            real_BN = _real(batch[name], batch[f"{name}_length"])
            asked.append(real_BN * batch[name] + begin)
            weights.append(_weights(real_BN, batch[f"{name}_length"]))
        for reader, view in zip(readers, views, strict=True):
            ids = reader.ids(view)
            asked += [each + self.tables.begins[name] for name, each in ids.items()]
            length_B = view[LENGTH]
            rows_BN = next(iter(ids.values())).view(length_B.shape[0], -1)
            weights += [_weights(_real(rows_BN, length_B), length_B)] * len(ids)
        number_BFW = None
        if self.of_numbers is not None:
            value_BF = torch.stack([batch[name] for name in self.numbers], dim=1)
            number_BFW = value_BF.unsqueeze(2) * self.of_numbers
        kept = tuple(map(int, self.interests))
        rows, singles = single_BF.shape
        layout = _Layout(rows, singles, len(self.lists), self.sets, kept)
        found_NW = self.tables(*asked)
        own = all(view[LENGTH].shape[0] == layout.rows for view in views)
        mixed = torch.is_autocast_enabled(found_NW.device.type)
        plain = torch.compiler.is_exporting() or mixed or not own
        spread = _spread if plain else _Spread.apply
        made = spread(found_NW, number_BFW, layout, *weights)
        e, behaviours = [*made[: self.sets]], made[self.sets :]
        if self.gates is not None:
            e = [each * self.gates[0].unsqueeze(1) for each in e]
        counts = [w.numel() for w in weights[len(self.lists) :]]
        interests = {}
        for at, x_ND in zip(kept, behaviours, strict=True):
            fields = [*x_ND.split(counts)]
            interests[at] = self._interest(at, e[at][:, : len(self.compared)], fields, views)
        return e, interests

    def _interest(self, at: int, t_BFD: Tensor, fields: list[Tensor], views: list[Batch]) -> Tensor:
        """TIN's interests in one table set, B x U.

        Args:
            t_BFD: the targets, by the fields that are compared.
            fields: the behaviours, by each history's fields, N x D.
            views: of each history.
        """
        made, rows = [], t_BFD.shape[0]
        for reader, view in zip(self.interests[str(at)], views, strict=True):  # type: ignore[call-overload]
            e, fields = fields[: len(reader.fields)], fields[len(reader.fields) :]
            places = [self.compared.index(name) for name in reader.fields]
            asked = torch.cat([t_BFD[:, place] for place in places], dim=1)
            factors = reader.factors(view, rows)
            if factors is not None:
                made.append(reader.factored(view, asked, e, factors))
            else:
                both_ND = torch.cat([asked, torch.cat(e, dim=1)])
                made.append(reader(view, both_ND, rows, None).u)
        interest = torch.cat(made, dim=1)
        return interest if self.gates is None else interest * self.gates[1]

    def forward(self, batch: Batch) -> Tensor:
        """Score a batch; see `InterestModel`."""
        e, interests = self._fields(batch)
        made = [
            out(expert(interests.get(sets[0]), *(e[at] for at in sets)))
            for expert, out, sets in zip(self.experts, self.outs, self.reads, strict=True)
        ]
        if self.gate is not None:
            weight_BE = self.gate(e[0].flatten(1)).softmax(1)
            mixed_BH = torch.einsum("be,beh->bh", weight_BE, torch.stack(made, dim=1))
        else:
            mixed_BH = made[0] if len(made) == 1 else torch.stack(made).mean(0)
        logit_B: Tensor = self.mlp(mixed_BH).squeeze(1)
        return logit_B


def _real(ids_BN: Tensor, length_B: Tensor) -> Tensor:
    """Where a row's own values stand, B x N."""
    return torch.arange(ids_BN.shape[1], device=ids_BN.device) < length_B.unsqueeze(1)


def _weights(real_BN: Tensor, length_B: Tensor) -> Tensor:
    """What a row's own values weigh in their mean, B x N; zeros where it has none."""
    return real_BN / length_B.clamp(min=1).unsqueeze(1)
