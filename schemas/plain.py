"""Text as it may be shown: of strangers, whose names may hold any character, and of durations."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

# Control characters, which a terminal obeys and XML forbids; line separators; what turns the
# direction of writing; halves of a surrogate pair.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
# What makes a spreadsheet take a cell for a formula, in full width as well, and what is a number.
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n']")
_UNITS = (("y", 31_557_600), ("d", 86_400), ("h", 3_600), ("min", 60))
_NUMBER = re.compile(r"[-+]?[0-9]*\.?[0-9]+(e[-+]?[0-9]+)?")


def printable(text: str) -> str:
    r"""The text on one line, with what cannot be seen in it as escapes, e.g. `\x1b`."""
    return _UNSEEN.sub(lambda found: ascii(found[0])[1:-1], text)


def for_markdown(text: str) -> str:
    """The text of a cell in a Markdown table."""
    return re.sub(r"<(?!\s)", "&lt;", printable(text).replace("|", "\\|"))


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


def quoted(name: str) -> str:
    """A column's name in SQL, whatever stands in it."""
    return '"' + name.replace('"', '""') + '"'


def meant(name: str, names: Iterable[str], like: float = 0.6) -> str:
    """What to add to a wrong name: the one of some names that is near; nothing where none is.

    Args:
        like: how like it one must be, from 0 to 1.
    """
    folded = {one.strip().casefold(): one for one in names}
    found = get_close_matches(name.strip().casefold(), folded, 1, like)
    return f"; did you mean {folded[found[0]]}?" if found else ""


def duration(seconds: float) -> str:
    """Seconds in the largest unit that holds one, e.g. 950400 as '11 d', 0.25 as '250 ms'."""
    for unit, size in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    if 0 < seconds < 1:
        return f"{1e3 * seconds:.3g} ms"
    return f"{seconds:.3g} s"
