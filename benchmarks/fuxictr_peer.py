"""FuxiCTR's side of `fuxictr.py`: trains DIN, DIEN or BST by its own loader and `fit`.

Run by a Python that has the package fuxictr, with `-P`: else `fuxictr.py` beside this file would be
imported in its place. DIN and DIEN are those of the model zoo in the package's wheel (LongCTR), and
so is the loader. BST is not in the wheel: here its transformer stands in the place of DIN's
attention, with all else FuxiCTR's.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from fuxictr.features import FeatureMap
from model_zoo.LongCTR.DIEN import DIEN
from model_zoo.LongCTR.DIN import DIN
from model_zoo.LongCTR.longctr_dataloader import LongCTRDataLoader
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parent))
from feed import Feed, Plan


class Transformer(nn.Module):
    """BST's block over the history and the target, in the size of our recipe `bst`.

    Eight heads, a hidden layer of 4D with LeakyReLU, learned positions that are added; the target's
    state is the user's interest. The attention weights are not asked for, which is faster.
    """

    def __init__(self, width: int, max_len: int) -> None:
        super().__init__()
        self.position = nn.Embedding(max_len + 1, width)
        self.attention = nn.MultiheadAttention(width, 8, batch_first=True)
        self.alone = nn.Sequential(
            nn.Linear(width, 4 * width), nn.LeakyReLU(), nn.Linear(4 * width, width)
        )
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, target: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        """Return the interest, rows x width; `mask` is 0 in the padding."""
        x = torch.cat([target.unsqueeze(1), history], dim=1)
        x = x + self.position.weight[: x.shape[1]]
        hidden = nn.functional.pad(mask == 0, (1, 0), value=False)
        mixed, _ = self.attention(x, x, x, key_padding_mask=hidden, need_weights=False)
        x = self.first(x + mixed)
        return self.second(x + self.alone(x))[:, 0]


class BST(DIN):  # type: ignore[misc]
    """FuxiCTR's DIN with a transformer for its attention."""

    def __init__(self, feature_map: FeatureMap, **settings: Any) -> None:
        super().__init__(feature_map, **settings)
        self.attention_layers = Transformer(self.item_info_dim, settings["max_len"])
        # Again, for the new parameters.
        self.compile(settings["optimizer"], settings["loss"], settings["learning_rate"])
        self.reset_parameters()


MODELS = {"DIN": DIN, "DIEN": DIEN, "BST": BST}


def main() -> None:
    """Measure and print; see the module's text."""
    parser = argparse.ArgumentParser(description="one FuxiCTR model's training rate")
    parser.add_argument("data", type=Path, help="what `fuxictr.py` has converted")
    parser.add_argument("model", choices=["loader", *MODELS, "version"])
    for name in ("--batch-size", "--threads", "--warm", "--steps", "--repeats", "--max-len"):
        parser.add_argument(name, type=int)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--hidden", default="80,40")
    flags = parser.parse_args()
    if flags.model == "version":
        print(f"FuxiCTR {version('fuxictr')}, PyTorch {torch.__version__}")
        return
    torch.set_num_threads(flags.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    feature_map = FeatureMap("tinprep", str(flags.data))
    feature_map.load(str(flags.data / "feature_map.json"), {"embedding_dim": flags.dim})
    loader = LongCTRDataLoader(
        feature_map,
        str(flags.data / "train.parquet"),
        str(flags.data / "users.parquet"),
        str(flags.data / "items.parquet"),
        batch_size=flags.batch_size,
        shuffle=True,
        num_workers=flags.workers,
        max_len=flags.max_len,
        padding="post",  # DIEN packs from the left
    )
    plan = Plan(flags.warm, flags.steps, flags.repeats)
    feed: Feed[Any] = Feed(lambda: loader, lambda batch: len(batch[0]["label"]), plan)
    if flags.model == "loader":
        for _ in feed:
            pass
        print(feed.told())
        return
    with tempfile.TemporaryDirectory() as folder:
        model = MODELS[flags.model](
            feature_map,
            max_len=flags.max_len,
            embedding_dim=flags.dim,
            dnn_hidden_units=[int(width) for width in flags.hidden.split(",")],
            dnn_activations="Sigmoid",
            attention_hidden_units=[80, 40],
            attention_hidden_activations="Sigmoid",
            din_use_softmax=True,
            batch_norm=False,
            optimizer="adam",
            loss="binary_crossentropy",
            learning_rate=1e-3,
            metrics=["logloss", "AUC"],
            eval_steps=sys.maxsize,  # none: the steps alone are measured
            model_root=folder,
            verbose=0,
        )
        # `fit` ends by reading the best weights, which it saves when it evaluates.
        Path(model.model_dir).mkdir(parents=True, exist_ok=True)
        model.save_weights(model.checkpoint)
        model.fit(feed)
    print(feed.told())


if __name__ == "__main__":
    main()
