"""What an engine does: deal raw rows out to buckets of users, and run a function over the buckets.

The functions know nothing of engines. Each is given a folder, in which it finds the files that it
needs and leaves those that it makes, `KIND/bucket-00000.arrow` and so on; what it returns is small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.engines.tally import Words
    from pipeline.readers.parsed import Reader
    from pipeline.readers.shares import Share

Result = TypeVar("Result")

Read = Callable[[int], None]
Deal = Callable[[Path, "Share", Read], Result]
Each = Callable[..., Result]


class Engine(Protocol):
    """Where work is done."""

    @property
    def threads(self) -> int:
        """Threads that one call of a function may use."""

    @property
    def resumes(self) -> bool:
        """Whether what was dealt out is still there when the command is given again."""

    @property
    def least_buckets(self) -> int:
        """How many buckets keep all of it at work."""

    def shares(self, paths: Sequence[Path], reader: Reader) -> Sequence[Share]:
        """A table's raw files as shares, which may be dealt side by side.

        Args:
            paths: the files, in the table's order.
        """

    def deal(
        self,
        work: Deal[Result],
        shares: Sequence[Share],
        buckets: int,
        kinds: Sequence[str],
        read: Read,
    ) -> Iterable[Result]:
        """Spill each share's rows to the files of their buckets.

        Args:
            work: `work(folder, share, read)`, with `read(lines)` called now and then.
            shares: of one table.
            kinds: folders that `work` spills to.
            read: told how many more lines were read.

        Returns:
            What `work` returned, for each share.
        """

    def gather(self, kind: str, order: Callable[[pa.Table], Any]) -> Iterator[pa.Table]:
        """Bring here the files of a kind that was dealt, from the first bucket to the last.

        Args:
            kind: of files; each share's rows are in order.
            order: of some rows, where they stand.

        Returns:
            Some rows at a time, those of a bucket in order.
        """

    def spread(self, kind: str, asked: str, table: pa.Table, buckets: int) -> None:
        """Bring to each bucket the rows of a large table that it asks for.

        Args:
            kind: of the files with the rows, in any order; a bucket that asks for none has perhaps
                none.
            asked: the kind of the files that ask, by distinct numbers in the column `AT`.
            table: ascending by `AT`.
        """

    def each(
        self,
        work: Each[Result],
        buckets: int,
        needs: Sequence[str],
        makes: Sequence[str],
        tallies: Sequence[Words],
        done: Callable[[], None],
    ) -> Iterable[Result]:
        """Run `work(folder, bucket, *tallies)` for each bucket.

        Args:
            needs: kinds of files that it reads.
            makes: kinds of files that it leaves for later functions.
            tallies: where it counts; the sum of all buckets' counts is in them at the end.
            done: called after each bucket.

        Returns:
            What `work` returned, in the order of the buckets.
        """
