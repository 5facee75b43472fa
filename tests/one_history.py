"""The schema of shards with one history."""

from __future__ import annotations

import pyarrow as pa

from schemas.bounds import HISTORY
from schemas.shards import Shape, schema_of


def shard_schema(
    fields: tuple[str, ...],
    layout: str,
    max_len: int,
    *,
    features: tuple[str, ...] = (),
    numbers: tuple[str, ...] = (),
    sessions: tuple[int, int] | None = None,
) -> pa.Schema:
    histories = {HISTORY: Shape(fields, max_len, sessions)}
    return schema_of(fields, histories, layout, features=features, numbers=numbers)
