"""What a model must know of a data set to be built."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from schemas.digests import VOCABULARY, differing, of_rows, told
from schemas.errors import ContractError
from schemas.manifest import NAME
from trainer.arrow import SESSION, SESSION_LENGTH
from trainer.data import Shards


@dataclass(frozen=True)
class Inputs:
    """The columns and sizes of a data set, as far as models read them.

    Attributes:
        fields: field of behaviours and targets -> ids.
        others: other id column -> ids.
        numbers: float columns, used as they are.
        max_len: the longest history.
        bins: interval bins.
        timezone: in which hours, weekdays and months are told.
        sessions: (M, K) of the `session_` columns; None where the shards have none.
        digests: what ids, bins, numbers and histories mean, see `schemas.digests`; empty in a run
            of before.
    """

    fields: dict[str, int]
    others: dict[str, int]
    numbers: tuple[str, ...]
    max_len: int
    bins: int
    timezone: str = "UTC"
    sessions: tuple[int, int] | None = None
    digests: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> Inputs:
        """Rebuild from `dataclasses.asdict`, whose tuples JSON may have made lists."""
        sessions = values.get("sessions")
        tuples = {
            "numbers": tuple(values["numbers"]),
            "sessions": None if sessions is None else (sessions[0], sessions[1]),
        }
        return cls(**values | tuples)


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
    needed = [SESSION_LENGTH, *(SESSION + name for name in m.fields)]
    sessions = shards.sessions if all(name in schema.names for name in needed) else None
    return Inputs(
        fields={name: m.vocabulary[name] for name in m.fields},
        others=others,
        numbers=numbers,
        max_len=m.max_len,
        bins=m.bins.count,
        timezone=str(m.config.get("timezone") or "UTC"),
        sessions=sessions,
        digests=shards.digests,
    )


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
    if not before:
        logging.getLogger("tinprep").warning(
            "The run was made by an older tinprep, which kept no digests: that its data set's ids "
            "and bins mean the same is judged by their numbers alone."
        )
    different = [name for name in sizes if found[name] != sizes[name]]
    meaning = differing(now, before) if before else []
    meaning = [n for n in meaning if users or n != f"{VOCABULARY}user"]
    if different or meaning:

        def shown(values: dict[str, Any], digests: dict[str, str]) -> str:
            parts = [f"{name} {values[name]}" for name in different]
            return ", ".join([*parts, *filter(None, [told(digests, meaning)])])

        raise ContractError(
            "The data set is not like the one that the model was trained on.",
            where=shards.out / NAME,
            expected=shown(sizes, before),
            got=shown(found, now),
            do="use the data set of the training, or one with the same ids, bins and windows",
        )
