"""Ctrl-C as DuckDB reports it: it may meet one anywhere, and makes errors of its own of it."""

from __future__ import annotations

import re

_SAID = re.compile("KeyboardInterrupt|Query interrupted")


def is_ctrl_c(error: Exception) -> bool:
    """Whether an error that DuckDB raised is a Ctrl-C: its InterruptException, or one that says so.

    Args:
        error: a `duckdb.Error`, or a `RuntimeError` of its.
    """
    return type(error).__name__ == "InterruptException" or bool(_SAID.search(str(error)))
