"""What the makers of synthetic data share: a recipe's ranges, and a folder that is whole or not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import field, fields
from pathlib import Path
from typing import Any

from pipeline.readers.raw_files import SYNTHETIC as MARKER
from schemas.errors import EnvironmentFault, UsageError
from schemas.replacing import replacing

__all__ = ["MARKER", "check_ranges", "knob", "writing"]


def knob(default: Any, holds: Callable[[Any], bool], expected: str) -> Any:
    """A field of a recipe, with its range: as a function, and in words."""
    return field(default=default, metadata={"holds": holds, "expected": expected})


def check_ranges(recipe: Any) -> None:
    """Refuse a recipe, whose fields are `knob`s, of which a value is out of its range.

    Raises:
        UsageError: a value is out of its range.
    """
    for one in fields(recipe):
        if not one.metadata["holds"](value := getattr(recipe, one.name)):
            raise UsageError(
                "The synthetic data cannot be made with this value.",
                where=one.name,
                expected=one.metadata["expected"],
                got=str(value),
            )


@contextmanager
def writing(out: Path, names: Sequence[str]) -> Iterator[dict[str, Path]]:
    """Files that become those of `names` in a folder, in this order, when the block has ended.

    Raises:
        EnvironmentFault: the disk refused.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:  # which ends what was entered last first
            yield {name: stack.enter_context(replacing(out / name)) for name in reversed(names)}
    except OSError as error:
        raise EnvironmentFault(
            "The synthetic data cannot be written.",
            where=error.filename or out,
            got=error.strerror or str(error),
            do="give another folder with --out, or make room; nothing was left half written",
        ) from error


def read_marker(marker: Path, files: list[Path]) -> tuple[dict[str, Any], dict[str, int]] | None:
    """What the marker says, and the sizes in bytes that it gives; None in a folder without data.

    Raises:
        UsageError: there is data without a marker, or the marker is none.
    """
    if not marker.exists():
        if files:
            expected = "an empty folder, or synthetic data"
            raise other_data(files[0], expected, f"no {marker.name} beside it")
        return None
    try:
        found = json.loads(marker.read_text(encoding="utf-8"))
        return found, {str(name): int(size) for name, size in found["files"].items()}
    except (UnicodeDecodeError, ValueError, AttributeError, KeyError, TypeError):
        raise other_data(marker, "the marker of this data", "something that is not one") from None


def check_sizes(files: list[Path], sizes: Mapping[str, int]) -> None:
    """Refuse files that have not the sizes, in bytes by name, that the marker gives.

    Raises:
        UsageError: one has another size.
    """
    for path in files:
        if path.stat().st_size != sizes.get(path.name):
            raise other_data(path, f"{sizes.get(path.name, 'no such file')}", "another size")


def other_data(path: Path, expected: str, got: str) -> UsageError:
    """The error of a folder in which `path` is not of the data to be made."""
    return UsageError(
        "The folder holds other data, which is never overwritten.",
        where=path,
        expected=expected,
        got=got,
        do="give another folder with --out, or remove the old data yourself",
    )
