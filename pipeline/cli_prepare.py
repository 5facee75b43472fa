"""The commands that make data sets: parse, build a configuration, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline import demo as demos
from pipeline.cli_amounts import as_bytes, as_share
from pipeline.cli_errors import GOES_ON, told_errors
from pipeline.cli_progress import progress
from pipeline.cli_synthesize import make_alibaba, make_amazon
from schemas.errors import UsageError
from schemas.terminal import Terminal

if TYPE_CHECKING:
    from pipeline.config import AlibabaConfig, AmazonConfig


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (amazon, alibaba):
        app.command()(command)


# What every preparation can be asked; the defaults are in the commands.
_Bins = Annotated[
    int, typer.Option(help="Equal-frequency bins of the interval; the paper's 4.4 takes 10.")
]
_MaxLen = Annotated[int, typer.Option(help="Behaviours kept of a history, the latest.")]
_Layout = Annotated[
    str, typer.Option(help="padded: dense for every reader; ragged: smaller and faster.")
]
_Buckets = Annotated[
    int | None,
    typer.Option(help="Of users; changes no row. Default: by size, --threads, --memory."),
]
_Threads = Annotated[
    int | None,
    typer.Option(help="Buckets worked on at once; of no use to Spark. Default: the usable cores."),
]
_Memory = Annotated[
    str,
    typer.Option(help="To stay within, on Spark: of a task; too little is refused."),
]
_Engine = Annotated[
    str, typer.Option(help="local: this machine. spark: a cluster, with `tinprep[spark]`.")
]
_Master = Annotated[
    str | None, typer.Option(help="Of Spark, e.g. spark://HOST:7077, or local[2] to try it.")
]
_SparkConf = Annotated[
    list[str] | None, typer.Option(help="A setting of Spark, NAME=VALUE; may be repeated.")
]
_MaxRejected = Annotated[
    str, typer.Option(help="Share of raw lines that may be refused before it is an error.")
]
_MaxMissing = Annotated[
    str | None,
    typer.Option(
        help="Share that a join may lack, e.g. of items without a meta line, before it is an "
        "error, as 5%. Default: any."
    ),
]
_Duplicates = Annotated[
    str,
    typer.Option(
        help="What a file holds more than once (same user, time and fields): keep, or drop all "
        "but one."
    ),
]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it would take, and stop.")]
_Force = Annotated[bool, typer.Option("--force", help="Replace an earlier data set in --out.")]
_Demo = Annotated[
    bool, typer.Option("--demo", help="Make synthetic raw files first, and use those.")
]


def amazon(
    bins: _Bins = 10,
    max_len: _MaxLen = 50,
    layout: _Layout = "padded",
    negatives: Annotated[
        int, typer.Option(help="Random negatives for each positive; the paper's A.1 takes 1.")
    ] = 1,
    split: Annotated[
        str, typer.Option(help="tin: train, valid, test; din: no valid, as DIN's scripts.")
    ] = "tin",
    category: Annotated[
        str, typer.Option(help="5-core category, as in the files' names; the paper's by default.")
    ] = "Electronics",
    raw: Annotated[
        Path | None,
        typer.Option(help="Folder with the raw files, nothing is downloaded. Default: download."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the data set. Default: data/amazon.")
    ] = None,
    ties: Annotated[
        str, typer.Option(help="Order within one day: the file's, as released, or a seeded hash.")
    ] = "file",
    session_gap: Annotated[
        int, typer.Option(help="Seconds of silence that end a session; a day, as times are days.")
    ] = 86_400,
    seed: Annotated[int, typer.Option(help="Of negatives and hashed ties; as released.")] = 1234,
    buckets: _Buckets = None,
    threads: _Threads = None,
    memory: _Memory = "2GB",
    max_rejected: _MaxRejected = "0.1%",
    max_missing: _MaxMissing = None,
    duplicates: _Duplicates = "keep",
    meta: Annotated[
        bool, typer.Option("--meta/--no-meta", help="Without meta every category is unknown.")
    ] = True,
    parity: Annotated[
        bool,
        typer.Option(
            "--parity", help="Rows as the released code makes them: its negatives, all L."
        ),
    ] = False,
    mirror: Annotated[
        list[str] | None, typer.Option(help="Address tried before the published ones.")
    ] = None,
    engine: _Engine = "local",
    master: _Master = None,
    spark_conf: _SparkConf = None,
    dry_run: _DryRun = False,
    force: _Force = False,
    demo: _Demo = False,
) -> None:
    """Amazon 2014 reviews to shards: leave-one-out, random negatives, histories, interval bins."""
    with told_errors(GOES_ON):
        from pipeline.config import AmazonConfig
        from pipeline.flow import check_folders
        from pipeline.remote import located

        if demo:
            raw, out = _demo("amazon", raw, out)
        config = AmazonConfig(
            out=located(out or Path("data/amazon")),
            raw=raw and located(raw),
            category=category,
            bins=bins,
            max_len=max_len,
            layout=layout,
            negatives=negatives,
            split=split,
            ties=ties,
            session_gap=session_gap,
            seed=seed,
            buckets=buckets,
            threads=threads,
            memory=as_bytes(memory),
            max_rejected=as_share(max_rejected, "--max-rejected"),
            max_missing=None if max_missing is None else as_share(max_missing, "--max-missing"),
            duplicates=duplicates,
            meta=meta,
            parity=parity,
            force=force,
            engine=engine,
            master=master,
            spark_conf=tuple(spark_conf or ()),
            mirrors=tuple(mirror or ()),
        )
        if demo and raw:  # not before settings and folders are checked
            check_folders(config)
            make_amazon(raw, demos.AMAZON_SCALE, seed=0, category=category)
        _prepare(config, dry_run)


def alibaba(
    split_by_day: Annotated[
        bool,
        typer.Option("--split-by-day", help="Last day test, the one before valid; the default."),
    ] = False,
    split_at: Annotated[
        int | None,
        typer.Option(
            help="Train before this second, test from it on, no valid; DSIN's is 1494633600, "
            "which is 08:00 in Beijing."
        ),
    ] = None,
    raw: Annotated[
        Path | None,
        typer.Option(
            help="Folder with the four CSV files, plain or gzipped. Default: data/raw/alibaba, "
            "or kagglehub where it is installed."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the data set. Default: data/alibaba.")
    ] = None,
    bins: _Bins = 10,
    max_len: _MaxLen = 50,
    layout: _Layout = "padded",
    user_fraction: Annotated[
        float, typer.Option(help="Below 1: DSIN's sample of the profiles' users; it takes 0.25.")
    ] = 1.0,
    timezone: Annotated[str, typer.Option(help="Of the days; the log is Beijing's.")] = (
        "Asia/Shanghai"
    ),
    behaviors: Annotated[
        str, typer.Option(help="Kinds that count, of pv,cart,fav,buy; DSIN takes page views.")
    ] = "pv",
    behaviors_since: Annotated[
        str,
        typer.Option(
            help="From when behaviours count: unix seconds, all, or default: the start of the "
            "day three days before the first impression's."
        ),
    ] = "default",
    sessions: Annotated[
        str, typer.Option(help="Sessions x behaviours for DSIN, as it takes them; none for none.")
    ] = "5x10",
    session_gap: Annotated[
        int, typer.Option(help="Seconds of silence that end a session, as in DSIN.")
    ] = 1_800,
    min_count: Annotated[
        int, typer.Option(help="Rarer values are unknown; 1 gives every value an id.")
    ] = 1,
    seed: Annotated[int, typer.Option(help="Kept in the manifest; no draw depends on it.")] = 1234,
    buckets: _Buckets = None,
    threads: _Threads = None,
    memory: _Memory = "6GB",
    max_rejected: _MaxRejected = "0.1%",
    max_missing: _MaxMissing = None,
    duplicates: _Duplicates = "keep",
    engine: _Engine = "local",
    master: _Master = None,
    spark_conf: _SparkConf = None,
    dry_run: _DryRun = False,
    force: _Force = False,
    demo: _Demo = False,
) -> None:
    """Taobao's ad log to shards: impressions, what came before each, sessions, ads, profiles."""
    with told_errors(GOES_ON):
        from pipeline.config import AlibabaConfig
        from pipeline.flow import check_folders
        from pipeline.remote import located

        if split_by_day and split_at is not None:
            raise UsageError(
                "--split-by-day and --split-at are two ways to split.",
                where="--split-at",
                do="give one of them",
            )
        if demo:
            raw, out = _demo("alibaba", raw, out)
        config = AlibabaConfig(
            out=located(out or Path("data/alibaba")),
            raw=raw and located(raw),
            bins=bins,
            max_len=max_len,
            layout=layout,
            session_gap=session_gap,
            seed=seed,
            buckets=buckets,
            threads=threads,
            memory=as_bytes(memory),
            max_rejected=as_share(max_rejected, "--max-rejected"),
            max_missing=None if max_missing is None else as_share(max_missing, "--max-missing"),
            duplicates=duplicates,
            force=force,
            engine=engine,
            master=master,
            spark_conf=tuple(spark_conf or ()),
            split_at=split_at,
            timezone=timezone,
            behaviors=tuple(name.strip() for name in behaviors.split(",")),
            behaviors_since=behaviors_since,
            sessions=sessions,
            min_count=min_count,
            user_fraction=user_fraction,
        )
        if demo and raw:
            check_folders(config)
            make_alibaba(raw, demos.ALIBABA_SCALE, seed=0)
        _prepare(config, dry_run)


def _demo(name: str, raw: Path | None, out: Path | None) -> tuple[Path, Path]:
    """Where a demo's raw files and data set go."""
    if raw is not None:
        raise UsageError("--demo makes its own raw files.", where="--raw", do="leave it out")
    made, prepared = demos.folders(name)
    return made, out or prepared


def _prepare(config: AmazonConfig | AlibabaConfig, dry_run: bool) -> None:
    from pipeline import flow

    if dry_run:
        Terminal().print(flow.plan(config), highlight=False, soft_wrap=True)
        return
    with progress() as told:
        made = flow.prepare(config, told)
    from pipeline import inspection

    Terminal().print(inspection.summary(made, config.out))
