"""A description held against its data in seconds: a sample, prepared as the whole will be."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from rich.console import Group
from rich.text import Text

from pipeline import flow, inspection
from pipeline.presets.described import SampledConfig
from pipeline.workspace import Told

_TARGETS_OF_A_SPLIT = 4


def check(config: SampledConfig, told: Told = lambda *_: None) -> Group:
    """What a sample of the data says of a description, for people.

    Some targets with their histories in words, what joins lose, and how often targets stand in
    their own history.

    Args:
        config: of the sample; its `out` is not looked at.
        told: progress: step, done, total.

    Raises:
        UsageError: the description does not fit its data.
        InputError: a file cannot be read, or too many of its lines are refused.
    """
    with tempfile.TemporaryDirectory(prefix="tinprep-") as folder:
        out = Path(folder) / "sample"
        made = flow.prepare(replace(config, out=out, force=False), told)
        head = Text(
            f"Of a sample: the first events of each table, {config.rows:,} at least where there "
            "are so many. Nothing is kept."
        )
        return Group(head, *inspection.sample(made, out, _TARGETS_OF_A_SPLIT))
