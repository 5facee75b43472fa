"""What training an embedding table takes: memory and time of a number of it, by optimizer and type.

Each is trained in a process of its own, by the trainer's own table and optimizer alone, with rows
drawn anew for each step. Bytes are the most that were resident, less what was before there was a
table, by its numbers. Time is CPU time on one thread, of the optimizer's step alone: the least of
the steps, as the first makes what it keeps.

    python benchmarks/tables.py --rows 2000000 --width 64
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

OPTIMIZERS, TYPES = ("adam", "adagrad"), ("float32", "bfloat16")


def resident(what: str) -> int:
    """Bytes of this process that are in memory: `VmRSS` now, `VmHWM` at most so far."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{what}:"))


def measure(options: argparse.Namespace, optimizer: str, numbers: str) -> dict[str, float]:
    """Train a table for some steps."""
    import torch

    from trainer.data.facts import DEFAULTS
    from trainer.models.layers import Table
    from trainer.training.optimizer import optimizer_of

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # as `train` does
    torch.manual_seed(0)

    def trained(rows: int, count: int) -> list[float]:
        table = Table(rows, options.width, numbers=numbers)
        model = torch.nn.Sequential(table, torch.nn.Linear(options.width, 1))
        moves = optimizer_of(replace(DEFAULTS, optimizer=optimizer, lr=1e-3), model.parameters())
        seconds = []
        for _ in range(count):
            ids = torch.randint(0, rows, (options.ids,))
            (model(ids) - 1).pow(2).mean().backward()
            began = time.process_time()
            moves.collect()
            moves.step()
            seconds.append(time.process_time() - began)
        return seconds

    trained(1000, 1)  # what is loaded at first use
    before = resident("VmRSS")
    seconds = trained(options.rows, options.steps)
    return {
        "bytes": (resident("VmHWM") - before) / (options.rows * options.width),
        "ms": 1e3 * min(seconds),
    }


def main() -> None:
    """Print a line each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--ids", type=int, default=4_096, help="looked up in a step")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--one", nargs=2, help="optimizer and type; prints JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options, *options.one)))
        return
    print("| optimizer | table | bytes a number, at most | CPU ms a step |\n|---|---|---:|---:|")
    for optimizer, numbers in product(OPTIMIZERS, TYPES):
        command = [sys.executable, __file__, *sys.argv[1:], "--one", optimizer, numbers]
        found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        print(
            f"| {optimizer} | {numbers} | {found['bytes']:.2f} | {found['ms']:,.1f} |", flush=True
        )


if __name__ == "__main__":
    main()
