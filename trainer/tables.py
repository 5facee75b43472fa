"""A table of results as a CSV file for programs and a Markdown file for people."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from schemas.errors import InputError
from schemas.plain import for_markdown, for_spreadsheet, from_spreadsheet
from trainer.atomic import filling
from trainer.outputs import put

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
# In Markdown these are the heading of a data set's part.
_HEADING = ("data", "dataset", "synthetic")


@dataclass(frozen=True)
class Table:
    """A table over one or more data sets.

    Attributes:
        name: of its files, e.g. `table1`.
        title: one line.
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
        """The Markdown text: the title, then the `body`."""
        return f"# {self.title}\n\n{self.body(2)}"

    def body(self, level: int) -> str:
        """A part for each data set, then the notes, in Markdown.

        A column that is empty all over a data set is left out of its part.

        Args:
            level: of the parts' headings.
        """
        parts = []
        for key, group in groupby(self.rows, key=lambda row: [row[name] for name in _HEADING]):
            data, dataset, synthetic = key
            said = ", synthetic data" if synthetic else ""
            parts.append(f"{'#' * level} {data} ({dataset}{said})\n\n{self._part(list(group))}")
        parts += [f"{note}" for note in self.notes]
        return "\n\n".join(parts) + "\n"

    def _part(self, rows: list[dict[str, Cell]]) -> str:
        names = [
            name
            for name in self.columns
            if name not in _HEADING and any(row[name] is not None for row in rows)
        ]
        left = [any(isinstance(row[name], str) for row in rows) for name in names]
        lines = [
            [self.columns[name] for name in names],
            ["---" if text else "---:" for text in left],
            *([_shown(name, row[name]) for name in names] for row in rows),
        ]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write `<name>.csv` and `<name>.md` into a folder, each put in place when complete.

        Returns:
            Their paths.

        Raises:
            UsageError: the folder cannot be made, or files of others are in the way.
        """
        paths = (folder / f"{self.name}.csv", folder / f"{self.name}.md")
        writers: tuple[Callable[[Path], object], ...] = (
            self._write_csv,
            lambda path: path.write_text(self.markdown(), encoding="utf-8"),
        )
        with filling(folder):
            for path, write in zip(paths, writers, strict=True):
                put(path, write)
        return paths

    def _write_csv(self, path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(self.columns), lineterminator="\n")
            writer.writeheader()
            writer.writerows(
                {k: for_spreadsheet(v) if isinstance(v, str) else v for k, v in row.items()}
                for row in self.rows
            )


# Columns of text; all others hold numbers, or True and False.
_TEXT = ("data", "dataset", "model", "code", "encoding", "length", "varied")


def read_rows(path: Path, columns: Mapping[str, str]) -> list[dict[str, Cell]]:
    """The rows of a table's CSV file, as they were.

    Args:
        path: the file.
        columns: of the table.

    Raises:
        InputError: there is no such file, or a table did not write it.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = csv.reader(file, strict=True)
            if next(lines, None) != list(columns):
                raise ValueError("other columns")
            return [
                {name: _cell(name, text) for name, text in zip(columns, line, strict=True)}
                for line in lines
            ]
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(
            "A table cannot be read.",
            where=path,
            expected="a CSV file that `tinprep reproduce` wrote",
            got=str(error),
            do="make it again",
        ) from None


def _cell(name: str, text: str) -> Cell:
    if text == "":
        return None
    if name in _TEXT:
        return from_spreadsheet(text)
    if text in ("True", "False"):
        return text == "True"
    return float(text) if set(text) & set(".en") else int(text)


def _shown(name: str, value: Cell) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        if name == "p" and value < _LEAST_P:
            return f"< {_LEAST_P}"
        return format(value, _FORMATS.get(name, ".4f"))
    return for_markdown(value) if isinstance(value, str) else f"{value:,}"
