"""The commands of the trainer: parse, build a configuration, call, print."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from pipeline.cli.errors import told_errors
from pipeline.cli.options import given_of, next_command, require_new
from schemas.errors import UsageError
from schemas.replacing import replacing
from schemas.terminal import Terminal

_Run = Annotated[
    Path,
    typer.Argument(help="Folder of a run; of an unfinished one its best weights so far count."),
]
_Data = Annotated[
    Path | None, typer.Option(help="Folder of another data set. Default: the run's own.")
]
_Device = Annotated[str, typer.Option(help="cpu or cuda.")]


def models(
    data: Annotated[
        Path | None, typer.Argument(help="Folder of a data set, whose sizes then count.")
    ] = None,
    history: Annotated[
        str | None, typer.Option(help="Of a data set with several the one to read. Default: all.")
    ] = None,
) -> None:
    """Every model that can be trained: its parts as the paper's three bits, its parameters."""
    with told_errors():
        from trainer.analysis.model_list import models_table

        if history is not None and data is None:
            raise UsageError(
                "No data set is named whose history it could be.",
                where="--history",
                expected="DATA beside it",
                got=history,
            )
        Terminal().print(models_table(data, history))


def evaluate(
    run: _Run,
    split: Annotated[
        str, typer.Option(help="train, valid, test, or new of a transformed data set.")
    ] = "test",
    by: Annotated[
        str | None, typer.Option(help="length: also by range of history length, as in Table 3.")
    ] = None,
    data: _Data = None,
    device: _Device = "cpu",
) -> None:
    """Measure the weights that a run kept on a split."""
    with told_errors():
        from trainer.training.console import evaluation_table
        from trainer.training.evaluation import evaluate as measure

        if by not in (None, "length"):
            raise UsageError(
                "The rows cannot be told apart by that.", where="--by", expected="length", got=by
            )
        found = measure(run, split, by == "length", data=data, device=device)
        Terminal().print(evaluation_table(found))


def importance(
    context: typer.Context,
    run: _Run,
    by: Annotated[
        str | None,
        typer.Option(help="Of which parts: feature, field (of the target), history. Default: all."),
    ] = None,
    split: Annotated[str, typer.Option(help="On which rows.")] = "valid",
    draws: Annotated[int, typer.Option(help="Permutations of each part.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    data: _Data = None,
    device: _Device = "cpu",
    select: Annotated[
        Path | None,
        typer.Option(
            help="In place of permuting: the description of the data set, to be written again "
            "beside it, shop.toml as shop-selected.toml, without the features and histories that a "
            "model of experts can do without."
        ),
    ] = None,
    sparsity: Annotated[
        float, typer.Option(help="With --select: nats of logloss that each must be worth.")
    ] = 1e-3,
) -> None:
    """What each feature, field and history is worth to a run: how GAUC falls with it permuted."""
    with told_errors():
        apart = ("sparsity",) if select is None else ("by", "split", "draws", "device")
        for name in apart:
            if given_of(context, name):
                raise UsageError(
                    "An option has no effect here.",
                    where=f"--{name}",
                    expected="--select beside it" if select is None else "no --select beside it",
                    got="it alone" if select is None else "both",
                )
        if select is not None:
            _select(run, select, sparsity, seed, data)
            return
        from trainer.analysis.importance import importance as measure
        from trainer.analysis.importance import importance_table

        with Terminal(stderr=True).status("permuting") as status:
            found = measure(
                run, by, split=split, draws=draws, seed=seed, data=data, device=device,
                told=lambda done, of: status.update(f"permuting: {done} of {of} parts"),
            )  # fmt: skip
        Terminal().print(importance_table(run, found))


def _select(run: Path, description: Path, sparsity: float, seed: int, data: Path | None) -> None:
    from pipeline.description.checks import spec_of
    from pipeline.description.toml import without, written
    from pipeline.presets.described import source_of
    from schemas import manifest
    from trainer.analysis.selection import select, selection_table
    from trainer.training.evaluation import data_of

    source, folder = source_of(str(description))
    to = (folder or Path()) / f"{description.stem}-selected.toml"
    require_new(to, "move it away")
    spec = spec_of(source)
    shown, known = spec.tables[spec.target.table], spec.lookups.values()
    said = {*shown.features, *shown.numbers, *shown.lists}
    said |= {name for one in known for name in (*one.features, *one.numbers, *one.lists)}
    made = manifest.load(data or data_of(run))
    lacks = {*made.features} - said | {*made.histories} ^ {*spec.histories}
    if lacks:
        raise UsageError(
            "The description is not that of the data set.",
            where=description,
            expected=", ".join([*made.features, *made.histories]),
            got=f"another {' and '.join(sorted(lacks))}",
            do="give the description that the data set was prepared by",
        )
    with Terminal(stderr=True).status("selecting") as status:
        found = select(
            run, sparsity, seed=seed, data=data,
            told=lambda done, of: status.update(f"selecting: step {done:,} of {of:,}"),
        )  # fmt: skip
    slim = without(source.keys, found.dropped("feature"), found.dropped("history"))
    with replacing(to) as temporary:
        temporary.write_text(written(slim), encoding="utf-8")
    Terminal().print(selection_table(run, found))
    next_command(f"prepare {quote(str(to))} --out DIR")


def predict(
    run: _Run,
    data: Annotated[Path, typer.Argument(help="Folder of the data set to score.")],
    out: Annotated[
        Path, typer.Option(help="File for user, item, score and the like: *.parquet or *.csv.")
    ],
    split: Annotated[
        list[str] | None, typer.Option(help="A split; may be given again. Default: all.")
    ] = None,
    device: _Device = "cpu",
) -> None:
    """Score every row of a data set: each score with its user and item as in the raw files."""
    with told_errors():
        from trainer.training.console import prediction_lines
        from trainer.training.evaluation import predict as score

        found = score(
            run, data, out, splits=tuple(dict.fromkeys(split)) if split else None, device=device
        )
        for line in prediction_lines(run, out, found):
            Terminal(soft_wrap=True).print(line, highlight=False)


def export(
    run: _Run,
    out: Annotated[Path, typer.Option(help="Folder of the bundle.")],
    precision: Annotated[
        str, typer.Option(help="Of the embedding tables: fp32, fp16 or int8.")
    ] = "fp32",
    shape: Annotated[
        str,
        typer.Option(
            help="What is scored at a time: a request, one user's histories with any number of "
            "candidates, or rows with a history each."
        ),
    ] = "request",
    data: _Data = None,
    force: Annotated[bool, typer.Option(help="Replace an earlier bundle.")] = False,
) -> None:
    """Write a run's model for ONNX Runtime, with all that scoring needs, as a bundle."""
    with told_errors():
        from pipeline.serving import golden
        from trainer.export.write import export as write
        from trainer.export.write import summary
        from trainer.training.evaluation import data_of

        made = write(
            run, out, precision=precision, shape=shape, data=data, force=force, also=golden.write
        )
        for line in summary(out, made):
            Terminal(soft_wrap=True).print(line, highlight=False)
        # Without requests the data set keeps no events to serve from.
        if any(file.path == golden.REQUESTS for file in made.files):
            events = str(data or data_of(run))
            next_command(f"serve {quote(str(out))} --events {quote(events)}")
