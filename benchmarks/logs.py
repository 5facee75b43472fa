"""Prepare the same log with tinprep and with its peers, each in its own documented way.

    python benchmarks/logs.py --events 10000000 --peer-python pandas=PY torch-rechub=PY \
        RecBole=PY RePlay=PY

makes a log of the form of Taobao's UserBehavior (`own_log.py`), has each peer make rows with
histories of 50 of it in a process of its own (`logs_peers.py`), holds the rows of some users to
those of a plain program, and prints a Markdown table. Each peer is installed in a Python of its
own: `pip install pandas pyarrow`, `'torch-rechub[bigdata]'`, `recbole 'numpy<2' 'pandas<3'`,
`'replay-rec[torch,spark]'`. tinprep's seconds are those of the whole command, shards written;
the peers' are from before their imports to rows in memory. What takes longer than --limit-minutes,
or more memory than --limit-gib, is stopped, and stands so in the table.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from amazon import machine, say, tinprep
from measure import CommandError, Stopped, run
from own_log import ALL, PARQUET, describe

HERE = Path(__file__).parent
HEAD = ["targets", "what", "rows", "seconds", "of ours", "CPU s", "peak MiB", "equal rows"]
HEAD += ["rows hold also"]
EVERY, BOUGHT = "every", "purchases"
OF_EVERY = """
[tables.log]
files = "{file}"
user = "user"
time = {{ column = "second", unit = "s" }}
fields = {{ item = "item" }}
order = "file"
{label}

[target]
table = "log"
split = {{ by = "order" }}
{negatives}

[vocabulary]
from = "all"

[histories.history]
table = "log"
max_len = 50
window = "order"
"""


@dataclass(frozen=True)
class Way:
    """One line of the table.

    Attributes:
        what: its name there.
        targets: which events are targets.
        peer: whose Python runs it; None for tinprep.
        function: of `logs_peers.py`; of tinprep how negatives are drawn, if they are.
        holds: what its rows have besides the target and the items of its history.
    """

    what: str
    targets: str
    peer: str | None
    function: str
    holds: str


LABEL, DRAWN = """label = "kind = 'buy'" """, "negatives = { per_positive = 1 }"
INTERVALS = "times, bins, positions"
WAYS = (
    Way("tinprep", BOUGHT, None, "", f"categories, {INTERVALS}, negatives; on disk"),
    Way("pandas, groups", BOUGHT, "pandas", "pandas_purchases", "categories, bins, negatives"),
    Way("tinprep", EVERY, None, "", f"{INTERVALS}, labels; on disk"),
    Way("tinprep, negatives", EVERY, None, DRAWN, f"{INTERVALS}, negatives; on disk"),
    Way("pandas, groups", EVERY, "pandas", "pandas_groups", ""),
    Way("pandas, 50 shifts", EVERY, "pandas", "pandas_shift", ""),
    Way("RecBole", EVERY, "RecBole", "recbole", "times as floats"),
    Way("torch-rechub", EVERY, "torch-rechub", "rechub", "negatives"),
    Way("RePlay, Polars", EVERY, "RePlay", "replay_polars", "sequences of users, not yet rows"),
    Way("RePlay, Polars, each row read", EVERY, "RePlay", "replay_rows", ""),
    Way("RePlay, pandas", EVERY, "RePlay", "replay_pandas", "sequences of users, not yet rows"),
    Way("RePlay, Spark", EVERY, "RePlay", "replay_spark", "sequences of users, not yet rows"),
)


def equal(rows: list[Any], expected: list[Any]) -> int:
    """How many of some rows are expected. 0 is an item without an id, and may stand for any."""
    left: dict[int, list[tuple[int, ...]]] = {}
    for target, history in expected:
        left.setdefault(len(history), []).append((target, *history))
    same = 0
    for target, history in rows:
        row, among = (target, *history), left.get(len(history), [])
        fits = (x for x in among if all(a in (0, b) for a, b in zip(row, x, strict=True)))
        found = next(fits, None)
        if found:
            among.remove(found)
            same += 1
    return same


def ours(folder: Path, way: Way, flags: list[str], limits: dict[str, Any]) -> dict[str, Any]:
    """Prepare the log, and read what came of it."""
    description, text = folder / f"{way.targets}.toml", describe(PARQUET, ALL)
    if way.targets == EVERY:
        how = (
            {"label": "", "negatives": DRAWN} if way.function else {"label": LABEL, "negatives": ""}
        )
        text = OF_EVERY.format(file=PARQUET, **how)
    description.write_text(text)
    shutil.rmtree(folder / "out", ignore_errors=True)
    command = [tinprep(), "prepare", description, "--out", folder / "out"]
    took = run([*command, "--layout", "ragged", *flags], **limits)
    read = [sys.executable, "-P", HERE / "logs_peers.py", "tinprep", folder]
    told: dict[str, Any] = json.loads(subprocess.check_output(read, text=True).splitlines()[-1])
    shutil.rmtree(folder / "out")
    peak = took.tree_mb or took.peak_mb
    return told | {"seconds": took.seconds, "cpu": took.cpu_s, "peak": peak}


def theirs(folder: Path, python: str, way: Way, limits: dict[str, Any]) -> dict[str, Any]:
    """Let a peer make its rows."""
    command = [python, "-W", "ignore", "-P", HERE / "logs_peers.py", way.function, folder]
    took = run(command, **limits)
    told: dict[str, Any] = json.loads(took.stdout.splitlines()[-1])
    return told | {"cpu": took.cpu_s, "peak": took.tree_mb or took.peak_mb}


def lines(folder: Path, asked: argparse.Namespace) -> Iterator[str]:
    """The table, line by line, and what it was measured on."""
    pythons = dict(one.split("=", 1) for one in asked.peer_python)
    limits = {"limit_s": asked.limit_minutes * 60, "limit_mb": int(asked.limit_gib * 1024)}
    expected = json.loads((folder / "sample.json").read_text())
    yield "| " + " | ".join(HEAD) + " |"
    yield "|---|---|" + "---:|" * (len(HEAD) - 3) + "---|"
    versions, base = set(), {}
    for way in WAYS:
        missing = way.peer is not None and way.peer not in pythons
        if missing or (asked.only and way.what not in asked.only):
            continue
        say(f"{way.what}, {way.targets}")
        try:
            if way.peer is None:
                told = ours(folder, way, asked.flags.split(), limits)
                base.setdefault(way.targets, told["seconds"])
            else:
                told = theirs(folder, pythons[way.peer], way, limits)
        except CommandError as error:
            if way.peer is None:
                raise
            say(str(error))
            why = error if isinstance(error, Stopped) else "ended with an error"
            yield f"| {way.targets} | {way.what} | {why} | | | | | | |"
            continue
        of = way.function if way.peer else "tinprep"
        made = json.loads((folder / f"{of}.json").read_text())
        same, versions = equal(made, expected[way.targets]), versions | {told["version"]}
        if way.peer is None and not same == len(made) == len(expected[way.targets]):
            sys.exit(f"{way.targets}: {same} of {len(made)} rows are those expected")
        times = told["seconds"] / base[way.targets] if way.targets in base else 0
        cells = [way.targets, way.what, f"{told['rows']:,}", f"{told['seconds']:.1f}"]
        cells += [f"{times:.1f}" if times else "", f"{told['cpu']:.0f}", f"{told['peak']:,}"]
        cells += [f"{same:,} of {len(made):,}", way.holds]
        yield "| " + " | ".join(cells) + " |"
    yield f"\n{asked.events:,} events, synthetic. {machine()}, {datetime.now(UTC):%Y-%m-%d}."
    yield ", ".join(sorted(filter(None, versions)))


def main() -> None:
    """Make the log and the sample, then each way in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--peer-python", nargs="*", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--only", nargs="*", help="lines of the table, by their names there")
    parser.add_argument("--work", type=Path, help="folder for what is made, which stays there")
    parser.add_argument("--limit-minutes", type=float, default=30)
    parser.add_argument("--limit-gib", type=float, default=20)
    parser.add_argument("--flags", default="", help='more of tinprep, as --flags="--memory 4GB"')
    asked = parser.parse_args()
    work = asked.work or Path(tempfile.mkdtemp(prefix="tinprep-logs-"))
    try:
        if not (work / "sample.json").exists():  # in processes of their own: this one stays small
            make = [sys.executable, HERE / "own_log.py", "--make", "--events", str(asked.events)]
            subprocess.run([*make, "--work", work], check=True)
            sampled = [sys.executable, "-P", HERE / "logs_peers.py", "sample", work]
            subprocess.run(sampled, check=True, stdout=subprocess.DEVNULL)
        for line in lines(work, asked):
            print(line, flush=True)
    except (CommandError, FileNotFoundError) as error:
        sys.exit(str(error))
    finally:
        if asked.work is None:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
