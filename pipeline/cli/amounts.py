"""Values as they are written on the command line: the one place that reads them.

`checked` gives every argument and option of a command the reader of its type. What a reader refuses
ends in one message and code 2, before anything is done. Which of the values that can be read make
sense is for the configurations to say.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import copy
from inspect import signature
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, NewType, TypeVar, get_args, get_origin, get_type_hints

from typer.models import ArgumentInfo, OptionInfo

from pipeline.cli.errors import told_errors
from schemas.errors import UsageError

Bytes = NewType("Bytes", int)
Share = NewType("Share", float)
Widths = NewType("Widths", tuple[int, ...])

Command = TypeVar("Command", bound=Callable[..., None])

_WHOLE = re.compile(r"[+-]?0*([0-9]+)", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]{1,9})?", re.ASCII | re.I)
_BYTES = re.compile(r"([0-9]+\.?[0-9]*) ?([kmgt])(?:i?b)?", re.ASCII | re.I)
_SHARE = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(%?)", re.ASCII)
_LIMIT = 1 << 63
_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_MOST_DIGITS = 19  # of a number below the limit


def checked(command: Command) -> Command:
    """Have every argument and option of a command read here."""
    hints = get_type_hints(command, include_extras=True)
    defaults = signature(command).parameters
    for name, hint in hints.items():
        if get_origin(hint) is not Annotated:
            continue
        annotated, info = get_args(hint)[:2]
        kind = annotated
        while get_args(kind):  # X | None and list[X], the two together as well
            kind = next(part for part in get_args(kind) if part is not NoneType)
        if kind in _READERS and isinstance(info, ArgumentInfo | OptionInfo):
            option = isinstance(info, OptionInfo)
            flag = info.default if isinstance(info.default, str) else ""  # typer keeps it there
            where = (flag or "--" + name.replace("_", "-")) if option else name.upper()
            info = copy(info)  # several commands may share it
            info.parser = _parser(where, kind, info.min)
            info.metavar = _READERS[kind][0] if option else None
            if kind in _SHOWN and (default := defaults[name].default) is not None:
                info.show_default = _SHOWN[kind](default)
            hints[name] = Annotated[annotated, info]
    command.__annotations__ = hints
    return command


def whole(text: str) -> int:
    """Read a whole number of 64 bits, e.g. '-5'."""
    found = _WHOLE.fullmatch(text)
    if found is None or len(found[1]) > _MOST_DIGITS or int(found[1]) >= _LIMIT:
        raise ValueError("a whole number of 64 bits")
    return int(text)


def number(text: str) -> float:
    """Read a number, e.g. '1e-3'."""
    value = float(text) if _NUMBER.fullmatch(text) else float("inf")
    if abs(value) == float("inf"):
        raise ValueError("a number")
    return value


def as_bytes(text: str) -> Bytes:
    """Read an amount of memory: '2GB', '1500MB' or '1.5g'."""
    found = _BYTES.fullmatch(text)
    value = float(found[1]) * _UNITS[found[2].lower()] if found else 0
    if not 1 <= value < _LIMIT:
        raise ValueError("an amount of memory with its unit, e.g. 2GB or 1500MB")
    return Bytes(int(value))


def as_share(text: str) -> Share:
    """Read a share: '0.1%', or as a fraction below 1: '0.001'."""
    found = _SHARE.fullmatch(text)
    value = float("inf") if found is None else float(found[1]) / (100 if found[2] else 1)
    if value > 1 or (value == 1 and "%" not in text):
        raise ValueError(
            "0% to 100%, e.g. 0.1%, or a fraction below 1 (1 may mean 1% or 100%: say which)"
        )
    return Share(value)


def widths(text: str) -> Widths:
    """Read widths of layers: '80,40'."""
    try:
        return Widths(tuple(map(whole, text.split(","))))
    except ValueError:
        raise ValueError("whole numbers with commas between, e.g. 80,40") from None


# How the help calls what is wanted, and how it is read.
_READERS: dict[Any, tuple[str, Callable[[str], Any]]] = {
    int: ("INTEGER", whole),
    float: ("NUMBER", number),
    str: ("TEXT", str),
    Path: ("PATH", Path),
    Bytes: ("BYTES", as_bytes),
    Share: ("SHARE", as_share),
    Widths: ("WIDTHS", widths),
}
# How the help shows a default.
_SHOWN: dict[Any, Callable[[Any], str]] = {
    Bytes: lambda amount: f"{amount >> 30}GB" if amount >> 30 else f"{amount >> 20}MB",
    Share: lambda share: f"{share:.1%}",
}


def _parser(where: str, kind: Any, least: float | None) -> Callable[[Any], Any]:
    """What reads `where`; faults are told as those of commands are."""

    def read(text: Any) -> Any:  # not a partial: older versions of typer want its name
        with told_errors():
            return _read(where, kind, least, text)

    return read


def _read(where: str, kind: Any, least: float | None, text: Any) -> Any:
    if not isinstance(text, str):  # the default
        return text
    if not text:
        raise UsageError(
            f"{where} is empty.",
            where=where,
            expected="a value",
            got="no text, as a shell variable that is not set gives it",
            do="give a value, or leave it out",
        )
    try:
        if "\0" in text:
            raise ValueError("text without NUL")
        value = _READERS[kind][1](text)
        if least is not None and value < least:
            raise ValueError(f"at least {least}")
        return value
    except ValueError as error:
        raise UsageError(
            f"{where} cannot have this value.", where=where, expected=str(error), got=text[:200]
        ) from None
