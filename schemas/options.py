"""A setting: its type, bounds, default and what it is for, said once, where its configuration is.

The command line is made from this, and so is what is written about it.
"""

from __future__ import annotations

from dataclasses import MISSING, field, fields
from functools import cache
from inspect import get_annotations
from typing import Any, NoReturn, get_type_hints

from schemas.checked import Misfit, hold
from schemas.errors import UsageError

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


@cache
def kinds(of: type) -> dict[str, Any]:
    """The type and bounds of each setting of a configuration: looked up once, as it runs code."""
    settings = {one.name for one in fields(of) if "help" in one.metadata}
    found: dict[str, Any] = {}
    for base in reversed(of.__mro__):
        if settings & get_annotations(base).keys():  # others may name what is there for mypy alone
            found |= get_type_hints(base, include_extras=True)
    return found


def check(config: Any) -> None:
    """Hold each setting of a configuration to its type: "no" would count as true.

    Raises:
        UsageError: one is of another, or out of its bounds.
    """
    for name, kind in kinds(config.__class__).items():
        value = getattr(config, name)
        try:
            hold(kind, tuple(value) if isinstance(value, list) else value)
        except Misfit as error:
            refuse(name, error.expected.replace("'", ""), ascii(value))


def refuse(name: str, expected: str, got: object) -> NoReturn:
    """Refuse the value of a setting.

    Raises:
        UsageError: always.
    """
    option = "--" + name.replace("_", "-")
    what = f"{option} cannot have this value."
    raise UsageError(what, where=option, expected=expected, got=str(got)[:100])
