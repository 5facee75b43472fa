"""Queries of databases: the rows of files with the same data, of one moment, and no secret told."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from polars.testing import assert_frame_equal

from pipeline.readers import query as queries
from pipeline.readers.query import Query
from pipeline.steps import make
from pipeline.verify import verify
from schemas.errors import EnvironmentFault, TinprepError
from schemas.manifest import load
from tests import databases
from tests.conftest import Ended, finished, refused, tinprep
from tests.databases import PASSWORD, Duck, Lite, Postgres
from tests.description_made import Made, descriptions, toml
from tests.object_store import cutting
from tests.test_cli_ends import TINPREP

USAGE, INPUT, FAULT, INTERRUPTED = 2, 3, 5, 130
VARIABLE = "TINPREP_TEST_DSN"
# More of them, for hours: TINPREP_EXAMPLES=5000.
EXAMPLES = int(os.environ.get("TINPREP_EXAMPLES", "3"))
ENGINES = ("duckdb", "sqlite", "postgres")


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with databases.postgres() as found:
        yield found


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """An empty database of each kind."""
    if request.param == "duckdb":
        return Duck(tmp_path / "own data.duckdb")
    if request.param == "sqlite":
        return Lite(tmp_path / "own data.sqlite")
    return request.getfixturevalue("server")


@pytest.fixture(autouse=True)
def no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def prepare(description: Path, out: Path, *flags: object) -> Ended:
    return tinprep("prepare", description, "--out", out, "--max-rejected", "100%", *flags)


def content(out: Path) -> dict[str, pl.DataFrame]:
    """Every table of a data set by its path; of what is refused how often and why."""
    found = {}
    for path in sorted(out.rglob("*.parquet")):
        frame = pl.read_parquet(path)
        if path.parent.name == "rejected":
            frame = frame.group_by("reason").len().sort("reason")
        found[path.relative_to(out).as_posix()] = frame
    return found


def same(one: Path, other: Path, row: pl.Expr | None = None) -> None:
    """Assert that two data sets are the same, row for row, which `row` tells of the other's."""
    tables, others = content(one), content(other)
    assert tables.keys() == others.keys()
    for name, frame in tables.items():
        wanted = others[name]
        if row is not None and "row" in wanted.columns:
            wanted = wanted.with_columns(row)
        assert_frame_equal(frame, wanted)


def asking(made: Made) -> tuple[dict[str, Any], dict[str, pa.Table]]:
    """A description of queries in place of files, and the tables that they are of."""
    told: dict[str, Any] = {"connections": {"own": {"url_env": VARIABLE}}}
    told |= json.loads(json.dumps(made.description))
    tables = {}
    for name, log in made.logs.items():
        kind, _, one = name.partition(".")
        owner, table = told[kind][one], f"{kind}_{one}"
        del owner["files"]
        owner |= {"connection": "own", "query": f"-- all of it\nselect * from {table};\n"}
        rows = [{**row, "row number": n} for n, row in enumerate(log.rows)]
        types = [(column, log._type(column)) for column in log.columns]
        # The last comes first: what a server gives has no order.
        tables[table] = pa.Table.from_pylist(
            rows[::-1], pa.schema([*types, ("row number", pa.int64())])
        )
        if kind == "tables":
            owner["row"] = "row number"
        else:
            tables[table] = tables[table].drop_columns("row number")
    return told, tables


SAME = {"window": "before", "repeated": "equal"}


@pytest.mark.parametrize("database", ENGINES, indirect=True)
def test_queries_give_the_rows_of_files(
    database: Any, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = EXAMPLES if isinstance(database, Postgres) else 1 + EXAMPLES // 9
    # SQLite has no lists.
    fixed = SAME | ({"list": False, "words": False} if isinstance(database, Lite) else {})
    monkeypatch.setenv(VARIABLE, database.address)

    @settings(
        max_examples=examples, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(made=descriptions(**fixed))
    def held(made: Made) -> None:
        folder = tmp_path_factory.mktemp("made")
        for log in made.logs.values():
            log.format, log.parts, log.header, log.odd = "parquet", 1, True, (0,)
        for owner in (*made.description["tables"].values(), *made.description["lookups"].values()):
            for one in owner.get("lists", {}).values():
                one.pop("separator", None)
        of_files, path = made.write(folder / "files"), folder / "queries.toml"
        told, tables = asking(made)
        path.write_text(toml(told), encoding="utf-8")
        for name, rows in tables.items():
            database.put(name, rows)
        ended = prepare(of_files, folder / "of files")
        if ended.code:
            assert prepare(path, folder / "of queries").code == ended.code
            return
        finished(prepare(path, folder / "of queries"))
        same(folder / "of queries", folder / "of files")
        assert verify(folder / "of queries").findings == ()

    held()


ADS = f"""
[connections.ads]
url_env = "{VARIABLE}"

[tables.shown]
connection = "ads"
query = "select * from impressions"
row = "id"
user = "uid"
time = {{ column = "shown_at", timezone = "UTC" }}
label = "clicked"
features = {{ ad = "ad" }}

[tables.clicks]
connection = "ads"
query = "select * from clicks"
row = "id"
user = "uid"
time = {{ column = "ts", unit = "ms" }}
fields = {{ brand = "brand" }}

[lookups.ad]
connection = "ads"
query = "select * from ads"
key = "ad"
fields = {{ brand = "brand" }}
numbers = {{ price = {{ column = "price", scale = "log" }} }}

[target]
table = "shown"
split = {{ by = "time", valid = "2026-11-01", test = "2026-11-03", timezone = "UTC" }}

[histories.clicks]
table = "clicks"
"""
FILES = re.sub(
    r'connection = "ads"\nquery = "select \* from (\w+)"(\nrow = "id")?',
    r'files = "\1.parquet"',
    ADS,
)
FILES = FILES.replace(f'[connections.ads]\nurl_env = "{VARIABLE}"\n', "")
BEGIN = datetime(2026, 10, 30, tzinfo=UTC)
KNOWN = "1d4be08991b41475"  # what its impressions are known by


def ads(step: int = 7) -> dict[str, pa.Table]:
    """Impressions, whose ids are far apart, with clicks and ads."""
    moments = [int(BEGIN.timestamp()) + 9_000 * n for n in range(60)]
    shown = [datetime.fromtimestamp(at, UTC).isoformat(sep=" ")[:19] for at in moments]
    return {
        "impressions": pa.table(
            {
                "id": [step * n + 3 for n in range(60)],
                "uid": [n % 5 for n in range(60)],
                "shown_at": shown,
                "clicked": [n % 3 % 2 for n in range(60)],
                "ad": [n % 4 for n in range(60)],
            }
        ),
        "clicks": pa.table(
            {
                "id": list(range(90)),
                "uid": [n % 5 for n in range(90)],
                "ts": [1_000 * moments[n % 60] - 5_000 for n in range(90)],
                "brand": [f"b{n % 7}" for n in range(90)],
            }
        ),
        "ads": pa.table(
            {"ad": [0, 1, 2, 3], "brand": ["b1", "b2", None, "b4"], "price": [1.5, 2.0, 3.0, None]}
        ),
    }


@pytest.fixture
def described(tmp_path: Path) -> Path:
    path = tmp_path / "ads.toml"
    path.write_text(ADS)
    return path


def put(database: Any, tables: dict[str, pa.Table], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, rows in tables.items():
        database.put(name, rows)
    monkeypatch.setenv(VARIABLE, database.address)


@pytest.mark.parametrize("database", ["duckdb"], indirect=True)
def test_events_of_queries_are_kept_and_new_ones_come_in_files(
    database: Any, described: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, tables = tmp_path / "files.toml", ads()
    first = {"impressions": 50, "clicks": 80, "ads": 4}
    put(database, {name: rows.slice(0, first[name]) for name, rows in tables.items()}, monkeypatch)
    files.write_text(FILES)
    for name, rows in tables.items():
        pq.write_table(rows.slice(0, first[name]), tmp_path / f"{name}.parquet")
        pq.write_table(rows.slice(first[name]), tmp_path / f"new-{name}.parquet")
    new = ("--events", f"shown={tmp_path / 'new-impressions.parquet'}")
    new += ("--events", f"clicks={tmp_path / 'new-clicks.parquet'}")
    for path in (described, files):
        out = tmp_path / f"{path.stem} kept"
        finished(prepare(path, out, "--keep-events"))
        finished(tinprep("transform", out, *new, "--out", tmp_path / path.stem))
        assert verify(tmp_path / path.stem).findings == ()
    assert load(tmp_path / "ads").rows["new"] == 10
    # The last row that a query has numbered is 7 * 49 + 3.
    same(tmp_path / "ads", tmp_path / "files", row=pl.col("row") + 7 * 49 + 4 - 50)


@pytest.mark.parametrize("database", ENGINES, indirect=True)
def test_a_data_set_knows_what_it_was_asked_of(
    database: Any, described: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "day=3"  # which is a column of files below it, and of no query
    put(database, ads(), monkeypatch)
    dry = prepare(described, out, "--dry-run")
    finished(dry)
    assert "tables.shown unknown before its query is read" in dry.said
    if not isinstance(database, Lite):
        checked = tinprep("describe", described, "--check", "--rows", "50")
        finished(checked)
        assert "50" in checked.said
    assert not out.exists()
    finished(prepare(described, out))
    assert {path.name for path in out.iterdir()} - {".lock", "manifest.json"} == {
        *("train", "valid", "test", "vocabulary", "lookups")
    }
    made = load(out)
    shown, *_ = made.inputs
    assert [(one.file, one.rows, one.first_row) for one in made.inputs] == [
        *(("tables.shown", 60, None), ("tables.clicks", 90, None), ("lookups.ad", 4, None))
    ]
    assert shown.query == "select * from impressions"
    # Of any library of any version, and whichever database holds them.
    assert shown.sha256[:16] == KNOWN
    files = tmp_path / "files"
    files.mkdir()
    (files / "ads.toml").write_text(FILES)
    for name, rows in ads().items():
        pq.write_table(rows, files / f"{name}.parquet")
    finished(prepare(files / "ads.toml", tmp_path / "of files"))
    same(out, tmp_path / "of files", row=pl.col("row") * 7 + 3)
    # The rows' order in the database is of no matter, nor how its text is ordered.
    put(database, {name: rows[::-1] for name, rows in ads().items()}, monkeypatch)
    again = prepare(described, out)
    finished(again)
    assert "nothing to do" in again.said
    put(database, {"ads": ads()["ads"].slice(0, 3)}, monkeypatch)
    refused(prepare(described, out), USAGE, "lookups.ad 3 rows", "lookups.ad 4 rows")


TYPES: dict[str, tuple[str, pa.DataType, list[Any]]] = {
    "uid": ("uuid", pa.string(), [str(UUID(int=n % 4)) for n in range(24)]),
    "at": (
        "timestamptz",
        pa.timestamp("us", "UTC"),
        [datetime(2026, 11, 1, n, 0, 0, 500 * n, UTC) for n in range(24)],
    ),
    "naive": ("timestamp", pa.timestamp("us"), [datetime(2026, 11, 1, n) for n in range(24)]),
    "item": ("numeric(20, 0)", pa.decimal128(20, 0), [Decimal(2**60 + n % 6) for n in range(24)]),
    "kind": ("mood", pa.string(), [("sad", "glad")[n % 2] for n in range(24)]),
    "price": ("numeric", pa.float64(), [n / 8 or None for n in range(24)]),
    "paid": ("numeric(9, 2)", pa.decimal128(9, 2), [Decimal(n) / 4 for n in range(24)]),
    "small": ("int2", pa.int16(), [n if n % 5 else None for n in range(24)]),
    "clicked": ("boolean", pa.bool_(), [n % 3 == 0 for n in range(24)]),
    "day": ("date", pa.date32(), [date(2026, 11, 1 + n % 3) for n in range(24)]),
    "tags": ("text[]", pa.list_(pa.string()), [["a", "b"][: n % 3] or None for n in range(24)]),
    "codes": ("int[]", pa.list_(pa.int32()), [[n % 5, 7] for n in range(24)]),
    "more": ("jsonb", pa.string(), [f'{{"n": {n % 2}}}' for n in range(24)]),
    "ratio": ("float4", pa.float32(), [n / 4 for n in range(24)]),
}
TYPED = """
where = "price < 2.5 and paid >= 0.25 and day <> '2026-11-04'"
user = "uid"
time = { column = "at" }
fields = { item = "item", kind = "kind" }
features = { small = "small", day = "day", more = "more" }
numbers = { price = { column = "price" }, paid = { column = "paid" } }
lists = { tag = { column = "tags", max_len = 2 }, code = { column = "codes", max_len = 2 } }
label = "clicked"
weight = "ratio"
keep = ["n"]

[target]
table = "log"
split = { by = "time", test = "2026-11-01T12:00", timezone = "UTC" }

[histories.history]
table = "log"
"""


def test_types_of_postgresql_are_those_of_files(
    server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {name: pa.array(values, kind) for name, (_, kind, values) in TYPES.items()}
    files["n"] = pa.array(range(24))
    pq.write_table(pa.table(files), tmp_path / "log.parquet")
    text = {n: [v if v is None else str(v) for v in of] for n, (*_, of) in TYPES.items()}
    text |= {n: TYPES[n][2] for n in ("tags", "codes")} | {"n": range(24)}
    server.put("raw", pa.table({name: pa.array(values) for name, values in text.items()}))
    columns = ", ".join(f"{name}::{kind}" for name, (kind, *_) in TYPES.items())
    server.run("drop type if exists mood", "create type mood as enum ('sad', 'glad')")
    asked = f'connection = "own"\nquery = "select n, {columns} from raw"\nrow = "n"'
    url = f'[connections.own]\nurl_env = "{VARIABLE}"\n'
    (tmp_path / "query.toml").write_text(f"{url}[tables.log]\n{asked}{TYPED}")
    (tmp_path / "file.toml").write_text(f'[tables.log]\nfiles = "log.parquet"{TYPED}')
    monkeypatch.setenv(VARIABLE, server.address)
    for name in ("query", "file"):
        finished(tinprep("prepare", tmp_path / f"{name}.toml", "--out", tmp_path / name))
    same(tmp_path / "query", tmp_path / "file")
    large = asked.replace("price::numeric", "(2::numeric ^ 53)::numeric as price")
    (tmp_path / "large.toml").write_text(f"{url}[tables.log]\n{large}{TYPED}")
    ended = prepare(tmp_path / "large.toml", tmp_path / "large")
    refused(ended, INPUT, "large.toml:5", "price", "9007199254740992", "cast it")


WRONG: dict[str, tuple[str, str, int, tuple[str, ...]]] = {
    "no SQL": ("select * from impressions", "selec *", USAGE, ("ads.toml:7", "syntax error")),
    "no such table": ("from ads", "from adds", USAGE, ("ads.toml:24", "adds")),
    "no SELECT": ("select * from ads", "drop table ads", USAGE, ("ads.toml:24",)),
    "two SELECTs": ("from ads", "from ads; select 2", USAGE, ("ads.toml:24",)),
    "a name twice": ("select * from ads", "select *, ad from ads", USAGE, ("ads.toml:24", "two")),
    "no row number": ('row = "id"', 'row = "ids"', INPUT, ("ads.toml:7", "ids", "id, uid")),
    "row numbers of text": ('row = "id"', 'row = "shown_at"', INPUT, ("shown_at of type",)),
    "a row number twice": ("* from imp", "*, 5 as n from imp", INPUT, ("twice", "n = 5")),
    "a row number of nothing": ("* from imp", "*, nullif(id, 10) as n from imp", INPUT, ("null",)),
    "a negative row number": ("* from imp", "*, id - 4 as n from imp", INPUT, ("n = -1",)),
    "no rows, nor their types": (
        "* from impressions", "* from impressions where id < 0", INPUT, ("ads.toml:7", "no rows")
    ),
    "no rows": ("from ads", "from ads where ad > 9", INPUT, ("ads.toml:24", "no rows")),
    "a label of 2": ("select * from imp", "select id, uid, shown_at, ad, 2 as clicked from imp",
                     INPUT, ("ads.toml:7, id = 3", "label")),
    "no such column": ('key = "ad"', 'key = "advert"', INPUT, ("ads.toml:24", "advert", "brand")),
    "a value twice": ("from ads", "from ads union all select 1, 'b9', 2", INPUT, ("ads.toml:24",)),
    "an error in a row": ("select * from ads", "select ad, cast(substr('x', ad) as int) from ads",
                          USAGE, ("ads.toml:24",)),
}  # fmt: skip


@pytest.mark.parametrize("database", ENGINES, indirect=True)
def test_a_wrong_query_is_told_and_leaves_nothing(
    database: Any, described: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(database, ads(), monkeypatch)
    for name, (old, new, code, said) in WRONG.items():
        text = ADS.replace(old, new, 1)
        if " as n " in new:
            text = text.replace('row = "id"', 'row = "n"', 1)
        if isinstance(database, Lite) and name == "an error in a row":
            continue  # there text that is no number is 0
        described.write_text(text)
        ended = tinprep("prepare", described, "--out", tmp_path / "out")
        assert ended.code == code, (name, ended.err)
        refused(ended, code, *said)
        assert not (tmp_path / "out").exists(), name
        assert not [path for path in tmp_path.iterdir() if path.name.endswith((".wal", ".tmp"))]


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("", USAGE),
        ("mysql://u:open sesame/7@localhost/x", USAGE),
        ("sqlite:///NOWHERE/open sesame/7", FAULT),
        ("duckdb:///NOWHERE/open sesame/7", FAULT),
        ("postgresql://tin:open sesame/7@127.0.0.1:1/x", FAULT),
        ("postgresql://tin:x@open@sesame%2F7:1/x", FAULT),
        ("postgresql://tin:open%20sesame%2F7@127.0.0.1:1/x", FAULT),
        ("host=127.0.0.1 port=1 password=open sesame/7", FAULT),
        ("PASSWORD", FAULT),
        ("NAME", FAULT),
    ],
)
def test_an_address_of_no_use_is_told_by_its_variable(
    address: str, code: int, described: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    if address in ("PASSWORD", "NAME"):
        server = request.getfixturevalue("server")
        wrong = {"password": "sesame street"} if address == "PASSWORD" else {"name": "sesame"}
        address = Postgres(**{**vars(server), **wrong}).address
    monkeypatch.setenv(VARIABLE, address)
    ended = prepare(described, tmp_path / "out")
    refused(ended, code, VARIABLE)
    assert "sesame" not in ended.err
    assert not (tmp_path / "out").exists()


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_what_was_read_is_not_asked_for_again(
    described: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, out = Lite(tmp_path / "ads.sqlite"), tmp_path / "out"
    put(database, ads(), monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(make, "deal", interrupt)
        refused(prepare(described, out), INTERRUPTED)
    assert database.address not in (out / ".work/record").read_text()
    database.put("impressions", ads(step=1)["impressions"])
    # Other settings, of the same queries.
    with monkeypatch.context() as patch:
        patch.setattr(make, "fit", interrupt)
        refused(prepare(described, out, "--bins", "3"), INTERRUPTED)
    ended = prepare(described, out)
    finished(ended)
    assert "tables.shown" not in ended.err
    assert load(out).inputs[0].sha256[:16] == KNOWN
    # Half of it, or of another database, is.
    for change in ("damage", "address", "query"):
        other = tmp_path / change
        monkeypatch.setenv(VARIABLE, database.address)
        described.write_text(ADS)
        with monkeypatch.context() as patch:
            patch.setattr(make, "deal", interrupt)
            refused(prepare(described, other), INTERRUPTED)
        if change == "damage":
            with (other / ".work/tables.shown").open("r+b") as file:
                file.write(b"PAR2")
        elif change == "address":
            database.path.rename(tmp_path / "moved")
            database.path = tmp_path / "moved"
            monkeypatch.setenv(VARIABLE, database.address)
        else:
            described.write_text(ADS.replace("from impressions", "from impressions where id > 5"))
        ended = prepare(described, other)
        finished(ended)
        assert "tables.shown" in ended.err
        assert load(other).inputs[0].rows == 60 - 3 * (change == "query")


def test_a_column_of_several_types_is_told_with_a_cast(
    described: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, out = Lite(tmp_path / "ads.sqlite"), tmp_path / "out"
    put(database, ads(), monkeypatch)
    with closing(sqlite3.connect(database.path)) as connection:
        connection.execute("update ads set price = 'free' where ad = 0")
        connection.execute("update ads set price = 7 where ad = 1")  # a number, too
        connection.commit()
    said = ("ads.toml:24", "column price of lookups.ad", "1 of text, as 'free'", 'cast("price" as')
    refused(prepare(described, out), INPUT, *said)
    assert not out.exists()
    cast = "select ad, brand, case typeof(price) when 'text' then 0.0 else price end as price"
    described.write_text(ADS.replace("select * from ads", f"{cast} from ads"))
    finished(prepare(described, out))


# --- a server -----------------------------------------------------------------------------------


OTHERS = "query like 'COPY %' and state = 'active' and pid <> pg_backend_pid()"


def of(server: Postgres, sql: str, table: str) -> Query:
    return Query(f"tables.{table}", sql, "ads", VARIABLE, "ads.toml:7", row="id")


def test_what_a_connection_gives_is_of_one_moment(
    server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(server, ads(), monkeypatch)

    def meanwhile(*_: object) -> None:
        server.run("delete from impressions where id > 9", "delete from clicks")

    asked = {tmp_path / n: of(server, f"select * from {n}", n) for n in ("impressions", "clicks")}
    answers = queries.ask(asked, write=True, memory=1 << 28, told=meanwhile)
    assert [answer.rows for answer in answers] == [60, 90]
    assert pq.read_table(tmp_path / "clicks").num_rows == 90


@pytest.mark.parametrize("what", ["terminate", "cancel"])
def test_a_server_that_gives_up_is_told(
    what: str, server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, server.address)
    meanwhile = f"select pg_{what}_backend(pid) from pg_stat_activity where {OTHERS}"
    long = "select id, repeat(md5(id::text), 99) as text from generate_series(1, 20000) as id"
    told: list[int] = []

    def once(_: str, rows: int, __: int | None) -> None:
        if not told:
            server.run(meanwhile)
        told.append(rows)

    with pytest.raises(EnvironmentFault) as caught:
        queries.ask({tmp_path / "t": of(server, long, "t")}, write=True, memory=1 << 28, told=once)
    assert "ads.toml:7" in str(caught.value)
    assert what[:-1] in str(caught.value)
    assert PASSWORD not in str(caught.value)
    assert told
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("what", ["a connection that breaks", "a server that stops"])
def test_a_connection_that_breaks_is_told(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = "select id, repeat(md5(id::text), 99) as text from generate_series(1, 20000) as id"
    with databases.postgres() as own, cutting(own.port, after=3 * 10**7, times=1) as way:
        told: list[int] = []

        def once(_: str, rows: int, __: int | None) -> None:
            if not told and what == "a server that stops":
                own.stop()
            told.append(rows)

        broken = what == "a connection that breaks"
        port = way.port if broken else own.port
        monkeypatch.setenv(VARIABLE, Postgres(port).address)
        asked = {tmp_path / "t": of(own, long, "t")}
        with pytest.raises(EnvironmentFault) as caught:
            queries.ask(asked, write=True, memory=1 << 28, told=once)
        assert told
        assert way.broken == broken
    assert "has not given all of tables.t" in str(caught.value)
    assert "ads.toml:7" in str(caught.value)
    assert PASSWORD not in str(caught.value)
    assert [*tmp_path.iterdir()] == []


def test_a_query_changes_nothing(
    server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, server.address)
    server.run("create sequence if not exists numbers")
    with pytest.raises(TinprepError) as caught:
        asked = {tmp_path / "t": of(server, "select nextval('numbers') as id", "t")}
        queries.ask(asked, write=True, memory=1 << 28, told=lambda *_: None)
    assert "read-only transaction" in str(caught.value)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_a_query(
    number: int, server: Postgres, described: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(server, ads(), monkeypatch)
    described.write_text(ADS.replace("* from clicks", "*, pg_sleep(600) from clicks"))
    command = [*TINPREP, "prepare", described, "--out", tmp_path / "out"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    busy = f"select 1 / count(*) from pg_stat_activity where {OTHERS}"
    for _ in range(300):
        time.sleep(0.1)
        try:
            server.run(busy)
            break
        except Exception:  # by nothing: it is not there yet
            assert process.poll() is None
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == INTERRUPTED, said
    assert "Traceback" not in said
    with pytest.raises(Exception, match="division by zero"):
        server.run(busy)
