"""`tinprep train`: settings from the command line and from a file, then one training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli_errors import WITH_RESUME, told_errors
from schemas.errors import UsageError
from schemas.terminal import Terminal


def train(
    context: typer.Context,
    data: Annotated[
        Path | None, typer.Argument(help="Folder of a data set; may be in --config instead.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Folder of the run. Default: runs/<data>-<model>-<seed>.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="Settings from a .toml or .json file: these flags, e.g. batch_size = 32. Flags "
            "given here win. A run's config.json repeats the run."
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(help="A recipe of `tinprep models`; tin is the paper's equation 2.")
    ] = "tin",
    encoding: Annotated[
        str | None,
        typer.Option(
            help="tte-p: positions; tte-t: interval bins; tte-pt: both; coe; timestamp; none. "
            "Default: the recipe's."
        ),
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="adam or adagrad. Default: the data set's in A.1.")
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Learning rate. Default: the optimizer's in A.1.")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Rows a step, over all processes. Default: Amazon 32, Alibaba 4096."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="At most; stops early on valid GAUC. Default: 4 and 1.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(help="In place of --epochs: stop after so many steps, whatever epochs."),
    ] = None,
    hidden: Annotated[
        str | None, typer.Option(help="Widths of the head. Default: 80,40 and 200,80.")
    ] = None,
    dim: Annotated[int, typer.Option(help="Width of a field's embedding; the paper's A.1.")] = 64,
    attention_dim: Annotated[
        int | None,
        typer.Option(help="The same in din_apart's tables for the attention. Default: --dim."),
    ] = None,
    loss_weight: Annotated[
        str,
        typer.Option(
            help="Weight of a positive row in the cross-entropy: 1 is the plain loss; a number; or "
            "balanced, negatives by positives of train. Scores are probabilities with 1 only."
        ),
    ] = "1",
    clip: Annotated[
        float | None, typer.Option(help="The gradient's largest norm. Default: any.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the weights and the rows' order.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(help="CPU threads. Default: 1 for small batches, else all.")
    ] = None,
    amp: Annotated[
        bool,
        typer.Option("--amp", help="Compute in bfloat16 where safe. Slower on CPUs, as measured."),
    ] = False,
    compile: Annotated[  # noqa: A002
        bool,
        typer.Option("--compile", help="torch.compile: a wait first; needs a C++ compiler."),
    ] = False,
    memory_mb: Annotated[
        int, typer.Option(help="A split that needs more is streamed from its shards.")
    ] = 2048,
    evaluations: Annotated[int | None, typer.Option(help="On valid, an epoch. Default: 4.")] = None,
    evaluate_every: Annotated[
        int | None, typer.Option(help="In place of --evaluations: steps between them.")
    ] = None,
    patience: Annotated[
        int, typer.Option(help="Evaluations without a better valid GAUC before it stops.")
    ] = 4,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="The log for TensorBoard too, in the run.")
    ] = False,
    checkpoint_seconds: Annotated[
        float, typer.Option(help="Between checkpoints to resume from; also at evaluations.")
    ] = 300.0,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the run in --run, by its own settings, to the same numbers. With more "
            "--epochs, --steps or --patience also with a finished one; else its result is shown.",
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an earlier run in --run.")
    ] = False,
) -> None:
    """Train a model on a data set's shards; test is looked at once, at the end.

    Several processes, one a GPU or a few cores, train one model together with

    torchrun --nproc-per-node 2 --no-python -- tinprep train DATA --run RUN

    Each takes its part of every batch and holds --memory-mb of rows; the result is that of one.
    """
    with told_errors(WITH_RESUME):
        from trainer.config import TrainConfig
        from trainer.evaluation import settings_of
        from trainer.fit import train as fit
        from trainer.ranks import joined
        from trainer.report import LiveReport, result_table
        from trainer.settings import merged, read_settings

        with joined() as ranks:
            given = _given(context)
            settings = merged(read_settings(config, ranks) if config else {}, given)
            if "data" in settings:
                name = f"{settings['data'].name}-{settings.get('model', model)}"
                settings.setdefault("run", Path("runs") / f"{name}-{settings.get('seed', seed)}")
            if resume and "run" in settings:
                known = settings_of(settings["run"], ranks, data="data" not in settings)
                settings = merged(known, settings)
            if "data" not in settings:
                raise UsageError(
                    "Train on what?",
                    where="DATA",
                    expected="the folder of a data set, here or as `data` in --config, or --resume "
                    "with the --run to go on with",
                    got="none",
                )
            chosen = TrainConfig(**settings)
            if not ranks.first:
                fit(chosen)
                return
            with LiveReport() as report:
                result = fit(chosen, report)
            Terminal().print(result_table(result))


def _given(context: typer.Context) -> dict[str, Any]:
    """The settings that are on the command line, as `TrainConfig` takes them."""
    given = {
        name: value
        for name, value in context.params.items()
        if name != "config" and on_command_line(context, name)
    }
    if "hidden" in given:
        given["hidden"] = _widths(given["hidden"])
    weight = given.get("loss_weight")
    if weight is not None and weight != "balanced":
        try:
            given["loss_weight"] = float(weight)
        except ValueError:
            raise UsageError(
                "--loss-weight is no weight.",
                where="--loss-weight",
                expected="balanced, or a number above 0",
                got=weight,
            ) from None
    return given


def _widths(text: str) -> tuple[int, ...]:
    """'200,80' as widths."""
    try:
        return tuple(int(width) for width in text.split(","))
    except ValueError:
        raise UsageError(
            "--hidden is no list of widths.", where="--hidden", expected="e.g. 80,40", got=text
        ) from None


def on_command_line(context: typer.Context, name: str) -> bool:
    """Whether an option was given, be it with its default's value."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
