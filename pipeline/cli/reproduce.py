"""The commands that make the paper's tables and figures: parse, build a request, call, print."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.amounts import Widths
from pipeline.cli.demo import demo_data
from pipeline.cli.errors import GOES_ON, told_errors
from pipeline.cli.options import given_of
from pipeline.cli.progress import progress
from schemas.errors import ContractError, UsageError
from schemas.terminal import Terminal

if TYPE_CHECKING:
    from trainer.analysis.tables import Table

_Category = Annotated[
    str | None, typer.Option(help="The target's. Default: the one with most positives.")
]
_Top = Annotated[int, typer.Option(help="Behaviour categories shown; the paper's Figure 1: 5.")]
_Positions = Annotated[int, typer.Option(help="Target-relative positions shown.")]
_By = Annotated[str, typer.Option(help="position, or interval: by interval bin instead.")]
# What some tables and figures alone are made with.
_USED_BY = {
    "models": ("table1", "table2", "fig3"),
    "encoding": ("table1",),
    "widths": ("fig5",),
    **dict.fromkeys(("category", "top", "positions", "by", "released"), ("fig1", "table2", "fig3")),
}


def correlate(
    context: typer.Context,
    data: Annotated[Path, typer.Argument(help="Folder of a data set.")],
    out: Annotated[
        Path, typer.Option(help="Folder for fig1 (.csv, .md, .png, .svg), ctc.parquet.")
    ],
    category: _Category = None,
    top: _Top = 5,
    positions: _Positions = 10,
    by: _By = "position",
    released: Annotated[
        bool,
        typer.Option("--released", help="As the released script: all splits, 1e-5 for 0, min-max."),
    ] = False,
    history: Annotated[
        str | None, typer.Option(help="Of a data set with several the one to count in.")
    ] = None,
    memory_mb: Annotated[int, typer.Option(min=1, help="What the counting may take.")] = 1024,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: all cores.")] = None,
) -> None:
    """Category-wise target-aware correlation (Eq. 1): bits that a behaviour tells of the label."""
    with told_errors():
        from trainer.analysis.figures import Shown, fig1, shown_map

        _require_by(context, by)
        shown = Shown(category, top, positions, by, released, history)
        found = fig1(data, out, shown, memory_mb=memory_mb, threads=threads)
        Terminal().print_wide(shown_map(found))
        Terminal(soft_wrap=True).print(f"figure and tables: {out}", highlight=False)


def reproduce(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(help="table1 to table4, fig1, fig3, fig4 or fig5 of the paper, or all.")
    ],
    data: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders of data sets. Default: the demo data, made where absent."),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder for the files; all: for results.md and results/.")
    ] = Path("reproduced"),
    runs: Annotated[
        Path, typer.Option(help="Folder of the runs; finished ones are not trained again.")
    ] = Path("runs"),
    setting: Annotated[
        str, typer.Option(help="paper: A.1's; small: narrow, one epoch, to see the path work.")
    ] = "paper",
    models: Annotated[
        str | None, typer.Option(help="For table1, table2 and fig3, e.g. din,tin. Default: all.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Runs of each line. Default: the setting's, A.1: 5.")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="For table1: in place of TTE-P or TTE-T.")
    ] = None,
    widths: Annotated[
        Widths | None, typer.Option(help="For fig5, of all fields together, e.g. 2,32,128.")
    ] = None,
    category: _Category = None,
    top: _Top = 5,
    positions: _Positions = 10,
    by: _By = "position",
    released: Annotated[
        bool,
        typer.Option(
            "--released",
            help="For fig1, table2 and fig3, as the released scripts: min-max, categories alone.",
        ),
    ] = False,
    dim: Annotated[int | None, typer.Option(help="As in train.")] = None,
    epochs: Annotated[int | None, typer.Option(help="As in train.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="As in train.")] = None,
    lr: Annotated[float | None, typer.Option(help="As in train.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="As in train.")] = None,
    threads: Annotated[int | None, typer.Option(help="As in train.")] = None,
    device: Annotated[str, typer.Option(help="As in train.")] = "auto",
    jobs: Annotated[
        int | None,
        typer.Option(
            help="Trainings at a time. Default: one a core (two cores do two trainings sooner "
            "than one after the other) where memory allows; 1 on a GPU."
        ),
    ] = None,
) -> None:
    """A table or figure of the paper on your data: trains what is missing, goes on where it was."""
    with told_errors(GOES_ON):
        from trainer.analysis.figures import Shown
        from trainer.analysis.paper_tables import LEARNED
        from trainer.analysis.reproduce import NAMES, SETTINGS, Request
        from trainer.analysis.reproduce import reproduce as make
        from trainer.analysis.results_page import describe, require_free, write
        from trainer.analysis.side_by_side import jobs_for
        from trainer.analysis.trials import Trials
        from trainer.training.config import TrainConfig
        from trainer.training.console import LiveReport
        from trainer.training.ranks import device_of

        _require("NAME", name, (*NAMES, "all"))
        _require("--setting", setting, tuple(SETTINGS))
        _require_by(context, by)
        _require_used(context, name)
        chosen = SETTINGS[setting]
        given = {
            "dim": dim,
            "epochs": epochs,
            "batch_size": batch_size,
            "lr": lr,
            "optimizer": optimizer,
            "threads": threads,
        }
        training = dict(chosen.training) | {k: v for k, v in given.items() if v is not None}
        # What a training refuses is said before the first of many.
        device_of(device)
        TrainConfig(Path(), Path(), device=device, **training)
        if not data:
            with progress() as told:
                data = list(demo_data(told))
        to = out / "results" if name == "all" else out
        if name == "all":
            require_free(out)
        listed = None if models is None else tuple(models.split(","))
        tables: list[Table] = []
        with LiveReport() as report:
            trials = Trials(
                tuple(data),
                runs,
                chosen.seeds if seeds is None else seeds,
                training | {"device": device},
                report.line,
                report.watch,
                jobs_for(device, threads, TrainConfig.memory_mb) if jobs is None else jobs,
            )
            request = Request(
                trials,
                to,
                models=listed or chosen.models,
                encoding=encoding,
                learned=listed if listed and name in ("table2", "fig3") else LEARNED,
                shown=Shown(category, top, positions, by, released),
                widths=chosen.widths if widths is None else widths,
                show=tables.append,
            )
            made = make(name, request)
        for table in tables:
            Terminal().print_wide(table.shown())
        console = Terminal(soft_wrap=True)
        for note in (note for one in made if not one.table for note in one.notes):
            console.print(note, highlight=False)
        console.print(f"tables and figures: {to}", highlight=False)
        if name == "all":
            command, date = _command(context), datetime.now(UTC).date().isoformat()
            about = describe(
                made, trials, setting=setting, command=command, date=date, machine=_machine()
            )
            Terminal().print(str(write(about, out)), highlight=False, soft_wrap=True)


def results(
    docs: Annotated[Path, typer.Argument(help="Folder that `reproduce all` wrote to.")],
    readme: Annotated[
        Path | None, typer.Option(help="A file that shows Table 1's GAUC between two marks.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit code 4 where something is stale.")
    ] = False,
) -> None:
    """Write results.md, and the README's part of it, anew from the tables that are kept."""
    with told_errors():
        from trainer.analysis.results_page import put_excerpt, render, stale

        if not check:
            Terminal().print(str(render(docs)), highlight=False, soft_wrap=True)
            if readme is not None:
                put_excerpt(docs, readme)
            return
        found = stale(docs, readme)
        if found:
            raise ContractError(
                "The results are stale.",
                where=docs,
                expected="what the tables that are kept and the code give",
                got=" ".join(found),
                do="`tinprep results` writes the texts anew; where the code or a table differs, "
                "`tinprep reproduce all` measures again",
            )
        Terminal().print("the results are as the tables and the code give them")


def _command(context: typer.Context) -> str:
    from_line = [
        (p, context.params[str(p.name)])
        for p in context.command.params
        if given_of(context, str(p.name))
    ]
    words: list[str] = ["tinprep", "reproduce"]
    for parameter, value in from_line:
        if parameter.param_type_name == "argument":
            words += map(str, value) if isinstance(value, list | tuple) else [str(value)]
        else:
            words += [parameter.opts[0]] if value is True else [parameter.opts[0], str(value)]
    return " ".join(words)


def _machine() -> str:
    """Processor and cores, e.g. 'AMD EPYC, 2 cores'."""
    name = platform.processor() or platform.machine()
    # Other systems than Linux have no such file, and not every Linux has such a line.
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(x.partition(":")[2].strip() for x in lines if x.startswith("model name"))
    return f"{name}, {os.cpu_count()} cores"


def _require_by(context: typer.Context, by: str) -> None:
    _require("--by", by, ("position", "interval"))
    if by == "interval" and given_of(context, "positions"):
        raise UsageError(
            "Interval bins are shown all.",
            where="--positions",
            expected="--by position",
            got="--by interval",
            do="leave out one of them",
        )


def _require_used(context: typer.Context, name: str) -> None:
    """Refuse what would be passed over."""
    for option, names in _USED_BY.items():
        if given_of(context, option) and name not in (*names, "all"):
            raise UsageError(
                f"{name} is not made with --{option}.",
                where=f"--{option}",
                expected=f"one of {', '.join(names)}, or all",
                got=name,
                do="leave it out",
            )


def _require(where: str, got: Any, known: tuple[str, ...]) -> None:
    if got not in known:
        raise UsageError(
            "There is no such choice.",
            where=where,
            expected=f"one of {', '.join(known)}",
            got=str(got),
        )
