"""What reading a block of a raw file gives, whichever file it is: its rows and refused lines."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

REJECTED = {"file": pl.String, "line": pl.Int64, "reason": pl.String, "text": pl.String}

TOO_LONG = "line too long"
NOT_UTF8 = "not UTF-8"
# Of unix time: as seconds it is the year 5138, as milliseconds 1973.
MILLISECONDS_FROM = 100_000_000_000

SHOWN = 200  # characters of a line


@dataclass(frozen=True)
class Parsed:
    """What a block of a file holds.

    Attributes:
        rows: the lines read, in the file's order.
        rejected: the lines refused, in the file's order: file (its name), line (1-based), reason
            (one of the constants here or of the file's exact reader), text (the first 200
            characters).
        lines: how many lines the block has.
    """

    rows: pl.DataFrame
    rejected: pl.DataFrame
    lines: int


@dataclass
class Refused:
    """The lines of one block that are refused.

    Attributes:
        file: the name of the file.
        found: a row of `REJECTED` for each, in the order they were found.
    """

    file: str
    found: list[tuple[str, int, str, str]] = field(default_factory=list)

    def add(self, line: int, reason: str, data: bytes) -> None:
        """Refuse the 0-based `line`, of which `data` is at least the beginning."""
        # A character takes at most four bytes.
        text = data[: 4 * SHOWN].decode(errors="replace")[:SHOWN].rstrip("\r\n")
        self.found.append((self.file, line + 1, reason, text))

    def frame(self) -> pl.DataFrame:
        """A row of `REJECTED` for each, in the file's order."""
        return pl.DataFrame(self.found, schema=REJECTED, orient="row").sort("line")
