"""What a preparation does with its process: when libraries load, and what it keeps of memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

LOADED = """
import json, sys
import pipeline.cli.app, pipeline.flow, pipeline.presets.amazon, pipeline.presets.alibaba
print(json.dumps(sorted({"polars", "duckdb", "pandera"} & set(sys.modules))))
"""

# 64 MiB in pieces, freed at once: malloc gives such a lot back to the system, if it is let.
FAULTS = """
import resource, sys
from pipeline import memory

if sys.argv[1] == "keep":
    memory.keep_freed()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    pieces = [b"x" * (1 << 20) for _ in range(64)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults() * resource.getpagesize())
"""

HUGE = """
import re
from pathlib import Path
from pipeline import memory

memory.keep_freed()
memory.keep_freed()  # as a second preparation does: nothing grows again
heap = [m for m in re.split("(?m)^(?=[0-9a-f]+-)", Path("/proc/self/smaps").read_text())
        if "[heap]" in m]
size = lambda m: int(re.search("Size: +([0-9]+) kB", m)[1]) >> 10
print(sum(map(size, heap)), sum(size(m) for m in heap if " hg" in m))
"""


def told(script: str, *argv: str) -> str:
    command = [sys.executable, "-c", script, *argv]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_what_begins_the_sums_of_the_raw_files_loads_no_library() -> None:
    assert json.loads(told(LOADED)) == []


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc's malloc")
def test_freed_memory_is_kept() -> None:
    assert int(told(FAULTS, "keep")) < 8 << 20
    assert int(told(FAULTS, "as it is")) > 32 << 20


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage/enabled").exists(), reason="no huge pages here"
)
def test_the_heap_is_grown_once_and_in_huge_pages() -> None:
    whole, huge = map(int, told(HUGE).split())
    assert 512 <= huge <= whole < 700
