"""Which files a data set has, and the bytes of those beside the shards."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq

from pipeline.verify.contract import Contract
from pipeline.verify.findings import UNREADABLE, Findings
from schemas.manifest import NAME, SPLITS, DataFile
from schemas.replacing import sha256


def check_files(out: Path, contract: Contract, findings: Findings) -> None:
    """Find files that are missing, and such as readers that glob would take in.

    The shards' own bytes are checked with their rows.

    Args:
        out: folder of the data set.
        contract: what it is held to.
        findings: where breaches are noted.
    """
    made = contract.made
    listed = {table.path for table in made.tables}
    wanted = {f"vocabulary/{name}.parquet" for name in made.vocabulary}
    wanted |= {f"{name}.parquet" for name in contract.tables}
    for path in sorted(wanted - listed if listed else ()):
        findings.add("manifest", f"{NAME}: tables", path, "a list without it")
    for path in sorted(wanted | listed):
        if not is_there(out / path):
            findings.add("missing file", path, "a file", "no such file")
    for table in made.tables:
        if is_there(out / table.path):
            _check_table(out, table, findings)
    # A data set from before there was a list does not say what was refused.
    folders = [*SPLITS, "vocabulary", *(["rejected"] if listed else [])]
    there = [*out.glob("*.parquet"), *(path for name in folders for path in (out / name).glob("*"))]
    names = {path.relative_to(out).as_posix() for path in there}
    for name in sorted(names - wanted - listed - {shard.path for shard in made.shards}):
        findings.add("stray file", name, "a file of the manifest", "another file")


def is_there(path: Path) -> bool:
    """Whether it is a file: reading a pipe would not end, and a folder may let nobody look."""
    try:
        return path.is_file()
    except OSError:
        return False


def _check_table(out: Path, table: DataFile, findings: Findings) -> None:
    try:
        if (found := sha256(out / table.path)) != table.sha256:
            findings.add("checksum", table.path, f"sha256 {table.sha256}", found)
    except OSError as error:
        findings.unreadable("unreadable file", table.path, error)
    with suppress(*UNREADABLE):  # of which its own check tells
        rows = pq.read_metadata(out / table.path).num_rows
        if rows != table.rows:
            findings.add("rows of a table", table.path, table.rows, rows)
