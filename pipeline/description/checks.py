"""What has to hold between the keys of a description; nothing of the data is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from difflib import get_close_matches
from zoneinfo import ZoneInfo

from pipeline.description.language import ByColumn, ByDay, ByOrder, ByTime, Lookup, Spec, Table
from pipeline.description.toml import Source, read
from schemas.bounds import MOST_BEHAVIOURS
from schemas.checked import is_zone
from schemas.errors import UsageError
from schemas.shards import HISTORY_COLUMNS, TAKEN, session_prefix

USER = "user"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")
# Of columns that every row or history has.
_BEGINNINGS = ("target_", "in_")
_RESERVED = {name for name in TAKEN if not name.startswith(_BEGINNINGS)}
_RESERVED |= {"split", "is_target", "outside", "key", "target"}
_DURATION = re.compile(r"([0-9]{1,9}) ?([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_QUOTED = re.compile(r'"((?:[^"]|"")+)"')
_WORDS = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_BRACES = re.compile(r"\{([^{}]*)\}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def is_reserved(name: str) -> bool:
    """Whether a name is that of a column, or begins like those, that every row or history has."""
    return name in _RESERVED or name.startswith(_BEGINNINGS)


def seconds(told: str | int) -> int | None:
    """A duration such as 30m in seconds; None where it is none."""
    if isinstance(told, int):
        return told
    found = _DURATION.fullmatch(told)
    return int(found[1]) * _SECONDS[found[2]] if found else None


def moment(told: str | int, timezone: str | None) -> datetime | int | None:
    """A date or time with its zone, or a number; None where it is none, or lacks a zone."""
    if isinstance(told, int):
        return told
    try:
        found = datetime.fromisoformat(told)
    except ValueError:
        return None
    if found.tzinfo is None and timezone is not None:
        found = found.replace(tzinfo=ZoneInfo(timezone))
    return found if found.tzinfo is not None else None


def spec_of(source: Source) -> Spec:
    """What a description says, held to the language.

    Raises:
        UsageError: a key is unknown, or missing, or says what cannot be.
    """
    spec = read(source)
    _Check(spec, source).all()
    return spec


class _Check:
    """A description, and where its keys stand."""

    def __init__(self, spec: Spec, source: Source) -> None:
        self.spec, self.source = spec, source

    def all(self) -> None:
        """Every check, those first that others rely on."""
        spec = self.spec
        for name, connection in spec.connections.items():
            if not _VARIABLE.fullmatch(connection.url_env):
                self.source.refuse(
                    ("connections", name, "url_env"),
                    "This cannot be an environment variable.",
                    expected='the name of a variable, e.g. "ADS_DSN": the address is in it',
                    got="something else, which may be secret",
                )
        for at, one in spec.sources.items():
            self._whence(at, one)
            self._zone((*at, "time"), one.time.timezone if one.time else None)
        self._tables()
        self._names()
        self._lookups()
        self._histories()
        self._split()
        self._labels()
        self._sql()
        self._others()

    # Where the data are.

    def _whence(self, at: tuple[str, ...], one: Table | Lookup) -> None:
        ways = {
            "files": one.files,
            "connection": one.connection,
            **({"table": one.table} if isinstance(one, Lookup) else {}),
        }
        given = [name for name, value in ways.items() if value is not None]
        if len(given) != 1:
            self.source.refuse(
                (*at, *given[1:2]),
                f"It has to be said once where {at[-1]} comes from.",
                expected=f"one of {', '.join(ways)}",
                got=" and ".join(given) or "none of them",
            )
        if (one.connection is None) != (one.query is None):
            self.source.refuse(
                at,
                "A connection wants a query, and a query a connection.",
                expected="connection and query",
                got="connection" if one.connection else "query",
            )
        if one.connection is not None:
            self._known((*at, "connection"), one.connection, self.spec.connections, "a connection")
            if isinstance(one, Table) and one.row is None:
                self.source.refuse(
                    at,
                    "A query has no line numbers, so it needs a column of them.",
                    expected='row = "..."',
                    got="no row",
                )
            if isinstance(one, Lookup) and one.repeated == "first" and one.time is None:
                self.source.refuse(
                    (*at, "repeated"),
                    "The rows of a query have no order, so that none is the first of a key.",
                    expected='repeated = "refuse" or "equal"',
                    got="first",
                    do="have the query choose, e.g. with min(...) and group by",
                )
        for key in ("format", "reader") if one.files is None else ("row",):
            if getattr(one, key, None) is not None:
                self.source.refuse(
                    (*at, key),
                    f"Only {'queries' if one.files else 'files'} have a `{key}`.",
                    expected="query" if one.files else "files",
                    got=" and ".join(given),
                    do="leave it out",
                )
        if one.csv is not None and (one.files is None or one.format in ("jsonl", "parquet")):
            self.source.refuse(
                (*at, "csv"),
                "Only CSV and TSV files are told about by `csv`.",
                expected="files of CSV or TSV",
                got=one.format or "no files",
                do="leave it out",
            )
        for pattern in (one.files,) if isinstance(one.files, str) else one.files or ():
            for name in _BRACES.findall(pattern):
                self._known((*at, "files"), name, self.spec.parameters, "a parameter")

    def _zone(self, at: tuple[str, ...], zone: str | None) -> None:
        if zone is not None and not is_zone(zone):
            self.source.refuse(
                (*at, "timezone"),
                "This is no timezone.",
                expected='a name such as "UTC" or "Asia/Shanghai"',
                got=zone,
            )

    def _known(
        self, at: tuple[str, ...], name: str, names: Mapping[str, object], what: str
    ) -> None:
        if name in names:
            return
        near = get_close_matches(name, list(names), 1, 0.6)
        self.source.refuse(
            at,
            f"There is no {what.partition(' ')[2]} of this name.",
            expected=" or ".join(names) or f"{what}, of which there is none",
            got=name,
            do=f"did you mean `{near[0]}`?" if near else None,
        )

    def _tables(self) -> None:
        spec = self.spec
        self._known(("target", "table"), spec.target.table, spec.tables, "a table")
        used = {spec.target.table}
        for name, history in spec.histories.items():
            self._known(("histories", name, "table"), history.table, spec.tables, "a table")
            used.add(history.table)
        for name, lookup in spec.lookups.items():
            if lookup.table is not None:
                self._known(("lookups", name, "table"), lookup.table, spec.tables, "a table")
                used.add(lookup.table)
        for name, table in spec.tables.items():
            if name not in used:
                self.source.refuse(
                    ("tables", name),
                    "Nothing is made of a table.",
                    expected="a target, a history or a lookup of it",
                    got=name,
                    do="leave the table out",
                )
            if not (table.fields or (name == spec.target.table and table.features)):
                self.source.refuse(
                    ("tables", name),
                    "The events of a table need a field: what was done.",
                    expected='fields = { item = "..." }',
                    got="no fields",
                )
            for field, column in table.fields.items():
                if column == table.user:
                    self.source.refuse(
                        ("tables", name, "fields", field),
                        "A field is the user's own column.",
                        expected=f"another column than that of the user for {field}",
                        got=column,
                    )
            if name == spec.target.table:
                continue
            for key in ("features", "numbers", "lists", "label", "weight", "keep"):
                if getattr(table, key):
                    self.source.refuse(
                        ("tables", name, key),
                        f"Only the target's table has {key}: behaviours carry fields.",
                        expected=f"{key} of {spec.target.table}",
                        got=f"{key} of {name}",
                    )

    # Names.

    def _names(self) -> None:
        spec = self.spec
        table = spec.tables[spec.target.table]
        taken: dict[str, tuple[str, ...]] = {}
        for kind, names in (("tables", spec.tables), ("histories", spec.histories)):
            for name in names:
                self._plain((kind, name), name, reserved=kind == "histories")
        for name, one in spec.tables.items():
            for field in one.fields:
                self._plain(("tables", name, "fields", field), field)
        for name, lookup in spec.lookups.items():
            for field in lookup.fields:
                at: tuple[str, ...] = ("lookups", name, "fields", field)
                self._plain(at, field)
                self._take(taken, f"target_{field}", at)
        for field in table.fields:
            taken.setdefault(f"target_{field}", ("tables", spec.target.table, "fields", field))
        owners: list[tuple[tuple[str, ...], Table | Lookup]] = [
            (("tables", spec.target.table), table),
            *((("lookups", name), lookup) for name, lookup in spec.lookups.items()),
        ]
        fields = {*table.fields, *(f for one in spec.lookups.values() for f in one.fields)}
        for of, owner in owners:
            for kind in ("features", "numbers", "lists"):
                for name in getattr(owner, kind):
                    self._plain((*of, kind, name), name)
                    if name in fields and kind != "numbers":
                        self._twice((*of, kind, name), name, "a field and a feature of a target")
                    self._take(taken, name, (*of, kind, name))
                    if kind == "lists":
                        self._take(taken, f"{name}_length", (*of, kind, name))
        for name in table.keep:
            self._plain(("tables", spec.target.table, "keep"), name)
            self._take(taken, name, ("tables", spec.target.table, "keep"))
        for name, history in spec.histories.items():
            of_sessions = [*self._carried(history.table), "length"]
            for end in (*of_sessions, *HISTORY_COLUMNS):
                self._take(taken, f"{name}_{end}", ("histories", name))
            for end in of_sessions if history.sessions else ():
                column = f"{session_prefix(name)}_{end}"
                self._take(taken, column, ("histories", name, "sessions"))

    def _plain(self, at: tuple[str, ...], name: str, *, reserved: bool = True) -> None:
        if not _NAME.fullmatch(name):
            self.source.refuse(
                at,
                "This cannot be the name of a column.",
                expected="a letter, then letters, digits and underscores, at most 100",
                got=name,
                do="give it another name",
            )
        if reserved and is_reserved(name):
            self.source.refuse(
                at,
                "This name is reserved.",
                expected=f"none of {', '.join(sorted(_RESERVED))}; nothing that begins with "
                f"{' or '.join(_BEGINNINGS)}",
                got=name,
                do="give it another name",
            )

    def _take(self, taken: dict[str, tuple[str, ...]], name: str, at: tuple[str, ...]) -> None:
        if name in taken:
            self._twice(at, name, f"{'.'.join(taken[name])} and {'.'.join(at)}")
        taken[name] = at

    def _twice(self, at: tuple[str, ...], name: str, got: str) -> None:
        self.source.refuse(
            at,
            "Two things have one name.",
            expected="one column of a row for a name",
            got=f"{name}: {got}",
            do="give one of them another name",
        )

    def _carried(self, table: str) -> list[str]:
        """The fields of a table's behaviours, those that are looked up too."""
        own = list(self.spec.tables[table].fields)
        found = [*own]
        for key in own:
            if key in self.spec.lookups:
                found += [name for name in self.spec.lookups[key].fields if name not in found]
        return found

    def _of_target(self) -> list[str]:
        """The fields of a target, those that are looked up too, by a feature as well."""
        target = self.spec.tables[self.spec.target.table]
        found = self._carried(self.spec.target.table)
        for key in target.features:
            found += self.spec.lookups[key].fields if key in self.spec.lookups else []
        return found

    # Lookups and histories.

    def _lookups(self) -> None:
        spec = self.spec
        target = spec.tables[spec.target.table]
        keys = {USER, *target.fields, *target.features}
        keys |= {name for table in spec.tables.values() for name in table.fields}
        for name, one in spec.lookups.items():
            at = ("lookups", name)
            if name not in keys:
                near = get_close_matches(name, list(keys), 1, 0.6)
                self.source.refuse(
                    at,
                    "A lookup is of a field or feature of a table, or of user.",
                    expected=" or ".join(sorted(keys)),
                    got=name,
                    do=f"did you mean `{near[0]}`?" if near else None,
                )
            if not (one.fields or one.features or one.numbers or one.lists):
                self.source.refuse(
                    at,
                    "Nothing is looked up.",
                    expected="fields, features, numbers or lists",
                    got="none of them",
                    do="say what it gives, or leave the lookup out",
                )
            if name == USER and one.fields:
                self.source.refuse(
                    (*at, "fields"),
                    "Users have features: fields are of what they do.",
                    expected="features = { ... }",
                    got="fields",
                )
            if name in one.fields:
                self._twice((*at, "fields", name), name, "what is looked up, and by what")
            if one.where is not None and one.table is not None:
                self.source.refuse(
                    (*at, "where"),
                    "A lookup of a table has all of its events.",
                    expected=f"where in [tables.{one.table}], or files in place of the table",
                    got=one.where,
                )

    def _histories(self) -> None:
        spec = self.spec
        own = spec.target.table
        target = {*self._of_target()}
        for name, history in spec.histories.items():
            at, table = ("histories", name), spec.tables[history.table]
            if seconds(history.session_gap) is None:
                self._duration((*at, "session_gap"), history.session_gap)
            for key in ("within", "delay"):
                told = getattr(history, key)
                if told is not None and seconds(told) is None:
                    self._duration((*at, key), told)
            delay, within = seconds(history.delay or 0), seconds(history.within or 0)
            if history.within is not None and (delay or 0) > (within or 0):
                self.source.refuse(
                    (*at, "within"),
                    "A history begins before it ends.",
                    expected=f"within of the delay, {history.delay}, or more",
                    got=str(history.within),
                )
            known = {*target, *spec.tables[own].features}
            lacks = [one for one in self._carried(history.table) if one not in known]
            if lacks:
                self.source.refuse(
                    ("tables", history.table, "fields", lacks[0]),
                    "Behaviours have a field that targets lack, so none can be compared by it.",
                    expected=f"fields that targets have: {', '.join(sorted(target))}",
                    got=lacks[0],
                    do="leave it out, or look it up for targets",
                )
            if history.sessions and history.sessions[0] * history.sessions[1] > MOST_BEHAVIOURS:
                self.source.refuse(
                    (*at, "sessions"),
                    "There are too many behaviours in sessions.",
                    expected=f"at most {MOST_BEHAVIOURS} in all",
                    got=f"{history.sessions[0]} x {history.sessions[1]}",
                )
            if history.window != "order":
                continue
            if history.table != own or table.order is None or table.query is not None:
                self.source.refuse(
                    (*at, "window"),
                    "A history can end by order only in a table that the target shares, of files, "
                    "with a stated order.",
                    expected='window = "before"'
                    if history.table != own or table.query is not None
                    else f'order = "file", "hash" or "fields" in [tables.{own}]',
                    got=f"the target is of {own}, the history of {history.table}"
                    if history.table != own
                    else "a query"
                    if table.query is not None
                    else "no order",
                )

    def _duration(self, at: tuple[str, ...], told: object) -> None:
        self.source.refuse(
            at,
            "This is no duration.",
            expected='a number with its unit, e.g. "45s", "30m", "12h" or "30d", or seconds',
            got=str(told),
        )

    # Targets.

    def _split(self) -> None:
        split, at = self.spec.target.split, ("target", "split")
        if isinstance(split, ByOrder | ByColumn):
            return
        self._zone(at, split.timezone)
        if isinstance(split, ByDay):
            return
        assert isinstance(split, ByTime)
        ends = {name: getattr(split, name) for name in ("valid", "test")}
        found = {}
        for name, told in ends.items():
            if told is None:
                continue
            found[name] = moment(told, split.timezone)
            if found[name] is None:
                naive = moment(told, "UTC") is not None
                self.source.refuse(
                    (*at, name),
                    "A time without a zone may mean any of 24." if naive else "This is no time.",
                    expected="timezone, or a time that names its own"
                    if naive
                    else 'a date or time such as "2026-11-08" or "2026-11-08T12:00:00Z", or a '
                    "number in the table's unit",
                    got=str(told),
                    do='add timezone = "UTC" (--timezone UTC), or the one that days are of'
                    if naive
                    else None,
                )
        if "valid" in found:
            valid, test = found["valid"], found["test"]
            if isinstance(valid, int) != isinstance(test, int):
                self.source.refuse(
                    at,
                    "The two times of a split cannot be compared.",
                    expected="both dates or times, or both numbers",
                    got=f"valid {ends['valid']}, test {ends['test']}",
                )
            if not valid < test:  # type: ignore[operator]
                self.source.refuse(
                    at,
                    "Valid has to begin before test.",
                    expected="valid < test",
                    got=f"valid {ends['valid']}, test {ends['test']}",
                )

    def _labels(self) -> None:
        spec = self.spec
        name, drawn = spec.target.table, spec.target.negatives
        table = spec.tables[name]
        if drawn is None:
            if table.label is None:
                self.source.refuse(
                    ("target",),
                    "Every row would have the label 1, and nothing could be learned.",
                    expected="label in the target's table, or negatives in [target]",
                    got="neither",
                    do="add negatives = { per_positive = 1 }",
                )
            return
        at = ("target", "negatives")
        if table.label is not None:
            self.source.refuse(
                at,
                "Events that have labels get no negatives.",
                expected="label or negatives",
                got="both",
                do='leave one out; for the positives alone, where = "..." in [target]',
            )
        item = drawn_field(spec)
        if item is None:
            self.source.refuse(
                at,
                "It has to be said what is drawn.",
                expected=f"field = one of {', '.join(table.fields) or 'no fields'}",
                got="no field",
            )
        assert item is not None
        self._known((*at, "field"), item, table.fields, "a field")
        looked_up = spec.lookups[item].fields if item in spec.lookups else {}
        for other in table.fields:
            if other != item and other not in looked_up:
                self.source.refuse(
                    at,
                    f"A drawn {item} has no {other}: no lookup gives it one.",
                    expected=f'[lookups.{item}] with fields = {{ {other} = "..." }}',
                    got="none",
                    do=f'add it; with table = "{name}" it is learned from the events themselves',
                )
            by_other = spec.lookups.get(other) if other != item else None
            for kind in ("fields", "features", "numbers", "lists") if by_other else ():
                for lost in getattr(by_other, kind).keys() - looked_up.keys():
                    self.source.refuse(
                        ("lookups", other, kind, lost),
                        f"A drawn {item} would keep the {lost} of the target in whose place it is, "
                        "which tells the labels apart.",
                        expected=f"{lost} in [lookups.{item}]",
                        got=f"{lost} by {other}",
                        do=f"have the file of [lookups.{item}] say it of each {item}",
                    )

    # The rest.

    def _sql(self) -> None:
        """Have every condition parsed, whatever columns there are."""
        import polars as pl

        from pipeline.readers.conditions import Sql

        found: list[tuple[tuple[str, ...], str | None]] = [
            (("target", "where"), self.spec.target.where)
        ]
        found += [((*at, "where"), one.where) for at, one in self.spec.sources.items()]
        found += [(("histories", n, "where"), h.where) for n, h in self.spec.histories.items()]
        for at, told in found:
            if told is None:
                continue
            names = {name.replace('""', '"') for name in _QUOTED.findall(told)}
            try:
                pl.sql_expr(Sql.of(told, [*names, *_WORDS.findall(told)]).safe)
            except UsageError as error:
                expected = error.expected if isinstance(error.expected, str) else None
                self.source.refuse(at, error.what, expected, str(error.got or told))
            except Exception as error:  # of several kinds, none of them documented
                self.source.refuse(
                    at,
                    "The condition is not SQL.",
                    expected="SQL over the table's columns, e.g. \"kind = 'buy' and price > 0\"",
                    got=f"{told}: {str(error).splitlines()[0]}"[:300],
                )

    def _others(self) -> None:
        spec = self.spec
        if (group := spec.train.group_field) is not None:
            fields = dict.fromkeys(self._of_target())
            self._known(("train", "group_field"), group, fields, "a field")
        of = spec.sources.values()
        ids = {USER, *(n for one in of for n in (*one.fields, *one.features, *one.lists))}
        for name in spec.types:
            self._known(("types", name), name, dict.fromkeys(sorted(ids)), "a field")


def drawn_field(spec: Spec) -> str | None:
    """What negatives are of; None where it is not clear."""
    drawn = spec.target.negatives
    if drawn is None:
        return None
    fields = list(spec.tables[spec.target.table].fields)
    looked_up = [name for name in fields if name in spec.lookups]
    for found in (looked_up, fields):
        if drawn.field is None and len(found) == 1:
            return found[0]
    return drawn.field
