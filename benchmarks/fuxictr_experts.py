"""Experts beside FuxiCTR's layers: the largest difference on the same weights and embeddings.

    python -m venv PEER && PEER/bin/pip install torch==2.13.0 fuxictr==2.3.10
    PYTHONPATH=. PEER/bin/python -P benchmarks/fuxictr_experts.py

FuxiCTR's wheel has the layers, not its FwFM and PNN: FwFM is the linear terms and a weighted sum of
`InnerProductInteraction`'s products, PNN those products beside the embeddings, both into an
`MLP_Block`, DCN V2 is `CrossNetV2`.
"""

from __future__ import annotations

from importlib.metadata import version

import torch
from fuxictr.pytorch.layers import CrossNetV2, InnerProductInteraction, MLP_Block
from torch import Tensor, nn

from trainer.models.experts import IPNN, DCNv2, GwPFM, Shape

ROWS, WIDTH, HIDDEN = 4096, 64, [80, 40]


def differences(fields: int) -> dict[str, float]:
    """The largest absolute difference of each expert; `e` are embedded fields."""
    shape = Shape(tuple(range(fields)), (0,) * 2 + (1,) * (fields - 2), 2, WIDTH)
    e = torch.randn(ROWS, fields, WIDTH) * 0.3
    products = InnerProductInteraction(fields, output="inner_product")

    fwfm, weight = GwPFM(shape), nn.Linear(products.interaction_units, 1)
    nn.init.normal_(fwfm.weight)
    low, high = torch.triu_indices(fields, fields, offset=1)
    with torch.no_grad():
        weight.weight[0] = fwfm.weight[high * (high + 1) // 2 + low]
        weight.bias.zero_()
    linear = (fwfm.linear * e).sum((1, 2))
    theirs = weight(products(e)).squeeze(1) + linear
    found = {"gwpfm as FwFM": _apart(fwfm(None, e, e).sum(1), theirs)}

    ipnn = IPNN(shape)
    mlp = MLP_Block(input_dim=ipnn.out, output_dim=1, hidden_units=HIDDEN)
    theirs = mlp(torch.cat([e.flatten(1), products(e)], dim=1))
    found["ipnn as PNN"] = _apart(mlp(ipnn(None, e)), theirs)

    ours, cross = DCNv2(shape), CrossNetV2(fields * WIDTH, 2)
    for one, other in zip(ours.layers, cross.cross_layers, strict=True):
        other.load_state_dict(one.state_dict())
    found["dcn_v2 as DCNv2"] = _apart(ours(None, e), cross(e.flatten(1)))
    return found


def _apart(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max())


if __name__ == "__main__":
    torch.manual_seed(0)
    print(f"FuxiCTR {version('fuxictr')}, PyTorch {torch.__version__}, {ROWS} rows")
    with torch.no_grad():
        for fields in (4, 12):
            for name, most in differences(fields).items():
                print(f"{fields} fields, {name}: {most:.1e}")
