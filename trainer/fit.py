"""Training: from a data set and a config to a run folder with a checkpoint and its metrics."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from schemas.errors import UsageError
from trainer.config import TrainConfig
from trainer.data import Shards
from trainer.events import Evaluated, OnEvent, Progress, Started
from trainer.metrics import Metrics
from trainer.models import InterestModel, build, choose, inputs_of
from trainer.optimizer import DenseAdam
from trainer.rows import Batch
from trainer.runs import Result, Run, load
from trainer.scoring import score, to_device

__all__ = ["Result", "TrainConfig", "gradients", "train"]


def train(config: TrainConfig, on_event: OnEvent = lambda event: None) -> Result:
    """Train a model, keep its best weights, and measure those on valid and test.

    Best means the highest GAUC on valid. A data set without valid is trained for the epochs
    given and its last weights are kept: nothing is ever chosen on test. On the CPU the same
    config and number of threads give the same result.

    Args:
        config: what to train on what.
        on_event: is told of the start, of progress about once a second, and of evaluations.

    Raises:
        UsageError: settings that cannot be run, an existing run, or a loss that is not a number.
        InputError: the data set is missing or damaged.
        ContractError: the data set breaks its contract.
    """
    _, encoding = choose(config.model, config.encoding)
    device = _device(config.device)
    threads = config.cpu_threads
    shards = Shards(config.data, memory_mb=config.memory_mb)
    if "train" not in shards.splits:
        raise UsageError(
            "The data set has no train split.",
            where=config.data,
            expected="rows to train on",
            got=f"the splits {', '.join(shards.splits) or '(none)'}",
        )
    inputs = inputs_of(shards)
    built = {
        "model": config.model,
        "encoding": encoding,
        "inputs": asdict(inputs) | {"numbers": list(inputs.numbers)},
        "dim": config.dim,
        "hidden": list(config.hidden),
    }
    resolved = asdict(config) | {
        "data": str(config.data),
        "run": str(config.run),
        "encoding": encoding,
        "device": device.type,
        "threads": threads,
        "cells": config.group_cells,
        "hidden": list(config.hidden),
    }
    run = Run(config.run, resolved, config.force)
    with _settings(config.seed, threads):
        model = build(config.model, encoding, inputs, dim=config.dim, hidden=config.hidden)
        return _Training(config, shards, model.to(device), device, run, built, on_event).go()


def gradients(model: nn.Module, batch: Batch, rows: int) -> torch.Tensor:
    """Add a batch's part of the mean cross-entropy over `rows` rows to the gradients.

    Args:
        model: gives logits of B.
        batch: B rows, with their labels.
        rows: rows of all groups that make one step.

    Returns:
        The sum of the batch's losses, detached.
    """
    total = binary_cross_entropy_with_logits(model(batch), batch["label"], reduction="sum")
    (total / rows).backward()  # type: ignore[no-untyped-call]
    return total.detach()


class _Training:
    """The state of one training between its steps."""

    def __init__(
        self,
        config: TrainConfig,
        shards: Shards,
        model: InterestModel,
        device: torch.device,
        run: Run,
        built: dict[str, Any],
        on_event: OnEvent,
    ) -> None:
        self.config, self.shards, self.model, self.device = config, shards, model, device
        self.run, self.built, self.tell = run, built, on_event
        self.optimizer = DenseAdam(model.parameters(), config.lr)
        self.rows = shards.manifest.rows["train"]
        self.steps_per_epoch = math.ceil(self.rows / config.batch_size)
        self.steps = self.steps_per_epoch * config.epochs
        self.best: tuple[int, float] | None = None
        self.since_best = 0
        # Reading the loss makes a GPU wait for its queue, so there it is read less often.
        self.read_every = 1 if device.type == "cpu" else 50
        self.began = time.perf_counter()
        self.evaluating_seconds = 0.0
        self.rows_seen = 0

    def go(self) -> Result:
        manifest = self.shards.manifest
        self.tell(
            Started(
                dataset=manifest.dataset,
                synthetic=manifest.synthetic,
                model=self.built["model"],
                encoding=self.built["encoding"],
                device=self.device.type,
                rows=self.rows,
                steps=self.steps,
                parameters=sum(p.numel() for p in self.model.parameters()),
            )
        )
        last = self._steps()
        rate = self._rate()
        if self.best is None:
            self.run.save(self.model, self.built)
        kept = load(self.config.run, self.device)
        metrics: dict[str, Metrics] = {
            split: self._score(kept, split)
            for split in ("valid", "test")
            if split in self.shards.splits
        }
        result = Result(
            run=self.config.run,
            dataset=manifest.dataset,
            synthetic=manifest.synthetic,
            model=self.built["model"],
            encoding=self.built["encoding"],
            metrics=metrics,
            best_step=self.best[0] if self.best else last,
            steps=last,
            seconds=time.perf_counter() - self.began,
            rows_per_second=rate,
            device=self.device.type,
            threads=torch.get_num_threads(),
        )
        self.run.finish(result)
        return result

    def _steps(self) -> int:
        """Train until the epochs or the patience are used up; return the last step."""
        per_epoch, count = self.steps_per_epoch, self.config.evaluations
        # Evenly spaced, and always at the end of an epoch; none where there is no valid.
        due = {round(per_epoch * (i + 1) / count) for i in range(count)}
        due = due if "valid" in self.shards.splits else set()
        step, since_told, told = 0, 0, time.perf_counter()
        losses: float | torch.Tensor = 0.0
        for epoch in range(self.config.epochs):
            for in_epoch, groups in enumerate(self._batches(epoch), start=1):
                rows = sum(len(group["label"]) for group in groups)
                for group in groups:
                    total = gradients(self.model, to_device(group, self.device), rows)
                    losses = losses + (total.item() if self.read_every == 1 else total)
                    self.optimizer.collect()
                self.optimizer.step()
                step, since_told = step + 1, since_told + rows
                self.rows_seen += rows
                evaluating = in_epoch in due
                if step % self.read_every and not evaluating and step < self.steps:
                    continue
                mean = self._finite(float(losses) / since_told, step)
                if evaluating or step == self.steps or time.perf_counter() - told > 1.0:
                    self.tell(Progress(step, self.steps, epoch, mean, self._rate()))
                    losses, since_told, told = 0.0, 0, time.perf_counter()
                if evaluating and self._evaluate(step, epoch, mean):
                    return step
        return step

    def _batches(self, epoch: int) -> Iterator[list[Batch]]:
        return self.shards.grouped_batches(
            "train",
            batch_size=self.config.batch_size,
            cells=self.config.group_cells,
            shuffle_seed=self.config.seed,
            epoch=epoch,
            columns=(*self.model.columns, "label"),
        )

    def _rate(self) -> float:
        seconds = time.perf_counter() - self.began - self.evaluating_seconds
        return self.rows_seen / max(seconds, 1e-9)

    def _finite(self, loss: float, step: int) -> float:
        if not math.isfinite(loss):
            first = max(1, step - self.read_every + 1)
            raise UsageError(
                "The loss is no longer a number: training has diverged.",
                where=f"step {step}" if first == step else f"steps {first} to {step}",
                expected="a finite cross-entropy",
                got=str(loss),
                do=f"use a lower learning rate than {self.config.lr:g} (`--lr`), "
                "and look for extreme values in the data set's float columns",
            )
        return loss

    def _score(self, model: InterestModel, split: str) -> Metrics:
        return score(model, model.columns, self.shards, split, device=self.device)

    def _evaluate(self, step: int, epoch: int, loss: float) -> bool:
        """Measure valid and keep the weights when they are the best; return whether to stop."""
        began = time.perf_counter()
        metrics = self._score(self.model, "valid")
        if metrics.gauc is None:
            raise UsageError(
                "The best weights cannot be chosen: GAUC does not exist on valid.",
                where=self.config.data,
                expected="some user of valid with a positive and a negative target",
                got="none",
                do="make the data set with another split",
            )
        best = self.best is None or metrics.gauc > self.best[1]
        if best:
            self.best, self.since_best = (step, metrics.gauc), 0
            self.run.save(self.model, self.built)
        else:
            self.since_best += 1
        self.run.log(step, epoch, loss, began - self.began, metrics)
        self.tell(Evaluated(step, metrics, best))
        self.evaluating_seconds += time.perf_counter() - began
        return self.since_best >= self.config.patience


def _device(name: str) -> torch.device:
    usable = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    if name == "auto":
        return torch.device(usable[-1])
    if name not in usable:
        raise UsageError(
            "This device cannot be used.",
            where="--device",
            expected=f"one of auto, {', '.join(usable)}",
            got=name,
        )
    return torch.device(name)


@contextmanager
def _settings(seed: int, threads: int) -> Iterator[None]:
    """Seed and thread PyTorch for one training, and put both back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    # Adam's momentum of a row that is rarely touched decays into denormal floats, on which a CPU
    # is many times slower.
    torch.set_flush_denormal(True)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(False)
