"""Ctrl-C, SIGTERM and SIGHUP: one message and exit code 130, whatever the process is at.

Outside of a command nothing is open, and a signal ends the process at once. Inside, it raises
`KeyboardInterrupt`, so that files and processes are cleaned up. A library that is being loaded
would make another error of that, or carry on without a part, and what cleans up must not stop
halfway: there the signal waits, or ends the process at once where nothing has to be cleaned up.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# Seconds to wait for a thread: where Polars is loaded, Ctrl-C does not end a wait without a limit.
FOR_EVER = 1e8
INTERRUPTED = 130
# SIGQUIT is left to end a process as the system does: it is for one that hangs.
NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AGAIN_S = 0.02  # until it is looked again what the process is at
_LONGEST_S = 10.0  # for which a signal waits
_PATIENCE_S = 5.0  # to clean up, after which a further signal ends the process at once

_SAID = re.compile("KeyboardInterrupt|Query interrupted")


class _Now:
    """What the process is at.

    Attributes:
        message: of the command that is at work; None outside of one.
        held: how much there is that must be cleaned up.
        came: when the first signal came.
        said: whether the message is printed.
    """

    message: str | None = None
    held = 0
    came: float | None = None
    said = False


def watch() -> Callable[[], None]:
    """Take the signals over, but for those that are ignored, as `nohup` has it.

    Returns:
        What gives them back.
    """
    _Now.message, _Now.came, _Now.said = None, None, False
    before = handled_by(_on)
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, _on)
    hook = sys.unraisablehook

    def once_more(told: Any) -> None:
        """What was raised where nothing can be: in a `__del__`, in a library's callback."""
        if told.exc_type is KeyboardInterrupt and _Now.came is not None:
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
        else:
            hook(told)

    def give_back() -> None:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)

    sys.unraisablehook = once_more
    return give_back


def handled_by(handler: Callable[[int, FrameType | None], object]) -> dict[signal.Signals, Any]:
    """Have a function handle the signals that are not ignored; returns what handled them."""
    taken = [number for number in NUMBERS if signal.getsignal(number) != signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in taken}


def begin(message: str) -> None:
    """A command begins to work, which says so when it is interrupted."""
    _Now.message = message


def end() -> bool:
    """It has ended, and tells of it; returns whether a signal came."""
    _Now.said = _Now.came is not None
    _Now.message = None
    return _Now.said


def came() -> bool:
    """Whether a signal came."""
    return _Now.came is not None


def untold() -> bool:
    """Whether a signal came of which no command has told; it is told now."""
    if _Now.came is None or _Now.said:
        return False
    _tell()
    return True


def _tell() -> None:
    _Now.said = True
    ending = "\x1b[?25h" if os.isatty(2) else ""  # a bar hides the cursor
    if os.environ.get("RANK", "0") == "0":  # of several that train together, one tells
        os.write(2, f"{ending}error: {_Now.message or 'Interrupted.'}\n".encode())


def _leave() -> None:
    _tell()
    os._exit(INTERRUPTED)


@contextmanager
def held() -> Iterator[None]:
    """Let no signal end the process before the block has cleaned up."""
    _Now.held += 1
    try:
        yield
    finally:
        _Now.held -= 1


def _on(number: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    if number != signal.SIGALRM and _Now.came is not None:
        if now - _Now.came > _PATIENCE_S:
            _leave()
        return
    if _Now.said:  # the command was ending as it was looked again
        return
    _Now.came = _Now.came or now
    if _Now.message is None:
        _leave()
    if not _fragile(frame) or now - _Now.came > _LONGEST_S:
        raise KeyboardInterrupt
    if not _Now.held:
        _leave()
    signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)


def _fragile(frame: FrameType | None) -> bool:
    """Whether a library is being loaded, or something is set up or cleaned up."""
    while frame is not None:
        file, name = frame.f_code.co_filename, frame.f_code.co_name
        if file.startswith("<frozen importlib") or file.endswith(("/shutil.py", "/tempfile.py")):
            return True
        if file.endswith("/contextlib.py") and name in ("__enter__", "__exit__"):
            return True
        frame = frame.f_back
    return False


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
