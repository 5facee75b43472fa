"""Ctrl-C where libraries stand between: Polars' waits, DuckDB's errors."""

from __future__ import annotations

import re

# Seconds to wait for a thread: where Polars is loaded, Ctrl-C does not end a wait without a limit.
FOR_EVER = 1e8

_SAID = re.compile("KeyboardInterrupt|Query interrupted")


def is_panic(error: BaseException) -> bool:
    """Whether an error is a Ctrl-C that Polars met in the middle of its own Python: a panic."""
    return type(error).__name__ == "PanicException" and "KeyboardInterrupt" in str(error)


def is_ctrl_c(error: Exception) -> bool:
    """Whether an error that DuckDB raised is a Ctrl-C: its InterruptException, or one that says so.

    It may meet a Ctrl-C anywhere, and makes errors of its own of it.

    Args:
        error: a `duckdb.Error`, or a `RuntimeError` of its.
    """
    return type(error).__name__ == "InterruptException" or bool(_SAID.search(str(error)))
