"""The output folder of one preparation while it is under way.

Work lies in `OUT/.work` until the manifest is written. Each step leaves its result whole or not at
all, so the same command run again goes on from the last finished step, or bucket.
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline import memory, shards
from pipeline.config import Config
from pipeline.engines.engine import Deal, Each, Engine
from pipeline.identity import Identity
from pipeline.line_count import estimate_lines
from pipeline.remote import RemotePath
from schemas import manifest
from schemas.alone import LOCK
from schemas.errors import EnvironmentFault, UsageError

if TYPE_CHECKING:
    from pipeline.tally import Tally

WORK = ".work"
_KEY = "key.json"
TABLES = ("items.parquet", "ads.parquet", "profiles.parquet")
OURS = {manifest.NAME, WORK, LOCK, "vocabulary", "rejected", *TABLES, *manifest.SPLITS}

Told = Callable[[str, int, int | None], None]
Result = TypeVar("Result")


@dataclass
class Run:
    """One preparation under way.

    Attributes:
        config: what to make.
        told: progress: step, done, total.
        paths: the raw files.
        identity: waits until it is known what the data set is made from.
        engine: where the buckets are worked on.
        steps: what each finished step took.
        count: how many buckets.
        remote: where the data set goes from `config.out`, its shards at once; None where it stays.
    """

    config: Config
    told: Told
    paths: list[Path] = field(default_factory=list)
    identity: Callable[[], Identity] = field(init=False)
    engine: Engine = field(init=False)
    steps: list[manifest.Step] = field(default_factory=list)
    count: int = 1
    remote: RemotePath | None = None

    @property
    def work(self) -> Path:
        """Where unfinished work lies."""
        return self.config.out / WORK

    @property
    def key_path(self) -> Path:
        """What the work is of; without it nobody goes on with the work."""
        return self.work / _KEY

    def key(self) -> list[Any]:
        """What the work depends on."""
        # Polars' hash, which may change with its version, decides on the bucket of a user.
        return [self.identity().key, self.config.buckets, version("polars")]

    @contextmanager
    def step(self, name: str) -> Iterator[list[int]]:
        """Time a step; its block sets the rows that went in and came out."""
        begun = time.perf_counter()
        rows = [0, 0]
        self.told(name, 0, None)
        yield rows
        memory.give_back(self.config.memory)
        self.steps.append(
            manifest.Step(name, round(time.perf_counter() - begun, 3), rows[0], rows[1], peak_mb())
        )

    def check_space(self, needed: int) -> None:
        """Refuse to begin what the disk cannot hold.

        Args:
            needed: bytes in `config.out`, unless the data set goes elsewhere.

        Raises:
            EnvironmentFault: there is less free space.
        """
        free = shutil.disk_usage(self.config.out).free
        if self.remote is None and free < needed:
            raise EnvironmentFault(
                "There is too little free space on the disk.",
                where=self.config.out,
                expected=f"about {needed / 1e6:,.0f} MB",
                got=f"{free / 1e6:,.0f} MB free",
                do="free some, give --out on another disk, or --layout ragged, which is smaller",
            )

    def deal(
        self, name: str, path: Path, work: Deal[Result], kinds: Sequence[str]
    ) -> Iterable[Result]:
        """`Engine.deal` of a raw file to `count` buckets, with its progress told."""
        about, lines = estimate_lines(path), 0

        def read(more: int) -> None:
            nonlocal lines
            lines += more
            self.told(name, lines, max(about, lines))

        return self.engine.deal(work, self.engine.parts(path), self.count, kinds, read)

    def each(
        self,
        name: str,
        work: Each[Result],
        needs: Sequence[str],
        makes: Sequence[str] = (),
        tallies: Sequence[Tally] = (),
    ) -> list[Result]:
        """`Engine.each` of all buckets, with its progress told."""
        done = 0

        def one_more() -> None:
            nonlocal done
            done += 1
            self.told(name, done, self.count)

        return list(self.engine.each(work, self.count, needs, makes, tallies, one_more))

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` returned, as JSON holds it; kept, so that a later run does not make it."""
        if not self.engine.resumes:
            return json.loads(json.dumps(make()))
        marker = self.work / f"{name}.json"
        if not marker.exists():
            made = make()
            if not self.key_path.exists():
                shards.write_json(self.key_path, self.key())
            shards.write_json(marker, made)
        return json.loads(marker.read_text(encoding="utf-8"))


def peak_mb() -> int:
    """The process's peak resident memory so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10))


def check_out(out: Path) -> None:
    """Refuse a folder that holds what is not ours.

    Raises:
        UsageError: `out` is a file, or holds something else.
    """
    if out.exists() and not out.is_dir():
        raise UsageError("--out is not a folder.", where=out, do="give the name of a folder")
    there = [path.name for path in out.iterdir()] if out.exists() else []
    check_names(out, there)


def check_names(out: Path, there: list[str]) -> None:
    """Refuse a folder where what is `there` is not ours.

    Raises:
        UsageError: it holds something else.
    """
    # A run that was killed may have left a file that it had not finished.
    strange = sorted(n for n in there if n.removeprefix(shards.TEMPORARY) not in OURS)
    if strange:
        raise UsageError(
            "The output folder holds something else.",
            where=out,
            expected="a new or empty folder, or a data set of tinprep",
            got=", ".join(strange[:5]),
            do="give another --out",
        )


def begin(run: Run) -> None:
    """Go on with the work of an interrupted run of the same key, else start anew."""
    key = run.key_path
    if not run.engine.resumes or not key.exists() or json.loads(key.read_text()) != run.key():
        clear(run.config.out)
        run.work.mkdir()


def clear(out: Path) -> None:
    """Remove an earlier data set and unfinished work.

    What makes them count comes first, so that no half of either is ever taken for a whole.
    """
    (out / WORK / _KEY).unlink(missing_ok=True)
    (out / manifest.NAME).unlink(missing_ok=True)
    unfinished = out.glob(f"{shards.TEMPORARY}*")
    for path in [*(out / name for name in sorted(OURS - {LOCK})), *unfinished]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
