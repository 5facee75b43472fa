"""The command line: its groups of commands, and how a run of it ends."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib.metadata import version
from io import TextIOWrapper
from typing import Annotated, NoReturn

from schemas.interrupts import INTERRUPTED, untold, watch

if __name__ == "__main__":  # as `pipeline.start`: what follows loads much
    watch()

import typer

from pipeline.cli.amounts import checked
from pipeline.cli.described import describe, prepare, transform
from pipeline.cli.fit import train
from pipeline.cli.look import doctor, inspect, score, serve, verify
from pipeline.cli.prepare import alibaba, amazon
from pipeline.cli.report import report
from pipeline.cli.reproduce import correlate, reproduce, results
from pipeline.cli.synthesize import synthesize
from pipeline.cli.train import evaluate, export, importance, models, predict
from schemas.errors import EnvironmentFault
from schemas.terminal import Terminal

_FIRST = "Prepare a data set"
_COMMANDS = {
    _FIRST: (prepare, describe, transform, amazon, alibaba),
    "Look into one": (inspect, verify, doctor),
    "Train, compare, predict": (train, models, evaluate, importance, report, predict),
    "Serve": (export, score, serve),
    "The paper": (correlate, reproduce, results),
}
"""What the help shows together, in the order of the work."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Raw behaviour logs in, model-ready Parquet shards out, and a trainer for TIN.",
)
for panel, commands in _COMMANDS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(checked(command))
app.add_typer(synthesize, name="synthesize", rich_help_panel=_FIRST)


def _version(asked: bool) -> None:
    if asked:
        Terminal().print(f"tinprep {version('tinprep')}", highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    give_back = watch()
    code = os.EX_OK
    try:
        app(args=argv, prog_name="tinprep")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    except OSError as error:  # of what is printed by no command: the help
        code = _unprinted(error)
    except KeyboardInterrupt:  # as a command began or ended
        code = INTERRUPTED
    finally:
        give_back()
    return INTERRUPTED if untold() else code


def _unprinted(error: OSError) -> int:
    """The exit code where the terminal, or the file in its place, takes no more."""
    if isinstance(error, BrokenPipeError):  # as `| head` leaves it
        return os.EX_OK
    with suppress(OSError, AttributeError):
        print(f"error: What is printed cannot be written: {error}", file=sys.stderr)  # noqa: T201
    return EnvironmentFault.exit_code


def run() -> NoReturn:
    """Run the command line as a process of its own, and end the process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # not where it was closed before the start
            stream.reconfigure(errors="backslashreplace")
    code = main()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError as error:
            code = code or _unprinted(error)
    # All that must be kept is on disk. To take down every library in order only takes time, and
    # threads of torch's communication may abort it (seen with 2.13), after a run that is finished.
    os._exit(code)


if __name__ == "__main__":
    run()
