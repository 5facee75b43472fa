"""Recurrences over histories of unlike length: a GRU and an LSTM with their gradients by hand.

An exported graph has no gradients, and takes batches of any size: there they are plain loops.

Left to autograd, a loop over steps multiplies and adds up each step's part of the weights'
gradient by itself. Here a backward step is three or four operations, as all factors that do not
depend on later steps are made beforehand, for all steps at once; and the gradients of weights and
inputs are one product each, afterwards.

Shape legend: B rows, L places, N real places of all rows, n rows of a step, D width, G gates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


@dataclass(frozen=True)
class Steps:
    """The real places of a batch, step by step: the first of each row, then the second, and so on.

    Rows come longest first, so those of a step are the first of those of the step before. What is
    padding, or a row without any place, is nowhere.

    Attributes:
        shape: B and L.
        order: the rows that have a place, longest first.
        counts: rows of each step, all above 0.
        cells: where each of the N places is in B x L.
        turned: the same when each row is read from its last place to its first.
        last: where each of `order`'s last places is among the N.
    """

    shape: tuple[int, int]
    order: Tensor
    counts: list[int]
    cells: Tensor
    turned: Tensor
    last: Tensor

    @classmethod
    def of(cls, mask_BL: Tensor) -> Steps:
        """Lay out a batch that is padded on the right."""
        rows, longest = mask_BL.shape
        length_B, order = mask_BL.sum(1).sort(descending=True, stable=True)
        per_step = mask_BL.sum(0)
        counts = [n for n in per_step.tolist() if n]
        step, rank = mask_BL[order].T.nonzero(as_tuple=True)
        row, length = order[rank] * longest, length_B[rank]
        there = counts[0] if counts else 0
        before = per_step.cumsum(0) - per_step
        last = before[length_B[:there] - 1] + torch.arange(there, device=order.device)
        shape = (rows, longest)
        return cls(shape, order[:there], counts, row + step, row + length - 1 - step, last)

    def take(self, x_BLD: Tensor, turned: bool = False) -> Tensor:
        """Lay out, N x D; a history that all rows share has B = 1."""
        x_BLD = x_BLD.expand(self.shape[0], -1, -1)
        out: Tensor = _Take.apply(x_BLD.flatten(0, 1), self.turned if turned else self.cells)  # type: ignore[no-untyped-call]
        return out

    def put(self, x_ND: Tensor, turned: bool = False) -> Tensor:
        """Put back, B x L x D: 0 in the padding."""
        rows, longest = self.shape
        index = self.turned if turned else self.cells
        flat: Tensor = _Put.apply(x_ND, index, rows * longest)  # type: ignore[no-untyped-call]
        return flat.view(rows, longest, -1)

    def final(self, x_ND: Tensor) -> Tensor:
        """What each row has at its last place, B x D: 0 where it has none."""
        last = _Take.apply(x_ND, self.last)  # type: ignore[no-untyped-call]
        out: Tensor = _Put.apply(last, self.order, self.shape[0])  # type: ignore[no-untyped-call]
        return out


class Padded:
    """The places of a batch as a graph lays them out, padding and all, where N stands for L x B.

    A graph cannot know the length of each row beforehand, as `Steps` does.
    """

    def __init__(self, mask_BL: Tensor) -> None:
        rows, longest = mask_BL.shape
        self.real_LB = mask_BL.T.unsqueeze(2)
        place = torch.arange(longest, device=mask_BL.device)
        first = torch.arange(rows, device=mask_BL.device).unsqueeze(1) * longest
        self.turned = first + (mask_BL.sum(1, keepdim=True) - 1 - place).clamp(min=0)

    def take(self, x_BLD: Tensor, turned: bool = False) -> Tensor:
        """As `Steps.take`, but a history that all rows share stays one."""
        return (x_BLD.flatten(0, 1)[self.turned] if turned else x_BLD).transpose(0, 1)

    def put(self, x_ND: Tensor, turned: bool = False) -> Tensor:
        """As `Steps.put`."""
        x_BLD = x_ND.transpose(0, 1)
        if turned:
            x_BLD = x_BLD.flatten(0, 1)[self.turned]
        return x_BLD * self.real_LB.transpose(0, 1)

    def final(self, x_ND: Tensor) -> Tensor:
        """As `Steps.final`: behind a row's last place its state stays."""
        return x_ND[-1]

    def gru(
        self, inputs: Tensor, matrix: Tensor, bias: Tensor | None, scale: Tensor | None, keeps: bool
    ) -> Tensor:
        """As `gru`."""
        width = matrix.shape[1]
        scale_NB = self.real_LB.float() if scale is None else scale.unsqueeze(2)

        def step(h: Tensor, at: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
            x, real, a = at
            of_gates, of_candidate = matrix[: 2 * width].T, matrix[2 * width :].T
            r, u = torch.sigmoid(x[:, : 2 * width] + h @ of_gates).chunk(2, 1)
            inner = (r * h) @ of_candidate if bias is None else r * (h @ of_candidate + bias)
            c, u = torch.tanh(x[:, 2 * width :] + inner), u * a
            h = torch.where(real, u * h + (1 - u) * c if keeps else (1 - u) * h + u * c, h)
            return h, h.clone()

        begin = torch.zeros_like(inputs[0, :, :width] * scale_NB[0])
        return self._loop(step, begin, (inputs, self.real_LB, scale_NB))

    def lstm(self, inputs: Tensor, matrix: Tensor) -> Tensor:
        """As `lstm`."""

        def step(
            held: tuple[Tensor, Tensor], at: tuple[Tensor, Tensor]
        ) -> tuple[tuple[Tensor, Tensor], Tensor]:
            (h, c), (x, real) = held, at
            i, f, g, o = (x + h @ matrix.T).chunk(4, 1)
            c = torch.where(real, torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g), c)
            h = torch.where(real, torch.sigmoid(o) * torch.tanh(c), h)
            return (h, c), h.clone()

        begin = torch.zeros_like(inputs[0, :, : matrix.shape[1]])
        return self._loop(step, (begin, begin.clone()), (inputs, self.real_LB))

    @staticmethod
    def _loop(step: Callable[[Any, Any], Any], begin: Any, of_steps: tuple[Tensor, ...]) -> Tensor:
        """Call `step` for each place; it gives what is carried to the next, and the state."""
        from torch._higher_order_ops.scan import scan  # private as yet; ONNX has it as Scan

        states: Tensor = scan(step, begin, of_steps)[1]
        return states


def laid_out(mask_BL: Tensor) -> Steps | Padded:
    """The layout of a batch that is padded on the right: a graph's where one is being exported."""
    return Padded(mask_BL) if torch.compiler.is_exporting() else Steps.of(mask_BL)


class _Take(Function):
    """Rows of a matrix, none of them twice: so the gradient needs no adding up."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor) -> Tensor:
        ctx.index, ctx.rows = index, len(x)
        return x.index_select(0, index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        out = grad.new_zeros(ctx.rows, grad.shape[1])
        return out.index_copy_(0, ctx.index, grad), None


class _Put(Function):
    """Rows of a matrix that is 0 elsewhere, none of them twice."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, rows: int) -> Tensor:
        ctx.index = index
        return x.new_zeros(rows, x.shape[1]).index_copy_(0, index, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad.index_select(0, ctx.index), None, None


def gru(
    inputs_NG: Tensor,
    matrix_GD: Tensor,
    steps: Steps | Padded,
    *,
    bias_D: Tensor | None = None,
    scale_N: Tensor | None = None,
    keeps: bool = True,
) -> Tensor:
    """The states of a gated recurrent unit from h = 0, N x D.

    With x = (x_r, x_u, x_c) of the inputs, and U_r, U_u, U_c of the matrix:

        r = sigmoid(x_r + U_r h)
        u = scale * sigmoid(x_u + U_u h)
        c = tanh(x_c + U_c (r * h))              without a bias: TensorFlow 1's cell
        c = tanh(x_c + r * (U_c h + bias))       with one: PyTorch's
        h' = u * h + (1 - u) * c                 if the gate `keeps` the state
        h' = (1 - u) * h + u * c                 if not

    Args:
        inputs_NG: N x 3D, with the biases of what comes of the input; as `Steps.take` lays it out.
        matrix_GD: 3D x D.
        bias_D: of U_c, inside of the reset.
        scale_N: of the update gate; 1 by default.
        keeps: which of its two meanings the update gate has.
    """
    if isinstance(steps, Padded):
        return steps.gru(inputs_NG, matrix_GD, bias_D, scale_N, keeps)
    if not steps.counts:
        return inputs_NG[:, : matrix_GD.shape[1]]
    args = (inputs_NG, matrix_GD, bias_D, scale_N, tuple(steps.counts), keeps)
    out: Tensor = _GRU.apply(*args)  # type: ignore[no-untyped-call]
    return out


def lstm(inputs_NG: Tensor, matrix_GD: Tensor, steps: Steps | Padded) -> Tensor:
    """The states of an LSTM from h = c = 0, N x D.

        i, f, g, o = x + U h, of which sigmoids, but of g tanh
        c' = f * c + i * g,   h' = o * tanh(c')

    Args:
        inputs_NG: N x 4D, with all biases; as `Steps.take` lays it out.
        matrix_GD: 4D x D.
    """
    if isinstance(steps, Padded):
        return steps.lstm(inputs_NG, matrix_GD)
    if not steps.counts:
        return inputs_NG[:, : matrix_GD.shape[1]]
    out: Tensor = _LSTM.apply(inputs_NG, matrix_GD, tuple(steps.counts))  # type: ignore[no-untyped-call]
    return out


def _split(parts: Sequence[Tensor], counts: Sequence[int]) -> list[tuple[Tensor, ...]]:
    """Each part's rows step by step."""
    return [torch.split(part, list(counts)) for part in parts]


def _tanh(x: Tensor, out: Tensor) -> Tensor:
    """By the sigmoid, which PyTorch computes several times as fast on a CPU."""
    return torch.mul(x, 2, out=out).sigmoid_().mul_(2).sub_(1)


def _before(states_ND: Tensor, counts: Sequence[int]) -> Tensor:
    """The state before each step but the first, N - n x D."""
    (held,) = _split([states_ND], counts)
    parts = [h[:n] for h, n in zip(held, counts[1:], strict=False)]
    return torch.cat(parts) if parts else states_ND[:0]


class _GRU(Function):
    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        matrix: Tensor,
        bias: Tensor | None,
        scale: Tensor | None,
        counts: tuple[int, ...],
        keeps: bool,
    ) -> Tensor:
        width = matrix.shape[1]
        of_gates, of_candidate = matrix[: 2 * width].T, matrix[2 * width :].T
        gates = inputs.new_empty(len(inputs), 2 * width)  # reset, update
        # Held: U_c h + bias, or r * h.
        candidates, held, states = inputs.new_empty(3, len(inputs), width).unbind()
        parts = [inputs[:, : 2 * width], inputs[:, 2 * width :], gates, gates[:, :width]]
        parts += [gates[:, width:], candidates, held, states]
        parts += [] if scale is None else [scale.unsqueeze(1)]
        h = None
        for x_g, x_c, g, r, u, c, s, out, *a in zip(*_split(parts, counts), strict=True):
            if h is None:  # it is 0, and so is what would be multiplied by it
                h = torch.zeros_like(out)
                g.copy_(x_g).sigmoid_()
                if bias is None:
                    s.zero_()
                    c.copy_(x_c)
                else:
                    s.copy_(bias.expand_as(s))
                    torch.addcmul(x_c, r, s, out=c)
            else:
                h = h[: len(out)]
                torch.addmm(x_g, h, of_gates, out=g).sigmoid_()
                if bias is None:
                    torch.mul(r, h, out=s)
                    torch.addmm(x_c, s, of_candidate, out=c)
                else:
                    torch.addmm(bias, h, of_candidate, out=s)
                    torch.addcmul(x_c, r, s, out=c)
            _tanh(c, c)
            first, second = (c, h) if keeps else (h, c)
            h = torch.lerp(first, second, u * a[0] if a else u, out=out)
        ctx.save_for_backward(matrix, gates, candidates, held, states, scale)
        ctx.counts, ctx.keeps, ctx.reset_first = counts, keeps, bias is None
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        matrix, gates, c, held, states, scale = ctx.saved_tensors
        counts, keeps, first = ctx.counts, ctx.keeps, ctx.reset_first
        width, n = matrix.shape[1], counts[0]
        r, u = gates[:, :width], gates[:, width:]
        before = _before(states, counts)
        h = torch.cat([before.new_zeros(n, width), before])
        scaled = u if scale is None else u * scale.unsqueeze(1)
        stays, comes = (scaled, 1 - scaled) if keeps else (1 - scaled, scaled)
        gap = h - c if keeps else c - h
        # For each of the sums inside of the gates, (held), reset, update and candidate: first what
        # its gradient is to that of the state, in the end its gradient.
        deltas = grad.new_empty(len(grad), 3 if first else 4, width)
        flat = deltas.flatten(1)
        of_r, of_u, of_c = deltas[:, -3], deltas[:, -2], deltas[:, -1]
        torch.mul(c, c, out=of_c).neg_().add_(1).mul_(comes)
        torch.mul(gap, scaled, out=of_u)
        of_u.addcmul_(of_u, u, value=-1)
        if first:
            torch.mul(r, h, out=of_r)
        else:
            torch.mul(of_c, r, out=deltas[:, 0])
            torch.mul(deltas[:, 0], held, out=of_r)
        of_r.addcmul_(of_r, r, value=-1)
        # The matrix's rows as the sums stand. Where the reset comes first, its gradient and the
        # state's behind it go by the candidate's.
        rolled = matrix[: 2 * width] if first else matrix.roll(width, 0)
        inward = flat[:, : len(rolled)]
        grad = grad.clone(memory_format=torch.contiguous_format)
        direct = deltas[:, 1:] if first else deltas
        of_state, sums, inner, stay, resets, candidate = _split(
            [grad, direct, inward, stays, r, of_c], counts
        )
        of_reset = torch.split(of_r, list(counts))
        for t in range(len(counts) - 1, -1, -1):
            d = of_state[t]
            sums[t].mul_(d.unsqueeze(1))
            if not t:
                break
            below = of_state[t - 1][: counts[t]].addcmul_(d, stay[t])
            if first:
                behind = torch.mm(candidate[t], matrix[2 * width :])
                of_reset[t].mul_(behind)
                below.addcmul_(behind, resets[t])
            below.addmm_(inner[t], rolled)
        inside = inward[n:].T
        if first:
            of_r[:n] = 0.0  # there is no state yet to reset
            of_matrix = torch.cat([inside @ before, flat[n:, 2 * width :].T @ held[n:]])
        else:
            of_matrix = (inside @ before).roll(-width, 0)
        of_bias = None if first else deltas[:, 0].sum(0)
        of_scale = None if scale is None else (grad * gap).mul_(u).sum(1)
        return flat[:, -3 * width :], of_matrix, of_bias, of_scale, None, None


class _LSTM(Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, matrix: Tensor, counts: tuple[int, ...]) -> Tensor:
        width = matrix.shape[1]
        gates = torch.empty_like(inputs)
        cells, bent, states = inputs.new_empty(3, len(inputs), width).unbind()
        quarters = gates.chunk(4, 1)
        parts = [inputs, gates, gates[:, : 2 * width], *quarters, cells, bent, states]
        h = cell = None
        for x, all_gates, i_f, i, f, g, o, c, tanh_c, out in zip(
            *_split(parts, counts), strict=True
        ):
            if h is None:
                all_gates.copy_(x)
            else:
                torch.addmm(x, h[: len(x)], matrix.T, out=all_gates)
            i_f.sigmoid_()
            _tanh(g, g)
            o.sigmoid_()
            torch.mul(i, g, out=c)
            if cell is not None:
                c.addcmul_(f, cell[: len(x)])
            _tanh(c, tanh_c)
            torch.mul(o, tanh_c, out=out)
            h, cell = out, c
        ctx.save_for_backward(matrix, gates, cells, bent, states)
        ctx.counts = counts
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        matrix, gates, cells, bent, states = ctx.saved_tensors
        counts = ctx.counts
        width, n = matrix.shape[1], counts[0]
        i, f, g, o = gates.chunk(4, 1)
        old = torch.cat([cells.new_zeros(n, width), _before(cells, counts)])
        # As above: input, forget and candidate by the cell's gradient, output by the state's.
        deltas = grad.new_empty(len(grad), 4, width)
        flat = deltas.flatten(1)
        of_i, of_f, of_g, of_o = deltas.unbind(1)
        torch.mul(i, g, out=of_i)
        torch.addcmul(i, of_i, g, value=-1, out=of_g)
        of_i.addcmul_(of_i, i, value=-1)
        torch.mul(old, f, out=of_f)
        of_f.addcmul_(of_f, f, value=-1)
        torch.addcmul(states, states, o, value=-1, out=of_o)
        into_cell = torch.addcmul(o, states, bent, value=-1)
        grad = grad.clone(memory_format=torch.contiguous_format)
        parts = [grad, grad * into_cell, into_cell, f, deltas[:, :3], of_o, flat]
        of_state, of_cell, into, forget, by_cell, by_state, sums = _split(parts, counts)
        for t in range(len(counts) - 1, -1, -1):
            by_cell[t].mul_(of_cell[t].unsqueeze(1))
            by_state[t].mul_(of_state[t])
            if t:
                rows = counts[t]
                more = torch.mm(sums[t], matrix)
                of_state[t - 1][:rows].add_(more)
                below = of_cell[t - 1][:rows].addcmul_(more, into[t - 1][:rows])
                below.addcmul_(of_cell[t], forget[t])
        return flat, flat[n:].T @ _before(states, counts), None
