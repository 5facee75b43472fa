"""The commands that are killed, and how each is told when to die."""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent


STORIES: dict[str, tuple[str, ...]] = {"new": (), "rerun": (), "replace": ("--force",)}


# Runs the command, and kills it right before its n-th change of a file or folder below --out;
# without n, tells at the end how many there were. Only Python's own calls are seen.
CHANGES = """
import os, signal, sys
at, out, seen = int(sys.argv.pop(1)), sys.argv[sys.argv.index("--out") + 1], 0
def watch(event, args):
    global seen
    if event == "open":
        if not isinstance(args[2], int) or not args[2] & (os.O_WRONLY | os.O_RDWR):
            return
    elif event not in ("os.rename", "os.remove", "os.rmdir", "os.mkdir"):
        return
    folder_fd = event in ("os.remove", "os.rmdir") and args[-1] != -1
    if folder_fd or str(args[0]).startswith(out):
        seen += 1
        if seen == at:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
from pipeline.cli.app import main
code = main()
if not at:
    print("changes", seen)
sys.exit(code)
"""


@dataclass(frozen=True)
class Command:
    """A preparation to be killed: what it is called, and its arguments but for `--out`."""

    name: str
    arguments: tuple[str, ...]

    def line(self, out: Path, *more: str, changes: int | None = None) -> list[str]:
        """The command line; killed before a change of a file where `changes` is its number."""
        begin = ["-m", "pipeline.cli"] if changes is None else ["-c", CHANGES, str(changes)]
        return [sys.executable, *begin, *self.arguments, "--out", str(out), *more]


_DESCRIBED = """
[tables.log]
files = "log"
where = "kind <> 'cart'"
user = "user"
time = { column = "second", unit = "s" }
fields = { item = "item" }
features = { day = "day" }
order = "hash"
duplicates = "drop"
[tables.views]
files = "views.csv"
user = "user"
time = { column = "second", unit = "s" }
fields = { item = "item" }
[lookups.item]
files = "items.csv"
key = "item"
time = { column = "since", unit = "ms" }
fields = { category = "category" }
numbers = { price = { column = "price", scale = "log" } }
[target]
table = "log"
where = "kind = 'buy'"
only_new = true
split = { by = "time", valid = 8000, test = 9000 }
negatives = { per_positive = 2, weight = "popularity" }
[histories.history]
table = "views"
max_len = 20
[filters]
k_core = 2
min_history = 1
"""


def described(folder: Path) -> Command:
    """`tinprep prepare` on made-up files, written to the folder with their description."""
    draw = random.Random(0)

    def lines(*more: str) -> list[str]:
        events = (
            (draw.randrange(90), draw.randrange(200), draw.randrange(10_000)) for _ in range(3_000)
        )
        return [",".join(map(str, (*event, *map(draw.choice, more)))) + "\n" for event in events]

    for day in range(3):
        (folder / "log" / f"day={day}").mkdir(parents=True)
        said = "".join(["user,item,second,kind\n", *lines(["pv", "buy", "cart"])])
        (folder / "log" / f"day={day}" / "part.csv").write_text(said)
    (folder / "views.csv").write_text("".join(["user,item,second\n", *lines()]))
    items = [
        f"{n},c{(n + k) % 7},{n + k + 0.5},{draw.randrange(10_000_000)}\n"
        for n in range(200)
        for k in range(3)
    ]
    (folder / "items.csv").write_text("".join(["item,category,price,since\n", *items]))
    (folder / "mine.toml").write_text(_DESCRIBED)
    return Command("described", ("prepare", str(folder / "mine.toml"), "--buckets", "5"))


def beauty(folder: Path) -> Command:
    """`tinprep amazon` on the real Beauty files."""
    told = ("amazon", "--category", "Beauty", "--raw", str(folder), "--buckets", "5")
    return Command("Beauty", told)


def kuairand(folder: Path) -> Command:
    """`tinprep alibaba` on the real KuaiRand files."""
    return Command("KuaiRand", ("alibaba", "--raw", str(folder), "--buckets", "5"))
