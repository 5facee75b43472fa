"""What a model must know of a data set to be built."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor

from schemas.bounds import MOST_BEHAVIOURS, MOST_BINS
from schemas.checked import STRICT, Count
from schemas.digests import VOCABULARY, differing, in_short, of_rows
from schemas.errors import ContractError, UsageError
from schemas.manifest import NAME
from trainer.data.batches import SESSION, SESSION_LENGTH
from trainer.data.facts import Unit
from trainer.data.shards import Shards

_Behaviours = Annotated[int, Ge(1), Le(MOST_BEHAVIOURS)]


@dataclass(frozen=True)
class Inputs:
    """The columns and sizes of a data set, as far as models read them.

    Attributes:
        fields: field of targets -> ids.
        others: other id column -> ids.
        numbers: float columns, used as they are.
        max_len: the longest history.
        bins: interval bins.
        timezone: in which hours, weekdays and months are told.
        sessions: (M, K) of the `session_` columns; None where the shards have none.
        group_field: by which behaviours and targets are grouped, see `facts`.
        digests: what ids, bins, numbers and histories mean, see `schemas.digests`.
        lists: multi-valued feature -> ids, and the most values of a row.
        shared: id column or multi-valued feature whose vocabulary has another name -> that name.
        carried: those of `fields` that behaviours have as well; None for all.
        time_unit: of times and intervals, a key of `schemas.shards.UNITS`.
        history: the one that is read, where the data set has others; None for the only one.
    """

    __pydantic_config__ = STRICT
    fields: dict[str, Count]
    others: dict[str, Count]
    numbers: tuple[str, ...]
    max_len: _Behaviours
    bins: Annotated[int, Ge(1), Le(MOST_BINS)]
    timezone: str = "UTC"
    sessions: tuple[_Behaviours, _Behaviours] | None = None
    group_field: str | None = "category"
    digests: dict[str, str] = field(default_factory=dict)
    lists: dict[str, tuple[Count, _Behaviours]] = field(default_factory=dict)
    shared: dict[str, str] = field(default_factory=dict)
    carried: tuple[str, ...] | None = None
    time_unit: Unit = "s"
    history: str | None = None

    @property
    def of_behaviours(self) -> dict[str, int]:
        """Field of both behaviours and targets -> ids."""
        if self.carried is None:
            return self.fields
        return {name: size for name, size in self.fields.items() if name in self.carried}


def inputs_of(shards: Shards) -> Inputs:
    """Read what a model must know from the manifest and the shards' schema.

    The user's id is no feature: neither the paper nor the released code uses it. Of what behaviours
    carry, models read the fields that targets have as well.

    Raises:
        UsageError: behaviours have none of the target's fields.
    """
    m, facts = shards.manifest, shards.facts
    names = {*shards.schema(shards.splits[0]).names}
    carried = tuple(name for name in m.fields if name in facts.history.fields)
    if not carried:
        raise UsageError(
            "Behaviours cannot be compared with targets: they have no field in common.",
            where=shards.out,
            expected=f"behaviours with one of {', '.join(m.fields)}",
            got=", ".join(facts.history.fields) or "none",
        )
    vocabularies = {
        name: one.vocabulary
        for name, one in m.features.items()
        if one.vocabulary is not None and name in names
    }
    # By the vocabularies' order, as ever.
    place = {name: i for i, name in enumerate(m.vocabulary)}
    ids = sorted(vocabularies, key=lambda name: place[vocabularies[name]])
    size = {name: m.vocabulary[of] for name, of in vocabularies.items()}
    needed = [SESSION_LENGTH, *(SESSION + name for name in carried)]
    sessions = facts.sessions if all(name in names for name in needed) else None
    return Inputs(
        fields={name: m.vocabulary[name] for name in m.fields},
        others={name: size[name] for name in ids if name not in m.lists},
        numbers=tuple(n for n, one in m.features.items() if one.kind == "number" and n in names),
        max_len=facts.history.max_len,
        bins=facts.history.bins.count,
        timezone=facts.timezone,
        sessions=sessions,
        group_field=facts.group_field,
        digests=shards.digests,
        lists={name: (size[name], m.lists[name]) for name in ids if name in m.lists},
        shared={name: of for name, of in vocabularies.items() if of != name},
        carried=None if len(carried) == len(m.fields) else carried,
        time_unit=facts.time_unit,
        history=facts.called,
    )


def behaviours_of(shards: Shards) -> Tensor:
    """The distinct targets of train by the ids of the fields that behaviours have, P x fields.

    Negatives are uniform over the items, so these are the items, each once.
    """
    fields, carried = shards.manifest.fields, shards.facts.history.fields
    columns = tuple(f"target_{name}" for name in fields if name in carried)
    found = torch.empty(0, len(columns), dtype=torch.int32)
    for batch in shards.batches("train", batch_size=1 << 20, columns=columns):
        more = torch.stack([batch[name] for name in columns], dim=1)
        found = torch.unique(torch.cat([found, more]), dim=0)
    return found


def digests_of(shards: Shards) -> dict[str, str]:
    """What a run is of: what its data set's numbers mean, and its rows."""
    return shards.digests | of_rows(shards.manifest)


def require_alike(trained: Inputs, shards: Shards, users: bool = False) -> None:
    """Refuse a data set that does not mean to a model what the one of its training meant.

    Args:
        trained: of the model.
        shards: the data set.
        users: whether its users must be the same: no model reads their ids.

    Raises:
        InputError: a vocabulary is missing or damaged.
        ContractError: ids, bins, numbers or histories mean something else.
    """
    sizes, found = asdict(trained), asdict(inputs_of(shards))
    before, now = sizes.pop("digests"), found.pop("digests")
    del sizes["group_field"]  # a model reads the columns of its own
    different = [name for name in sizes if found[name] != sizes[name]]
    meaning = [n for n in differing(now, before) if users or n != f"{VOCABULARY}user"]
    if different or meaning:

        def shown(values: dict[str, Any], digests: dict[str, str]) -> str:
            parts = [f"{name} {values[name]}" for name in different]
            return ", ".join([*parts, *filter(None, [in_short(digests, meaning)])])

        raise ContractError(
            "The data set is not like the one that the model was trained on.",
            where=shards.out / NAME,
            expected=shown(sizes, before),
            got=shown(found, now),
            do="use the data set of the training, or one with the same ids, bins and windows",
        )
