"""`tinprep verify`: a finished data set against its manifest and against the output contract.

Only what lies in the folder is read, a block of rows at a time; nothing is written. The manifest
says which checks there are (`contract`). `tables` checks files and what stands beside the shards,
`rows` a block of a shard (`blocks`), and `whole` what no single shard can answer, of what `seen`
keeps of each: some 20 bytes a target and, where negatives are drawn, 10 and 4 a negative.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from pipeline.config import How
from pipeline.memory import keeping_freed
from pipeline.parallel import map_buckets
from pipeline.verify import tables, whole
from pipeline.verify.blocks import read_blocks
from pipeline.verify.contract import KEPT, Contract, read, split_of
from pipeline.verify.findings import Finding, Findings
from pipeline.verify.rows import check_block
from schemas.errors import ContractError
from schemas.manifest import NAME, load

LIMIT = 20
"""Findings of a kind that are told in full; all are counted."""

Told = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Report:
    """What `verify` found."""

    findings: tuple[Finding, ...]  # up to `LIMIT` of each kind
    counts: dict[str, int]  # kind -> how often it was found
    shards: int  # of the manifest
    rows: int  # read and checked
    seconds: float  # that it took

    @property
    def sound(self) -> bool:
        """Whether nothing was found."""
        return not self.counts

    def error(self, out: Path) -> ContractError:
        """The findings of the data set in `out` as one error: how many of each kind, the first."""
        kinds = ", ".join(f"{what} ({times:,})" for what, times in self.counts.items())
        first, places = self.findings[0], sum(self.counts.values())
        return ContractError(
            f"The data set breaks its contract in {places:,} place{'s' * (places > 1)}.",
            where=out,
            expected=f"{first.where}: {first.expected}",
            got=f"{first.got}; found in all: {kinds}",
            do="do not train on it; make it again from its raw files (`--force`)",
        )


def verify(
    out: Path | str, told: Told = lambda step, done, total: None, threads: int | None = None
) -> Report:
    """Check every file of a data set, and every value in it.

    Raises:
        InputError: there is no finished data set in `out`.
        UsageError: `threads` is out of range.
    """
    begun, findings, made, rows = time.perf_counter(), Findings(LIMIT), None, 0
    out, workers = Path(out), How(threads).workers
    try:
        made = load(out)
    except ContractError as error:
        got = error.what if error.got is None else f"{error.what} {error.got}"
        findings.add("manifest", NAME, error.expected or "a manifest", got)
    if made is not None and (contract := read(made, findings)) is not None:
        with keeping_freed():
            rows = _check(out, contract, told, workers, findings)
    shards, seconds = len(made.shards) if made else 0, time.perf_counter() - begun
    return Report(tuple(findings.kept), dict(findings.counts), shards, rows, seconds)


def _check(out: Path, contract: Contract, told: Told, workers: int, findings: Findings) -> int:
    """Check files, tables, shards and what needs all of them; the rows that could be read."""
    tables.check_files(out, contract, findings)
    of_names = {n: partial(tables.read_words, out, n, contract) for n in contract.made.vocabulary}
    if not tables.bears_out(out, contract):
        _side_by_side(of_names.values(), workers, findings)
        return 0
    found = [tables.read_lookup(out, rule, contract, findings) for rule in contract.lookups]
    lookups = [lookup for lookup in found if lookup is not None]
    tables.check_events(out, contract, findings)
    known = tables.check_rejected(out, contract, findings)
    for one in lookups:
        known |= {f"unknown {one.rule.file}": one.unknown, f"lacking {one.rule.file}": 0}
    paths = sorted((one.path for one in contract.made.shards), key=split_of)
    of_shards = [partial(_shard, out, path, contract, lookups) for path in paths]
    step, steps = count(1), len(paths)
    seen = _side_by_side(of_shards, workers, findings, lambda: told("verify", next(step), steps))
    words = dict(zip(of_names, _side_by_side(of_names.values(), workers, findings), strict=True))
    if None not in words.values():
        tables.check_digests(words, contract, findings)
    if None not in words.values() and all(one.whole for one in seen):
        targets, users = whole.Targets(seen, contract), words["user"][1]
        refused = known.get("rejected/targets", 0)
        before = contract.made.continues
        known[KEPT] = int(users.sum()) - (before.events if before is not None else 0)
        checks = [
            partial(whole.check_never_touched, targets),  # the longest comes first
            partial(whole.check_rows, targets),
            partial(whole.check_split, targets, refused),
            partial(whole.check_users, targets, users, refused),
            partial(whole.check_new, targets),
            partial(whole.check_totals, seen, known, contract),
        ]
        _side_by_side(checks, workers, findings)
    return sum(one.rows for one in seen)


def _shard(
    out: Path, path: str, contract: Contract, lookups: list[tables.Table], findings: Findings
) -> whole.Seen:
    """Check one shard, block by block; what is kept of it."""
    seen, want = whole.Seen(path, contract), contract.schema
    with tables.reading(path, findings), tables.opened(out, path, contract, findings) as file:
        found = file.schema_arrow
        if found.equals(want, check_metadata=False):
            for block in read_blocks(file, path, contract, findings):
                check_block(block, lookups, contract)
                seen.add(block, lookups)
                del block  # before the next one is read
            seen.whole = seen.rows == file.metadata.num_rows
        else:
            lacks = [str(one) for one in want if one not in set(found)]
            others = [str(one) for one in found if one not in set(want)]
            findings.add("schema", path, lacks or want.names, others or found.names)
    return seen


def _side_by_side(
    checks: Iterable[Callable[[Findings], Any]],
    workers: int,
    findings: Findings,
    done: Callable[[], None] = lambda: None,
) -> list[Any]:
    """What each check returns; each has findings of its own, which are put together in order."""
    todo = [(check, Findings(LIMIT)) for check in checks]
    results = map_buckets(lambda n: todo[n][0](todo[n][1]), range(len(todo)), workers, done)
    for _, own in todo:
        findings.merge(own)
    return results
