"""How long scoring a request takes: an exported graph, beside PyTorch with a row a candidate.

python benchmarks/serving.py                          TIN and DIN, 63,003 items, histories of 50
python benchmarks/serving.py --peer-python PEER/bin/python       and torch-rechub's exported DIN
python benchmarks/serving.py --models tin dien bst    other models
python benchmarks/serving.py --precision int8

Milliseconds of one thread, the model alone: the columns of each request are there. All take turns,
so that other work on the machine meets all. torch-rechub is measured in a Python of its own as far
as it exports (`python -m venv PEER && PEER/bin/pip install 'torch-rechub[onnx]==0.9.0'`); its graph
runs in the same process as ours. It scores a row a candidate, so its histories are repeated.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from amazon import machine

from trainer.data.inputs import HistoryInputs, Inputs
from trainer.export import graph
from trainer.export.precision import PRECISIONS, narrow
from trainer.models.interest import InterestModel, build

FIELDS = {"item": 63_003, "category": 803}
LONGEST, BINS, DIM = 50, 10, 64
ROUNDS = 5


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


def taken(calls: list[Callable[[int], object]], times: list[int]) -> list[np.ndarray]:
    """Milliseconds of each of some calls, each so many times; in rounds, by turns."""
    found: list[list[float]] = [[] for _ in calls]
    for _ in range(ROUNDS):
        for call, many, into in zip(calls, times, found, strict=True):
            for i in range(-3, max(4, many // ROUNDS)):  # the first ones warm up
                begin = time.perf_counter()
                call(i)
                if i >= 0:
                    into.append(1e3 * (time.perf_counter() - begin))
    return [np.array(each) for each in found]


def repeated(columns: dict[str, Any], candidates: int, names: set[str]) -> dict[str, Any]:
    """A row a candidate: what candidates share is there for each."""
    return {n: c.repeat_interleave(candidates, 0) if n in names else c for n, c in columns.items()}


def main() -> None:
    """Measure, and print a Markdown table."""
    import onnxruntime

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=["tin", "din"])
    parser.add_argument("--candidates", nargs="+", type=int, default=[1, 100, 1000])
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--times", type=int, default=500)
    parser.add_argument("--peer-python", help="a Python with torch-rechub[onnx]")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    history = HistoryInputs((*FIELDS,), max_len=LONGEST, bins=BINS)
    inputs = Inputs(FIELDS, {}, (), {"history": history})
    models, sessions, peer = {}, {}, None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        for name in asked.models:
            torch.manual_seed(0)
            models[name] = build(name, None, inputs, dim=DIM).eval()
            exported = build(name, None, inputs, dim=DIM).eval()
            exported.load_state_dict(models[name].state_dict())
            narrow(exported, asked.precision)
            graph.write(exported, path, graph.inputs_of(exported, True))
            sessions[name] = onnxruntime.InferenceSession(path, options)
        if asked.peer_python:
            script = Path(__file__).with_name("serving_peer.py")
            theirs = [asked.peer_python, "-P", script, path, json.dumps(FIELDS), str(DIM)]
            told = subprocess.run(theirs, check=True, capture_output=True, text=True)
            peer = told.stdout.splitlines()[-1]
            sessions[peer] = onnxruntime.InferenceSession(path, options)
    print(f"{machine()}\n")
    print(
        "| candidates | model | graph: median | p99 | PyTorch, a row each: median | p99 | times |"
    )
    print("|---:|---|---:|---:|---:|---:|---:|")
    for candidates in asked.candidates:
        calls: list[Callable[[int], Any]] = []
        for name, model in models.items():
            requests = [drawn(model, candidates, seed) for seed in range(8)]
            shared = {one.name for one in graph.inputs_of(model, True) if one.of_history}
            rows = [repeated(request, candidates, shared) for request in requests]
            columns = [{n: c.numpy() for n, c in request.items()} for request in requests]

            def by_graph(i: int, session: Any = sessions[name], given: list = columns) -> Any:
                return session.run(None, given[i % 8])[0]

            def by_rows(i: int, model: InterestModel = model, rows: list = rows) -> Any:
                with torch.inference_mode():
                    return torch.sigmoid(model(rows[i % 8]))

            differ = np.abs(sessions[name].run(["score"], columns[0])[0] - by_rows(0).numpy()).max()
            assert differ < (1e-5 if asked.precision == "fp32" else 1e-2), differ
            calls += [by_graph, by_rows]
        if peer:
            ids = {one.name for one in sessions[peer].get_inputs()}
            given = [
                {n: c.long().numpy() for n, c in {**row, "user": row["target_item"] % 999}.items()}
                for row in rows
            ]
            given = [{n: c for n, c in row.items() if n in ids} for row in given]
            calls.append(lambda i, given=given: sessions[peer].run(None, given[i % 8]))
        few = max(20, asked.times * 10 // max(10, candidates))
        found = taken(calls, [asked.times, few] * len(models) + [asked.times // 5])
        for at, name in enumerate([*models, *([peer] if peer else [])]):
            each = found[2 * at : 2 * at + 2] if name in models else [found[-1]]
            cells = [f"{np.median(e):.3f} | {np.percentile(e, 99):.3f}" for e in each]
            times = f"{np.median(each[1]) / np.median(each[0]):.0f}" if len(each) > 1 else ""
            cells = [f"{candidates:,}", name, *cells, *([] if len(each) > 1 else [" | "]), times]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
