"""The commands that look at what is there: data sets, and the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from pipeline.cli.amounts import checked
from pipeline.cli.errors import told_errors
from pipeline.cli.progress import progress
from schemas.terminal import Terminal

_Out = Annotated[Path, typer.Argument(help="Folder of a data set.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (inspect, verify, doctor):
        app.command()(checked(command))


def inspect(
    out: _Out,
    rows: Annotated[int, typer.Option(min=0, help="Rows of each split to decode.")] = 3,
) -> None:
    """What a data set holds: counts, bins, history lengths, a few rows in plain words."""
    with told_errors():
        from pipeline import inspection

        Terminal().print(inspection.inspect(out, rows))


def verify(
    out: _Out,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Shards, or buckets, at once. Default: the usable cores."),
    ] = None,
) -> None:
    """Check every shard and table against the manifest, and every promise that a data set makes."""
    with told_errors():
        from pipeline.verify import verify as check

        with progress() as told:
            report = check(out, told, threads)
        console = Terminal(soft_wrap=True)
        if not report.sound:
            for finding in report.findings:
                console.print(str(finding), highlight=False)
            raise report.error(out)
        console.print(
            f"sound: {report.shards:,} shards, {report.rows:,} rows, {report.seconds:.1f} s: {out}",
            highlight=False,
        )


def doctor() -> None:
    """Versions, cores, memory, disk, Java, GPU and the data sets found: is this machine fit?"""
    with told_errors():
        from pipeline.doctor import doctor as examine

        table = Table()
        for name in ("what", "found", "", "do"):
            table.add_column(name, overflow="fold")
        for line in examine():
            table.add_row(line.name, line.found, "ok" if line.ok else "warning", line.do or "")
        Terminal().print(table)
