"""The raw Amazon files as tables, block by block, with a reason for every line refused.

Each file has an exact reader of one line, which defines what the line says, and a fast reader of
many lines, which is used only for lines where it is known to agree. So the result is the same
whatever the size of the blocks and wherever the odd lines are.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import polars as pl
import pyarrow as pa

from pipeline.parallel import map_stream
from pipeline.readers.json_text import decode_lines
from pipeline.readers.lines import BLOCK_BYTES, Block, Part, blocks
from pipeline.readers.meta_lines import read_fields, read_item, scan_items
from pipeline.readers.parsed import TOO_LONG, Parsed, Refused, read_alone
from pipeline.readers.review_lines import DECODER, read_review

REVIEWS = {"row": pl.Int64, "user": pl.String, "item": pl.String, "time": pl.Int64}
META = {"row": pl.Int64, "item": pl.String, "category": pl.String}

_PARSERS = 3  # blocks parsed at once: one thread can feed no more


@dataclass(frozen=True)
class Reviews:
    """The reader of a reviews file: a JSON object a line; see `parsed.Reader`.

    Blank lines count, and are neither rows nor rejected.

    Attributes:
        block_bytes: as in `pipeline.readers.lines.blocks`.
    """

    block_bytes: int = BLOCK_BYTES
    columns: ClassVar = {"user": pa.large_string(), "item": pa.large_string(), "time": pa.int64()}

    def blocks(self, part: Part) -> Generator[Block]:
        """As `Reader.blocks`."""
        return blocks(part, self.block_bytes)

    def parse(self, file: str, block: Block) -> Parsed:
        """As `Reader.parse`."""
        refused = Refused(file)
        return Parsed(_reviews(block.unmarked, refused), refused.frame(), block.lines)


def read_meta(path: Path, wanted: pl.Series, block_bytes: int = BLOCK_BYTES) -> Generator[Parsed]:
    """Read the wanted items of a meta file: one JSON object or Python dict a line.

    Lines that cannot be read are refused whatever item they may be; a line without one of the
    `wanted` asins is left out.

    Args:
        wanted: (items,) asins.
        block_bytes: as in `pipeline.readers.lines.blocks`.

    Yields:
        `rows` with row (int64, 0-based), item (string) and category (string, null where the
        item has none). An item that is there twice gives two rows.

    Raises:
        InputError: as `pipeline.readers.lines.blocks`.
    """
    kept = frozenset(wanted.to_list())

    def parse(block: Block) -> Parsed:
        refused = Refused(path.name)
        return Parsed(_items(block.unmarked, kept, refused), refused.frame(), block.lines)

    yield from map_stream(parse, blocks(path, block_bytes), _PARSERS)


def meta_keys(path: Path) -> list[str]:
    """The keys of a meta file's first line that can be read.

    Raises:
        InputError: as `pipeline.readers.lines.blocks`.
    """
    with closing(blocks(path)) as stream:
        for block in stream:
            lines = enumerate(block.unmarked.data.split(b"\n"))
            for _, fields in read_alone(lines, read_fields, Refused(path.name)):
                return [str(key) for key in fields]
    return []


def _reviews(block: Block, refused: Refused) -> pl.DataFrame:
    if block.too_long is not None:
        refused.add(block.first_line, TOO_LONG, block.too_long)
        return pl.DataFrame(schema=REVIEWS)
    numbers: Sequence[int] = range(block.first_line, block.first_line + block.lines)
    reviews = decode_lines(DECODER, block.data)
    if reviews is None:
        lines = zip(numbers, block.data.split(b"\n"), strict=False)  # nothing is behind the last
        read = list(read_alone(lines, read_review, refused))
        numbers, reviews = [n for n, _ in read], [review for _, review in read]
    columns = {
        "row": numbers,
        "user": [review.reviewerID for review in reviews],
        "item": [review.asin for review in reviews],
        "time": [review.unixReviewTime for review in reviews],
    }
    return pl.DataFrame(columns, REVIEWS)


def _items(block: Block, wanted: frozenset[str], refused: Refused) -> pl.DataFrame:
    if block.too_long is not None:
        refused.add(block.first_line, TOO_LONG, block.too_long)
        return pl.DataFrame(schema=META)
    data, offsets = block.data, block.offsets
    text = pa.LargeStringArray.from_buffers(block.lines, pa.py_buffer(offsets), pa.py_buffer(data))
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:  # some line is not UTF-8
        rows, unsure = pl.DataFrame(schema=META), list(range(block.lines))
    else:
        scanned = scan_items(pl.Series(text), wanted)
        unsure = scanned.filter(~pl.col("sure"))["index"].to_list()
        line = pl.col("index").cast(pl.Int64) + block.first_line
        rows = scanned.filter("sure").select(line.alias("row"), "item", "category")
    lines = ((block.first_line + i, data[offsets[i] : offsets[i + 1] - 1]) for i in unsure)
    read = [(n, *item) for n, item in read_alone(lines, read_item, refused) if item[0] in wanted]
    return pl.concat([rows, pl.DataFrame(read, META, orient="row")]).sort("row")
