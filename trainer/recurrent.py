"""Recurrent parts: GRU4Rec's and DIEN's states, DIEN's evolution and loss, DSIN's LSTM.

Shape legend: B rows, L places (padded on the right), D width, which every state has too.
`mask_BL` is true where a behaviour is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from trainer.parts import dense


def _pack(x_BLD: Tensor, length_B: Tensor) -> PackedSequence:  # noqa: N803
    """Lay the places one after another, without the padding: no step is computed for it.

    An empty row keeps one place, as a packed sequence must; nothing reads what comes of it.
    """
    lengths = length_B.clamp(min=1).cpu()
    return pack_padded_sequence(x_BLD, lengths, batch_first=True, enforce_sorted=False)


class GRUStates(nn.Module):
    """The states of a GRU over the history: GRU4Rec's context and DIEN's interest extractor.

    A state depends on what came before it only. In the padding, on the right, it is 0.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gru = nn.GRU(width, width, batch_first=True)

    def forward(self, x: Tensor, t: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return states BLD and their mask."""
        packed, _ = self.gru(_pack(x, mask.sum(1)))
        states, _ = pad_packed_sequence(packed, batch_first=True, total_length=mask.shape[1])
        return states, mask


class AUGRU(nn.Module):
    """Pool by a GRU whose update gates are scaled by the attention (DIEN, Eqs. 14 to 16).

    h_i = (1 - a_i u_i) h_(i-1) + a_i u_i n_i, from h_0 = 0. Where a_i = 0 the state stays as it is,
    so what follows a row's last weight above 0, padding that is, is not computed.
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
        places = torch.arange(1, x_BLD.shape[1] + 1, device=x_BLD.device)
        length_B = ((weight_BL != 0) * places).amax(1)  # noqa: N806
        packed = _pack(x_BLD, length_B)
        rows_at = packed.batch_sizes.tolist()
        inputs = self.of_input(packed.data).split(rows_at)
        weights = _pack(weight_BL.unsqueeze(2), length_B).data.split(rows_at)  # type: ignore[no-untyped-call]
        # The longest rows come first, so those that have ended are the last ones.
        h_BD = torch.zeros_like(x_BLD[:, 0])  # noqa: N806
        ended = []
        width = h_BD.shape[1]
        matrix, bias = self.of_state.weight.T, self.of_state.bias
        for x, a in zip(inputs, weights, strict=True):
            if len(x) < len(h_BD):
                ended.append(h_BD[len(x) :])
                h_BD = h_BD[: len(x)]  # noqa: N806
            state = torch.addmm(bias, h_BD, matrix)
            reset, update = torch.sigmoid(x[:, : 2 * width] + state[:, : 2 * width]).chunk(2, 1)
            candidate = torch.tanh(torch.addcmul(x[:, 2 * width :], reset, state[:, 2 * width :]))
            h_BD = torch.lerp(h_BD, candidate, a * update)  # noqa: N806
        return torch.cat([h_BD, *reversed(ended)])[packed.unsorted_indices]


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
        longest = mask_BL.shape[1]
        real = mask_BL.flatten().nonzero().squeeze(1)
        # Half the batch's behaviours away there is nearly always another row.
        other = real.roll(len(real) // 2)
        # For each cell the other behaviour's, and whether it is another row's.
        cell = torch.zeros_like(mask_BL, dtype=torch.long).flatten()
        cell[real] = other
        foreign = torch.zeros_like(mask_BL).flatten()
        foreign[real] = real // longest != other // longest
        other_BLD = x_BLD.flatten(0, 1).index_select(0, cell).view_as(x_BLD)  # noqa: N806
        state_BLD = state_BLD[:, :-1]  # noqa: N806
        right = softplus(-(state_BLD * x_BLD[:, 1:]).sum(2)) * mask_BL[:, 1:]
        wrong = softplus((state_BLD * other_BLD[:, 1:]).sum(2)) * foreign.view_as(mask_BL)[:, 1:]
        out: Tensor = (right + wrong).sum(1) / (mask_BL.sum(1) - 1).clamp(min=1)
        return out
