"""Processes that have PyTorch already: to import it takes longer than a small training."""

from __future__ import annotations

import multiprocessing

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["pipeline.cli.app", "pytest", "trainer.training.train"])
