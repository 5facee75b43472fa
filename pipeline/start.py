"""The first lines of the command `tinprep`: Ctrl-C is told also while libraries are loaded."""

from __future__ import annotations

import os
from typing import NoReturn


def run() -> NoReturn:
    """Load the command line, run it, and end the process."""
    try:
        from pipeline.cli import run as command
    except KeyboardInterrupt:
        os.write(2, b"error: Interrupted.\n")
        os._exit(130)
    command()
