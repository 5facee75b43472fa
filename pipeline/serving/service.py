"""What a server does, whatever it is asked by: events in, scores out, another bundle in its place.

Scores are made by one thread, in the order that requests come. Events are read and stored by
another, as many at once as wait, and stand in the histories before they are acknowledged.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from annotated_types import Len

from pipeline.serving import events, files, golden
from pipeline.serving.arrivals import Arrivals, Arrived, Event
from pipeline.serving.features import Columns
from pipeline.serving.journal import Journal
from pipeline.serving.live import Live, Stored
from pipeline.serving.requests import USER, Words
from pipeline.serving.scorer import Scorer, newcomers, require_alike
from pipeline.serving.store import Store
from schemas import bundle, digests, manifest
from schemas.bundle import Bundle
from schemas.checked import STRICT, Misfit
from schemas.errors import ContractError, TinprepError
from schemas.manifest import UNKNOWN_ID, Manifest
from schemas.shards import UNITS

LATE_S = 86_400
"""How much older than its user's newest event a request may be."""
_MOST_AT_ONCE = 2_000  # events of a commit


@dataclass(frozen=True)
class Limits:
    """What a server takes.

    Attributes:
        body: bytes of a call.
        candidates: of a request.
        events: of a call.
        waiting: calls that may wait for an answer, those whose events are stored meanwhile.
        bytes_waiting: of calls that are not whole yet.
        connections: open at once.
        slow_s: seconds within which a call has to be there, once it began.
        idle_s: seconds for which a connection may say nothing.
        stop_s: seconds that calls have to end when the server stops.
    """

    body: int = 1 << 20
    candidates: int = 1_000
    events: int = 1_000
    waiting: int = 256
    bytes_waiting: int = 64 << 20
    connections: int = 1_000
    slow_s: float = 5.0
    idle_s: float = 60.0
    stop_s: float = 10.0


@dataclass(frozen=True)
class Posted:
    """The body of `POST /events`."""

    __pydantic_config__ = STRICT
    events: Annotated[list[Event], Len(1)]


class Added(NamedTuple):
    """What became of the events of a call.

    Attributes:
        added: how many are new, and stand in a history.
        repeated: how many have an id that an earlier one had.
        left_out: reason -> how many stand in no history.
        sequence: of the last event that is in the histories.
    """

    added: int
    repeated: int
    left_out: dict[str, int]
    sequence: int


class Busy(Exception):
    """More waits than may."""


@dataclass
class Seen:
    """What was asked so far, for those who watch.

    Attributes:
        candidates: how many were scored.
        unknown: field -> candidates without an id.
        empty: history -> requests that had nothing in it.
        bins: history -> (bins,) behaviours of requests by interval bin.
        added: events.
        repeated: likewise.
        left_out: reason -> events.
    """

    candidates: int = 0
    unknown: Counter[str] = field(default_factory=Counter)
    empty: Counter[str] = field(default_factory=Counter)
    bins: dict[str, Any] = field(default_factory=dict)
    added: int = 0
    repeated: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Serving:
    """A bundle and a data set at work.

    Attributes:
        base: the digest of the data set's own events.
    """

    bundle: Path
    data: Path
    made: Manifest
    scorer: Scorer
    arrivals: Arrivals
    live: Live
    base: str

    @classmethod
    def of(cls, folder: Path, data: Path, threads: int, before: Serving | None = None) -> Serving:
        """Load all of it, and have the bundle prove itself.

        Args:
            data: of a data set that keeps its events.
            before: what is at work; where it has the same data set and users, its events are
                taken over.

        Raises:
            InputError: a file is missing, or was changed.
            ContractError: the two do not fit together, or a golden request comes out otherwise.
            UsageError: no event can be posted to the data set.
        """
        found, made = bundle.load(folder), manifest.load(data)
        require_alike(found, made, data)
        golden.check(folder, found)
        base = events.digest(made)
        users = Words(folder / f"vocabulary/{USER}.parquet")
        known = None if before is None else before.live.users.ids
        if before is not None and before.base == base and known == users.ids:
            live = before.live
        else:
            late = LATE_S * UNITS[made.time_unit]
            new = newcomers(data, made, users)
            live = Live(made, data, users, new, events.read(data, made), late)
        scorer = Scorer(found, folder, live.pasts, threads, live.newcomers)
        arrivals = Arrivals(data, made, scorer.features)
        return cls(folder, data, made, scorer, arrivals, live, base)

    @property
    def meaning(self) -> dict[str, str]:
        """What events mean: the digests, but for users, who are stored by their names."""
        found = dict(self.scorer.bundle.data.digests)
        found.pop(f"{digests.VOCABULARY}{USER}", None)
        return found

    def remember(self, store: Store) -> list[int]:
        """Put all stored events in the histories, but those that the data set has itself.

        Returns:
            The sequences of those that are not needed.

        Raises:
            EnvironmentFault: the disk refuses it.
        """
        assert self.made.kept is not None
        if store.about.base != self.base:
            store.follow(self.base, self.made.kept.rows, self.live.kept_too(store.events()))
        gone = [sequence for stored in store.events() for sequence in self.live.add(stored)]
        self.live.sequence = store.sequence
        return gone


@dataclass
class _Call:
    """Events of one call, on their way."""

    events: list[Event]
    done: asyncio.Future[Added]


class Service:
    """Scores requests, keeps events, and takes over bundles.

    Its data set keeps its events.

    Raises:
        TinprepError: as `Serving.of` and `Store`.
    """

    def __init__(
        self, folder: Path, data: Path, store: Path, log: Path | None, threads: int, limits: Limits
    ) -> None:
        self.threads, self.limits, self.seen = threads, limits, Seen()
        self.serving = Serving.of(folder, data, threads)
        kept = self.serving.made.kept
        assert kept is not None
        self.store = Store(store, self.serving.meaning, self.serving.base, kept.rows)
        self.gone = self.serving.remember(self.store)
        self.log = None if log is None else Journal(log)
        self._begin_log([*self.store.events()])
        self.calls: list[_Call] = []
        self.waiting_events = 0
        self.writer = ThreadPoolExecutor(1, "events")
        self.writing, self.taking = asyncio.Lock(), asyncio.Lock()
        self.wake = asyncio.Event()

    def _begin_log(self, held: Sequence[Stored]) -> None:
        if self.log is not None:
            self.log.begin(self.store.sequence, self.serving.base)
            for stored in held:
                self.log.event(stored)
            self.log.flush()

    # Scores.

    def score(self, raw: Any, features: bool) -> dict[str, Any]:
        """What is answered to a request of decoded JSON, with its features if they are asked for.

        Raises:
            Misfit: it is no request.
            InputError: a value is missing, or is none that its column can hold.
        """
        scorer = self.serving.scorer
        request = files.request_of(raw, scorer.bundle.data.time_unit)
        if len(request.candidates) > self.limits.candidates:
            most = self.limits.candidates
            raise Misfit("candidates", f"at most {most}", str(len(request.candidates)))
        columns = scorer.features(request)
        scores = scorer.score(columns).tolist()
        self._see(columns, scorer.bundle)
        answer = {"scores": scores, "sequence": self.serving.live.sequence}
        if self.log is not None:
            self.log.write(files.said(request) | answer)
        if request.id is not None:
            answer["id"] = request.id
        if features:
            answer["features"] = {name: of.tolist() for name, of in columns.items()}
        return answer

    def _see(self, columns: Columns, of: Bundle) -> None:
        seen = self.seen
        for name in of.data.fields:
            ids = columns[f"target_{name}"]
            seen.candidates += len(ids) * (name == of.data.fields[0])
            seen.unknown[name] += int(np.count_nonzero(ids == UNKNOWN_ID))
        for name, one in of.data.histories.items():
            bins = columns[f"{name}_interval_bin"]
            seen.empty[name] += not len(bins)
            counts = np.bincount(bins, minlength=one.bins.count + 1)
            seen.bins[name] = seen.bins.get(name, 0) + counts

    # Events.

    async def add(self, posted: Sequence[Event]) -> Added:
        """Keep the events of a call; when this returns they are on disk and in the histories.

        Raises:
            InputError: an event is none: then none is kept.
            Busy: too many wait.
            EnvironmentFault: the disk does not take them.
        """
        if len(posted) > self.limits.events:
            raise Misfit("events", f"at most {self.limits.events}", str(len(posted)))
        for event in posted:
            self.serving.arrivals.require(event)
        if self.waiting_events + len(posted) > 4 * _MOST_AT_ONCE:
            raise Busy
        call = _Call(list(posted), asyncio.get_running_loop().create_future())
        self.calls.append(call)
        self.waiting_events += len(posted)
        self.wake.set()
        return await call.done

    async def write(self) -> None:
        """Store what waits, for ever."""
        while True:
            await self.wake.wait()
            self.wake.clear()
            while self.calls:
                async with self.writing:
                    await self._write_some()

    async def _write_some(self) -> None:
        calls: list[_Call] = []
        size = 0
        while self.calls and (not calls or size + len(self.calls[0].events) <= _MOST_AT_ONCE):
            calls.append(self.calls.pop(0))
            size += len(calls[-1].events)
        self.waiting_events -= size
        every = [event for call in calls for event in call.events]
        gone, self.gone = self.gone, []
        loop = asyncio.get_running_loop()
        try:
            kept = await loop.run_in_executor(self.writer, self._kept, every, gone)
        except Exception as error:
            self.gone = gone + self.gone
            for call in calls:
                if not call.done.done():
                    call.done.set_exception(error)
            return
        for stored in kept:
            if isinstance(stored, Stored):
                self.gone += self.serving.live.add(stored)
                if self.log is not None:
                    self.log.event(stored)
        results = iter(kept)
        for call in calls:
            added = self._counted([next(results) for _ in call.events])
            if not call.done.done():
                call.done.set_result(added)

    def _kept(self, posted: Sequence[Event], gone: Sequence[int]) -> list[Stored | str | None]:
        """What each event is, once it is stored."""
        arrivals = self.serving.arrivals
        found = arrivals(posted)
        some = [
            (event.id, str(event.table or arrivals.only), one)
            for event, one in zip(posted, found, strict=True)
            if isinstance(one, Arrived)
        ]
        stored = iter(self.store.add(some, gone) if some or gone else [])
        return [one if isinstance(one, str) else next(stored) for one in found]

    def _counted(self, kept: Sequence[Stored | str | None]) -> Added:
        left_out = Counter(one for one in kept if isinstance(one, str))
        repeated = sum(one is None for one in kept)
        added = len(kept) - repeated - sum(left_out.values())
        self.seen.added += added
        self.seen.repeated += repeated
        self.seen.left_out += left_out
        return Added(added, repeated, dict(left_out), self.serving.live.sequence)

    # Another bundle.

    async def take_over(self, folder: Path | None, data: Path | None) -> None:
        """Serve another bundle, or another data set, or what has their names by now.

        Until then requests are scored as before, and at the end events wait.

        Raises:
            TinprepError: it cannot be served, or means something else. All is as before then.
        """
        async with self.taking:  # what is at work must not be replaced while another is loaded
            await self._taken_over(folder, data)

    async def _taken_over(self, folder: Path | None, data: Path | None) -> None:
        old, loop = self.serving, asyncio.get_running_loop()
        folder, data = folder or old.bundle, data or old.data
        new = await loop.run_in_executor(None, Serving.of, folder, data, self.threads, old)
        if wrong := digests.differing(old.meaning, new.meaning):
            raise ContractError(
                "The bundle means something else than the one that is served.",
                where=folder,
                expected=digests.in_short(old.meaning, wrong),
                got=digests.in_short(new.meaning, wrong),
                do="start another server, with a --store of its own",
            )
        async with self.writing:
            if new.live is not old.live:
                self.gone = await loop.run_in_executor(self.writer, new.remember, self.store)
            held = await loop.run_in_executor(self.writer, list, self.store.events())
            # From here to the end nothing else happens: a log is of one state at a time.
            self.serving = new
            if self.log is not None:
                self.log.again()
                self._begin_log(held)

    async def close(self) -> None:
        """Store what waits, and close the files."""
        while self.calls:
            async with self.writing:
                await self._write_some()
        self.writer.shutdown()
        self.store.close()
        if self.log is not None:
            self.log.close()


def told(error: TinprepError | Misfit) -> dict[str, Any]:
    """An error as it is answered."""
    if isinstance(error, Misfit):
        return {"what": "This is not what was asked for.", "where": error.at} | {
            "expected": error.expected,
            "got": error.got,
        }
    found = {"what": error.what, "where": error.where, "expected": error.expected}
    found |= {"got": error.got, "do": error.do}
    return {key: str(value) for key, value in found.items() if value is not None}
