"""What one training is asked to do: by arguments, or by a file, TOML or JSON."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from annotated_types import Ge, Le, Lt

from schemas.checked import Count, Misfit, build, decode
from schemas.errors import InputError, UsageError
from schemas.machine import usable_cores
from schemas.options import WEIGHT, WIDTHS, check, kinds, option, refuse
from trainer.data.facts import Hyperparameters, TableNumbers, Width, Widths

_Whole = Annotated[int, Ge(1), Lt(1 << 31)]
_Float = Annotated[float, Ge(1e-38), Le(3.4e38)]  # of 32 bits
# Two ways to say one thing: of each pair, one at most.
EITHER = (("epochs", "steps"), ("evaluations", "evaluate_every"))
# A.1's learning rate of each.
OPTIMIZERS = {"adam": 1e-3, "adagrad": 1e-2}
# History cells computed at a time on a GPU: some GB of activations at A.1's widths.
GPU_CELLS = 1 << 18
_READERS: dict[str, Callable[[str], Any]] = {".toml": tomllib.loads, ".json": decode}
# What a run's config.json holds beside settings: how many processes trained, and on what.
RANKS, DIGESTS = "ranks", "digests"


def cells_of(chosen: Hyperparameters, device: str, histories: int = 1) -> int:
    """The most history cells to compute at a time: small steps and caches like small groups.

    Measured on 2 cores: 16 per row of a step, at least 512, at most 4,096. With Alibaba's wide
    features a group costs more whatever its size, so there 16,384 are faster; on Amazon's they are
    slower by a fifth. On a GPU each group costs the time to start its kernels. Several histories
    are computed one by one, so each may have as many.

    Args:
        device: `cpu` or `cuda`.
        histories: how many are read.
    """
    if device == "cuda":
        return GPU_CELLS
    most = 16_384 if chosen.optimizer == "adagrad" else 4_096
    of_one = min(max(16 * chosen.batch_size, 512), max(4_096, min(4 * chosen.batch_size, most)))
    return histories * of_one


def threads_of(chosen: Hyperparameters) -> int:
    """CPU threads: a second one gains a small step little, and costs it much beside others."""
    return 1 if chosen.batch_size < 256 else usable_cores()


# What a setting moves of a training's numbers, where it is not the training itself: nothing, their
# last digits, or the order of rows that are streamed, as another seed does.
NOTHING, ROUNDING, ORDER = "nothing", "rounding", "order"


@dataclass(frozen=True)
class TrainConfig:
    """One training.

    None for `optimizer`, `batch_size`, `epochs` or `hidden` takes the data set's own. Each field
    is a flag of `tinprep train` and a key of its `--config` file; see `read_settings`. With
    `resume` the data set and the settings must be those of the run, but for what changes no
    number, or its last digits at most; there may be more `epochs`, `steps` or `patience`.
    """

    data: Annotated[Path, NOTHING] = option(
        MISSING, "Folder of a data set; may be in --config instead.", flag="DATA"
    )
    run: Annotated[Path, NOTHING] = option(
        MISSING, "Folder of the run. Default: runs/<data>-<model>-<seed>."
    )
    history: str | None = option(
        None,
        "Of a data set with several histories the one to read, by its name. Default: all, by the "
        "models that can; see `tinprep models`.",
    )
    model: str = option("tin", "A recipe of `tinprep models`; tin is the paper's equation 2.")
    encoding: str | None = option(
        None,
        "What is learned of time: tte-p (positions), tte-t (interval bins), tte-pt (both) or "
        "another that `tinprep models` names. Default: the recipe's.",
    )
    optimizer: Literal["adam", "adagrad"] | None = option(
        None, "adam or adagrad. Default: the data set's, of the paper's A.1 for its data."
    )
    lr: _Float | None = option(None, "Learning rate. Default: the optimizer's in A.1.")
    batch_size: _Whole | None = option(
        None,
        "Rows a step, over all processes. Default: the data set's; 32 for reviews, 4096 for ads, "
        "32 for own logs unless their description says otherwise. More is faster, and may cost "
        "accuracy.",
    )
    epochs: _Whole | None = option(
        None,
        "At most; stops early on valid GAUC. Default: the data set's; 4 for reviews, 1 for ads, 4 "
        "for own logs.",
    )
    steps: _Whole | None = option(
        None, "In place of --epochs: stop after so many steps, whatever epochs."
    )
    hidden: Widths | None = option(
        None,
        "Widths of the head. Default: the data set's; 80,40 for reviews, 200,80 for ads.",
        written=WIDTHS,
    )
    dim: Width = option(64, "Width of a field's embedding; the paper's A.1.")
    attention_dim: Width | None = option(
        None, "The same in din_apart's tables for the attention. Default: --dim."
    )
    embeddings: str | None = option(
        None,
        "Table sets of an expert model: shared, one for all experts; apart, one each; or a number, "
        "dealt to them in turn. Default: tin, gwpfm and flat_dnn share one, as in the paper's 4.6.",
    )
    mix: Literal["average", "gate"] | None = option(
        None,
        "How experts' vectors meet: their average, or by a learned gate, which is ours. Default: "
        "average.",
    )
    loss_weight: _Float | Literal["balanced"] = option(
        1.0,
        "Weight of a positive row in the cross-entropy: 1 is the plain loss; a number; or "
        "balanced, negatives by positives of train. Scores are probabilities with 1 only; order, "
        "so AUC and GAUC, need not suffer.",
        written=WEIGHT,
    )
    unknown_rate: Annotated[float, Ge(0), Lt(1)] = option(
        0.0,
        "Share of ids that training takes for unknown, by chance, so that new values get a vector "
        "that was trained, e.g. 0.05.",
    )
    l2: Annotated[float, Ge(0), Le(1e9)] = option(
        0.0,
        "A penalty on the embeddings that a step reads, e.g. 0.001 where training learns its ids "
        "by heart: valid gets worse after an epoch or two. 0 is none, as in A.1.",
    )
    clip: _Float | None = option(None, "The gradient's largest Euclidean norm. Default: any.")
    seed: Count = option(0, "Of the initial weights and the rows' order.")
    evaluations: _Whole | None = option(None, "On valid, an epoch. Default: 4.")
    evaluate_every: _Whole | None = option(
        None, "In place of --evaluations: steps between them. The last step is evaluated, too."
    )
    patience: _Whole = option(
        4, "Evaluations without a better valid GAUC after which training stops."
    )
    device: Annotated[str, ROUNDING] = option(
        "auto", "cpu, cuda, or auto for CUDA where there is one.", last=True
    )
    threads: Annotated[int, Ge(1), Le(1024), ROUNDING] | None = option(
        None, "CPU threads. Default: 1 for small batches, else all.", last=True
    )
    amp: bool = option(
        False,
        "Compute in bfloat16 where that is safe: weights, gradients and measuring stay in float32. "
        "Slower on CPUs, as measured.",
        last=True,
    )
    compile: bool = option(False, "torch.compile: a wait first; needs a C++ compiler.", last=True)
    tables: TableNumbers = option(
        "float32",
        "What the vocabularies' embedding tables are held in: float32, or bfloat16, rounded by "
        "chance at each step: half the memory or less, with what the optimizer keeps, and slower.",
        last=True,
    )
    cells: Annotated[_Whole, ROUNDING] | None = option(
        None,
        "The most history cells computed at a time: time and memory, not the gradient. Default: "
        "by batch and device.",
        last=True,
    )
    memory_mb: Annotated[int, Ge(1), Le(1 << 30), ORDER] = option(
        2048, "A split that needs more is streamed from its shards.", last=True
    )
    tensorboard: Annotated[bool, NOTHING] = option(
        False, "The log for TensorBoard too, in the run.", last=True
    )
    checkpoint_seconds: Annotated[float, Ge(0), Le(1e9), NOTHING] = option(
        300.0, "Between checkpoints to resume from; also at evaluations.", last=True
    )
    resume: Annotated[bool, NOTHING] = option(
        False,
        "Go on with the run in --run, by its own settings, to the same numbers. With more "
        "--epochs, --steps or --patience also with a finished one; else its result is shown.",
        last=True,
    )
    force: Annotated[bool, NOTHING] = option(
        False, "Replace an earlier run in --run; it is removed first.", last=True
    )

    def __post_init__(self) -> None:
        for name in ("data", "run"):  # text is fine, as everywhere
            if isinstance(path := getattr(self, name), str):
                object.__setattr__(self, name, Path(path))
        check(self)
        if self.resume and self.force:
            refuse("resume", "not together with --force", self.resume)
        for one, other in EITHER:
            if getattr(self, one) is not None and getattr(self, other) is not None:
                refuse(other, f"not together with --{one}", getattr(self, other))

    def hyperparameters(self, usual: Hyperparameters) -> Hyperparameters:
        """The settings that were given; for those that were not, a data set's usual ones."""
        given: dict[str, Any] = {
            f.name: getattr(self, f.name)
            for f in fields(Hyperparameters)
            if getattr(self, f.name) is not None
        }
        chosen = replace(usual, **given)
        if self.lr is None:
            # Another optimizer than the usual one brings its own rate.
            chosen = replace(chosen, lr=OPTIMIZERS[chosen.optimizer])
        return chosen


def moving(*whats: str) -> frozenset[str]:
    """The settings that move just this, e.g. `moving(NOTHING, ROUNDING)`."""

    def said(kind: Any) -> set[Any]:
        """What an `Annotated` type has, on itself or on one of its kinds."""
        return {*getattr(kind, "__metadata__", ())}.union(*map(said, get_args(kind)))

    return frozenset(name for name, kind in kinds(TrainConfig).items() if {*whats} & said(kind))


def read_settings(path: Path, world: int = 1) -> dict[str, Any]:
    """Read settings of `TrainConfig`: the flags of `tinprep train` without their dashes.

    `batch_size` and `batch-size` are both understood. A run's `config.json` is such a file. Where
    its `ranks` says how many processes trained, it must be as many now.

    Returns:
        The settings that the file has, without those that are null, ready for `TrainConfig`.

    Raises:
        InputError: the file is missing or is not TOML or JSON.
        UsageError: an unknown key, a value of the wrong type, or another kind of file.
    """
    if path.suffix not in _READERS:
        raise UsageError(
            "Settings are read from TOML or JSON.",
            where=path,
            expected="a file called *.toml or *.json",
            got=path.suffix or "no suffix",
        )
    try:
        content = _READERS[path.suffix](path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # of TOML and JSON too
        raise InputError(
            "The settings cannot be read.",
            where=path,
            expected=f"a {path.suffix[1:].upper()} file",
            got=str(error),
        ) from None

    def wrong(key: str, expected: str, got: Any) -> UsageError:
        what = "A setting in the file has a value of the wrong type."
        return UsageError(what, where=f"{path}: {key}", expected=expected, got=repr(got))

    if not isinstance(content, dict):
        raise wrong("the file", "names and values", content)
    found: dict[str, Any] = {}
    for key, value in content.items():
        name = key.replace("-", "_")
        if name in found:
            raise wrong(key, "each setting once", "it twice")
        if name == RANKS and value != world:
            raise UsageError(
                "These settings are of another number of processes.",
                where=f"{path}: {RANKS}",
                expected=f"{RANKS} {world}, as many as train now",
                got=json.dumps(value),
                do=f"start as many with `torchrun --nproc-per-node`, or take {RANKS} out of it",
            )
        if name in (RANKS, DIGESTS):
            continue
        if name not in kinds(TrainConfig):
            known = ", ".join(sorted(kinds(TrainConfig)))
            what = f"There is no setting {name}."
            raise UsageError(what, where=path, expected=f"one of {known}", got=name)
        try:  # a run's config.json has what was not given, too, as null
            found[name] = None if value is None else build(kinds(TrainConfig)[name], value)
        except Misfit as error:
            raise wrong(name, error.expected, value) from None
    return {name: value for name, value in found.items() if value is not None}


def merged(file: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The file's settings with those given on the command line in place of its own.

    Where two flags say one thing in two ways, giving one drops the file's other: `--steps` a file's
    `epochs`, `--evaluate-every` its `evaluations`, and the other way round.
    """
    pairs = [*EITHER, *(pair[::-1] for pair in EITHER)]
    dropped = {other for one, other in pairs if one in given}
    return {name: v for name, v in file.items() if name not in dropped} | given
