"""What can go wrong in a command, as one message and an exit code."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from schemas import interrupts
from schemas.errors import EnvironmentFault, InputError, Interrupted, TinprepError, UsageError

# What to do after a command was stopped.
AGAIN = "run the same command again"
GOES_ON = f"{AGAIN}: it goes on from here"
WITH_RESUME = "add --resume to the command: it goes on from its last checkpoint"

_TOLD = (TinprepError, OSError, MemoryError, KeyboardInterrupt, UnicodeEncodeError)
_NO_ROOM = re.compile(
    "new thread|worker thread|failed to map segment|allocate memory|bad_alloc|out of memory",
    re.IGNORECASE,
)
# What Linux calls a file where a folder should be, and the other way round.
_OF_ANOTHER_KIND = (NotADirectoryError, IsADirectoryError)


@contextmanager
def told_errors(then: str = AGAIN) -> Iterator[None]:
    """Turn what can go wrong into one message and its exit code.

    Args:
        then: what to do after the command was stopped.
    """
    interrupts.begin(str(_interrupted(then)))
    try:
        yield
    except BaseException as error:
        if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
            error = error.__context__  # what pathlib makes a RuntimeError of: links in a circle
        stopped = interrupts.end() and not isinstance(error, SystemExit)
        told = isinstance(error, _TOLD) or _is_no_room(error)
        if not (stopped or told or interrupts.is_panic(error)):
            raise
        # A signal while a library is at work may end in any error of its.
        shown = _interrupted(then) if stopped else _as_ours(error, then)
        print(f"error: {shown}", file=sys.stderr)  # noqa: T201
        raise typer.Exit(shown.exit_code) from None
    interrupts.end()


def _is_no_room(error: BaseException) -> bool:
    """Whether a library says in its own way that memory, or threads, ran out."""
    if isinstance(error, InputError):  # no file is damaged that there was no room to read
        made_of = error.__cause__ or error.__context__
        return made_of is not None and bool(_NO_ROOM.search(str(made_of)))
    return isinstance(error, ImportError | RuntimeError) and bool(_NO_ROOM.search(str(error)))


def _interrupted(then: str) -> Interrupted:
    return Interrupted("Interrupted.", do=then)


def _as_ours(error: BaseException, then: str) -> TinprepError:
    if isinstance(error, TinprepError) and not _is_no_room(error):
        return error
    if isinstance(error, KeyboardInterrupt) or interrupts.is_panic(error):
        return _interrupted(then)
    if isinstance(error, UnicodeEncodeError):
        return UsageError(
            "A name cannot be written as text.",
            where=ascii(error.object)[:200],
            expected=f"what {error.encoding} can hold",
            got=ascii(error.object[error.start : error.end])[:40],
            do="rename the file or folder",
        )
    if isinstance(error, _OF_ANOTHER_KIND):
        kinds = ("a folder", "a file")
        expected, got = kinds if isinstance(error, NotADirectoryError) else reversed(kinds)
        return UsageError(
            f"There is {got} where {expected} should be.",
            where=error.filename,
            expected=expected,
            got=got,
            do="check the path",
        )
    if isinstance(error, MemoryError) or _is_no_room(error):
        return EnvironmentFault(
            "Memory ran out.",
            got=getattr(error, "got", None) or str(error).partition("\n")[0],
            do="free some, or raise `ulimit`; more --buckets, a smaller --memory or --batch-size",
        )
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
        do=f"free some space, then {then}" if full else "check the path and its permissions",
    )
