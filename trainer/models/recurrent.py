"""Recurrent parts: GRU4Rec's and DIEN's states, DIEN's evolution and loss, DSIN's LSTM.

Those of TIN's released code are TensorFlow 1's cells, with its initial weights: a GRU's reset gate
comes before the matrix, its gates' biases begin at 1, and so does the LSTM's forget gate's.

Shape legend: B rows, L places (padded on the right), N real places of all rows, D width, which
every state has too. `mask_BL` is true where a behaviour is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad, softplus

from trainer.models.layers import ScaleShift, Unlearned, dense
from trainer.models.recurrence import Padded, Steps, gru, laid_out, lstm


def _whole(x: Tensor) -> AbstractContextManager[object]:
    """In float32 whatever autocast says: rounding would add up over the history."""
    # No graph is exported under autocast, nor could it hold one.
    exporting = torch.compiler.is_exporting()
    return nullcontext() if exporting else torch.autocast(x.device.type, enabled=False)


def _biases(of_input: Tensor, of_state: Tensor) -> tuple[Tensor, Tensor]:
    """The biases of PyTorch's GRU, 3D each, as `gru` has them: outside the reset, and inside."""
    width = len(of_state) // 3
    return of_input + pad(of_state[: 2 * width], (0, width)), of_state[2 * width :]


class GRUStates(nn.Module):
    """The states of a GRU over the history: GRU4Rec's context and DIEN's interest extractor.

    A state depends on what came before it only. In the padding, on the right, it is 0.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gru = nn.GRU(width, width, batch_first=True)  # holds the weights

    def forward(self, x: Tensor, t: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return states BLD and their mask."""
        of_input, of_state, *biases = self.gru.all_weights[0]
        bias, candidate = _biases(*biases)
        with _whole(x):
            steps = laid_out(mask)
            inputs = linear(steps.take(x.to(bias.dtype)), of_input, bias)
            return steps.put(gru(inputs, of_state, steps, bias_D=candidate)), mask


class AUGRU(nn.Module):
    """Pool by a GRU whose update gates are scaled by the attention (DIEN, Eqs. 14 to 16).

    The attention is each target's, so a history that targets share is read for each of them.
    h_i = (1 - a_i u_i) h_(i-1) + a_i u_i n_i, from h_0 = 0. Where a_i = 0 the state stays as it is.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        # Reset, update and candidate, each D wide.
        self.of_input, self.of_state = dense(width, 3 * width), dense(width, 3 * width)

    def forward(self, x_BLD: Tensor, weight_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Return the last state, BD."""
        bias, candidate = _biases(self.of_input.bias, self.of_state.bias)
        with _whole(x_BLD):
            steps = laid_out(mask_BL.expand(weight_BL.shape[0], -1))
            inputs = linear(steps.take(x_BLD.to(bias.dtype)), self.of_input.weight, bias)
            scale = steps.take(weight_BL.to(bias.dtype).unsqueeze(2)).squeeze(-1)
            of_state = self.of_state.weight
            states = gru(inputs, of_state, steps, bias_D=candidate, scale_N=scale, keeps=False)
            return steps.final(states)


class TensorFlowGRU(nn.Module):
    """TensorFlow 1's `GRUCell` over all steps.

    r, u = sigmoid(W [x, h] + b), c = tanh(V [x, r * h] + d), h' = u * h + (1 - u) * c, from h = 0.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.of_input = nn.Linear(width, 3 * width)  # reset, update, candidate
        self.of_state = nn.Linear(width, 3 * width, bias=False)
        for layer in (self.of_input, self.of_state):
            # Glorot's limits of W and V, both of which have the input and the state.
            nn.init.uniform_(layer.weight[: 2 * width], -(bound := math.sqrt(1.5 / width)), bound)
            nn.init.uniform_(layer.weight[2 * width :], -(bound := math.sqrt(2 / width)), bound)
        nn.init.ones_(self.of_input.bias[: 2 * width])
        nn.init.zeros_(self.of_input.bias[2 * width :])

    def forward(self, x_ND: Tensor, steps: Steps | Padded, scale_N: Tensor | None = None) -> Tensor:
        """Return the states, N x D; `scale_N` multiplies the update gate u."""
        of_state = self.of_state.weight
        return gru(self.of_input(x_ND.to(of_state.dtype)), of_state, steps, scale_N=scale_N)


class ReleasedGRU(nn.Module):
    """The states of TensorFlow's GRU over the history, as `GRUStates`: TIN's released DIEN."""

    layers = 1

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cells = nn.ModuleList(TensorFlowGRU(width) for _ in range(self.layers))

    def forward(self, x: Tensor, t: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return states BLD and their mask."""
        with _whole(x):
            steps = laid_out(mask)
            states_ND = steps.take(x)
            for cell in self.cells:
                states_ND = cell(states_ND, steps)
            return steps.put(states_ND), mask


class ReleasedGRUs(ReleasedGRU):
    """Two layers of it: TIN's released GRU4Rec."""

    layers = 2


class ReleasedAUGRU(nn.Module):
    """The AUGRU of DIEN's code, which TIN's released code runs.

    It is `TensorFlowGRU` with (1 - a_i) u_i for u_i, where u is what stays of the state. So a_i = 0
    leaves a plain GRU's step, and a_i = 1 puts the candidate in the state's place. In the paper a
    scales what is replaced, and a_i = 0 leaves the state as it is.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cell = TensorFlowGRU(width)

    def forward(self, x_BLD: Tensor, weight_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Return the last state, BD."""
        with _whole(x_BLD):
            steps = laid_out(mask_BL.expand(weight_BL.shape[0], -1))
            kept = 1 - steps.take(weight_BL.unsqueeze(2)).squeeze(-1)
            return steps.final(self.cell(steps.take(x_BLD), steps, kept))


class BiLSTM(nn.Module):
    """DSIN's session interest interacting layer: an LSTM each way over the sessions, averaged.

    As the released code merges them. Sessions come latest first.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.onward = nn.LSTM(width, width, batch_first=True)  # hold the weights
        self.homeward = nn.LSTM(width, width, batch_first=True)

    def forward(self, x: Tensor, t: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return states BLD, latest first, and their mask."""
        out = x.new_zeros(())
        with _whole(x):
            steps = laid_out(mask)
            for each, turned in ((self.onward, True), (self.homeward, False)):
                of_input, of_state, *biases = each.all_weights[0]
                bias = biases[0] + biases[1]
                inputs = linear(steps.take(x.to(bias.dtype), turned), of_input, bias)
                out = out + steps.put(lstm(inputs, of_state, steps), turned)
        return out / 2, mask


class ReleasedBiLSTM(BiLSTM):
    """The same as TensorFlow 1's `LSTMCell` begins it.

    The weights' limit is PyTorch's, the biases are 0, but for the forget gate's: the cell adds 1.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width)
        for each in (self.onward, self.homeward):
            for bias in each.all_weights[0][2:]:
                nn.init.zeros_(bias)
            nn.init.ones_(bias[width : 2 * width])


RECURRENT = (GRUStates, ReleasedGRU, BiLSTM)


Draw = Callable[[Tensor, Tensor], Tensor]


class NextBehaviour(Unlearned):
    """DIEN's auxiliary loss (its Eq. 7): a state should tell the next behaviour from another one.

    The score is the inner product of state and behaviour. The original draws the other one from
    all items; here it is another row's of the batch.
    """

    def forward(self, state_BLD: Tensor, x_BLD: Tensor, mask_BL: Tensor, draw: Draw) -> Tensor:
        """Return each row's mean over its behaviours but the first, 0 where there is none; B."""
        longest = mask_BL.shape[1]
        cells = mask_BL.flatten().nonzero().squeeze(1)
        # Half the batch's behaviours away there is nearly always another row.
        others = cells.roll(len(cells) // 2)
        later = cells % longest > 0
        cell_M, other_M = cells[later], others[later]
        row_M = cell_M // longest
        states_ND, x_ND = state_BLD.flatten(0, 1), x_BLD.flatten(0, 1)
        state_MD = states_ND.index_select(0, cell_M - 1)
        right = softplus(-(state_MD * x_ND.index_select(0, cell_M)).sum(1))
        wrong = softplus((state_MD * x_ND.index_select(0, other_M)).sum(1))
        loss_M = right + wrong * (row_M != other_M // longest)
        total = loss_M.new_zeros(len(mask_BL)).index_add(0, row_M, loss_M)
        return total / (mask_BL.sum(1) - 1).clamp(min=1)


class NextByNet(nn.Module):
    """DIEN's auxiliary loss as its code, and TIN's released code, has it.

    The score of state and behaviour is a net's: [h, x] is scaled and shifted, then 100 and 50
    sigmoids and a number. Others are drawn from all items. The mean of a batch is over B (T - 1)
    cells, T its longest history, of which the padding's are 0: `training.loss` divides by T - 1.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = ScaleShift(2 * width)
        self.first = dense(2 * width, 100)
        self.rest = nn.Sequential(nn.Sigmoid(), dense(100, 50), nn.Sigmoid(), dense(50, 1))

    def forward(self, state_BLD: Tensor, x_BLD: Tensor, mask_BL: Tensor, draw: Draw) -> Tensor:
        """Return each row's sum over its behaviours but the first; B.

        Args:
            state_BLD: the context's states.
            x_BLD: the behaviours.
            mask_BL: which are real.
            draw: gives another behaviour for each of M rows and places, M x D.
        """
        row, place = mask_BL[:, 1:].nonzero(as_tuple=True)
        pairs = [
            torch.cat([state_BLD[row, place], other], 1)
            for other in (x_BLD[row, place + 1], draw(row, place + 1))
        ]
        right, wrong = self.rest(self.first(self.norm(torch.cat(pairs)))).squeeze(1).chunk(2)
        loss = softplus(-right) + softplus(wrong)
        return loss.new_zeros(len(mask_BL)).index_add(0, row, loss)
