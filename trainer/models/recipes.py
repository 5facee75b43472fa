"""The user-interest models as a table of recipes over the parts: the paper's Table 5 as code."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from schemas.errors import UsageError
from schemas.plain import meant
from trainer.data.facts import require_one
from trainer.models.attention import (
    ActivationUnit,
    AtTarget,
    Bilinear,
    Last,
    Latest,
    Plain,
    Product,
    SameGroup,
    ScaledDotProduct,
    TargetAttention,
    TriangularMean,
    Uniform,
    WeightedSum,
)
from trainer.models.encodings import ENCODINGS
from trainer.models.layers import Unlearned
from trainer.models.recurrent import (
    AUGRU,
    RECURRENT,
    BiLSTM,
    GRUStates,
    NextBehaviour,
    NextByNet,
    ReleasedAUGRU,
    ReleasedBiLSTM,
    ReleasedGRU,
    ReleasedGRUs,
)
from trainer.models.sessions import MeanOfSession, SessionInterests
from trainer.models.transformer import CausalTransformer, FullTransformer, TargetTransformer

Part = Callable[[int], nn.Module]
"""Builds a part for the width of an embedded behaviour."""


class NoContext(Unlearned):
    """Each behaviour by itself."""

    def forward(self, x: Tensor, t: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the behaviours and their mask as they are."""
        return x, mask


class BesideTarget(Unlearned):
    """The target is one of the behaviours, the first; alone it is none.

    So a history that targets share is one for each of them from here on.
    """

    def forward(self, x: Tensor, t: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the target and the behaviours, B x (1 + L) x D, and their mask."""
        x, mask = x.expand(t.shape[0], -1, -1), mask.expand(t.shape[0], -1)
        return torch.cat([t.unsqueeze(1), x], dim=1), torch.cat([mask.any(1, True), mask], dim=1)


@dataclass(frozen=True)
class Recipe:
    """A model as a choice of parts.

    Attributes:
        source: where the choice comes from, and how it departs from the original.
        encodings: the temporal encodings it can take; the first is the default.
        encode_target: whether the target is given its time as well.
        plain_head: whether the head sees the target without its time.
        searches: for each of `contexts` builds what narrows the history down, of the group field;
            none: nothing does.
        sessions: builds what makes each session's behaviours one interest, of D and of the
            sessions' shape, where sessions are what is attended to.
        contexts: each builds what lets behaviours know of one another. Several make several
            interests, side by side, each with its own attention.
        attention: builds what gives the weights of the behaviours.
        representation: builds what makes r of x and t; it follows the pool, which is linear then.
        pool: builds what makes one vector of the weighted behaviours.
        product: whether the head also sees u * t.
        auxiliary: builds a loss on the context's states, added to the cross-entropy.
        apart: whether the attention has embedding tables of its own, apart from those of the
            representation and the head (A.2, Eq. 6).
        dense: whether the interest passes a norm that never trains and a dense layer before the
            head, as in the released code; several interests become one there.
        norm: whether the head's input passes such a norm and each item has a bias in the logit, as
            in the released code.
        all_histories: whether it reads all histories of a data set at once, where there are
            several; else one, which has to be named.
        experts: those of `trainer.models.experts` that read the fields, in place of the head; the
            parts above are TIN's then.
        flat: whether a flat DNN stands in the place of each, with as many parameters in all.
        activation: of the head's hidden layers. The paper names none; sigmoid, as in DIN's released
            code, reached the best GAUC and logloss on the valid split of Amazon Beauty.
    """

    source: str
    encodings: tuple[str, ...] = ("none",)
    encode_target: bool = True
    plain_head: bool = False
    searches: tuple[Callable[[str | None], SameGroup | Latest], ...] = ()
    sessions: Callable[[int, tuple[int, int]], nn.Module] | None = None
    contexts: tuple[Part, ...] = (NoContext,)
    attention: Part = ScaledDotProduct
    representation: Callable[[], nn.Module] = Plain
    pool: Part = WeightedSum
    product: bool = False
    auxiliary: Part | None = None
    apart: bool = False
    dense: bool = False
    norm: bool = False
    all_histories: bool = False
    experts: tuple[str, ...] = ()
    flat: bool = False
    activation: str = "sigmoid"

    @property
    def code(self) -> str:
        """The paper's three bits (3.3), e.g. "101".

        Temporal information, target-aware attention, target-aware representation.
        """
        recurrent = any(isinstance(c, type) and issubclass(c, RECURRENT) for c in self.contexts)
        aware = isinstance(self.attention, type) and issubclass(
            self.attention, TargetAttention | AtTarget
        )
        timed = self.encodings[0] != "none" or recurrent
        product = self.product or self.representation is Product
        product = product or (bool(_MULTIPLYING & {*self.experts}) and not self.flat)
        bits = (timed, aware, product)
        return "".join(str(int(bit)) for bit in bits)


# Experts that multiply the histories' means by the target.
_MULTIPLYING = {"gwpfm", "ipnn", "dcn_v2"}
# Settings that some models take and others do not.
OF_MODEL = ("encoding", "attention_dim", "embeddings", "mix")
_SETS = re.compile("shared|apart|[1-9][0-9]?")
_ANY = tuple(name for name in ENCODINGS if name != "none")
_BY_INTERVAL = ("tte-t", *(name for name in _ANY if name != "tte-t"))
_BY_ORDER = ("coe", *(name for name in _ANY if name != "coe"))

_avg = Recipe("TIN, Table 1: average pooling", attention=Uniform, all_histories=True)
_din = Recipe(
    "DIN, KDD 2018, without its product; released code's attention, no batch norms, no dense layer "
    "after the pool",
    attention=ActivationUnit,
    all_histories=True,
)
_sas = Recipe(
    "SASRec, ICDM 2018, as a click model: the mean of the states (Table 5) for the last, u * t to "
    "an MLP for the inner product, no dropout; places from the oldest (its padding is on the left, "
    "so they count from the latest there, as `tte-p` does)",
    _BY_ORDER,
    encode_target=False,
    contexts=(CausalTransformer,),
    attention=Uniform,
    product=True,
)
_sas_released = Recipe(
    "TIN's released code of SASRec: no transformer, but a mean in which older ones weigh more",
    _ANY,
    encode_target=False,
    attention=TriangularMean,
    product=True,
    norm=True,
)
_tin = Recipe("TIN, Eq. 2", _ANY, representation=Product, all_histories=True)
_fields = Recipe("", attention=Uniform, all_histories=True, activation="prelu")
_MEANS = "; histories as means, since what the paper pools by is not published"
_EXPERTS = ("gwpfm", "ipnn", "dcn_v2", "flat_dnn", "tin")
_mix = Recipe(
    "TIN, 4.6: five experts, table sets as there; sizes, and that experts' vectors are averaged "
    "before one head (as arXiv 2310.04400 does with its table sets), are ours" + _MEANS,
    ("tte-pt", "tte-p", "tte-t"),
    representation=Product,
    all_histories=True,
    experts=_EXPERTS,
    activation="prelu",
)


def _without(expert: str) -> Recipe:
    rest = tuple(name for name in _EXPERTS if name != expert)
    of = _fields if expert == "tin" else _mix
    return replace(of, source=f"tin_mix without {expert}", experts=rest)


RECIPES: dict[str, Recipe] = {
    "avg_concat": _avg,
    "avg_product": replace(_avg, product=True),
    "din_prime": _din,
    "din": replace(
        _din,
        source="DIN, released code, no batch norms, no dense layer after the pool",
        product=True,
    ),
    "din_released": replace(
        _din, source="TIN's released code of DIN, which trains it by SGD", dense=True, norm=True
    ),
    "din_dot": Recipe(
        "TIN, Table 5 and A.2: DIN by scaled dot product", product=True, all_histories=True
    ),
    "din_apart": Recipe(
        "TIN, A.2, Eq. 6: tables of the attention's own",
        product=True,
        apart=True,
        all_histories=True,
    ),
    "gru4rec": Recipe(
        "GRU4Rec, ICLR 2016, as a click model: u * t to an MLP for the inner product",
        contexts=(GRUStates,),
        attention=Last,
        product=True,
    ),
    "gru4rec_released": Recipe(
        "TIN's released code of GRU4Rec: two layers of TensorFlow's GRU, no u * t in the head",
        contexts=(ReleasedGRUs,),
        attention=Last,
        dense=True,
        norm=True,
    ),
    "sasrec": _sas,
    "sasrec_released": _sas_released,
    "bert4rec": replace(
        _sas,
        source="BERT4Rec, CIKM 2019, as a click model: the mean of the states for the masked "
        "token's, u * t to an MLP for the inner product, no dropout",
        contexts=(FullTransformer,),
    ),
    "bert4rec_released": replace(
        _sas_released,
        source="TIN's released code of BERT4Rec: no transformer, but the mean of item + position",
        attention=Uniform,
    ),
    "dien": Recipe(
        "DIEN, AAAI 2019; the auxiliary loss is a row's mean over its steps, not their sum, by "
        "inner products (a net in its code), with other rows' behaviours as negatives",
        contexts=(GRUStates,),
        attention=Bilinear,
        pool=AUGRU,
        auxiliary=NextBehaviour,
    ),
    "dien_released": Recipe(
        "TIN's released code of DIEN: scaled dot product, u * t in the head",
        contexts=(ReleasedGRU,),
        pool=ReleasedAUGRU,
        auxiliary=NextByNet,
        product=True,
        dense=True,
        norm=True,
    ),
    "dsin": Recipe(
        "DSIN, IJCAI 2019, one layer of LSTM, its directions averaged as in the code; sessions "
        "counted from the latest; those cut from a history may have one or two behaviours, which "
        "it drops; no dropout",
        sessions=SessionInterests,
        contexts=(NoContext, BiLSTM),
        attention=Bilinear,
    ),
    "dsin_released": Recipe(
        "TIN's released code of DSIN: the mean in each session, u * t in the head; the latest 5 "
        "sessions of at most 10 behaviours, for 10 of any length",
        sessions=MeanOfSession,
        contexts=(NoContext, ReleasedBiLSTM),
        product=True,
        dense=True,
        norm=True,
    ),
    "bst": Recipe(
        "BST, DLP-KDD 2019, the target's state for those of all places, places in order for the "
        "seconds to the target (`tte-t` is nearest), no dropout",
        _BY_ORDER,
        contexts=(TargetTransformer,),
        attention=AtTarget,
    ),
    "bst_released": Recipe(
        "TIN's released code of BST: no transformer, but the mean of history and target",
        _ANY,
        plain_head=True,
        contexts=(BesideTarget,),
        attention=Uniform,
        product=True,
        norm=True,
    ),
    "sim": Recipe(
        "SIM, CIKM 2020, hard search over the history as stored, and the latest 10 beside it by "
        "target attention, not by DIEN; one head",
        _BY_INTERVAL,
        searches=(SameGroup, Latest),
        contexts=(NoContext, NoContext),
    ),
    "tin": _tin,
    "tin_released": replace(_tin, source="TIN, released code", dense=True, norm=True, product=True),
    "tin_wo_tte": replace(_tin, source="TIN, 4.2.1", encodings=("none",)),
    "tin_wo_ta": replace(_tin, source="TIN, 4.2.2", attention=Uniform),
    "tin_wo_tr": replace(_tin, source="TIN, 4.2.3", representation=Plain),
    "gwpfm": replace(
        _fields,
        source="GwPFM as named in arXiv 2403.00793, whose parts, groups and sizes could not be "
        "checked: FFM's two embeddings a field, FwFM's weights (arXiv 1806.03514) by groups, its "
        "linear terms, all before the sum over the width, then an MLP; the parts are the target "
        "and all else" + _MEANS,
        experts=("gwpfm",),
    ),
    "ipnn": replace(_fields, source="PNN, ICDM 2016, inner products" + _MEANS, experts=("ipnn",)),
    "dcn_v2": replace(
        _fields,
        source="DCN V2, WWW 2021, stacked, two cross layers; above 1,024 numbers a row their "
        "matrices have rank 256" + _MEANS,
        experts=("dcn_v2",),
    ),
    "flat_dnn": replace(
        _fields, source="an MLP of the embedded fields" + _MEANS, experts=("flat_dnn",)
    ),
    "tin_mix": _mix,
    **{f"tin_mix_wo_{name}": _without(name) for name in _EXPERTS},
    "tin_mix_flat": replace(
        _fields,
        source="the control of tin_mix: a flat DNN for each expert, with the same table sets and a "
        "hidden layer more, so wide that there are as many parameters",
        experts=_EXPERTS,
        flat=True,
    ),
}


def choose(
    model: str,
    encoding: str | None,
    attention_dim: int | None = None,
    histories: Collection[str] = (),
    embeddings: str | None = None,
    mix: str | None = None,
) -> tuple[Recipe, str]:
    """Look up a recipe and settle its temporal encoding.

    `histories` are those that would be read, if that is known; the others are as for
    `interest.build`.

    Raises:
        UsageError: no such recipe, or the recipe cannot take the encoding, the width, several
            histories, table sets or a mix.
    """
    if model not in RECIPES:
        raise UsageError(
            "There is no such model.",
            where="--model",
            expected=f"one of {', '.join(RECIPES)}",
            got=model + meant(model, RECIPES),
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
    several = {"--embeddings": (embeddings, 0), "--mix": (mix, 1)}
    for option, (given, more) in several.items():
        if given is not None and len(recipe.experts) <= more:
            able = [name for name, one in RECIPES.items() if len(one.experts) > more]
            raise UsageError(
                f"The model {model} has no experts to choose this for.",
                where=option,
                expected=f"one of {', '.join(able)}",
                got=model,
            )
    if embeddings is not None and not _SETS.fullmatch(embeddings):
        raise UsageError(
            "The experts' table sets cannot be told.",
            where="--embeddings",
            expected="shared, apart or a number from 1 to 99",
            got=embeddings,
        )
    if not recipe.all_histories:
        every = ", ".join(name for name in RECIPES if RECIPES[name].all_histories)
        require_one(histories, do=f"or choose a model that reads all: {every}")
    return recipe, encoding
