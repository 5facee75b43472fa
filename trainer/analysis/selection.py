"""Which feature sets a model of experts can do without: a gate for each, learned with a price.

A set is a feature or a history. From a run's weights training goes on for a while. Every set's
embeddings, and a history's interest, are multiplied by its gate sigmoid(b s). Weights learn on
train and gates on valid (as in AutoField, WWW 2022): on train noise is worth something, too, as a
model learns it by heart. A gate costs its value times the sparsity weight, so a set has to be worth
so many nats of logloss. b grows, and with it gates end at 0 or 1, so that a small gate cannot hide
behind large embeddings (continuous sparsification, Savarese et al. 2020). A scale and a shift of
the logit are learned with the gates. That gates begin from trained weights, and how they move, is
ours.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch.nn.functional import binary_cross_entropy_with_logits

from schemas.errors import UsageError
from schemas.plain import printable
from trainer.data.batches import WEIGHT, Batch
from trainer.data.shards import Shards
from trainer.models.mix import MixModel
from trainer.training.config import RANKS, TrainConfig, cells_of, read_settings
from trainer.training.evaluation import alike, data_of
from trainer.training.loss import gradients, positive_weight, weights_of
from trainer.training.optimizer import optimizer_of
from trainer.training.runs import CONFIG, load, read_json
from trainer.training.threads import sharing

# b grows from the first to the second, and s moves within -1..1: a gate begins at 0.98.
_SHARPNESS = (4.0, 40.0)
_FEWEST, _MOST = 500, 2_000  # steps
_SLOWER = 0.1  # of the run's learning rate: its weights are the best there were


@dataclass(frozen=True)
class FeatureSet:
    """A set of columns with one gate.

    Attributes:
        kind: `feature` or `history`.
        name: which.
        score: s in the end, -1..1.
        kept: whether the gate is open.
    """

    kind: str
    name: str
    score: float
    kept: bool


@dataclass(frozen=True)
class Selection:
    """What was selected, and its cost.

    Attributes:
        sets: those that are kept first, each part by score.
        sparsity: nats of logloss that a set had to be worth.
        steps: of training.
        rows: trained on, each as often as it was.
        seconds: that it took.
    """

    sets: list[FeatureSet]
    sparsity: float
    steps: int
    rows: int
    seconds: float

    def dropped(self, kind: str) -> tuple[str, ...]:
        """The names of a kind's sets that are not kept."""
        return tuple(one.name for one in self.sets if one.kind == kind and not one.kept)


def select(
    run: Path | str,
    sparsity: float = 1e-3,
    *,
    seed: int = 0,
    data: Path | str | None = None,
    told: Callable[[int, int], object] = lambda done, of: None,
) -> Selection:
    """Learn which feature sets a run's model can do without. The run stays as it is.

    It trains an epoch of the run's batches on the CPU by the run's settings, at a tenth of its
    learning rate, but at least 500 steps and at most 2,000, each with a batch of valid for the
    gates. The history that is worth most
    stays in any case, as models need one.

    Args:
        run: folder of the run, of a model of experts.
        sparsity: the weight of a gate in the loss, nats.
        data: folder of the data set; the one that the run was trained on by default.
        told: is told how many of how many steps are done.

    Raises:
        InputError: there is no such run or data set, or it is damaged.
        UsageError: the model has no gates, the data set has no valid split, or the sparsity weight
            is not above 0.
        ContractError: the data set does not mean what that of the training meant.
    """
    folder, began = Path(run), time.perf_counter()
    if not 0 < sparsity < math.inf:
        raise _refused("--sparsity", "a number above 0", str(sparsity))
    model = load(folder)
    if not isinstance(model, MixModel):
        said = read_json(folder / CONFIG, dict[str, Any], do="train it again")
        expected = "a model of experts, e.g. `train DATA --model tin_mix`"
        raise _refused(run, expected, str(said.get("model", "another")))
    shards = alike(model, Path(data) if data is not None else data_of(folder))
    if "valid" not in shards.splits:
        raise _refused(shards.out, "a data set with a valid split", "none")
    ranks = read_json(folder / CONFIG, dict[str, Any], do="train it again").get(RANKS, 1)
    settings = read_settings(folder / CONFIG, ranks)
    config = TrainConfig(**{**settings, "data": shards.out, "run": folder})
    chosen = config.hyperparameters(shards.facts.training)
    per_epoch = -(-shards.manifest.rows["train"] // chosen.batch_size)
    steps = min(max(per_epoch, _FEWEST), _MOST)
    names = _names(model, shards)
    score = torch.ones(len(names), requires_grad=True)
    # An overconfident model is better on valid with any gate closed: scale and shift take that up.
    scale, shift = torch.ones((), requires_grad=True), torch.zeros((), requires_grad=True)
    groups: list[dict[str, Any]] = [{"params": [score]}]
    groups.append({"params": [scale, shift], "lr": 0.02})
    of_gates = torch.optim.Adam(groups, lr=20 / steps)
    learns = (score, scale, shift)
    gently = replace(chosen, lr=chosen.lr * _SLOWER)
    optimizer = optimizer_of(gently, model.parameters(), seed, config.l2)
    positive, mean = positive_weight(config, shards), weights_of(shards)[0]
    cells = config.cells or cells_of(chosen, "cpu", len(shards.facts.histories))
    rows = 0

    def batches(split: str) -> Iterator[list[Batch]]:
        columns = (*model.columns, "label", *((WEIGHT,) if shards.manifest.weight else ()))
        for epoch in count():
            yield from shards.grouped_batches(
                split, batch_size=chosen.batch_size, cells=cells, shuffle_seed=seed, epoch=epoch,
                columns=columns,
            )  # fmt: skip

    both = zip(batches("train"), batches("valid"), range(steps), strict=False)
    with sharing(), torch.random.fork_rng():
        for learned, held, step in both:
            told(step, steps)
            first, last = _SHARPNESS
            sharp = first * (last / first) ** (step / steps)
            model.gate_sets(torch.sigmoid(sharp * score.detach()))
            size = sum(len(group["label"]) for group in learned)
            rows += size
            for group in learned:
                gradients(model, group, size, positive_weight=positive, mean_weight=mean)
                optimizer.collect()
            optimizer.step(config.clip)
            size, price = sum(len(group["label"]) for group in held), sparsity
            totals = [torch.zeros_like(one) for one in learns]
            for group in held:
                gate = torch.sigmoid(sharp * score)
                model.gate_sets(gate)
                worth = binary_cross_entropy_with_logits(
                    model(group) * scale + shift, group["label"], reduction="sum"
                )
                loss, price = worth / size + price * gate.sum(), 0.0
                found = torch.autograd.grad(loss, learns)
                totals = [one + more for one, more in zip(totals, found, strict=True)]
            for one, total in zip(learns, totals, strict=True):
                one.grad = total
            of_gates.step()
            with torch.no_grad():
                score.clamp_(-1, 1)
    scores = score.tolist()
    histories = [at for at, (kind, _) in enumerate(names) if kind == "history"]
    best = max(histories, key=scores.__getitem__)
    sets = [
        FeatureSet(kind, name, score, score > 0 or at == best)
        for at, ((kind, name), score) in enumerate(zip(names, scores, strict=True))
    ]
    sets.sort(key=lambda one: (not one.kept, -one.score))
    return Selection(sets, sparsity, steps, rows, time.perf_counter() - began)


def selection_table(run: Path, found: Selection) -> Table:
    """What was selected, for a terminal."""
    kept = sum(one.kept for one in found.sets)
    title = f"{run}: {kept} of {len(found.sets)} feature sets are worth {found.sparsity:g} nats"
    about = (
        f"{found.steps:,} steps over {found.rows:,} rows in {found.seconds:.0f} s; a score above 0 "
        "keeps its set, and the best history stays"
    )
    table = Table(title=title, caption=about)
    table.add_column("set", no_wrap=True)
    table.add_column("kind")
    table.add_column("score", justify="right")
    table.add_column("")
    for one in found.sets:
        state = "kept" if one.kept else "dropped"
        table.add_row(printable(one.name), one.kind, f"{one.score:.2f}", state)
    return table


def _names(model: MixModel, shards: Shards) -> list[tuple[str, str]]:
    """Each set's kind and name, in the order of `MixModel.gate_sets`."""
    histories = [*model.inputs.histories]
    if len(shards.facts.histories) == 1:  # batches have a name of their own for it
        histories = [shards.facts.called or next(iter(shards.manifest.histories))]
    return [*(("feature", n) for n in model.features), *(("history", n) for n in histories)]


def _refused(where: Path | str, expected: str, got: str) -> UsageError:
    what = "Feature sets cannot be selected so."
    return UsageError(what, where=where, expected=expected, got=got)
