"""A data set in a store of objects: executors put its shards there, this machine the rest."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from pipeline.config import Config
from pipeline.readers.remote import RemotePath
from pipeline.record import RECORD, WORK, Record
from pipeline.workspace import below, enter, ours_of
from schemas import interrupts, manifest
from schemas.alone import LOCK
from schemas.errors import UsageError


def publish(
    config: Config, out: RemotePath, prepare: Callable[[Config, RemotePath], manifest.Manifest]
) -> manifest.Manifest:
    """Prepare a data set in a folder of this machine, and have it in `out` at the end.

    The manifest comes last, and goes first when something is replaced, so no half is ever taken
    for a whole. A store has no locks: that nobody else writes there is up to people.

    Args:
        prepare: makes it in its configuration's `out`, and puts the shards to the other folder.

    Raises:
        UsageError: the engine is the local one, or `out` holds something else.
        EnvironmentFault: the store cannot be reached.
    """
    if config.engine == "local":
        raise UsageError(
            "One machine works in --out, so that has to be a folder of its own.",
            where="--out",
            expected="a folder, or --engine spark",
            got=str(out),
            do="give a folder, and copy the data set when it is done",
        )
    there: dict[str, bool | None] = {**out.below()} if out.local is None else _links_too(out.local)
    record = Record.parse(out, _read(out / RECORD)) if there.get(RECORD) else None
    held = _read(out / manifest.NAME) if there.get(manifest.NAME) else b""
    ours = ours_of(out, there, record, held, force=config.force)
    with interrupts.held(), tempfile.TemporaryDirectory(prefix="tinprep-") as name:
        local = Path(name)
        if ours.made and not config.force:
            (local / manifest.NAME).write_bytes(held)
            made = prepare(replace(config, out=local), out)
        else:
            writer = secrets.token_hex(8)
            if ours.files:  # they go on to be known by their names when the manifest is gone
                enter(out, writer, ours.files)
            for old in sorted(ours.files & {*there}, key=lambda one: one != manifest.NAME):
                (out / old).remove()
            made = prepare(replace(config, out=local), out)
            paths = [path for path in sorted(local.rglob("*")) if path.is_file()]
            names = {path.relative_to(local).as_posix() for path in paths} - {LOCK}
            enter(out, writer, names | {one.path for one in (*made.shards, *made.tables)})
            for name in sorted(names - {manifest.NAME}):
                (out / name).put(local / name, writer)
            (out / manifest.NAME).put(local / manifest.NAME, writer)
    (out / RECORD).remove()
    for folder in {str(PurePosixPath(name).parent) for name in ours.files} - {"."} | {WORK}:
        (out / folder).remove()  # if it is empty
    return made


def _read(path: RemotePath) -> bytes:
    with path.open() as file:
        return file.read()


def _links_too(out: Path) -> dict[str, bool | None]:
    """As `RemotePath.below`, and links are told from what they lead to."""
    return dict(below(out)) if out.is_dir() else {}
