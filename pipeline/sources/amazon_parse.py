"""The raw Amazon 2014 files as tables, block by block, with a reason for every line refused.

Each file has an exact reader of one line, which defines what the line says, and a fast reader of
many lines, which is used only for lines where it is known to agree. So the result is the same
whatever the size of the blocks and wherever the odd lines are.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from pipeline.engines.local import map_stream
from pipeline.lines import BLOCK_BYTES, Block, Part, blocks, line_offsets
from pipeline.sources.parsed import NOT_UTF8, TOO_LONG, Parsed, Refused
from pipeline.sources.python_literal import read_item, scan_items
from pipeline.sources.review_json import looks_good, read_review, scan_reviews

REVIEWS = {"row": pl.Int64, "user": pl.String, "item": pl.String, "time": pl.Int64}
META = {"line": pl.Int64, "item": pl.String, "category": pl.String}

_PARSERS = 3  # blocks parsed at once: one thread can feed no more

Line = TypeVar("Line", bound=tuple[object, ...])
Numbers = npt.NDArray[np.int64]


def read_reviews(part: Part | Path, block_bytes: int = BLOCK_BYTES) -> Generator[Parsed]:
    """Read a reviews file: one JSON object a line with reviewerID, asin and unixReviewTime.

    Args:
        part: the file, or a part of it.
        block_bytes: as in `pipeline.lines.blocks`.

    Yields:
        `rows` with row (int64, 0-based line in the file; blank lines count, and are neither rows
        nor rejected), user (string), item (string) and time (int64, unix seconds, >= 0).

    Raises:
        InputError: as `pipeline.lines.blocks`.
    """

    def parse(block: Block) -> Parsed:
        refused = Refused(name)
        return Parsed(_reviews(_unmarked(block), refused), refused.frame(), block.lines)

    name = (part.path if isinstance(part, Part) else part).name
    yield from map_stream(parse, blocks(part, block_bytes), _PARSERS)


def read_meta(path: Path, wanted: pl.Series, block_bytes: int = BLOCK_BYTES) -> Generator[Parsed]:
    """Read the wanted items of a meta file: one Python dict a line with asin and categories.

    Lines that cannot be read are refused whatever item they may be; a line without one of the
    `wanted` asins is left out.

    Args:
        path: the file.
        wanted: (items,) asins.
        block_bytes: as in `pipeline.lines.blocks`.

    Yields:
        `rows` with line (int64, 0-based), item (string) and category (string, null where the
        item has none). An item that is there twice gives two rows.

    Raises:
        InputError: as `pipeline.lines.blocks`.
    """
    kept = frozenset(wanted.to_list())

    def parse(block: Block) -> Parsed:
        refused = Refused(path.name)
        return Parsed(_items(_unmarked(block), kept, refused), refused.frame(), block.lines)

    yield from map_stream(parse, blocks(path, block_bytes), _PARSERS)


def _unmarked(block: Block) -> Block:
    """A block without the byte order mark that some editors put before a file's text."""
    if block.first_line or not block.data.startswith(BOM_UTF8):
        return block
    return Block(0, block.data[len(BOM_UTF8) :], block.lines)


def _reviews(block: Block, refused: Refused) -> pl.DataFrame:
    """The rows of a block, in order."""
    if block.too_long is not None:
        refused.add(block.first_line, TOO_LONG, block.too_long)
        return pl.DataFrame(schema=REVIEWS)
    data, offsets = block.data, block.offsets
    index = np.arange(block.lines)
    scanned = scan_reviews(data, offsets)
    if scanned is None:
        # One line that Polars cannot read hides all the others: leave such lines out.
        data, offsets, text = _as_text(block, refused)
        index = np.flatnonzero(looks_good(text).to_numpy())
        bounds = offsets.tolist()
        good = b"".join([data[bounds[i] : bounds[i + 1]] for i in index.tolist()])
        scanned = scan_reviews(good, line_offsets(good))
    if scanned is None:
        index, rows = index[:0], pl.DataFrame(schema=REVIEWS)
    else:
        index = index[scanned["sure"].to_numpy()]
        rows = scanned.filter("sure").select(
            pl.Series("row", index + block.first_line, dtype=pl.Int64), "user", "item", "time"
        )
    if len(index) == block.lines:
        return rows
    unsure = np.setdiff1d(np.arange(block.lines), index, assume_unique=True)
    exact = _exact(data, offsets, unsure, block.first_line, read_review, refused)
    read = pl.DataFrame([(n, *review) for n, review in exact], REVIEWS, orient="row")
    return pl.concat([rows, read]).sort("row")


def _items(block: Block, wanted: frozenset[str], refused: Refused) -> pl.DataFrame:
    """The wanted items of a block, in order."""
    if block.too_long is not None:
        refused.add(block.first_line, TOO_LONG, block.too_long)
        return pl.DataFrame(schema=META)
    data, offsets, text = _as_text(block, refused)
    scanned = scan_items(text, wanted)
    unsure = scanned.filter(~pl.col("sure"))["index"].to_numpy()
    rows = scanned.filter("sure").select(
        "item", "category", line=pl.col("index").cast(pl.Int64) + block.first_line
    )
    exact = _exact(data, offsets, unsure, block.first_line, read_item, refused)
    read = [(n, *item) for n, item in exact if item[0] in wanted]
    return pl.concat([rows.select(list(META)), pl.DataFrame(read, META, orient="row")]).sort("line")


def _as_text(block: Block, refused: Refused) -> tuple[bytes, Numbers, pl.Series]:
    """A block's bytes, (lines + 1,) offsets and (lines,) strings, which share the bytes.

    Lines that are not UTF-8 are refused, and blank in what is returned.
    """
    data, offsets = block.data, block.offsets
    text = pa.LargeStringArray.from_buffers(block.lines, pa.py_buffer(offsets), pa.py_buffer(data))
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        lines = [line + b"\n" for line in data.split(b"\n")[:-1]]
        for number, line in enumerate(lines):
            if not _is_utf8(line):
                refused.add(block.first_line + number, NOT_UTF8, line)
                lines[number] = b"\n"
        data = b"".join(lines)
        again = Block(block.first_line, data, block.lines)
        return _as_text(again, refused)
    series = pl.from_arrow(text)
    assert isinstance(series, pl.Series)
    return data, offsets, series


def _exact(
    data: bytes,
    offsets: Numbers,
    lines: Numbers,
    first: int,
    read: Callable[[str], Line | str],
    refused: Refused,
) -> Iterator[tuple[int, Line]]:
    """Some lines of a block through an exact reader, each with its number in the file."""
    for index in lines.tolist():
        line = data[offsets[index] : offsets[index + 1] - 1]
        if not line.strip(b" \t\r"):
            continue
        found = read(line.decode()) if _is_utf8(line) else NOT_UTF8
        if isinstance(found, str):
            refused.add(first + index, found, line)
        else:
            yield first + index, found


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True
