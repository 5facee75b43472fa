"""What a manifest or a checkpoint declares, bounded by what is there before memory is taken.

Both may be damaged or a stranger's. A size that nothing bears out would be allocated, or looped
over, long before the first row shows that it is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from schemas.errors import ContractError
from schemas.manifest import FIRST_ID, NAME, History, Manifest, require
from trainer.data.batches import WEIGHT
from trainer.data.facts import columns_of


def check_manifest(made: Manifest, out: Path) -> None:
    """Hold a manifest's fields and sizes to the vocabularies and shards that it lists.

    Raises:
        ContractError: they do not agree.
    """
    want = partial(require, out / NAME)
    holds = 0 < len(made.fields) == len({*made.fields})
    want(holds, "fields", "some, each once", ", ".join(made.fields))
    of_features = [one.vocabulary for one in made.features.values() if one.vocabulary is not None]
    for key, names in (
        ("fields", made.fields),
        *((f"histories.{name}", one.fields) for name, one in made.histories.items()),
        ("features", of_features),
    ):
        unsized = [name for name in names if name not in made.vocabulary]
        want(not unsized, key, "a size for each under `vocabulary`", ", ".join(unsized))
    for split, rows in made.rows.items():
        holds = not rows or bool(made.shard_paths(out, split))
        want(holds, f"rows.{split}", f"shards that hold the {rows:,} rows", "no shard")
    for name, size in made.vocabulary.items():
        path = out / "vocabulary" / f"{name}.parquet"
        if path.is_file():
            try:
                held = pq.read_metadata(path).num_rows
            except (OSError, pa.ArrowException):  # told by who reads it
                continue
            expected = f"{held + FIRST_ID:,}, for {held:,} values in {path.name}"
            want(size == held + FIRST_ID, f"vocabulary.{name}", expected, f"{size:,}")


def check_schema(
    made: Manifest, histories: Mapping[str, History], schema: pa.Schema, where: Path
) -> None:
    """Hold the manifest's fields and the `max_len` of histories to a shard."""
    most = {
        column: one.max_len
        for called, one in histories.items()
        for column in columns_of(called, one)
    }
    columns = [f"target_{name}" for name in made.fields]
    columns += [f"{called}_{name}" for called, one in histories.items() for name in one.fields]
    columns += [column for name in made.lists for column in (name, f"{name}_length")]
    columns += [*made.keep, *([WEIGHT] if made.weight else [])]
    wrong = [f"no {column}" for column in columns if column not in schema.names]
    wrong += [
        f"{field.name} of {field.type.list_size}"
        for field in schema
        if field.name in most
        and field.name not in made.lists
        and pa.types.is_fixed_size_list(field.type)
        and field.type.list_size != most[field.name]
    ]
    if wrong:
        raise ContractError(
            "The manifest and a shard do not agree.",
            where=where,
            expected=f"columns of {', '.join(made.fields)[:200]}, "
            f"histories of {', '.join(str(one.max_len) for one in histories.values())}",
            got=f"{', '.join(wrong)!a}"[:200],
            do="make the data set again: this shard and the manifest are not of one run",
        )


def is_backed(tensor: torch.Tensor) -> bool:
    """Whether a tensor that was read has all its numbers: one repeated by a stride of 0 has not."""
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
