"""`bundle.json`: what a bundle holds, and the checksum of each of its files.

A bundle is a model with all that scoring needs, apart from the data set and the run that it comes
from:

```
BUNDLE/bundle.json                   written last
BUNDLE/model.onnx
BUNDLE/vocabulary/<field>.parquet    as in the data set
BUNDLE/lookups/<name>.parquet        likewise
BUNDLE/events/unknown.<name>.parquet likewise, if events are kept
BUNDLE/golden/...                    requests with their features and scores, if events are kept
```
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from schemas.checked import OPEN, STRICT, Count, Misfit, build, decode
from schemas.errors import ContractError, InputError
from schemas.manifest import Manifest
from schemas.replacing import sha256

FORMAT = 1
NAME, MODEL = "bundle.json", "model.onnx"
SHAPES = ("request", "rows")
OUTPUTS = ("logit", "score")


def in_graph(name: str) -> str:
    """What a graph calls an input: as it is called, but for a dot behind the name of an output."""
    return f"{name}." if name in OUTPUTS else name


_DO = "export the run again"


@dataclass(frozen=True)
class Input:
    """One input of the graph, a column of shards.

    `sides` are its lengths: a number, or `rows` or `places_of_<history>`, which may be any from 1.
    An input `of_history` has one row in a graph of requests.
    """

    __pydantic_config__ = STRICT
    name: str
    type: str
    sides: list[Count | str]
    of_history: bool


@dataclass(frozen=True)
class Clock:
    """Which times targets have: `offset`, and so many `step`s more, in the data set's time unit.

    A log of days has a step of a day. What is served at a finer time falls into other interval
    bins than in training.
    """

    __pydantic_config__ = STRICT
    step: Count
    offset: Count


@dataclass(frozen=True)
class Measured:
    """What the bundle's scores are worth on a split, beside those of the run in PyTorch.

    `largest_change` is that of a row's probability. The bytes are of all embedding tables.
    """

    __pydantic_config__ = STRICT
    split: str
    rows: Count
    gauc: float | None
    logloss: float | None
    run_gauc: float | None
    run_logloss: float | None
    largest_change: float
    table_bytes: Count
    run_table_bytes: Count


@dataclass(frozen=True)
class BundleFile:
    """One file of the bundle; `path` is relative to it, with '/'."""

    __pydantic_config__ = STRICT
    path: str
    bytes: Count
    sha256: str


@dataclass(frozen=True)
class Bundle:
    """The contents of `bundle.json`.

    `shape` says whether the graph scores a `request`, one user's histories with many candidates, or
    `rows` with a history each. `trained_on` is what the model knows of its data set, and `data` the
    data set's own manifest, but for shards: description, histories with their window rules and bin
    edges, features, scales, time unit and digests. `sha256` is that of all else that is said, as
    `checksum` has it.
    """

    __pydantic_config__ = OPEN
    format: int
    version: str
    model: str
    encoding: str
    precision: str
    shape: str
    inputs: list[Input]
    outputs: list[str]
    trained_on: dict[str, Any]
    data: Manifest
    clock: Clock
    measured: Measured
    files: list[BundleFile] = field(default_factory=list)
    sha256: str = ""

    def to_json(self) -> str:
        """The text of its file."""
        said = asdict(self)
        said["sha256"] = checksum(said)
        return json.dumps(said, indent=1, ensure_ascii=False) + "\n"


def checksum(said: dict[str, Any]) -> str:
    """The checksum of what a bundle says, but for the checksum itself, however it is laid out."""
    said = {name: value for name, value in said.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def load(folder: Path) -> Bundle:
    """Read what a bundle says of itself, and hold its files to it.

    Raises:
        InputError: there is no bundle.
        ContractError: a file of it is missing or was changed, `bundle.json` too; or it is of
            another format.
    """
    path = folder / NAME
    try:
        raw = decode(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            "There is no bundle here.",
            where=path,
            expected="a folder that `tinprep export` wrote",
            got=error.strerror or str(error),
            do="`tinprep export RUN --out FOLDER` writes one",
        ) from None
    except ValueError as error:
        raise ContractError(
            "This is no bundle.", where=path, expected="JSON", got=str(error)[:200], do=_DO
        ) from None
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        got = raw.get("format", "none") if isinstance(raw, dict) else "none"
        raise ContractError(
            "The bundle is of another version.",
            where=path,
            expected=f"format {FORMAT}",
            got=f"format {got!a}"[:100],
            do=_DO,
        )
    if (got := checksum(raw)) != raw.get("sha256"):
        raise ContractError(
            "The bundle does not say what was written.",
            where=path,
            expected=f"sha256 {raw.get('sha256', 'of what it says')!a}"[:100],
            got=got,
            do=_DO,
        )
    try:
        found = build(Bundle, raw)
    except Misfit as error:
        raise ContractError(
            f"The bundle says what cannot be: {error.at[:200]}.",
            where=path,
            expected=error.expected,
            got=error.got,
            do=_DO,
        ) from None
    for file in found.files:
        require_whole(folder / file.path, file)
    return found


def require_whole(path: Path, file: BundleFile) -> None:
    """Hold a file of a bundle to its checksum.

    Raises:
        ContractError: it is missing or was changed.
    """
    got = sha256(path) if path.is_file() else "no such file"
    if got != file.sha256:
        raise ContractError(
            "A file of the bundle is not what was written.",
            where=path,
            expected=file.sha256,
            got=got,
            do=_DO,
        )


def files_of(folder: Path) -> list[BundleFile]:
    """All files below a folder, in the order of their names."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [
        BundleFile(path.relative_to(folder).as_posix(), path.stat().st_size, sha256(path))
        for path in paths
    ]
