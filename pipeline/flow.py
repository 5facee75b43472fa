"""From raw files to a finished data set, whatever the source.

The order of the steps between is in `flow_reviews` and `flow_impressions`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from pipeline.config import AlibabaConfig, AmazonConfig, Config
from pipeline.identity import identifying
from pipeline.workspace import Run, Told, alone, begin, check_out, clear
from schemas import manifest
from schemas.errors import UsageError


def prepare(
    config: AmazonConfig | AlibabaConfig, told: Told = lambda *_: None
) -> manifest.Manifest:
    """Make the data set of `config`, or go on with an interrupted one, or find it done.

    Args:
        config: what to make.
        told: progress: step, done, total.

    Raises:
        UsageError: `out` holds something else, or was made with other settings.
        InputError: a raw file is missing or damaged, or too many of its lines are refused.
        EnvironmentFault: network, disk, or another run at work in `out`.
    """
    run = Run(config, told)
    check_out(config.out)
    obtain, make = _steps(config)
    with run.step("fetch") as rows:
        run.paths = obtain(config)
        rows[:] = len(run.paths), len(run.paths)
    with alone(config.out), identifying(config, run.paths) as run.identity:
        if (config.out / manifest.NAME).exists():
            done = manifest.load(config.out)
            if not config.force and done.config.get("key") == run.identity().key:
                shutil.rmtree(run.work, ignore_errors=True)
                return done
            if not config.force:
                raise UsageError(
                    "The folder holds a data set made with other settings or files.",
                    where=config.out,
                    do="give another --out, or --force to replace it",
                )
            clear(config.out)
        begin(run)
        made = make(run, config)
        shutil.rmtree(run.work)
        return made


def plan(config: AmazonConfig | AlibabaConfig) -> str:
    """What `--dry-run` says; nothing is downloaded or written."""
    if isinstance(config, AmazonConfig):
        from pipeline import flow_reviews

        return flow_reviews.plan(config)
    from pipeline import flow_impressions

    return flow_impressions.plan(config)


def _steps(config: Config) -> tuple[Callable[..., list[Path]], Callable[..., manifest.Manifest]]:
    """What finds the raw files of a data set, and what makes it; only that is imported."""
    if isinstance(config, AmazonConfig):
        from pipeline import flow_reviews

        return flow_reviews.obtain, flow_reviews.make
    from pipeline import flow_impressions

    return flow_impressions.obtain, flow_impressions.make
