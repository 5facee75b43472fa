"""Comma-separated text, and text with any other separator, as records in blocks.

`split_record` defines what a record's fields are. Arrow splits by the thousand those records that
both must read alike; the others are split one by one. So the fields are the same whatever the size
of the blocks.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
from pyarrow import csv as arrow_csv

from pipeline.readers.lines import BLOCK_BYTES, LINE_LIMIT, Block, Part, blocks
from pipeline.readers.parsed import TOO_LONG, Refused
from pipeline.readers.values import BLANKS, NOT_UTF8, NULLS
from schemas.errors import ByDescription, InputError, UsageError

# Arrow would take Ctrl-C and SIGTERM over while it reads; `schemas.interrupts` handles them.
pa.enable_signal_handlers(False)
# Python's own limit is of 128 KiB.
csv.field_size_limit(LINE_LIMIT)

DELIMITERS = (",", "\t", ";", "|", "::", " ")
"""What may well stand between columns."""
WRONG_COLUMNS = "wrong number of columns"
BAD_QUOTES = "quotes out of place"

RECORD_LIMIT = 1 << 20
"""Bytes of a record of several lines. A quote that is closed no sooner is out of place."""

_ARROW_TYPES = {"whole": pa.int64(), "number": pa.float64(), "text": pa.large_string()}
_BLANK = BLANKS.encode() + b"\r\n"
_SHOWN = 200  # characters of an error
_STAND_INS = tuple(bytes([byte]) for byte in (0x1F, 0x1E, 0x1D, 0x1C, 0x01, 0x02))


@dataclass(frozen=True)
class CsvFormat:
    r"""How a file of text is made up.

    Attributes:
        delimiter: what separates fields: `,`, a tab, or several characters such as `::`, which
            then stand in no field.
        quote: what fields are quoted with, and doubled within them; None for no such thing. A
            quoted field may hold delimiters and newlines.
        columns: the names of the columns; None where the first line, which is then no row, says
            them.
        nulls: what stands for a missing value, as does nothing at all.
        encoding: of the text, e.g. latin-1; of utf-8 a byte-order mark may come first.
    """

    delimiter: str = ","
    quote: str | None = '"'
    columns: tuple[str, ...] | None = None
    nulls: tuple[str, ...] = NULLS
    encoding: str = "utf-8"

    @property
    def has_header(self) -> bool:
        """Whether the first line is no row."""
        return self.columns is None

    @property
    def quoting(self) -> str | None:
        """What fields are quoted with; nothing, where a delimiter is of several characters."""
        return self.quote if len(self.delimiter) == 1 else None


@dataclass(frozen=True)
class CsvBlock(Block):
    """Consecutive whole records; `lines` says how many.

    Attributes:
        first_row: 0-based number of the first record in the file; a header is none.
        starts: (records + 1,) where each begins in `data`, and the end; None where each line is
            one.
        alone: the records that Arrow might read otherwise.
        names: the columns of its file.
    """

    first_row: int = 0
    starts: npt.NDArray[np.int64] | None = None
    alone: tuple[int, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def at(self) -> npt.NDArray[np.int64]:
        """(records + 1,) where each begins in `data`, and the end."""
        return self.offsets if self.starts is None else self.starts

    def records_at(self, places: Sequence[int]) -> list[int]:
        """The records that some bytes of `data` are of."""
        if not places:
            return []
        found: list[int] = (np.searchsorted(self.at, places, "right") - 1).tolist()
        return found

    def record(self, index: int) -> tuple[int, bytes]:
        """The 0-based number in the file of the line where a record begins, and its bytes."""
        if self.too_long is not None:
            return self.first_line, self.too_long
        data = self.data[self.at[index] : self.at[index + 1]]
        before = index if self.starts is None else self.data.count(b"\n", 0, int(self.at[index]))
        return self.first_line + before, data


def split_record(text: str, form: CsvFormat) -> list[str] | str:
    """The fields of a record, or why it has none.

    Quotes count only at the beginning of a field, where they have to enclose all of it.

    Args:
        text: the record without its end; a carriage return there is part of the end.
    """
    text = text.removesuffix("\r")
    if form.quoting is None or form.quoting not in text:
        return text.split(form.delimiter)
    lines = text.split("\n")
    ended = [f"{line}\n" for line in lines[:-1]] + [lines[-1]]
    try:
        records = list(
            csv.reader(ended, strict=True, delimiter=form.delimiter, quotechar=form.quoting)
        )
    except csv.Error:
        return BAD_QUOTES
    return records[0] if len(records) == 1 else BAD_QUOTES


@dataclass(frozen=True)
class CsvSource:
    """Where the columns of files of text come from; see `tables.Source`.

    Attributes:
        form: how the files are made up.
        names: the columns of the first file.
        block_bytes: as in `pipeline.readers.lines.blocks`.
        others: the columns of files that have others, or in another order.
    """

    form: CsvFormat
    names: tuple[str, ...]
    block_bytes: int = BLOCK_BYTES
    others: Mapping[Path, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, paths: Sequence[Path], form: CsvFormat, block_bytes: int = BLOCK_BYTES
    ) -> CsvSource:
        """Look at the files' headers.

        Raises:
            InputError: a file cannot be read, or is empty, or its header has a name twice.
        """
        _check_encoding(form.encoding)
        names = form.columns
        if names is not None:
            _check_delimiter(paths[0], form, names)
        else:
            headers = {path: header(path, form) for path in paths}
            names = headers[paths[0]]
            for path, found in headers.items():
                _check_header(path, found)
            others = {path: found for path, found in headers.items() if found != names}
            return cls(form, names, block_bytes, others)
        return cls(form, names, block_bytes)

    @property
    def schema(self) -> None:
        """Text may be anything."""

    tells_nulls = True

    @property
    def nulls(self) -> frozenset[str]:
        """What stands for a missing value."""
        return frozenset(self.form.nulls)

    def require(self, paths: Sequence[Path], names: Sequence[str]) -> None:
        """As `Source.require`: columns may stand in another order, and further ones beside them."""
        for path in paths:
            found = self.others.get(path, self.names)
            if lacking := [name for name in names if name not in found]:
                raise InputError(
                    "The header of a file lacks columns that the first one has.",
                    where=path,
                    line=1,
                    expected=", ".join(lacking),
                    got=self.form.delimiter.join(found)[:_SHOWN],
                    do="mend the header; if there is none, put the first file's before the "
                    "lines; or give the file as a table of its own",
                )

    def parts(self, path: Path) -> list[Part] | None:
        """As `Source.parts`: where a quote may stand around a newline, the file is one part."""
        quote = self.form.quoting
        if quote is None:
            return None
        with closing(blocks(path, self.block_bytes)) as stream:
            return [Part(path)] if any(quote.encode() in block.data for block in stream) else None

    def blocks(self, part: Part, wanted: Mapping[str, str]) -> Generator[CsvBlock]:
        """As `Source.blocks`."""
        with closing(blocks(part, self.block_bytes)) as stream:
            names = self.others.get(part.path, self.names)
            for block in self._records(self._rows(part, stream), names):
                yield replace(block, names=names)

    def _rows(self, part: Part, stream: Generator[Block]) -> Iterator[Block]:
        """The blocks in UTF-8, without the header."""
        skip = 1 if self.form.has_header and not part.begin else 0
        for block in stream:
            block = _in_utf8(block.unmarked, self.form.encoding)
            if not skip:
                yield block
                continue
            skip = 0
            end = block.data.find(b"\n") + 1
            if block.lines > 1:
                yield Block(block.first_line + 1, block.data[end:], block.lines - 1)

    def _records(self, stream: Iterator[Block], names: Sequence[str]) -> Iterator[CsvBlock]:
        """Blocks of whole records."""
        cutter = _Cutter(self.form, len(names))
        first_row: int | None = None
        for block in stream:
            if first_row is None:
                first_row = block.first_line - (1 if self.form.has_header else 0)
            for cut in cutter.cut(block):
                yield replace(cut, first_row=first_row)
                first_row += cut.lines
        for cut in cutter.rest():
            assert first_row is not None
            yield replace(cut, first_row=first_row)
            first_row += cut.lines

    def frames(
        self, block: CsvBlock, wanted: Mapping[str, str], refused: Refused
    ) -> Iterator[tuple[npt.NDArray[np.int64], pl.DataFrame]]:
        """As `Source.frames`."""
        if block.too_long is not None:
            refused.add(block.first_line, TOO_LONG, block.too_long)
            return
        alone = self._alone(block)
        found = self._at_once(block, alone, wanted, refused)
        if found is None:
            alone = sorted({*alone, *self._empty(block)})
            found = self._at_once(block, alone, wanted, refused)
        if found is not None:
            yield found
        if alone:
            yield self._one_by_one(block, alone, wanted, refused)

    def record(self, block: CsvBlock, index: int) -> tuple[int, bytes]:
        """As `Source.record`."""
        return block.record(index)

    def _alone(self, block: CsvBlock) -> list[int]:
        """The records that Arrow might read otherwise."""
        data, places = block.data, []
        if self._delimiter_in(data) is None:
            return list(range(block.lines))
        if b"\r" in data:
            places += [match.start() for match in re.finditer(rb"\r(?!\n)", data)]
        if not data.isascii():
            places += _not_utf8(data)
        return sorted({*block.alone, *block.records_at(places)})

    def _empty(self, block: CsvBlock) -> list[int]:
        """The records that are lines without a character."""
        return block.records_at([m.start() for m in re.finditer(rb"(?m)^\r?\n", block.data)])

    def _delimiter_in(self, data: bytes) -> str | None:
        """What stands for the delimiter, for Arrow, which takes one byte; None for nothing."""
        if len(self.form.delimiter) == 1 and self.form.delimiter.isascii():
            return self.form.delimiter
        return next((byte.decode() for byte in _STAND_INS if byte not in data), None)

    def _at_once(
        self, block: CsvBlock, alone: Sequence[int], wanted: Mapping[str, str], refused: Refused
    ) -> tuple[npt.NDArray[np.int64], pl.DataFrame] | None:
        """The records that do not stand alone, through Arrow's reader.

        Returns:
            None where there is none, or some are empty: Arrow leaves those out.
        """
        data, nulls, quote = _others(block, alone), self.form.nulls, self.form.quoting
        if not data.strip(b"\r\n"):
            return None
        delimiter = self._delimiter_in(block.data)
        assert delimiter is not None
        if delimiter != self.form.delimiter:
            data = data.replace(self.form.delimiter.encode(), delimiter.encode())
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        if quote is not None and quote.encode() not in data:
            quote = None
        text = dict.fromkeys(wanted, "text")
        # Arrow reads hexadecimal numbers, too.
        odd = any(x in data and b"0" + x in data for x in (b"x", b"X"))
        try:
            table, ragged = _arrow(
                data, block.names, delimiter, quote, text if odd else wanted, nulls
            )
        except pa.ArrowInvalid:
            table, ragged = _arrow(data, block.names, delimiter, quote, text, nulls)
        indices = np.delete(np.arange(block.lines), alone)
        if table.num_rows + len(ragged) < len(indices):
            return None
        for row in ragged:
            line, record = block.record(int(indices[row]))
            if record.strip(_BLANK):
                refused.add(line, WRONG_COLUMNS, record)
        frame = pl.DataFrame({name: table[name].combine_chunks() for name in wanted})
        if b" " in data or b"\t" in data:
            texts = [name for name, kind in frame.schema.items() if kind == pl.String]
            missing = pl.col(texts).str.strip_chars(BLANKS).is_in(["", *nulls])
            frame = frame.with_columns(pl.when(~missing).then(pl.col(texts)).name.keep())
        return np.delete(indices, ragged), frame

    def _one_by_one(
        self, block: CsvBlock, alone: Sequence[int], wanted: Mapping[str, str], refused: Refused
    ) -> tuple[npt.NDArray[np.int64], pl.DataFrame]:
        """The records that can be read, each by itself."""
        kept: list[int] = []
        rows: list[list[str]] = []
        for index in alone:
            line, data = block.record(index)
            if not data.strip(_BLANK):
                continue
            try:
                found = split_record(data.decode().removesuffix("\n"), self.form)
            except UnicodeDecodeError:
                found = NOT_UTF8
            if not isinstance(found, str) and len(found) != len(block.names):
                found = WRONG_COLUMNS
            if isinstance(found, str):
                refused.add(line, found, data)
                continue
            kept.append(index)
            rows.append(found)
        at = [block.names.index(name) for name in wanted]
        columns = {
            name: pl.Series(name, [self._there(row[i]) for row in rows], pl.String)
            for name, i in zip(wanted, at, strict=True)
        }
        return np.array(kept, np.int64), pl.DataFrame(columns)

    def _there(self, field: str) -> str | None:
        bare = field.strip(BLANKS)
        return None if not bare or bare in self.form.nulls else field


def header(path: Path, form: CsvFormat) -> tuple[str, ...]:
    """The names that the first line of a file gives, without blanks around them.

    Raises:
        InputError: it has no such line, or cannot be read.
    """
    text = _first_line(path, form)
    if text is None:
        raise InputError(
            "The file is empty.",
            where=path,
            line=1,
            expected="a header with the columns' names",
            got="no bytes",
            do=ByDescription("give the right file, or name the columns if it has no header"),
        )
    fields = split_record(text, form)
    if isinstance(fields, str) or not any(field.strip(BLANKS) for field in fields):
        raise InputError(
            "The first line of the file is no header.",
            where=path,
            line=1,
            expected="the columns' names",
            got=text[:_SHOWN] or "an empty line",
            do=ByDescription("name the columns if it has no header"),
        )
    # Of several columns without a name, as a trailing delimiter makes them, none has one twice.
    names = [field.strip(BLANKS) for field in fields]
    blank = names.count("")
    return tuple(name or " " * (blank - names[n:].count("")) for n, name in enumerate(names))


def _first_line(path: Path, form: CsvFormat) -> str | None:
    """The first line of a file; None of an empty one."""
    with closing(blocks(path, 1 << 16)) as stream:
        block = next(stream, None)
    if block is None:
        return None
    head = _in_utf8(block.unmarked, form.encoding)
    return head.data[: head.data.find(b"\n")].decode(errors="replace")


def _check_delimiter(path: Path, form: CsvFormat, names: Sequence[str]) -> None:
    """Refuse a file whose first line has all columns, but between other delimiters."""
    text = _first_line(path, form) or ""
    if len(names) == 1 or form.delimiter in text:
        return
    for other in DELIMITERS:
        if len(text.split(other)) == len(names):
            raise InputError(
                "The columns stand between other delimiters.",
                where=path,
                line=1,
                expected=f"{len(names)} columns, {form.delimiter!r} between them",
                got=text[:_SHOWN],
                do=delimiter_told(other),
            )


def delimiter_told(delimiter: str) -> str:
    """What to do where this one stands between columns."""
    told = "\\t" if delimiter == "\t" else delimiter
    return ByDescription(
        f'add --delimiter "{told}" to the columns of a file of events; in a description say '
        f'csv = {{ delimiter = "{told}" }}'
    )


def _check_encoding(encoding: str) -> None:
    try:
        one_byte = "\n".encode(encoding) == b"\n"
    except LookupError:
        one_byte = False
    if not one_byte:
        raise UsageError(
            "The encoding cannot be read.",
            where="encoding",
            expected="one of Python's in which a newline is one byte, as utf-8 or latin-1",
            got=encoding,
            do="write the file as UTF-8",
        )


def _check_header(path: Path, names: Sequence[str]) -> None:
    if any(re.search(r"\r(?!\n)", name) for name in names):
        raise InputError(
            "The file's lines do not end in newlines.",
            where=path,
            line=1,
            expected="newlines",
            got=ascii(", ".join(names))[:_SHOWN],
            do="write them for carriage returns, as `tr '\\r' '\\n'` does",
        )
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise InputError(
            "The header of the file has a name twice.",
            where=path,
            line=1,
            expected="a name of its own for each column",
            got=", ".join(names)[:_SHOWN],
            do=f"mend {', '.join(twice)[:_SHOWN]}; if these are values, put a header before them",
        )


def _arrow(
    data: bytes,
    names: Sequence[str],
    delimiter: str,
    quote: str | None,
    wanted: Mapping[str, str],
    nulls: Sequence[str],
) -> tuple[pa.Table, list[int]]:
    """The columns that are wanted, and the numbers of the records of another number of fields.

    Raises:
        pa.ArrowInvalid: a value is not of its type.
    """
    ragged: list[int] = []

    def skip(row: arrow_csv.InvalidRow) -> str:
        ragged.append(row.number - 1)
        return "skip"

    table = arrow_csv.read_csv(
        pa.BufferReader(data),
        arrow_csv.ReadOptions(
            use_threads=False, block_size=max(len(data), 1 << 10), column_names=list(names)
        ),
        arrow_csv.ParseOptions(
            delimiter=delimiter,
            quote_char=quote or False,
            double_quote=quote is not None,
            invalid_row_handler=skip,
        ),
        arrow_csv.ConvertOptions(
            column_types={name: _ARROW_TYPES[kind] for name, kind in wanted.items()},
            include_columns=list(wanted),
            null_values=["", *nulls],
            strings_can_be_null=True,
        ),
    )
    return table, ragged


def _others(block: CsvBlock, alone: Sequence[int]) -> bytes:
    """The records of a block that do not stand alone."""
    if not alone:
        return block.data
    pieces, begin = [], 0
    for index in alone:
        pieces.append(block.data[begin : block.at[index]])
        begin = int(block.at[index + 1])
    return b"".join((*pieces, block.data[begin:]))


def _not_utf8(data: bytes) -> Iterator[int]:
    """Where bytes stand that are no UTF-8, at least one place of each line with such."""
    at = 0
    while at < len(data):
        try:
            data[at:].decode() if at else data.decode()
        except UnicodeDecodeError as error:
            yield at + error.start
            at = data.index(b"\n", at + error.start) + 1
        else:
            return


def _in_utf8(block: Block, encoding: str) -> Block:
    """A block in UTF-8; lines that are not in `encoding` are left as no text at all."""
    if encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig") or not block.data:
        return block
    try:
        data = block.data.decode(encoding).encode()
    except UnicodeDecodeError:
        lines = block.data.split(b"\n")[:-1]
        data = b"".join(_line_in_utf8(line, encoding) + b"\n" for line in lines)
    return replace(block, data=data)


def _line_in_utf8(line: bytes, encoding: str) -> bytes:
    try:
        return line.decode(encoding).encode()
    except UnicodeDecodeError:
        return b"\xff" + line


class _Cutter:
    """Cuts blocks of lines at the ends of records, of which quoted ones may have several lines.

    A record of several lines that is not whole, or has another number of columns, is none: its
    first line is refused alone, and the next line begins a record. So a stray quote loses a line.
    """

    def __init__(self, form: CsvFormat, columns: int) -> None:
        self.form, self.columns = form, columns
        self.quote = form.quoting.encode() if form.quoting is not None else None
        self.delimiter = form.delimiter.encode()
        self.begun: Block | None = None  # the lines of a record that has no end so far

    def cut(self, block: Block) -> Iterator[CsvBlock]:
        """The whole records of the block, and of what was begun before it."""
        if block.too_long is not None:
            yield from self.rest()
            yield CsvBlock(block.first_line, b"", 1, block.too_long)
            return
        if self.begun is not None:
            begun, self.begun = self.begun, None
            block = Block(begun.first_line, begun.data + block.data, begun.lines + block.lines)
        if self.quote is None or self.quote not in block.data:
            yield CsvBlock(block.first_line, block.data, block.lines)
            return
        yield from self._cut(block, last=False)

    def rest(self) -> Iterator[CsvBlock]:
        """The records of what was begun, when no more lines follow."""
        if self.begun is not None:
            begun, self.begun = self.begun, None
            yield from self._cut(begun, last=True)

    def _cut(self, block: Block, last: bool) -> Iterator[CsvBlock]:
        offsets = block.offsets
        unclean = _unclean(block.data, offsets, self.quote or b"", self.delimiter)
        if not len(unclean):
            yield CsvBlock(block.first_line, block.data, block.lines)
            return
        spans: list[tuple[int, int]] = []  # of the records alone: the first line, and the one after
        end = 0
        for line in unclean.tolist():
            if line < end:
                continue
            found = self._lines_of(block.data, offsets, line, last)
            if found is None:
                rest = block.data[offsets[line] :]
                self.begun = Block(block.first_line + line, rest, block.lines - line)
                break
            end = line + found
            spans.append((line, end))
        lines = block.lines - (self.begun.lines if self.begun is not None else 0)
        if not lines:
            return
        data = block.data[: offsets[lines]]
        first = np.ones(lines, bool)  # of a record
        for begin, end in spans:
            first[begin + 1 : end] = False
        number = np.cumsum(first) - 1
        alone = tuple(int(number[begin]) for begin, _ in spans)
        starts = np.append(offsets[:lines][first], offsets[lines])
        several = len(starts) - 1 < lines
        yield CsvBlock(
            block.first_line, data, len(starts) - 1, None, 0, starts if several else None, alone
        )

    def _lines_of(
        self, data: bytes, offsets: npt.NDArray[np.int64], line: int, last: bool
    ) -> int | None:
        """How many lines the record has that begins at a line; None where more have to follow."""
        begin, form = int(offsets[line]), self.form
        limit = begin + RECORD_LIMIT
        taken = 0

        def lines() -> Iterator[str]:
            nonlocal taken
            for at in range(line, len(offsets) - 1):
                if offsets[at + 1] > limit:
                    return
                taken += 1
                # A stray byte is for who reads the record.
                yield data[offsets[at] : offsets[at + 1]].decode(errors="replace")

        reader = csv.reader(lines(), strict=True, delimiter=form.delimiter, quotechar=form.quoting)
        try:
            fields = next(reader, None)
        except csv.Error as error:
            open_still = "unexpected end" in str(error)
            more = line + taken == len(offsets) - 1 and offsets[-1] <= limit and not last
            return None if open_still and more else 1
        return taken if fields is not None and (taken == 1 or len(fields) == self.columns) else 1


def _unclean(
    data: bytes, offsets: npt.NDArray[np.int64], quote: bytes, delimiter: bytes
) -> npt.NDArray[np.int64]:
    """The lines whose quotes are not all around whole fields, or doubled within them."""
    text = np.frombuffer(data, np.uint8)
    at = np.flatnonzero(text == quote[0])
    if len(quote) > 1 or len(delimiter) > 1:  # of no ASCII
        return np.arange(len(offsets) - 1)
    before = text[np.maximum(at - 1, 0)]
    after = text[np.minimum(at + 1, len(text) - 1)]
    ends = (after == delimiter[0]) | (after == ord("\n")) | (after == quote[0])
    # Nearly always quotes are around whole fields, and no newline is between two of a pair.
    whole = ((before == delimiter[0]) | (before == ord("\n")) | (before == quote[0]))[0::2]
    if at[0] == 0:
        whole[0] = True
    usual = len(at) % 2 == 0 and whole.all() and ends[1::2].all()
    if usual and not (np.searchsorted(at, offsets[1:]) % 2).any():
        return np.zeros(0, np.int64)
    line = np.searchsorted(offsets, at, "right") - 1
    first = np.searchsorted(line, line, "left")  # the first quote of the same line
    opens = (np.arange(len(at)) - first) % 2 == 0
    return_ = (after == ord("\r")) & (text[np.minimum(at + 2, len(text) - 1)] == ord("\n"))
    begins = (at == offsets[line]) | (before == delimiter[0]) | (before == quote[0])
    ends |= return_
    # One that opens right behind another is the second of two within a field.
    bad = np.where(opens, ~begins, ~ends)
    odd = np.bincount(line, minlength=len(offsets) - 1) % 2 == 1
    return np.flatnonzero(odd | (np.bincount(line[bad], minlength=len(offsets) - 1) > 0))
