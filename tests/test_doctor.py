"""`doctor` says what is there, and what to do where that is not enough."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from pipeline import doctor as module
from pipeline.doctor import Line, doctor
from tests.conftest import amazon, finished, write_raw
from tests.oracle import Review

ROOT = Path(__file__).parent.parent
VERSIONS = ("tinprep", "polars", "duckdb", "pyarrow", "numpy", "torch")


def lines(data: Path) -> dict[str, Line]:
    found = doctor(data)
    assert len({line.name for line in found}) == len(found)
    for line in found:
        assert line.found
        assert line.ok == (not line.do)
    return {line.name: line for line in found}


def test_everything_is_told(tmp_path: Path) -> None:
    found = lines(tmp_path)
    assert {name: found[name].found for name in VERSIONS} == {n: version(n) for n in VERSIONS}
    for name in ("Python", "cores", "memory", "free disk", "open files", "Java", "GPU"):
        assert name in found
    assert found["cores"].found.split()[0].isdigit()
    assert str(tmp_path) in found["free disk"].found
    assert "none" in found["data sets"].found


def test_data_sets_are_named(tmp_path: Path) -> None:
    reviews: list[Review | None] = [Review(u, f"I{k}", k) for u in "ab" for k in range(4)]
    reviews.append(Review("c", "I9", 1))
    raw = write_raw(tmp_path / "raw", reviews, [])
    finished(amazon(raw, tmp_path / "data/mine", "--no-meta"))
    (tmp_path / "data/other").mkdir()
    (tmp_path / "data/other/manifest.json").write_text("{")
    (tmp_path / "data/unfinished").mkdir()
    found = lines(tmp_path / "data")
    mine = found[str(tmp_path / "data/mine")]
    assert mine.ok
    assert mine.found == "amazon-Beauty: rows train 4, valid 4, test 4"
    other = found[str(tmp_path / "data/other")]
    assert not other.ok
    assert "--force" in other.do
    assert str(tmp_path / "data/unfinished") not in found
    assert "data sets" not in found


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    found = lines(tmp_path / "no/such")
    assert found["free disk"].ok or found["free disk"].do
    assert str(tmp_path) in found["free disk"].found


def test_what_is_too_little_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LEAST_DISK", 1 << 60)
    monkeypatch.setattr(module, "_LEAST_MEMORY", 1 << 60)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (64, 256))
    found = lines(tmp_path)
    assert "--out" in found["free disk"].do
    assert "--memory" in found["memory"].do
    assert "ulimit" in found["open files"].do
    assert found["open files"].found == "64, may be raised to 256"


def test_a_package_that_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_NEEDED", ("tinprep", "no-such-package"))
    found = {line.name: line for line in doctor()}
    assert not found["no-such-package"].ok
    assert "install" in found["no-such-package"].do


@pytest.mark.parametrize(
    ("script", "told", "ok"),
    [
        ("echo 'openjdk version \"17\"' >&2", 'openjdk version "17"', True),
        ("exit 3", "ends with code 3", False),
        ("exec sleep 60", "TimeoutExpired", False),
    ],
)
def test_java(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, told: str, ok: bool
) -> None:
    java = tmp_path / "java"
    java.write_text(f"#!{shutil.which('sh')}\n{script}\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(module, "_SECONDS", 0.5)
    line = lines(tmp_path)["Java"]
    assert told in line.found
    assert line.ok == ok


def test_no_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    line = lines(tmp_path)["Java"]
    assert line.ok
    assert "none" in line.found


def test_pytorch_that_does_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "version", lambda name: "2.13.0")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert not lines(tmp_path)["GPU"].ok


def test_pytorch_is_asked_unless_it_is_for_cpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(module, "version", lambda name: "2.13.0")
    told = lines(tmp_path)["GPU"].found
    if torch.cuda.is_available():
        assert torch.cuda.get_device_name(0) in told
    else:
        assert torch.__version__ in told


def test_it_takes_under_three_seconds_of_work(tmp_path: Path) -> None:
    """Measured as processor time of a fresh process: the machine may be busy."""
    code = (
        "import time; from pathlib import Path; from pipeline.doctor import doctor; "
        "doctor(Path('data')); print(time.process_time())"
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 3, f"in {time.monotonic() - began:.1f} s by the clock"
