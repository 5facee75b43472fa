"""SQL over the shards of a data set, by DuckDB, in bounded memory."""

from __future__ import annotations

import errno
import os
import tempfile
from glob import escape
from importlib import resources
from pathlib import Path

import duckdb
import pyarrow as pa

from schemas.errors import EnvironmentFault, InputError, TinprepError
from schemas.interrupts import held, is_ctrl_c
from trainer.data.shards import Shards

_FULL = os.strerror(errno.ENOSPC)


def query(
    name: str,
    shards: Shards,
    splits: tuple[str, ...],
    columns: str,
    *,
    where: str = "true",
    to: Path | None = None,
    memory_mb: int = 1024,
    threads: int | None = None,
    **params: float,
) -> pa.Table:
    """Run `sql/<name>.sql` over shards of either layout, out of core.

    Args:
        name: the file.
        columns: SQL for the columns of `rows`, the file's input.
        where: SQL for which rows.
        to: write the result to this Parquet file, and return no rows.
        memory_mb: what DuckDB may take before it goes to disk.
        threads: of DuckDB; None for all cores.

    Raises:
        InputError: a shard is missing or damaged.
        EnvironmentFault: memory or disk do not suffice.
        OSError: the disk is full.
    """
    # DuckDB takes each for a pattern, and a folder such as user=1 for a column.
    paths = [escape(str(p)) for s in splits for p in shards.manifest.shard_paths(shards.out, s)]
    text = resources.files("sql").joinpath(f"{name}.sql").read_text(encoding="utf-8")
    with held(), tempfile.TemporaryDirectory(prefix="tinprep-") as spill:
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": f"{memory_mb}MB",
            "temp_directory": spill,
        }
        if threads is not None:
            config["threads"] = threads
        try:
            with duckdb.connect(config=config) as con:
                found = con.read_parquet(paths, hive_partitioning=False)
                facts, chosen = shards.facts, "*"
                if facts.unread:
                    left = (f'"{name}"' for name in sorted(facts.unread))
                    chosen += f" exclude ({', '.join(left)})"
                if facts.stored:
                    named = (f'"{of}" as "{name}"' for name, of in facts.stored.items())
                    chosen += f" rename ({', '.join(named)})"
                found = found.project(chosen)
                found.filter(where).project(columns).create_view("rows")
                found = con.sql(text, params=params or None)
                if to is None:
                    return found.to_arrow_table()
                found.write_parquet(str(to), compression="zstd")
                return pa.table({})
        except (RuntimeError, duckdb.Error) as error:
            if is_ctrl_c(error):
                raise KeyboardInterrupt from None
            if isinstance(error, duckdb.IOException) and _FULL in str(error):
                raise OSError(errno.ENOSPC, _FULL, str(to or spill)) from None
            if isinstance(error, duckdb.Error):
                raise _as_our_own(error, shards.out, memory_mb) from error
            raise


def _as_our_own(error: duckdb.Error, out: Path, memory_mb: int) -> TinprepError:
    got = str(error).partition("\n")[0]
    if isinstance(error, duckdb.OutOfMemoryException):
        return EnvironmentFault(
            "Memory or disk do not suffice for this query.",
            where=out,
            expected=f"room beside {memory_mb} MB of memory on the disk of temporary files",
            got=got,
            do="allow more memory, or name another folder for temporary files in TMPDIR",
        )
    return InputError(
        "A shard cannot be read.",
        where=out,
        expected="the Parquet files that the manifest lists",
        got=got,
        do="make the data set again",
    )
