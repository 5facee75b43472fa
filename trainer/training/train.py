"""Training: from a data set and a config to a run folder with a checkpoint and its metrics."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from schemas.errors import EnvironmentFault, UsageError
from schemas.machine import total_memory
from trainer.data.inputs import digests_of, inputs_of
from trainer.data.shards import Shards
from trainer.metrics import gauc
from trainer.models.interest import Built
from trainer.models.recipes import choose
from trainer.training.config import DIGESTS, TrainConfig, cells_of, threads_of
from trainer.training.events import Found, OnEvent
from trainer.training.loop import Training
from trainer.training.loss import gradients, positive_weight
from trainer.training.optimizer import bytes_of
from trainer.training.ranks import ALONE, Ranks, device_of, joined
from trainer.training.rounded import require_wide_gradients
from trainer.training.run_folder import at_work, require_run
from trainer.training.runs import Result, Run, result_of
from trainer.training.threads import sharing

__all__ = ["Result", "TrainConfig", "gradients", "resolve", "train"]

_EVALUATIONS = 4  # on valid, an epoch


def train(config: TrainConfig, on_event: OnEvent = lambda event: None) -> Result:
    """Train a model, keep its best weights, and measure those on valid and test.

    Best means the highest GAUC on valid. A data set without valid is trained for the epochs
    given and its last weights are kept: nothing is ever chosen on test. On the CPU the same
    config and number of threads give the same result, whether the training was interrupted and
    resumed or not. To resume a finished run trains nothing: its result is returned once more; for
    more epochs or steps than it had it goes on, to what a run of so many would have come to.

    Under `torchrun` its processes train one model together (see `ranks`): a batch is shared out,
    each row is read once an epoch, and the result is that of one process but for rounding, and for
    the rows' order where they are streamed. All return the result, the first one writes the run
    and tells `on_event`.

    Args:
        on_event: is told of the start, of progress about once a second, and of evaluations; or
            that the run was finished before.

    Raises:
        UsageError: settings that cannot be run, an existing run, one to resume that had other
            settings, or a loss that is not a number.
        InputError: the data set, or the run to resume, is missing or damaged.
        ContractError: the data set breaks its contract, or is not that of the run to resume.
        EnvironmentFault: the model does not fit into memory, or another process of the training
            has ended.
    """
    with joined() as ranks:
        return _train(config, ranks, on_event if ranks.first else lambda event: None)


def _train(config: TrainConfig, ranks: Ranks, on_event: OnEvent) -> Result:
    embeddings, mix = config.embeddings, config.mix
    # Before anything is read.
    choose(config.model, config.encoding, config.attention_dim, (), embeddings, mix)
    if config.tables == "bfloat16":
        require_wide_gradients()
    device = device_of(config.device, ranks)
    shards = Shards(config.data, memory_mb=config.memory_mb, history=config.history)
    if "train" not in shards.splits:
        raise UsageError(
            "The data set has no train split.",
            where=config.data,
            expected="rows to train on",
            got=f"the splits {', '.join(shards.splits) or '(none)'}",
        )
    if ranks.first:
        require_run(config.run)
    resolved = resolve(config, shards, ranks)
    if config.resume:
        # The first rank's word: no other need see the run's folder.
        done = ranks.share(result_of(config.run, resolved) if ranks.first else None)
        if done is not None:
            on_event(Found())
            return done
    chosen = config.hyperparameters(shards.facts.training)
    encoding, threads = resolved["encoding"], resolved["threads"]
    built = Built(
        model=config.model,
        encoding=encoding,
        inputs=inputs_of(shards),
        dim=config.dim,
        hidden=chosen.hidden,
        attention_dim=config.attention_dim,
        embeddings=embeddings,
        mix=mix,
        tables=config.tables,
    )
    with torch.device("meta"):  # sizes alone, no memory
        parameters = [*built.build().parameters()]
    _require_memory(parameters, chosen.optimizer, device)
    if "valid" in shards.splits:
        _require_gauc(shards, config)
    with at_work(config.run, ranks.first), _settings(config.seed, threads):
        how = {"force": config.force, "resume": config.resume, "writes": ranks.first}
        run = Run(config.run, resolved, **how)
        ranks.wait()
        model = built.build().to(device)
        return Training(config, resolved, shards, model, device, run, built, on_event, ranks).go()


def resolve(config: TrainConfig, shards: Shards, ranks: Ranks = ALONE) -> dict[str, Any]:
    """The config with every default settled, as plain values: what a run's `config.json` holds.

    It can be given to `tinprep train --config` to train the same again. `ranks`, the number of
    processes, is there beside the settings; how the command was given (`resume`, `force`) is not.

    Raises:
        UsageError: there is no such model, encoding or device.
    """
    _, encoding = choose(config.model, config.encoding, histories=shards.facts.histories)
    chosen = config.hyperparameters(shards.facts.training)
    given = asdict(config)
    del given["resume"], given["force"]
    threads = max(1, threads_of(chosen) // ranks.local_world)
    device = device_of(config.device, ranks).type
    by_step = config.evaluate_every is not None
    return (
        given
        | asdict(chosen)
        | {
            "data": str(config.data.absolute()),  # the same from any folder
            "run": str(config.run),
            "encoding": encoding,
            "device": device,
            "threads": config.threads or threads,
            "cells": config.cells or cells_of(chosen, device, len(shards.facts.histories)),
            "hidden": list(chosen.hidden),
            "epochs": None if config.steps else chosen.epochs,
            "evaluations": None if by_step else config.evaluations or _EVALUATIONS,
            "loss_weight": positive_weight(config, shards),
            "ranks": ranks.world,
            DIGESTS: digests_of(shards),
        }
    )


def _require_gauc(shards: Shards, config: TrainConfig) -> None:
    """Refuse, before any training, a valid split that cannot choose the best weights."""
    batches = shards.batches("valid", batch_size=65_536, columns=("user", "label"))
    read = [(batch["user"], batch["label"]) for batch in batches]
    user, label = (torch.cat(column).numpy() for column in zip(*read, strict=True))
    if math.isnan(gauc(user, label, np.zeros(len(label)))):
        raise UsageError(
            "The best weights cannot be chosen: GAUC does not exist on valid.",
            where=config.data,
            expected="some user of valid with a positive and a negative target",
            got="none",
            do="make the data set with another split",
        )


def _require_memory(
    parameters: list[torch.nn.Parameter], optimizer: str, device: torch.device
) -> None:
    """Refuse a model whose weights, with what the optimizer keeps of each, no memory holds."""
    numbers = sum(p.numel() for p in parameters)
    halved = any(p.dtype == torch.bfloat16 for p in parameters)
    halve = "" if halved else "--tables bfloat16, "
    needed, there = sum(bytes_of(optimizer, p) for p in parameters), total_memory()
    if device.type == "cuda":
        there = torch.cuda.mem_get_info(device)[1]
    if needed > there:
        raise EnvironmentFault(
            "The model does not fit into memory.",
            where=f"{numbers:,} weights, and what {optimizer} keeps of each",
            expected=f"at most {there / 1e9:,.1f} GB, all that there is",
            got=f"{needed / 1e9:,.1f} GB",
            do=f"give a smaller --dim or --hidden, {halve}or make the data set with a smaller "
            "vocabulary",
        )


@contextmanager
def _settings(seed: int, threads: int) -> Iterator[None]:
    """Seed and thread PyTorch for one training, and put both back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    # Adam's momentum of a row that is rarely touched decays into denormal floats, on which a CPU
    # is many times slower.
    torch.set_flush_denormal(True)
    try:
        with torch.random.fork_rng(), sharing():
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(False)
