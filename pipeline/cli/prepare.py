"""The commands that make data sets: parse, build a configuration, call, print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli import demo as demos
from pipeline.cli.errors import GOES_ON, told_errors
from pipeline.cli.options import DryRun, given_of, options_of, run
from pipeline.cli.synthesize import make_alibaba, make_amazon
from pipeline.presets.alibaba import AlibabaConfig
from pipeline.presets.amazon import AmazonConfig
from schemas.errors import UsageError

if TYPE_CHECKING:
    from pipeline.config import Config

_Demo = Annotated[
    bool, typer.Option("--demo", help="Make synthetic raw files first, and use those.")
]


@options_of(AmazonConfig)
def amazon(
    settings: dict[str, Any], context: typer.Context, dry_run: DryRun = False, demo: _Demo = False
) -> None:
    """Amazon 2014 reviews to shards: leave-one-out, random negatives, histories, interval bins."""
    with told_errors(GOES_ON):
        config = AmazonConfig(**_folders("amazon", settings, context, demo))
        if demo and config.raw:  # not before settings and folders are checked
            _check_folders(config)
            make_amazon(config.raw, demos.AMAZON_SCALE, seed=0, category=config.category)
        run(config, dry_run)


@options_of(AlibabaConfig)
def alibaba(
    settings: dict[str, Any],
    context: typer.Context,
    split_by_day: Annotated[
        bool,
        typer.Option("--split-by-day", help="Last day test, the one before valid; the default."),
    ] = False,
    dry_run: DryRun = False,
    demo: _Demo = False,
) -> None:
    """Taobao's ad log to shards: impressions, what came before each, sessions, ads, profiles."""
    with told_errors(GOES_ON):
        if split_by_day and settings["split_at"] is not None:
            raise UsageError(
                "--split-by-day and --split-at are two ways to split.",
                where="--split-at",
                do="give one of them",
            )
        config = AlibabaConfig(**_folders("alibaba", settings, context, demo))
        if demo and config.raw:
            _check_folders(config)
            make_alibaba(config.raw, demos.ALIBABA_SCALE, seed=0)
        run(config, dry_run)


def _folders(
    name: str, settings: dict[str, Any], context: typer.Context, demo: bool
) -> dict[str, Any]:
    """Settings with the folders that are meant: a demo's own, or addresses."""
    from pipeline.readers.remote import located

    raw, out = settings["raw"], settings["out"]
    if demo and raw is not None:
        raise UsageError("--demo makes its own raw files.", where="--raw", do="leave it out")
    if demo:
        raw, prepared = demos.folders(name)
        out = out if given_of(context, "out") else prepared
    return {**settings, "raw": raw and located(raw), "out": located(out)}


def _check_folders(config: Config) -> None:
    from pipeline.flow import check_folders

    check_folders(config)
