"""`tinprep verify`: a finished data set against its manifest and against the output contract.

Only what lies in the folder is read, a block of rows at a time; nothing is written. What is kept
of each target until the end takes 20 bytes for impressions, and 38 and 4 more for each negative
where targets are behaviours: for the checks that no single shard can answer. Of impressions, each
user's latest history is kept until the user's bucket is checked.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import Config
from pipeline.engines.local import map_buckets
from pipeline.memory import keeping_freed
from pipeline.verify.blocks import Block
from pipeline.verify.contract import Contract, read, split_of
from pipeline.verify.counts import check_impression_counts, check_item_counts, check_read
from pipeline.verify.cut import blocks
from pipeline.verify.files import check_files, is_there
from pipeline.verify.findings import UNREADABLE, Finding, Findings
from pipeline.verify.history import check_history, check_scalars
from pipeline.verify.tables import (
    Lookup,
    check_lookups,
    check_rejected,
    check_sizes,
    check_vocabularies,
    read_lookups,
)
from pipeline.verify.targets import Seen, Targets, check_negatives
from pipeline.verify.timeline import Timeline
from pipeline.verify.whole import (
    check_days,
    check_leave_one_out,
    check_rows,
    check_totals,
    check_touched,
    check_users,
)
from schemas.errors import ContractError
from schemas.manifest import NAME, SPLITS, DataFile, load
from schemas.replacing import sha256

LIMIT = 20
"""Findings of a kind that are told in full; all are counted."""

Told = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Report:
    """What `verify` found.

    Attributes:
        findings: up to `LIMIT` of each kind, by file.
        counts: kind -> how often it was found.
        shards: shards of the manifest.
        rows: rows read and checked.
        seconds: that it took.
    """

    findings: tuple[Finding, ...]
    counts: dict[str, int]
    shards: int
    rows: int
    seconds: float

    @property
    def sound(self) -> bool:
        """Whether nothing was found."""
        return not self.counts

    def error(self, out: Path) -> ContractError:
        """The findings of the data set in `out` as one error: how many of each kind, the first."""
        kinds = ", ".join(f"{what} ({times:,})" for what, times in self.counts.items())
        first = self.findings[0]
        places = sum(self.counts.values())
        return ContractError(
            f"The data set breaks its contract in {places:,} place{'s' * (places > 1)}.",
            where=out,
            expected=f"{first.where}: {first.expected}",
            got=f"{first.got}; found in all: {kinds}",
            do="do not train on it; make it again from its raw files (`--force`)",
        )


def verify(
    out: Path,
    told: Told = lambda step, done, total: None,
    threads: int | None = None,
) -> Report:
    """Check every file of a data set, and every value in it.

    Args:
        out: folder of the data set.
        told: progress: step, done, of how many.
        threads: shards, or buckets of them, checked at once; None for the usable cores.

    Raises:
        InputError: there is no finished data set in `out`.
        UsageError: `threads` is out of range.
    """
    begun = time.perf_counter()
    findings = Findings(LIMIT)
    workers = Config(out, threads=threads).workers
    shards, rows = 0, 0
    try:
        made = load(out)
    except ContractError as error:
        got = error.what if error.got is None else f"{error.what} {error.got}"
        findings.add("manifest", NAME, error.expected or "a manifest", got)
    else:
        shards = len(made.shards)
        contract = read(made, findings)
        if contract is not None:
            with keeping_freed():
                rows = _contents(out, contract, told, workers, findings)
    seconds = time.perf_counter() - begun
    return Report(tuple(findings.kept), dict(findings.counts), shards, rows, seconds)


def _contents(out: Path, contract: Contract, told: Told, workers: int, findings: Findings) -> int:
    """Check tables and shards; the rows that could be read."""
    check_files(out, contract, findings)
    if not check_sizes(out, contract, findings):
        return 0
    lookups = read_lookups(out, contract, findings)
    refused = check_rejected(out, contract, findings)
    buckets = _buckets(contract)
    done = 0

    def one_more() -> None:
        nonlocal done
        done += 1
        told("verify", done, len(buckets))

    def check(number: int) -> list[tuple[Seen, Findings]]:
        timeline = None if contract.leave_one_out else Timeline(contract)
        return [_shard(out, shard, contract, lookups, timeline) for shard in buckets[number]]

    of_buckets = map_buckets(check, range(len(buckets)), workers, one_more)
    results = [result for of_bucket in of_buckets for result in of_bucket]
    for _, own in results:
        findings.merge(own)
    seen = [s for s, _ in results]
    _whole(out, seen, contract, lookups, refused, workers, findings)
    return sum(s.rows for s in seen)


def _buckets(contract: Contract) -> list[list[DataFile]]:
    """The shards that are checked one after the other: those of the same impressions' users."""
    buckets: dict[str, list[DataFile]] = {}
    for shard in sorted(contract.made.shards, key=lambda one: SPLITS.index(split_of(one))):
        name = shard.path if contract.leave_one_out else PurePosixPath(shard.path).name
        buckets.setdefault(name, []).append(shard)
    return list(buckets.values())


def _shard(
    out: Path,
    shard: DataFile,
    contract: Contract,
    lookups: list[Lookup],
    timeline: Timeline | None,
) -> tuple[Seen, Findings]:
    """Check one shard; `timeline` as in `_check`."""
    findings = Findings(LIMIT)
    seen = Seen.nothing(shard.path, split_of(shard), contract)
    path = out / shard.path
    seen.whole = False
    if not is_there(path):
        findings.add("missing shard", shard.path, "a file", "no such file")
        return seen, findings
    try:
        if (found := sha256(path)) != shard.sha256:
            findings.add("checksum", shard.path, f"sha256 {shard.sha256}", found)
        with pq.ParquetFile(path) as file:
            if _fits(file, shard, contract, findings):
                if timeline is not None:
                    timeline.begin_split()
                rows = 0
                for block in blocks(file, path, shard.path, contract, findings):
                    _check(block, contract, lookups, timeline, seen)
                    rows += block.rows
                seen.whole = rows == file.metadata.num_rows
    except UNREADABLE as error:
        findings.unreadable("unreadable shard", shard.path, error)
    return seen, findings


def _fits(file: pq.ParquetFile, shard: DataFile, contract: Contract, findings: Findings) -> bool:
    """Whether the shard has the schema of its manifest, and its rows."""
    rows = file.metadata.num_rows
    if rows != shard.rows:
        findings.add("rows of a shard", shard.path, shard.rows, rows)
    found, want = file.schema_arrow, contract.schema
    if found.equals(want, check_metadata=False):
        return True
    # By name there may be several columns, or none.
    fields = {field.name: field for field in found}
    names = [n for n in want.names if n not in fields]
    names += [n for n in fields if n not in want.names]
    names += [n for n in want.names if n in fields and fields[n] != want.field(n)]

    def text(schema: pa.Schema) -> str:
        return "; ".join(str(f) for f in schema if f.name in names) or "no such column"

    if names:
        findings.add("schema", shard.path, text(want), text(found))
    else:
        findings.add("schema", shard.path, ", ".join(want.names), ", ".join(found.names))
    return False


def _check(
    block: Block,
    contract: Contract,
    lookups: list[Lookup],
    timeline: Timeline | None,
    seen: Seen,
) -> None:
    """Check some rows; `timeline` has those before them, of impressions."""
    targets = np.repeat(block.scalars["target_time"], block.lengths)
    intervals = targets - block.history["time"]
    check_scalars(block, contract)
    check_history(block, contract, intervals)
    check_lookups(block, contract, lookups)
    if contract.leave_one_out:
        check_negatives(block, contract)
    if timeline is not None:
        timeline.check(block)
    seen.groups = block.groups
    seen.add(block, contract, intervals)


def _whole(
    out: Path,
    seen: list[Seen],
    contract: Contract,
    lookups: list[Lookup],
    refused: Counter[str],
    workers: int,
    findings: Findings,
) -> None:
    """Check the vocabularies and, where all shards could be read, what needs all; side by side."""
    whole = all(s.whole for s in seen)
    targets = Targets(seen)
    users = contract.made.vocabulary["user"]

    def vocabularies(own: Findings) -> None:
        counts = check_vocabularies(out, contract, own)
        if "user" in counts:
            check_read(contract, int(counts["user"].sum()), refused, own)
        if whole and "user" in counts:
            check_users(targets, contract, counts["user"], refused["targets"], own)
        if whole and contract.leave_one_out:
            check_item_counts(targets, contract, counts, lookups, own)
        elif whole:
            check_impression_counts(seen, targets, contract, counts, lookups, own)

    checks: list[Callable[[Findings], None]] = [vocabularies]
    if whole:
        checks.append(lambda own: check_rows(targets, own))
        checks.append(lambda own: check_totals(seen, contract, own))
    if whole and contract.leave_one_out:
        # The longest comes first.
        checks.insert(0, lambda own: check_touched(targets, contract, users, own))
        checks.append(lambda own: check_leave_one_out(targets, contract, users, own))
    elif whole:
        checks.append(lambda own: check_days(targets, contract, own))

    def check(number: int) -> Findings:
        own = Findings(LIMIT)
        checks[number](own)
        return own

    for own in map_buckets(check, range(len(checks)), workers):
        findings.merge(own)
