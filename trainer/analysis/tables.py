"""A table of results: a CSV file for programs, a Markdown file and a terminal for people."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table as Shown
from rich.text import Text

from schemas.plain import for_markdown, for_spreadsheet, printable
from trainer.data.shards import Shards
from trainer.files import filling, put, put_text

Cell = str | int | float | bool | None

# How a column's numbers are shown in Markdown, where it is not to four places.
_FORMATS = {
    "change_pct": "+.2f",
    "paper_change_pct": "+.2f",
    "p": ".2g",
    "pearson": ".3f",
    "pearson_sd": ".3f",
    "spread": ".3g",
}
_LEAST_P = 1e-4
DATA = {"data": "data", "dataset": "dataset", "synthetic": "synthetic"}
"""The columns that name a row's data set: in Markdown the heading of its part."""
SD = "sd: standard deviation over seeds."
# What a column is called in Markdown, where not by its name.
_HEADINGS = {
    "gauc": "GAUC",
    "auc": "AUC",
    "change_pct": "change, %",
    "pearson": "Pearson",
    "own_first": "own category first at",
    "places": "of places",
    "spread": "largest / least",
    "length": "history length",
    "tte_p": "TTE-P",
    "coe": "COE",
    "attention": "attention's width",
    "representation": "representation's width",
}


def columns(names: str) -> dict[str, str]:
    """A table's columns with their headings: those of `DATA`, then these, with blanks between.

    What the paper has is called `paper_...`; a standard deviation is called `..._sd`.
    """

    def heading(name: str) -> str:
        if name.endswith("_sd"):
            return "sd"
        own = name.removeprefix("paper_")
        return ("paper's " if own != name else "") + _HEADINGS.get(own, own)

    return DATA | {name: heading(name) for name in names.split()}


def name_of(data: Path) -> str:
    """A data set's short name: that of its folder."""
    return printable(data.resolve().name)


def title_of(shards: Shards) -> str:
    """A data set as a reader should see it; what is made up is said."""
    made = shards.manifest
    return printable(made.dataset) + (" (synthetic data)" if made.synthetic else "")


def named(shards: Shards) -> dict[str, Cell]:
    """The values of `DATA`."""
    made = shards.manifest
    return {
        "data": name_of(shards.out),
        "dataset": printable(made.dataset),
        "synthetic": made.synthetic,
    }


def change(value: float | None, reference: float | None) -> float | None:
    """By how many percent a value is above its reference."""
    return None if value is None or not reference else 100.0 * (value / reference - 1.0)


@dataclass(frozen=True)
class Table:
    """A table over one or more data sets.

    Attributes:
        name: of its files, e.g. `table1`.
        columns: name in the CSV file -> heading in Markdown.
        rows: a value for each column; those of a data set stand together.
        notes: what a reader must know, a sentence or two each.
    """

    name: str
    title: str
    columns: Mapping[str, str]
    rows: list[dict[str, Cell]]
    notes: list[str]

    def markdown(self) -> str:
        """The title, a part for each data set, and the notes."""
        parts = [f"## {title}\n\n{markdown(*part).rstrip()}" for title, part in self._parts()]
        return "\n\n".join([f"# {self.title}", *parts, *self.notes]) + "\n"

    def shown(self) -> Group:
        """The same for a terminal."""
        parts = [for_terminal(title, *part) for title, part in self._parts()]
        return Group(Text(printable(self.title)), *parts, *map(Text, map(printable, self.notes)))

    def _parts(self) -> Iterator[tuple[str, tuple[list[str], list[list[str]], list[bool]]]]:
        """Each data set with its columns, rows, and which columns stand to the left.

        A column that is empty all over a data set is left out.
        """
        for key, group in groupby(self.rows, key=lambda row: [row[name] for name in DATA]):
            rows = list(group)
            data, dataset, synthetic = key
            names = [
                name
                for name in self.columns
                if name not in DATA and any(row[name] is not None for row in rows)
            ]
            left = [any(isinstance(row[name], str) for row in rows) for name in names]
            lines = [[_shown(name, row[name]) for name in names] for row in rows]
            title = f"{data} ({dataset}{', synthetic data' if synthetic else ''})"
            yield title, ([self.columns[name] for name in names], lines, left)

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write `<name>.csv` and `<name>.md` into a folder, each put in place when complete.

        Returns:
            Their paths.

        Raises:
            UsageError: the folder cannot be made, or files of others are in the way.
        """
        paths = (folder / f"{self.name}.csv", folder / f"{self.name}.md")
        with filling(folder):
            put_csv(paths[0], [*self.columns], ([r[n] for n in self.columns] for r in self.rows))
            put_text(paths[1], self.markdown())
        return paths


def markdown(
    head: Sequence[object], rows: Iterable[Sequence[object]], left: Sequence[bool] = (True,)
) -> str:
    """A Markdown table.

    Args:
        head: the columns' names.
        rows: their cells, as they are to be shown.
        left: which columns stand to the left; those after these stand to the right.
    """
    lines = [[for_markdown(str(x)) for x in line] for line in (head, *rows)]
    rule = ["---" if text else "---:" for text, _ in zip_longest(left, head)]
    return "".join(f"| {' | '.join(line)} |\n" for line in (lines[0], rule, *lines[1:]))


def for_terminal(
    title: str,
    head: Sequence[object],
    rows: Iterable[Sequence[object]],
    left: Sequence[bool] = (True,),
) -> Shown:
    """A table for a terminal, of what `markdown` takes."""
    table = Shown(title=title, box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    for name, (text, _) in zip(head, zip_longest(left, head), strict=False):
        # A figure that is cut says something else; a name goes on in the next line.
        how: dict[str, Any] = (
            {"overflow": "fold"} if text else {"justify": "right", "no_wrap": True}
        )
        table.add_column(str(name), **how)
    for row in rows:
        table.add_row(*map(str, row))
    return table


def put_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file that spreadsheets may open; raises as `outputs.put`."""

    def write(unfinished: Path) -> None:
        with unfinished.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(
                [for_spreadsheet(x) if isinstance(x, str) else x for x in line]
                for line in (head, *rows)
            )

    put(path, write)


def said(value: object) -> str:
    """A setting's value as people write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(said, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {said(one)}" for name, one in value.items())
    return "-" if value is None else str(value)


def _shown(name: str, value: Cell) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        if name == "p" and value < _LEAST_P:
            return f"< {_LEAST_P}"
        return format(value, _FORMATS.get(name, ".4f"))
    return value if isinstance(value, str) else f"{value:,}"
