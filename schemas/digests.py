"""Digests of what a data set's numbers mean: what is equal may be used in one's place.

Ids mean something by the vocabularies, interval bins by their edges, float columns by their scales,
and a history by the rule that says which behaviours it holds. The same data made again has the
same digests, wherever it lies, however its files are packed, and whichever version made it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas import vocabulary
from schemas.checked import is_finite
from schemas.errors import ContractError
from schemas.manifest import FIRST_ID, NAME, SPLITS, History, Manifest
from schemas.plain import printable

VOCABULARY, ROWS = "vocabulary of ", "rows of "
WINDOW = ("ties", "behaviors", "behaviors_since", "session_gap", "sessions")
"""The settings that decide which behaviours a history holds, in which order and sessions."""
# As `WINDOW`, and which events are targets, of a description in the language.
_WINDOW_SAID = {
    "tables": ("where", "order", "duplicates"),
    "histories": None,
    "target": ("table", "where", "only_new"),
    "filters": None,
}
_SHOWN, _LONGEST = 12, 1_000  # characters of a digest, and of all, for people


def of_manifest(made: Manifest) -> dict[str, str]:
    """The digests of all but the vocabularies: what -> its digest."""
    window = {name: made.config.get(name) for name in WINDOW}
    window["max_len"] = _of_each(made, lambda one: one.max_len)
    if made.description:
        window |= _window_said(made.description)
    edges = _of_each(made, lambda one: one.bins.edges_s)
    found = {"bin edges": _of_json(edges), "window rule": _of_json(window)}
    if made.time_unit != "s":  # as it is where nothing is said of it
        found["time unit"] = _of_json(made.time_unit)
    if timed := sorted(key for key, one in made.lookups.items() if one.timed):
        found["timed lookups"] = _of_json(timed)
    for name, scale in made.numbers.items():
        # How many rows it was taken from changes no value. Logarithms differ in their last digit
        # between machines; a stored float32 has 7.
        kept = {
            key: f"{value:.9g}" if is_finite(value) else value
            for key, value in scale.items()
            if key != "train_rows"
        }
        found[f"scale of {name}"] = _of_json(kept)
    return found


def _of_each(made: Manifest, what: Callable[[History], Any]) -> Any:
    """Something of each history, by name; of the only one, just that."""
    found = {name: what(one) for name, one in made.histories.items()}
    return found if len(found) > 1 else what(made.history)


def _window_said(description: Mapping[str, Any]) -> dict[str, Any]:
    """What a description says of histories and targets, whatever its columns are called."""
    found: dict[str, Any] = {}
    for part, keys in _WINDOW_SAID.items():
        said = description.get(part)
        if keys is not None and isinstance(said, Mapping):
            of = said.values() if part == "tables" else [said]
            kept = [{k: one.get(k) for k in keys} for one in of if isinstance(one, Mapping)]
            said = dict(zip(said, kept, strict=False)) if part == "tables" else kept
        found[part] = said
    return found


def of_vocabularies(words: Mapping[str, pa.Table]) -> dict[str, str]:
    """The digests of vocabularies, each a table of value and id in the order of ids."""
    return {VOCABULARY + name: of_vocabulary(table) for name, table in words.items()}


def of_vocabulary(table: pa.Table) -> str:
    """The digest of a vocabulary's values and ids, whatever counts stand beside them.

    Args:
        table: value (int64 or text) and id, in the order of ids.
    """
    value = table["value"].combine_chunks()
    digest = hashlib.sha256()
    if pa.types.is_integer(value.type):
        digest.update(b"numbers")
        digest.update(value.cast(pa.int64()).to_numpy().astype("<i8").tobytes())
    else:
        value = value.cast(pa.large_string())
        # The lengths, since the text alone does not say where a value ends.
        ends = pc.binary_length(value).to_numpy().astype("<i8")
        digest.update(b"text")
        digest.update(ends.tobytes())
        first = np.frombuffer(value.buffers()[1], np.int64)[value.offset] if len(value) else 0
        digest.update(memoryview(value.buffers()[2] or b"")[first : first + int(ends.sum())])
    digest.update(table["id"].combine_chunks().to_numpy().astype("<i8").tobytes())
    return digest.hexdigest()


def of_data(out: Path, made: Manifest) -> dict[str, str]:
    """The digests of a data set, from its vocabularies' files and its manifest's keys.

    What the manifest says of digests must hold; one from before says nothing.

    Raises:
        InputError: a vocabulary is missing or damaged.
        ContractError: a vocabulary breaks its contract, or the manifest has other digests.
    """
    words = {
        name: vocabulary.read(out / "vocabulary" / f"{name}.parquet") for name in made.vocabulary
    }
    sizes = {name: len(table) + FIRST_ID for name, table in words.items()}
    if sizes != made.vocabulary:
        raise ContractError(
            "The vocabularies are not as large as the manifest says.",
            where=out / NAME,
            expected=f"vocabulary {made.vocabulary}"[:500],
            got=f"{sizes}"[:500],
            do="make the data set again (`--force`)",
        )
    found = of_vocabularies(words) | of_manifest(made)
    if made.digests and (wrong := differing(found, made.digests)):
        raise ContractError(
            "The data set is not what its manifest says.",
            where=out / NAME,
            expected=in_short(made.digests, wrong),
            got=in_short(found, wrong),
            do="make the data set again (`--force`)",
        )
    return found


def of_rows(made: Manifest) -> dict[str, str]:
    """A digest of each split's shards, in their order: equal where a training reads the same."""
    found = {}
    for split in {**dict.fromkeys(SPLITS), **made.rows}:
        shards = [s for s in made.shards if s.path.startswith(f"{split}/")]
        found[f"{ROWS}{split}"] = _of_json([[s.rows, s.sha256] for s in shards])
    return found


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The names under which two sets of digests differ."""
    return [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)]


def in_short(digests: Mapping[str, Any], names: list[str]) -> str:
    """Some of the digests, for people."""
    shown = [f"{name} {str(digests.get(name, 'none'))[:_SHOWN]}" for name in names]
    return printable(", ".join(shown))[:_LONGEST]


def _of_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
