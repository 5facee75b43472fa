"""The user-interest models as a table of recipes over the parts: the paper's Table 5 as code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor, nn

from schemas.errors import UsageError
from trainer.attention import (
    ActivationUnit,
    AtTarget,
    Bilinear,
    Last,
    Plain,
    Product,
    SameCategory,
    ScaledDotProduct,
    TargetAttention,
    Uniform,
    WeightedSum,
)
from trainer.recurrent import AUGRU, BiLSTM, GRUStates, NextBehaviour
from trainer.transformer import CausalTransformer, FullTransformer, TargetTransformer

Part = Callable[[int], nn.Module]
"""Builds a part for the width of an embedded behaviour."""


class NoContext(nn.Module):
    """Each behaviour by itself."""

    def __init__(self, width: int = 0) -> None:
        super().__init__()

    def forward(self, x: Tensor, t: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the behaviours and their mask as they are."""
        return x, mask


@dataclass(frozen=True)
class Recipe:
    """A model as a choice of parts.

    Attributes:
        source: where the choice comes from, and how it departs from the original.
        encodings: the temporal encodings it can take; the first is the default.
        encode_target: whether the target is given its time as well.
        search: builds what narrows the history down.
        sessions: whether sessions, not behaviours, are what is attended to.
        contexts: each builds what lets behaviours know of one another. Several make several
            interests, side by side, each with its own attention.
        attention: builds what gives the weights of the behaviours.
        representation: builds what makes r of x and t; it follows the pool, which is linear then.
        pool: builds what makes one vector of the weighted behaviours.
        product: whether the head also sees u * t.
        auxiliary: builds a loss on the context's states, added to the cross-entropy.
        apart: whether the attention has embedding tables of its own, apart from those of the
            representation and the head (A.2, Eq. 6).
        released: TIN's released code's norms, dense layer and item bias around the same parts.
        activation: of the head's hidden layers. The paper names none; sigmoid, as in DIN's released
            code, reached the best GAUC and logloss on the valid split of Amazon Beauty.
    """

    source: str
    encodings: tuple[str, ...] = ("none",)
    encode_target: bool = True
    search: Callable[[], SameCategory] | None = None
    sessions: bool = False
    contexts: tuple[Part, ...] = (NoContext,)
    attention: Part = ScaledDotProduct
    representation: Callable[[], nn.Module] = Plain
    pool: Part = WeightedSum
    product: bool = False
    auxiliary: Callable[[], nn.Module] | None = None
    apart: bool = False
    released: bool = False
    activation: str = "sigmoid"

    @property
    def code(self) -> tuple[bool, bool, bool]:
        """The paper's three bits (3.3): temporal information, target attention, representation."""
        recurrent = bool({GRUStates, BiLSTM} & set(self.contexts))
        aware = isinstance(self.attention, type) and issubclass(
            self.attention, TargetAttention | AtTarget
        )
        return (
            self.encodings[0] != "none" or recurrent,
            aware,
            self.product or self.representation is Product,
        )


_ANY = ("tte-p", "tte-t", "tte-pt", "coe", "timestamp")
_BY_INTERVAL = ("tte-t", "tte-p", "tte-pt", "coe", "timestamp")
_BY_ORDER = ("coe", "tte-p", "tte-t", "tte-pt", "timestamp")

_avg = Recipe("TIN, Table 1: average pooling", attention=Uniform)
_din = Recipe(
    "DIN, KDD 2018, without its product; released code's attention, no batch norms",
    attention=ActivationUnit,
)
_sas = Recipe(
    "SASRec, ICDM 2018, as a click model: the mean of the states (Table 5) for the last, u * t to "
    "an MLP for the inner product, no dropout",
    _BY_ORDER,
    encode_target=False,
    contexts=(CausalTransformer,),
    attention=Uniform,
    product=True,
)
_tin = Recipe("TIN, Eq. 2", _ANY, representation=Product)

RECIPES: dict[str, Recipe] = {
    "avg_concat": _avg,
    "avg_product": replace(_avg, product=True),
    "din_prime": _din,
    "din": replace(_din, source="DIN, released code, no batch norms", product=True),
    "din_dot": Recipe("TIN, Table 5 and A.2: DIN by scaled dot product", product=True),
    "din_apart": Recipe("TIN, A.2, Eq. 6: tables of the attention's own", product=True, apart=True),
    "gru4rec": Recipe(
        "GRU4Rec, ICLR 2016, as a click model: u * t to an MLP for the inner product",
        contexts=(GRUStates,),
        attention=Last,
        product=True,
    ),
    "sasrec": _sas,
    "bert4rec": replace(
        _sas,
        source="BERT4Rec, CIKM 2019, as a click model: the mean of the states for the masked "
        "token's, u * t to an MLP for the inner product, no dropout",
        contexts=(FullTransformer,),
    ),
    "dien": Recipe(
        "DIEN, AAAI 2019, the auxiliary loss with other rows' behaviours as negatives",
        contexts=(GRUStates,),
        attention=Bilinear,
        pool=AUGRU,
        auxiliary=NextBehaviour,
    ),
    "dsin": Recipe(
        "DSIN, IJCAI 2019, one layer of LSTM, sessions counted from the latest, no dropout",
        sessions=True,
        contexts=(NoContext, BiLSTM),
        attention=Bilinear,
    ),
    "bst": Recipe(
        "BST, DLP-KDD 2019, the target's state for those of all places, no dropout",
        _BY_ORDER,
        contexts=(TargetTransformer,),
        attention=AtTarget,
    ),
    "sim": Recipe(
        "SIM, CIKM 2020, hard search over the history as stored; one head",
        _BY_INTERVAL,
        search=SameCategory,
    ),
    "tin": _tin,
    "tin_released": replace(_tin, source="TIN, released code", released=True, product=True),
    "tin_wo_tte": replace(_tin, source="TIN, 4.2.1", encodings=("none",)),
    "tin_wo_ta": replace(_tin, source="TIN, 4.2.2", attention=Uniform),
    "tin_wo_tr": replace(_tin, source="TIN, 4.2.3", representation=Plain),
}


def choose(
    model: str, encoding: str | None, attention_dim: int | None = None
) -> tuple[Recipe, str]:
    """Look up a recipe and settle its temporal encoding.

    Args:
        model: a key of `RECIPES`.
        encoding: one of the recipe's; None for its default.
        attention_dim: as in `trainer.models.build`.

    Raises:
        UsageError: no such recipe, or the recipe cannot take the encoding or the width.
    """
    if model not in RECIPES:
        raise UsageError(
            "There is no such model.",
            where="--model",
            expected=f"one of {', '.join(RECIPES)}",
            got=model,
        )
    recipe = RECIPES[model]
    encoding = encoding or recipe.encodings[0]
    if encoding not in recipe.encodings:
        raise UsageError(
            f"The model {model} cannot take this temporal encoding.",
            where="--encoding",
            expected=f"one of {', '.join(recipe.encodings)}",
            got=encoding,
        )
    if attention_dim is not None and not recipe.apart:
        raise UsageError(
            f"The attention of {model} has no embedding tables of its own.",
            where="--attention-dim",
            expected=f"one of {', '.join(name for name in RECIPES if RECIPES[name].apart)}",
            got=model,
        )
    return recipe, encoding
