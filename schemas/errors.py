"""Every error that tinprep raises on purpose.

```
TinprepError
├── UsageError        2    the command cannot be run as it was given
├── InputError        3    a raw file is missing, damaged or not what it should be
├── ContractError     4    a table, a shard or a manifest breaks its contract
├── EnvironmentFault  5    the network, the disk or the memory gave out
└── Interrupted     130    stopped by Ctrl-C, SIGTERM or SIGHUP; the message says how to go on
```

The number is the exit code of the command line.
"""

from __future__ import annotations

from pathlib import Path

from schemas.plain import printable

_LONGEST = 2_000  # characters of a line of an error: a stranger's file may hold one of millions


class ByDescription(str):
    """What to do that a description says, or an option in its place: nobody can where it is fixed.

    It stands for the `do` of an error.
    """


class TinprepError(Exception):
    """An error with what a person needs to act on it.

    Args:
        what: one sentence on what went wrong.
        where: the file, folder or option.
        line: the 1-based line in `where`.
        expected: what should have been there.
        got: what was there.
        do: what to do about it. This, and the two before, may be of several lines.
    """

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        where: str | Path | None = None,
        line: int | None = None,
        expected: str | tuple[str, ...] | None = None,
        got: str | tuple[str, ...] | None = None,
        do: str | tuple[str, ...] | None = None,
    ) -> None:
        self.what, self.where, self.line = what, where, line
        self.expected, self.got, self.do = expected, got, do
        super().__init__(what)

    def __str__(self) -> str:
        where = None
        if self.where is not None:
            where = f"{self.where}" if self.line is None else f"{self.where}:{self.line}"
        rows = [("where", where), ("expected", self.expected), ("got", self.got), ("do", self.do)]
        told = [f"  {name + ':':<10}{_lines(text)}" for name, text in rows if text]
        return "\n".join([printable(self.what), *told])


def _lines(text: str | tuple[str, ...]) -> str:
    """A text of one or more lines, each printable, the further ones below the first."""
    lines = (text,) if isinstance(text, str) else text
    return ("\n" + 12 * " ").join(printable(line[:_LONGEST]) for line in lines)


class UsageError(TinprepError):
    """The command cannot be run as it was given."""

    exit_code = 2


class InputError(TinprepError):
    """A raw file is missing, damaged or not what it should be."""

    exit_code = 3


class ContractError(TinprepError):
    """A table, a shard or a manifest breaks its contract."""

    exit_code = 4


class EnvironmentFault(TinprepError):
    """The network, the disk or the memory gave out."""

    exit_code = 5


class Interrupted(TinprepError):
    """Stopped by Ctrl-C, SIGTERM or SIGHUP; the same command resumes."""

    exit_code = 130
