"""Requests: one user at one time, and candidates; as the columns that a row of the shards has."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from annotated_types import Ge, Lt, MinLen

from pipeline.readers.values import BLANKS, LATEST_S, OLD_S, Refusal, text_of, whole
from pipeline.serving.features import Columns, Cut, Users
from pipeline.steps.lookups import UNKNOWN
from pipeline.steps.numbers import as_told
from schemas import vocabulary
from schemas.arrays import Int64s
from schemas.checked import STRICT, Count, is_finite
from schemas.errors import InputError
from schemas.manifest import UNKNOWN_ID, Manifest
from schemas.plain import meant
from schemas.shards import UNITS

USER = "user"


@dataclass(frozen=True)
class Request:
    """One user at one time, and what may be shown.

    Attributes:
        user: as in the raw files.
        time: in the data set's unit since 1970.
        candidates: each with its fields and features, as in the raw files: name -> value.
        context: what all candidates share, e.g. where they would be shown.
        arrived: history -> how many of its user's behaviours came before the request, where the
            window is by order; of others all that are there.
        id: what the request calls itself.
    """

    __pydantic_config__ = STRICT
    user: int | str
    time: Annotated[int, Ge(-(1 << 62)), Lt(1 << 62)]  # so that no difference overflows
    candidates: Annotated[list[dict[str, Any]], MinLen(1)]
    context: dict[str, Any] = field(default_factory=dict)
    arrived: dict[str, Count] = field(default_factory=dict)
    id: str | None = None


class Words:
    """The ids of a vocabulary's values.

    Raises:
        InputError: it is missing or damaged.
        ContractError: it holds something else.
    """

    def __init__(self, path: Path) -> None:
        table = vocabulary.read(path)
        values, ids = table["value"].to_pylist(), table["id"].to_pylist()
        self.ids: dict[int | str | None, int] = dict(zip(values, ids, strict=True))
        self.whole = pa.types.is_integer(table.schema.field("value").type)

    def value(self, raw: object) -> int | str | None:
        """A raw value as a vocabulary has it: "007" and 7.0 are 7 where values are whole numbers.

        Raises:
            ValueError: no value of this vocabulary is such.
        """
        if self.whole and type(raw) is int:
            return raw
        raw = _plain(raw)
        if raw is None or (isinstance(raw, str) and not raw.strip(BLANKS)):
            return None  # as in files
        try:
            if isinstance(raw, bool):
                raise Refusal
            return whole(raw, signed=True) if self.whole else text_of(raw)
        except Refusal:
            raise ValueError("a whole number" if self.whole else "text") from None

    def of(self, raw: object) -> int:
        """The id of a raw value; that of what is unknown where it has none.

        Raises:
            ValueError: as `value`.
        """
        return self.ids.get(self.value(raw), UNKNOWN_ID)


@dataclass(frozen=True)
class Known:
    """What is known of the values of a key.

    Attributes:
        columns: column -> what it has by line; behind all lines what it has where there is none. A
            list has a part `_length` beside its ids.
        begins: (places + 1,) the first line of each place: of each id of the key, and behind them
            of each value that has no id.
        times: (lines,) from when each holds; None for any time.
        places: value without an id -> its place.
    """

    columns: Mapping[str, Columns]
    begins: Int64s
    times: Int64s | None
    places: Mapping[Any, int]

    @classmethod
    def of(cls, folder: Path, made: Manifest, key: str) -> Known:
        """Read a lookup."""
        lookup, size = made.lookups[key], made.vocabulary[key]
        table = pq.read_table(folder / f"lookups/{key}.parquet", partitioning=None)
        place, places = table[key].to_numpy(), {}
        if (path := folder / UNKNOWN.format(key)).exists():
            more = pq.read_table(path, partitioning=None)
            values = more[key].to_pylist()
            places = {value: size + k for k, value in enumerate(dict.fromkeys(values))}
            place = np.append(place, [places[value] for value in values]).astype(np.int64)
            names = [name for name in table.column_names if name != key]
            table = pa.concat_tables([table.select(names), more.select(names)])
        columns: dict[str, Columns] = {}
        for name in (*lookup.fields, *lookup.features):
            columns[name] = {"": np.append(table[name].to_numpy(), np.int32(UNKNOWN_ID))}
        for name in lookup.numbers:
            raw = table[name].to_numpy().astype(np.float64)
            columns[name] = {"": as_told(np.append(raw, np.nan), made.numbers[name])}
        for name in lookup.lists:
            lists = [*table[name].to_pylist(), []]
            ids = np.zeros((len(lists), made.lists[name]), np.int32)
            for line, one in enumerate(lists):
                ids[line, : len(one)] = one
            columns[name] = {"": ids, "_length": np.array([*map(len, lists)], np.int16)}
        begins = np.searchsorted(place, np.arange(size + len(places) + 1))
        times = table["time"].to_numpy() if lookup.timed else None
        return cls(columns, begins, times, places)

    def lines(self, ids: npt.NDArray[Any], values: Sequence[Any], now: int) -> Int64s:
        """(values,) the line of each: of those that hold from some time on, the last before `now`.

        Args:
            ids: (values,) of the key.
            values: the same, as `Words.value` has them.
            now: the time of the request.
        """
        places = ids.astype(np.int64)
        for at in np.flatnonzero(ids == UNKNOWN_ID).tolist() if self.places else ():
            places[at] = self.places.get(values[at], UNKNOWN_ID)
        first, end = self.begins[places], self.begins[places + 1]
        if self.times is not None:
            pairs = zip(first.tolist(), end.tolist(), strict=True)
            end = np.array([a + self.times[a:b].searchsorted(now) for a, b in pairs])
        return np.where(end > first, end - 1, self.none)

    @property
    def none(self) -> int:
        """The line of values that have none."""
        return int(self.begins[-1])


@dataclass(frozen=True)
class Features:
    """The features of requests, by the fitted state of a data set.

    Attributes:
        folder: of the data set, or of what has its vocabularies and lookups.
        pasts: history -> what users did.
        newcomers: user -> the id, beyond all others, by which `pasts` knows one that has none.
    """

    folder: Path
    made: Manifest
    pasts: Mapping[str, Users]
    newcomers: Mapping[int | str, int] = field(default_factory=dict)

    @cached_property
    def words(self) -> dict[str, Words]:
        """The vocabularies by name."""
        names = {USER, *self.made.fields, *filter(None, map(self._vocabulary, self.made.features))}
        return {name: Words(self.folder / f"vocabulary/{name}.parquet") for name in names}

    @cached_property
    def cuts(self) -> dict[str, Cut]:
        """How histories are cut."""
        return {name: Cut.of(name, rule) for name, rule in self.made.histories.items()}

    @cached_property
    def lookups(self) -> dict[str, Known]:
        """The lookups by key."""
        return {key: Known.of(self.folder, self.made, key) for key in self.made.lookups}

    @cached_property
    def looked_up(self) -> dict[str, tuple[str, Columns]]:
        """Column of a row -> the key that it is looked up by, and its values by line."""
        return {
            name: (key, columns)
            for key, known in self.lookups.items()
            for name, columns in known.columns.items()
        }

    def __call__(self, request: Request) -> Columns:
        """The columns of the request's rows.

        Those of histories have one row, without padding: a list is an array of its own length. All
        others have a row a candidate.

        Raises:
            InputError: a value is missing, or is none that its column can hold.
        """
        self._require(request)
        rows = [{**request.context, **one} for one in request.candidates]
        said = {name for row in rows for name in row}
        _require_known("a key", said, self._own_first, request)
        _require_known("a history in `arrived`", request.arrived, self._by_order, request)
        who = self._value(USER, request.user, request)
        if who is None:
            raise _misfit(USER, "text or a whole number", request.user, request)
        user = self.words[USER].ids.get(who, UNKNOWN_ID)
        columns = self.of_history(self.newcomers.get(who, user), request)
        columns["target_time"] = np.full(len(rows), request.time, np.int64)
        lines: dict[str, Int64s] = {}  # key -> the line that each row looks up
        if USER in self.lookups:
            values: list[Any] = [who] * len(rows)
            lines[USER] = self.lookups[USER].lines(np.full(len(rows), user), values, request.time)
        for name, prefix in self._own_first.items():
            key, by_line = self.looked_up.get(name, ("", {}))
            found = {end: of[lines[key]] for end, of in by_line.items()}
            if name in said or not found:
                found = self._said(name, rows, found, request)
            if name in self.lookups:
                values = [self._value(name, row.get(name), request) for row in rows]
                lines[name] = self.lookups[name].lines(found[""], values, request.time)
            columns |= {f"{prefix}{name}{end}": of for end, of in found.items()}
        return columns

    def _require(self, request: Request) -> None:
        """Refuse what JSON's requests are held to already, and a time that none has."""
        unit, latest = self.made.time_unit, LATEST_S * UNITS[self.made.time_unit]
        if not isinstance(request.time, int | np.integer):
            raise _misfit("time", f"a whole number of the unit {unit}", request.time, request)
        if request.time >= latest:
            raise self._of_another_unit(request, f"below {latest}")
        odd = [one for one in request.candidates if not isinstance(one, Mapping)]
        if odd or not request.candidates:
            got = odd[0] if odd else request.candidates
            raise _misfit("candidates", "objects: name -> value, one or more", got, request)

    def _of_another_unit(self, request: Request, like: str) -> InputError:
        unit = self.made.time_unit
        return InputError(
            "A request's time looks like one of another unit.",
            where=f"the request of user {request.user!r} at {request.time}",
            expected=f"a time in the unit {unit}, {like}",
            got=str(request.time),
            do=f"give the time in the unit {unit}, or as text with a zone",
        )

    def of_history(self, user: int, request: Request) -> Columns:
        """The columns of all histories of a user, by id.

        Raises:
            InputError: the request is of before 1985, and all that its user did is of later: its
                time is of a coarser unit.
        """
        columns: Columns = {}
        begin = OLD_S * UNITS[self.made.time_unit]
        for name, cut in self.cuts.items():
            arrived, past = request.arrived.get(name), self.pasts[name].of(user)
            if 0 < request.time < begin and len(past.time) and past.time[0] >= begin:
                raise self._of_another_unit(request, f"as {past.time[0]} of an event of this user")
            columns |= cut(past, request.time, arrived)
        return columns

    @cached_property
    def _own_first(self) -> dict[str, str]:
        """The columns of targets, those first by which others are looked up; what precedes each."""
        names = [*self.made.fields, *self.made.features]
        names.sort(key=lambda name: name in self.looked_up)
        return {name: "target_" if name in self.made.fields else "" for name in names}

    @cached_property
    def _by_order(self) -> list[str]:
        """The histories whose windows end at the target in the table's order."""
        return [name for name, cut in self.cuts.items() if cut.rule.window == "order"]

    def _vocabulary(self, feature: str) -> str | None:
        return self.made.features[feature].vocabulary

    def _said(
        self, name: str, rows: list[dict[str, Any]], found: Columns, request: Request
    ) -> Columns:
        """A column of targets: what rows say themselves, else what is looked up."""
        if not found:
            if not all(name in row for row in rows):
                raise _lacks(name, request)
            found = self._empty(name, len(rows))
        for place, row in enumerate(rows):
            if name in row:
                for end, value in self._own(name, row[name], request).items():
                    found[end][place] = value
        return found

    def _empty(self, name: str, rows: int) -> Columns:
        kind = "id" if name in self.made.fields else self.made.features[name].kind
        if kind == "list":
            most = self.made.lists[name]
            return {"": np.zeros((rows, most), np.int32), "_length": np.zeros(rows, np.int16)}
        return {"": np.zeros(rows, np.float32 if kind == "number" else np.int32)}

    def _own(self, name: str, value: Any, request: Request) -> dict[str, Any]:
        if name in self.made.fields:
            return {"": self._id(name, value, request)}
        feature = self.made.features[name]
        if feature.vocabulary is None:
            if not is_finite(value):
                value = float(value) if isinstance(value, bool) else _plain(value)
            if value is not None and not is_finite(value):
                raise _misfit(name, "a number", value, request)
            raw = np.array([np.nan if value is None else value], np.float64)
            return {"": as_told(raw, self.made.numbers[name])[0]}
        if feature.kind == "id":
            return {"": self._id(name, value, request)}
        value = _plain(value)
        if value is not None and not isinstance(value, list):
            raise _misfit(name, "a list", value, request)
        most = self.made.lists[name]
        each = dict.fromkeys(self._value(name, one, request) for one in value or [])
        kept = [one for one in each if one is not None][:most]
        ids = np.zeros(most, np.int32)
        ids[: len(kept)] = [self._id(name, one, request) for one in kept]
        return {"": ids, "_length": len(kept)}

    def _id(self, name: str, raw: object, request: Request) -> int:
        return self.words[name].ids.get(self._value(name, raw, request), UNKNOWN_ID)

    def _value(self, name: str, raw: object, request: Request) -> int | str | None:
        try:
            return self.words[name].value(raw)
        except ValueError as error:
            raise _misfit(name, str(error), raw, request) from None


def _plain(value: Any) -> Any:
    """A value as JSON has it, of what NumPy, too, makes of one; NaN is none."""
    if isinstance(value, tuple):
        return [*value]
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    return None if isinstance(value, float) and np.isnan(value) else value


def _require_known(
    what: str, given: Collection[str], known: Collection[str], request: Request
) -> None:
    """Refuse a name that says nothing: where it is misspelt, what it says would be lost."""
    if wrong := sorted(set(given).difference(known)):
        raise InputError(
            f"A request has {what} that nothing is made of.",
            where=f"the request of user {request.user!r} at {request.time}",
            expected=", ".join(known) or "none",
            got=wrong[0][:100] + meant(wrong[0], known),
            do="leave it out, or correct it",
        )


def _lacks(name: str, request: Request) -> InputError:
    return InputError(
        f"A request lacks {name}.",
        where=f"the request of user {request.user!r} at {request.time}",
        expected=f"{name} in each candidate, or in the context",
        got="none",
        do=f"add it; null where there is no {name}",
    )


def _misfit(name: str, expected: str, value: object, request: Request) -> InputError:
    return InputError(
        f"A request has {name} of another type.",
        where=f"the request of user {request.user!r} at {request.time}",
        expected=expected,
        got=repr(value)[:100],
    )
