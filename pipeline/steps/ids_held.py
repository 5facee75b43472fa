"""Which ids the rows of each split hold: to tell of those in valid and test that train lacks."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.description.split import TRAIN
from pipeline.engines.buckets import Behaviours
from pipeline.steps.rows import Windows, stored
from schemas.arrays import Int32s
from schemas.manifest import FIRST_ID, SPLITS, Share, not_in_train


def ids_held(
    which: npt.NDArray[np.int8],
    targets: Mapping[str, Int32s],
    histories: Sequence[tuple[Windows, Behaviours, int]],
) -> dict[str, dict[str, str]]:
    """The ids of a bucket's targets, and of the histories of train as stored.

    Args:
        which: (targets,) index into `SPLITS`.
        targets: field -> (targets, rows of each) ids.
        histories: (targets,) what they are cut from; the bucket's behaviours, with some of these
            fields; how many are kept.

    Returns:
        split -> field -> the ids, as a text that `not_held` reads.
    """
    held = {
        split: {name: [ids[which == k]] for name, ids in targets.items()}
        for k, split in enumerate(SPLITS)
    }
    for windows, behaviours, max_len in histories:
        of_rows = stored(windows.take(which == TRAIN), behaviours, max_len)
        for name, of_train in held[SPLITS[TRAIN]].items():
            if name in behaviours.fields:
                of_train.append(behaviours.fields[name][of_rows])
    return {split: {name: _packed(ids) for name, ids in of.items()} for split, of in held.items()}


def _packed(ids: list[Int32s]) -> str:
    held = np.zeros(1 + max(int(some.max(initial=0)) for some in ids), np.bool_)
    for some in ids:
        held[some] = True
    return base64.b64encode(zlib.compress(np.packbits(held).tobytes(), 1)).decode()


def not_held(results: Sequence[dict[str, Any]], sizes: Mapping[str, int]) -> dict[str, Share]:
    """Of the distinct ids of valid's and of test's targets, those that no train row holds.

    Args:
        results: the buckets' summaries, with `ids` as `ids_held` has them.
        sizes: field -> ids below it.
    """
    shares = {}
    for name, size in sizes.items():
        held = np.zeros((len(SPLITS), size + 8), np.bool_)
        for k, split in enumerate(SPLITS):
            for result in results:
                packed = np.frombuffer(
                    zlib.decompress(base64.b64decode(result["ids"][split][name])), np.uint8
                )
                some = np.unpackbits(packed).view(np.bool_)
                held[k, : len(some)] |= some
        held[:, :FIRST_ID] = False
        for split, ids in list(zip(SPLITS, held, strict=True))[1:]:
            unseen = int(np.count_nonzero(ids & ~held[TRAIN]))
            shares[not_in_train(split, name)] = Share(unseen, int(np.count_nonzero(ids)))
    return shares
