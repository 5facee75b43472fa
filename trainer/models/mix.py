"""The production model of the paper's 4.6: several experts over several table sets, and one head.

Every expert makes a vector of what it reads, by a dense layer of its own; the vectors are averaged,
and an MLP makes the logit of that. So one expert alone is the model that is known by its name.

Shape legend: B rows of a batch, F fields (see `experts`), D width of an embedded field in one table
set, S sets, H width of an expert's vector, U width of all histories' interests.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.data.batches import LENGTH, Batch
from trainer.data.facts import TableNumbers
from trainer.data.inputs import Inputs
from trainer.models import layers as parts
from trainer.models.base import TARGET, InterestModel
from trainer.models.experts import EXPERTS, FlatDNN, Shape, sets_of
from trainer.models.reader import Reader
from trainer.models.recipes import Recipe


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
        inputs: the data set's fields and sizes.
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
        e_BFW, of_histories, views = self._fields(batch)
        at = int(next(iter(self.interests), "0"))
        e_BFD = self._set(e_BFW, at)
        t_BD = e_BFD[:, : len(self.compared)].flatten(1)
        if self.interests:
            return self._interest(at, t_BD, of_histories, views), t_BD
        pooled = sum(len(one.fields) for one in self.inputs.histories.values())
        return e_BFD[:, e_BFD.shape[1] - pooled :].flatten(1), t_BD

    def _set(self, e_BFW: Tensor, at: int) -> Tensor:
        """One table set's part, B x F x D."""
        return e_BFW[:, :, at * self.dim : (at + 1) * self.dim]

    def _fields(self, batch: Batch) -> tuple[Tensor, list[list[Tensor]], list[Batch]]:
        """Embed a batch.

        Returns:
            The fields in all sets, B x F x S D; of each history the behaviours by its fields, each
            N x S D; the histories' views.
        """
        readers = [*self.readers.values()]
        views = [reader.view(batch) for reader in readers]
        single_BF = torch.stack([batch[name] for name in self.singles], dim=1)
        asked = [single_BF + self.get_buffer("begins")]
        for name, begin in self.lists.items():
            asked.append(_real(batch[name], batch[f"{name}_length"]) * batch[name] + begin)
        counts = [len(reader.fields) for reader in readers]
        for reader, view in zip(readers, views, strict=True):
            ids = reader.ids(view)
            asked += [each + self.tables.begins[name] for name, each in ids.items()]
        e_BFW, *rest = self.tables(*asked)
        rows = e_BFW.shape[0]
        lists, of_behaviours = rest[: len(self.lists)], rest[len(self.lists) :]
        seen = [e_BFW]
        for name, e_BNW in zip(self.lists, lists, strict=True):
            seen.append(_mean(e_BNW, batch[f"{name}_length"]))
        if self.of_numbers is not None:
            value_BF = torch.stack([batch[name] for name in self.numbers], dim=1)
            seen.append(value_BF.unsqueeze(2) * self.of_numbers)
        histories, begin = [], 0
        for count, view in zip(counts, views, strict=True):
            histories.append(of_behaviours[begin : begin + count])
            begin += count
            length = view[LENGTH]
            for e_NW in histories[-1]:
                mean = _mean(e_NW.view(length.shape[0], -1, e_NW.shape[1]), length)
                seen.append(mean.expand(rows, -1, -1))
        found = torch.cat(seen, dim=1)
        if self.gates is not None:
            found = found * self.gates[0].unsqueeze(1)
        return found, histories, views

    def _interest(
        self, at: int, t_BD: Tensor, of_histories: list[list[Tensor]], views: list[Batch]
    ) -> Tensor:
        """TIN's interests in one table set, B x U."""
        found, rows = [], t_BD.shape[0]
        each = t_BD.chunk(len(self.compared), dim=1)
        readers = self.interests[str(at)]
        for reader, fields, view in zip(readers, of_histories, views, strict=True):  # type: ignore[call-overload]
            asked = torch.cat([each[self.compared.index(name)] for name in reader.fields], dim=1)
            e = [part[:, at * self.dim : (at + 1) * self.dim] for part in fields]
            factors = reader.factors(view, rows)
            if factors is not None:
                found.append(reader.factored(view, asked, e, factors))
            else:
                both_ND = torch.cat([asked, torch.cat(e, dim=1)])
                found.append(reader(view, both_ND, rows, None).u)
        interest = torch.cat(found, dim=1)
        return interest if self.gates is None else interest * self.gates[1]

    def forward(self, batch: Batch) -> Tensor:
        """Score a batch; see `InterestModel`."""
        e_BFW, of_histories, views = self._fields(batch)
        # Each set that is read, once.
        read = dict.fromkeys(at for sets in self.reads for at in sets)
        e = {at: self._set(e_BFW, at).contiguous() for at in read}
        interests = {}
        for key in self.interests:
            t_BD = e[int(key)][:, : len(self.compared)].flatten(1)
            interests[int(key)] = self._interest(int(key), t_BD, of_histories, views)
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


def _mean(e_BNW: Tensor, length_B: Tensor) -> Tensor:
    """The mean over a row's own values, B x 1 x W; zeros where it has none."""
    weight_BN = _real(e_BNW[:, :, 0], length_B) / length_B.clamp(min=1).unsqueeze(1)
    return torch.bmm(weight_BN.to(e_BNW.dtype).unsqueeze(1), e_BNW)
