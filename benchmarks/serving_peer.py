"""What `serving.py` runs in the peer's Python: torch-rechub's DIN, exported as it exports it.

`PEER/bin/python -P benchmarks/serving_peer.py OUT.onnx '{"item": 63003, "category": 803}' 64`:
fields with their sizes, and the width of each. Its inputs are `target_FIELD`, one id a row, and
`history_FIELD`. Attention and head are 80-40 as in ours. torch-rechub attends by each field apart,
has a batch norm after each layer, Dice in the head, and needs a feature besides: here the user.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version

from torch_rechub.basic.features import SequenceFeature, SparseFeature
from torch_rechub.models.ranking import DIN
from torch_rechub.trainers import CTRTrainer

out, fields, dim = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
targets = [SparseFeature(f"target_{name}", size, dim) for name, size in fields.items()]
histories = [
    SequenceFeature(f"history_{n}", size, dim, pooling="concat", shared_with=f"target_{n}")
    for n, size in fields.items()
]
model = DIN(
    features=[SparseFeature("user", 1000, dim)],
    history_features=histories,
    target_features=targets,
    mlp_params={"dims": [80, 40]},
    attention_mlp_params={"dims": [80, 40], "activation": "sigmoid", "use_softmax": True},
)
assert CTRTrainer(model).export_onnx(out, opset_version=18)
print("torch-rechub", version("torch-rechub"))
