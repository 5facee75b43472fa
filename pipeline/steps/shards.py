"""Tables and shards as files that are whole or absent."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from polars.io.plugins import register_io_source

from pipeline.record import atomic
from schemas.errors import ContractError
from schemas.manifest import DataFile
from schemas.replacing import sha256

# Of a page's values: the processor's cache holds it while it is packed. With Polars' 1 MiB, writing
# took a seventh more CPU time; files were 4 in 100 smaller.
_PAGE_BYTES = 1 << 17
_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")


def write_table(path: Path, table: pa.Table) -> None:
    """Write a small table as Parquet, atomically."""
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def write_shard(path: Path, schema: pa.Schema, blocks: Iterable[pa.Table], out: Path) -> DataFile:
    """Write blocks of rows as one shard, atomically; as `write_blocks`."""
    with atomic(path) as temporary:
        rows = write_blocks(temporary, schema, blocks)
        return DataFile(path.relative_to(out).as_posix(), rows, sha256(temporary))


def write_blocks(path: Path, schema: pa.Schema, blocks: Iterable[pa.Table]) -> int:
    """Write blocks of rows as one Parquet file; returns how many rows there are.

    Polars asks for a block when it is about to write the one before, so three are held at a time.
    Each row group has as many rows as the first block: where the other blocks do, too, each is one.

    Args:
        schema: of each block and of the file, with what is not null and the sizes of lists.
        blocks: the rows; one without any adds nothing.

    Raises:
        ContractError: a block has another schema, or a null where none may be.
        OSError: the system refuses to write the file.
    """
    rows = 0
    filled = (block for block in blocks if len(block))
    first = list(islice(filled, 1))

    def frames(*_: object) -> Iterator[pl.DataFrame]:
        nonlocal rows
        for block in chain(first, filled):
            rows += len(block)
            yield pl.DataFrame(block)

    source = register_io_source(
        frames, schema=pl.DataFrame(schema.empty_table()).schema, validate_schema=True
    )
    try:
        with path.open("wb") as file:
            source.sink_parquet(
                file,
                compression_level=1,
                row_group_size=len(first[0]) if first else None,
                data_page_size=_PAGE_BYTES,
                arrow_schema=_as_polars_has_it(schema),
                # What readers find there: without it plain lists would come back as large ones.
                metadata={"ARROW:schema": base64.b64encode(schema.serialize()).decode()},
            )
    except pl.exceptions.PolarsError as error:
        if found := _SYSTEM_ERROR.search(str(error)):
            number = int(found[1])
            raise OSError(number, os.strerror(number), str(path)) from error
        raise ContractError(
            "A block of rows is not as its schema says.",
            where=path,
            expected=str(schema),
            got=str(error).partition("\n")[0],
        ) from error
    return rows


def _as_polars_has_it(schema: pa.Schema) -> pa.Schema:
    """The schema with lists and text as Polars holds them: with offsets of 64 bits."""
    return pa.schema(
        field.with_type(
            pa.large_list(field.type.value_field)
            if pa.types.is_list(field.type)
            else pa.large_string()
            if pa.types.is_string(field.type)
            else field.type
        )
        for field in schema
    )
