"""A data set in a store of objects: executors put its shards there, this machine the rest."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pipeline.config import AlibabaConfig, AmazonConfig
from pipeline.remote import RemotePath
from pipeline.workspace import check_names
from schemas import manifest
from schemas.alone import LOCK
from schemas.errors import UsageError


def publish(
    config: AmazonConfig | AlibabaConfig,
    out: RemotePath,
    prepare: Callable[[AmazonConfig | AlibabaConfig, RemotePath], manifest.Manifest],
) -> manifest.Manifest:
    """Prepare a data set in a folder of this machine, and have it in `out` at the end.

    The manifest comes last, and goes first when something is replaced, so no half is ever taken
    for a whole. A store has no locks: that nobody else writes there is up to people.

    Args:
        config: what to make.
        out: where it goes.
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
    there = out.names()
    check_names(out, there)
    with tempfile.TemporaryDirectory(prefix="tinprep-") as name:
        local = Path(name)
        at = out / manifest.NAME
        if manifest.NAME in there and not config.force:
            at.get(local / manifest.NAME)
            return prepare(replace(config, out=local), out)
        for old in sorted(there, key=lambda one: one != manifest.NAME):
            (out / old).remove()
        made = prepare(replace(config, out=local), out)
        for path in sorted(local.rglob("*")):
            if path.is_file() and path.name not in (manifest.NAME, LOCK):
                (out / path.relative_to(local)).put(path)
        at.put(local / manifest.NAME)
        return made
