"""What a model must know of a data set to be built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

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
    """

    fields: dict[str, int]
    others: dict[str, int]
    numbers: tuple[str, ...]
    max_len: int
    bins: int
    timezone: str = "UTC"
    sessions: tuple[int, int] | None = None

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
    )
