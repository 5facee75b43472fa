"""`manifest.json`: what a data set holds, how it was made, and the checksum of every shard.

It is written last, so a folder with a manifest is a finished data set.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import pyarrow as pa
from annotated_types import Ge, Le

from schemas.bounds import LAYOUTS, MOST_BEHAVIOURS, MOST_BINS
from schemas.checked import OPEN, STRICT, Count, Misfit, Whole, build, decode
from schemas.errors import ContractError, InputError, UsageError
from schemas.plain import meant
from schemas.shards import KEPT_TYPES, UNITS, Shape, schema_of

FORMAT = 2
NAME = "manifest.json"
_OTHERS = {
    "metrics.json": ("a run", "evaluate"),
    "last.pt": ("a run that is not finished", "evaluate"),
    "bundle.json": ("a bundle", "verify"),
}
"""What other folders of tinprep's hold, and the command that shows them."""
KEPT = "description.toml"
"""A description that a data set keeps, where nobody else does."""
KEEPS = "keeps"
"""The setting that says so."""
HOW = (
    *("raw", "out", "buckets", "threads", "memory", "force", "mirrors", KEEPS),
    *("engine", "master", "spark_conf"),
)
"""Settings that change how the work is done, never a row."""
SPLITS = ("train", "valid", "test")
NEW = "new"
"""The split of events that follow those that a data set was made of."""
WITH_NEW = (*SPLITS[:-1], NEW)
FOLDERS = (*SPLITS, NEW, "vocabulary", "lookups", "rejected", "events", "behaviours")
"""The folders that a data set may have, each of Parquet files."""
NOBODIES = "events/users.parquet"
"""The users whom the targets' table lacks, and their ids behind all others."""
WINDOWS = ("order", "before")
KINDS = ("id", "number", "list")
PADDING_ID = 0
UNKNOWN_ID = 1
FIRST_ID = 2
REPEATED_ITEM = "meta line of an item that had one"
REPEATED_AD = "ad_feature line of an ad that had one"
REPEATED_PROFILE = "user_profile line of a user that had one"
REPEATED = frozenset({REPEATED_ITEM, REPEATED_AD, REPEATED_PROFILE})
"""Lines that are counted as rejected and are in no table: what they say is known."""
WITHOUT_PROFILE = "impressions of users without a profile"
NEW_USERS = "users without an earlier event"
WITHOUT_META = "items without a meta line"
WITHOUT_CATEGORY = "items whose meta line has no {}"
_REFUSED = (
    "reviews",
    "meta",
    "targets",
    "raw_sample",
    "behavior_log",
    "ad_feature",
    "user_profile",
)
_UNLISTED = {
    f"{name}.parquet" for name in ("items", "ads", "profiles", *(f"rejected/{n}" for n in _REFUSED))
}
"""What a data set may have beside shards and vocabularies whose manifest does not list `tables`."""
_Ids = Annotated[int, Ge(0), Le(1 << 31)]  # of 32 bits
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_]{1,100}")
_OF_A_DATA_SET = re.compile(rf"(({'|'.join(FOLDERS)})/)?[^/\\\0]+\.parquet")


@dataclass(frozen=True)
class InputFile:
    """A raw file as it was read, or what a `query` gave.

    Of a file of events, `first_row` is the row in its table of its first line. Of a query, `file`
    names its table, `rows` says how many it gave, `bytes` how long their values are, and `sha256`
    is theirs, in whatever order a database gives them.
    """

    __pydantic_config__ = STRICT
    file: str
    bytes: Whole
    sha256: str
    first_row: Whole | None = None
    query: str | None = None
    rows: Whole | None = None

    def __str__(self) -> str:
        size = f"{self.bytes:,} bytes" if self.rows is None else f"{self.rows:,} rows"
        return f"{size}, sha256 {self.sha256[:12]}"


@dataclass(frozen=True)
class Bins:
    """Equal-frequency bins of the interval from behaviour to target.

    `edges_s` holds `count - 1` intervals, non-decreasing, in the data set's `time_unit` (the name
    is from when that was always the second); bin k is (edge k-1, edge k].
    `train_counts` holds how many behaviours stored in the train split, those of negatives' rows
    too, fall in bins 1..count.
    """

    __pydantic_config__ = STRICT
    count: Annotated[int, Ge(1), Le(MOST_BINS)]
    edges_s: list[Whole]
    train_counts: list[Count]


@dataclass(frozen=True)
class Negatives:
    """`each` negatives of a positive, drawn from values of `field`.

    `pool` is `all` values, or those seen by the end of `train`; `weight` says how often each is
    drawn; `exclude` what is not: what the user has `ever`, or also in events that count for nothing
    else (`unfiltered`); or what stands in the `history` as stored, and the target. What is `rare`
    may be drawn, and is unknown.
    """

    __pydantic_config__ = STRICT
    field: str
    each: Annotated[int, Ge(1)]
    exclude: str = "ever"
    pool: str = "all"
    weight: str = "uniform"
    rare: bool = False


@dataclass(frozen=True)
class Target:
    """What targets are: events of `table`, split by a rule (`by` order, day, time or column).

    With `negatives` each target is a positive, followed by its negatives; None: events have labels
    of their own. `where` says whether only some events of the table are what a target is; with
    `only_new` none is whose value of that column its user has touched before. Users and values have
    at least `k_core` events, and targets `min_history` behaviours. Where they are not `labelled`,
    labels are 0 and mean nothing.
    """

    __pydantic_config__ = STRICT
    table: str
    split: dict[str, Any]
    negatives: Negatives | None
    where: bool = False
    only_new: str | None = None
    k_core: Count = 0
    min_history: Count = 0
    labelled: bool = True


@dataclass(frozen=True)
class History:
    """The histories of one name: behaviours of `table` that carry `fields`.

    `window` says which: those strictly `before` the target's time, or those before it by `order`.
    `sessions` are DSIN's [M, K]; `lengths` are rows of each split by length 0 to `max_len`.
    `where` says whether only some events of the table are behaviours; `within` and `delay` how long
    before the target they are, at most and at least, in the unit of times.
    """

    __pydantic_config__ = STRICT
    table: str
    fields: list[str]
    max_len: Annotated[int, Ge(1), Le(MOST_BEHAVIOURS)]
    window: str
    session_gap: Whole
    sessions: list[Whole] | None
    bins: Bins
    lengths: dict[str, list[Count]]
    where: bool = False
    within: Count | None = None
    delay: Count = 0

    @property
    def by_time(self) -> bool:
        """Whether times say what it holds, so that it may be empty before any target."""
        return self.window == "before" or self.within is not None or self.delay > 0

    @property
    def shape(self) -> tuple[int, int] | None:
        """`sessions` as a pair."""
        return None if self.sessions is None else (self.sessions[0], self.sessions[1])


@dataclass(frozen=True)
class Feature:
    """Another column of a row: an `id` of a vocabulary, a `number`, or a `list` of ids.

    A list has at most `max_len` values, and a column `<name>_length` beside it.
    """

    __pydantic_config__ = STRICT
    kind: str
    vocabulary: str | None
    max_len: Annotated[int, Ge(1), Le(MOST_BEHAVIOURS)] | None = None


@dataclass(frozen=True)
class Lookup:
    """`lookups/<key>.parquet`: a row a known value of the key, with its columns.

    They are ids, numbers as they were read, or lists of ids, cut as those of rows are.

    `every` says whether every value that has an id has a row. `without` is what the share of what
    is not there is called, and `lacks` that of values whose line lacks a column, which is `{}`;
    `repeated` what lines of a key are called that had one: they are counted as rejected, but are in
    no table. `refuses` says whether events are refused whose value is not there. `timed` says
    whether a row holds from its `time` on, in the data set's `time_unit`: strictly before a time,
    the last row of the key holds at it.
    """

    __pydantic_config__ = STRICT
    fields: list[str]
    features: list[str]
    numbers: list[str]
    every: bool
    without: str
    lacks: str
    lists: list[str] = field(default_factory=list)
    repeated: str = ""
    refuses: bool = False
    timed: bool = False


@dataclass(frozen=True)
class Kept:
    """Events kept as they were read, `events/<table>-00000.parquet`, for new ones to go on from.

    `rows` says how many rows the raw files of each table have: the row of the next event. Events of
    other tables than the targets' count from the time `since` on. `description` is the sha256 of
    `description.toml`, by which new ones are read; none where no description says what was made.
    `columns` says of each table which of its files' columns were read, and how SQL sees those that
    it names: as `whole`, `number`, `text`, `truth` or `list`, or another type of Parquet's. It is
    empty where a fast reader, or an older version, does not say it.
    """

    __pydantic_config__ = STRICT
    rows: dict[str, Count]
    since: int
    description: str | None = None
    columns: dict[str, dict[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Continues:
    """The data set that new events follow, and whose vocabularies, edges and scales they have.

    `key` is that of its `config`; its users have `events` of the targets' table. Where targets were
    `asked` for, a user's first event may be one, too.
    """

    __pydantic_config__ = STRICT
    key: str
    events: Count
    asked: bool = False


@dataclass(frozen=True)
class DataFile:
    """One Parquet file of the data set; `path` is relative to the manifest, with '/'."""

    __pydantic_config__ = STRICT
    path: str
    rows: Count
    sha256: str


@dataclass(frozen=True)
class Step:
    """What a step took. `peak_rss_mb` is the process's peak so far, at the end of the step."""

    __pydantic_config__ = STRICT
    name: str
    seconds: float
    rows_in: Whole
    rows_out: Whole
    peak_rss_mb: Whole


@dataclass(frozen=True)
class Share:
    """So many of a whole."""

    __pydantic_config__ = STRICT
    count: Whole
    of: Whole

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.count / self.of if self.of else 0.0

    def __str__(self) -> str:
        return f"{self.count:,} of {self.of:,} ({self.share:.1%})"


def repeated(table: str, dropped: bool) -> str:
    """What the share of a table's records is called that repeat another one."""
    return f"repeated {table}{', dropped' if dropped else ''}"


def left_out(events: str, described: bool) -> str:
    """What the count of events is called that do not count, of a description in the language."""
    return f"{events} left out by where" if described else f"{events} of other kinds or times"


def late(table: str) -> str:
    """What the count of new events is called that are older than a kept one of their user."""
    return f"{table} older than a kept one of their user"


def without_history(target: str, tables: Iterable[str]) -> str | None:
    """What the share of targets is called all of whose histories are empty.

    Args:
        target: the targets' table.
        tables: of the histories that may be empty; of none there is no share.
    """
    names = list(dict.fromkeys(tables))
    if names == [target]:
        return f"targets of {target} with nothing in any history"
    told = " or ".join("earlier " * (name == target) + name for name in names)
    return f"{target} without {told}" if told else None


def touched_before(table: str) -> str:
    """What the share of a table's events is called that are no targets, as they are not new."""
    return f"{table} of what the user had touched before"


def without(rows: str, column: str) -> str:
    """What the share of rows is called that have no value of a column."""
    return f"{rows} without a {column}"


def out_of_scale(rows: str, number: str, scale: str) -> str:
    """What the share of rows is called whose number, on its scale, has no value."""
    what = "of 0 or less" if scale == "log" else "that 32 bits cannot hold"
    return f"{rows} with a {number} {what}"


def outside_core(table: str) -> str:
    """What the share of a table's events is called whose users or values have too few of them."""
    return f"{table} outside the k-core"


def short_history(table: str, least: int) -> str:
    """What the share of targets is called that are none, as too few behaviours are before them."""
    return f"{table} with fewer than {least} behaviours before them"


def unknown_targets(split: str, name: str) -> str:
    """What the share of a split's targets is called whose field or feature has no id."""
    return f"{split} targets of unknown {name}"


def unknown_behaviours(split: str, history: str, field: str) -> str:
    """What the share of the behaviours of a split's targets is called whose field has no id."""
    return f"{split} {history} behaviours of unknown {field}"


def in_history(split: str, label: int) -> str:
    """What the share of a split's rows is called whose target stands in their own history."""
    return f"{split} {('negatives', 'positives')[label]} in own history"


def not_in_train(split: str, field: str) -> str:
    """What the share of a split's distinct target ids is called that no train row holds."""
    return f"{split} {field} ids not in train"


@dataclass(frozen=True)
class Manifest:
    """The contents of `manifest.json`; see the module's text.

    `events` lists the tables of events and what the tables of their refused lines are called, that
    of the targets first; `fields` are what targets carry; `features` other columns of a row;
    `lookups` are by key; `known` lists the vocabularies whose unknown id stands in no row;
    `vocabulary_from` says whether `all` values have an id, or those that rows of `train` hold;
    `timezone` is that of days; `train` holds what training takes where it is not told otherwise.
    `counts` holds what else is worth knowing, e.g. rows of users without a profile; `shares` the
    same as parts of a whole, e.g. how many reviews repeat another one; `numbers` says of each float
    column how it was standardised; `tables` lists the files beside the shards: vocabularies, items
    or ads and profiles, what was refused; `digests` say what ids, bins, numbers and histories mean,
    see `schemas.digests`. They are empty where there is nothing to say, or where an older version
    did not say it. `time_unit` is that of every time, interval, gap and edge; `weight` says whether
    rows have a column `weight`, of their loss; `keep` names the columns that are passed through,
    with their types; `description` is what a data set was made from, where that is a description
    in the language; `own` says of each table of events which columns it has itself, which are
    those of no lookup; `kept` what is kept of events; `continues` the data set that new events
    follow: then the only split is `new`. Both are None where there is nothing of it.
    """

    __pydantic_config__ = OPEN
    format: int
    dataset: str
    synthetic: bool
    version: str
    config: dict[str, Any]
    inputs: list[InputFile]
    rows: dict[str, Count]
    events: dict[str, str]
    target: Target
    fields: list[str]
    features: dict[str, Feature]
    histories: dict[str, History]
    lookups: dict[str, Lookup]
    vocabulary: dict[str, _Ids]
    known: list[str]
    layout: str
    timezone: str
    train: dict[str, Any]
    rejected: dict[str, Count]
    notes: list[str]
    shards: list[DataFile]
    steps: list[Step] = field(default_factory=list)
    counts: dict[str, Count] = field(default_factory=dict)
    numbers: dict[str, dict[str, Any]] = field(default_factory=dict)
    tables: list[DataFile] = field(default_factory=list)
    vocabulary_from: str = "all"
    digests: dict[str, str] = field(default_factory=dict)
    shares: dict[str, Share] = field(default_factory=dict)
    time_unit: str = "s"
    weight: bool = False
    keep: dict[str, str] = field(default_factory=dict)
    description: dict[str, Any] = field(default_factory=dict)
    own: dict[str, list[str]] = field(default_factory=dict)
    kept: Kept | None = None
    continues: Continues | None = None

    def to_json(self) -> str:
        """The manifest as the text of its file."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    @property
    def history(self) -> History:
        """The only history, where there is one."""
        (only,) = self.histories.values()
        return only

    @property
    def each(self) -> int:
        """Rows of a target: its own, and those of its negatives."""
        return 1 + (self.target.negatives.each if self.target.negatives is not None else 0)

    @property
    def schema(self) -> pa.Schema:
        """The schema of its shards."""
        shapes = {
            name: Shape(tuple(one.fields), one.max_len, one.shape)
            for name, one in self.histories.items()
        }
        of = {kind: tuple(n for n, f in self.features.items() if f.kind == kind) for kind in KINDS}
        return schema_of(
            tuple(self.fields),
            shapes,
            self.layout,
            weight=self.weight,
            features=of["id"],
            numbers=of["number"],
            lists=self.lists,
            keep=self.keep,
        )

    @property
    def lists(self) -> dict[str, int]:
        """The multi-valued features, and the most values that one has."""
        return {name: one.max_len for name, one in self.features.items() if one.max_len is not None}

    @property
    def targets(self) -> int:
        """Rows over all splits."""
        return sum(self.rows.values())

    def shard_paths(self, out: Path, split: str) -> list[Path]:
        """The shard files of one split, in order."""
        return [out / s.path for s in self.shards if PurePosixPath(s.path).parts[0] == split]


def load(out: Path) -> Manifest:
    """Read the manifest of the data set in the folder `out`.

    Raises:
        InputError: there is no finished data set, or its manifest is no readable file.
        ContractError: the manifest is not one, or is of another format.
    """
    path = out / NAME
    try:
        raw = decode(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        above = out.absolute().parent
        within = out.name in SPLITS and (above / NAME).exists()
        other = next((of for name, of in _OTHERS.items() if (out / name).is_file()), None)
        near = meant(out.name, (one.parent.name for one in above.glob(f"*/{NAME}")))
        raise InputError(
            "There is no data set here.",
            where=path,
            expected="a finished data set (its manifest is written last)",
            got="a split of one" if within else other[0] if other else f"no such file{near}",
            do=f"give {above}, and perhaps `--split {out.name}`"
            if within
            else f"give a data set; see this one with `tinprep {other[1]} {out}`"
            if other
            else "make one, e.g. `tinprep amazon --out DIR`, or run the interrupted command again",
        ) from None
    except OSError as error:
        raise InputError(
            "The manifest cannot be read.",
            where=path,
            expected="a file",
            got=str(error.strerror),
            do="give the folder of a finished data set",
        ) from None
    except ValueError as error:  # of JSON, or of UTF-8
        raise ContractError(
            "The manifest cannot be read.", where=path, expected="JSON", got=str(error)
        ) from None
    return parse(raw, path)


def require_kept(out: Path, made: Manifest) -> Kept:
    """What a data set keeps of its events.

    Raises:
        UsageError: it does not.
    """
    if made.kept is None:
        raise UsageError(
            "The data set does not keep its events.",
            where=out,
            expected="a data set made with --keep-events",
            got="one without events/ and behaviours/",
            do="make it again with --keep-events: new histories need the earlier events",
        )
    return made.kept


def named(text: bytes) -> set[str] | None:
    """The files that a manifest of tinprep names, of whatever format; None for anything else.

    Args:
        text: what the file called `manifest.json` holds: other programs have one, too.
    """
    try:
        raw = decode(text.decode())
    except ValueError:
        return None
    if not _is_ours(raw):
        return None
    listed = [one for value in raw.values() if isinstance(value, list) for one in value]
    names = {str(one["path"]) for one in listed if isinstance(one, dict) and "path" in one}
    if "tables" not in raw:
        names |= {f"vocabulary/{name}.parquet" for name in raw["vocabulary"]} | _UNLISTED
    kept = {KEPT} if raw["config"].get(KEEPS) == KEPT else set()
    return {name for name in names if _OF_A_DATA_SET.fullmatch(name)} | {NAME} | kept


def _is_ours(raw: object) -> bool:
    """Whether decoded JSON has the keys of every format's manifest."""
    wanted = {"dataset": str, "version": str, "config": dict, "vocabulary": dict, "shards": list}
    return isinstance(raw, dict) and all(isinstance(raw.get(k), of) for k, of in wanted.items())


def _other_format(made: dict[str, Any], path: Path) -> ContractError:
    """What to do about a manifest that this version cannot read."""
    got = made.get("format", "none")
    if isinstance(got, int) and got > FORMAT:
        what = "The data set was made by a newer tinprep."
        do = f"install tinprep {made.get('version', '')} or newer to read it".replace("  ", " ")
    else:
        what = "The data set was made by an older tinprep."
        source, _, category = made["dataset"].partition("-")
        named = f"{source} --category {category}" if category else source
        do = (
            f"make it again with the options it was made with, and --force: "
            f"`tinprep {named} --out {path.parent} --force`"
        )
    return ContractError(what, where=path, expected=f"format {FORMAT}", got=f"format {got}", do=do)


def parse(raw: object, path: Path) -> Manifest:
    """Check and build a manifest from decoded JSON; `path` is for messages."""
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        if isinstance(raw, dict) and _is_ours(raw):
            raise _other_format(raw, path)
        raise ContractError(
            "This is no manifest of tinprep's.",
            where=path,
            expected="what tinprep writes last of a data set",
            got="something else of this name",
            do="give the folder of a data set",
        )
    try:
        made = build(Manifest, raw)
    except Misfit as error:
        require(path, False, error.at, error.expected, error.got)
        raise
    _check_sizes(made, path)
    _check_names(made, path)
    return made


def require(path: Path, holds: bool, key: str, expected: str, got: object) -> None:
    """Hold a key of the manifest to what it can be; `path` is for the message.

    Raises:
        ContractError: it does not hold.
    """
    if not holds:
        raise ContractError(
            f"The manifest declares what cannot be: {key[:200]}.",
            where=path,
            expected=expected,
            got=str(got)[:100],
            do="make the data set again",
        )


def _check_sizes(made: Manifest, path: Path) -> None:
    require(path, made.layout in LAYOUTS, "layout", " or ".join(LAYOUTS), ascii(made.layout))
    splits = {*SPLITS, NEW}
    require(path, made.rows.keys() <= splits, "rows", "rows of splits", ascii([*made.rows]))
    require(path, bool(made.histories), "histories", "one or more", "none")
    for of, one in made.histories.items():
        key = f"histories.{of}"
        require(path, one.window in WINDOWS, f"{key}.window", " or ".join(WINDOWS), one.window)
        shape = one.sessions or [1, 1]
        fits = len(shape) == 2 and min(shape) > 0 and shape[0] * shape[1] <= MOST_BEHAVIOURS
        require(path, fits, f"{key}.sessions", "[sessions, behaviours of each]", one.sessions)
        bins, sizes = one.bins, (len(one.bins.edges_s), len(one.bins.train_counts))
        require(
            path,
            sizes == (bins.count - 1, bins.count),
            f"{key}.bins",
            f"bins.count - 1 edges_s and bins.count train_counts, {bins.count} bins",
            f"{sizes[0]} edges_s and {sizes[1]} train_counts",
        )
        for split, rows in one.lengths.items():
            expected = f"rows of each length from 0 to max_len, {one.max_len}"
            name = f"{key}.lengths.{split}"
            require(path, len(rows) == one.max_len + 1, name, expected, f"{len(rows):,} numbers")
    for name, feature in made.features.items():
        fits = feature.kind in KINDS and (feature.kind == "number") == (feature.vocabulary is None)
        fits &= (feature.kind == "list") == (feature.max_len is not None)
        expected = "an id of a vocabulary, a number, or a list of ids with a max_len"
        require(path, fits, f"features.{name}", expected, feature)
    require(path, made.time_unit in UNITS, "time_unit", " or ".join(UNITS), ascii(made.time_unit))
    for name, kind in made.keep.items():
        require(path, kind in KEPT_TYPES, f"keep.{name}", " or ".join(KEPT_TYPES), ascii(kind))


def _check_names(manifest: Manifest, path: Path) -> None:
    """Refuse names that, as those of files, could lead out of the data set's folder."""
    histories = [name for one in manifest.histories.values() for name in one.fields]
    columns = (*manifest.fields, *manifest.features, *manifest.keep)
    names = (*columns, *manifest.histories, *histories)
    for name in (*names, *manifest.lookups, *manifest.vocabulary):
        if not _PLAIN_NAME.fullmatch(name):
            raise ContractError(
                "A field has a name that no file can have.",
                where=path,
                expected="letters, digits and underscores",
                got=f"{name!a}"[:100],
            )
    files = (*manifest.shards, *manifest.tables)
    twice = [name for name, times in Counter(file.path for file in files).items() if times > 1]
    if twice:
        raise ContractError(
            "The manifest lists a file twice.",
            where=path,
            expected="each file once",
            got=f"{twice[0]!a}"[:200],
        )
    folder = path.parent.resolve()
    for file in files:
        pure = PurePosixPath(file.path)
        stays = bool(pure.parts) and not pure.is_absolute() and ".." not in pure.parts
        stays = stays and file.path.isprintable() and "\\" not in file.path
        # Links count as what they lead to.
        if not (stays and _resolved(folder / pure, path).is_relative_to(folder)):
            raise ContractError(
                "A file's path leaves the data set.",
                where=path,
                expected="a path below the manifest's folder, also where links lead",
                got=f"{file.path!a}"[:200],
            )


def _resolved(file: Path, path: Path) -> Path:
    """Where `file` lies once its links are followed."""
    try:
        return file.resolve()
    except (OSError, RuntimeError) as error:  # a name that is too long; links in a circle
        raise ContractError(
            "A file's path leads nowhere.", where=path, expected="a file", got=str(error)[:200]
        ) from None
