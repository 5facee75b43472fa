"""The commands on descriptions: of one's own logs, and of presets."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.text import Text

from pipeline.cli.errors import GOES_ON, told_errors
from pipeline.cli.options import DryRun, next_command, options_of, require_new, run
from pipeline.cli.progress import progress
from pipeline.config import Config
from pipeline.presets.described import Asked, Events, described, drafted, of_events, sampled
from schemas.errors import UsageError
from schemas.replacing import replacing
from schemas.terminal import Terminal

_OF_TRANSFORM = (
    *("max_rejected", "max_missing", "keep_events", "buckets", "threads", "memory", "force"),
    *("engine", "master", "spark_conf"),
)

_TARGETS_OF_A_SPLIT = 2


@options_of(Events, Config, Asked)
def prepare(
    events: dict[str, Any],
    how: dict[str, Any],
    asked: dict[str, Any],
    description: Annotated[
        str,
        typer.Argument(
            help="A description in TOML, a preset by its name, or, with --user, --item and --time, "
            "a file of events."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the data set. Default: data/NAME.")
    ] = None,
    raw: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the raw files. Default: the description's own; of a preset "
            "data/raw/NAME."
        ),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Your own logs to shards, by their description; or a preset by its name."""
    with told_errors(GOES_ON):
        from pipeline.readers.remote import located

        how |= {"out": out and located(out), "raw": raw and located(raw)}
        plain = Events(**events)
        if plain.asked:
            config = of_events(description, plain, Asked(**asked), **how)
        else:
            config = described(description, Asked(**asked), **how)
        run(config, dry_run)


@options_of(Config, only=_OF_TRANSFORM)
def transform(
    how: dict[str, Any],
    data: Annotated[Path, typer.Argument(help="Folder of a data set made with --keep-events.")],
    out: Annotated[Path, typer.Option(help="Folder of the new data set.")],
    events: Annotated[
        list[str] | None,
        typer.Option(
            help="File of new events; may be repeated. Of several tables TABLE=FILE, for each."
        ),
    ] = None,
    targets: Annotated[
        list[str] | None,
        typer.Option(
            help="File of new targets, in the layout of their table; may be repeated. New events "
            "are then behaviours alone. Default: new events are the targets."
        ),
    ] = None,
    raw: Annotated[
        Path | None, typer.Option(help="Folder of the lookups' files. Default: where they were.")
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """New events to shards, with the vocabularies, edges and scales of an earlier data set."""
    with told_errors(GOES_ON):
        from pipeline.presets.transformed import transformed
        from pipeline.readers.remote import located

        config = transformed(
            data, events or [], targets or [], out=located(out), raw=raw and located(raw), **how
        )
        run(config, dry_run, f"evaluate RUN --data {quote(str(out))} --split new")


@options_of(Asked, Config, only=("parameters", "without", "max_rejected"))
def describe(
    asked: dict[str, Any],
    how: dict[str, Any],
    files: Annotated[
        list[str] | None,
        typer.Argument(
            help="Data files to draft a description of, each a table; or a description, or a "
            "preset, to --check."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The file to write the draft to. Default: it is printed.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Hold a description against a sample of its data.")
    ] = False,
    raw: Annotated[
        Path | None, typer.Option(help="Folder of the raw files. Default: the description's own.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Events of each table to --check.")] = 100_000,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of descriptions, for editors.")
    ] = False,
) -> None:
    """Draft a description of your own logs, or check one against them."""
    with told_errors():
        if schema:
            import json

            from pipeline.description.toml import json_schema

            sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n")
            return
        if not files:
            raise UsageError(
                "There is nothing to describe.",
                where="FILES",
                expected="data files, a description with --check, or --schema",
                got="none of them",
            )
        if check:
            _check(files, rows, raw, Asked(**asked), **how)
        else:
            _draft(files, raw, out)


def _check(
    files: list[str], rows: int, raw: Path | None, asked: Asked, max_rejected: float
) -> None:
    """Prepare a sample of the data as the whole will be, and show what it says; nothing is kept."""
    from pipeline import flow, inspection
    from pipeline.readers.remote import located

    if len(files) > 1:
        raise UsageError(
            "One description is checked at a time.",
            where="--check",
            expected="a description, or a preset",
            got=", ".join(files),
        )
    with progress() as told, tempfile.TemporaryDirectory(prefix="tinprep-") as folder:
        config = sampled(files[0], asked, rows, raw and located(raw), max_rejected)
        out = Path(folder) / "sample"
        made = flow.prepare(replace(config, out=out, force=False), told)
        shown = inspection.sample(made, out, _TARGETS_OF_A_SPLIT)
    head = Text(
        f"Of a sample: the first events of each table, {rows:,} at least where there are so many. "
        "Nothing is kept."
    )
    Terminal().print(Group(head, *shown))
    options = [f"--set {quote(f'{n}={value}')}" for n, value in (asked.parameters or {}).items()]
    options += [f"--without {quote(name)}" for name in asked.without]
    options += [f"--raw {quote(str(raw))}"] if raw else []
    options += [f"--max-rejected {max_rejected:.6g}"] if max_rejected != Config.max_rejected else []
    next_command(" ".join(["prepare", quote(files[0]), *options]))


def _draft(files: list[str], raw: Path | None, out: Path | None) -> None:
    text = drafted(files, raw, Path() if out is None else out.parent)
    if out is None:
        sys.stdout.write(text)
        return
    require_new(out, "give another --out, or remove it")
    with replacing(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    Terminal(soft_wrap=True).print(f"{out}: read it, then tinprep describe {out} --check")
