"""What the rows are a function of: the settings, the raw files' content, the version.

Summing up the files' bytes takes a core some time, but the work may begin without the sums: they
are wanted where there is something of an earlier run to go on with, and at the first result.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.config import Config, without_how
from pipeline.readers.raw_files import names_of
from pipeline.readers.remote import RemotePath
from schemas import manifest
from schemas.interrupts import FOR_EVER

# Large, since a thread that has let go of Python's lock waits for it, and there are others.
_CHUNK_BYTES = 16 << 20
_AT_ONCE = 16
_TOLD = 500  # characters of what differs


class Identity(NamedTuple):
    """What a data set is made from, and what it is known by.

    Attributes:
        inputs: the raw files, with their checksums.
        key: the same for the same rows.
    """

    inputs: list[manifest.InputFile]
    key: str


def key(settings: dict[str, Any], inputs: list[manifest.InputFile], by: str) -> str:
    """What rows are known by."""
    files = [{"file": i.file, "bytes": i.bytes, "sha256": i.sha256} for i in inputs]
    depends = [settings, files, manifest.FORMAT, by]
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()


def key_of(made: manifest.Manifest) -> str:
    """The key that a manifest's settings, raw files and version make."""
    settings = {name: value for name, value in without_how(made.config).items() if name != "key"}
    return key(settings, made.inputs, made.version)


def differing(
    made: manifest.Manifest, config: Config, inputs: list[manifest.InputFile]
) -> tuple[str, str]:
    """Where a data set differs from the one that is wanted: what is wanted, and what is there."""
    by = "tinprep's version"
    now = json.loads(json.dumps(config.rows_depend_on())) | {by: version("tinprep")}
    was = without_how(made.config) | {by: made.version}
    now |= {one.file: str(one) for one in inputs}
    was |= {one.file: str(one) for one in made.inputs}
    names = [n for n in {**was, **now} if n != "key" and was.get(n, "-") != now.get(n, "-")]
    told = (", ".join(f"{name} {of.get(name, '-')}" for name in names) for of in (now, was))
    expected, got = (text[:_TOLD] for text in told)
    return expected, got


@contextmanager
def identifying(
    config: Config, paths: list[Path], asked: Sequence[manifest.InputFile] = ()
) -> Iterator[Callable[[], Identity]]:
    """Sum up the raw files in a thread beside the work.

    Yields:
        A function that waits for the identity.

    Raises:
        OSError: a file cannot be read (of the function).
    """
    stopped = threading.Event()

    def identity() -> Identity:
        named = zip(names_of(paths), paths, strict=True)
        inputs = [*(_summed(name, path, stopped) for name, path in named), *asked]
        return Identity(inputs, key(config.rows_depend_on(), inputs, version("tinprep")))

    with ThreadPoolExecutor(1, "checksum") as beside:
        found = beside.submit(identity)
        try:
            yield lambda: found.result(FOR_EVER)
        finally:
            stopped.set()


def _summed(name: str, path: Path, stopped: threading.Event) -> manifest.InputFile:
    """The file's size and SHA-256; not to the end once nobody waits for it."""
    digest = hashlib.sha256()
    chunk = memoryview(bytearray(_CHUNK_BYTES))
    with path.open("rb", buffering=0) as file:
        while not stopped.is_set() and (size := file.readinto(chunk)):
            digest.update(chunk[:size])
        return manifest.InputFile(name, file.tell(), digest.hexdigest())


def state(path: Path) -> tuple[object, ...]:
    """What tells that a file has changed: size, times, inode, device; of a store its tag, too.

    Raises:
        OSError: there is no such file.
    """
    if isinstance(path, RemotePath):
        return path.state()
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev


def states(paths: Sequence[Path]) -> list[object]:
    """The `state` of each file.

    Raises:
        OSError: as `state`.
    """
    return list(_each(state, paths))


def changed(paths: Sequence[Path], before: Sequence[object]) -> tuple[Path, str] | None:
    """The first file that is another than its `state` before says, and how; None where none is."""
    for path, how in zip(paths, _each(_differs, paths, before), strict=True):
        if how:
            return path, how
    return None


def _differs(path: Path, before: object) -> str:
    try:
        now = state(path)
    except OSError as error:
        return str(error.strerror)
    return "" if now == before else "another size, time of change or file under this name"


def _each(work: Callable[..., Any], paths: Sequence[Path], *more: Sequence[Any]) -> Iterator[Any]:
    """`work` of each file; stores are asked for many side by side, as each answer takes long."""
    if not any(isinstance(path, RemotePath) for path in paths):
        return map(work, paths, *more)
    with ThreadPoolExecutor(_AT_ONCE, "states") as pool:
        return pool.map(work, paths, *more)
