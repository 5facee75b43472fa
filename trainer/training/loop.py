"""The loop of one training: steps, evaluations, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch

from schemas.errors import UsageError
from trainer.data.batches import PLACE, WEIGHT, Batch
from trainer.data.inputs import behaviours_of
from trainer.data.prefetch import on_device
from trainer.data.shards import Shards
from trainer.metrics import Metrics
from trainer.models.interest import Built, InterestModel
from trainer.models.recurrent import NextByNet
from trainer.training.checkpoints import UNREADABLE, unreadable
from trainer.training.compiling import compiled
from trainer.training.config import TrainConfig
from trainer.training.divergence import logloss_limit, loss_limit, not_finite
from trainer.training.events import Ended, Evaluated, OnEvent, Progress, Started, Stopped
from trainer.training.loss import gradients, weights_of
from trainer.training.optimizer import optimizer_of
from trainer.training.ranks import ALONE, Ranks
from trainer.training.reduction import GradientSum
from trainer.training.runs import BEST, LAST, Result, Run, load, versions
from trainer.training.schedule import Progressed, Schedule
from trainer.training.scoring import NoScores, score
from trainer.training.unknown import with_unknown


class Training:
    """One training.

    `settled` is the config with every default settled (see `train.resolve`), `built` what rebuilds
    the model, `ranks` who trains together.
    """

    def __init__(
        self,
        config: TrainConfig,
        settled: dict[str, Any],
        shards: Shards,
        model: InterestModel,
        device: torch.device,
        run: Run,
        built: Built,
        on_event: OnEvent,
        ranks: Ranks = ALONE,
    ) -> None:
        self.config, self.settled, self.shards = config, settled, shards
        self.model, self.device, self.ranks = model, device, ranks
        self.run, self.built, self.tell = run, built, on_event
        if isinstance(model.auxiliary, NextByNet):
            model.behaviours = behaviours_of(shards).to(device)
        chosen = config.hyperparameters(shards.facts.training)
        self.optimizer = optimizer_of(chosen, model.parameters(), config.seed, config.l2)
        self.rows = shards.manifest.rows["train"]
        self.mean_weight, largest = weights_of(shards)
        # Of a row's loss beside that of a row of mean weight.
        self.most = max(1.0, settled["loss_weight"]) * largest / self.mean_weight
        self.schedule = Schedule.of(settled, self.rows, "valid" in shards.splits)
        self.forward = compiled(model) if config.compile else model.with_auxiliary
        self.add_up = GradientSum(model, ranks) if ranks.world > 1 else None
        # Reading the loss makes a GPU wait for its queue, so there it is read less often.
        self.read_every = 1 if device.type == "cpu" else 50
        self.at = Progressed()
        self.resumed: int | None = None
        self.patient = True
        if config.resume:
            self._restore()
        run.begin(self.at.step)
        self.began = self.saved = time.perf_counter()
        self.saved_at: int | None = self.resumed
        self.waited, self.evaluated_before = 0.0, self.at.evaluating_seconds
        self.seconds_before = self.at.seconds

    def go(self) -> Result:
        """Train, and measure the kept weights on valid and test."""
        manifest = self.shards.manifest
        self.tell(
            Started(
                dataset=manifest.dataset,
                synthetic=manifest.synthetic,
                model=self.built.model,
                encoding=self.built.encoding,
                device=self.device.type,
                rows=self.rows,
                steps=self.schedule.steps,
                parameters=sum(p.numel() for p in self.model.parameters()),
                batch_size=self.schedule.batch_size,
                per_epoch=self.schedule.per_epoch,
                resumed=self.resumed,
                notes=tuple(self.run.notes),
                histories=self._histories(),
                advice=None if self.config.steps else self.schedule.advice(self.rows),
            )
        )
        while self.at.step < self.schedule.steps and self.patient:
            self._epoch()
        rate, waiting = self._rate(), self._waiting()
        if self.saved_at != self.at.step:
            self._checkpoint()
        self.ranks.wait()  # until the weights are written
        kept = load(self.config.run, self.device) if self.at.best_step else self.model
        metrics: dict[str, Metrics] = {
            split: self._score(kept, split)
            for split in ("valid", "test")
            if split in self.shards.splits
        }
        if not self.at.best_step:
            self.run.save(self.model, self.built)
        result = Result(
            run=self.config.run,
            dataset=manifest.dataset,
            synthetic=manifest.synthetic,
            model=self.built.model,
            encoding=self.built.encoding,
            metrics=metrics,
            best_step=self.at.best_step or self.at.step,
            steps=self.at.step,
            seconds=self._seconds(),
            rows_per_second=rate,
            device=self.device.type,
            threads=torch.get_num_threads(),
            waiting=waiting,
            config=self.settled,
            versions=versions(),
        )
        self.run.finish(result)
        self.tell(Ended(metrics["test"].gauc if "test" in metrics else None, result.seconds))
        return result

    def _histories(self) -> tuple[str, ...]:
        """The histories that the model reads, of a data set with several."""
        names, called = tuple(self.built.inputs.histories), self.shards.facts.called
        return () if len(self.shards.manifest.histories) == 1 else (called,) if called else names

    def _epoch(self) -> None:
        """Train to the end of the epoch, or until steps or patience are used up."""
        at, schedule = self.at, self.schedule
        last_told, loss_told, rows_told = time.perf_counter(), at.loss, at.rows
        loss: float | torch.Tensor = at.loss
        for groups in self._batches():
            rows, total = self._gradients(groups)
            loss = loss + total
            self.optimizer.step(self.config.clip)
            at.step, at.in_epoch = at.step + 1, at.in_epoch + 1
            at.rows, at.rows_seen = at.rows + rows, at.rows_seen + rows
            evaluating, now = schedule.measures(at.step, at.in_epoch), time.perf_counter()
            done = at.step == schedule.steps
            ending = at.in_epoch == schedule.per_epoch
            saving = now - self.saved >= self.config.checkpoint_seconds
            if at.step % self.read_every and not (evaluating or ending or done or saving):
                continue
            loss = at.loss = self._finite(float(loss))
            if evaluating or ending or done or now - last_told > 1.0:
                mean = (at.loss - loss_told) / max(1, at.rows - rows_told)
                self.tell(Progress(at.step, schedule.steps, at.epoch, mean, self._rate()))
                last_told, loss_told, rows_told = now, at.loss, at.rows
            if evaluating or ending or done:
                limit = loss_limit(self.most)
                self._within_bounds("mean loss", at.loss / at.rows, limit)
            if evaluating or saving or done:
                self._finite_weights()
            if evaluating:
                self._evaluate(at.loss / at.rows)
                loss = at.loss = loss_told = 0.0
                at.rows = rows_told = 0
            if ending:
                at.epoch, at.in_epoch = at.epoch + 1, 0
            if not self.patient:
                return
            if evaluating or saving:
                self._checkpoint()
            if done:
                return

    def _gradients(self, groups: list[Batch]) -> tuple[int, float | torch.Tensor]:
        """Give the optimizer a batch's gradients.

        Returns:
            The rows of the whole batch, and the sum of their losses.
        """
        mine = sum(len(group["label"]) for group in groups)
        rows = mine if self.add_up is None else self.schedule.batch_size
        longest = None
        if isinstance(self.model.auxiliary, NextByNet):
            longest = max((int(self.shards.behaviours(group).max()) for group in groups), default=0)
        total: float | torch.Tensor = 0.0
        for group in groups:
            part = gradients(
                self.model,
                group,
                rows,
                longest=longest,
                forward=self.forward,
                positive_weight=self.settled["loss_weight"],
                amp=self.config.amp,
                mean_weight=self.mean_weight,
            )
            total = total + (part.item() if self.read_every == 1 else part)
            if self.add_up is None:
                self.optimizer.collect()
        if self.add_up is not None:
            total = torch.as_tensor(total, dtype=torch.float32, device=self.device)
            rows, total = self.add_up(mine, total, self.schedule.batch_size)
            total = total.item() if self.read_every == 1 else total
            self.optimizer.collect()
        return rows, total

    def _batches(self) -> Iterator[list[Batch]]:
        """This rank's part of the epoch's batches that are not trained on yet, on the device."""
        weight = (WEIGHT,) if self.shards.manifest.weight else ()
        rate = self.config.unknown_rate
        batches = self.shards.grouped_batches(
            "train",
            batch_size=self.schedule.batch_size,
            cells=self.settled["cells"],
            shuffle_seed=self.config.seed,
            epoch=self.at.epoch,
            columns=(*self.model.columns, "label", *weight, *([PLACE] if rate else [])),
            rank=self.ranks.rank,
            world=self.ranks.world,
            together=True,
        )
        for _ in range(self.at.in_epoch):
            next(batches)
        if rate:
            seed, epoch = self.config.seed, self.at.epoch
            batches = with_unknown(batches, self.model.inputs, rate, seed, epoch)
        following = on_device(batches, self.device)
        while True:
            asked = time.perf_counter()
            groups = next(following, None)
            self.waited += time.perf_counter() - asked
            if groups is None:
                return
            yield groups

    def _checkpoint(self) -> None:
        """Write down all that it takes to go on from here."""
        self.at.seconds = self._seconds()
        self.saved, self.saved_at = time.perf_counter(), self.at.step
        if not self.run.writes:
            return
        # One state for all ranks: they draw the initial weights alike, and nothing after that.
        random = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        self.run.checkpoint(
            {
                "at": asdict(self.at),
                "weights": self.model.state_dict(),
                "optimizer": self.optimizer.state(),
                "random": random,
            }
        )

    def _restore(self) -> None:
        """Go back to where the run's last checkpoint was made."""
        state = self.run.last_checkpoint(self.device)
        self.resumed = 0
        if state is not None:
            try:
                self.at = Progressed.from_plain(state["at"], self.schedule.per_epoch)
                self.model.load_state_dict(state["weights"])
                self.optimizer.restore(state["optimizer"])
                torch.set_rng_state(state["random"]["cpu"].cpu())
                if "cuda" in state["random"] and self.device.type == "cuda":
                    torch.cuda.set_rng_state(state["random"]["cuda"].cpu(), self.device)
            except UNREADABLE as error:
                raise unreadable(self.config.run / LAST, error) from error
            self.resumed = self.at.step
        self.patient = self.at.since_best < self.config.patience
        if not self.patient and self.at.step < self.schedule.steps:
            self.run.notes.append(
                f"it had stopped: {self.at.since_best} evaluations without a better valid GAUC; "
                "a larger `--patience` lets it go on"
            )

    def _seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.began

    def _rate(self) -> float:
        return self.at.rows_seen / max(self._seconds() - self.at.evaluating_seconds, 1e-9)

    def _waiting(self) -> float:
        """The share of this process's training that it waited for batches."""
        evaluating = self.at.evaluating_seconds - self.evaluated_before
        training = time.perf_counter() - self.began - evaluating
        return self.waited / max(training, 1e-9)

    def _finite(self, loss: float) -> float:
        """The sum of some steps' losses, or an error."""
        if not math.isfinite(loss):
            first = max(1, self.at.step - self.read_every + 1)
            raise self._diverged("The loss is no longer a number", "a finite loss", loss, first)
        return loss

    def _finite_weights(self) -> None:
        """Refuse weights that may not be measured or kept, or an optimizer's numbers."""
        kept = {"weights": self.model.state_dict(), "optimizer": self.optimizer.state()}
        if found := not_finite(kept):
            raise self._diverged("The weights are no longer numbers", "finite weights", found)

    def _within_bounds(self, what: str, loss: float, limit: float) -> None:
        if loss > limit:
            expected = f"a {what} of at most {limit:.3g} nats"
            raise self._diverged("The loss has left all bounds", expected, f"{loss:.3g}")

    def _diverged(
        self, what: str, expected: str, got: object, first: int | None = None
    ) -> UsageError:
        """What to say of a training that came to nothing, at a step from `first` to the last."""
        at = self.at
        kept = "no weights are kept, as none were measured before"
        if at.best_step:
            kept = f"the best weights before, of step {at.best_step}, are kept in {BEST}"
        several = first is not None and first < at.step
        steps = f"steps {first} to {at.step}" if several else f"step {at.step}"
        return UsageError(
            f"{what}: training has diverged.",
            where=f"{self.config.run}, {steps}",
            expected=expected,
            got=str(got),
            do=f"use a lower learning rate than {self.settled['lr']:g} (`--lr`), and look for "
            f"extreme values in the data set's float columns; {kept}",
        )

    def _score(self, model: InterestModel, split: str) -> Metrics:
        try:
            found, _ = score(model, self.shards, split, device=self.device, ranks=self.ranks)
        except NoScores as error:
            what = f"The scores of {split} are no numbers"
            raise self._diverged(what, "finite scores", error.got) from error
        if found.logloss is not None:
            limit = logloss_limit(self.most)
            self._within_bounds(f"logloss on {split}", found.logloss, limit)
        return found

    def _evaluate(self, loss: float) -> None:
        """Measure valid, keep the weights when they are the best, and lose patience in time."""
        began, at = time.perf_counter(), self.at
        metrics = self._score(self.model, "valid")
        assert metrics.gauc is not None  # `train` has looked
        best = not at.best_step or metrics.gauc > at.best_gauc
        if best:
            at.best_step, at.best_gauc, at.since_best = at.step, metrics.gauc, 0
            self.run.save(self.model, self.built)
        else:
            at.since_best += 1
        seconds = self.seconds_before + began - self.began
        self.run.evaluated(at.step, at.epoch, loss, seconds, metrics)
        self.tell(Evaluated(at.step, metrics, best))
        at.evaluating_seconds += time.perf_counter() - began
        self.patient = at.since_best < self.config.patience
        if not self.patient and at.step < self.schedule.steps:
            of = self.schedule.steps
            self.tell(Stopped(at.step, of, at.since_best, at.best_step, at.best_gauc))
