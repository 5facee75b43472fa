"""Text of strangers, as it may be shown: a name in raw data or in a file may hold any character."""

from __future__ import annotations

import re

# Control characters, which a terminal obeys and XML forbids; line separators; what turns the
# direction of writing; halves of a surrogate pair.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
# What makes a spreadsheet take a cell for a formula, in full width as well, and what is a number.
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n']")
_NUMBER = re.compile(r"[-+]?[0-9]*\.?[0-9]+(e[-+]?[0-9]+)?")


def printable(text: str) -> str:
    r"""The text on one line, with what cannot be seen in it as escapes, e.g. `\x1b`."""
    return _UNSEEN.sub(lambda found: ascii(found[0])[1:-1], text)


def for_markdown(text: str) -> str:
    """The text of a cell in a Markdown table."""
    return printable(text).replace("|", "\\|").replace("<", "&lt;")


def for_spreadsheet(text: str) -> str:
    """The text of a CSV cell, such that no spreadsheet runs it.

    What could be a formula, for it begins with `=`, `+`, `-`, `@`, a tab or a line's end and is no
    number, gets an apostrophe before it, by which spreadsheets know a text. So does what begins
    with an apostrophe: `from_spreadsheet` gives back every text.
    """
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def from_spreadsheet(text: str) -> str:
    """The text that `for_spreadsheet` was given."""
    return text.removeprefix("'")
