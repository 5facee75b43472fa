"""New events behind those that a data set has kept: what can be asked, and their description."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.presets.described import DescribedConfig
from schemas import digests, manifest
from schemas.errors import ByDescription, ContractError, InputError, UsageError
from schemas.plain import meant
from schemas.replacing import sha256

if TYPE_CHECKING:
    from pipeline.description import Description, Table
    from pipeline.description.language import Spec
    from pipeline.description.toml import Source
    from pipeline.readers.parsed import Reader

_OF_SET = ("data", "made", "new", "targets")
# What columns hold that are passed through, by their type in the manifest.
KINDS = {"int64": "whole", "float64": "number", "string": "text"}


@dataclass(frozen=True)
class TransformConfig(DescribedConfig):
    """New events of a data set that keeps its own; see `transformed`.

    Attributes:
        new: table -> files of new events, as they are named; none where nothing is new.
        targets: files of new targets, likewise; none where new events are.
    """

    # A base's fields have defaults.
    data: Path = Path()
    made: manifest.Manifest = None  # type: ignore[assignment]
    new: Mapping[str, tuple[str, ...]] = None  # type: ignore[assignment]
    targets: tuple[str, ...] = ()

    def apart(self, paths: Sequence[Path]) -> list[Path]:
        """As `Config.apart`: the data set, too."""
        from pipeline.description.files import bases

        given = (*self.new.values(), self.targets)
        new = [one for patterns in given for one in bases(patterns, Path())]
        return [self.data, *new, *super().apart(paths)]

    def cure(self, do: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        """As `Config.cure`: the description is that of the data set, and stays as it is."""
        if not isinstance(do, ByDescription):
            return do
        return "write new files as those that the data set was made of: they are read alike"

    @property
    def _patterns(self) -> dict[tuple[str, str], list[str]]:
        """As `DescribedConfig`, without the tables that have new files."""
        return {at: of for at, of in super()._patterns.items() if at[1] not in self.new}

    def _files(self) -> dict[tuple[str, str], list[Path]]:
        new = {name: _files_of(of, "--events", name) for name, of in self.new.items()}
        new[next(iter(new))] += self._asked(new)
        kept = {name: self._kept(name) for name, of in new.items() if not of}
        return {("tables", name): of for name, of in {**new, **kept}.items()} | super()._files()

    def _asked(self, new: Mapping[str, Sequence[Path]]) -> list[Path]:
        found = _files_of(self.targets, "--targets", next(iter(new)))
        if both := {*found} & {path for of in new.values() for path in of}:
            raise UsageError(
                "A file is of new events and of new targets.",
                where="--targets",
                expected="files that are not among those of --events",
                got=str(min(both)),
                do="leave --targets out, if each of its events is a target and a behaviour of "
                "later ones",
            )
        return found

    @property
    def _apart(self) -> list[Path]:
        """The files of new targets, but for those that a fast reader reads as the others."""
        table = next(iter(self.new))
        return [] if self.spec.tables[table].reader else self._asked({table: ()})

    @cached_property
    def _unlabelled(self) -> bool:
        """Whether the files of new targets have no column that labels are said by."""
        from pipeline.description.binding import Whence

        table = next(iter(self.new))
        said = self.spec.tables[table]
        if not self._apart or said.label is None or said.query is not None:
            return False
        columns = {said.label, *re.findall(r"\w+", said.label)}
        there = Whence.of("tables", table, said, self._apart).source.names
        # A name that is nearly there is a slip, which is told when the files are opened.
        return not any(one in there or meant(one, there, 0.85) for one in columns)

    def _kept(self, table: str) -> list[Path]:
        names = [one.path for one in self.made.tables]
        return [self.data / name for name in names if name.startswith(f"events/{table}-")]

    def obtain(self) -> list[Path]:
        """As `Config.obtain`: the events that are kept come first."""
        kept = [path for name in self.new for path in self._kept(name)]
        return list(dict.fromkeys([*kept, *super().obtain()]))

    def description(self, paths: list[Path]) -> Description:
        """As `Config.description`."""
        from pipeline.description.split import New

        earlier = {path for name in self.new if self._given(name) for path in self._kept(name)}
        found = super().description([path for path in paths if path not in earlier])
        for one in found.lookups:
            if self.spec.lookups[one.key].table in self.new and one.table is None:
                raise UsageError(
                    f"lookups.{one.key} takes columns of its table that are not kept with events.",
                    where=self.source.name,
                    line=self.source.line(("lookups", one.key, "table")),
                    expected="what the table has under the same names, or files of its own",
                    got="a name that stands for two columns, as in fields of both",
                    do="give one of them another name, and prepare the data set again",
                )
        assert self.made.kept is not None
        return replace(
            found,
            tables=tuple(map(self._continued, found.tables)),
            split=New(self.made.target.split, asked=bool(self.targets)),
            said=self.made.description,
            labelled=not self._unlabelled,
            strict=False,
            since=partial(_as_before, self.made.kept.since),
            continues=self.data,
            splits=manifest.WITH_NEW,
        )

    def _fixed(self) -> dict[str, Any]:
        """As `DescribedConfig`: types and units are those of the data set, in SQL as well."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        from pipeline.readers.continued import Kept

        types = {}
        for name in self.made.vocabulary:
            kind = pq.read_schema(self.data / f"vocabulary/{name}.parquet").field("value").type
            types[name] = "whole" if pa.types.is_integer(kind) else "text"
        kept = {name: KINDS[kind] for name, kind in self.made.keep.items()}
        readers = {n: Kept.of(self._kept(n)[0]) for n in self.new if not self._given(n)}
        return {
            "types": types,
            "seen": self.made.kept.columns if self.made.kept is not None else {},
            "unit": self.made.time_unit,
            "kept": kept,
            "readers": readers,
            "apart": self._apart,
            "unlabelled": self._unlabelled,
        }

    def _given(self, table: str) -> bool:
        return bool(self.new[table]) or (bool(self.targets) and table == next(iter(self.new)))

    def _continued(self, table: Table) -> Table:
        """A table with its kept events before the new ones, and new targets behind those."""
        from pipeline.description import ASKED
        from pipeline.readers.apart import Apart
        from pipeline.readers.continued import Kept

        assert self.made.kept is not None
        kept, first = self._kept(table.name), self.made.kept.rows[table.name]
        asked = len(self._asked({table.name: ()})) if table.name == next(iter(self.new)) else 0
        readers: dict[Path, Reader] = dict.fromkeys(kept, Kept(table.reader.columns))
        readers |= {path: table.reader for path in table.paths if path not in readers}
        return replace(
            table,
            paths=tuple(readers),
            reader=Apart(readers),
            split=False,
            earlier=len(kept),
            first_row=first,
            every_user=self.keep_events,
            asked=asked,
            masks=(*table.masks, *((ASKED,) if asked else ())),
        )

    def resolved(self) -> dict[str, Any]:
        """As `Config.resolved`: the data set stands for what was fitted, by its key."""
        found = {k: v for k, v in super().resolved().items() if k not in _OF_SET}
        was = {n: v for n, v in self.made.config.items() if n in ("description", *digests.WINDOW)}
        if self.targets:
            found["targets"] = list(self.targets)
        return {**found, **was, "continues": self.made.config["key"]}


def _as_before(since: int, first: int) -> int:
    """The time from which events of other tables count."""
    return since


def _without_queries(spec: Spec, made: manifest.Manifest) -> dict[str, Any]:
    """The tables of which events are kept: new ones come in files, whatever gave those."""
    return {
        name: replace(spec.tables[name], query=None, connection=None, row=None)
        for name in made.events
    }


def _files_of(patterns: Sequence[str], option: str, table: str) -> list[Path]:
    """The files that an option names; none where it names nothing."""
    from pipeline.description.files import files_of

    try:
        return files_of(patterns, Path(), table) if patterns else []
    except InputError as error:
        raise InputError(
            error.what,
            where=error.where,
            got=error.got,
            do=f"give {option} a file, a folder, or a pattern such as new/*.csv",
        ) from None


def transformed(
    data: Path,
    events: Sequence[str],
    targets: Sequence[str] = (),
    *,
    out: Path,
    raw: Path | None,
    **how: Any,
) -> TransformConfig:
    """What `tinprep transform` is asked to do.

    The arguments are those of `tinprep.transform`.

    Raises:
        UsageError: the data set does not keep its events, there are no new targets, or there is no
            such table.
        InputError: there is no data set.
        ContractError: what it keeps is not its own.
    """
    from pipeline.readers.remote import located

    made = manifest.load(data)
    source, spec = described_by(data, made)
    return TransformConfig(
        source=source,
        spec=replace(spec, tables={**spec.tables, **_without_queries(spec, made)}),
        folder=located(Path(made.config["raw"])),
        data=data,
        made=made,
        new=_by_table(events, list(made.events), asked=bool(targets)),
        targets=tuple(targets),
        out=out,
        raw=raw,
        **how,
    )


def described_by(data: Path, made: manifest.Manifest) -> tuple[Source, Spec]:
    """The description that new events are read by: its text, and what it says.

    Raises:
        UsageError: it keeps none, or was made without a description.
        ContractError: the description beside it is another.
    """
    from pipeline.description.checks import spec_of
    from pipeline.description.toml import Source

    kept = manifest.require_kept(data, made)
    if kept.description is None:
        raise UsageError(
            "The data set keeps no description, which new events are read by.",
            where=data,
            expected="a data set of options that a description has, too",
            got=f"{made.dataset}, made with --parity, --no-meta or --user-fraction, or by an older "
            "version",
            do="make it again, without those options",
        )
    path = data / manifest.KEPT
    if (got := sha256(path) if path.is_file() else "no such file") != kept.description:
        raise ContractError(
            "The description is not that of the data set.",
            where=path,
            expected=f"sha256 {kept.description}",
            got=got,
            do="put back the file that tinprep wrote, or make the data set again",
        )
    source = Source(path, path.read_text(encoding="utf-8"))
    return source, spec_of(source)


def _by_table(
    events: Sequence[str], tables: list[str], *, asked: bool
) -> dict[str, tuple[str, ...]]:
    """The files of new events by their table; `asked` where there are files of new targets."""
    found: dict[str, tuple[str, ...]] = dict.fromkeys(tables, ())
    for one in events:
        name, _, file = one.partition("=")
        if not file or name not in found:
            name, file = tables[0], one
            if len(tables) > 1:
                raise UsageError(
                    "It is not said which events are in the file.",
                    where="--events",
                    expected=" or ".join(f"{table}=FILE" for table in tables),
                    got=one,
                )
        found[name] = (*found[name], file)
    if not found[tables[0]] and not asked:
        raise UsageError(
            f"There are no new {tables[0]}, so there are no new targets.",
            where="--events",
            expected=f"--events {tables[0]}=FILE, or --targets FILE",
            got=" ".join(f"--events {one}" for one in events) or "nothing",
        )
    return found
