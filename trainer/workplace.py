"""A run's folder as a place of work: of one training at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from schemas import manifest
from schemas.alone import LOCK, alone
from schemas.errors import UsageError
from trainer.atomic import no_folder, require_no_data_set
from trainer.owned import left_unfinished, require_own
from trainer.runs import CONFIG


@contextmanager
def at_work(folder: Path, writes: bool) -> Iterator[None]:
    """Be the only training in a run's folder, which is made if absent.

    Args:
        folder: where.
        writes: whether to be; of several processes that train together, one is.

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
    made = not folder.exists()
    with ExitStack() as stack:
        try:
            stack.enter_context(alone(folder))
        except (FileExistsError, NotADirectoryError) as error:
            raise no_folder("The run's folder", folder, error) from None
        try:
            require_own(folder)
            for path in left_unfinished(folder):
                path.unlink()
            yield
        finally:
            if made and [path.name for path in folder.iterdir()] == [LOCK]:  # it has not begun
                (folder / LOCK).unlink()
                folder.rmdir()
