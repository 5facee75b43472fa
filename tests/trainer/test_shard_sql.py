"""SQL over shards: a Ctrl-C that comes while DuckDB computes is one."""

from __future__ import annotations

import os
import signal
import threading

import duckdb
import pytest

from schemas.errors import InputError
from trainer.data import Shards
from trainer.shard_sql import query

# A product of so many rows that nobody waits for its end.
ENDLESS = (
    "(SELECT count(*) FROM range(9999999) a, range(9999999) b WHERE a.range % 7 > b.range % 9)"
)


def test_a_ctrl_c_during_a_query_is_one(planted):
    timer = threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            query(
                "correlation/targets",
                Shards(planted),
                ("train",),
                "*",
                where=f"{ENDLESS} > 0",
                threads=1,
            )
    finally:
        timer.join()


def test_other_errors_of_a_query_are_no_ctrl_c(planted):
    with pytest.raises(InputError) as caught:
        query("correlation/targets", Shards(planted), ("train",), "nonsense")
    assert isinstance(caught.value.__cause__, duckdb.BinderException)
