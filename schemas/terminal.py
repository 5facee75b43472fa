"""The terminal, which is shown text and never told what to do by it."""

from __future__ import annotations

from typing import Any

from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.text import Text

from schemas.plain import printable

_WIDEST = 500


class Terminal(Console):
    """A console that reads no markup, and shows control characters of strangers as escapes.

    So it is for every string that it prints, in tables as well; our own styles stay.
    """

    def __init__(self, *, stderr: bool = False, soft_wrap: bool = False) -> None:
        super().__init__(stderr=stderr, soft_wrap=soft_wrap, markup=False)

    def print_wide(self, shown: RenderableType) -> None:
        """Print without highlighting; where no terminal cuts it, as wide as its tables are."""
        if not self.is_terminal:
            most = self.options.update(max_width=_WIDEST)
            self.width = max(self.width, Measurement.get(self, most, shown).maximum)
        self.print(shown, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """The text on as many lines as it has, with nothing in it that a terminal obeys."""
        return super().render_str("\n".join(map(printable, text.split("\n"))), **options)
