"""Which files a data set has, and the bytes of those beside the shards."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq

from pipeline.shards import sha256
from pipeline.verify.contract import Contract
from pipeline.verify.findings import UNREADABLE, Findings
from schemas.manifest import SPLITS, DataFile


def check_files(out: Path, contract: Contract, findings: Findings) -> None:
    """Find files that are missing, and such as readers that glob would take in.

    The shards' own bytes are checked with their rows.

    Args:
        out: folder of the data set.
        contract: what it is held to.
        findings: where breaches are noted.
    """
    made = contract.made
    wanted = {f"vocabulary/{name}.parquet" for name in made.vocabulary}
    wanted |= {f"{name}.parquet" for name in contract.tables}
    wanted |= {table.path for table in made.tables}
    for path in sorted(wanted):
        if not (out / path).is_file():
            findings.add("missing file", path, "a file", "no such file")
    for table in made.tables:
        if (out / table.path).is_file():
            _check_table(out, table, findings)
    # A data set from before there was a list does not say what was refused.
    listed = [*SPLITS, "vocabulary", *(["rejected"] if made.tables else [])]
    there = [*out.glob("*.parquet"), *(path for name in listed for path in (out / name).glob("*"))]
    names = {path.relative_to(out).as_posix() for path in there}
    for name in sorted(names - wanted - {shard.path for shard in made.shards}):
        findings.add("stray file", name, "a file of the manifest", "another file")


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
