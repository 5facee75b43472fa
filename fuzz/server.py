"""Hostile calls to `tinprep serve`: `python -m fuzz.server BUNDLE EVENTS --calls 100000`.

Good calls are changed: values become others, keys go or come, bytes change, headers lie. What comes
back has to be an answer that is meant: no fault of the server, nothing on its standard error, no
memory that stays.
"""

from __future__ import annotations

import argparse
import copy
import http.client
import json
import random
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.served import Server

MEANT = {200, 400, 403, 404, 405, 408, 409, 413, 415, 422, 503}
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, -0.0, 1 << 31, 1 << 63, -(1 << 63), 1 << 64, 10**400, 1e308),
    *(
        "",
        "0",
        "u1",
        "\0",
        "\x1b[2J",
        "\u2028",
        "\ud7ff",
        "é" * 300,
        "a" * 70_000,
        "../../x",
        "NaN",
    ),
    *([], {}, [[]], [None], {"a": {"b": []}}, ["x"] * 2_000, "2020-09-23T00:00:00Z", "9999-12-31"),
)
_PATHS = (
    "/score",
    "/events",
    "/bundle",
    "/health",
    "/metrics",
    "/",
    "/openapi.json",
    "/../x",
    "/%00",
)
_METHODS = ("POST", "POST", "POST", "GET", "PUT", "HEAD", "DELETE", "OPTIONS")


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in a value, and every key of it."""
    found: list[tuple[Any, Any]] = []
    keys: Any = value if isinstance(value, dict) else range(len(value))
    for key in keys:
        found.append((value, key))
        if isinstance(value[key], dict | list):
            found += _places(value[key])
    return found


def changed(good: Any, some: random.Random) -> Any:
    """A good body with a few places changed."""
    body = copy.deepcopy(good)
    for _ in range(some.randint(1, 3)):
        places = _places(body)
        if not places:
            break
        at, key = some.choice(places)
        kind = some.randrange(5)
        if kind == 0:
            del at[key]
        elif kind == 1 and isinstance(at, dict):
            at[some.choice(("x", "", "user", "é", "__class__", "a" * 999))] = at[key]
        elif kind == 2 and isinstance(at, list):
            at.extend(copy.deepcopy(at[:]) * some.randrange(40))
        else:
            at[key] = copy.deepcopy(some.choice(_VALUES))
    return body


def call(
    good: Sequence[tuple[str, Any]], some: random.Random
) -> tuple[str, str, bytes, dict[str, str]]:
    """The method, path, body and headers of a call."""
    path, body = some.choice(good)
    data = json.dumps(changed(body, some) if some.random() < 0.9 else body).encode()
    if some.random() < 0.2:
        raw = bytearray(data)
        for _ in range(some.randint(1, 4)):
            at = some.randrange(len(raw) + 1)
            raw[at : at + some.randrange(3)] = some.randbytes(some.randrange(3))
        data = bytes(raw)
    headers = {"content-type": "application/json"}
    method = "POST"
    if some.random() < 0.1:
        method, path = some.choice(_METHODS), some.choice(_PATHS)
        odd = ({}, {"content-type": "text/html"}, {"x": "é\x7f"}, {"expect": "100-continue"})
        headers |= some.choice(odd)
        if some.random() < 0.3:
            headers.pop("content-type", None)
    return method, path, data, headers


def rss_kb(server: Server) -> int:
    """The memory of the server."""
    text = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", text)
    assert found is not None
    return int(found[1])


def hostile(
    server: Server, good: Sequence[tuple[str, Any]], calls: int, seed: int = 0
) -> Counter[int]:
    """Make many calls; returns how often each status came.

    Args:
        server: at work.
        good: path and body of calls that go well.
        calls: how many.
        seed: of what is drawn.
    """
    some, found = random.Random(seed), Counter[int]()
    client = server.connect()
    for _ in range(calls):
        method, path, data, headers = call(good, some)
        try:
            client.request(method, path, None if method in ("GET", "HEAD") else data, headers)
            answer = client.getresponse()
            text = answer.read()
        except (http.client.HTTPException, OSError):  # it was hung up on: that is an answer, too
            client.close()
            client = server.connect()
            found[0] += 1
            assert server.process.poll() is None, (method, path, data[:2_000])
            continue
        found[answer.status] += 1
        assert answer.status in MEANT, (answer.status, text[:500], method, path, data[:2_000])
        assert b"Traceback" not in text
    return found


def main() -> None:
    """Fuzz a server of a bundle whose golden requests are the good calls."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("events", type=Path)
    parser.add_argument("--post", type=Path, help="JSON lines: good bodies of POST /events.")
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    lines = (asked.bundle / "golden/requests.jsonl").read_text().splitlines()
    good: list[tuple[str, Any]] = [("/score", json.loads(line)) for line in lines]
    posts = [] if asked.post is None else asked.post.read_text().splitlines()
    good += [("/events", json.loads(line)) for line in posts for _ in range(8)]
    good.append(("/bundle", {"bundle": "nowhere", "events": None}))
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.jsonl"
        args = (asked.bundle, "--events", asked.events, "--store", f"{folder}/store", "--log", log)
        with Server(*args) as server:
            found, before = Counter[int](), 0
            for part in range(10):
                found += hostile(server, good, asked.calls // 10, asked.seed * 10 + part)
                before = before or rss_kb(server)
                print(
                    f"{found.total():,} calls, {rss_kb(server) >> 10} MB, {dict(found)}", flush=True
                )
            assert rss_kb(server) < before * 1.3, "memory grows"
            code, said = server.stop()
            assert (code, said) == (0, ""), said[:2_000]
            assert log.read_bytes().isascii()


if __name__ == "__main__":
    main()
