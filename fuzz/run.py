"""Look for inputs that break a target, guided by coverage: `python -m fuzz.run --runs 100000`.

Every target gets a process of its own, with limits of time and memory an input; what it learned
stays under `--corpus`, and an input that breaks it is kept there as `crash-...`, `timeout-...` or
`oom-...`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from fuzz.target import Target
from fuzz.targets import MODULES, target

_INSTRUMENTED = [
    *("pipeline.readers", "pipeline.inspection", "schemas"),
    "trainer.data.row_groups",
]
# Inputs of lines that are read at once: files and threads cost more than a line.
_TOGETHER = 200


def _words(path: Path, of: Target) -> None:
    """Write a target's words as libFuzzer's dictionary."""
    shown = ("".join(f"\\x{byte:02x}" for byte in word) for word in of.words)
    path.write_text("".join(f'"{word}"\n' for word in shown), encoding="ascii")


def fuzz(name: str, corpus: Path, options: list[str]) -> None:
    """Fuzz one target in this process, which ends with it."""
    import atheris

    with atheris.instrument_imports(include=_INSTRUMENTED):
        found = target(name)
    found.warm()
    held = runs = 0
    together: list[bytes] = []

    def one(data: bytes) -> None:
        nonlocal held, runs
        runs += 1
        if found.alone is None:
            held += found.check(data)
        else:
            for line in data.split(b"\n"):
                found.alone(line.decode(errors="replace"))
            together.append(data)
            if len(together) == _TOGETHER:
                held += found.check(b"\n".join(together))
                together.clear()
        if runs % 1_000 == 0:
            (corpus / f"{name}.count").write_text(f"{runs} {held}", encoding="ascii")

    atheris.Setup([name, *options, str(corpus / name)], one)
    atheris.Fuzz()


def main() -> int:
    """Fuzz the targets asked for, one after the other; 1 if any is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100_000, help="inputs a target")
    parser.add_argument("--target", nargs="*", choices=sorted(MODULES), help="default: all")
    parser.add_argument("--corpus", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--seconds", type=int, default=20, help="most an input may take")
    parser.add_argument("--mb", type=int, default=2_048, help="most memory of the process")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--one", action="store_true", help="in this process: for the run itself")
    asked = parser.parse_args()
    names = asked.target or sorted(MODULES)
    options = [f"-runs={asked.runs}", f"-timeout={asked.seconds}", f"-rss_limit_mb={asked.mb}"]
    options += [f"-seed={asked.seed}", "-max_len=4096", "-print_final_stats=1", "-verbosity=0"]
    if asked.one:
        words = asked.corpus / f"{names[0]}.dict"
        fuzz(
            names[0],
            asked.corpus,
            [*options, f"-dict={words}", f"-artifact_prefix={asked.corpus / names[0]}-"],
        )
        return 0
    broken = []
    for name in names:
        seeds, inputs = target(name).seeds, asked.corpus / name
        inputs.mkdir(parents=True, exist_ok=True)
        _words(asked.corpus / f"{name}.dict", target(name))
        for number, seed in enumerate(seeds):
            (inputs / f"seed-{number}").write_bytes(seed)
        command = [sys.executable, "-m", "fuzz.run", "--one", "--target", name]
        command += ["--runs", str(asked.runs), "--corpus", str(asked.corpus)]
        command += ["--seconds", str(asked.seconds), "--mb", str(asked.mb)]
        command += ["--seed", str(asked.seed)]
        begun = time.perf_counter()
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        held = asked.corpus / f"{name}.count"
        counted = held.read_text(encoding="ascii").split() if held.exists() else ["0", "0"]
        print(
            f"{name}: {'held' if not ended.returncode else 'BROKEN'}, at least "
            f"{int(counted[0]):,} runs with {int(counted[1]):,} inputs of the reader, "
            f"{time.perf_counter() - begun:.0f} s",
            flush=True,
        )
        if ended.returncode:
            broken.append(name)
            print("\n".join((ended.stdout + ended.stderr).splitlines()[-25:]), flush=True)
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
