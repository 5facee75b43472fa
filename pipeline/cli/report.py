"""The command that writes a report: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.errors import told_errors
from schemas.terminal import Terminal


def report(
    data: Annotated[Path, typer.Argument(help="Folder of a data set.")],
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Folders of finished runs on it; may be none.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The HTML file; replaced where there is one.")] = Path(
        "report.html"
    ),
    category: Annotated[
        str | None,
        typer.Option(help="The target's in the heat maps. Default: that with most positives."),
    ] = None,
    history: Annotated[
        str | None, typer.Option(help="Of a data set with several the one to show. Default: all.")
    ] = None,
    memory_mb: Annotated[
        int, typer.Option(min=1, help="What counting over the shards may take.")
    ] = 1024,
) -> None:
    """One HTML file on a data set and its runs: figures, results, settings; needs no network."""
    with told_errors():
        from trainer.analysis.report.page import write_report

        write_report(data, runs or [], out, category, history=history, memory_mb=memory_mb)
        size = out.stat().st_size / 1000
        Terminal().print(f"report: {out} ({size:,.0f} kB)", highlight=False, soft_wrap=True)
