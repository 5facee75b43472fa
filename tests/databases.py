"""Databases of the tests' own: files of DuckDB and SQLite, and a PostgreSQL on the loopback."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

PASSWORD = "open sesame/7"


@dataclass
class Duck:
    """A file of DuckDB's."""

    path: Path

    @property
    def address(self) -> str:
        return f"duckdb:///{self.path}"

    def put(self, name: str, rows: pa.Table) -> None:
        with duckdb.connect(str(self.path)) as connection:
            connection.register("given", rows)
            connection.execute(f"create or replace table {name} as from given")


@dataclass
class Lite:
    """A file of SQLite's."""

    path: Path

    @property
    def address(self) -> str:
        return f"sqlite:///{self.path}"

    def put(self, name: str, rows: pa.Table) -> None:
        lists = [f.name for f in rows.schema if pa.types.is_list(f.type)]  # it has none
        rows = rows.drop_columns(lists)
        names = ", ".join(f'"{one}"' for one in rows.column_names)
        marks = ", ".join("?" * rows.num_columns)
        values = zip(*(column.to_pylist() for column in rows.columns), strict=True)
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute(f"drop table if exists {name}")
            connection.execute(f"create table {name} ({names})")
            connection.executemany(f"insert into {name} values ({marks})", values)
            connection.commit()


@dataclass
class Postgres:
    """A database of a server on the loopback."""

    port: int
    name: str = "postgres"
    password: str = PASSWORD
    process: subprocess.Popen[bytes] | None = None

    def stop(self) -> None:
        """Stop the server at once, as when its machine loses its power."""
        assert self.process is not None
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(60)

    @property
    def address(self) -> str:
        word = self.password.replace(" ", "%20").replace("/", "%2F")
        return f"postgresql://tin:{word}@127.0.0.1:{self.port}/{self.name}"

    def connect(self) -> Any:
        from adbc_driver_postgresql import dbapi

        return dbapi.connect(self.address, autocommit=True)

    def run(self, *statements: str) -> None:
        with self.connect() as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
                if cursor.description:
                    cursor.fetchall()

    def put(self, name: str, rows: pa.Table) -> None:
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.adbc_ingest(name, rows, mode="replace")


def _program(name: str) -> str | None:
    found = [str(path) for path in Path("/usr/lib/postgresql").glob(f"*/bin/{name}")]
    return max(found, default=None) or shutil.which(name)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A server with an empty database; what needs one is skipped where there are no programs."""
    pytest.importorskip("adbc_driver_postgresql", reason="needs the extra `postgres`")
    programs = [_program(name) for name in ("initdb", "postgres")]
    # It refuses to be root.
    user = None if os.getuid() else next((u for u in pwd.getpwall() if u.pw_name == "postgres"), 0)
    if None in programs or user == 0:
        pytest.skip("needs PostgreSQL's server: apt-get install postgresql")
    initdb, server = map(str, programs)
    with tempfile.TemporaryDirectory(prefix="tinprep-postgres-") as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        secret = Path(folder) / "secret"
        secret.write_text(PASSWORD)
        who: dict[str, Any] = {"cwd": folder}
        if isinstance(user, pwd.struct_passwd):
            who |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            for path in (folder, secret):
                os.chown(path, user.pw_uid, user.pw_gid)
        data = f"{folder}/data"
        made = [initdb, "-D", data, "-U", "tin", "-A", "scram-sha-256", f"--pwfile={secret}"]
        told = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        subprocess.run([*made, "--no-sync", "-E", "UTF8"], check=True, **told, **who)
        settings = [f"unix_socket_directories={folder}", "fsync=off", "listen_addresses=127.0.0.1"]
        options = [word for setting in settings for word in ("-c", setting)]
        with Path(f"{folder}/log").open("wb") as log:
            process = subprocess.Popen(
                [server, "-D", data, "-p", str(port), *options], stdout=log, stderr=log, **who
            )
        found = Postgres(port, process=process)
        try:
            for _ in range(600):
                try:
                    found.run("select 1")
                    break
                except Exception:
                    time.sleep(0.1)
            yield found
        finally:
            process.send_signal(2)  # fast: it ends its connections
            process.wait(60)
