"""The commands that look at what is there: data sets, and the machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from pipeline.cli.amounts import Bytes
from pipeline.cli.errors import told_errors
from pipeline.cli.progress import progress
from schemas.errors import UsageError
from schemas.terminal import Terminal

_BODY = Bytes(1 << 20)
_Out = Annotated[Path, typer.Argument(help="Folder of a data set.")]


def inspect(
    out: _Out, rows: Annotated[int, typer.Option(min=0, help="Rows of each split to decode.")] = 3
) -> None:
    """What a data set holds: counts, bins, history lengths, a few rows in plain words."""
    with told_errors():
        from pipeline import inspection

        Terminal().print(inspection.inspect(out, rows))


def verify(
    out: Annotated[Path, typer.Argument(help="Folder of a data set, or of a bundle.")],
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Shards, or buckets, at once. Default: the usable cores."),
    ] = None,
    log: Annotated[
        Path | None, typer.Option(help="Of a bundle: a log that `tinprep score` or `serve` wrote.")
    ] = None,
    events: Annotated[
        Path | None, typer.Option(help="With --log: the data set that keeps the users' events.")
    ] = None,
) -> None:
    """Check every shard and table against the manifest, and every promise that a data set makes.

    Of a bundle: each file, and that its golden requests come out as they did. With --log: that
    each request of a log does.
    """
    with told_errors():
        if (out / "bundle.json").exists():
            _verify_bundle(out, log, events)
            return
        if log is not None or events is not None:
            option = "--log" if log is not None else "--events"
            raise UsageError(
                "This is for bundles.",
                where=option,
                expected="a bundle",
                got=f"{out}, which is none",
            )
        from pipeline.verify import verify as check

        with progress() as told:
            report = check(out, told, threads)
        console = Terminal(soft_wrap=True)
        if not report.sound:
            for finding in report.findings:
                console.print(str(finding), highlight=False)
            raise report.error(out)
        console.print(
            f"sound: {report.shards:,} shards, {report.rows:,} rows, {report.seconds:.1f} s: {out}",
            highlight=False,
        )


def _verify_bundle(folder: Path, log: Path | None, events: Path | None) -> None:
    from pipeline.serving import golden, journal
    from schemas import bundle

    if (log is None) != (events is None):
        raise UsageError(
            "A log is replayed by the events that it was scored with.",
            where="--log",
            expected="--log and --events",
            got="--events" if log is None else "--log",
        )
    found = bundle.load(folder)
    told = [f"{len(found.files):,} files", f"{golden.check(folder, found):,} golden requests"]
    if log is not None and events is not None:
        told.append(f"{journal.replayed(log, folder, events):,} logged requests")
    Terminal(soft_wrap=True).print(f"sound: {', '.join(told)}: {folder}", highlight=False)


def score(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    events: Annotated[Path, typer.Option(help="A data set that keeps the users' events.")],
    requests: Annotated[Path, typer.Option(help="JSON lines: user, time, candidates, context.")],
    out: Annotated[Path, typer.Option(help="The scores: *.csv as CSV, others as Parquet.")],
    log: Annotated[
        Path | None,
        typer.Option(help="Write each request and its scores here, for `verify --log`."),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Of ONNX Runtime.")] = 1,
) -> None:
    """Score requests by a bundle: each has a user, a time and candidates."""
    with told_errors():
        from pipeline.serving import files
        from pipeline.serving.scorer import Scorer

        scorer = Scorer.of(bundle, events, threads)
        with progress() as told:
            found = files.score(scorer, requests, out, log, told)
        for line in found:
            Terminal(soft_wrap=True).print(line, highlight=False)


def serve(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    events: Annotated[Path, typer.Option(help="A data set that keeps the users' events.")],
    store: Annotated[
        Path | None,
        typer.Option(help="Folder for the events that are posted. Default: EVENTS.store."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, help="Port to listen at; 0 for any.")] = 8000,
    log: Annotated[
        Path | None,
        typer.Option(help="Append each event, request and score here, for `verify --log`."),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Of ONNX Runtime.")] = 1,
    max_body: Annotated[Bytes, typer.Option(help="Of a call.")] = _BODY,
    max_candidates: Annotated[int, typer.Option(min=1, help="Of a request.")] = 1_000,
    max_events: Annotated[int, typer.Option(min=1, help="Of a call.")] = 1_000,
) -> None:
    """Serve scores over HTTP: events in, scores out, by a bundle and a data set's events."""
    with told_errors():
        from schemas.scorer import required

        # Of a few events at once, handing work to other threads takes longer than the work.
        os.environ.setdefault("POLARS_MAX_THREADS", "1")
        for package in ("prometheus_client", "starlette", "uvicorn", "uvloop", "httptools"):
            required(package, "serve")
        from pipeline.serving.server import serve as run
        from pipeline.serving.service import Limits, Service

        limits = Limits(max_body, max_candidates, max_events)
        kept = events.with_name(f"{events.resolve().name}.store") if store is None else store
        console = Terminal(soft_wrap=True)
        run(
            lambda: Service(bundle, events, kept, log, threads, limits),
            host,
            port,
            lambda at: console.print(f"serving {bundle} at {at}", highlight=False),
        )
        console.print("stopped", highlight=False)


def doctor() -> None:
    """Versions, cores, memory, disk, Java, GPU and the data sets found: is this machine fit?"""
    with told_errors():
        from pipeline.doctor import doctor as examine

        table = Table()
        for name in ("what", "found", "", "do"):
            table.add_column(name, overflow="fold")
        for line in examine():
            table.add_row(line.name, line.found, "ok" if line.ok else "warning", line.do or "")
        Terminal().print(table)
