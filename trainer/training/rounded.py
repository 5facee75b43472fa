"""Adam and Adagrad over embedding tables in bfloat16, which are rounded by chance at each step.

A bfloat16 has 8 of float32's 24 bits. Most steps are smaller than half of its last one, so rounded
to the nearest, a number would stay where it is. Here it is rounded up with the chance that makes
its mean right (Zhang, Yang and Yuen 2018, "Training with low-precision embedding tables"; FBGEMM's
tables in half precision, and so TorchRec's, are rounded so too).

What an optimizer keeps is held, and rounded, in the same way, which FBGEMM does not: Adam's moments
and Adagrad's accumulators. There is no dense gradient: some rows of a table at a time become
float32, are moved as `trainer.training.optimizer` moves them, and are rounded back. So a number
takes 6 bytes with Adam in place of 16, 4 with Adagrad in place of 8.

The chance is a pure function of the seed, the table, its step and the place. So all ranks round
alike, and so does a training that was resumed.

Shape legend: K what is kept of a number, its value first, R rows, W the width of a table.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from schemas.errors import EnvironmentFault
from trainer.training.hashing import mixed
from trainer.training.optimizer_base import Optimizer, RowSums

_BITS = 16  # those that float32 has more
# Numbers that are drawn for at a time: the bits of two of them are independent.
_BLOCK = 1 << _BITS
# Blocks at a time: a CPU's cache holds one, and a GPU takes as long to begin as for many.
_BLOCKS = {"cpu": 1, "cuda": 64}
_SALT = 0x2D0BF16


def require_wide_gradients() -> None:
    """Refuse a PyTorch in which the gradient of a weight in bfloat16 can be nothing else."""
    if not hasattr(torch.Tensor, "grad_dtype"):
        raise EnvironmentFault(
            "This PyTorch cannot train tables in bfloat16.",
            where="--tables bfloat16",
            expected="PyTorch 2.10 or newer, whose gradients may be in float32",
            got=torch.__version__,
            do="install a newer one, or train without --tables",
        )


def round_(wide: Tensor, bits: Tensor) -> None:
    """Round numbers of float32, in place, to those that bfloat16 has.

    Args:
        wide: the numbers; what is not finite stays so.
        bits: int32, for each number one of 0 to 2^16 - 1, each as likely; it is overwritten. Then
            the mean of what a number comes to is the number.
    """
    # A NaN whose bits are all set would overflow to a zero.
    bits.masked_fill_(wide.isnan(), 0)
    wide.view(torch.int32).add_(bits).bitwise_and_(-_BLOCK)


class Dither:
    """The bits that a table is rounded by.

    A place x has the upper half of (a x + b) mod 2^32, with a and b drawn for each block of places,
    for what is rounded and for each step. Over those, the bits of any two places of a block are
    independent (Dietzfelbinger 1996), and a step costs a few operations a number. Places have their
    x in a mixed order, so that the bits of neighbours are no progression.

    Args:
        key: what the drawing depends on beside the step.
        kept: K.
        width: W.
    """

    def __init__(self, key: Tensor, kept: int, width: int, device: torch.device) -> None:
        self.key, self.kept, self.device = key, kept, device
        self.rows = max(1, _BLOCK // width)  # of a block
        x = mixed(torch.arange(_BLOCK)).argsort().int()
        numbers = self.rows * width
        self.x = x.repeat(-(-numbers // _BLOCK))[:numbers].to(device)

    def step(self, step: int, rows: int) -> Tensor:
        """Draw a and b of a step, for so many rows: K x 2 x blocks."""
        blocks = -(-rows // self.rows)
        number = torch.arange(2 * self.kept * blocks).view(self.kept, 2, blocks)
        drawn = mixed(mixed(self.key + step) + number) >> 32
        return drawn.int().to(self.device)

    def bits(self, drawn: Tensor, first: int, shape: torch.Size) -> Tensor:
        """The bits for K x R x W numbers from block `first` on."""
        kept, rows, width = shape
        a, b = drawn[:, :, first : first + -(-rows // self.rows), None].unbind(1)
        bits = (self.x * a).add_(b).bitwise_right_shift_(_BITS).bitwise_and_(_BLOCK - 1)
        return bits.view(kept, -1, width)[:, :rows]


class _Rounded(Optimizer):
    """What both have.

    Args:
        tables: weights in bfloat16, R x W, whose gradients are sparse.
    """

    kept: int  # K

    def __init__(
        self, tables: Iterable[nn.Parameter], lr: float, seed: int, l2: float = 0.0
    ) -> None:
        self.tables, self.lr, self.seed = list(tables), lr, seed
        for p in self.tables:
            p.grad_dtype = torch.float32
        self._rows = RowSums(l2, ordered=True)
        self._sums: dict[nn.Parameter, tuple[Tensor, Tensor]] = {}
        # Of the tables that a gradient has reached: steps since, and what is kept of each number.
        self.steps: dict[nn.Parameter, int] = {}
        self.moments: dict[nn.Parameter, list[Tensor]] = {}
        self._dither: dict[nn.Parameter, Dither] = {}

    def collect(self) -> None:
        """See `Optimizer`."""
        self._rows.collect(self.tables)

    def gradient(self) -> list[Tensor]:
        """See `Optimizer`."""
        self._sums = self._rows.sums()
        return [gradient for _, gradient in self._sums.values()]

    @torch.no_grad()
    def update(self) -> None:
        """See `Optimizer`."""
        for number, p in enumerate(self.tables):
            found = self._sums.pop(p, None)
            if found is None and p not in self.steps:
                continue  # as PyTorch's
            if p not in self._dither:
                key = mixed(mixed(torch.tensor(self.seed) + _SALT) + number)
                self._dither[p] = Dither(key, self.kept, p.shape[1], p.device)
            if p not in self.steps:
                self.steps[p] = 0
                self.moments[p] = [torch.zeros_like(p) for _ in range(self.kept - 1)]
            self.steps[p] += 1
            if found is None:
                rows = torch.empty(0, dtype=torch.long, device=p.device)
                found = rows, torch.empty(0, p.shape[1], device=p.device)
            self._move(p, *found)

    @abstractmethod
    def _move(self, p: nn.Parameter, rows: Tensor, gradient: Tensor) -> None:
        """Make one step with one table, of whose `rows` there is a gradient; they are in order."""

    def _change(
        self, p: nn.Parameter, rows: Tensor | None, change: Callable[[Tensor, int, int], None]
    ) -> None:
        """Change rows of a table, and what is kept of them, in float32, and round them back.

        Args:
            rows: which, each once; None for all.
            change: is given some of them in float32, K x R x W, and which: from, to.
        """
        narrow, dither = [p, *self.moments[p]], self._dither[p]
        count = len(p if rows is None else rows)
        size = dither.rows * _BLOCKS[p.device.type]
        shape = (self.kept, min(size, count), p.shape[1])
        scratch = torch.empty(shape, device=p.device)
        drawn = dither.step(self.steps[p], count)
        for begin in range(0, count, size):
            end = min(begin + size, count)
            wide = scratch[:, : end - begin]
            at = slice(begin, end) if rows is None else rows[begin:end]
            for one, of in zip(wide, narrow, strict=True):
                one.copy_(of[at])
            change(wide, begin, end)
            round_(wide, dither.bits(drawn, begin // dither.rows, wide.shape))
            for one, of in zip(wide, narrow, strict=True):
                of[at] = one.bfloat16()

    def state(self) -> dict[str, Any]:
        """See `Optimizer`."""
        return {
            "steps": [self.steps.get(p, 0) for p in self.tables],
            "moments": [self.moments.get(p, []) for p in self.tables],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """See `Optimizer`."""
        for p, steps, moments in zip(self.tables, state["steps"], state["moments"], strict=True):
            wanted = [(p.shape, p.dtype)] * (self.kept - 1) if steps else []
            if [(one.shape, one.dtype) for one in moments] != wanted:
                raise ValueError("an optimizer's state of another kind than its weights")
            if steps:
                self.steps[p], self.moments[p] = int(steps), list(moments)


class RoundedAdam(_Rounded):
    """`DenseAdam`, rounded; see `_Rounded`."""

    kept = 3

    def _move(self, p: nn.Parameter, rows: Tensor, gradient: Tensor) -> None:
        size = self._dither[p].rows * _BLOCKS[p.device.type]
        # Where in `rows` those begin that are changed together.
        begins = torch.arange(0, len(p) + size, size, device=p.device)
        cuts = torch.searchsorted(rows, begins).tolist()
        dense = torch.zeros(min(size, len(p)), p.shape[1], device=p.device)

        def change(wide: Tensor, begin: int, end: int) -> None:
            weight, mean, square = wide
            of = slice(cuts[begin // size], cuts[begin // size + 1])
            now, at = dense[: end - begin], rows[of] - begin
            now.index_copy_(0, at, gradient[of])
            # It is counted up.
            step = torch.full((), self.steps[p] - 1.0, device=p.device)
            adam(
                [weight], [now], [mean], [square], [], [step], fused=True, amsgrad=False,
                beta1=0.9, beta2=0.999, lr=self.lr, weight_decay=0.0, eps=1e-8, maximize=False,
            )  # fmt: skip
            now.index_fill_(0, at, 0.0)

        self._change(p, None, change)


class RoundedAdagrad(_Rounded):
    """`RowAdagrad`, rounded; see `_Rounded`."""

    kept = 2

    def _move(self, p: nn.Parameter, rows: Tensor, gradient: Tensor) -> None:
        def change(wide: Tensor, begin: int, end: int) -> None:
            weight, total = wide
            now = gradient[begin:end]
            total.addcmul_(now, now)
            weight.addcdiv_(now, total.sqrt().add_(1e-10), value=-self.lr)

        self._change(p, rows, change)
