"""What a model must know of a data set to be built."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor

from schemas.bounds import HISTORY, MOST_BEHAVIOURS, MOST_BINS
from schemas.checked import STRICT, Count
from schemas.digests import VOCABULARY, differing, in_short, of_rows
from schemas.errors import ContractError, UsageError
from schemas.manifest import NAME
from schemas.shards import session_prefix
from trainer.data.facts import Unit
from trainer.data.shards import Shards

_Behaviours = Annotated[int, Ge(1), Le(MOST_BEHAVIOURS)]


@dataclass(frozen=True)
class HistoryInputs:
    """What models read of a history.

    Attributes:
        fields: those of the target's that its behaviours have as well.
        max_len: the longest one.
        bins: interval bins.
        sessions: (M, K) of its `session_` columns; None where the shards have none.
    """

    __pydantic_config__ = STRICT
    fields: tuple[str, ...]
    max_len: _Behaviours
    bins: Annotated[int, Ge(1), Le(MOST_BINS)]
    sessions: tuple[_Behaviours, _Behaviours] | None = None


@dataclass(frozen=True)
class Inputs:
    """The columns and sizes of a data set, as far as models read them.

    Attributes:
        fields: field of targets -> ids.
        others: other id column -> ids.
        numbers: float columns, used as they are.
        histories: those that are read, by what batches call them.
        timezone: in which hours, weekdays and months are told.
        group_field: by which behaviours and targets are grouped, see `facts`.
        digests: what ids, bins, numbers and histories mean, see `schemas.digests`.
        lists: multi-valued feature -> ids, and the most values of a row.
        shared: id column or multi-valued feature whose vocabulary has another name -> that name.
        time_unit: of times and intervals, a key of `schemas.shards.UNITS`.
        history: the one that is read, where the data set has others; None where all are.
        of_target: the other id columns, numbers and multi-valued features that are known of the
            target, not of the user or the moment.
    """

    __pydantic_config__ = STRICT
    fields: dict[str, Count]
    others: dict[str, Count]
    numbers: tuple[str, ...]
    histories: dict[str, HistoryInputs]
    timezone: str = "UTC"
    group_field: str | None = "category"
    digests: dict[str, str] = field(default_factory=dict)
    lists: dict[str, tuple[Count, _Behaviours]] = field(default_factory=dict)
    shared: dict[str, str] = field(default_factory=dict)
    time_unit: Unit = "s"
    history: str | None = None
    of_target: tuple[str, ...] = ()

    @property
    def of_behaviours(self) -> dict[str, int]:
        """Field of targets, and of the behaviours of some history -> ids."""
        carried = {name for one in self.histories.values() for name in one.fields}
        return {name: size for name, size in self.fields.items() if name in carried}


def as_now(said: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of its inputs; that of an older tinprep reads one history."""
    if "histories" in said:
        return said
    one = {name: said.get(name) for name in ("carried", "max_len", "bins", "sessions")}
    fields = one.pop("carried") or tuple(said["fields"])
    kept = {name: value for name, value in said.items() if name not in (*one, "carried")}
    return kept | {"histories": {HISTORY: {"fields": fields, **one}}}


def inputs_of(shards: Shards) -> Inputs:
    """Read what a model must know from the manifest and the shards' schema.

    The user's id is no feature: neither the paper nor the released code uses it. Of what behaviours
    carry, models read the fields that targets have as well. Of several histories they leave out
    those whose behaviours have none of these.

    Raises:
        UsageError: no behaviours have any of the target's fields.
    """
    m, facts = shards.manifest, shards.facts
    names = {*shards.schema(shards.splits[0]).names}
    carried = {
        called: fields
        for called, one in facts.histories.items()
        if (fields := tuple(name for name in m.fields if name in one.fields))
    }
    if not carried:
        theirs = {name: None for one in facts.histories.values() for name in one.fields}
        raise UsageError(
            "Behaviours cannot be compared with targets: they have no field in common.",
            where=shards.out,
            expected=f"behaviours with one of {', '.join(m.fields)}",
            got=", ".join(theirs) or "none",
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

    def read(called: str, fields: tuple[str, ...]) -> HistoryInputs:
        one, prefix = facts.histories[called], session_prefix(called)
        stored = all(f"{prefix}_{name}" in names for name in ("length", *fields))
        return HistoryInputs(fields, one.max_len, one.bins.count, one.shape if stored else None)

    # What is looked up by the target, or by what gives a field of it, is known of it.
    of_target = {
        name
        for key, one in m.lookups.items()
        if key != "user" and ({key, *one.fields} & {*m.fields})
        for name in (key, *one.features, *one.numbers, *one.lists)
    }
    return Inputs(
        fields={name: m.vocabulary[name] for name in m.fields},
        others={name: size[name] for name in ids if name not in m.lists},
        numbers=tuple(n for n, one in m.features.items() if one.kind == "number" and n in names),
        histories={called: read(called, fields) for called, fields in carried.items()},
        timezone=facts.timezone,
        group_field=facts.group_field,
        digests=shards.digests,
        lists={name: (size[name], m.lists[name]) for name in ids if name in m.lists},
        shared={name: of for name, of in vocabularies.items() if of != name},
        time_unit=facts.time_unit,
        history=facts.called,
        of_target=tuple(name for name in m.features if name in names and name in of_target),
    )


def behaviours_of(shards: Shards) -> Tensor:
    """The distinct targets of train by the ids of the fields that behaviours have, P x fields.

    Negatives are uniform over the items, so these are the items, each once.
    """
    columns = tuple(f"target_{name}" for name in inputs_of(shards).of_behaviours)
    found = torch.empty(0, len(columns), dtype=torch.int32)
    for batch in shards.batches("train", batch_size=1 << 20, columns=columns):
        more = torch.stack([batch[name] for name in columns], dim=1)
        found = torch.unique(torch.cat([found, more]), dim=0)
    return found


def digests_of(shards: Shards) -> dict[str, str]:
    """What a run is of: what its data set's numbers mean, and its rows."""
    return shards.digests | of_rows(shards.manifest)


def require_alike(trained: Inputs, shards: Shards, users: bool = False) -> Shards:
    """Refuse a data set that does not mean to a model what the one of its training meant.

    Its users count if `users`: no model reads their ids.

    Returns:
        The data set with the histories that the model reads.

    Raises:
        UsageError: it has no such history.
        InputError: a vocabulary is missing or damaged.
        ContractError: ids, bins, numbers or histories mean something else.
    """
    if shards.facts.called != trained.history:
        shards = Shards(shards.out, memory_mb=shards.memory_mb, history=trained.history)
    sizes, found = _by_name(trained), _by_name(inputs_of(shards))
    before, now = trained.digests, shards.digests
    different = [name for name in {**sizes, **found} if found.get(name) != sizes.get(name)]
    # A unit that is told in words needs no digest beside it.
    untold = {"time unit"} if "time_unit" in different else set()
    untold |= set() if users else {f"{VOCABULARY}user"}
    meaning = [n for n in differing(now, before) if n not in untold]
    if different or meaning:

        def shown(values: dict[str, Any], digests: dict[str, str]) -> str:
            parts = [f"{name} {values.get(name, 'none')}" for name in different]
            return ", ".join([*parts, *filter(None, [in_short(digests, meaning)])])

        raise ContractError(
            "The data set is not like the one that the model was trained on.",
            where=shards.out / NAME,
            expected=shown(sizes, before),
            got=shown(found, now),
            do="use the data set of the training, or one with the same ids, bins and windows",
        )
    return shards


def _by_name(inputs: Inputs) -> dict[str, Any]:
    """What must be equal, but for digests: a model reads the columns of its own group field."""
    found = asdict(inputs)
    del found["digests"], found["group_field"], found["of_target"]
    for called, one in found.pop("histories").items():
        found |= {f"{called}.{name}": value for name, value in one.items()}
    return found
