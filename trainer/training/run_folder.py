"""A run's folder: of one training at a time, and with the files of others left as they are.

A folder is a run's where its `config.json` has the keys of a run's. There a run replaces the files
of its own names, as long as each begins as a run writes it. What is called otherwise stays.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from schemas import manifest
from schemas.alone import LOCK, alone
from schemas.checked import decode
from schemas.errors import UsageError
from schemas.replacing import UNFINISHED, require_folder
from trainer.files import require_no_data_set
from trainer.training.log import LOG, TENSORBOARD
from trainer.training.runs import BEST, CONFIG, IMPORTANCE, LAST, METRICS, SCORES

# Keys of `trainer.training.config.TrainConfig` that every version has written.
_SETTINGS = {"data", "run", "model", "encoding", "lr", "batch_size", "seed", "patience", "hidden"}
_LONGEST_CONFIG = 1 << 20
_HEAD = 1 << 10


def _checkpoint(key: bytes, head: bytes) -> bool:
    """Whether it begins as `torch.save` begins a dictionary with this first key."""
    pickled = b"\x80\x02}q\x00(X" + len(key).to_bytes(4, "little") + key
    return head.startswith(b"PK\x03\x04") and b"/data.pkl" in head and pickled in head


_BEGINS: dict[str, Callable[[bytes], bool]] = {
    LOG: lambda head: head.startswith(b"step,epoch,"),
    BEST: partial(_checkpoint, b"built"),
    LAST: partial(_checkpoint, b"at"),
    METRICS: lambda head: head.startswith(b'{\n "run": "'),
    IMPORTANCE: lambda head: head.startswith(b'{\n "measured": "'),
    SCORES: lambda head: head.startswith(b"PAR1"),
}


@contextmanager
def at_work(folder: Path, writes: bool) -> Iterator[None]:
    """Be the only training in a run's folder, which is made if absent.

    Of several processes that train together, one `writes`.

    Raises:
        UsageError: it is a data set, holds files of others in the place of a run's, or cannot be a
            folder.
        EnvironmentFault: another one is at work there.
    """
    if not writes:
        yield
        return
    if (folder / manifest.NAME).exists():
        raise UsageError(
            "The run's folder is a data set.",
            where=folder,
            expected="a new folder, or one of a run",
            got=f"a folder with {manifest.NAME}",
            do="choose another `--run`",
        )
    require_no_data_set(folder / CONFIG)
    require_folder("The run's folder", folder)
    made = not folder.exists()
    with ExitStack() as stack:
        stack.enter_context(alone(folder))
        try:
            require_run(folder)
            _refuse(folder, [name for name in _there(folder) if not _own(folder / name)])
            for path in _left_unfinished(folder):
                path.unlink()
            yield
        finally:
            if made and [path.name for path in folder.iterdir()] == [LOCK]:  # it has not begun
                (folder / LOCK).unlink()
                folder.rmdir()


def require_run(folder: Path) -> None:
    """Refuse a folder that is no run's, and has files in the place of a run's."""
    if not _own(folder / CONFIG):
        _refuse(folder, _there(folder))


def require_free(path: Path) -> None:
    """Refuse to write where a data set or a run has its own files."""
    require_no_data_set(path)
    path = path.resolve()
    if path.name in (CONFIG, *_BEGINS) and _own(path.with_name(CONFIG)):
        raise UsageError(
            "A run's own file would be replaced.",
            where=path,
            expected="another name, or another folder",
            got=f"{path.name}, in the folder of a run",
        )


def _there(folder: Path) -> list[str]:
    """What is called as a run's files are."""
    names = (CONFIG, TENSORBOARD, *_BEGINS)
    return [name for name in names if os.path.lexists(folder / name)]


def _refuse(folder: Path, names: list[str]) -> None:
    if names:
        raise UsageError(
            "The run's folder holds files that no run of tinprep wrote.",
            where=folder,
            expected="a new folder, or one of a run",
            got=", ".join(names),
            do="choose another folder, or move them away",
        )


def _left_unfinished(folder: Path) -> Iterator[Path]:
    """Checkpoints that a run of this folder could not finish writing, since it was killed."""
    for path in folder.iterdir():
        if UNFINISHED.fullmatch(path.name):
            head = _head(path)
            if _BEGINS[BEST](head) or _BEGINS[LAST](head):
                yield path


def _own(path: Path) -> bool:
    if path.name == TENSORBOARD:  # of its files a run removes its own alone, see `log`
        return path.is_dir() and not path.is_symlink()
    if path.name == CONFIG:
        try:
            found = decode(_head(path, _LONGEST_CONFIG).decode())
        except ValueError:
            return False
        return isinstance(found, dict) and found.keys() >= _SETTINGS
    return _BEGINS[path.name](_head(path))


def _head(path: Path, most: int = _HEAD) -> bytes:
    """How a file begins; nothing where it is none, or cannot be read."""
    if path.is_file():
        with suppress(OSError), path.open("rb") as file:
            return file.read(most)
    return b""
