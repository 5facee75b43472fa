"""The raw Alibaba files (tianchi 56) as tables, block by block, with a reason for every refusal.

The exact reader of one line, `alibaba_columns.read_line`, defines what a line says; the fast
reader of many, `alibaba_scan`, is used only for lines where it is known to agree. So the result
is the same whatever the size of the blocks, the number of threads and wherever the odd lines are.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.engines.local import map_stream
from pipeline.lines import BLOCK_BYTES, Block, Part, blocks
from pipeline.sources.alibaba_columns import (
    ADS,
    BEHAVIORS,
    BTAGS,
    IMPRESSIONS,
    PROFILES,
    Column,
)
from pipeline.sources.alibaba_rows import Piece, as_frame, in_pieces
from pipeline.sources.parsed import SHOWN, Parsed, Refused
from schemas.errors import InputError


@dataclass(frozen=True)
class ParsedBehaviors(Parsed):
    """What a block of the behaviour log holds.

    Attributes:
        read: how many lines could be read, those left out of `rows` too.
        other_btag: how many of them were left out for a btag that is not wanted.
        no_time: how many of the others were left out for a time of 0 or less.
    """

    read: int
    other_btag: int
    no_time: int


def read_impressions(
    part: Part | Path, block_bytes: int = BLOCK_BYTES, threads: int = 1
) -> Generator[Parsed]:
    """Read raw_sample.csv: user,time_stamp,adgroup_id,pid,nonclk,clk.

    Args:
        part: the file, plain or gzipped, or a part of it.
        block_bytes: as in `pipeline.lines.blocks`.
        threads: how many blocks are parsed at once, besides the one that is being read.

    Yields:
        `rows` with row (int64, 0-based line after the header; blank lines count, and are neither
        rows nor rejected), user, time (unix seconds), ad (int64), pid (string, null where
        missing) and label (int8, clk).

    Raises:
        InputError: the file is empty or its header is another; or as `pipeline.lines.blocks`.
    """
    part = part if isinstance(part, Part) else Part(part)
    parse = partial(_table, part.path.name, IMPRESSIONS, "row", 1)
    return map_stream(parse, _data(part, IMPRESSIONS, block_bytes), threads)


def read_ads(path: Path, block_bytes: int = BLOCK_BYTES) -> Generator[Parsed]:
    """Read ad_feature.csv: adgroup_id,cate_id,campaign_id,customer,brand,price.

    Yields:
        `rows` with line (int64, 0-based, the header is 0), ad (int64), category, campaign,
        customer, brand (int64) and price (float64), all but ad null where missing. An ad that is
        there twice gives two rows.

    Raises:
        InputError: as `read_impressions`.
    """
    with closing(_data(Part(path), ADS, block_bytes)) as stream:
        yield from map(partial(_table, path.name, ADS, "line", 0), stream)


def read_profiles(path: Path, block_bytes: int = BLOCK_BYTES) -> Generator[Parsed]:
    """Read user_profile.csv: userid and the eight `PROFILE_FIELDS`.

    Yields:
        `rows` with line (int64, 0-based, the header is 0), user (int64) and the eight fields
        (int64, null where missing). A user who is there twice gives two rows.

    Raises:
        InputError: as `read_impressions`.
    """
    with closing(_data(Part(path), PROFILES, block_bytes)) as stream:
        yield from map(partial(_table, path.name, PROFILES, "line", 0), stream)


def behavior_blocks(part: Part | Path, block_bytes: int = BLOCK_BYTES) -> Generator[Block]:
    """The lines of behavior_log.csv, or a part of it, without its header, for `parse_behaviors`.

    Raises:
        InputError: as `read_impressions`.
    """
    part = part if isinstance(part, Part) else Part(part)
    return _data(part, BEHAVIORS, block_bytes)


def parse_behaviors(block: Block, file: str, behaviors: tuple[str, ...]) -> ParsedBehaviors:
    """Read one block of behaviours; any number of threads may do so at once.

    Args:
        block: whole lines, without the header.
        file: its name, for `rejected`.
        behaviors: the btags that are wanted, of `BTAGS`.

    Returns:
        `rows` with user, time (int64, unix seconds, above 0), btag (uint8, index in `BTAGS`),
        category, brand (int64, null where missing), only of the btags wanted.
    """
    wanted = np.zeros(1 << 8, np.bool_)
    wanted[[BTAGS.index(name) for name in behaviors]] = True
    refused = Refused(file)
    read = fitting = 0
    kept: list[Piece] = []
    for piece in in_pieces(block, BEHAVIORS, refused):
        _, time, btag = piece.values[:3]
        assert isinstance(time, np.ndarray)
        assert isinstance(btag, np.ndarray)
        fits = wanted[btag]
        odd = [row for row in piece.odd if wanted[row[3]]]
        read += len(fits) + len(piece.odd)
        fitting += int(np.count_nonzero(fits)) + len(odd)
        fits &= np.greater(time, 0)
        kept.append(piece.only(np.flatnonzero(fits), [row for row in odd if row[2] > 0]))
    rows = as_frame(kept, BEHAVIORS, "line", 0, keep_line=False)
    counts = (read, read - fitting, fitting - rows.height)
    return ParsedBehaviors(rows, refused.frame(), block.lines, *counts)


def _table(file: str, columns: tuple[Column, ...], number: str, start: int, block: Block) -> Parsed:
    """A block with the column `number` before the others: the line in the file less `start`."""
    refused = Refused(file)
    pieces = list(in_pieces(block, columns, refused))
    return Parsed(as_frame(pieces, columns, number, start), refused.frame(), block.lines)


def _data(part: Part, columns: tuple[Column, ...], block_bytes: int) -> Generator[Block]:
    """The blocks of a part without the file's header, which must be the one of the columns.

    Raises:
        InputError: the file is empty or its header is another; or as `pipeline.lines.blocks`.
    """
    expected = ",".join(column.header for column in columns)
    with closing(blocks(part, block_bytes)) as stream:
        if part.begin:
            yield from stream
            return
        block = next(stream, None)
        if block is None:
            raise InputError(
                "The raw file is empty.",
                where=part.path,
                line=1,
                expected=f"the header {expected}",
                got="no bytes",
                do="download it again",
            )
        data = block.data if block.too_long is None else block.too_long
        end = data.find(b"\n") + 1 or len(data)
        header = data[:end].decode("utf-8-sig", errors="replace")
        if [name.strip() for name in header.split(",")] != expected.split(","):
            raise InputError(
                "The header of the raw file is not the one it should have.",
                where=part.path,
                line=1,
                expected=f"{expected} (in this order, unquoted)",
                got=header[:SHOWN].rstrip("\r\n") or "an empty line",
                do="check that it is the right file of the data set, whole and unchanged",
            )
        if block.lines > 1:
            yield Block(block.first_line + 1, data[end:], block.lines - 1)
        yield from stream
