"""Checkpoints: written, and read as tensors and plain values only, whatever the file holds."""

from __future__ import annotations

import pickle
import struct
import zlib
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch

from schemas.errors import ContractError, InputError
from trainer.data.checks import is_backed
from trainer.training.divergence import not_finite, tensors

# What loading a file that is no checkpoint of ours, or a damaged one, ends in.
UNREADABLE = (
    *(RuntimeError, pickle.UnpicklingError, EOFError, OSError, LookupError, TypeError),
    *(ValueError, AttributeError, AssertionError, ArithmeticError, struct.error, ImportError),
    *(BadZipFile, zlib.error),
)


def write_checkpoint(content: dict[str, Any], path: Path) -> None:
    """`torch.save`, with the system's own word where the disk is full."""
    with path.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            # PyTorch cannot end its file either, and tells that alone.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def read_checkpoint(path: Path, device: torch.device, keys: tuple[str, ...]) -> dict[str, Any]:
    """Load a dictionary that `torch.save` wrote; nothing in it is executed.

    Raises:
        InputError: the file is missing, or cannot be read.
        ContractError: it holds weights that are not finite.
    """
    try:
        with ZipFile(path) as parts:  # PyTorch writes checksums, and never asks them
            if damaged := parts.testzip():
                raise ValueError(f"{damaged} is not what was written")
        content = torch.load(path, map_location=device, weights_only=True)
        found = {key: content[key] for key in keys}
        if not all(is_backed(tensor) for _, tensor in tensors(found)):
            raise ValueError("a tensor that is larger than its data")
        diverged = not_finite(found)
    except FileNotFoundError:
        raise InputError(
            "There is no checkpoint here.",
            where=path,
            expected="the folder of a run",
            got="no such file",
            do="train first, e.g. `tinprep train DATA --run RUN`",
        ) from None
    except UNREADABLE as error:
        raise unreadable(path, error) from error
    if diverged is not None:
        raise ContractError(
            "The checkpoint is of a training that has diverged.",
            where=path,
            expected="finite numbers",
            got=f"NaN or infinity in {diverged!a}"[:200],
            do="train again, with a lower `--lr`",
        )
    return found


def unreadable(path: Path, error: Exception) -> InputError:
    """The error that says so."""
    got = f"{str(error).partition(chr(10))[0]!a}"[:200]
    if isinstance(error, pickle.UnpicklingError):
        got = "a damaged file, or more than tensors and plain values"  # torch advises to execute it
    return InputError(
        "The checkpoint cannot be read.",
        where=path,
        expected="a checkpoint that tinprep wrote",
        got=got,
        do="train again",
    )
