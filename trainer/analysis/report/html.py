"""Pieces of a page as HTML. All text is escaped here: names in data and runs are strangers'."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from string import Template

from schemas.plain import printable
from trainer.analysis.plots import COLOURS

# Columns that a phone has room for.
_FIT, _TEXTS_FIT = 5, 2

_ATTRIBUTES = {"class_": "class", "data": "data-of"}


def page(title: str, parts: Iterable[str]) -> str:
    """The whole document, from `page.html`: a title, as text, and parts of its body, as HTML."""
    template = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    colours = " ".join(f"--{name}: {colour};" for name, colour in COLOURS.items())
    text = {"title": escape(printable(title)), "body": "\n".join(parts), "colours": colours}
    return Template(template).substitute(text)


def element(tag: str, text: str, **attributes: str) -> str:
    """An element of text; `class_` names its class."""
    said = "".join(
        f' {_ATTRIBUTES.get(k, k)}="{escape(printable(v))}"' for k, v in attributes.items()
    )
    return f"<{tag}{said}>{escape(printable(text))}</{tag}>"


def tiles(pairs: Iterable[tuple[str, str]]) -> str:
    """A few figures that matter, each under its name."""
    inside = "".join(f"<div>{element('dt', k)}{element('dd', v)}</div>" for k, v in pairs)
    return f'<dl class="tiles">{inside}</dl>'


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], caption: str, *, texts: bool = False
) -> str:
    """A table whose cells are text; on a phone a row of many columns is a list of them.

    With `texts` the columns after the first stand to the left, too.
    """
    kind = {"class_": "text"} if texts else {}
    heads = "".join(element("th", cell, scope="col", **kind) for cell in head)
    cells = (
        "".join(element("td", x, data=n, **kind) for n, x in zip(head, row, strict=True))
        for row in rows
    )
    lines = "".join(f"<tr>{row}</tr>" for row in cells)
    wide = ' class="wide"' if len(head) > (_TEXTS_FIT if texts else _FIT) else ""
    return (
        f"<table{wide}>{element('caption', caption)}"
        f"<thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>"
    )


def figure(title: str, svg: str, caption: str = "", more: str = "") -> str:
    """A drawing with its title and caption, as text, and what else belongs to it, as HTML."""
    said = element("figcaption", caption) if caption else ""
    return f"<figure>{element('h3', title)}{svg}{said}{more}</figure>"


def figures(parts: Iterable[str]) -> str:
    """Figures side by side where there is room."""
    return f'<div class="figures">{"".join(parts)}</div>'


def folded(summary: str, inside: str) -> str:
    """HTML that is shown when it is asked for; not on paper."""
    return f"<details>{element('summary', summary)}{inside}</details>"
