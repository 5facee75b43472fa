"""The options of a command, made from the configuration that it fills; and how one is run."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import MISSING, Field, fields
from inspect import Parameter, Signature, signature
from pathlib import Path
from shlex import quote
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import typer

from pipeline.cli.amounts import Bytes, Share, Widths, checked
from pipeline.cli.errors import told_errors
from pipeline.cli.progress import progress
from schemas.errors import UsageError
from schemas.options import BYTES, COMMAS, PAIRS, SHARE, WEIGHT, WIDTHS
from schemas.terminal import Terminal

if TYPE_CHECKING:
    from pipeline.config import Config

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it would take, and stop.")]

_WRITTEN = {BYTES: Bytes, SHARE: Share, WIDTHS: Widths, COMMAS: str, WEIGHT: str, PAIRS: str}
_LAST = "How the work is done"


def options_of(
    *configs: type, only: Container[str] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of configurations.

    The command is called with a dictionary of settings for each configuration, in place of its
    first arguments, and with its own options as they are. Of options of one name there is the last:
    of a later configuration, or the command's own.

    Args:
        configs: dataclasses whose fields are `schemas.options.option`s.
        only: the settings that are options; None for all.
    """

    def made(command: Callable[..., None]) -> Callable[..., None]:
        own = [*signature(command, eval_str=True).parameters.values()][len(configs) :]
        found = {
            field.name: (config, field)
            for config in configs
            for field in fields(config)
            if "help" in field.metadata and (only is None or field.name in only)
        }
        hints = {config: get_type_hints(config, include_extras=True) for config in configs}
        options = {n: _parameter(of, hints[config][n]) for n, (config, of) in found.items()}
        options |= {one.name: one for one in own}
        found = {n: of for n, of in found.items() if n not in {one.name for one in own}}
        last = {name for name, (_, of) in found.items() if of.metadata["last"]}
        parameters = [
            one.replace(kind=Parameter.KEYWORD_ONLY)
            for one in sorted(options.values(), key=lambda one: one.name in last)
        ]

        def called(**given: Any) -> None:
            settings: dict[type, dict[str, Any]] = {config: {} for config in configs}
            for name, (config, field) in found.items():
                settings[config][name] = _value(field, given.pop(name))
            command(*settings.values(), **given)

        called.__name__, called.__doc__ = command.__name__, command.__doc__
        called.__annotations__ = {one.name: one.annotation for one in parameters}
        called.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        read = checked(called).__annotations__
        parameters = [one.replace(annotation=read[one.name]) for one in parameters]
        called.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        return called

    return made


def _parameter(field: Field[Any], hint: Any) -> Parameter:
    told = field.metadata
    several = told["written"] == PAIRS or (told["written"] != COMMAS and get_origin(hint) is tuple)
    kind = _WRITTEN.get(told["written"]) or _kind(hint)
    default: Any = None if field.default is MISSING else field.default
    if several:
        kind, default = list[kind] | None, None  # type: ignore[valid-type]
    elif told["written"] == COMMAS:
        default = ",".join(default)
    elif told["written"] == WEIGHT:
        default = f"{default:g}"
    elif default is None:
        kind = kind | None
    panel = _LAST if told["last"] else None
    flag = told["flag"] or ("--" + field.name.replace("_", "-") if kind is bool else "")
    if flag.isupper():
        info: Any = typer.Argument(help=told["help"])
    else:
        info = typer.Option(*([flag] if flag else []), help=told["help"], rich_help_panel=panel)
    return Parameter(
        field.name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info]
    )


def _kind(hint: Any) -> Any:
    """The plain type that a setting is written as."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return _kind(next(part for part in get_args(hint) if part is not NoneType))
    if origin is Annotated or origin is tuple:
        return _kind(get_args(hint)[0])
    return str if origin is Literal else hint


def _value(field: Field[Any], given: Any) -> Any:
    """A setting as its configuration has it."""
    if field.metadata["written"] == COMMAS:
        return tuple(name.strip() for name in given.split(","))
    if field.metadata["written"] == PAIRS:
        return _pairs(field.metadata["flag"], given or [])
    return tuple(given or ()) if isinstance(field.default, tuple) else given


def _pairs(flag: str, given: list[str]) -> dict[str, str]:
    """NAME=VALUE as a dictionary."""
    for one in given:
        if not one.partition("=")[1]:
            with told_errors():
                raise UsageError(
                    f"{flag} cannot have this value.", where=flag, expected="NAME=VALUE", got=one
                )
    return dict(one.split("=", 1) for one in given)


def given_of(context: typer.Context, name: str) -> bool:
    """Whether an option was given, be it with its default's value."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def run(config: Config, dry_run: bool, then: str | None = None) -> None:
    """Prepare a data set, or say what it would take; show what came of it and what to do `then`."""
    from pipeline import flow

    if dry_run:
        Terminal().print(flow.plan(config), highlight=False, soft_wrap=True)
        return
    with progress() as told:
        made = flow.prepare(config, told)
    from pipeline import inspection

    Terminal().print(inspection.summary(made, config.out))
    next_command(then or f"train {quote(str(config.out))}")


def require_new(path: Path, do: str) -> None:
    """Refuse to write a description where there is a file.

    Raises:
        UsageError: there is one.
    """
    if path.exists():
        raise UsageError(
            "There is such a file already.",
            where=path,
            expected="no file, as the description is to be written there",
            got="one that may have been changed by hand",
            do=do,
        )


def next_command(told: str) -> None:
    """Print what may well be run next."""
    Terminal().print(f"next: tinprep {told}", highlight=False, markup=False, soft_wrap=True)
