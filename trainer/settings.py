"""Settings of a training from a file, TOML or JSON."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from schemas.errors import InputError, UsageError
from schemas.shape import decode
from trainer.config import BALANCED, EITHER, TrainConfig
from trainer.ranks import ALONE, Ranks

_READERS: dict[str, Callable[[str], Any]] = {".toml": tomllib.loads, ".json": decode}
_NUMBERS = "a number"
_FLAGS = ("amp", "compile", "force", "resume", "tensorboard")
_TEXTS = ("data", "device", "encoding", "model", "optimizer", "run")
_FLOATS = ("checkpoint_seconds", "clip", "lr")
# What a run's config.json holds beside settings: how many processes trained, and on what.
RANKS, DIGESTS = "ranks", "digests"


def read_settings(path: Path, ranks: Ranks = ALONE) -> dict[str, Any]:
    """Read settings of `TrainConfig`: the flags of `tinprep train` without their dashes.

    `batch_size` and `batch-size` are both understood. A run's `config.json` is such a file. Where
    its `ranks` says how many processes trained, it must be as many now.

    Args:
        path: a .toml or .json file.
        ranks: who trains now.

    Returns:
        The settings that the file has, without those that are null, ready for `TrainConfig`.

    Raises:
        InputError: the file is missing or is not TOML or JSON.
        UsageError: an unknown key, a value of the wrong type, or another kind of file.
    """
    if path.suffix not in _READERS:
        raise UsageError(
            "Settings are read from TOML or JSON.",
            where=path,
            expected="a file called *.toml or *.json",
            got=path.suffix or "no suffix",
        )
    try:
        content = _READERS[path.suffix](path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # of TOML and JSON too
        raise InputError(
            "The settings cannot be read.",
            where=path,
            expected=f"a {path.suffix[1:].upper()} file",
            got=str(error),
        ) from None
    if not isinstance(content, dict):
        raise _wrong(path, "the file", "names and values", content)
    found: dict[str, Any] = {}
    for key, value in content.items():
        name = key.replace("-", "_")
        if name in found:
            raise _wrong(path, key, "each setting once", "it twice")
        if name == RANKS:
            _require_ranks(path, value, ranks)
        elif name != DIGESTS:
            found[name] = _checked(path, name, value)
    return {name: value for name, value in found.items() if value is not None}


def merged(file: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The file's settings with those given on the command line in place of its own.

    Where two flags say one thing in two ways, giving one drops the file's other: `--steps` a file's
    `epochs`, `--evaluate-every` its `evaluations`, and the other way round.
    """
    pairs = [*EITHER, *(pair[::-1] for pair in EITHER)]
    dropped = {other for one, other in pairs if one in given}
    return {name: v for name, v in file.items() if name not in dropped} | given


def _checked(path: Path, name: str, value: Any) -> Any:
    """The value as `TrainConfig` takes it."""
    known = sorted(f.name for f in fields(TrainConfig))
    if name not in known:
        raise UsageError(
            f"There is no setting {name}.",
            where=path,
            expected=f"one of {', '.join(known)}",
            got=name,
        )
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is None:  # a run's config.json has what was not given, too
        return None
    if name in _FLAGS:
        fits, expected = isinstance(value, bool), "true or false"
    elif name in _TEXTS:
        fits, expected = isinstance(value, str), "text"
    elif name in _FLOATS:
        fits, expected = number, _NUMBERS
    elif name == "loss_weight":
        fits, expected = number or value == BALANCED, f'{_NUMBERS}, or "{BALANCED}"'
    elif name == "hidden":
        fits = isinstance(value, list) and all(type(width) is int for width in value)
        expected = "whole numbers in brackets, e.g. [80, 40]"
    else:
        fits, expected = type(value) is int, "a whole number"
    if not fits:
        raise _wrong(path, name, expected, value)
    if name in ("data", "run"):
        return Path(value)
    return tuple(value) if name == "hidden" else value


def _require_ranks(path: Path, value: Any, ranks: Ranks) -> None:
    if value != ranks.world:
        raise UsageError(
            "These settings are of another number of processes.",
            where=f"{path}: {RANKS}",
            expected=f"{RANKS} {ranks.world}, as many as train now",
            got=json.dumps(value),
            do=f"start as many with `torchrun --nproc-per-node`, or take {RANKS} out of the file",
        )


def _wrong(path: Path, key: str, expected: str, got: Any) -> UsageError:
    return UsageError(
        "A setting in the file has a value of the wrong type.",
        where=f"{path}: {key}",
        expected=expected,
        got=repr(got),
    )
