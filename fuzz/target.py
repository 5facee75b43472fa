"""What a target is, and the watch that nothing in an input is executed."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from schemas.errors import TinprepError

# Audit events of the interpreter that reading data has no cause for.
_FORBIDDEN = frozenset(
    {
        *("exec", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn"),
        *("subprocess.Popen", "pickle.find_class", "socket.connect", "socket.getaddrinfo"),
        *("ctypes.dlopen", "os.remove", "os.rename", "os.rmdir", "shutil.rmtree", "os.symlink"),
    }
)


@dataclass(frozen=True)
class Target:
    """A reader under fuzzing.

    Attributes:
        name: of the target.
        seeds: inputs that it reads well, to begin from.
        words: what its format is made of, to mutate with.
        read: reads the input and asserts what is promised of the result; it gives how many inputs
            of the reader the bytes held, e.g. lines.
        alone: for a format of lines, whose inputs may be joined and read together: the exact
            reader of one line, by which the search is guided.
    """

    name: str
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...]
    read: Callable[[bytes], int]
    alone: Callable[[str], object] | None = None

    def check(self, data: bytes) -> int:
        """Hold the reader to its promises on one input; how many inputs of the reader it held.

        Raises:
            Exception: a promise is broken: anything but the errors of `schemas.errors`.
        """
        self.warm()
        with executes_nothing():
            with suppress(TinprepError, MemoryError):
                return self.read(data)
            return 1

    def warm(self) -> None:
        """Read the seeds once: what a reader imports when it is first used is its own affair."""
        _warm(self)


@cache
def _warm(target: Target) -> None:
    for seed in target.seeds:
        target.read(seed)


@contextmanager
def executes_nothing() -> Iterator[None]:
    """Fail if the block runs code, opens connections, or removes or renames files.

    Raises:
        AssertionError: it did.
    """
    watch = _watch()
    watch.seen.clear()
    watch.on = True
    try:
        yield
    finally:
        watch.on = False
    assert not watch.seen, f"reading it did {watch.seen}"


@dataclass
class _Watch:
    """What the audit hook saw while it was on."""

    on: bool
    seen: list[str]

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if self.on and event in _FORBIDDEN and not _is_own_part(event, args):
            self.seen.append(f"{event} {args!r:.200}")


def _is_own_part(event: str, args: tuple[Any, ...]) -> bool:
    """Whether torch imports a part of itself, as it does for some tensors when it first has one.

    Such a part may execute text of its own, e.g. for a dataclass.
    """
    if event != "exec":
        return False
    codes = [args[0]]
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        codes.append(frame.f_code)
        frame = frame.f_back
    return any(
        isinstance(code, CodeType)
        and code.co_name == "<module>"
        and Path(code.co_filename).is_relative_to(_torch_folder())
        for code in codes
    )


@cache
def _torch_folder() -> Path:
    found = find_spec("torch")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


@cache
def _watch() -> _Watch:
    """The one watch of the process: a hook cannot be removed."""
    _torch_folder()  # to look for it is not the input's doing
    watch = _Watch(on=False, seen=[])
    sys.addaudithook(watch)
    return watch


@cache
def folder() -> Path:
    """A folder for inputs, in memory where the system has that; it goes with the process."""
    memory = Path("/dev/shm")
    keeper = tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)
    _KEPT.append(keeper)
    return Path(keeper.name)


_KEPT: list[tempfile.TemporaryDirectory[str]] = []


def written(name: str, data: bytes) -> Path:
    """A file with the input."""
    path = folder() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def numbered(data: bytes) -> list[tuple[int, bytes]]:
    """The lines of a text that are not blank, with their 0-based numbers."""
    lines = data.removesuffix(b"\n").split(b"\n")
    return [(number, line) for number, line in enumerate(lines) if line.strip(b" \t\r")]


def block_bytes(data: bytes) -> int:
    """Where a reader is to cut the text: the first byte decides, some dozen blocks at most."""
    return 1 + 7 * (data[0] if data else 0) + len(data) // 30
