"""A data set by its description: a person's own logs, or a preset of the language by its name.

No library is loaded but for what is asked of a description.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import Config
from pipeline.record import WORK
from schemas.errors import InputError, UsageError
from schemas.options import PAIRS, check, option
from schemas.plain import meant

if TYPE_CHECKING:
    from pipeline.description import Description
    from pipeline.description.language import Spec
    from pipeline.description.toml import Source
    from pipeline.readers.query import Query

# Not of `pipeline.description`: that would load it, and Polars with it.
_PRESETS = files("pipeline") / "description" / "presets"
_ENDING = ".toml"
_SAYS = "Default: what the description says."
_BRACES = re.compile(r"\{([^{}]*)\}")
# Of `Config` what a description says in its place.
_SAID = ("bins", "max_len", "layout", "session_gap", "duplicates")


@dataclass(frozen=True)
class Asked:
    """What is asked for in place of what a description says; None for what it says.

    Each field is an option of `tinprep prepare`. `max_len` and `session_gap` are those of every
    history, `duplicates` of every table.
    """

    split: str | None = option(
        None,
        "order (leave one out), day, TEST or VALID,TEST: dates, or numbers of the unit. " + _SAYS,
    )
    timezone: str | None = option(None, "Of times, days and dates that name none, e.g. UTC.")
    bins: int | None = option(None, f"Interval bins. {_SAYS}")
    max_len: int | None = option(None, f"Behaviours kept of a history. {_SAYS}")
    layout: str | None = option(None, f"padded or ragged. {_SAYS}")
    negatives: int | None = option(None, f"Random negatives for each positive. {_SAYS}")
    session_gap: int | None = option(None, f"Seconds of silence that end a session. {_SAYS}")
    duplicates: str | None = option(None, f"Events that stand twice: keep or drop. {_SAYS}")
    min_count: int | None = option(None, f"Rarer values are unknown. {_SAYS}")
    seed: int | None = option(None, f"Of negatives and hashed ties. {_SAYS}")
    parameters: Mapping[str, str] | None = option(
        None, "NAME=VALUE of a parameter; may be repeated.", flag="--set", written=PAIRS
    )
    without: tuple[str, ...] = option(
        (), "A lookup to do without, as its file is not there; may be repeated."
    )

    def __post_init__(self) -> None:
        check(self)  # what they may be beyond their types is for the description to say

    def put_into(self, keys: dict[str, Any]) -> None:
        """Change what a description says; what it lacks is refused when it is checked.

        Raises:
            UsageError: it has no such parameter, or no such lookup to do without.
        """
        for name in ("bins", "layout", "seed"):
            _put(keys, name, getattr(self, name))
        for name in ("max_len", "session_gap"):
            for history in _tables(keys.get("histories")):
                _put(history, name, getattr(self, name))
        for history in _tables(keys.get("histories")) if self.bins is not None else ():
            history.pop("bins", None)
        for table in _tables(keys.get("tables")):
            _put(table, "duplicates", self.duplicates)
        target = keys.get("target")
        if isinstance(target, dict):
            if self.negatives is not None:
                given = target.get("negatives")
                target["negatives"] = {
                    **(given if isinstance(given, dict) else {}),
                    "per_positive": self.negatives,
                }
            if self.split is not None:
                target["split"] = split_of(self.split, self.timezone)
            elif self.timezone is not None and _by(target) in ("day", "time"):
                target["split"]["timezone"] = self.timezone
        if self.min_count is not None:
            keys["vocabulary"] = {**keys.get("vocabulary", {}), "min_count": self.min_count}
        if self.parameters:
            known = _parameters(keys)
            if unknown := [name for name in self.parameters if name not in known]:
                raise UsageError(
                    "The description has no such parameter.",
                    where="--set",
                    expected=", ".join(known) or "none: no file's name has {braces}",
                    got=unknown[0] + meant(unknown[0], known),
                )
            keys["parameters"] = {**keys.get("parameters", {}), **self.parameters}
        for name in self.without:
            _leave_out(keys, name)


def _by(target: Mapping[str, Any]) -> object:
    split = target.get("split")
    return split.get("by") if isinstance(split, dict) else None


def _put(keys: dict[str, Any], name: str, value: object) -> None:
    if value is not None:
        keys[name] = value


def _tables(of: object) -> list[dict[str, Any]]:
    return [one for one in of.values() if isinstance(one, dict)] if isinstance(of, dict) else []


def _parameters(keys: Mapping[str, Any]) -> list[str]:
    """What a description has as parameters, or in the names of its files."""
    owners = [one for kind in ("tables", "lookups") for one in _tables(keys.get(kind))]
    braces = [name for one in owners for name in _BRACES.findall(str(one.get("files")))]
    return list(dict.fromkeys([*keys.get("parameters", {}), *braces]))


def _leave_out(keys: dict[str, Any], name: str) -> None:
    there = keys.get("lookups", {})
    if name not in there:
        raise UsageError(
            "There is no such lookup to leave out.",
            where="--without",
            expected=" or ".join(there) or "nothing, as there is none",
            got=name,
        )
    one = there.pop(name)
    gone = {key for kind in ("fields", "features", "lists") for key in one.get(kind, {})}
    if keys.get("train", {}).get("group_field") in gone:
        del keys["train"]["group_field"]
    keys["types"] = {n: of for n, of in keys.get("types", {}).items() if n not in gone}


def split_of(told: str, timezone: str | None) -> dict[str, Any]:
    """A split as the language has it, from `order`, `day`, `TEST` or `VALID,TEST`."""
    if told in ("order", "day"):
        found: dict[str, Any] = {"by": told}
    else:
        *valid, test = (one.strip() for one in told.rsplit(",", 1))
        times = [("test", test), *(("valid", one) for one in valid)]
        found = {"by": "time", **{n: int(t) if t.isdecimal() else t for n, t in times}}
    if timezone is not None and told != "order":
        found["timezone"] = timezone
    return found


@dataclass(frozen=True)
class DescribedConfig(Config):
    """A data set by its description; see `described`.

    What the language has a key for is said there, and no setting of its own.

    Attributes:
        folder: that its paths are relative to.
        kept: text that goes into the data set as `description.toml`; None for none.
    """

    # A base's fields have defaults.
    source: Source = None  # type: ignore[assignment]
    spec: Spec = None  # type: ignore[assignment]
    folder: Path = Path()
    kept: str | None = None

    @property
    def keeps(self) -> str | None:
        """As `Config.keeps`."""
        from pipeline.description.toml import written

        if self.kept is None and self.keep_events:
            return written(self.source.keys)
        return self.kept

    @property
    def raw_folder(self) -> Path:
        """Where the raw files are."""
        return self.raw or self.folder

    @property
    def _patterns(self) -> dict[tuple[str, str], list[str]]:
        """(kind, name) of tables and lookups that have files, and those as they are named."""
        from pipeline.description.files import filled

        found = {}
        for at, one in self.spec.sources.items():
            if one.files is not None:
                given = (one.files,) if isinstance(one.files, str) else one.files
                found[at] = [filled(p, self.spec.parameters) for p in given]
        return found

    def apart(self, paths: Sequence[Path]) -> list[Path]:
        """As `Config.apart`: the files, and folders of which all is read."""
        from pipeline.description.files import bases

        return [one for p in self._patterns.values() for one in bases(p, self.raw_folder)]

    def _files(self) -> dict[tuple[str, str], list[Path]]:
        from pipeline.description.files import files_of

        return {
            (kind, name): files_of(patterns, self.raw_folder, name)
            for (kind, name), patterns in self._patterns.items()
        }

    def queries(self, rows: int | None = None) -> dict[Path, Query]:
        """As `Config.queries`.

        Args:
            rows: of each table of events that are read, the first; None for all.

        Raises:
            UsageError: the environment does not say where a database is.
        """
        found = {}
        for (kind, name), one in self.spec.sources.items():
            if one.query is None or one.connection is None:
                continue
            # Imported where it is wanted, as it is slow to load.
            from pipeline.readers.query import Query

            line = self.source.line((kind, name, "query"))
            query = Query(
                f"{kind}.{name}",
                one.query,
                one.connection,
                self.spec.connections[one.connection].url_env,
                f"{self.source.name}:{line or 1}",
                getattr(one, "row", None),
                rows if kind == "tables" else None,
            )
            assert query.address
            found[self.out / WORK / query.name] = query
        return found

    def _paths(self) -> dict[tuple[str, str], list[Path]]:
        """The files that all is read from, those of queries too."""
        asked = {path: tuple(path.name.split(".", 1)) for path in self.queries()}
        return {**self._files(), **{(kind, name): [p] for p, (kind, name) in asked.items()}}

    def obtain(self) -> list[Path]:
        """As `Config.obtain`: every file once."""
        return list(dict.fromkeys(path for paths in self._files().values() for path in paths))

    def absent(self) -> tuple[str, list[Path] | None]:
        """As `Config.absent`: no file may be, and of a query nothing is known before it is read."""
        paths = self.obtain()
        told = [
            f"{one.name:<14}unknown before its query is read, of the database in {one.variable}"
            for one in self.queries().values()
        ]
        return "\n".join(told), None if told else paths

    def description(self, paths: list[Path]) -> Description:
        """As `Config.description`."""
        found = self._paths()
        if {path for some in found.values() for path in some} != {*paths}:
            raise InputError(
                "Raw files came or went while they were looked at.",
                where=self.raw_folder,
                do="run the same command again when nothing writes there",
            )
        return _bound(self.spec, self.source, found, None, self._fixed())

    def _fixed(self) -> dict[str, Any]:
        """What is known of the files before they are looked at, as `Binding` has it."""
        return {}

    def resolved(self) -> dict[str, Any]:
        """As `Config.resolved`: what the description says stands for it, by its digest."""
        from pipeline.description.toml import canonical, digest

        own = ("source", "spec", "folder", "kept", *_SAID)
        found = {k: v for k, v in super().resolved().items() if k not in own}
        if not self.keep_events:
            found["raw"] = str(self.raw_folder)
        return {**found, "description": digest(canonical(self.spec))}


@dataclass(frozen=True)
class Events:
    """The plainest description: a file of events, by its columns."""

    user: str | None = option(None, "Of a file of events: the column of users.")
    item: str | None = option(None, "Of a file of events: the column of items.")
    time: str | None = option(None, "Of a file of events: the column of times.")
    unit: str | None = option(None, "Of times that are numbers: s, ms or us.")
    label: str | None = option(
        None,
        "Of a file of events: the column of labels, or SQL such as 'stars > 3'. "
        "Default: random negatives.",
    )
    where: str | None = option(None, "Of a file of events: which of them count, in SQL.")
    delimiter: str | None = option(
        None,
        r"Of a file of events, which then is text: what separates its columns, as ';' or '\t'.",
    )

    @staticmethod
    def options() -> dict[str, str]:
        """By key of the description that `keys` makes, the option that says it."""
        same = ("user", "time", "item", "label", "where", "split", "negatives")
        return {**{key: f"--{key}" for key in same}, "csv": "--delimiter"}

    @property
    def asked(self) -> bool:
        """Whether any of it is given."""
        return any(value is not None for value in vars(self).values())

    @property
    def _csv(self) -> dict[str, str] | None:
        if self.delimiter is None:
            return None
        return {"delimiter": self.delimiter.replace("\\t", "\t")}

    def keys(self, name: str, file: str, asked: Asked) -> dict[str, Any]:
        """As a description.

        Raises:
            UsageError: something is missing.
        """
        needed = {"--user": self.user, "--item": self.item, "--time": self.time}
        needed["--split"] = asked.split
        lacks = [option for option, value in needed.items() if value is None]
        if lacks:
            raise UsageError(
                "A file of events needs its columns, and a split.",
                where=file,
                expected="--user, --item and --time, each a column; and --split order, day, or "
                "the time at which test begins",
                got=f"no {', '.join(lacks)}",
                do="add them; or describe the file: `tinprep describe FILE --out mine.toml`",
            )
        time = {"column": self.time, "unit": self.unit}
        if self.unit is None:
            time["timezone"] = asked.timezone
        found: dict[str, Any] = {
            "name": name,
            "tables": {
                "events": {
                    "files": file,
                    "format": None if self.delimiter is None else "csv",
                    "csv": self._csv,
                    "where": self.where,
                    "user": self.user,
                    "time": time,
                    "fields": {"item": self.item},
                    "label": self.label,
                }
            },
            "target": {
                "table": "events",
                "negatives": None if self.label is not None else {"per_positive": 1},
            },
            "histories": {"history": {"table": "events"}},
        }
        asked.put_into(found)
        return found


def of_events(
    file: str, events: Events, asked: Asked, *, out: Path | None, raw: Path | None, **how: Any
) -> DescribedConfig:
    """What `tinprep prepare FILE --user ... --item ... --time ...` is asked to do.

    The data set keeps the description that this stands for.

    Raises:
        UsageError: something is missing, or cannot be.
    """
    from pipeline.description.toml import Source, written
    from pipeline.readers.remote import located

    path = located(Path(file)) if raw is None else raw / file
    if file.endswith(_ENDING) or (file in presets() and not path.exists()):
        raise UsageError(
            "The columns of a description stand in it.",
            where=file,
            expected="a file of events with --user, --item and --time, or a description without",
            got="a description with them",
            do="change the description, or leave the options out",
        )
    name = path.name.partition(".")[0] or "events"
    out = out or Path("data") / name
    near = os.path.relpath(path.resolve(), out.resolve()) if type(out) is type(path) else str(path)
    text = written(events.keys(name, path.name, asked))
    return replace(
        of_source(
            Source("the options", text, events.options()),
            path.parent,
            Asked(),
            name,
            out=out,
            **how,
        ),
        kept=written(events.keys(name, near, asked)),
    )


@dataclass(frozen=True)
class SampledConfig(DescribedConfig):
    """A description with the first events of each table: to look at, not to keep.

    Attributes:
        rows: how many of each table, at least.
    """

    rows: int = 100_000

    def obtain(self) -> list[Path]:
        """As `Config.obtain`, but none has to be summed up: that takes long."""
        super().obtain()
        return []

    def queries(self, rows: int | None = None) -> dict[Path, Query]:
        """As `Config.queries`: the first rows of each table."""
        return super().queries(self.rows)

    def description(self, paths: list[Path]) -> Description:
        """As `Config.description`."""
        return _bound(self.spec, self.source, self._paths(), self.rows, self._fixed())


def presets() -> list[str]:
    """The names of the presets."""
    names = [one.name for one in _PRESETS.iterdir()] if _PRESETS.is_dir() else []
    return sorted(name.removesuffix(_ENDING) for name in names if name.endswith(_ENDING))


def source_of(named: str) -> tuple[Source, Path | None]:
    """The text of a description, and the folder that its paths are relative to.

    Raises:
        UsageError: it is neither, or no TOML.
        InputError: the file cannot be read.
    """
    from pipeline.description.files import FORMATS
    from pipeline.description.toml import Source

    path = Path(named)
    if named in presets() and not path.exists():
        text = (_PRESETS / f"{named}{_ENDING}").read_text(encoding="utf-8")
        return Source(f"{named}{_ENDING}", text), None
    if set(map(str.lower, path.suffixes)) & {*FORMATS} and path.exists():
        raise UsageError(
            "This is a file of data, not a description of it.",
            where=path,
            expected=f"a TOML file, or one of {', '.join(presets())}",
            got="".join(path.suffixes),
            do=f"draft one: `tinprep describe {named} --out mine.toml`; or name its columns: "
            "--user, --item, --time and --split",
        )
    try:
        return Source(path, path.read_text(encoding="utf-8-sig")), path.parent
    except FileNotFoundError:
        raise InputError(
            "There is no such description.",
            where=path,
            expected=f"a TOML file, or one of {', '.join(presets())}",
            got="neither",
            do="check the name, or draft one: `tinprep describe FILES... --out mine.toml`",
        ) from None
    except UnicodeDecodeError as error:
        raise UsageError(
            "The description is not text.",
            where=path,
            expected="TOML in UTF-8",
            got=str(error)[:200],
            do="give a description; data files want --user, --item and --time beside them",
        ) from None


def described(named: str, asked: Asked, **how: Any) -> DescribedConfig:
    """What `tinprep prepare` is asked to do.

    `out` None is `data/NAME`.

    Raises:
        UsageError: the description cannot be what it is to be.
        InputError: it cannot be read.
    """
    source, folder = source_of(named)
    return of_source(source, folder, asked, Path(named).stem if folder else named, **how)


def sampled(
    named: str, asked: Asked, rows: int, raw: Path | None, max_rejected: float
) -> SampledConfig:
    """What `tinprep describe --check` is asked to do, with so many rows of each table at least."""
    config = described(named, asked, out=Path("sample"), raw=raw, max_rejected=max_rejected)
    return SampledConfig(**vars(config), rows=rows)


def drafted(patterns: Sequence[str], raw: Path | None, folder: Path) -> str:
    """The text of a first description of data files, or of a preset by its name.

    Args:
        patterns: files, folders or globs, each of one table.
        raw: what they are, and will be, relative to; None for the current folder.
        folder: without `raw`, what the description's paths are to be relative to.

    Raises:
        InputError: a file cannot be read, or none tells who did what, and when.
    """
    from pipeline.description.draft import draft
    from pipeline.readers.remote import located

    if len(patterns) == 1 and patterns[0] in presets() and not Path(patterns[0]).exists():
        return source_of(patterns[0])[0].text
    if raw is not None:
        return draft(patterns, raw)
    fixed = [Path(p).is_absolute() or located(Path(p)) != Path(p) for p in patterns]
    near = [p if f else os.path.relpath(p, folder) for p, f in zip(patterns, fixed, strict=True)]
    return draft(near, folder)


def of_files(source: Source, files: Mapping[tuple[str, str], list[Path]]) -> Description:
    """The description that a preset's own command makes of files; no manifest repeats its text.

    Raises:
        UsageError: it cannot be.
        InputError: a file cannot be read.
    """
    from pipeline.description.checks import spec_of

    return replace(_bound(spec_of(source), source, files, None, {}), strict=False, said={})


def _bound(
    spec: Spec,
    source: Source,
    files: Mapping[tuple[str, str], list[Path]],
    rows: int | None,
    fixed: Mapping[str, Any],
) -> Description:
    """The description of files, of which so many rows are read; None for all."""
    from pipeline.description.binding import Binding
    from pipeline.presets.fast import LOOKUPS, TABLES

    known = {"tables": TABLES, "lookups": LOOKUPS}
    bound = Binding(spec, source, files, known, rows, fixed)
    bound.check_times()
    return bound.description()


def of_source(
    source: Source, folder: Path | None, asked: Asked, name: str, **how: Any
) -> DescribedConfig:
    """As `described`, of a text.

    `folder` None is `data/raw/NAME`; `name` is that of the data set, where it says none.
    """
    from pipeline.description.checks import spec_of

    asked.put_into(source.keys)
    source.keys.setdefault("name", name)
    spec = spec_of(source)
    how["out"] = how.get("out") or Path("data") / name
    where = Path("data/raw") / name if folder is None else folder
    return DescribedConfig(source=source, spec=spec, folder=where, **how)
