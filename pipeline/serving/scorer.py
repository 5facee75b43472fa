"""A bundle at work: requests in, scores out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.serving import events
from pipeline.serving.features import Columns, Users
from pipeline.serving.requests import USER, Features, Request, Words
from schemas import bundle, digests, manifest
from schemas.bundle import Bundle
from schemas.errors import ContractError, UsageError
from schemas.manifest import Manifest
from schemas.scorer import Graph
from schemas.shards import session_prefix

Floats = npt.NDArray[np.float32]


class Scorer:
    """Scores requests by a bundle and the events of users.

    Args:
        pasts: history -> what users did.
        newcomers: as of `Features`.

    Raises:
        InputError: a file is missing or damaged.
        ContractError: its files do not fit together.
        UsageError: its graph is not one of requests.
        EnvironmentFault: ONNX Runtime is not installed.
    """

    def __init__(
        self,
        of: Bundle,
        folder: Path,
        pasts: Mapping[str, Users],
        threads: int = 1,
        newcomers: Mapping[int | str, int] | None = None,
    ) -> None:
        if of.shape != "request":
            raise UsageError(
                "The bundle scores rows, and no requests.",
                where=folder,
                expected="a bundle of `--shape request`",
                got=of.shape,
                do="export the run again, without --shape",
            )
        self.bundle = of
        self.features = Features(folder, of.data, pasts, {} if newcomers is None else newcomers)
        with fitting(folder):
            self.graph = Graph(of, folder / bundle.MODEL, threads)
            # All that is read of the bundle is used once, before anything depends on it.
            candidate = dict.fromkeys([*of.data.fields, *of.data.features])
            user = next(iter(self.features.words[USER].ids))
            assert user is not None
            self(Request(user, 0, [candidate]))

    @classmethod
    def of(cls, folder: Path | str, data: Path | str, threads: int = 1) -> Scorer:
        """That of a bundle, by the events that a data set has kept.

        Raises:
            InputError: there is no bundle or data set, or a file was changed.
            ContractError: ids, edges, scales or windows of the two mean something else.
            UsageError: the data set keeps no events.
        """
        folder, data = Path(folder), Path(data)
        found, made = bundle.load(folder), manifest.load(data)
        require_alike(found, made, data)
        users = Words(folder / f"vocabulary/{USER}.parquet")
        return cls(found, folder, events.read(data, made), threads, newcomers(data, made, users))

    def __call__(self, request: Request) -> Floats:
        """(candidates,) the probability of a positive label of each.

        Raises:
            InputError: a value is missing, or is none that its column can hold.
        """
        return self.score(self.features(request))

    def score(self, columns: Columns) -> Floats:
        """(candidates,) the same, of a request's features."""
        fed = {}
        for name, one in self.graph.inputs.items():
            values = columns[name]
            if one.of_history and len(one.sides) > 1:
                values = _in_one_row(values, one.sides[1], columns, self.bundle.data, name)
            fed[name] = values.astype(one.type, copy=False)
        scores: Floats = self.graph.score(fed)[1]
        return scores


@contextmanager
def fitting(folder: Path) -> Iterator[None]:
    """Tell an error of a library, at work on a bundle, as one of the bundle.

    Each of its files is the one that was written. So `bundle.json` says something else of them.

    Raises:
        ContractError: there was such an error.
    """
    try:
        yield
    except Exception as error:
        own = type(error).__module__.startswith("onnxruntime")
        if not own and not isinstance(
            error, LookupError | ValueError | TypeError | FileNotFoundError
        ):
            raise
        raise ContractError(
            "The bundle's files do not fit together.",
            where=folder / bundle.NAME,
            expected="what it says of them",
            got=f"{type(error).__name__}: {error}".partition("\n")[0][:200],
            do="export the run again",
        ) from error


def _in_one_row(
    values: npt.NDArray[np.generic], side: int | str, columns: Columns, made: Manifest, name: str
) -> npt.NDArray[np.generic]:
    """The only row of a column of lists: with a place at least, or as many as it always has."""
    if isinstance(side, str):
        return values[None] if len(values) else np.zeros((1, 1), values.dtype)
    for history, one in made.histories.items():
        prefix = session_prefix(history)
        if one.shape is not None and name.startswith(f"{prefix}_") and side != one.shape[0]:
            lengths, most = columns[f"{prefix}_length"], one.shape[1]
            real = np.zeros(one.shape, np.bool_)
            real[: len(lengths)] = np.arange(most) < lengths[:, None]
            cells = np.zeros(one.shape, values.dtype)
            cells[real] = values
            return cells.reshape(1, side)
    return np.pad(values, (0, side - len(values)))[None]


def require_alike(of: Bundle, made: Manifest, data: Path) -> None:
    """Refuse a data set whose numbers mean something else than those of the bundle.

    Raises:
        ContractError: ids, edges, scales or windows differ.
    """
    ours, theirs = dict(of.data.digests), dict(made.digests)
    if made.continues is not None:  # of new users
        for found in (ours, theirs):
            found.pop(f"{digests.VOCABULARY}user", None)
    if wrong := digests.differing(ours, theirs):
        raise ContractError(
            "The data set is not like the one of the bundle.",
            where=data / manifest.NAME,
            expected=digests.in_short(ours, wrong),
            got=digests.in_short(theirs, wrong),
            do="give the data set that the run was trained on, or what `transform` made of it",
        )


def newcomers(folder: Path, made: Manifest, users: Words) -> dict[int | str, int]:
    """The users of a data set that a vocabulary of another lacks, with their ids.

    They are users of later events, and those whom the table of its targets lacks.

    Raises:
        InputError: its vocabulary is damaged.
        ContractError: the same user has two ids.
    """
    others = events.nobodies(folder, made)
    if made.continues is None:
        return others
    own = Words(folder / f"vocabulary/{USER}.parquet").ids
    if any(own.get(user, id_) != id_ for user, id_ in users.ids.items()):
        raise ContractError(
            "A user has two ids.",
            where=folder,
            expected="the data set that the run was trained on, or what `transform` made of it",
            got="one that follows another data set",
        )
    more = {user: id_ for user, id_ in own.items() if user not in users.ids and user is not None}
    return more | others
