"""`torch.compile` for models whose embedding tables have sparse gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from schemas.errors import UsageError
from trainer.data.batches import Batch
from trainer.models.interest import InterestModel
from trainer.models.layers import Table
from trainer.training.loss import Forward


def compiled(model: InterestModel) -> Forward:
    """Compile a model's `with_auxiliary`, for batches of any size.

    The look-ups in its tables stay as they are. Kernels are made when the first batch comes, and
    again for shapes of another kind.
    """
    for module in model.modules():
        if isinstance(module, Table):
            # Compiled, a look-up's sparse gradient comes out wrong (seen with PyTorch 2.13).
            module.forward = torch.compiler.disable(module.forward)  # type: ignore[method-assign, no-untyped-call]
    forward = torch.compile(model.with_auxiliary, dynamic=True)

    def checked(batch: Batch) -> tuple[Tensor, Tensor | None]:
        try:
            return forward(batch)
        except torch._dynamo.exc.TorchDynamoException as error:
            raise UsageError(
                "The model cannot be compiled here.",
                where="--compile",
                expected="a C++ compiler, and Triton for CUDA",
                got=str(error).strip().partition("\n")[0],
                do="install one, e.g. g++, or train without --compile",
            ) from error

    return checked
