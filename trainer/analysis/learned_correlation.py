"""The correlation that a model learned between behaviours and target, by category and place.

Source: the paper's 4.3, Eqs. 4 and 5 and Table 2: e^z |r| of attention logit z and representation
r, on whole embeddings (all fields). `released` is as the released script is described to do: the
category's part of the embeddings alone, and values moved to 0..1 over the map. (It takes the
softmax for e^z; over the cells of a map that is a common factor, which moving to 0..1 removes.)

Legend: P places, N behaviours drawn, D width of an embedded behaviour or target.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from schemas.errors import UsageError
from trainer.analysis.correlation import PLACES, CorrelationMap, group_field
from trainer.data.batches import HISTORY, LENGTH
from trainer.data.shards import Batch, Shards
from trainer.models.attention import (
    AtTarget,
    Last,
    Product,
    ScaledDotProduct,
    TargetAttention,
    Uniform,
)
from trainer.models.interest import TARGET, HeadModel, InterestModel
from trainer.models.layers import Fields
from trainer.models.reader import Reader
from trainer.models.recipes import BesideTarget
from trainer.models.recurrent import RECURRENT
from trainer.training.evaluation import alike, data_of
from trainer.training.runs import CONFIG, load, read_json

MEASURED = (
    "avg_concat, avg_product, din_prime, din, din_released, din_dot, din_apart, sasrec, bert4rec, "
    "bert4rec_released, bst, sim, tin, tin_released, tin_wo_tte, tin_wo_ta, tin_wo_tr"
)
_DRAWS = 2048
_KEPT = 500_000


def learned_like(
    truth: CorrelationMap,
    run: Path | str,
    *,
    data: Path | str | None = None,
    seed: int = 0,
    released: bool = False,
    history: str | None = None,
) -> CorrelationMap:
    """Measure e^z |r| of a run's model in the cells of a map (Eq. 4, with Eq. 5's scaling).

    The measure is a function of a behaviour, a target and a place. So behaviours of a category
    are drawn from those that train targets of the map's category have at its places, each with
    its own target, and the same ones are put at every place: what differs between places is then
    the time alone, and a model without temporal encoding has the same value at all of them. What
    else an encoding reads there (interval bin, times, history length for places from the oldest)
    is drawn from the behaviours that stand at that place. A cell is the mean over the draws; NaN
    where no behaviour is, or where e^z is too large for a float.

    Args:
        truth: whose categories and places.
        data: folder of the data set; the one that the run was trained on by default.
        released: of the category's part of the embeddings alone, moved to 0..1 over the map.
        history: that of the map, of a model that reads several.

    Raises:
        UsageError: Table 2 has no measure for such a model, `released` has none, or the model reads
            several histories and not this one.
        InputError: there is no such run or data set, or it is damaged.
        ContractError: the data set is not like the one that the run was trained on.
    """
    folder = Path(run)
    model = load(folder)
    config = read_json(folder / CONFIG, dict[str, Any], do="train it again")
    recipe = str(config.get("model"))
    if not isinstance(model, HeadModel):
        raise _no_measure(recipe, folder)
    reader = _reader(model, history, folder)
    _require_measure(model, reader, recipe, folder, released)
    shards = alike(model, Path(data) if data is not None else data_of(folder))
    if len(model.readers) > 1:
        shards = Shards(shards.out, history=history)
    field = group_field(shards)
    behaviours = _behaviours(shards, reader, truth, seed)
    generator = torch.Generator().manual_seed(seed)
    at = [torch.nonzero(behaviours["place"] == p).flatten() for p in truth.places]
    # The same moments for every category: rows of a map then differ by the category alone.
    moments = [index[_draw(len(index), generator)] for index in at]
    values = np.full(truth.values.shape, np.nan)
    for r, id_ in enumerate(truth.ids):
        of_category = torch.nonzero(behaviours[HISTORY + field] == id_).flatten()
        drawn = of_category[_draw(len(of_category), generator)]
        for p, moment in enumerate(moments):
            if len(drawn) and len(moment):
                batch = _at(behaviours, drawn, moment, reader)
                found = strength(model, batch, field if released else None, reader).mean().item()
                values[r, p] = found if math.isfinite(found) else np.nan
    encoding = config.get("encoding")
    name = recipe + (f" ({encoding})" if encoding not in (None, "none") else "")
    learned = replace(truth, name=name, values=values, unit="e^z |r|", counts=None, positives=None)
    return replace(learned.normalised(), name=f"{name}, as released") if released else learned


def _reader(model: InterestModel, history: str | None, run: Path) -> Reader:
    """The model's only reader, or that of the history."""
    if len(model.readers) > 1 and history not in model.readers:
        raise UsageError(
            "The model reads several histories, and of one the correlation is measured.",
            where=f"--history, of {run}",
            expected=f"one of {', '.join(model.readers)}",
            got=history or "none",
        )
    return model.readers.get(history or "") or next(iter(model.readers.values()))


def strength(
    model: HeadModel, batch: Batch, field: str | None = None, reader: Reader | None = None
) -> Tensor:
    """e^z |r| of each row's one behaviour and target (Table 2), N.

    z is the attention's logit; the scaled dot product for BST, whose attention is inside its
    context; 0 where nothing attends to the target. r is x * t where the model multiplies, else x.
    x and t are encoded embeddings; what a context makes of x is left out, as in the table.

    Args:
        model: one that Table 2 has a measure for.
        batch: rows with a history of one behaviour: `history_` columns are N x 1.
        field: take this field's part of x and t alone.
        reader: one of the model's; its first by default.
    """
    reader = reader or next(iter(model.readers.values()))
    ids = [
        {name: batch[prefix + name].flatten() for name in reader.fields}
        for prefix in (TARGET, HISTORY)
    ]
    with torch.inference_mode():
        both = reader.encoding(torch.cat(_apart(model.fields, ids)), batch)
        t, x = (both if field is None else both[:, _part(model, reader, field)]).chunk(2)
        attention = reader.attentions[0]
        if isinstance(attention, TargetAttention):
            query, key = t, x
            if model.attention_fields is not None:
                query, key = _apart(model.attention_fields, ids)
            z = attention.scores(key.unsqueeze(1), query).squeeze(1)
        elif isinstance(attention, AtTarget):
            z = (x * t).sum(1) / math.sqrt(t.shape[1])
        else:
            z = t.new_zeros(len(t))
        multiplies = model.product or isinstance(reader.representation, Product)
        r = x * t if multiplies else x
        value: Tensor = z.double().exp() * r.double().norm(dim=1)
        if reader.searches:  # the first interest's; the others' are beside it
            found: Tensor = reader.searches[0](batch, torch.ones(len(t), 1, dtype=torch.bool))
            value = value * found.squeeze(1)
        return value


def _apart(fields: Fields, ids: list[dict[str, Tensor]]) -> list[Tensor]:
    """Targets and behaviours, each embedded by the fields that it has."""
    return [torch.cat(parts, dim=1) for parts in fields.apart(*ids)]


def _part(model: HeadModel, reader: Reader, field: str) -> slice:
    """Where a field's part is in an embedding of all fields of a reader."""
    width = model.fields.width
    at = reader.fields.index(field) * width
    return slice(at, at + width)


def _require_measure(
    model: HeadModel, reader: Reader, name: str, run: Path, released: bool
) -> None:
    attention = reader.attentions[0]
    learns = isinstance(attention, TargetAttention) and not isinstance(attention, ScaledDotProduct)
    if released and (learns or model.attention_fields is not None):
        raise UsageError(
            "The attention of this model cannot be measured by the category's part alone.",
            where=run,
            expected="a model whose attention is a dot product, or that has none",
            got=name,
            do="leave out `--released`",
        )
    known = isinstance(attention, TargetAttention | AtTarget | Uniform | Last)
    mixed = any(isinstance(context, (*RECURRENT, BesideTarget)) for context in reader.contexts)
    if not known or mixed or reader.cells is not None:
        raise _no_measure(name, run)


def _no_measure(name: str, run: Path) -> UsageError:
    return UsageError(
        "There is no learned correlation for this model: it is not of behaviours and target alone.",
        where=run,
        expected=f"one of {MEASURED}",
        got=name,
    )


def _draw(count: int, generator: torch.Generator) -> Tensor:
    """`_DRAWS` of `count` places, with replacement; none of none."""
    if not count:
        return torch.empty(0, dtype=torch.int64)
    return torch.randint(count, (_DRAWS,), generator=generator)


def _behaviours(shards: Shards, reader: Reader, truth: CorrelationMap, seed: int) -> Batch:
    """The behaviours of the map's targets at its places, one an entry, with their targets.

    At most `_KEPT` of them, chosen by random keys, so that memory is bounded.
    """
    place = PLACES[truth.by]
    behaviour = (*(HISTORY + name for name in reader.fields), *_history(reader), place)
    target = (*(TARGET + name for name in reader.fields), LENGTH, *_scalars(reader))
    columns = tuple(dict.fromkeys((*behaviour, *target)))
    generator = torch.Generator().manual_seed(seed)
    kept: Batch = {}
    category = truth.ids[truth.own]
    for batch in shards.batches("train", batch_size=16_384, columns=columns):
        inside = torch.arange(batch[place].shape[1]) < batch[LENGTH].unsqueeze(1)
        inside &= batch[place] <= truth.places[-1]
        inside &= (batch[TARGET + group_field(shards)] == category).unsqueeze(1)
        row, column = inside.nonzero(as_tuple=True)
        found = {n: v[row, column] if v.dim() == 2 else v[row] for n, v in batch.items()}
        found["place"] = found[place]
        found["key"] = torch.rand(len(row), generator=generator)
        kept = {n: torch.cat([kept[n], v]) for n, v in found.items()} if kept else found
        if len(kept["key"]) > _KEPT:
            least = kept["key"].topk(_KEPT, largest=False).indices
            kept = {n: v[least] for n, v in kept.items()}
    return kept


def _history(reader: Reader) -> tuple[str, ...]:
    return tuple(c for c in reader.encoding.columns if c.startswith(HISTORY))


def _scalars(reader: Reader) -> tuple[str, ...]:
    return tuple(c for c in reader.encoding.columns if not c.startswith(HISTORY))


def _at(behaviours: Batch, drawn: Tensor, moment: Tensor, reader: Reader) -> Batch:
    """The drawn behaviours and their targets at the moments of others: N rows of one behaviour."""
    fields = reader.fields
    batch = {TARGET + name: behaviours[TARGET + name][drawn] for name in fields}
    batch |= {HISTORY + name: behaviours[HISTORY + name][drawn].unsqueeze(1) for name in fields}
    batch |= {name: behaviours[name][moment].unsqueeze(1) for name in _history(reader)}
    # The encodings read the history's length, so it comes with the place.
    return batch | {name: behaviours[name][moment] for name in (LENGTH, *_scalars(reader))}
