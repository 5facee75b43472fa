"""`tinprep train`: settings from the command line and from a file, then one training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.amounts import number
from pipeline.cli.errors import WITH_RESUME, told_errors
from pipeline.cli.options import given_of, options_of
from schemas.errors import UsageError
from schemas.terminal import Terminal
from trainer.training.config import TrainConfig, merged, read_settings


@options_of(TrainConfig)
def train(
    settings: dict[str, Any],
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            help="Settings from a .toml or .json file: these flags, e.g. batch_size = 32. Flags "
            "given here win. A run's config.json repeats the run."
        ),
    ] = None,
) -> None:
    """Train a model on a data set's shards; test is looked at once, at the end.

    Several processes, one a GPU or a few cores, train one model together with

    torchrun --nproc-per-node 2 --no-python -- tinprep train DATA --run RUN

    Each takes its part of every batch and holds --memory-mb of rows; the result is that of one.
    """
    with told_errors(WITH_RESUME):
        given = {n: _weight(v) if n == "loss_weight" else v for n, v in settings.items()}
        given = {name: value for name, value in given.items() if given_of(context, name)}

        from trainer.models.recipes import OF_MODEL
        from trainer.training.console import LiveReport, next_line, result_table
        from trainer.training.evaluation import settings_of
        from trainer.training.ranks import joined
        from trainer.training.train import train as fit

        with joined() as ranks:
            chosen = merged(read_settings(config, ranks.world) if config else {}, given)
            if "data" in chosen:
                of = {**settings, **chosen}
                name = f"{chosen['data'].resolve().name}-{of['model']}-{of['seed']}"
                chosen.setdefault("run", Path("runs") / name)
            if settings["resume"] and "run" in chosen:
                known = settings_of(chosen["run"], ranks, data="data" not in chosen)
                if chosen.get("model", known.get("model")) != known.get("model"):
                    # What the run's own model takes would be held against the other one.
                    known = {name: v for name, v in known.items() if name not in OF_MODEL}
                chosen = merged(known, chosen)
            if "data" not in chosen:
                raise UsageError(
                    "Train on what?",
                    where="DATA",
                    expected="the folder of a data set, here or as `data` in --config, or --resume "
                    "with the --run to go on with",
                    got=f"no run in {chosen['run']}" if "run" in chosen else "none",
                )
            if not ranks.first:
                fit(TrainConfig(**chosen))
                return
            with LiveReport() as report:
                result = fit(TrainConfig(**chosen), report)
            Terminal().print(result_table(result))
            Terminal(soft_wrap=True).print(next_line(result.run, chosen["data"]), highlight=False)


def _weight(given: str) -> float | str:
    if given == "balanced":
        return given
    try:
        return number(given)
    except ValueError:
        raise UsageError(
            "--loss-weight is no weight.",
            where="--loss-weight",
            expected="balanced, or a number above 0",
            got=given,
        ) from None
