"""Recurrent parts: GRU4Rec's and DIEN's states, DIEN's evolution and loss, DSIN's LSTM.

Shape legend: B rows, L places (padded on the right), D width, which every state has too.
`mask_BL` is true where a behaviour is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from trainer.parts import dense


class GRUStates(nn.Module):
    """The states of a GRU over the history: GRU4Rec's context and DIEN's interest extractor.

    A state depends on what came before it only, so padding on the right changes none.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gru = nn.GRU(width, width, batch_first=True)

    def forward(self, x: Tensor, t: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return states BLD and their mask."""
        states, _ = self.gru(x)
        return states, mask


class AUGRU(nn.Module):
    """Pool by a GRU whose update gates are scaled by the attention (DIEN, Eqs. 14 to 16).

    h_i = (1 - a_i u_i) h_(i-1) + a_i u_i n_i, from h_0 = 0. In the padding a_i = 0 leaves the state
    as it is, so the last state is that of the last behaviour.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        # Reset, update and candidate, each D wide.
        self.of_input, self.of_state = dense(width, 3 * width), dense(width, 3 * width)

    def forward(self, x_BLD: Tensor, weight_BL: Tensor) -> Tensor:  # noqa: N803
        """Return the last state, BD."""
        # In float32 whatever autocast says: rounding would add up over the history.
        with torch.autocast(x_BLD.device.type, enabled=False):
            kind = self.of_state.weight.dtype
            return self._last_state(x_BLD.to(kind), weight_BL.to(kind))

    def _last_state(self, x_BLD: Tensor, weight_BL: Tensor) -> Tensor:  # noqa: N803
        inputs = self.of_input(x_BLD).unbind(1)
        weights = weight_BL.unsqueeze(2).unbind(1)
        h_BD = torch.zeros_like(x_BLD[:, 0])  # noqa: N806
        width = h_BD.shape[1]
        matrix, bias = self.of_state.weight.T, self.of_state.bias
        for x, a in zip(inputs, weights, strict=True):
            state = torch.addmm(bias, h_BD, matrix)
            reset, update = torch.sigmoid(x[:, : 2 * width] + state[:, : 2 * width]).chunk(2, 1)
            candidate = torch.tanh(torch.addcmul(x[:, 2 * width :], reset, state[:, 2 * width :]))
            h_BD = torch.lerp(h_BD, candidate, a * update)  # noqa: N806
        return h_BD


class BiLSTM(nn.Module):
    """DSIN's session interest interacting layer: an LSTM each way over the sessions, averaged.

    As the released code merges them. Sessions come latest first.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.onward = nn.LSTM(width, width, batch_first=True)
        self.homeward = nn.LSTM(width, width, batch_first=True)

    def forward(self, x: Tensor, t: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return states BLD, latest first, and their mask."""
        places = torch.arange(x.shape[1], device=x.device)
        # Turned within the real sessions, so that each direction meets the padding last.
        turned = (mask.sum(1, keepdim=True) - 1 - places).clamp(min=0).unsqueeze(2).expand_as(x)
        onward, _ = self.onward(x.gather(1, turned))
        backward, _ = self.homeward(x)
        return (onward.gather(1, turned) + backward) / 2, mask


class NextBehaviour(nn.Module):
    """DIEN's auxiliary loss (its Eq. 7): a state should tell the next behaviour from another one.

    The score is the inner product of state and behaviour. The original draws the other one from
    all items; the shards hold no such draws, so here it is another row's of the batch.
    """

    def forward(self, state_BLD: Tensor, x_BLD: Tensor, mask_BL: Tensor) -> Tensor:  # noqa: N803
        """Return each row's mean over its behaviours but the first, 0 where there is none; B."""
        rows, places = mask_BL.nonzero(as_tuple=True)
        count = len(rows)
        x_TD = x_BLD[rows, places]  # noqa: N806
        # Half the batch's behaviours away there is nearly always another row.
        shift = count // 2
        other_TD, owner = x_TD.roll(shift, 0), rows.roll(shift, 0)  # noqa: N806
        later = places > 0
        state_TD = state_BLD[rows[later], places[later] - 1]  # noqa: N806
        right = softplus(-(state_TD * x_TD[later]).sum(1))
        wrong = softplus((state_TD * other_TD[later]).sum(1)) * (owner != rows)[later]
        sums = torch.zeros_like(state_BLD[:, 0, 0]).index_add(0, rows[later], right + wrong)
        out: Tensor = sums / (mask_BL.sum(1) - 1).clamp(min=1)
        return out
