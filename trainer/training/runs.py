"""The folder of a run.

```
RUN/config.json    the resolved config, written first
RUN/log.csv        one line an evaluation
RUN/tensorboard/   the same for TensorBoard, where it was asked for
RUN/best.pt        the weights that are kept, and what rebuilds the model around them
RUN/last.pt        the latest state: what an interrupted run, or a finished one, goes on from
RUN/metrics.json   the result, written last: a folder with one is a finished run
RUN/importance.json   what each part of a row is worth to these weights, where it was measured
RUN/.lock          held by the training that is at work; see `trainer.training.run_folder`
```
"""

from __future__ import annotations

import json
import platform
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch

from schemas import checked
from schemas.checked import OPEN, Count
from schemas.digests import differing, in_short
from schemas.errors import ContractError, InputError, UsageError
from trainer.data.inputs import as_now
from trainer.files import atomically
from trainer.metrics import Metrics
from trainer.models.interest import Built, InterestModel
from trainer.training.checkpoints import UNREADABLE, read_checkpoint, unreadable, write_checkpoint
from trainer.training.config import DIGESTS, NOTHING, ROUNDING, TrainConfig, moving
from trainer.training.log import Log

CONFIG, BEST, LAST, METRICS = "config.json", "best.pt", "last.pt", "metrics.json"
SCORES, IMPORTANCE = "test_scores.parquet", "importance.json"
# With more of these a training is what it was, and goes on.
_MORE = {"epochs", "steps", "patience"}
_DEFAULTS = {f.name: f.default for f in fields(TrainConfig) if f.default is not MISSING}
_ANEW = "start again with `--force`"
T = TypeVar("T")


@dataclass(frozen=True)
class Result:
    """What a finished training came to.

    Attributes:
        dataset: the manifest's name of the data set.
        synthetic: whether the data set is made up.
        metrics: of the kept weights, for each of `valid` and `test` that the data set has.
        best_step: the step whose weights are kept; the last one where there is no valid.
        steps: steps done.
        seconds: of the whole training, evaluations included.
        rows_per_second: of training alone.
        device: `cpu` or `cuda`.
        threads: CPU threads.
        waiting: the share of training's time in which batches were waited for, since the last
            resuming.
        versions: of Python and the libraries.
    """

    __pydantic_config__ = OPEN
    run: Path
    dataset: str
    synthetic: bool
    model: str
    encoding: str
    metrics: dict[str, Metrics]
    best_step: Count
    steps: Count
    seconds: float
    rows_per_second: float
    device: str
    threads: Count
    waiting: float = 0.0
    config: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


class Run:
    """A run folder while it is written.

    Nobody else must be at work in the folder: see `schemas.alone`.

    Args:
        folder: where; made if absent.
        config: the resolved config, plain values only.
        force: replace the files of an earlier run, finished or not.
        resume: go on with an unfinished run, where there is one.
        writes: whether to write at all: of several processes that train together, one does.

    Attributes:
        notes: what a person should know of the resuming.

    Raises:
        UsageError: the folder holds a finished run, or an unfinished one that was not to be
            resumed; or the run to resume had other settings, or keeps no state to go on from.
        InputError: the config of the run to resume cannot be read.
        ContractError: the run to resume is of another data set.
    """

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        force: bool,
        resume: bool = False,
        writes: bool = True,
    ) -> None:
        self.folder, self.config, self.writes = folder, config, writes
        self.log = Log(folder, bool(config["tensorboard"]))
        self.notes: list[str] = []
        self.resumes = False
        if not writes:
            return
        began = any((folder / name).exists() for name in (LAST, BEST, CONFIG))
        finished = (folder / METRICS).exists()
        if resume and began and (not finished or _asks_for_more(folder, config)):
            self.notes, self.resumes = resuming(folder, config), True
            return
        if finished and not force:
            raise UsageError(
                "This folder holds the results of an earlier run, which is finished.",
                where=folder,
                expected="a new folder",
                got=f"a folder with {METRICS}",
                do="see it with `--resume`, choose another `--run`, or replace it with `--force`",
            )
        if any((folder / name).exists() for name in (LAST, BEST)) and not force:
            raise UsageError(
                "This folder holds a run that was interrupted.",
                where=folder,
                expected="a new folder, or `--resume`",
                got=f"a folder with a checkpoint, and no {METRICS}",
                do="go on with it by `--resume`, or begin anew with `--force`",
            )
        for name in (METRICS, BEST, LAST, SCORES, IMPORTANCE):
            (folder / name).unlink(missing_ok=True)
        _write_json(folder / CONFIG, config)

    def checkpoint(self, state: dict[str, Any]) -> None:
        """Keep what the run can be resumed from, in place of what was kept so far."""
        content = state | {DIGESTS: self.config[DIGESTS]}
        if self.writes:
            atomically(self.folder / LAST, lambda path: write_checkpoint(content, path))

    def last_checkpoint(self, device: torch.device) -> dict[str, Any] | None:
        """What was kept by `checkpoint`; None where nothing was yet."""
        if not (self.folder / LAST).exists():
            return None
        keys = ("at", "weights", "optimizer", "random", DIGESTS)
        found = read_checkpoint(self.folder / LAST, device, keys)
        _require_same_data(found, self.config, self.folder / LAST)
        return found

    def begin(self, step: int) -> None:
        """Open the log, with what it holds up to `step`; a run that goes on is unfinished."""
        if not self.writes:
            return
        if self.resumes:
            # The config first: it says what the run goes on to, if it is killed in between.
            _write_json(self.folder / CONFIG, self.config)
            for name in (METRICS, IMPORTANCE):
                (self.folder / name).unlink(missing_ok=True)
        self.log.begin(step)

    def evaluated(
        self, step: int, epoch: int, loss: float, seconds: float, metrics: Metrics
    ) -> None:
        """Append one evaluation to the log."""
        if self.writes:
            self.log.add(step, epoch, loss, seconds, metrics)

    def save(self, model: InterestModel, built: Built) -> None:
        """Keep the model's weights in place of those kept so far; `built` as `load` needs it."""
        content = {"built": asdict(built), "weights": model.state_dict()}
        if self.writes:
            atomically(self.folder / BEST, lambda path: write_checkpoint(content, path))

    def finish(self, result: Result) -> None:
        """Write the result for machines to read."""
        if not self.writes:
            return
        self.log.close()
        _write_json(self.folder / METRICS, asdict(result) | {"run": str(result.run)})


def versions() -> dict[str, str]:
    """The versions that a result may depend on."""
    names = ("tinprep", "torch", "numpy", "pyarrow")
    return {"python": platform.python_version()} | {name: version(name) for name in names}


def result_of(folder: Path, config: dict[str, Any]) -> Result | None:
    """What a finished run came to; None where it is not finished, or is to be trained further."""
    if not (folder / METRICS).exists() or _asks_for_more(folder, config):
        return None
    return replace(read_json(folder / METRICS, Result, do=_ANEW), run=folder)


def _asks_for_more(folder: Path, config: dict[str, Any]) -> bool:
    """Whether a finished run is to be trained further: for more epochs, say, than it had."""
    before = read_json(folder / METRICS, Result, do=_ANEW).config
    _require_same(before, config, folder / METRICS)
    more = [name for name in sorted(_MORE) if config.get(name) != before.get(name)]
    if more and not (folder / LAST).exists():
        raise UsageError(
            "This finished run cannot be trained further: it kept no state to go on from.",
            where=folder,
            expected=f"{LAST}, which trainings keep",
            got="none; an older tinprep, or `reproduce`, keeps none",
            do="train anew in another `--run`",
        )
    return bool(more)


def resuming(folder: Path, config: dict[str, Any]) -> list[str]:
    """What a person should know of going on with a run by this config."""
    before = read_json(folder / CONFIG, dict[str, Any], do=_ANEW)
    _require_same(before, config, folder / CONFIG)
    was = {n: before.get(n) for n in ("device", "threads")}
    changed = [f"{n} {config.get(n)} for {v}" for n, v in was.items() if config.get(n) != v]
    said = f"{', '.join(changed)}: the numbers may differ in their last digits"
    return [said] if changed else []


def _require_same(before: dict[str, Any], config: dict[str, Any], path: Path) -> None:
    """Refuse to go on with a run, of which `path` tells, on other data or by other settings."""
    _require_same_data(before, config, path)
    now = json.loads(json.dumps(config))
    names = sorted({*now, *before} - moving(NOTHING, ROUNDING) - {DIGESTS})
    before = _DEFAULTS | before  # an older tinprep had fewer settings
    names = [n for n in names if now.get(n) != before.get(n) and not _is_more(n, now, before)]
    if names:
        raise UsageError(
            "The run to resume had other settings.",
            where=path,
            expected=", ".join(f"{name} {before.get(name)}" for name in names),
            got=", ".join(f"{name} {now.get(name)}" for name in names),
            do=f"resume with the settings it began with, or {_ANEW}",
        )


def _require_same_data(before: dict[str, Any], config: dict[str, Any], path: Path) -> None:
    """Refuse data of other digests than what `path` tells of."""
    known, now = before.get(DIGESTS) or {}, config[DIGESTS]
    if wrong := differing(now, known):
        raise ContractError(
            "The run is of another data set.",
            where=path,
            expected=in_short(known, wrong),
            got=in_short(now, wrong),
            do=f"resume with the data set it began with, or {_ANEW}",
        )


def _is_more(name: str, now: dict[str, Any], before: dict[str, Any]) -> bool:
    """Whether a setting only has the training go on for longer."""
    asked, had = now.get(name), before.get(name)
    return name in _MORE and type(asked) is int and type(had) is int and asked > had


def load(run: Path | str, device: torch.device | str = "cpu") -> InterestModel:
    """Rebuild the model of a run with the weights it kept, in evaluation mode.

    Raises:
        InputError: there is no checkpoint, or it cannot be read.
    """
    path = Path(run) / BEST
    content = read_checkpoint(path, torch.device(device), ("built", "weights"))
    try:
        said = content["built"]
        built = checked.build(Built, said | {"inputs": as_now(said["inputs"])})
        if not built.inputs.digests:
            raise ValueError("one of an older tinprep, which does not say of which data set it is")
        built.require_borne_out(content["weights"])
        # Without memory at first: what the file says of sizes must be what its weights have.
        with torch.device("meta"):
            kinds = {n: (p.shape, p.dtype) for n, p in built.build().state_dict().items()}
        if kinds != {name: (w.shape, w.dtype) for name, w in content["weights"].items()}:
            raise ValueError("weights of other shapes or types than the model's")
        model = built.build()
        model.load_state_dict(content["weights"])
    except (*UNREADABLE, UsageError) as error:
        raise unreadable(path, error) from error
    return model.to(device).eval()


def read_json(path: Path, kind: type[T], *, do: str) -> T:
    """Read a run's `config.json` or `metrics.json`.

    Raises:
        InputError: it cannot be read, or is of another kind.
    """
    try:
        return checked.build(kind, checked.decode(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise InputError(
            f"A run's {path.name} cannot be read.",
            where=path,
            expected="the file that tinprep wrote",
            got=str(error)[:200],
            do=do,
        ) from None


def _write_json(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    atomically(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))
