"""What an engine does: deal raw rows out to buckets of users, and run a function over the buckets.

The functions know nothing of engines. Each is given a folder, in which it finds the files that it
needs and leaves those that it makes, `KIND/bucket-00000.arrow` and so on; what it returns is small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.lines import Part
    from pipeline.tally import Tally

Result = TypeVar("Result")

Read = Callable[[int], None]
Deal = Callable[[Path, "Part", Read], Result]
Each = Callable[..., Result]


class Engine(Protocol):
    """Where work is done."""

    @property
    def threads(self) -> int:
        """Threads that one call of a function may use."""
        ...

    @property
    def resumes(self) -> bool:
        """Whether what was dealt out is still there when the command is given again."""
        ...

    @property
    def least_buckets(self) -> int:
        """How many buckets keep all of it at work."""
        ...

    def parts(self, path: Path) -> Sequence[Part]:
        """A raw file as parts, which may be dealt side by side."""
        ...

    def deal(
        self,
        work: Deal[Result],
        parts: Sequence[Part],
        buckets: int,
        kinds: Sequence[str],
        read: Read,
    ) -> Iterable[Result]:
        """Spill each part's rows to the files of their buckets.

        Args:
            work: `work(folder, part, read)`, with `read(lines)` called now and then.
            parts: of one raw file.
            buckets: how many.
            kinds: folders that `work` spills to.
            read: told how many more lines were read.

        Returns:
            What `work` returned, for each part.
        """
        ...

    def gather(self, kind: str, order: str) -> Iterator[pa.Table]:
        """Bring here the files of a kind that was dealt, from the first bucket to the last.

        Args:
            kind: of files; each part's rows are in the order of `order`.
            order: a column.

        Returns:
            Some rows at a time, those of a bucket in the order of `order`.
        """
        ...

    def each(
        self,
        work: Each[Result],
        buckets: int,
        needs: Sequence[str],
        makes: Sequence[str],
        tallies: Sequence[Tally],
        done: Callable[[], None],
    ) -> Iterable[Result]:
        """Run `work(folder, bucket, *tallies)` for each bucket.

        Args:
            work: a function of the bucket's files.
            buckets: how many.
            needs: kinds of files that it reads.
            makes: kinds of files that it leaves for later functions.
            tallies: where it counts; the sum of all buckets' counts is in them at the end.
            done: called after each bucket.

        Returns:
            What `work` returned, in the order of the buckets.
        """
        ...
