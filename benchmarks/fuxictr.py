"""Training rows per second of every recipe, beside FuxiCTR's DIN, DIEN and BST on the same rows.

    python -m venv PEER && PEER/bin/pip install torch==2.13.0 fuxictr==2.3.10
    python benchmarks/fuxictr.py --data data/beauty --peer-python PEER/bin/python
    python benchmarks/fuxictr.py --peer-python PEER/bin/python     made-up rows, all 50 long

Each side has its own loader and loop, one process a measurement, the two sides in turns: warm-up,
then stretches of a fixed number of steps, of which the best counts. Both have the fields item and
category of 64 each, a head of 80-40 with sigmoids, Adam, DIN's attention of 80-40 with sigmoids and
a softmax, and histories of at most 50 that are cut to a batch's longest (FuxiCTR) or to a group's
(ours). FuxiCTR clips gradients; its DIEN has no auxiliary loss. Ours has, as DIEN has, and is
measured without it, too: `dien_bare`. BST is made of FuxiCTR's parts (see `fuxictr_peer.py`): its
wheel has none. Rows per second of CPU time are those of the training process: a loading process of
the peer's (`--peer-workers`) is not in them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from amazon import machine, say
from measure import CommandError, run

HERE = Path(__file__).parent
RECIPES = (
    *("avg_concat", "avg_product", "din_prime", "din", "din_dot", "gru4rec", "sasrec", "bert4rec"),
    *("dien", "dien_bare", "dsin", "bst", "sim"),
    *("tin", "tin_released", "tin_wo_tte", "tin_wo_ta", "tin_wo_tr"),
)
PEERS = {"loader": "loader", "din_prime": "DIN", "din": "DIN", "bst": "BST"}
PEERS |= {"dien": "DIEN", "dien_bare": "DIEN"}
HEAD = ["what", "batch", "tinprep rows/s", "FuxiCTR rows/s", "times as fast"]
HEAD += ["tinprep rows/CPU s", "FuxiCTR rows/CPU s", "times as fast, CPU"]


@dataclass(frozen=True)
class Rate:
    """Rows per second of wall time and of CPU time."""

    wall: float
    cpu: float

    def best(self, other: Rate) -> Rate:
        """The faster of two, figure by figure."""
        return Rate(max(self.wall, other.wall), max(self.cpu, other.cpu))


def measured(command: list[str | Path]) -> Rate:
    """Run one side once, and read what it says of itself."""
    told = json.loads(run(command).stdout.splitlines()[-1])
    return Rate(told["per_second"], told["per_cpu_second"])


def plan(model: str, batch_size: int, steps: int) -> list[str]:
    """How long to measure: `steps` steps of 4,096 rows, and the same rows in smaller steps.

    Loading alone is fast, so it is measured over 16 times as many.
    """
    count = max(steps, steps * 4096 // batch_size // 4) * (16 if model == "loader" else 1)
    named = {"--batch-size": batch_size, "--warm": max(2, count // 4), "--steps": count}
    return [str(x) for pair in (named | {"--repeats": 3}).items() for x in pair]


def line(model: str, batch_size: int, shards: Path, converted: Path, flags: Any) -> str:
    """Measure a recipe, and its peer where it has one, in turns; returns its line of the table."""
    how = [*plan(model, batch_size, flags.steps), "--threads", str(flags.threads)]
    ours: list[str | Path] = [sys.executable, HERE / "fuxictr_ours.py", shards, model, *how]
    # -P: else `import fuxictr` would find this file.
    theirs: list[str | Path] = [flags.peer_python, "-P", HERE / "fuxictr_peer.py", converted]
    theirs += [PEERS.get(model, ""), *how, "--max-len", "50", "--workers", str(flags.peer_workers)]
    us = them = Rate(0.0, 0.0)
    for turn in range(flags.turns):
        say(f"{model}, batch {batch_size} ({turn + 1} of {flags.turns})")
        us = us.best(measured(ours))
        if model in PEERS:
            them = them.best(measured(theirs))
    cells = [model, f"{batch_size:,}"]
    for own, peer in ((us.wall, them.wall), (us.cpu, them.cpu)):
        cells += [
            f"{own:,.0f}",
            f"{peer:,.0f}" if peer else "",
            f"{own / peer:.1f}" if peer else "",
        ]
    return "| " + " | ".join(cells) + " |"


def lines(folder: Path, flags: Any) -> Iterator[str]:
    """The table and what it was measured on, line by line."""
    shards = flags.data or folder / "shards"
    converted = folder / "converted"
    prepare: list[str | Path] = [sys.executable, HERE / "fuxictr_data.py", shards, converted]
    made = json.loads(run([*prepare, *([] if flags.data else ["--full", "40960"])]).stdout)
    if made["max_len"] != 50:
        sys.exit(f"{shards}: histories of at most 50 are needed (`--max-len 50`)")
    peer = run([flags.peer_python, "-P", HERE / "fuxictr_peer.py", converted, "version"]).stdout
    what = f"{made['rows']:,} rows, mean history {made['mean']:.1f}"
    name = flags.data.name if flags.data else "all full"
    yield f"{name}{', made up' * made['synthetic']}: {what}"
    yield f"{machine()}; {flags.threads} threads; {datetime.now(UTC):%Y-%m-%d}"
    yield f"tinprep with PyTorch {version('torch')}; {peer.strip()}, {flags.peer_workers} loading"
    yield ""
    yield "| " + " | ".join(HEAD) + " |"
    yield "|---|" + "---:|" * (len(HEAD) - 1)
    for batch_size in flags.batch_sizes:
        for model in ("loader", *flags.models):
            yield line(model, batch_size, shards, converted, flags)


def main() -> None:
    """Measure and print; see the module's text."""
    parser = argparse.ArgumentParser(description="training speed beside FuxiCTR's")
    parser.add_argument("--data", type=Path, help="an Amazon data set; made-up full rows without")
    parser.add_argument("--peer-python", required=True, help="a Python 3.11+ with fuxictr")
    parser.add_argument(
        "--peer-workers", type=int, default=1, help="loading processes (its default)"
    )
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[4096, 256])
    parser.add_argument("--models", nargs="+", choices=RECIPES, default=RECIPES)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--steps", type=int, default=8, help="steps of 4,096 rows a stretch")
    parser.add_argument("--turns", type=int, default=2, help="processes of each side")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            for text in lines(Path(folder), flags):
                print(text, flush=True)
        except (CommandError, FileNotFoundError) as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
