"""`tinprep serve`: events in, scores out, over HTTP, as the files of the same events give them."""

from __future__ import annotations

import csv
import http.client
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fuzz.server import hostile
from tests.conftest import NO_NETWORK, finished, real_data, refused, tinprep
from tests.served import Server
from tests.serving_made import DAY

KILLS = int(os.environ.get("TINPREP_KILLS", "3"))
LAST = 1_600_041_600 + 10 * DAY
CUT = 1_651_939_200  # of KuaiRand, its last day in Beijing


@pytest.fixture
def made(bundle_made: Path) -> Path:
    return bundle_made


def bought(n: int, user: str = "u1", **more: Any) -> dict[str, Any]:
    """An event, which any `n` names."""
    columns = {"user": user, "item": f"i{n % 31}", "category": f"c{n % 4}", "kind": "buy"}
    columns |= {"second": LAST + n // 2, "device": "d1", "spent": 3, **more}
    return {"id": f"e{n}", "columns": columns}


def asked(user: str = "u1", at: int = LAST + DAY, count: int = 3) -> dict[str, Any]:
    """A request."""
    some = [{"item": f"i{n}", "category": "c1", "device": "d1", "spent": n} for n in range(count)]
    return {"user": user, "time": at, "candidates": some}


def test_posted_events_count_as_those_of_files(made: Path, tmp_path: Path) -> None:
    """As `transform` and `score` have it; and the log tells it again."""
    users = [*(f"u{n}" for n in range(0, 60, 7)), "new", "né\n\x1b[31m"]
    some = random.Random(7)
    rows = []
    for n in range(120):
        kind, at = some.choice(["buy", "pv", "cart"]), LAST + some.randrange(-2 * DAY, DAY // 4)
        rows.append(bought(n, some.choice(users), kind=kind, second=at)["columns"])
    with (tmp_path / "new.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)
    requests = [asked(user, at) for user in users for at in (LAST + DAY, LAST + DAY // 5)]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(one) + "\n" for one in requests))
    out, scores, log = tmp_path / "data", tmp_path / "s.parquet", tmp_path / "log.jsonl"
    new = ("--events", tmp_path / "new.csv", "--out", out, "--keep-events")
    finished(tinprep("transform", made / "data", *new))
    given = ("--requests", tmp_path / "r.jsonl", "--out", scores)
    finished(tinprep("score", made / "bundle", "--events", out, *given))
    wanted = pl.read_parquet(scores).group_by("line", maintain_order=True).agg("score")["score"]
    store = ("--store", tmp_path / "store", "--log", log)
    with Server(made / "bundle", "--events", made / "data", *store) as server:
        for n in range(0, len(rows), 10):
            events = [{"id": f"{k}", "columns": rows[k], "table": "log"} for k in range(n, n + 10)]
            told = server.get("/events", {"events": events})
            assert told["added"] + sum(told["left_out"].values()) == 10
        found = [server.get("/score", one) for one in requests]
        assert max(one["sequence"] for one in found) == told["sequence"] == 120
        features = server.get("/score", requests[0] | {"features": True})["features"]
        assert features["past_length"] == [9]
        metrics = server.get("/metrics")
        assert 'tinprep_events_total{what="added"} 120.0' in metrics
        assert server.stop() == (0, "")
    for one, want in zip(found, wanted, strict=True):
        assert one["scores"] == pytest.approx(want.to_list(), abs=1e-5)
    assert log.read_text().isascii()
    assert len({tuple(one["scores"]) for one in found}) > 9
    said = tinprep("verify", made / "bundle", "--log", log, "--events", made / "data")
    finished(said)
    assert f"{len(requests) + 1} logged requests" in said.out
    # A data set that has the events itself takes the place of the one that has not.
    with Server(made / "bundle", "--events", made / "data", *store) as server:
        assert server.get("/bundle", {"events": str(out)})["events"] == str(out)
        again = [server.get("/score", one) for one in requests]
        assert [one["scores"] for one in again] == [one["scores"] for one in found]
        assert "tinprep_held_events 0.0" in server.get("/metrics")
        assert server.stop(signal.SIGINT)[0] == 130
    said = tinprep("verify", made / "bundle", "--log", log, "--events", made / "data")
    refused(said, 4, "of another data set")


def test_what_is_acknowledged_stays_once(made: Path, tmp_path: Path) -> None:
    store = ("--store", tmp_path / "store")
    events = [bought(n, f"u{n % 5}") for n in range(40)]
    with Server(made / "bundle", "--events", made / "data", *store) as server:
        assert server.get("/events", {"events": events[:20]})["added"] == 20
        told = server.get("/events", {"events": [*events[10:], events[30]]})
        assert (told["added"], told["repeated"]) == (20, 11)
        wanted = [server.get("/score", asked(f"u{n}"))["scores"] for n in range(6)]
        second = Server(made / "bundle", "--events", made / "data", *store)
        assert "no other process" in second.refused
        server.process.kill()
    with Server(made / "bundle", "--events", made / "data", *store) as server:
        assert server.get("/events", {"events": events})["repeated"] == 40
        assert wanted == [server.get("/score", asked(f"u{n}"))["scores"] for n in range(6)]
        # What no history can need is forgotten, and adds nothing when it comes again.
        for n in range(40, 4_040, 500):
            many = [bought(k, "u1", second=LAST + 9_000 * k) for k in range(n, n + 500)]
            assert server.get("/events", {"events": many})["added"] == 500
        held = next(line for line in server.get("/metrics").splitlines() if "_held" in line[:13])
        assert float(held.split()[1]) < 100
        wanted = server.get("/score", asked("u1", LAST + 99_000_000))["scores"]
        server.get("/events", {"events": events})
        assert wanted == server.get("/score", asked("u1", LAST + 99_000_000))["scores"]
        status, told = server.ask("/score", asked("u1"))
        assert (status, told["error"]["what"].split(" that")[0]) == (
            422,
            "The request is older than the events",
        )
    assert sum(one.stat().st_size for one in (tmp_path / "store").iterdir()) < 8 << 20


def test_a_damaged_or_foreign_store_is_refused(made: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    serve = (made / "bundle", "--events", made / "data", "--store")
    with Server(*serve, store) as server:
        for n in range(9):
            server.get("/events", {"events": [bought(9 * n + k) for k in range(9)]})
        server.process.kill()
    killed = tmp_path / "killed"
    shutil.copytree(store, killed)
    with Server(*serve, store) as server:
        server.stop()
    for folder, name, needle in (
        (killed, "events.sqlite-wal", b"i7"),
        (store, "events.sqlite", b"e31"),
        (store, "events.sqlite", b"bin edges"),
        (store, "acknowledged", b"81 "),
    ):
        wrong = tmp_path / f"wrong-{len([*tmp_path.iterdir()])}"
        shutil.copytree(folder, wrong)
        data = bytearray((wrong / name).read_bytes())
        at = data.find(needle) if b"wal" not in name.encode() else len(data) // 2
        data[at] ^= 0x01
        (wrong / name).write_bytes(data)
        refused(said := tinprep("serve", *serve, wrong, "--port", 0), 3)
        assert said.err.count("error: ") == 1
    (store / "events.sqlite").unlink()
    missing = tinprep("serve", *serve, store, "--port", 0)
    refused(missing, 3, "Acknowledged events are missing")
    other, run = tmp_path / "other", tmp_path / "run"
    finished(tinprep("prepare", made / "log.toml", "--out", other, "--keep-events", "--bins", "4"))
    finished(tinprep("train", other, "--steps", "2", "--run", run))
    finished(tinprep("export", run, "--out", tmp_path / "bundle"))
    foreign = (tmp_path / "bundle", "--events", other, "--store", killed, "--port", 0)
    refused(tinprep("serve", *foreign), 4, "those of another bundle")
    refused(tinprep("serve", made / "bundle", "--events", other, "--port", "0"), 4, "bin edges")


def test_a_flipped_byte_in_any_file_is_refused(made: Path, tmp_path: Path) -> None:
    wholes = {name: made / name for name in ("bundle", "data")}
    files = [(name, path) for name, of in wholes.items() for path in sorted(of.rglob("*.*"))]
    unread = ("train", "valid", "test", "rejected", "lookups", "vocabulary", "events")
    some = [
        (n, p) for n, p in files if n == "bundle" or p.relative_to(made / n).parts[0] not in unread
    ]
    assert len(some) > 12
    for n, (name, path) in enumerate(some):
        if path.name in ("manifest.json", ".lock"):  # which have no checksum
            continue
        folders = {**wholes, name: tmp_path / f"{n}"}
        shutil.copytree(wholes[name], folders[name])
        wrong = folders[name] / path.relative_to(wholes[name])
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0x01
        wrong.write_bytes(data)
        serve = ("serve", folders["bundle"], "--events", folders["data"], "--port", "0")
        said = tinprep(*serve, "--store", tmp_path / "store")
        assert said.code in (3, 4), (wrong, said.err)
        assert said.err.count("error: ") == 1
        assert "Traceback" not in said.err
    assert not (tmp_path / "store").exists()


def test_bad_calls_get_one_clear_answer(made: Path, tmp_path: Path) -> None:
    good = {"events": [bought(1)]}
    lacks = {**good["events"][0], "columns": {"user": "u1"}}
    calls: list[tuple[str, Any, int, str]] = [
        ("/score", b"{", 400, "JSON"),
        ("/score", b'{"user": "u1", "time": NaN}', 400, "JSON"),
        ("/score", b"[" * 100_000, 400, "JSON"),
        ("/score", [], 422, "object"),
        ("/score", {"user": "u1", "time": 1, "candidates": []}, 422, "candidates"),
        ("/score", asked(count=1_001), 422, "at most 1000"),
        ("/score", asked() | {"features": 1}, 422, "features"),
        (
            "/score",
            {"user": "u1", "time": 1_600_900_000, "candidates": [{"item": [5]}]},
            422,
            "item",
        ),
        ("/score", b" " * (1 << 20) + b"{}", 413, "too long"),
        ("/events", {"events": []}, 422, "events"),
        ("/events", {"events": [good["events"][0], lacks]}, 422, "lacks the column second"),
        ("/events", {"events": [bought(1) | {"table": "lgo"}]}, 422, "did you mean log?"),
        ("/events", {"events": [bought(1) | {"id": ""}]}, 422, "id"),
        ("/events", {"events": [bought(k) for k in range(1_001)]}, 422, "at most 1000"),
        ("/bundle", {"bundle": str(tmp_path)}, 409, "no bundle"),
        ("/nowhere", {}, 404, "Not Found"),
        ("/health", {}, 405, "Not Allowed"),
    ]
    with Server(made / "bundle", "--events", made / "data", "--store", tmp_path / "s") as server:
        for path, body, status, said in calls:
            found, answer = server.ask(path, body)
            assert (found, said in json.dumps(answer)) == (status, True), (path, answer)
            assert {*answer["error"]} <= {"what", "where", "expected", "got", "do"}
        assert server.ask("/score", asked(), **{"content-type": "text/plain"})[0] == 415
        # What is no event for a preparation is none here, and says why.
        odd = [bought(1, spent="much"), bought(2, second="soon"), bought(3, user=None)]
        told = server.get("/events", {"events": odd})
        assert (told["added"], told["sequence"]) == (0, 0)
        assert {*told["left_out"]} == {
            "refused: not a number in spent",
            "refused: not a whole number in second",
            "refused: missing value in user",
        }
        assert "<script" not in server.get("/")
        assert {*server.get("/openapi.json")["paths"]} >= {"/score", "/events", "/bundle"}
        assert server.stop() == (0, "")


def test_clients_that_are_slow_stop_nobody(made: Path, tmp_path: Path) -> None:
    with Server(made / "bundle", "--events", made / "data", "--store", tmp_path / "s") as server:
        wanted = server.get("/score", asked())["scores"]
        head = b"POST /score HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
        slow = []
        for n in range(60):
            one = socket.create_connection(server.address)
            one.sendall((b"", b"POST /sc", head + b"content-length: 99\r\n\r\n{")[n % 3])
            slow.append(one)
        endless = socket.create_connection(server.address)
        begun = time.monotonic()
        with pytest.raises(OSError):
            while True:
                endless.sendall(b"x: " + b"y" * 60_000 + b"\r\n")
        took = time.monotonic() - begun
        for _ in range(20):
            begun = time.monotonic()
            assert server.get("/score", asked())["scores"] == wanted
            assert time.monotonic() - begun < 4  # and not the 5 s that a slow one may take
        for n, one in enumerate(slow):
            one.settimeout(20)
            said = one.recv(4_096)
            assert said.startswith(b"HTTP/1.1 408") if n % 3 == 2 else said == b"", said
        assert took < 5
        assert server.stop() == (0, "")


def test_another_bundle_is_taken_over_or_none(made: Path, tmp_path: Path) -> None:
    bundle, new, run = tmp_path / "bundle", tmp_path / "new", tmp_path / "run"
    shutil.copytree(made / "bundle", bundle)
    finished(tinprep("train", made / "data", "--steps", "9", "--seed", "5", "--run", run))
    finished(tinprep("export", run, "--out", new))
    store = ("--store", tmp_path / "store")
    with Server(bundle, "--events", made / "data", *store) as server:
        server.get("/events", {"events": [bought(n) for n in range(9)]})
        before = server.get("/score", asked())["scores"]
        shutil.copytree(new, tmp_path / "damaged")
        with (tmp_path / "damaged" / "model.onnx").open("ab") as file:
            file.write(b"x")
        status, said = server.ask("/bundle", {"bundle": str(tmp_path / "damaged")})
        assert (status, "not what was written" in said["error"]["what"]) == (409, True)
        assert server.get("/score", asked())["scores"] == before
        server.get("/bundle", {"bundle": str(new)})
        after = server.get("/score", asked())["scores"]
        assert after != pytest.approx(before, abs=1e-4)
        server.get("/bundle", {"bundle": str(bundle)})
        assert server.get("/score", asked())["scores"] == before
        shutil.rmtree(bundle)
        shutil.copytree(new, bundle)
        server.process.send_signal(signal.SIGHUP)
        for _ in range(100):
            if server.get("/score", asked())["scores"] == after:
                break
            time.sleep(0.1)
        assert server.get("/score", asked())["scores"] == after
        assert server.get("/events", {"events": [bought(n) for n in range(9)]})["repeated"] == 9


def test_kills_lose_nothing_acknowledged(made: Path, tmp_path: Path) -> None:
    """`TINPREP_KILLS=30` for more. Each event is there once, and each score as if nothing was."""
    serve, some = (made / "bundle", "--events", made / "data", "--store"), random.Random(3)
    sent: list[dict[str, Any]] = []
    sure: dict[str, dict[str, Any]] = {}
    for kill in range(KILLS):
        with Server(*serve, tmp_path / "store") as server:
            threading.Timer(some.uniform(0.02, 0.8), server.process.kill).start()
            try:
                while True:
                    new = [
                        bought(len(sent) + k, f"u{some.randrange(9)}")
                        for k in range(some.randint(1, 9))
                    ]
                    for event in new:
                        event["columns"]["second"] = LAST + int(event["id"][1:])  # no two at once
                    sent += new
                    again = some.sample(sent, min(len(sent), 3))
                    told = server.get("/events", {"events": [*new, *again]})
                    assert told["repeated"] == 3 or len(sent) < 20 or kill
                    sure |= {event["id"]: event for event in new}
            except (http.client.HTTPException, OSError):
                server.process.wait()
    requests = [asked(f"u{n}", LAST + DAY // 2) for n in range(9)]
    with Server(*serve, tmp_path / "store") as server:
        every = [*sure.values()]
        for n in range(0, len(every), 500):
            told = server.get("/events", {"events": every[n : n + 500]})
            assert told["repeated"] == len(every[n : n + 500])
        lost = [event for event in sent if event["id"] not in sure]
        if lost:
            server.get("/events", {"events": lost})
        found = [server.get("/score", one | {"features": True}) for one in requests]
        assert found[0]["sequence"] == len(sent) > 10 * KILLS
    with Server(*serve, tmp_path / "whole") as server:
        for n in range(0, len(sent), 500):
            assert server.get("/events", {"events": sent[n : n + 500]})["repeated"] == 0
        wanted = [server.get("/score", one | {"features": True}) for one in requests]
    assert [one["features"] for one in found] == [one["features"] for one in wanted]


def test_a_full_disk_takes_no_event_and_loses_none(made: Path, tmp_path: Path) -> None:
    serve = (made / "bundle", "--events", made / "data", "--store", tmp_path / "store")

    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    count = 0
    with Server(*serve, preexec_fn=small) as server:
        for n in range(0, 8_000, 200):
            events = [bought(k, f"u{k % 60}") for k in range(n, n + 200)]
            status, told = server.ask("/events", {"events": events})
            if status != 200:
                break
            count += 200
        assert (status, count > 0) == (507, True), told
        assert "disk" in json.dumps(told) or "stored" in json.dumps(told)
        assert server.get("/score", asked())["sequence"] == count
        assert server.ask("/events", {"events": events})[0] == 507
        server.stop()
    with Server(*serve) as server:
        assert server.get("/score", asked())["sequence"] == count
        assert server.get("/events", {"events": events})["added"] == 200


def test_hostile_calls_are_answered(made: Path, tmp_path: Path) -> None:
    """`python -m fuzz.server` makes 100,000 of them."""
    good = [("/score", asked()), ("/score", asked() | {"features": True, "context": {"spent": 3}})]
    good += [("/events", {"events": [bought(k) for k in range(5)]})] * 2
    serve = (made / "bundle", "--events", made / "data", "--store", tmp_path / "store")
    with Server(*serve, "--log", tmp_path / "log.jsonl") as server:
        found = hostile(server, good, 400)
        assert found[422] > 100 < found[200]
        assert server.stop() == (0, "")
    assert (tmp_path / "log.jsonl").read_bytes().isascii()
    said = tinprep(
        "verify", made / "bundle", "--log", tmp_path / "log.jsonl", "--events", made / "data"
    )
    finished(said)


def test_kuairand_replayed_as_it_came(tmp_path: Path) -> None:
    """A share of its users; `benchmarks/server.py` has all of them."""
    raw = real_data("kuairand_tianchi")
    imps, others = kuairand(raw, tmp_path, lambda user: user // 2 % 6 == 1)
    worst, count = 0.0, 0
    wanted = dict(pl.read_parquet(tmp_path / "s.parquet").select("row", "score").rows())
    first = min(wanted)
    with Server(tmp_path / "bundle", "--events", tmp_path / "data") as server:
        waiting: list[dict[str, Any]] = []
        for at, kind, n, row in replay(imps, others):
            if kind:
                waiting.append({"id": f"b{n}", "table": "behaviours", "columns": row})
                continue
            if waiting:
                server.get("/events", {"events": waiting})
                waiting = []
            candidate = {"ad": int(row["adgroup_id"]), "pid": row["pid"]}
            told = {"user": int(row["user"]), "time": at, "candidates": [candidate]}
            found = server.get("/score", told)["scores"][0]
            worst, count = max(worst, abs(found - wanted[first + n])), count + 1
    assert count == len(imps) > 1_000
    assert worst < 1e-5


def kuairand(
    raw: Path, folder: Path, some: Any
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """A bundle of all but the last day, that day's scores; its impressions and behaviours."""
    for part in ("old", "new"):
        (folder / part).mkdir()
        for file in ("ad_feature.csv", "user_profile.csv"):
            (folder / part / file).symlink_to(raw / file)
    for file in ("raw_sample.csv", "behavior_log.csv"):
        log = pl.read_csv(raw / file)
        log = log.filter(pl.Series([some(user) for user in log["user"]], dtype=pl.Boolean))
        for part, of in (("old", True), ("new", False)):
            log.filter((pl.col("time_stamp") < CUT) == of).write_csv(folder / part / file)
    data, new = folder / "data", folder / "new"
    finished(
        tinprep("prepare", "alibaba-ads", "--raw", folder / "old", "--out", data, "--keep-events")
    )
    finished(tinprep("train", data, "--model", "tin", "--steps", "30", "--run", folder / "run"))
    finished(tinprep("export", folder / "run", "--out", folder / "bundle"))
    events = [f"impressions={new / 'raw_sample.csv'}", f"behaviours={new / 'behavior_log.csv'}"]
    given = [word for one in events for word in ("--events", one)]
    finished(tinprep("transform", data, *given, "--out", folder / "rows"))
    scores = ("--split", "new", "--out", folder / "s.parquet")
    finished(tinprep("predict", folder / "run", folder / "rows", *scores))
    read = [
        list(csv.DictReader((new / file).open())) for file in ("raw_sample.csv", "behavior_log.csv")
    ]
    return read[0], read[1]


def replay(
    imps: list[dict[str, str]], others: list[dict[str, str]]
) -> list[tuple[int, int, int, Any]]:
    """Time, whether it is an event, its number and row; what came first is first."""
    steps = [(int(row["time_stamp"]), 0, n, row) for n, row in enumerate(imps)]
    steps += [(int(row["time_stamp"]), 1, n, row) for n, row in enumerate(others)]
    return sorted(steps, key=lambda step: step[:3])


@pytest.mark.skipif("TINPREP_CONTAINER" not in os.environ, reason="`make container-test` runs it")
def test_the_container_file_makes_a_server(made: Path, tmp_path: Path) -> None:
    """Its steps in a clean environment, with folders of here in place of those of the image."""
    root, app = Path(__file__).parents[1], tmp_path / "app"
    here = {"/src": root, "/app": app, "/bundle": made / "bundle", "/data": made / "data"}
    here |= {"/store": tmp_path, "8000": 0, "0.0.0.0": "127.0.0.1"}
    text = (root / "docs/Containerfile").read_text()
    for name, path in here.items():
        text = re.sub(rf"{re.escape(name)}\b", str(path), text)
    steps = [line.removeprefix("RUN ") for line in text.splitlines() if line.startswith("RUN ")]
    assert len(steps) == 3
    env = {name: value for name, value in os.environ.items() if name not in NO_NETWORK}
    for step in steps:
        subprocess.run(step.split(), check=True, cwd=tmp_path, env=env)
    (command,) = (line for line in text.splitlines() if line.startswith("CMD "))
    with Server(command=json.loads(command.removeprefix("CMD ")), cwd=tmp_path) as server:
        assert server.get("/events", {"events": [bought(1)]})["added"] == 1
        assert len(server.get("/score", asked())["scores"]) == 3
        assert server.stop() == (0, "")
