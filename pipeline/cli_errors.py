"""What can go wrong in a command, as one message and an exit code."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from schemas.errors import EnvironmentFault, Interrupted, TinprepError


@contextmanager
def told_errors() -> Iterator[None]:
    """Turn what can go wrong into one message and its exit code."""
    try:
        yield
    except (TinprepError, OSError, MemoryError, KeyboardInterrupt) as error:
        shown = _as_ours(error)
        print(f"error: {shown}", file=sys.stderr)  # noqa: T201
        raise typer.Exit(shown.exit_code) from None


def _as_ours(error: BaseException) -> TinprepError:
    if isinstance(error, TinprepError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("Interrupted.", do="run the same command again: it goes on from here")
    if isinstance(error, MemoryError):
        return EnvironmentFault("Memory ran out.", do="more --buckets, a smaller --memory")
    assert isinstance(error, OSError)
    if error.errno == errno.EMFILE:
        return EnvironmentFault(
            "Too many files are open.",
            got=error.strerror or str(error),
            do="fewer --buckets (more --memory makes fewer), or raise the limit: `ulimit -n 8192`",
        )
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return EnvironmentFault(
        "The disk is full." if full else "The system refused a file operation.",
        where=error.filename,
        got=error.strerror or str(error),
        do="free some space, then run the same command again: it goes on from here"
        if full
        else None,
    )
