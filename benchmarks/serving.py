"""How long scoring a request takes: an exported graph, beside PyTorch with a row a candidate.

python benchmarks/serving.py                          TIN, 63,003 items, histories of 50
python benchmarks/serving.py --models tin dien bst    other models
python benchmarks/serving.py --precision int8

Milliseconds of one thread, the model alone: the columns of each request are there. The two take
turns, so that other work on the machine meets both.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainer.data.inputs import HistoryInputs, Inputs
from trainer.export import graph
from trainer.export.precision import PRECISIONS, narrow
from trainer.models.interest import InterestModel, build

FIELDS = {"item": 63_003, "category": 803}
LONGEST, BINS = 50, 10


def drawn(model: InterestModel, candidates: int, seed: int) -> dict[str, torch.Tensor]:
    """A request whose history is as long as can be."""
    g = torch.Generator().manual_seed(seed)
    most = {"position": LONGEST + 1, "interval_bin": BINS + 1, "session": 6, "time": 2_000_000_000}
    found = {}
    for one in graph.inputs_of(model, request=True):
        sides = [
            {"rows": candidates, "places_of_history": LONGEST}.get(side, side) for side in one.sides
        ]
        high = ({**FIELDS, **most}).get(one.name.partition("_")[2], LONGEST)
        column = torch.randint(1, high, sides, generator=g, dtype=torch.int32)
        column = torch.full_like(column, LONGEST) if one.name == "history_length" else column
        found[one.name] = column.long() if one.type == "int64" else column
    return found


def by_turns(calls: list[Callable[[int], object]], times: int) -> np.ndarray:
    """Milliseconds of each of some calls, calls x times."""
    found = np.zeros((len(calls), times))
    for i in range(-3, times):  # the first ones warm up
        for at, call in enumerate(calls):
            begin = time.perf_counter()
            call(i)
            if i >= 0:
                found[at, i] = 1e3 * (time.perf_counter() - begin)
    return found


def main() -> None:
    """Measure, and print a Markdown table."""
    import onnxruntime

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=["tin"])
    parser.add_argument("--candidates", nargs="+", type=int, default=[1, 100, 1000])
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--times", type=int, default=200)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    history = HistoryInputs((*FIELDS,), max_len=LONGEST, bins=BINS)
    inputs = Inputs(FIELDS, {}, (), {"history": history})
    print(
        "| model | candidates | graph: median | p99 | PyTorch, a row each: median | p99 | times |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in asked.models:
        torch.manual_seed(0)
        model = build(name, None, inputs).eval()
        exported = build(name, None, inputs).eval()
        exported.load_state_dict(model.state_dict())
        narrow(exported, asked.precision)
        with tempfile.TemporaryDirectory() as folder:
            graph.write(exported, Path(folder) / "model.onnx", graph.inputs_of(exported, True))
            session = onnxruntime.InferenceSession(Path(folder) / "model.onnx", options)
        for candidates in asked.candidates:
            requests = [drawn(model, candidates, seed) for seed in range(8)]
            of_history = {one.name for one in graph.inputs_of(model, True) if one.of_history}
            rows = [
                {
                    n: c.repeat(candidates, *[1] * (c.dim() - 1)) if n in of_history else c
                    for n, c in request.items()
                }
                for request in requests
            ]
            columns = [{n: c.numpy() for n, c in request.items()} for request in requests]

            def by_graph(i: int, session: Any = session, columns: list = columns) -> Any:
                return session.run(["score"], columns[i % 8])

            def by_rows(i: int, model: InterestModel = model, rows: list = rows) -> Any:
                with torch.inference_mode():
                    return torch.sigmoid(model(rows[i % 8]))

            differ = np.abs(by_graph(0)[0] - by_rows(0).numpy()).max()
            assert differ < (1e-5 if asked.precision == "fp32" else 1e-2), differ
            slow = max(20, asked.times * 10 // max(10, candidates))
            taken = np.r_[by_turns([by_graph, by_rows], slow)]
            fast = by_turns([by_graph], asked.times)[0]
            of_graph = [np.median(fast), np.percentile(fast, 99)]
            of_rows = [np.median(taken[1]), np.percentile(taken[1], 99)]
            print(
                f"| {name} | {candidates:,} | {of_graph[0]:.3f} | {of_graph[1]:.3f} "
                f"| {of_rows[0]:.2f} | {of_rows[1]:.2f} | {of_rows[0] / of_graph[0]:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
