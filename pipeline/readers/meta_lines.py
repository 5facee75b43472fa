"""Amazon's meta lines: Python literals in the 2014 release, JSON in the one of 2018.

`read_item` is the truth: JSON as Python reads it, or else `ast.literal_eval`, which evaluates
literals and runs nothing. That takes about 100 microseconds a literal, a minute for Electronics,
though one line in eight is wanted. So `scan_items` lets Polars match each line against one anchored
regular expression, and gives up on whatever it is not sure of.

Why that is the same:

* A line in the grammar is a dict display whose strings, numbers and lists are spelled in a way
  that Python accepts and that the expression reads as Python does: a string ends at its first
  unescaped quote, no two strings touch, nothing has a prefix, no name or operator occurs. Its keys
  are in single quotes, so it is no JSON.
* The expression spells out the dict's own keys: `asin` once, `categories` at most once, and any
  other begins with another letter and has no escape. So no later key replaces them, wherever
  else those words occur.
* The asin is read from the line's start, or where the word occurs once in the line and so is the
  key. The last category is read only in a line with that key: where the key as the grammar
  spells it, `'categories': [`, occurs once, or else by an expression that reads every key from the
  line's start on, which can match in one way only, as strings end at their first unescaped quote.
"""

from __future__ import annotations

import ast
import math
import threading
import warnings
from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np
import polars as pl

from pipeline.readers.json_text import NOT_USUAL, decode, is_text, text_of_id

NOT_READ = "neither JSON nor a Python literal"
NOT_DICT = "not a dict"
NO_ASIN = "no asin"
ASIN_NOT_TEXT = "asin is not text"
BAD_CATEGORIES = "categories is not a list of text, or of lists of text"

TOO_LONG = "literal too long"

# Characters. Python's tree of a literal may take 800 bytes for one of its text, and real lines are
# of some 100,000 at the most.
LONGEST = 1 << 20
# Filters of warnings are one list for all threads.
_FILTERS_CHANGED = threading.Lock()

Item = tuple[str, str | None]
Paths = list[list[str] | str]


class _Usual(msgspec.Struct, gc=False):
    """A line that is JSON, as msgspec reads it."""

    asin: Annotated[str, msgspec.Meta(min_length=1)]
    categories: Paths | None = None
    category: Paths | None = None


_DECODER = msgspec.json.Decoder(_Usual)


def read_item(text: str) -> Item | str:
    """Read one meta line exactly: `(asin, category)`, or the reason why it cannot be read.

    The category is the last element of the last path (`categories[-1][-1]` in DIN's released
    preprocessing). A flat list, as `category` is in the 2018 release, is one path; it counts where
    there is no `categories`. None, null and nan are the same as no value, and an item has no
    category whose last path is empty. The asin may be an integer. Of a key that is there twice the
    last one counts, as in Python. A line of more than `LONGEST` characters is too much for it,
    unless it is plain JSON.
    """
    try:
        item = _DECODER.decode(text)
        return item.asin, _category(item.categories, item.category)
    except NOT_USUAL:
        pass
    except ValueError:
        return BAD_CATEGORIES
    fields = read_fields(text)
    if isinstance(fields, str):
        return fields
    asin = text_of_id(fields.get("asin"))
    if asin is None:
        return NO_ASIN if fields.get("asin") in (None, "") else ASIN_NOT_TEXT
    try:
        return asin, _category(fields.get("categories"), fields.get("category"))
    except ValueError:
        return BAD_CATEGORIES


def read_fields(text: str) -> dict[Any, Any] | str:
    """The dict that a line holds, or why it cannot be read."""
    if len(text) > LONGEST:
        return TOO_LONG
    try:
        value = decode(text)
    except ValueError:
        try:
            with _FILTERS_CHANGED, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # odd escapes in a string are no error
                tree = ast.parse(text.lstrip(" \t"), mode="eval")
            value = ast.literal_eval(_Names().visit(tree))
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return NOT_READ
    return value if isinstance(value, dict) else NOT_DICT


class _Names(ast.NodeTransformer):
    """Puts values where other languages' names, or those that Python prints, stand for them."""

    _VALUES: ClassVar = {"null": None, "nan": None, "true": True, "false": False, "inf": math.inf}

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(self._VALUES[node.id]) if node.id in self._VALUES else node


def _category(categories: Any, category: Any) -> str | None:
    """The last element of the last path."""
    paths = category if categories is None else categories
    if paths is None:
        return None
    if not isinstance(paths, list):
        raise ValueError(BAD_CATEGORIES)
    if all(map(is_text, paths)):
        return paths[-1] if paths else None
    if not all(isinstance(path, list) and all(map(is_text, path)) for path in paths):
        raise ValueError(BAD_CATEGORIES)
    return paths[-1][-1] if paths[-1] else None


def scan_items(lines: pl.Series, wanted: frozenset[str]) -> pl.DataFrame:
    """Read the meta lines that are in the grammar, at once.

    Args:
        lines: (lines,) strings, each ending in a newline.

    Returns:
        A row for each line that is wanted or unsure, in order: index (uint32, in `lines`), sure
        (bool), item and category (strings). What is not sure is for `read_item` to decide. A
        line without a row is a good one that is not wanted.
    """
    frame = lines.to_frame("text").with_row_index()
    frame = frame.with_columns(
        pl.col("text").str.contains(_ONE).alias("one"),
        pl.col("text").str.extract(_ASIN_FIRST).alias("item"),
    )
    # Few lines have no categories, so the second expression sees few lines.
    none = frame.filter(~pl.col("one")).filter(pl.col("text").str.contains(_NONE))["index"]
    ok = frame["one"].to_numpy(writable=True)
    ok[none.to_numpy()] = True
    late = ok & frame["item"].is_null().to_numpy()
    if late.any():
        asin = pl.when(_once("asin")).then(pl.col("text").str.extract(_ASIN))
        late_items = frame.filter(late).select(item=asin)["item"]
        frame = frame.with_columns(frame["item"].scatter(np.flatnonzero(late), late_items))
    # The set is built once a file; Polars' is_in would hash all that is wanted for every block.
    kept = np.fromiter((item in wanted for item in frame["item"].to_list()), np.bool_, len(ok))
    sure = ok & frame["item"].is_not_null().to_numpy()
    frame = frame.with_columns(sure=pl.Series(sure)).filter(~sure | kept)
    category = pl.when("one", _once("'categories': [")).then(
        pl.col("text").str.extract(_LAST_CATEGORY)
    )
    frame = frame.with_columns(category=category)
    unread = pl.col("sure") & pl.col("one") & pl.col("category").is_null()
    hidden = np.flatnonzero(frame.select(unread).to_series())
    if len(hidden):
        exact = frame[hidden]["text"].str.extract(_LAST_BY_KEYS)
        frame = frame.with_columns(frame["category"].scatter(hidden, exact))
    return frame.select(
        "index",
        "item",
        sure=pl.col("sure") & (~pl.col("one") | pl.col("category").is_not_null()),
        category=pl.col("category").str.head(-1).str.tail(-1),  # without its quotes
    )


def _once(word: str) -> pl.Expr:
    return pl.col("text").str.count_matches(word, literal=True) == 1


# The grammar. Quotes are \x27 and \x22 inside classes, so that these strings stay readable.
# No \ud800 to \udfff: Python takes them, but what has one cannot be stored.
_UNICODE = r"u(?:[0-9a-ce-fA-CE-F][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2})"
_ESCAPE = rf"\\(?:[\\\x27\x22abfnrtv]|x[0-9a-fA-F]{{2}}|{_UNICODE})"
_TEXT = rf"""(?:'(?:[^\x27\\\x00-\x1f]|{_ESCAPE})*'|"(?:[^\x22\\\x00-\x1f]|{_ESCAPE})*")"""
_NUMBER = r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,20})?(?:e[-+]?[0-9]{1,3})?"


def _list(element: str) -> str:
    return rf"\[(?:{element}(?:, {element})*)?\]"


_TEXTS = _list(_TEXT)
_ENTRY = f"{_TEXT}: (?:{_TEXT}|{_NUMBER}|{_TEXTS})"
_DICT = rf"\{{(?:{_ENTRY}(?:, {_ENTRY})*)?\}}"
_NAME = "(?:None|True|False|nan|null|true|false)"
# A key that can be neither asin nor categories, since it begins otherwise.
_OTHER = f"'[bd-zA-Z_][A-Za-z0-9_ ]*': (?:{_TEXT}|{_NUMBER}|{_NAME}|{_TEXTS}|{_DICT})"
_ASIN = "'asin': '([A-Za-z0-9_-]+)'"
_CATEGORIES = f"'categories': {_list(_TEXTS)}"
_BEFORE, _AFTER = f"(?:{_OTHER}, )*", rf"(?:, {_OTHER})*\}}\r?\n$"
_BETWEEN = f"{_ASIN}, {_BEFORE}{_CATEGORIES}|{_CATEGORIES}, {_BEFORE}{_ASIN}"
_ONE = rf"^\{{{_BEFORE}(?:{_BETWEEN}){_AFTER}"
_NONE = rf"^\{{{_BEFORE}{_ASIN}{_AFTER}"
_ASIN_FIRST = rf"^\{{{_ASIN}"
_PLAIN = r"(?:'[^\x27\\]*'|\x22[^\x22\\]*\x22)"
_LAST_CATEGORY = rf"'categories': \[(?:{_list(_PLAIN)}, )*\[(?:{_PLAIN}, )*({_PLAIN})\]\]"
# From the line's start, so that the key is found and not the word.
_FIRST_KEYS = rf"^\{{{_BEFORE}(?:{_ASIN.replace('(', '(?:')}, {_BEFORE})?"
_LAST_BY_KEYS = rf"{_FIRST_KEYS}'categories': \[(?:{_TEXTS}, )*\[(?:{_TEXT}, )*({_PLAIN})\]\]"
