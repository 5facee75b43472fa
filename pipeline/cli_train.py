"""The commands of the trainer: parse, build a configuration, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline.cli_errors import told_errors
from pipeline.cli_fit import train
from schemas.errors import UsageError

_Run = Annotated[Path, typer.Argument(help="Folder of a finished run.")]
_Data = Annotated[
    Path | None, typer.Option(help="Folder of another data set. Default: the run's own.")
]
_Device = Annotated[str, typer.Option(help="cpu or cuda.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (train, models, evaluate, predict, correlate, reproduce):
        app.command()(command)


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


def correlate(
    data: Annotated[Path, typer.Argument(help="Folder of a data set.")],
    out: Annotated[
        Path, typer.Option(help="Folder for fig1 (.csv, .md, .png, .svg), ctc.parquet.")
    ],
    category: Annotated[
        str | None, typer.Option(help="The target's. Default: the one with most positives.")
    ] = None,
    top: Annotated[
        int, typer.Option(help="Behaviour categories shown; the paper's Figure 1: 5.")
    ] = 5,
    positions: Annotated[int, typer.Option(help="Target-relative positions shown.")] = 10,
    by: Annotated[
        str, typer.Option(help="position, or interval: by interval bin instead.")
    ] = "position",
    released: Annotated[
        bool,
        typer.Option("--released", help="As the released script: all splits, 1e-5 for 0, min-max."),
    ] = False,
    memory_mb: Annotated[int, typer.Option(help="What the counting may take.")] = 1024,
    threads: Annotated[int | None, typer.Option(help="Default: all cores.")] = None,
) -> None:
    """Category-wise target-aware correlation (Eq. 1): bits that a behaviour tells of the label."""
    with told_errors():
        from trainer.figures import fig1

        if by not in ("position", "interval"):
            raise UsageError(
                "The correlation is by one of two.",
                where="--by",
                expected="position or interval",
                got=by,
            )
        fig1(
            data,
            out,
            category,
            top=top,
            positions=positions,
            by=by,
            released=released,
            memory_mb=memory_mb,
            threads=threads,
        )
        console = Console(soft_wrap=True)
        console.print((out / "fig1.md").read_text(encoding="utf-8"), markup=False, highlight=False)
        console.print(f"figure and tables: {out}", highlight=False)


def reproduce(
    name: Annotated[str, typer.Argument(help="table1, table3 or table4 of the paper.")],
    data: Annotated[list[Path], typer.Argument(help="Folders of data sets.")],
    out: Annotated[Path, typer.Option(help="Folder for the table, as CSV and Markdown.")],
    runs: Annotated[
        Path, typer.Option(help="Folder of the runs; finished ones are not trained again.")
    ] = Path("runs"),
    models: Annotated[
        str | None, typer.Option(help="For table1, e.g. din,tin. Default: every model.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each line; the paper's A.1 takes 5.")] = 3,
    encoding: Annotated[
        str | None, typer.Option(help="For table1: in place of TTE-P or TTE-T.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="As in train.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="As in train.")] = None,
    lr: Annotated[float | None, typer.Option(help="As in train.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="As in train.")] = None,
    threads: Annotated[int | None, typer.Option(help="As in train.")] = None,
    device: Annotated[str, typer.Option(help="As in train.")] = "auto",
) -> None:
    """A table of the paper on your data sets: trains what is missing, and goes on where it was."""
    with told_errors():
        from trainer import experiments
        from trainer.report import LiveReport
        from trainer.trials import Trials

        if name not in ("table1", "table3", "table4"):
            raise UsageError(
                "There is no such table.",
                where="NAME",
                expected="table1, table3 or table4",
                got=name,
            )
        chosen = {
            "epochs": epochs,
            "batch_size": batch_size,
            "lr": lr,
            "optimizer": optimizer,
            "threads": threads,
        }
        settings = {key: value for key, value in chosen.items() if value is not None}
        with LiveReport() as report:
            trials = Trials(
                tuple(data), runs, seeds, {**settings, "device": device}, report.line, report
            )
            if name == "table1":
                wanted = experiments.MODELS if models is None else models.split(",")
                table = experiments.table1(trials, wanted, encoding)
            else:
                table = (
                    experiments.table3(trials) if name == "table3" else experiments.table4(trials)
                )
        for path in table.write(out):
            Console().print(str(path), highlight=False, soft_wrap=True)
        Console(soft_wrap=True).print(table.markdown(), markup=False, highlight=False)
