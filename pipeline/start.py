"""The first lines of the command `tinprep`: signals are handled before libraries are loaded."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

# Bytes of addresses that the libraries take. With fewer they abort: on two cores `correlate` at 1.8
# GB, as measured.
_ROOM = 2_000_000_000


def run() -> NoReturn:
    """Load the command line, run it, and end the process."""
    try:
        import fcntl  # noqa: F401
        import resource
    except ImportError as error:
        said = f"error: tinprep needs Linux or macOS, on Windows WSL: {error}.\n"
        os.write(2, said.encode())
        os._exit(5)
    room = resource.getrlimit(resource.RLIMIT_AS)[0]  # -1 for any
    if 0 <= room < _ROOM and not {"--help", "--version"} & {*sys.argv}:
        said = f"error: tinprep needs {_ROOM / 1e9:.1f} GB of address space, `ulimit -v` allows "
        os.write(2, f"{said}{room / 1e9:.1f} GB: raise it.\n".encode())
        os._exit(5)
    from schemas.interrupts import watch

    watch()
    from pipeline.cli.app import run as command

    command()
