"""Width: 200 features and 10 histories, training beside FuxiCTR's layers, and serving.

    python -m venv PEER
    PEER/bin/pip install torch==2.13.0 fuxictr==2.3.10 onnxruntime onnxscript
    PYTHONPATH=. PEER/bin/python -P benchmarks/fuxictr_width.py           rows/s of training
    PYTHONPATH=. PEER/bin/python -P benchmarks/fuxictr_width.py --serving      ms a request

Both sides are given the same made-up batches in memory, by turns, in one process: warm-up, then
stretches of steps, of which the best counts. FuxiCTR's model is PNN, made of its wheel's layers
(`FeatureEmbedding`, `MaskedAveragePooling`, `InnerProductInteraction`, `MLP_Block`). Ours with the
same products of the same fields is `ipnn`; `tin_mix` does much more. Histories share the target's
tables on both sides. Adam on both; FuxiCTR clips gradients, ours does not. Ours computes as many
rows at a time as `tinprep train` does.

Serving is a request, one user's histories with some candidates, on one thread: ours by ONNX
Runtime, FuxiCTR, which exports no graph, by PyTorch, each candidate with the histories.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainer.data.facts import Hyperparameters
from trainer.data.inputs import HistoryInputs, Inputs
from trainer.models.interest import build
from trainer.training.config import cells_of
from trainer.training.loss import gradients
from trainer.training.optimizer import DenseAdam

ITEMS, CATEGORIES, VALUES = 10_000, 100, 1_000
HIDDEN = (80, 40)


def inputs_of(features: int, histories: int, length: int) -> Inputs:
    """What the models read."""
    one = HistoryInputs(("item", "category"), max_len=length, bins=10)
    return Inputs(
        fields={"item": ITEMS, "category": CATEGORIES},
        others={f"f{n}": VALUES for n in range(features)},
        numbers=(),
        histories={f"h{n}": one for n in range(histories)},
    )


def batch_of(inputs: Inputs, rows: int, length: int, seed: int, shared: bool = False) -> Any:
    """A batch of B rows with full histories; of a request they have one row."""
    g, of_history = torch.Generator().manual_seed(seed), 1 if shared else rows

    def ids(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(2, high, shape, generator=g, dtype=torch.int32)

    batch = {"label": torch.randint(0, 2, (rows,), generator=g).float()}
    batch |= {f"target_{name}": ids(size, rows) for name, size in inputs.fields.items()}
    batch |= {name: ids(size, rows) for name, size in inputs.others.items()}
    for called in inputs.histories:
        batch[f"{called}_length"] = torch.full((of_history,), length, dtype=torch.int32)
        for name, size in inputs.fields.items():
            batch[f"{called}_{name}"] = ids(size, of_history, length)
        batch[f"{called}_position"] = torch.arange(length, 0, -1).int().repeat(of_history, 1)
        batch[f"{called}_interval_bin"] = ids(11, of_history, length)
    return batch


def ours(model: str, inputs: Inputs, dim: int) -> Callable[[Any], object]:
    """A training step of a recipe."""
    built = build(model, None, inputs, dim=dim, hidden=HIDDEN)
    optimizer = DenseAdam(built.parameters(), lr=1e-3)
    length, histories = next(iter(inputs.histories.values())).max_len, len(inputs.histories)

    def step(batch: Any) -> None:
        rows = len(batch["label"])
        chosen = Hyperparameters("adam", 1e-3, rows, 1, HIDDEN)
        some = max(1, cells_of(chosen, "cpu", histories) // (histories * length))
        for begin in range(0, rows, some):
            group = {name: column[begin : begin + some] for name, column in batch.items()}
            gradients(built, group, rows)
            optimizer.collect()
        optimizer.step()

    return step


def theirs(inputs: Inputs, dim: int, length: int, folder: Path) -> Any:
    """A model of FuxiCTR's layers."""
    from fuxictr.features import FeatureMap
    from fuxictr.pytorch.layers import FeatureEmbedding, InnerProductInteraction, MLP_Block
    from fuxictr.pytorch.models import BaseModel

    known = FeatureMap("width", str(folder))
    known.labels, known.default_emb_dim = ["label"], dim
    one = {"type": "categorical", "source": "", "padding_idx": 0}
    for name, size in inputs.fields.items():
        known.features[f"target_{name}"] = one | {"vocab_size": size}
    for name, size in inputs.others.items():
        known.features[name] = one | {"vocab_size": size}
    for called in inputs.histories:
        for name, size in inputs.fields.items():
            known.features[f"{called}_{name}"] = {
                "type": "sequence", "source": "", "padding_idx": 0, "vocab_size": size,
                "max_len": length, "share_embedding": f"target_{name}",
                "feature_encoder": "layers.MaskedAveragePooling()",
            }  # fmt: skip
    known.num_fields = known.get_num_fields()
    known.set_column_index()

    class PNN(BaseModel):  # type: ignore[misc]
        """Inner products of the fields beside their embeddings, into an MLP."""

        def __init__(self) -> None:
            super().__init__(known, model_id="PNN", gpu=-1, metrics=["AUC"], verbose=0,
                             model_root=str(folder))  # fmt: skip
            self.embedding = FeatureEmbedding(known, dim)
            self.products = InnerProductInteraction(known.num_fields, output="inner_product")
            width = known.num_fields * dim + self.products.interaction_units
            self.mlp = MLP_Block(input_dim=width, output_dim=1, hidden_units=list(HIDDEN),
                                 output_activation="Sigmoid")  # fmt: skip
            self.compile("adam", "binary_crossentropy", 1e-3)
            self.reset_parameters()

        def forward(self, batch: Any) -> Any:
            e = self.embedding({n: batch[n] for n in known.features})
            return {"y_pred": self.mlp(torch.cat([e.flatten(1), self.products(e)], dim=1))}

        def get_labels(self, batch: Any) -> Any:
            return batch["label"].unsqueeze(1)

    model = PNN().train()
    model._max_gradient_norm = 10.0  # as `fit` has it
    return model


def rates(steps: dict[str, Callable[[Any], object]], batches: list[Any], repeats: int) -> None:
    """Print the best rows/s of each, measured by turns."""
    best = dict.fromkeys(steps, 0.0)
    for turn in range(repeats + 1):
        for name, step in steps.items():
            began = time.perf_counter()
            for batch in batches:
                step(batch)
            rate = sum(len(b["label"]) for b in batches) / (time.perf_counter() - began)
            best[name] = max(best[name], rate) if turn else 0.0  # the first turn warms up
    for name, rate in best.items():
        print(f"{name}: {rate:,.0f} rows/s")


def serving(inputs: Inputs, dim: int, length: int, candidates: int, repeats: int) -> None:
    """Print the median ms of a request; see the module's text."""
    import onnxruntime

    from trainer.export import graph

    torch.set_num_threads(1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    batch = batch_of(inputs, candidates, length, seed=0, shared=True)
    calls: dict[str, Callable[[], object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        peer = theirs(inputs, dim, length, Path(folder)).eval()
        for name in ("ipnn", "tin_mix"):
            model = build(name, None, inputs, dim=dim, hidden=HIDDEN).eval()
            asked = graph.inputs_of(model, request=True)
            path = Path(folder) / f"{name}.onnx"
            graph.write(model, path, asked)
            session = onnxruntime.InferenceSession(path, options)
            columns = {one.name: batch[one.name].numpy().astype(one.type) for one in asked}
            calls[name] = lambda session=session, columns=columns: session.run(None, columns)
    each = {name: column.expand(candidates, *column.shape[1:]) for name, column in batch.items()}
    calls["FuxiCTR's PNN"] = torch.inference_mode()(lambda: peer(each))
    took: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            took[name].append(1e3 * (time.perf_counter() - began))
    for name, ms in took.items():
        print(f"{name}: {np.median(ms):.2f} ms, {min(ms):.2f} at best, {candidates} candidates")


def main() -> None:
    """Measure and print; see the module's text."""
    parser = argparse.ArgumentParser(description="width beside FuxiCTR")
    for name, default in (
        *(("--features", 200), ("--histories", 10), ("--length", 20), ("--dim", 16)),
        *(("--batch-size", 1024), ("--steps", 8), ("--repeats", 3), ("--threads", 2)),
        ("--candidates", 100),
    ):
        parser.add_argument(name, type=int, default=default)
    parser.add_argument("--serving", action="store_true")
    flags = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(flags.threads)
    torch.set_flush_denormal(True)
    inputs = inputs_of(flags.features, flags.histories, flags.length)
    if flags.serving:
        serving(inputs, flags.dim, flags.length, flags.candidates, 50)
        return
    batches = [batch_of(inputs, flags.batch_size, flags.length, n) for n in range(flags.steps)]
    with tempfile.TemporaryDirectory() as folder:
        steps = {
            "FuxiCTR's PNN": theirs(inputs, flags.dim, flags.length, Path(folder)).train_step,
            "ipnn": ours("ipnn", inputs, flags.dim),
            "dcn_v2": ours("dcn_v2", inputs, flags.dim),
            "tin_mix": ours("tin_mix", inputs, flags.dim),
        }
        rates(steps, batches, flags.repeats)


if __name__ == "__main__":
    main()
