"""The first lines of the command `tinprep`: signals are handled before libraries are loaded."""

from __future__ import annotations

import os
from typing import NoReturn


def run() -> NoReturn:
    """Load the command line, run it, and end the process."""
    try:
        import fcntl  # noqa: F401
        import resource  # noqa: F401
    except ImportError as error:
        said = f"error: tinprep needs Linux or macOS, on Windows WSL: {error}.\n"
        os.write(2, said.encode())
        os._exit(5)
    from schemas.interrupts import watch

    watch()
    from pipeline.cli import run as command

    command()
