"""The commands on descriptions: of one's own logs, and of presets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.amounts import checked
from pipeline.cli.errors import GOES_ON, told_errors
from pipeline.cli.options import DryRun, options_of, run
from pipeline.cli.progress import progress
from pipeline.config import WORK, Config
from schemas.errors import UsageError
from schemas.replacing import replacing
from schemas.terminal import Terminal

_SAYS = "Default: what the description says."


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(prepare)
    app.command()(checked(describe))


@options_of(Config, only=WORK)
def prepare(
    how: dict[str, Any],
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
    user: Annotated[
        str | None, typer.Option(help="Of a file of events: the column of users.")
    ] = None,
    item: Annotated[
        str | None, typer.Option(help="Of a file of events: the column of items.")
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="Of a file of events: the column of times.")
    ] = None,
    unit: Annotated[
        str | None, typer.Option(help="Of times that are numbers: s, ms or us.")
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(help="Of a file of events: the column of labels, or SQL such as 'stars > 3'."),
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="Of a file of events: which of them count, in SQL.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="order (leave one out), day, TEST or VALID,TEST: dates, or numbers of the unit. "
            + _SAYS
        ),
    ] = None,
    timezone: Annotated[
        str | None, typer.Option(help="Of times, days and dates that name none, e.g. UTC.")
    ] = None,
    bins: Annotated[int | None, typer.Option(help=f"Interval bins. {_SAYS}")] = None,
    max_len: Annotated[
        int | None, typer.Option(help=f"Behaviours kept of a history. {_SAYS}")
    ] = None,
    layout: Annotated[str | None, typer.Option(help=f"padded or ragged. {_SAYS}")] = None,
    negatives: Annotated[
        int | None, typer.Option(help=f"Random negatives for each positive. {_SAYS}")
    ] = None,
    session_gap: Annotated[
        int | None, typer.Option(help=f"Seconds of silence that end a session. {_SAYS}")
    ] = None,
    duplicates: Annotated[
        str | None, typer.Option(help=f"Events that stand twice: keep or drop. {_SAYS}")
    ] = None,
    min_count: Annotated[
        int | None, typer.Option(help=f"Rarer values are unknown. {_SAYS}")
    ] = None,
    seed: Annotated[int | None, typer.Option(help=f"Of negatives and hashed ties. {_SAYS}")] = None,
    set: Annotated[  # noqa: A002
        list[str] | None,
        typer.Option(help="NAME=VALUE of a parameter; may be repeated."),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(help="A lookup to do without, as its file is not there; may be repeated."),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Your own logs to shards, by their description; or a preset by its name."""
    with told_errors(GOES_ON):
        from pipeline.presets import described
        from pipeline.readers.remote import located

        how |= {"out": out and located(out), "raw": raw and located(raw)}
        asked = described.Asked(
            bins=bins,
            layout=layout,
            seed=seed,
            max_len=max_len,
            session_gap=session_gap,
            duplicates=duplicates,
            negatives=negatives,
            split=split,
            timezone=timezone,
            min_count=min_count,
            parameters=_settings(set or []),
            without=tuple(without or ()),
        )
        plain = described.Events(user, item, time, unit, label, where)
        if plain.asked:
            config = described.of_events(description, plain, asked, **how)
        else:
            config = described.described(description, asked, **how)
        run(config, dry_run)


def describe(
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
        bool,
        typer.Option("--check", help="Hold a description against a sample of its data."),
    ] = False,
    raw: Annotated[
        Path | None, typer.Option(help="Folder of the raw files. Default: the description's own.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Events of each table to --check.")] = 100_000,
    set: Annotated[  # noqa: A002
        list[str] | None,
        typer.Option(help="NAME=VALUE of a parameter; may be repeated."),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(help="A lookup to do without, as its file is not there; may be repeated."),
    ] = None,
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
            _check(files, rows, raw, _settings(set or []), without or [])
        else:
            _draft(files, raw, out)


def _check(
    files: list[str], rows: int, raw: Path | None, parameters: dict[str, str], without: list[str]
) -> None:
    from pipeline.describing import check
    from pipeline.presets import described
    from pipeline.readers.remote import located

    if len(files) > 1:
        raise UsageError(
            "One description is checked at a time.",
            where="--check",
            expected="a description, or a preset",
            got=", ".join(files),
        )
    asked = described.Asked(parameters=parameters, without=without)
    with progress() as told:
        shown = check(described.sampled(files[0], asked, rows, raw and located(raw)), told)
    Terminal().print(shown)


def _draft(files: list[str], raw: Path | None, out: Path | None) -> None:
    from pipeline.presets import described

    text = described.drafted(files, raw, Path() if out is None else out.parent)
    if out is None:
        sys.stdout.write(text)
        return
    if out.exists():
        raise UsageError(
            "There is such a file already.",
            where=out,
            expected="a new file",
            got="one that may have been changed by hand",
            do="give another --out, or remove it",
        )
    with replacing(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    Terminal(soft_wrap=True).print(f"{out}: read it, then tinprep describe {out} --check")


def _settings(given: list[str]) -> dict[str, str]:
    """NAME=VALUE as a dictionary.

    Raises:
        UsageError: one is none.
    """
    for one in given:
        if not one.partition("=")[1]:
            raise UsageError(
                "--set cannot have this value.", where="--set", expected="NAME=VALUE", got=one
            )
    return dict(one.split("=", 1) for one in given)
