"""Text of strangers, as it may be shown: a name in raw data or in a file may hold any character."""

from __future__ import annotations

import re

# Control characters, which a terminal obeys and XML forbids; line separators; what turns the
# direction of writing; halves of a surrogate pair.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
# What makes a spreadsheet take a cell for a formula.
_FORMULA = re.compile(r"\s*[=+\-@]|[\t\r]")


def printable(text: str) -> str:
    r"""The text on one line, with what cannot be seen in it as escapes, e.g. `\x1b`."""
    return _UNSEEN.sub(lambda found: ascii(found[0])[1:-1], text)


def for_spreadsheet(text: str) -> str:
    """The text of a CSV cell, such that no spreadsheet runs it.

    A text that could be a formula, beginning with `=`, `+`, `-`, `@`, a tab or a carriage return,
    gets an apostrophe before it, which spreadsheets take for "this is text". So does one that
    begins with an apostrophe, so that taking one away gives back every text.

    Raises nothing, and leaves numbers to the caller: `-1` as a number is not to come here.
    """
    return f"'{text}" if text.startswith("'") or _FORMULA.match(text) else text
