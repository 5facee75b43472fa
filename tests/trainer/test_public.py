"""The trainer's public names."""

from __future__ import annotations

import subprocess
import sys

import trainer


def test_public_names_are_there_and_loaded_when_they_are_asked_for():
    for name in trainer.__all__:
        assert getattr(trainer, name).__name__ == name
    code = "import sys, trainer; sys.exit('torch' in sys.modules or not trainer.Shards)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
