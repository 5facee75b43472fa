"""JSON lines as columns: an object a line, of which the keys wanted are read.

msgspec reads nearly all lines, many at once. What it does not accept is for Python's own json,
which also takes other spellings, such as NaN, or tells why a line is none.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl
from polars.exceptions import PolarsError

from pipeline.readers.json_text import (
    NOT_JSON,
    NOT_OBJECT,
    NOT_USUAL,
    decode,
    decode_lines,
    is_text,
)
from pipeline.readers.lines import BLOCK_BYTES, Block, Part, blocks
from pipeline.readers.parsed import TOO_LONG, Refused, read_alone
from schemas.errors import InputError

_SAMPLED_FILES = 8
SAMPLED_LINES = 10_000
"""A key that none of so many first lines has is no column."""

_Leaf = int | float | str | bool | None
_Value = int | float | str | bool | list[_Leaf] | None
_DEEPEST = 8  # of keys within keys that are columns
# Stands for a value that is of no kind: an object, or text that is no Unicode.
_ODD = object()


@dataclass(frozen=True)
class JsonBlock(Block):
    """Consecutive whole lines."""

    @property
    def first_row(self) -> int:
        """The 0-based number of the first row in the file: a line is a row."""
        return self.first_line


@dataclass(frozen=True)
class JsonSource:
    """Where the columns of files of JSON lines come from; see `own_tables.Source`.

    Attributes:
        keys: by the name of a column, the key within keys where its values are.
        block_bytes: as in `pipeline.readers.lines.blocks`.
        nulls: text that stands for a missing value, beside JSON's own null.
    """

    keys: Mapping[str, tuple[str, ...]]
    block_bytes: int = BLOCK_BYTES
    nulls: frozenset[str] = frozenset()

    @classmethod
    def of(cls, paths: Sequence[Path], block_bytes: int = BLOCK_BYTES) -> JsonSource:
        """Look at the first lines of the first files that have any.

        Raises:
            InputError: such a file cannot be read, or its first lines hold no object; or no file
                has a line.
        """
        keys: dict[str, tuple[str, ...]] = {}
        sampled = 0
        for n, path in enumerate(paths, 1):
            if (objects := _sample(path, last=n == len(paths) and not sampled)) is None:
                continue
            _gather(objects, (), keys)
            sampled += 1
            if sampled == _SAMPLED_FILES:
                break
        return cls(keys, block_bytes)

    @property
    def names(self) -> tuple[str, ...]:
        """The keys that the first lines have; of objects within, `a.b`."""
        return tuple(self.keys)

    @property
    def schema(self) -> None:
        """A key may hold anything."""

    tells_nulls = False

    def require(self, paths: Sequence[Path], names: Sequence[str]) -> None:
        """As `Source.require`: a key may be missing."""

    def parts(self, path: Path) -> None:
        """As `Source.parts`: a line is a row."""

    def blocks(self, part: Part, wanted: Mapping[str, str]) -> Generator[JsonBlock]:
        """As `Source.blocks`."""
        with closing(blocks(part, self.block_bytes)) as stream:
            for block in stream:
                yield JsonBlock(block.first_line, block.unmarked.data, block.lines, block.too_long)

    def frames(
        self, block: JsonBlock, wanted: Mapping[str, str], refused: Refused
    ) -> Iterator[tuple[npt.NDArray[np.int64], pl.DataFrame]]:
        """As `Source.frames`."""
        if block.too_long is not None:
            refused.add(block.first_line, TOO_LONG, block.too_long)
            return
        shape = _Shape({name: self.keys[name] for name in wanted})
        rows = shape.at_once(block.data)
        if rows is not None:
            indices = np.arange(block.lines)
            values = {name: shape.values(rows, name) for name in wanted}
        else:
            lines = enumerate(block.data.split(b"\n")[:-1], block.first_line)
            found = list(read_alone(lines, shape.one, refused))
            indices = np.array([number - block.first_line for number, _ in found], np.int64)
            values = {name: [row[k] for _, row in found] for k, name in enumerate(wanted)}
        yield (
            indices,
            pl.DataFrame(
                {name: _series(name, values[name], kind) for name, kind in wanted.items()}
            ),
        )

    def record(self, block: JsonBlock, index: int) -> tuple[int, bytes]:
        """As `Source.record`."""
        if block.too_long is not None:
            return block.first_line, block.too_long
        return block.first_line + index, block.data[block.offsets[index] : block.offsets[index + 1]]


class _Shape:
    """Reads some keys of objects: by name, the key within keys."""

    def __init__(self, keys: Mapping[str, tuple[str, ...]]) -> None:
        self.keys = dict(keys)
        self.attributes: dict[str, tuple[str, ...]] = {}  # that lead to a column's value
        row = self._struct(list(keys.items()), ())
        self._decoder = msgspec.json.Decoder(row) if row is not None else None

    def _struct(self, keys: list[tuple[str, tuple[str, ...]]], above: tuple[str, ...]) -> Any:
        """A class for objects with some keys; other keys are passed over.

        Returns:
            None where an object and a key of it are wanted: no class has both.
        """
        firsts: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
        for name, path in keys:
            firsts.setdefault(path[0], []).append((name, path[1:]))
        fields: list[Any] = []
        for k, below in enumerate(firsts.values()):
            inner = [(name, path) for name, path in below if path]
            at = (*above, f"f{k}")
            self.attributes |= {name: at for name, path in below if not path}
            struct = self._struct(inner, at) if inner else None
            if inner and (struct is None or len(inner) < len(below)):
                return None
            fields.append((at[-1], struct | None if struct is not None else _Value, None))
        rename = {f"f{k}": key for k, key in enumerate(firsts)}
        return msgspec.defstruct("Row", fields, gc=False, rename=rename)

    def values(self, rows: list[Any], name: str) -> list[Any]:
        """A column of what `at_once` gives."""
        *above, last = self.attributes[name]
        for attribute in above:
            rows = [None if row is None else getattr(row, attribute) for row in rows]
        if above:
            return [None if row is None else getattr(row, last) for row in rows]
        return list(map(attrgetter(last), rows))

    def at_once(self, data: bytes) -> list[Any] | None:
        """All objects of whole lines, as `decode_lines`."""
        return None if self._decoder is None else decode_lines(self._decoder, data)

    def one(self, line: str) -> list[Any] | str:
        """The values of one line, exactly, or why it has none."""
        if self._decoder is not None:
            with suppress(*NOT_USUAL):
                row = [self._decoder.decode(line)]
                return [self.values(row, name)[0] for name in self.keys]
        try:
            fields = decode(line)
        except ValueError:
            return NOT_JSON
        if not isinstance(fields, dict):
            return NOT_OBJECT
        return [_plain(_within(fields, path)) for path in self.keys.values()]


def _within(fields: Any, path: Sequence[str]) -> Any:
    for key in path:
        if not isinstance(fields, dict):
            return None
        fields = fields.get(key)
    return fields


def _plain(value: Any) -> Any:
    """A value, or what stands for one of no kind."""
    if isinstance(value, list):
        return [_ODD if isinstance(one, list) else _plain(one) for one in value]
    if isinstance(value, dict) or (isinstance(value, str) and not is_text(value)):
        return _ODD
    return value


def _series(name: str, values: list[Any], kind: str) -> pl.Series:
    """A column of values of one type, or of Python's objects."""
    types = set(map(type, values)) - {type(None)}
    of: Any = {frozenset({str}): pl.String, frozenset({bool}): pl.Boolean}.get(frozenset(types))
    if types == {list}:
        inner = {type(one) for value in values if value is not None for one in value}
        of = {(): pl.String, (str,): pl.String, (int,): pl.Int64}.get(tuple(inner - {type(None)}))
        of = pl.List(of) if of is not None else None
    elif types <= {int, float} and (len(types) < 2 or kind == "number"):
        of = pl.Int64 if types == {int} and kind != "number" else pl.Float64
    if of is not None:
        with suppress(OverflowError, TypeError, PolarsError):  # a number may be too large
            return pl.Series(name, values, of)
    return pl.Series(name, values, pl.Object)


def _sample(path: Path, *, last: bool) -> list[dict[str, Any]] | None:
    """The objects of a file's first lines; None of an empty one, unless it is the `last` hope."""
    found: list[dict[str, Any]] = []
    first = None
    with closing(blocks(path, 1 << 16)) as stream:
        for block in stream:
            for line in block.unmarked.data.split(b"\n")[:-1]:
                if first is None and line.strip():
                    first = line
                try:
                    value = decode(line.decode())
                except ValueError:
                    continue
                if isinstance(value, dict):
                    found.append(value)
            if block.first_line + block.lines >= SAMPLED_LINES:
                break
    if found or (first is None and not last):
        return found or None
    array = first is not None and first.lstrip().startswith(b"[")
    raise InputError(
        "The file holds no JSON lines.",
        where=path,
        expected="a JSON object a line",
        got="no bytes" if first is None else first[:200].decode(errors="replace"),
        do="write the array's objects a line each, as `jq -c '.[]'` does" if array else None,
    )


def _gather(
    objects: list[dict[str, Any]], above: tuple[str, ...], keys: dict[str, tuple[str, ...]]
) -> None:
    """Enter the keys of objects, and of those within them, in the order they are first met."""
    below: dict[str, list[dict[str, Any]]] = {}
    for one in objects:
        for key, value in one.items():
            if isinstance(value, dict):
                below.setdefault(key, []).append(value)
            else:
                keys.setdefault(".".join((*above, key)), (*above, key))
    if len(above) < _DEEPEST:
        for key, values in below.items():
            _gather(values, (*above, key), keys)
