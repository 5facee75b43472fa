"""The commands of the trainer: parse, build a configuration, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline.cli_errors import told_errors
from schemas.errors import UsageError

_Run = Annotated[Path, typer.Argument(help="Folder of a finished run.")]
_Data = Annotated[
    Path | None, typer.Option(help="Folder of another data set. Default: the run's own.")
]
_Device = Annotated[str, typer.Option(help="cpu or cuda.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (train, models, evaluate, predict):
        app.command()(command)


def train(
    data: Annotated[Path, typer.Argument(help="Folder of a data set.")],
    run: Annotated[
        Path | None, typer.Option(help="Folder of the run. Default: runs/<data>-<model>-<seed>.")
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
        int | None, typer.Option(help="Rows a step. Default: Amazon 32, Alibaba 4096.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="At most; stops early on valid GAUC. Default: 4 and 1.")
    ] = None,
    hidden: Annotated[
        str | None, typer.Option(help="Widths of the head. Default: 80,40 and 200,80.")
    ] = None,
    dim: Annotated[int, typer.Option(help="Width of a field's embedding; the paper's A.1.")] = 64,
    attention_dim: Annotated[
        int | None,
        typer.Option(help="The same in din_apart's tables for the attention. Default: --dim."),
    ] = None,
    clip: Annotated[
        float | None, typer.Option(help="The gradient's largest norm. Default: any.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the weights and the rows' order.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(help="CPU threads. Default: 1 for small batches, else all.")
    ] = None,
    memory_mb: Annotated[
        int, typer.Option(help="A split that needs more is streamed from its shards.")
    ] = 2048,
    evaluations: Annotated[int, typer.Option(help="On valid, an epoch.")] = 4,
    patience: Annotated[
        int, typer.Option(help="Evaluations without a better valid GAUC before it stops.")
    ] = 4,
    checkpoint_seconds: Annotated[
        float, typer.Option(help="Between checkpoints to resume from; also at evaluations.")
    ] = 300.0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --run, to the same numbers.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an earlier run in --run.")
    ] = False,
) -> None:
    """Train a model on a data set's shards; test is looked at once, at the end."""
    with told_errors():
        from trainer.config import TrainConfig
        from trainer.fit import train as fit
        from trainer.report import LiveReport, result_table

        config = TrainConfig(
            data=data,
            run=run or Path("runs") / f"{data.name}-{model}-{seed}",
            model=model,
            encoding=encoding,
            optimizer=optimizer,
            lr=lr,
            batch_size=batch_size,
            epochs=epochs,
            hidden=None if hidden is None else _widths(hidden),
            dim=dim,
            attention_dim=attention_dim,
            clip=clip,
            seed=seed,
            device=device,
            threads=threads,
            memory_mb=memory_mb,
            evaluations=evaluations,
            patience=patience,
            checkpoint_seconds=checkpoint_seconds,
            resume=resume,
            force=force,
        )
        with LiveReport() as report:
            result = fit(config, report)
        Console().print(result_table(result))


def _widths(text: str) -> tuple[int, ...]:
    """'200,80' as widths."""
    try:
        return tuple(int(width) for width in text.split(","))
    except ValueError:
        raise UsageError(
            "--hidden is no list of widths.", where="--hidden", expected="e.g. 80,40", got=text
        ) from None


def models(
    data: Annotated[
        Path | None, typer.Argument(help="Folder of a data set, whose sizes then count.")
    ] = None,
) -> None:
    """Every model that can be trained: its parts as the paper's three bits, its parameters."""
    with told_errors():
        from trainer.report import models_table

        Console().print(models_table(data))


def evaluate(
    run: _Run,
    split: Annotated[str, typer.Option(help="train, valid or test.")] = "test",
    by: Annotated[
        str | None, typer.Option(help="length: also by range of history length, as in Table 3.")
    ] = None,
    data: _Data = None,
    device: _Device = "cpu",
) -> None:
    """Measure the weights that a run kept on a split."""
    with told_errors():
        from trainer.evaluation import evaluate as measure
        from trainer.report import evaluation_table

        if by not in (None, "length"):
            raise UsageError(
                "The rows cannot be told apart by that.", where="--by", expected="length", got=by
            )
        found = measure(run, split, by == "length", data=data, device=device)
        Console().print(evaluation_table(found))


def predict(
    run: _Run,
    data: Annotated[Path, typer.Argument(help="Folder of the data set to score.")],
    out: Annotated[Path, typer.Option(help="Parquet file: row, user, label, score.")],
    split: Annotated[
        list[str] | None, typer.Option(help="A split; may be given again. Default: all.")
    ] = None,
    device: _Device = "cpu",
) -> None:
    """Score every row of a data set; `row` joins the scores back to the raw file."""
    with told_errors():
        from trainer.evaluation import predict as score

        rows = score(run, data, out, splits=tuple(split) if split else None, device=device)
        Console().print(f"{rows:,} scores: {out}", highlight=False)
