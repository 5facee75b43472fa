"""The language of descriptions: what may stand in the TOML file of a data set, key by key.

Each key is documented here once; the JSON Schema and the pages on the language are made from it.
A description knows nothing of files: `pipeline.description.binding` brings the two together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import ConfigDict, Field

from schemas.bounds import MAX_LEN, MOST_BEHAVIOURS, MOST_BINS

Text = Annotated[str, MinLen(1)]
Seconds = Annotated[int, Ge(0), Le(1 << 40)]
Format = Literal["csv", "tsv", "jsonl", "parquet"]
Length = Annotated[int, Ge(1), Le(MOST_BEHAVIOURS)]
Share = Annotated[float, Ge(0), Le(1)]
_Most = Annotated[int, Ge(1), Lt(1 << 31)]


@dataclass(frozen=True)
class Connection:
    """A database, of which queries are asked."""

    url_env: Text
    """The environment variable that holds its address: postgresql://user:password@host/name,
    duckdb:///FILE or sqlite:///FILE."""


@dataclass(frozen=True)
class Csv:
    """How a CSV or TSV file is written."""

    columns: Annotated[tuple[Text, ...], MinLen(1)] | None = None
    """The names of the columns, for a file without a header. Default: the first line has them."""
    delimiter: Annotated[str, MinLen(1)] | None = None
    """What stands between columns. Default: a comma, in TSV a tab."""
    quote: Annotated[str, MaxLen(1)] = '"'
    """What stands around text that holds a delimiter; "" for none."""
    nulls: tuple[str, ...] | None = None
    """Spellings of a missing value, besides nothing. Default: NULL, null, NaN, NA and the like."""
    encoding: Text = "utf-8"
    """utf-8, latin-1, or another that Python knows."""


@dataclass(frozen=True)
class Reader:
    """A fast reader with options, which are for the presets alone."""

    name: Text
    """Of the reader."""
    options: dict[str, int | float | str] = field(default_factory=dict)
    """What it can be told besides."""


@dataclass(frozen=True)
class Time:
    """When something was. A naive time needs a timezone."""

    column: Text
    """A column, or SQL over columns."""
    unit: Literal["s", "ms", "us"] | None = None
    """Of numbers since 1970: seconds, milli- or microseconds. Text and timestamps need none."""
    timezone: Text | None = None
    """Of text or timestamps that name none themselves, e.g. "UTC" or "Asia/Shanghai"."""


@dataclass(frozen=True)
class List:
    """A feature of several values, e.g. genres."""

    column: Text
    """A column, or SQL over columns: a list, or text to be cut."""
    max_len: Length
    """Values kept, the first."""
    separator: Annotated[str, MinLen(1)] | None = None
    """What stands between the values where the column is text; none of lists in brackets, such as
    ["a", "b"]."""


@dataclass(frozen=True)
class Number:
    """A feature that is a number. A missing one becomes the mean."""

    column: Text
    """A column, or SQL over columns."""
    scale: Literal["log", "standard", "none"] = "standard"
    """Over the rows of train: "standard" (mean 0, deviation 1), "log" (the same of logarithms), or
    "none" (as it is)."""


@dataclass(frozen=True)
class Table:
    """A table of events: who did what, and when."""

    user: Text
    """The column of the user. Here and below: a column, or SQL over columns."""
    time: Time
    """When."""
    files: Text | Annotated[tuple[Text, ...], MinLen(1)] | None = None
    """A file, a folder, a glob or a list of these, below the description's folder or --raw. CSV,
    TSV, JSON lines or Parquet; gzip or zstd."""
    format: Format | None = None
    """Of the files. Default: by the end of their names."""
    csv: Csv | None = None
    """How CSV or TSV files are written."""
    reader: Text | Reader | None = None
    """A fast reader of its own; it reads the same rows."""
    connection: Text | None = None
    """In place of files: the database that the events are in, of [connections]."""
    query: Text | None = None
    """The SELECT that gives the events."""
    row: Text | None = None
    """The column that numbers the events of a query, which have no lines: whole numbers from 0,
    each once."""
    where: Text | None = None
    """Which events count: SQL over the table's columns."""
    fields: dict[str, Text] = field(default_factory=dict)
    """What was done: field = column. A field's name is its vocabulary and its embedding table."""
    features: dict[str, Text] = field(default_factory=dict)
    """Other ids that targets have, e.g. where something was shown: name = column."""
    numbers: dict[str, Number] = field(default_factory=dict)
    """Numbers that targets have."""
    lists: dict[str, List] = field(default_factory=dict)
    """Features of several values that targets have."""
    label: Text | None = None
    """0 or 1 of an event: a column, or SQL such as "seconds > 10"."""
    weight: Text | None = None
    """What a row counts in the loss."""
    keep: tuple[Text, ...] = ()
    """Columns that go to the shards unchanged, e.g. a request's id."""
    order: Literal["file", "hash", "fields"] | None = None
    """What orders a user's events of one time: the lines ("file", the default), a seeded hash of
    them, or the fields' values."""
    duplicates: Literal["keep", "drop"] = "keep"
    """Events of one user, time and fields: keep all, or drop all but the first; of both labels, but
    the first with 1."""


@dataclass(frozen=True)
class Lookup:
    """What is known of the values of a field or feature, or of users: [lookups.NAME] is of NAME."""

    key: Text
    """The column of the values that are looked up."""
    files: Text | Annotated[tuple[Text, ...], MinLen(1)] | None = None
    """As of a table."""
    format: Format | None = None
    """As of a table."""
    csv: Csv | None = None
    """As of a table."""
    reader: Text | Reader | None = None
    """As of a table."""
    connection: Text | None = None
    """As of a table."""
    query: Text | None = None
    """As of a table. Its rows need no numbers."""
    table: Text | None = None
    """In place of files: a table of events, whose rows tell it."""
    where: Text | None = None
    """Which lines count: SQL over the files' columns."""
    time: Time | None = None
    """From when a line holds. A key may then have many lines: what holds for a target, or for a
    behaviour, is the latest line strictly before its time."""
    repeated: Literal["refuse", "first", "equal"] = "refuse"
    """Of a key, or a key and time, with several lines: refuse, the first one counts, or they have
    to be equal."""
    fields: dict[str, Text] = field(default_factory=dict)
    """What targets, negatives and behaviours have by it: field = column. An event's own column
    wins."""
    features: dict[str, Text] = field(default_factory=dict)
    """Other ids that targets have by it: name = column."""
    numbers: dict[str, Number] = field(default_factory=dict)
    """Numbers that targets have by it."""
    lists: dict[str, List] = field(default_factory=dict)
    """Features of several values that targets have by it."""
    missing: Literal["unknown", "refuse"] = "unknown"
    """Of a target whose value has no line, or none before it: what is looked up is unknown, or the
    event is refused."""
    max_missing: Share | None = None
    """Share of targets that may lack a line. Default: any."""


@dataclass(frozen=True)
class ByOrder:
    """Leave one out: a user's last event is test, the one before valid, the first no target."""

    by: Literal["order"]
    """How to split."""
    valid: bool = True
    """false: the one before the last is train."""


@dataclass(frozen=True)
class ByDay:
    """The last day is test, the one before valid."""

    by: Literal["day"]
    """How to split."""
    timezone: Text
    """Of the days."""


@dataclass(frozen=True)
class ByTime:
    """Valid begins at one time, test at another."""

    by: Literal["time"]
    """How to split."""
    test: int | Text
    """When test begins: a date or time, e.g. "2026-11-08", or a number in the table's unit."""
    valid: int | Text | None = None
    """When valid begins. Default: there is no valid."""
    timezone: Text | None = None
    """Of dates and times."""


@dataclass(frozen=True)
class ByColumn:
    """A column says it."""

    by: Literal["column"]
    """How to split."""
    column: Text
    """A column of the target's table, or SQL: train, valid or test."""


@dataclass(frozen=True)
class Negatives:
    """Random negatives of each positive."""

    per_positive: Annotated[int, Ge(1), Le(1_000)] = 1
    """How many."""
    field: Text | None = None
    """What is drawn. Default: the only field of the target's table that others are looked up by, or
    its only field."""
    exclude: Literal["ever", "unfiltered", "history"] = "ever"
    """What is never drawn: what the user has in any event of the target's table, that table before
    its `where`, or the stored history and the target."""
    pool: Literal["train", "all"] = "train"
    """What is drawn from: values that events have by the end of train, or all."""
    weight: Literal["uniform", "popularity"] = "uniform"
    """Each as likely, or as often as it occurs in train."""


@dataclass(frozen=True)
class Target:
    """What a row is about."""

    table: Text
    """The table whose events are targets."""
    split: Annotated[ByOrder | ByDay | ByTime | ByColumn, Field(discriminator="by")]
    """Which rows are train, valid and test."""
    where: Text | None = None
    """Which events are targets: SQL over the table's columns."""
    only_new: bool = False
    """Whether an event is no target if its user has an earlier one of the same first field, e.g.
    of the item: a target's or not."""
    negatives: Negatives | None = None
    """Random negatives, where events have no labels."""


@dataclass(frozen=True)
class History:
    """What a user did before a target."""

    table: Text
    """The table of its events."""
    where: Text | None = None
    """Which of them: SQL over the table's columns."""
    max_len: Length = MAX_LEN
    """Events kept, the latest."""
    window: Literal["before", "order"] = "before"
    """Where it ends: strictly before the target's time; or at the target in the order of the table
    that both are of."""
    within: Text | Seconds | None = None
    """How long before the target it begins: only events of at most so long before, e.g. "30d"."""
    delay: Text | Seconds | None = None
    """What serving does not see yet: only events of at least so long before, e.g. "1h"."""
    bins: Annotated[int, Ge(1), Le(MOST_BINS)] | None = None
    """Its own interval bins. Default: those of the description."""
    session_gap: Text | Seconds = "30m"
    """A longer silence begins a new session, e.g. "30m" or "1d"."""
    sessions: tuple[_Most, _Most] | None = None
    """[M, K]: columns of the latest M sessions with their latest K events, for DSIN."""


@dataclass(frozen=True)
class Vocabulary:
    """Which values get an id."""

    from_: Annotated[Literal["train", "all"], Field(alias="from")] = "train"
    """Values of train, histories included, or of all rows; others are unknown."""
    min_count: Annotated[int, Ge(1), Le(1 << 40)] = 1
    """Rarer values are unknown."""


@dataclass(frozen=True)
class Filters:
    """Which events are left out, before anything is counted."""

    k_core: Annotated[int, Ge(0), Lt(1 << 40)] = 0
    """Only users and values with so many events each, over and over until it holds."""
    min_history: Annotated[int, Ge(0), Le(MOST_BEHAVIOURS)] = 0
    """Only targets with so many behaviours before them."""


@dataclass(frozen=True)
class Train:
    """What `tinprep train` takes where it is not told otherwise."""

    optimizer: Literal["adam", "adagrad"] | None = None
    """Default: adam."""
    lr: Annotated[float, Gt(0)] | None = None
    """Learning rate. Default: the optimizer's."""
    batch_size: _Most | None = None
    """Rows of a step."""
    epochs: _Most | None = None
    """Passes over train."""
    hidden: Annotated[tuple[_Most, ...], MinLen(1)] | None = None
    """Widths of the head's hidden layers."""
    group_field: Text | None = None
    """The field that groups targets, for baselines and correlation. Default: none."""


@dataclass(frozen=True)
class Spec:
    """A description of a data set."""

    __pydantic_config__: ClassVar[ConfigDict] = {
        "strict": True,
        "allow_inf_nan": False,
        "extra": "forbid",
        "use_attribute_docstrings": True,
    }  # and of all that stands within it
    tables: Annotated[dict[str, Table], MinLen(1)]
    """The tables of events, by name."""
    target: Target
    """Which events are targets: what a row is about."""
    histories: Annotated[dict[str, History], MinLen(1)]
    """What users did before, by name; the name begins the names of columns."""
    lookups: dict[str, Lookup] = field(default_factory=dict)
    """What is known of values, by field or feature, or of "user"."""
    name: Text | None = None
    """What the data set is called. Default: the file's name."""
    parameters: dict[str, Text] = field(default_factory=dict)
    """What stands in {braces} in the names of files."""
    types: dict[str, Literal["whole", "text"]] = field(default_factory=dict)
    """Of ids, by field: whole numbers (007 is 7), or text (they differ). Default: whole where every
    value is one."""
    connections: dict[str, Connection] = field(default_factory=dict)
    """Databases, by name."""
    vocabulary: Vocabulary = Vocabulary()
    """Which values get an id of their own."""
    filters: Filters = Filters()
    """Which events are left out."""
    train: Train = Train()
    """Defaults of training."""
    bins: Annotated[int, Ge(1), Le(MOST_BINS)] = 10
    """Equal-frequency bins of the interval from a behaviour to its target."""
    layout: Literal["padded", "ragged"] | None = None
    """Lists of a fixed size, or of their own. Default: padded; ragged with several histories."""
    seed: Annotated[int, Ge(0), Lt(1 << 63)] = 1234
    """Of negatives and of the order by hash."""

    @property
    def sources(self) -> dict[tuple[str, str], Table | Lookup]:
        """The tables and the lookups, by their kind and name."""
        tables = {("tables", name): table for name, table in self.tables.items()}
        return tables | {("lookups", name): lookup for name, lookup in self.lookups.items()}
