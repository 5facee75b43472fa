"""Events in, scores out, over HTTP: `tinprep serve`.

Starlette on uvicorn: the most used of what is kept. Of a request of 100 candidates they take 0.14
ms, where uvicorn alone takes 0.11, Sanic 0.12, FastAPI 0.18 and Litestar 0.20 (median, measured).
A body is read by the project's own strict types, so nothing is gained by a framework that reads it.
The OpenAPI page is made from the same types.

Requests are scored on the event loop: the model takes 0.1 ms, and a thread's hand-over as long. Two
things uvicorn does not do are added: a client that is slow to say what it wants is hung up on, and
so is one whose headers do not end.
"""

from __future__ import annotations

import asyncio
import html
import json
import logging
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
import uvloop
from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from pydantic import TypeAdapter
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as Call
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pipeline.serving.requests import Request
from pipeline.serving.service import Busy, Posted, Service, told
from schemas.checked import STRICT, Misfit, build, decode
from schemas.errors import EnvironmentFault, InputError, Interrupted, TinprepError
from schemas.plain import printable

_HEADERS = 64 << 10  # bytes, at most
_DRAINED = 8  # times the longest body, up to where a longer one is read all the same
_FLUSH_S = 0.2  # between writings of the log
_SWITCH_S = 5e-4  # after which the thread that stores events lets requests be scored
_SECONDS = (0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1)
_LOOPBACK = ("127.", "::1", "::ffff:127.")

_encode = msgspec.json.Encoder().encode
Handler = Callable[[Call], Awaitable[Response]]


@dataclass(frozen=True)
class Another:
    """The body of `POST /bundle`: folders on the server's machine; what is left out stays."""

    __pydantic_config__ = STRICT
    bundle: str | None = None
    events: str | None = None


class _Refused(Exception):
    """A call is answered with an error."""

    def __init__(self, status: int, what: str, **more: str) -> None:
        self.status, self.told = status, {"what": what, **more}


def _too_long(most: int) -> _Refused:
    return _Refused(413, "The body is too long.", expected=f"at most {most} bytes")


def _json(content: Any, status: int = 200, **headers: str) -> Response:
    return Response(_encode(content), status, headers or None, media_type="application/json")


def _error(status: int, error: dict[str, Any]) -> Response:
    # What was not read of a body would be taken for the next call.
    close = {"connection": "close"} if status in (408, 411, 413, 415, 503) else {}
    again = {"retry-after": "1"} if status == 503 else {}
    return _json({"error": error}, status, **close, **again)


class App:
    """The calls of a server."""

    def __init__(self, service: Service) -> None:
        self.service, self.limits = service, service.limits
        self.waiting = self.reading = 0
        self.answers: dict[tuple[str, int], int] = {}
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(self)
        self.seconds = Histogram(
            "tinprep_seconds",
            "From the whole call to its answer.",
            ["call"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        calls: list[tuple[str, str, Handler]] = [
            ("/score", "POST", self.score),
            ("/events", "POST", self.events),
            ("/bundle", "POST", self.bundle),
            ("/health", "GET", self.health),
            ("/metrics", "GET", self.metrics),
            ("/openapi.json", "GET", self.openapi),
            ("/", "GET", self.page),
        ]
        routes = [Route(at, self._answered(at, of), methods=[how]) for at, how, of in calls]
        errors = {HTTPException: self._no_such}
        self.asgi = Starlette(routes=routes, exception_handlers=errors)  # type: ignore[arg-type]

    # Calls.

    async def score(self, call: Call) -> Response:
        """Scores of a request."""
        raw = await self._read(call)
        with self._timed("score"):
            features = isinstance(raw, dict) and raw.pop("features", False)
            if not isinstance(features, bool):
                raise Misfit("features", "true or false", ascii(features)[:100])
            return _json(self.service.score(raw, features))

    async def events(self, call: Call) -> Response:
        """New events."""
        posted = build(Posted, await self._read(call))
        with self._timed("events"):
            return _json((await self.service.add(posted.events))._asdict())

    async def bundle(self, call: Call) -> Response:
        """Another bundle, or another data set."""
        if call.client is None or not call.client.host.startswith(_LOOPBACK):
            raise _Refused(403, "A bundle is named on the server's own machine.")
        another = build(Another, await self._read(call))
        named = [None if one is None else Path(one) for one in (another.bundle, another.events)]
        try:
            await self.service.take_over(*named)
        except TinprepError as error:
            return _error(409, told(error))
        return await self.health(call)

    async def health(self, _: Call) -> Response:
        """Whether it serves, and what."""
        serving = self.service.serving
        of = serving.scorer.bundle
        return _json(
            {
                "status": "ok",
                "bundle": str(serving.bundle),
                "events": str(serving.data),
                "model": of.model,
                "version": of.version,
                "sequence": serving.live.sequence,
            }
        )

    async def metrics(self, _: Call) -> Response:
        """What a monitor reads."""
        return Response(generate_latest(self.registry), media_type="text/plain; version=0.0.4")

    async def openapi(self, _: Call) -> Response:
        """All of it for machines."""
        return _json(openapi())

    async def page(self, _: Call) -> Response:
        """All of it for people."""
        return Response(
            _page(openapi()), headers={"content-security-policy": "default-src 'none'"},
            media_type="text/html",
        )  # fmt: skip

    # How each is answered.

    def _answered(self, at: str, handler: Handler) -> Handler:
        async def answer(call: Call) -> Response:
            response = await self._outcome(handler, call)
            key = at, response.status_code
            self.answers[key] = self.answers.get(key, 0) + 1
            return response

        return answer

    async def _outcome(self, handler: Handler, call: Call) -> Response:
        try:
            return await handler(call)
        except _Refused as error:
            return _error(error.status, error.told)
        except (Misfit, InputError) as error:
            return _error(422, told(error))
        except EnvironmentFault as error:
            return _error(507, told(error))
        except Busy:
            return _error(503, {"what": "Too much waits.", "do": "ask again later"})
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception as error:
            said = printable(f"{type(error).__name__}: {error}"[:500])
            print(f"error: {call.url.path}: {said}", file=sys.stderr, flush=True)  # noqa: T201
            return _error(500, {"what": "This is a fault of tinprep: please report it."})

    async def _no_such(self, call: Call, error: HTTPException) -> Response:
        key = "other", error.status_code
        self.answers[key] = self.answers.get(key, 0) + 1
        return _error(error.status_code, {"what": error.detail})

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        """Count a call that is all there as waiting, and take its time."""
        if self.waiting >= self.limits.waiting:
            raise Busy
        self.waiting += 1
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.waiting -= 1
            self.seconds.labels(name).observe(time.perf_counter() - begun)

    async def _read(self, call: Call) -> Any:
        """The body, decoded.

        Raises:
            _Refused: it is too long, too slow, or no JSON.
            Busy: the bodies that are on their way are too much.
        """
        kind = call.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":  # what a page of another site may not send
            raise _Refused(
                415,
                "The body is not said to be JSON.",
                expected="a header, content-type: application/json",
                got=printable(kind)[:200] or "none",
            )
        most = self.limits.body
        length = call.headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 18 or int(length) > _DRAINED * most:
            raise _too_long(most)
        parts: list[bytes] = []
        size = held = 0
        try:
            async with asyncio.timeout(self.limits.slow_s):
                async for part in call.stream():
                    size += len(part)
                    # A client that still sends does not hear an answer: what is a little too long
                    # is read, and dropped.
                    if size > _DRAINED * most:
                        break
                    if size <= most:
                        parts.append(part)
                        held += len(part)
                        self.reading += len(part)
                    if self.reading > self.limits.bytes_waiting:
                        raise Busy
        except TimeoutError:
            raise _Refused(408, "The body did not come in time.") from None
        finally:
            self.reading -= held
        if size > most:
            raise _too_long(most)
        try:
            return decode(b"".join(parts))
        except ValueError as error:
            raise _Refused(400, "The body is not JSON.", got=printable(str(error))[:200]) from None

    # What is measured.

    def collect(self) -> Iterator[Metric]:
        """As a collector of Prometheus."""
        seen, serving, log = self.service.seen, self.service.serving, self.service.log
        made = serving.scorer.bundle.data

        def counted(name: str, what: str, labels: list[str]) -> CounterMetricFamily:
            return CounterMetricFamily(f"tinprep_{name}", what, labels=labels)

        def one(name: str, what: str, value: float) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"tinprep_{name}", what, value=value)

        answers = counted("answers", "Calls, by their answer.", ["call", "status"])
        for (at, status), count in self.answers.items():
            answers.add_metric([at, str(status)], count)
        yield answers
        yield CounterMetricFamily(
            "tinprep_candidates", "Candidates that were scored.", value=seen.candidates
        )
        unknown = counted("unknown_candidates", "Candidates whose field has no id.", ["field"])
        for name in made.fields:
            unknown.add_metric([name], seen.unknown[name])
        yield unknown
        empty = counted("empty_histories", "Requests with nothing in a history.", ["history"])
        bins = counted(
            "interval_bins", "Behaviours of requests, by interval bin.", ["history", "bin"]
        )
        train = GaugeMetricFamily(
            "tinprep_train_interval_bins",
            "The share of train's behaviours in an interval bin.",
            labels=["history", "bin"],
        )
        for name, of in made.histories.items():
            empty.add_metric([name], seen.empty[name])
            counts, whole = of.bins.train_counts, max(1, sum(of.bins.train_counts))
            now = seen.bins.get(name, [0] * (len(counts) + 1))
            for k, count in enumerate(counts, 1):
                bins.add_metric([name, str(k)], float(now[k]))
                train.add_metric([name, str(k)], count / whole)
        yield from (empty, bins, train)
        events = counted("events", "Events, by what became of them.", ["what"])
        events.add_metric(["added"], seen.added)
        events.add_metric(["repeated"], seen.repeated)
        for reason, count in seen.left_out.items():
            events.add_metric([reason], count)
        yield events
        yield one("sequence", "Of the last event.", serving.live.sequence)
        yield one("held_events", "Events in memory and in the store.", len(serving.live.held))
        yield one("waiting", "Calls that wait for their answer.", self.waiting)
        yield one("lost_log_lines", "Lines that the disk did not take.", log.lost if log else 0)


def openapi() -> dict[str, Any]:
    """What can be called, as OpenAPI 3.1."""
    inputs = {"Request": Request, "Posted": Posted, "Another": Another}
    adapters: Any = [(name, "validation", TypeAdapter(of)) for name, of in inputs.items()]
    template = "#/components/schemas/{model}"
    _, found = TypeAdapter.json_schemas(adapters, ref_template=template)
    schemas = found["$defs"]
    asked = schemas["Request"]["properties"]
    asked["time"] = {"anyOf": [asked["time"], {"type": "string", "format": "date-time"}]}
    asked["features"] = {"type": "boolean", "default": False}
    number, whole = {"type": "number"}, {"type": "integer"}
    schemas["Scores"] = _object(
        ["scores", "sequence"],
        scores={"type": "array", "items": number},
        sequence=whole,
        id={"type": "string"},
        features={"type": "object"},
    )
    schemas["Added"] = _object(
        ["added", "repeated", "left_out", "sequence"],
        added=whole,
        repeated=whole,
        left_out={"type": "object", "additionalProperties": whole},
        sequence=whole,
    )
    schemas["Health"] = _object(["status"], status={"type": "string"})
    text = {"type": "string"}
    why = _object(["what"], what=text, where=text, expected=text, got=text, do=text)
    schemas["Error"] = _object(["error"], error=why)

    def call(summary: str, answer: str, *errors: int, body: str | None = None) -> dict[str, Any]:
        answers = {"200": answer, **{str(status): "Error" for status in errors}}
        found: dict[str, Any] = {
            "summary": summary,
            "responses": {
                status: {"description": name, "content": _content(name)}
                for status, name in answers.items()
            },
        }
        if body is not None:
            found["requestBody"] = {"required": True, "content": _content(body)}
        return found

    often = (400, 408, 413, 415, 422, 503)
    return {
        "openapi": "3.1.0",
        "info": {"title": "tinprep serve", "version": "1"},
        "paths": {
            "/score": {
                "post": call("Score a request's candidates.", "Scores", *often, body="Request")
            },
            "/events": {
                "post": call("Add all events, or none.", "Added", *often, 507, body="Posted")
            },
            "/bundle": {
                "post": call(
                    "Serve another bundle, or go on as before.",
                    "Health",
                    *(*often, 403, 409),
                    body="Another",
                )
            },
            "/health": {"get": call("Whether it serves, and what.", "Health")},
            "/metrics": {
                "get": {
                    "summary": "What Prometheus reads.",
                    "responses": {"200": {"description": "text"}},
                }
            },
        },
        "components": {"schemas": schemas},
    }


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties}


def _content(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _page(api: dict[str, Any]) -> str:
    """The page of it, without a script or a file from elsewhere."""
    parts = ["<!doctype html><html lang=en><meta charset=utf-8><title>tinprep serve</title>"]
    parts.append("<h1>tinprep serve</h1><p>For machines: <a href=openapi.json>openapi.json</a></p>")
    for at, how in api["paths"].items():
        for method, call in how.items():
            parts.append(f"<h2>{method.upper()} {at}</h2><p>{html.escape(call['summary'])}</p>")
    for name, schema in api["components"]["schemas"].items():
        text = html.escape(json.dumps(schema, indent=1))
        parts.append(f"<h3 id={name}>{name}</h3><pre>{text}</pre>")
    return "".join(parts)


class _Timely(HttpToolsProtocol):
    """HTTP of clients that say in time what they want, and not too much of it."""

    slow_s: float
    _size = 0
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._begin()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._late is None and (self.cycle is None or self.cycle.response_complete):
            self._begin()
        super().data_received(data)
        self._size += len(data)
        if self._late is not None and self._size > _HEADERS:
            self.transport.close()

    def on_headers_complete(self) -> None:
        self._end()
        super().on_headers_complete()

    def _begin(self) -> None:
        self._size = 0
        self._late = self.loop.call_later(self.slow_s, self.transport.close)

    def _end(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are handled outside."""
        yield


def serve(
    service: Callable[[], Service], host: str, port: int, ready: Callable[[str], None]
) -> None:
    """Serve until a signal comes.

    `ready` is told where it listens, once it does; port 0 is any.

    Raises:
        EnvironmentFault: the address cannot be listened at.
        Interrupted: Ctrl-C ended it.
    """
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError, ValueError) as error:
        raise EnvironmentFault(
            "It cannot be listened there.",
            where=f"{host}:{port}"[:200],
            expected="an address of this machine, and a port that is free",
            got=getattr(error, "strerror", None) or str(error)[:200],
            do="name another --port, or stop what listens at this one",
        ) from None
    with listening:
        made = service()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            ended = runner.run(_served(made, listening, ready))
    if ended == signal.SIGINT:
        raise Interrupted(
            "Interrupted.", do="run the same command again: what was added is on disk"
        )


async def _served(
    service: Service, listening: socket.socket, ready: Callable[[str], None]
) -> signal.Signals | None:
    limits, loop = service.limits, asyncio.get_running_loop()
    http = type("Timely", (_Timely,), {"slow_s": limits.slow_s})
    server = _Server(
        uvicorn.Config(
            App(service).asgi,
            http=http,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=limits.connections,
            timeout_keep_alive=int(limits.idle_s),
            timeout_graceful_shutdown=int(limits.stop_s),
        )
    )
    came: list[signal.Signals] = []
    others: set[asyncio.Task[Any]] = set()

    def stop(number: signal.Signals) -> None:
        server.force_exit = bool(came)
        server.should_exit = True
        came.append(number)

    def again() -> None:
        task = loop.create_task(_again(service))
        others.add(task)
        task.add_done_callback(others.discard)

    sys.setswitchinterval(_SWITCH_S)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, partial(stop, number))
    loop.add_signal_handler(signal.SIGHUP, again)
    tasks = [loop.create_task(of) for of in (service.write(), _flushed(service))]
    for task in tasks:  # without them nothing would be answered, so the process ends, and says why
        task.add_done_callback(lambda _: setattr(server, "should_exit", True))
    serving = loop.create_task(server.serve(sockets=[listening]))
    while not (server.started or serving.done()):
        await asyncio.sleep(0.01)
    host, port = listening.getsockname()[:2]
    ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    await serving
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    await service.close()
    return came[0] if came else None


async def _again(service: Service) -> None:
    """Take over what the folders hold now."""
    try:
        await service.take_over(None, None)
        said = f"serving {service.serving.bundle} as it is now"
    except TinprepError as error:
        said = f"error: {error}\nserving as before"
    print(said, file=sys.stderr, flush=True)  # noqa: T201


async def _flushed(service: Service) -> None:
    while True:
        await asyncio.sleep(_FLUSH_S)
        if service.log is not None:
            service.log.flush()
