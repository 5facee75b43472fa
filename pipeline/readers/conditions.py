"""SQL over the columns of one table, a row at a time: conditions, and columns that are computed.

Polars evaluates it. What it would also do is kept out here: a condition sees the columns of its own
row and nothing else, no other row, no file, no clock. So it says the same whatever the blocks are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import polars as pl
from polars.exceptions import PolarsError

from pipeline.readers.values import EXACT
from schemas.errors import InputError, UsageError
from schemas.plain import meant, quoted


class Unfit(UsageError):
    """An expression does not fit the types of its columns.

    Attributes:
        name: of the expression.
    """

    name: str


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FUNCTIONS = _words(
    "abs ceil ceiling floor round sign sqrt ln log2 log10 exp pow power mod greatest least "
    "coalesce ifnull nullif if lower upper initcap length char_length octet_length concat "
    "concat_ws left right substr substring strpos position starts_with ends_with replace reverse "
    "trim ltrim rtrim lpad rpad split_part regexp_like regexp_replace cast try_cast extract "
    "date_part year month day strftime array_contains array_length"
)
"""What may be called: each looks at one row alone, and always says the same."""

WORDS = _words(
    "and or not in is null true false like ilike rlike regexp between when then else end case as "
    "from for distinct at time zone year month day hour minute second quarter week dow doy epoch "
    "date timestamp interval int integer bigint smallint tinyint float real double precision "
    "decimal numeric varchar text string boolean bool both leading trailing"
)
"""What may be a part of an expression besides."""
_BEFORE_TEXT = frozenset({"date", "timestamp", "interval"})
_TEXT_TYPES = frozenset({"varchar", "text", "string"})
_JOINING = frozenset({"concat", "concat_ws"})
_CHOOSING = frozenset({"coalesce", "ifnull", "if"})
_BEFORE_VALUE = frozenset({"(", ",", "||", "then", "else", ""})
_AFTER_VALUE = frozenset({")", ",", "||", "as", "::", "when", "else", "end", ""})
_BEFORE_TYPES = frozenset({"as", "::", "at", "time"})
_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<text>'(?:[^']|'')*')
    |(?P<quoted>"(?:[^"]|"")*")
    |(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
    |(?P<word>[^\W\d]\w*(?:\.[^\W\d]\w*)*)
    |(?P<sign>::|\|\||//|<=|>=|<>|!=|==|!?~\*?|[-+*/%()<>=,&|\[\]])""",
    re.VERBOSE,
)
_SHOWN = 60


@dataclass(frozen=True)
class Sql:
    """An expression, checked.

    Attributes:
        text: as the person wrote it.
        columns: the file's columns that it names, each once, in the order they are first named.
        safe: the same with each column in quotes, and of those that text is made of, what `written`
            calls their text.
        written: the name of a column's text, and the column.
    """

    text: str
    columns: tuple[str, ...]
    safe: str
    written: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, text: str, names: Sequence[str], where: object = None) -> Sql:
        """Check an expression.

        Args:
            text: SQL, as `kind = 'buy' and price > 10`. A name in double quotes is always a
                column; without them dots may stand in it, as in `user.id`.
            where: where the text stands, for errors.

        Raises:
            UsageError: it names no such column, calls what it may not, or is no expression.
        """
        return _Parser(text, names, where).parsed()


def evaluated(frame: pl.DataFrame, of: Mapping[str, Sql]) -> pl.DataFrame:
    """Columns by expressions over the columns of `frame`.

    A whole number is written without a fraction where text is made of a column, whatever a file has
    it in: 7 of a CSV file is a float here, as a later line may say 7.5.

    Raises:
        InputError: an expression cannot be evaluated for some row, as a strict cast.
    """
    try:
        return _evaluated(frame, of)
    except PolarsError as error:
        raise InputError(
            "A condition cannot be evaluated for some row.",
            where="; ".join(sql.text for sql in of.values()),
            got=_first_line(error),
            do="try_cast gives null where cast fails",
        ) from None


def types_of(schema: Mapping[str, Any], of: Mapping[str, Sql]) -> dict[str, pl.DataType]:
    """The types that expressions have over columns of these types; no row is looked at.

    Raises:
        Unfit: an expression does not fit its columns, as text that is held to a number.
    """
    empty = pl.DataFrame(schema=dict(schema))
    found = {}
    for name, sql in of.items():
        try:
            found[name] = _evaluated(empty, {name: sql}).schema[name]
        except PolarsError as error:
            columns = ", ".join(f"{name} is {_plain(empty.schema[name])}" for name in sql.columns)
            unfit = Unfit(
                "A condition does not fit its columns.",
                where=f"{name}: {sql.text}",
                expected=columns or None,
                got=_first_line(error),
            )
            unfit.name = name
            raise unfit from None
    return found


def may_name(text: str) -> list[str]:
    """The words of an expression that can be nothing but columns, whatever columns there are.

    Raises:
        UsageError: it cannot be read.
    """
    tokens = [*_Parser(text, (), None).tokens(), ("", "")]
    found = [token[1:-1].replace('""', '"') for kind, token in tokens if kind == "quoted"]
    for (kind, token), (_, after) in pairwise(tokens):
        if kind == "word" and after != "(" and token.lower() not in WORDS:
            found.append(token)
    return list(dict.fromkeys(found))


def is_truth(kind: pl.DataType) -> bool:
    """Whether a type is that of a condition: true, false, or always null."""
    return kind in (pl.Boolean, pl.Null)


def _evaluated(frame: pl.DataFrame, of: Mapping[str, Sql]) -> pl.DataFrame:
    texts = dict(pair for sql in of.values() for pair in sql.written)
    frame = frame.with_columns(_written(frame[column]).alias(n) for n, column in texts.items())
    wanted = ", ".join(f"({sql.safe}) AS {quoted(name)}" for name, sql in of.items())
    # No frame of the caller's, and no file, has a name here: only `rows` has.
    context = pl.SQLContext(register_globals=False, rows=frame.lazy())
    return context.execute(f"SELECT {wanted} FROM rows").collect()  # noqa: S608


def _written(series: pl.Series) -> pl.Series:
    """A column as text is made of it: of floats their text, without the fraction of whole ones."""
    if series.dtype != pl.Float64:
        return series
    whole = (series == series.floor()) & (series.abs() <= EXACT)
    digits = series.cast(pl.Int64, strict=False).cast(pl.String)
    return digits.zip_with(whole.fill_null(value=False), series.cast(pl.String))


class _Parser:
    """Tells the words of an expression apart, and refuses what is not for it."""

    def __init__(self, text: str, names: Sequence[str], where: object) -> None:
        self.text, self.names, self.where = text, list(names), where
        self.known = set(names)

    def parsed(self) -> Sql:
        tokens = list(self.tokens())
        if not tokens:
            raise self._error("A condition is empty.", expected="SQL over the table's columns")
        columns: list[str] = []
        safe: list[str] = []
        written: dict[str, str] = {}
        texts = self._texts(tokens)
        for at, (kind, token) in enumerate(tokens):
            before = tokens[at - 1][1].lower() if at else ""
            after = tokens[at + 1] if at + 1 < len(tokens) else ("", "")
            if kind == "quoted":
                columns.append(self._column(token[1:-1].replace('""', '"')))
            elif kind == "word" and not self._is_sql(before, token, after):
                columns.append(self._column(token))
            else:
                safe.append(token)
                continue
            name = columns[-1]
            if at in texts:
                name = self._text_of(name)
                written[name] = columns[-1]
            safe.append(quoted(name))
        found = Sql(self.text, tuple(dict.fromkeys(columns)), " ".join(safe), (*written.items(),))
        if not found.columns:
            raise self._error(
                "A condition names no column.", expected=_listed(self.names), got=self.text
            )
        self._check(found)
        return found

    def _texts(self, tokens: Sequence[tuple[str, str]]) -> set[int]:
        """Where values stand that are made text just as they are: of a cast, or beside other text.

        A number that comes of another, as in `floor(a)`, is written as SQL writes it.
        """
        found: set[int] = set()
        # One before and one behind, so that words[k + 1] is that of the k-th token.
        words = ["", *(token.lower() for _, token in tokens), ""]
        within: list[int] = []  # the brackets around a token
        values: dict[int, list[int]] = {}  # bracket -> the values that stand there alone
        texts: set[int] = set()  # brackets that text stands in alone, as a value
        for at, (kind, _) in enumerate(tokens):
            before, word, after = words[at : at + 3]
            if word == ")" and within:
                within.pop()
            bracket = within[-1] if within else -1
            alone = before in _BEFORE_VALUE and after in _AFTER_VALUE
            if kind == "text":
                if alone and before != "||":
                    texts.add(bracket)
            elif alone and kind in ("word", "quoted"):
                values.setdefault(bracket, []).append(at)
                of_type = words[at + 3] if after in ("as", "::") and at + 3 < len(words) else ""
                called = words[bracket] if bracket >= 0 else ""
                if "||" in (before, after) or called in _JOINING or of_type in _TEXT_TYPES:
                    found.add(at)
            if word == "(":
                within.append(at)
        for bracket in texts:
            cases = {at for at in values.get(bracket, ()) if words[at] in ("then", "else")}
            chosen = bracket >= 0 and words[bracket] in _CHOOSING
            found |= {*values.get(bracket, ())} if chosen else cases
        return found

    def _text_of(self, column: str) -> str:
        """What a column's text is called, which no column is."""
        name = f"{column} as text"
        while name in self.known:
            name += " "
        return name

    def tokens(self) -> Iterator[tuple[str, str]]:
        """Each part of the text but white space: its kind, and itself."""
        at = 0
        while at < len(self.text):
            match = None if self.text.startswith(("--", "/*"), at) else _TOKEN.match(self.text, at)
            if match is None:
                raise self._error(
                    "A condition cannot be read.",
                    expected="SQL without comments and semicolons: text in 'single quotes', a "
                    'column with odd characters in "double quotes"',
                    got=f"{self.text[at : at + _SHOWN]!r} at character {at + 1}",
                )
            at = match.end()
            if match.lastgroup != "space":
                yield str(match.lastgroup), match.group()

    def _is_sql(self, before: str, word: str, after: tuple[str, str]) -> bool:
        """Whether a word belongs to SQL, and is no column."""
        lower = word.lower()
        if after == ("sign", "(") and not (lower in WORDS and lower not in FUNCTIONS):
            if lower in FUNCTIONS:
                return True
            raise self._error(
                f"A condition may not call {word}().",
                expected="functions of one row alone: " + ", ".join(sorted(FUNCTIONS)),
                got=f"{word}(" + meant(lower, FUNCTIONS),
            )
        if word in self.known:
            # A column may be called as a word of SQL is: `timestamp > 5`, but `date '2026-01-01'`.
            typed = lower in _BEFORE_TEXT and after[0] == "text"
            named = before in _BEFORE_TYPES or after[1].lower() in ("from", "zone")
            return lower in _ALWAYS_SQL or typed or (named and lower in WORDS)
        return lower in WORDS

    def _column(self, name: str) -> str:
        if name in self.known:
            return name
        raise self._error(
            f"A condition names a column that is not there: {name}.",
            expected=_listed(self.names),
            got=name + meant(name, self.names),
        )

    def _check(self, found: Sql) -> None:
        """Refuse what is more, or less, than one expression."""
        depth = 0
        for kind, token in self.tokens():
            if kind == "sign":
                depth += (token == "(") - (token == ")")  # noqa: S105
            if depth < 0 or (kind == "sign" and token == "," and not depth):  # noqa: S105
                break
        else:
            if not depth:
                return
        raise self._error("A condition is not one expression.", got=found.text)

    def _error(self, what: str, expected: str | None = None, got: str | None = None) -> UsageError:
        where = f"{self.where}: {self.text}" if self.where is not None else self.text
        return UsageError(what, where=where, expected=expected, got=got)


# Words of SQL that no column without quotes can be.
_ALWAYS_SQL = _words(
    "and or not in is null true false like ilike rlike regexp between when then else end case as "
    "from for distinct"
)


def _listed(names: Sequence[str]) -> str:
    return f"one of the columns {', '.join(names)}"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300]


def _plain(kind: Any) -> str:
    if kind == pl.String:
        return "text"
    return "a number" if kind.is_numeric() else str(kind).lower()
