"""DSIN's sessions: cut, told apart by a bias, and each made one interest.

Shape legend: B rows, L history (padded), M sessions, latest first, of K behaviours each, oldest
first, C = M K cells, T behaviours in all sessions of the batch, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.data.batches import HISTORY, LENGTH, SESSION, SESSION_LENGTH, Batch
from trainer.data.inputs import HistoryInputs
from trainer.models.transformer import Block

_DERIVED = (5, 10)  # DSIN's released code


class SessionCells(nn.Module):
    """Where the sessions' behaviours come from: the `session_` columns, or else the history.

    From the history come its latest M sessions, by `history_session`, and the latest K behaviours
    of each. DSIN drops sessions of at most 2 behaviours, and so do the `session_` columns; here
    they stay, for a history of few days would hardly keep any.

    Args:
        one: tells whether the shards have `session_` columns, and their M and K.

    Attributes:
        prefix: of the columns whose ids are the behaviours.
        columns: the shards' columns that it reads beside those.
        shape: M and K.
    """

    def __init__(self, one: HistoryInputs) -> None:
        super().__init__()
        self.stored = one.sessions is not None
        self.shape = one.sessions or _DERIVED
        self.prefix = SESSION if self.stored else HISTORY
        self.columns = (SESSION_LENGTH,) if self.stored else (f"{HISTORY}session",)

    def forward(self, batch: Batch, names: tuple[str, ...]) -> tuple[Batch, Tensor]:
        """Pick the sessions' behaviours, T over all rows: by row, session and age, without padding.

        An exported graph does not know T, and has all B C cells.

        Args:
            names: columns with `prefix`.

        Returns:
            Those columns, T each (a graph: B x C), and the length of each session, B x M.
        """
        found = {name: batch[name] for name in names}
        if self.stored:
            length_BM = batch[SESSION_LENGTH]
        else:
            source_BC, length_BM = self.derive(batch[f"{HISTORY}session"], batch[LENGTH])
            found = {name: ids.gather(1, source_BC) for name, ids in found.items()}
        if torch.compiler.is_exporting():
            return found, length_BM
        real_BC = _real(length_BM, self.shape[1]).flatten(1)
        return {name: ids[real_BC] for name, ids in found.items()}, length_BM

    def derive(self, session_BL: Tensor, length_B: Tensor) -> tuple[Tensor, Tensor]:
        """Find the behaviour of each cell, B x C (0 where none is), and the lengths, B x M."""
        count, most = self.shape
        rows, longest = session_BL.shape
        places = torch.arange(longest, device=session_BL.device)
        real = places < length_B.unsqueeze(1)
        # Sessions from 0, latest first; `count` takes the padding and what is too old.
        which = torch.where(real, session_BL.long() - 1, count).clamp(0, count)
        sizes = torch.zeros(rows, count + 1, dtype=torch.long, device=which.device)
        sizes.scatter_add_(1, which, torch.ones_like(which))
        sizes[:, count] = 0
        newer = sizes.cumsum(1) - sizes
        # Behaviours of the same session after this one.
        after = length_B.unsqueeze(1).long() - 1 - places - newer.gather(1, which)
        length_BC = sizes.clamp(max=most)
        kept = (which < count) & (after < most)
        cell = which * most + length_BC.gather(1, which) - 1 - after
        cell = torch.where(kept, cell, count * most)
        source = torch.zeros(rows, count * most + 1, dtype=torch.long, device=which.device)
        source.scatter_(1, cell, places.expand(rows, -1))
        return source[:, :-1], length_BC[:, :-1]


def _real(length_BM: Tensor, most: int) -> Tensor:
    """Which of the cells hold a behaviour, B x M x K."""
    return torch.arange(most, device=length_BM.device) < length_BM.unsqueeze(2)


def _mean(x_BMKD: Tensor, real_BMK: Tensor) -> Tensor:
    """The mean of each session's behaviours, B x M x D; 0 of none."""
    real = real_BMK.unsqueeze(3)
    return (x_BMKD * real).sum(2) / real.sum(2).clamp(min=1)


class SessionInterests(nn.Module):
    """DSIN's session interest extractor: bias encoding, self-attention in each session, the mean.

    The bias of cell (m, k) in unit d is the sum of one number for each (DSIN, Eq. 2). Sessions are
    counted from the latest here, from the oldest there. Eight heads, without dropout.

    Args:
        width: D.
        shape: M and K.
    """

    def __init__(self, width: int, shape: tuple[int, int]) -> None:
        super().__init__()
        count, most = shape
        self.of_session = nn.Parameter(torch.zeros(count, 1, 1))
        self.of_place = nn.Parameter(torch.zeros(most, 1))
        self.of_unit = nn.Parameter(torch.zeros(width))
        self.block = Block(width, 8, inner=4)

    def forward(self, x_TD: Tensor, length_BM: Tensor) -> tuple[Tensor, Tensor]:
        """Make each session's behaviours one interest.

        Args:
            x_TD: the behaviours of all sessions, one session after another, oldest first; in an
                exported graph all cells.
            length_BM: the length of each session.

        Returns:
            Interests B x M x D, 0 where there is no session, and their mask.
        """
        there = length_BM > 0
        if torch.compiler.is_exporting():
            real_BMK = _real(length_BM, len(self.of_place))
            x_BMKD = x_TD.view(*real_BMK.shape, -1) + self.of_session + self.of_place + self.of_unit
            mixed = self.block(x_BMKD.flatten(0, 1), real_BMK.flatten(0, 1)).view_as(x_BMKD)
            return _mean(mixed, real_BMK), there
        # S sessions over all rows, the shortest first: then nothing is padded.
        cell_S = there.flatten().nonzero().squeeze(1)
        length_S, order_S = length_BM.flatten()[cell_S].long().sort(stable=True)
        cell_S = cell_S[order_S]
        which_T = torch.repeat_interleave(length_S)
        place_T = torch.arange(len(x_TD), device=x_TD.device)
        place_T = place_T - (length_S.cumsum(0) - length_S)[which_T]
        begin_S = (length_BM.flatten().cumsum(0) - length_BM.flatten())[cell_S]
        x_TD = x_TD[begin_S[which_T] + place_T]
        of_session = self.of_session.flatten()[cell_S % there.shape[1]][which_T].unsqueeze(1)
        x_TD = x_TD + of_session + self.of_place[place_T] + self.of_unit
        if len(length_S):
            x_TD = self.block.within(x_TD, torch.bincount(length_S)[1:].tolist())
        mean_SD = x_TD.new_zeros(len(cell_S), x_TD.shape[1]).index_add(0, which_T, x_TD)
        mean_SD = mean_SD / length_S.unsqueeze(1)
        interests = mean_SD.new_zeros(there.numel(), x_TD.shape[1]).index_copy(0, cell_S, mean_SD)
        return interests.view(*there.shape, -1), there


class MeanOfSession(nn.Module):
    """TIN's released DSIN: a session's interest is the mean of its behaviours and their places.

    Its self-attention runs the softmax over the looking places, and its outcome is summed over the
    same places: of n behaviours each weighs 1/n. To a behaviour it adds a vector for its session
    and one for its place there, both counted from the latest.

    Args:
        width: D.
        shape: M and K.
    """

    def __init__(self, width: int, shape: tuple[int, int]) -> None:
        super().__init__()
        count, most = shape
        self.of_session = nn.Parameter(torch.empty(count, width))
        self.of_place = nn.Parameter(torch.empty(most, width))
        nn.init.xavier_uniform_(self.of_session)
        nn.init.xavier_uniform_(self.of_place)

    def forward(self, x_TD: Tensor, length_BM: Tensor) -> tuple[Tensor, Tensor]:
        """As `SessionInterests`."""
        there = length_BM > 0
        if torch.compiler.is_exporting():
            real_BMK = _real(length_BM, len(self.of_place))
            # A session of n behaviours has each of the places 1..n from the latest once.
            x_BMKD = x_TD.view(*real_BMK.shape, -1) + self.of_place
            return _mean(x_BMKD, real_BMK) + self.of_session * there.unsqueeze(2), there
        cell_S = there.flatten().nonzero().squeeze(1)
        length_S = length_BM.flatten()[cell_S].long()
        which_T = torch.repeat_interleave(length_S)
        sum_SD = x_TD.new_zeros(len(length_S), x_TD.shape[1]).index_add(0, which_T, x_TD)
        # A session of n behaviours has each of the places 1..n from the latest once.
        sum_SD = sum_SD + self.of_place.cumsum(0)[length_S - 1]
        mean_SD = sum_SD / length_S.unsqueeze(1) + self.of_session[cell_S % there.shape[1]]
        interests = mean_SD.new_zeros(there.numel(), x_TD.shape[1]).index_copy(0, cell_S, mean_SD)
        return interests.view(*there.shape, -1), there
