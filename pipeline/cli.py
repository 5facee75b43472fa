"""The command line: its groups of commands, and how a run of it ends."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from pipeline import (
    cli_look,
    cli_prepare,
    cli_report,
    cli_reproduce,
    cli_synthesize,
    cli_train,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Raw behaviour logs in, model-ready Parquet shards out, and a trainer for TIN.",
)
for commands in (
    cli_look,
    cli_train,
    cli_reproduce,
    cli_report,
    cli_prepare,
    cli_synthesize,
):
    commands.add_to(app)


def _version(asked: bool) -> None:
    if asked:
        Console().print(f"tinprep {version('tinprep')}", highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        app(args=argv, prog_name="tinprep")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    finally:
        signal.signal(signal.SIGTERM, before)
    return os.EX_OK


def run() -> NoReturn:
    """Run the command line as a process of its own, and end the process."""
    code = main()
    with suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stderr.flush()
    # All that must be kept is on disk. To take down every library in order only takes time, and
    # threads of torch's communication may abort it (seen with 2.13), after a run that is finished.
    os._exit(code)


if __name__ == "__main__":
    run()
