"""The folder of a run: the config that names its data, and checkpoints."""

from __future__ import annotations

import io
import json
import pickle
from contextlib import suppress
from dataclasses import asdict

import torch

from fuzz.target import Target, folder, written
from schemas.errors import TinprepError
from trainer.data.inputs import HistoryInputs, Inputs
from trainer.models.interest import build
from trainer.training.evaluation import data_of
from trainer.training.runs import load, resuming

_SETTINGS = {
    "data": "data/amazon",
    "model": "tin",
    "hidden": [80, 40],
    "seed": 0,
    "clip": None,
    "tensorboard": False,
    "digests": {"bin edges": "0"},
}


def read_config(data: bytes) -> int:
    """Find a run's data set, and go on with the run."""
    run = written("run/config.json", data).parent
    with suppress(TinprepError):
        data_of(run)
    resuming(run, _SETTINGS)
    return 1


def read_checkpoint(data: bytes) -> int:
    """Rebuild a model: its weights are those of the file."""
    run = written("run/best.pt", data).parent
    model = load(run)
    assert sum(p.numel() for p in model.parameters()) * 4 <= 4 * len(data)
    return 1


def _checkpoint() -> bytes:
    one = HistoryInputs(("item",), 2, 2)
    inputs = Inputs({"item": 4}, {}, (), {"history": one}, digests={"bin edges": "0"})
    built = {
        "model": "tin",
        "encoding": "tte-p",
        "inputs": asdict(inputs),
        "dim": 1,
        "hidden": [1],
    }
    torch.manual_seed(0)
    model = build("tin", "tte-p", inputs, dim=1, hidden=(1,))
    file = io.BytesIO()
    torch.save({"built": built, "weights": model.state_dict()}, file)
    return file.getvalue()


class _Harm:
    """What a pickle may do where nobody forbids it: here, make a file."""

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (open, (str(folder() / "harm"), "w"))


def harmful_checkpoint() -> bytes:
    """A checkpoint that makes a file when it is loaded without care."""
    file = io.BytesIO()
    torch.save({"built": {}, "weights": _Harm()}, file)
    return file.getvalue()


TARGETS = (
    Target(
        "run_config",
        seeds=(json.dumps(_SETTINGS).encode(), json.dumps(_SETTINGS, indent=1).encode()),
        words=(
            *(b'"data": ', b"null", b"[[[[", b"\\u0000", b"\\ud800", b"NaN", b"true", b"-1"),
            *(b'{"a":', b"9" * 30, b'"hidden"', b"1e999", b"\xff", b"{}", b"[]", b'""'),
        ),
        read=read_config,
    ),
    Target(
        "checkpoint",
        seeds=(_checkpoint(),),
        words=(
            *(
                b"PK\x03\x04",
                b"PK\x01\x02",
                b"cos\nsystem\n",
                b"cbuiltins\nexec\n",
                b"\x80\x02",
                b".",
            ),
            *(b"R", b"(", b"t", b"}q", b"X\x05\x00\x00\x00built", b"dim", b"hidden", b"K\xff"),
            *(b"ctorch._utils\n_rebuild_tensor_v2\n", b"J\xff\xff\xff\x7f", pickle.dumps([1, "a"])),
        ),
        read=read_checkpoint,
    ),
)
