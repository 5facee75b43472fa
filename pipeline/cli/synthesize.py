"""The commands that make synthetic raw files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.amounts import checked
from pipeline.cli.errors import told_errors
from pipeline.cli.progress import progress
from schemas.terminal import Terminal

synthesize = typer.Typer(no_args_is_help=True, help="Make synthetic raw files, said to be so.")


def make_amazon(out: Path, scale: float, seed: int, category: str) -> None:
    """Make Amazon's raw files, and show how far that is."""
    from pipeline.synthetic.amazon import AmazonRecipe, synthesize_amazon

    with progress() as told:
        synthesize_amazon(
            out, AmazonRecipe(scale=scale, seed=seed), category=category, progress=told
        )


def make_alibaba(out: Path, scale: float, seed: int) -> None:
    """Make the Taobao log's raw files, and show how far that is."""
    from pipeline.synthetic.alibaba import AlibabaRecipe, synthesize_alibaba

    with progress() as told:
        synthesize_alibaba(out, AlibabaRecipe(scale=scale, seed=seed), progress=told)


@synthesize.command("amazon")
@checked
def synthesize_amazon_files(
    out: Annotated[Path, typer.Option(help="Folder for the two files and SYNTHETIC.json.")],
    scale: Annotated[float, typer.Option(help="1.0 has Electronics' counts.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Another seed, other users.")] = 0,
    category: Annotated[str, typer.Option(help="Name in the files' names.")] = "Electronics",
) -> None:
    """Raw files like Amazon's, with a planted correlation that SYNTHETIC.json states."""
    with told_errors():
        make_amazon(out, scale, seed, category)
        Terminal().print(f"synthetic raw files: {out}", highlight=False)


@synthesize.command("alibaba")
@checked
def synthesize_alibaba_files(
    out: Annotated[Path, typer.Option(help="Folder for the four files and SYNTHETIC.json.")],
    scale: Annotated[float, typer.Option(help="1.0 has the log's counts: 22 GB.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Another seed, other users.")] = 0,
) -> None:
    """Raw files like tianchi 56's, with a planted effect on clicks that SYNTHETIC.json states."""
    with told_errors():
        make_alibaba(out, scale, seed)
        Terminal().print(f"synthetic raw files: {out}", highlight=False)
