"""A setting: its default and what it is for, said once, where the configuration has it.

The command line is made from this, and so is what is written about it.
"""

from __future__ import annotations

from dataclasses import MISSING, field
from typing import Any

# How a setting is written on a command line, where its type does not say it.
BYTES, SHARE, COMMAS, WIDTHS, WEIGHT = "bytes", "share", "commas", "widths", "weight"
PAIRS = "pairs"


def option(
    default: Any, text: str, *, flag: str = "", written: str = "", last: bool = False
) -> Any:
    """A field of a dataclass that is an option of a command, too.

    Args:
        default: what holds where it is not given; `dataclasses.MISSING` for none.
        text: one or two sentences for `--help`.
        flag: what the option is called where it is not as the field is, e.g. `--mirror`, or
            `--meta/--no-meta`; `DATA` for an argument.
        written: one of `BYTES`, `SHARE`, `COMMAS`, `WIDTHS`, `WEIGHT`, `PAIRS`.
        last: whether it is for how the work is done, and stands after the others.
    """
    told = {"help": text, "flag": flag, "written": written, "last": last}
    if default is MISSING:
        return field(metadata=told)
    return field(default=default, metadata=told)
