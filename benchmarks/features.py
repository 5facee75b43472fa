"""How long the features of a request take, by the events that a data set has kept.

python benchmarks/features.py data/beauty data/kuairand

Microseconds of one thread: of the histories alone, and of all that a row has, for one candidate and
for 100. The requests are some 1,000 targets of the last split, each of which equals its row.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from pipeline.serving.events import read
from pipeline.serving.golden import differing, requests_of
from pipeline.serving.requests import USER, Features, Request
from schemas import manifest

REQUESTS, CANDIDATES = 1_000, 100


def taken(call: Callable[[Request], object], requests: Sequence[Request]) -> str:
    """Median and 99th percentile of the microseconds that a call takes, as cells of a table."""
    call(requests[0])
    found = np.zeros(len(requests))
    for at, request in enumerate(requests):
        begin = time.perf_counter()
        call(request)
        found[at] = 1e6 * (time.perf_counter() - begin)
    return f"{np.median(found):.0f} | {np.percentile(found, 99):.0f}"


def histories_of(features: Features, request: Request) -> object:
    """The columns of the histories alone."""
    return features.of_history(features.words[USER].of(request.user), request)


def main() -> None:
    """Measure, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, nargs="+", help="made with --keep-events")
    print("| data | histories: median | p99 | one candidate | p99 | 100 candidates | p99 |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for out in parser.parse_args().data:
        made = manifest.load(out)
        features = Features(out, made, read(out, made))
        shard = pq.read_table(out / made.shards[-1].path).combine_chunks()
        each = max(1, len(np.unique(shard["row"].to_numpy())) // REQUESTS)
        asked = list(requests_of(features, shard, out, each))
        assert not any(differing(features(one.request), made, shard, one) for one in asked)
        requests = [replace(one.request, candidates=one.request.candidates[:1]) for one in asked]
        many = [replace(one, candidates=one.candidates * CANDIDATES) for one in requests]
        cells = [
            taken(partial(histories_of, features), requests),
            taken(features, requests),
            taken(features, many),
        ]
        print(f"| {made.dataset} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
