"""What a manifest or a checkpoint declares, bounded by what is there before memory is taken.

Both may be damaged or a stranger's. A size that nothing bears out would be allocated, or looped
over, long before the first row shows that it is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from schemas.errors import ContractError
from schemas.manifest import FIRST_ID, NAME, Manifest, require
from schemas.shards import MOST_BEHAVIOURS, MOST_BINS
from trainer.config import LAYERS, WIDTHS
from trainer.rows import HISTORY


def check_manifest(made: Manifest, out: Path) -> None:
    """Hold a manifest's fields and sizes to the vocabularies and shards that it lists.

    Args:
        made: the manifest.
        out: its folder.

    Raises:
        ContractError: one is not borne out.
    """
    want = partial(require, out / NAME)
    holds = 0 < len(made.fields) == len({*made.fields})
    want(holds, "fields", "some, each once", ", ".join(made.fields))
    unsized = [name for name in made.fields if name not in made.vocabulary]
    want(not unsized, "fields", "a size for each under `vocabulary`", ", ".join(unsized))
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


def check_schema(made: Manifest, schema: pa.Schema, where: Path) -> None:
    """Hold the manifest's fields and its `max_len` to a shard.

    Raises:
        ContractError: a field has no columns, or dense histories are of another length.
    """
    columns = [column for name in made.fields for column in (f"target_{name}", HISTORY + name)]
    wrong = [f"no {column}" for column in columns if column not in schema.names]
    wrong += [
        f"{field.name} of {field.type.list_size}"
        for field in schema
        if field.name.startswith(HISTORY)
        and pa.types.is_fixed_size_list(field.type)
        and field.type.list_size != made.max_len
    ]
    if wrong:
        raise ContractError(
            "The manifest and a shard do not agree.",
            where=where,
            expected=f"columns of {', '.join(made.fields)[:200]}, histories of {made.max_len}",
            got=f"{', '.join(wrong)!a}"[:200],
            do="make the data set again: this shard and the manifest are not of one run",
        )


def check_checkpoint(built: Mapping[str, Any], weights: Mapping[str, Any]) -> None:
    """Hold what a checkpoint says of its model to the weights it has.

    A width or a vocabulary is a side of some tensor, a field and a layer have a tensor each.

    Raises:
        ValueError: it declares more than that.
    """
    numbers = sum(weight.numel() for weight in weights.values())
    inputs, hidden = built["inputs"], list(built["hidden"])
    sizes = [*inputs["fields"].values(), *inputs["others"].values()]
    least, most = WIDTHS
    given = [built["dim"], *hidden, built.get("attention_dim") or built["dim"]]
    fits = (
        all(type(size) is int and 0 <= size <= numbers for size in sizes)
        and all(type(width) is int and least <= width <= most for width in given)
        and 1 <= inputs["max_len"] <= MOST_BEHAVIOURS
        and 1 <= inputs["bins"] <= MOST_BINS
        and len(hidden) <= LAYERS
        and len(sizes) <= len(weights)
        and len(inputs["numbers"]) <= numbers
        and all(1 <= side <= MOST_BEHAVIOURS for side in inputs.get("sessions") or ())
    )
    if not fits:
        raise ValueError("sizes that its weights do not bear out")


def is_backed(tensor: torch.Tensor) -> bool:
    """Whether a tensor that was read has all its numbers: one repeated by a stride of 0 has not."""
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
