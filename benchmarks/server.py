"""A server at work: how fast, for how long, and whether its scores are those of `predict`.

python benchmarks/server.py --raw ../shared/data/kuairand_tianchi               all but the long run
python benchmarks/server.py --raw ../shared/data/kuairand_tianchi --minutes 10  and a steady rate

KuaiRand without its last day is prepared, trained on and served; its last day is what happens. The
client is this process, so on two cores one is the server's. Latency counts from when a request was
due: a server that falls behind is seen to.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from tests.served import Server
from tests.test_server import CUT, kuairand, replay

P99_MS = 10.0
Due = tuple[float, str, bytes]  # when, path, body


def candidates(folder: Path, count: int) -> list[dict[str, Any]]:
    """Ads of the log."""
    ads = pl.read_csv(folder / "new/ad_feature.csv", infer_schema_length=None)["adgroup_id"]
    return [{"ad": int(ad), "pid": "tab_1"} for ad in ads.head(count)]


def replayed(server: Server, folder: Path, imps: list[Any], others: list[Any]) -> str:
    """Every impression as a request, every behaviour as an event, as they came."""
    wanted = dict(pl.read_parquet(folder / "s.parquet").select("row", "score").rows())
    first, worst = min(wanted), 0.0
    for at, kind, n, row in replay(imps, others):
        if kind:
            event = {"id": f"b{n}", "table": "behaviours", "columns": row}
            server.get("/events", {"events": [event]})
            continue
        one = {"ad": int(row["adgroup_id"]), "pid": row["pid"]}
        asked = {"user": int(row["user"]), "time": at, "candidates": [one]}
        worst = max(worst, abs(server.get("/score", asked)["scores"][0] - wanted[first + n]))
    return f"{len(imps):,} requests, {len(others):,} events; largest difference {worst:.1e}"


def percentile(values: list[float], share: float) -> float:
    """Of milliseconds."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


@dataclass
class Load:
    """Requests at a steady rate over some connections, and events beside them.

    Attributes:
        address: of the server.
        bodies: of requests, by turns.
        users: of events.
        took: milliseconds of each request, from when it was due.
        wrong: answers that are none of 200.
    """

    address: tuple[str, int]
    bodies: list[bytes]
    users: list[int]
    took: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    events: int = 0

    async def run(self, rate: float, seconds: float, events: float, connections: int = 32) -> None:
        """Ask `rate` requests a second, and add `events` a second."""
        due: asyncio.Queue[Due | None] = asyncio.Queue()
        workers = [asyncio.create_task(self._work(due)) for _ in range(connections)]
        begun = time.perf_counter()
        for at, path, body in self._plan(rate, seconds, events):
            wait = begun + at - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            due.put_nowait((begun + at, path, body))
        for _ in workers:
            due.put_nowait(None)
        await asyncio.gather(*workers)

    def _plan(
        self, rate: float, seconds: float, events: float
    ) -> Iterator[tuple[float, str, bytes]]:
        asked = posted = 0
        while min(asked / rate, posted / events) < seconds:
            if asked / rate <= posted / events:
                yield asked / rate, "/score", self.bodies[asked % len(self.bodies)]
                asked += 1
                continue
            self.events += 1
            user = self.users[self.events * 7 % len(self.users)]
            columns = {"user": user, "time_stamp": CUT + self.events, "btag": "pv"}
            columns |= {"cate": self.events % 40, "brand": self.events % 900}
            event = {"id": f"l{self.events}", "table": "behaviours", "columns": columns}
            yield posted / events, "/events", json.dumps({"events": [event]}).encode()
            posted += 1

    async def _work(self, due: asyncio.Queue[Due | None]) -> None:
        reader, writer = await asyncio.open_connection(*self.address)
        while (one := await due.get()) is not None:
            at, path, body = one
            head = f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
            writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            told = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", told)
            assert length is not None
            await reader.readexactly(int(length[1]))
            if not told.startswith(b"HTTP/1.1 200"):
                self.wrong.append(told[:40].decode())
            elif path == "/score":
                self.took.append(1e3 * (time.perf_counter() - at))
        writer.close()


def gauges(server: Server) -> tuple[float, int]:
    """Megabytes of memory, and open files."""
    server.client.close()  # it may have been idle for too long
    text = server.get("/metrics")
    rss, files = (
        float(next(x for x in text.splitlines() if x.startswith(name + " ")).split()[1])
        for name in ("process_resident_memory_bytes", "process_open_fds")
    )
    return rss / (1 << 20), int(files)


def main() -> None:
    """Measure, and print lines."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--raw", type=Path, required=True)
    parser.add_argument("--minutes", type=int, default=0)
    parser.add_argument("--rate", type=float, default=200, help="Requests a second, steadily.")
    parser.add_argument("--events", type=float, default=20, help="Events a second, meanwhile.")
    parser.add_argument("--only", choices=("replay", "latency", "rate", "steady"), default=None)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        imps, others = kuairand(asked.raw.resolve(), folder, lambda user: True)
        users = [int(row["user"]) for row in imps]
        every = candidates(folder, 100)
        bodies = [
            json.dumps({"user": user, "time": CUT + 86_400, "candidates": every}).encode()
            for user in users[:997]
        ]
        args = (folder / "bundle", "--events", folder / "data", "--store")
        if asked.only in (None, "replay"):
            with Server(
                folder / "bundle", "--events", folder / "data", "--store", folder / "a"
            ) as server:
                print(f"replay: {replayed(server, folder, imps, others)}", flush=True)
        with Server(*args, folder / "b", "--log", folder / "log.jsonl") as server:
            if asked.only in (None, "latency"):
                took = []
                for n in range(5_000):
                    begun = time.perf_counter()
                    assert server.ask("/score", bodies[n % len(bodies)])[0] == 200
                    took.append(1e3 * (time.perf_counter() - begun))
                took = took[500:]
                median, p99 = statistics.median(took), percentile(took, 0.99)
                print(
                    f"C = 100, one connection: median {median:.2f} ms, p99 {p99:.2f} ms", flush=True
                )
            load = Load(server.address, bodies, users)
            if asked.only in (None, "rate"):
                holds = 0
                for rate in (100, 200, 400, 600, 800, 1_000, 1_200, 1_500, 2_000):
                    load.took.clear()
                    asyncio.run(load.run(rate, 10, asked.events))
                    p99 = percentile(load.took, 0.99)
                    median = statistics.median(load.took)
                    print(
                        f"{rate} requests/s: median {median:.2f} ms, p99 {p99:.2f} ms", flush=True
                    )
                    if p99 > P99_MS:
                        break
                    holds = rate
                print(
                    f"p99 below {P99_MS:.0f} ms up to {holds} requests/s of 100 candidates",
                    flush=True,
                )
            for minute in range(asked.minutes):
                load.took.clear()
                asyncio.run(load.run(asked.rate, 60, asked.events))
                rss, files = gauges(server)
                median, p99 = statistics.median(load.took), percentile(load.took, 0.99)
                print(
                    f"minute {minute + 1}: {len(load.took):,} requests, median {median:.2f} ms, "
                    f"p99 {p99:.2f} ms, {rss:.0f} MB, {files} files, {len(load.wrong)} errors",
                    flush=True,
                )
            assert not load.wrong, load.wrong[:3]
            code, said = server.stop()
            assert (code, said) == (0, ""), said


if __name__ == "__main__":
    main()
