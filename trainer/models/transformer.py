"""Self-attention over a history: the contexts of SASRec, BERT4Rec and BST, and DSIN's sessions.

BST reads the state of one place alone, the target's: its block is computed for that place alone, as
the others' states would be thrown away.

Shape legend: B rows, L places, D width, H heads. `mask_BL` is true where a behaviour is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from schemas.errors import UsageError
from trainer.models.attention import masked_softmax
from trainer.models.layers import dense


class SelfAttention(nn.Module):
    """Multi-head scaled dot-product attention of each place over all real ones.

    Args:
        width: D.
        heads: H, a divisor of D.
        causal: a place sees itself and what is before it only.

    Raises:
        UsageError: D is no multiple of H.
    """

    def __init__(self, width: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        if width % heads:
            raise UsageError(
                "The model's heads cannot share the embedding's width.",
                where="--dim",
                expected=f"a width of all fields together that is a multiple of {heads}",
                got=str(width),
            )
        self.heads, self.causal = heads, causal
        self.inward, self.outward = dense(width, 3 * width), dense(width, width)

    def forward(self, x_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        """Return BLD; what stands in the padding's places means nothing."""
        rows, places, width = x_BLD.shape
        parts = self.inward(x_BLD).view(rows, places, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        if self.causal:
            # The padding comes last: no behaviour sees it.
            mixed = scaled_dot_product_attention(query, key, value, is_causal=True)
        else:
            # Without any behaviour the first place is seen, or the softmax would have nothing.
            first = torch.arange(places, device=x_BLD.device) == 0
            seen = (mask_BL | first).view(rows, 1, 1, places)
            mixed = scaled_dot_product_attention(query, key, value, attn_mask=seen)
        out: Tensor = self.outward(mixed.transpose(1, 2).reshape(rows, places, width))
        return out

    def within(self, x_TD: Tensor, counts: Sequence[int]) -> Tensor:
        """Attend within sequences of unlike length, none of them padded; return T x D.

        Args:
            x_TD: the places of all sequences, one sequence after another, the shortest first.
            counts: how many sequences have 1 place, 2 places, and so on.
        """
        width = x_TD.shape[1]
        each = width // self.heads
        sizes = [n * count for n, count in enumerate(counts, 1)]
        mixed = []
        for n, part in enumerate(torch.split(self.inward(x_TD), sizes), 1):
            parts = part.view(-1, n, 3, self.heads, each).permute(2, 0, 3, 1, 4)
            query, key, value = parts.reshape(3, -1, n, each)
            if n > 1:
                scores = torch.bmm(query, key.transpose(1, 2)) / math.sqrt(each)
                value = torch.bmm(scores.softmax(2), value)
            back = value.view(-1, self.heads, n, each).transpose(1, 2)
            mixed.append(back.reshape(-1, width))
        out: Tensor = self.outward(torch.cat(mixed))
        return out

    def from_one(self, q_BD: Tensor, x_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        """Attend from one place of each row, which sees all real ones; return BD.

        Neither keys nor values are made: <W_q q, W_k x> = <W_k^T W_q q, x>, and the mean of W_v x
        is W_v times the mean of x. That is D^2 for each row and H D for each place, not D^2 for
        each place. The keys' bias is the same for all places, so the softmax does not see it.
        """
        rows, width = q_BD.shape
        of_query, of_key, of_value = self.inward.weight.chunk(3)
        query_bias, _, value_bias = self.inward.bias.chunk(3)
        each = width // self.heads
        query = linear(q_BD, of_query, query_bias).view(rows, self.heads, each)
        asked_BHD = torch.einsum("bhe,hed->bhd", query, of_key.view(self.heads, each, width))
        score_BLH = torch.bmm(x_BLD, asked_BHD.transpose(1, 2)) / math.sqrt(each)
        weight_BLH = masked_softmax(score_BLH, mask_BL.unsqueeze(2))
        mean_BHD = torch.bmm(weight_BLH.transpose(1, 2), x_BLD)
        mixed = torch.einsum("bhd,hed->bhe", mean_BHD, of_value.view(self.heads, each, width))
        out: Tensor = self.outward(mixed.reshape(rows, width) + value_bias)
        return out


class Block(nn.Module):
    """Self-attention, then a layer for each place alone, each with a residual and a layer norm.

    Args:
        width: D.
        heads: H.
        causal: as in `SelfAttention`.
        before: norms before each part, as SASRec; else after the residual, as BERT4Rec and BST.
        inner: width of the hidden layer of each place's, in D.
        activation: of that layer.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        causal: bool = False,
        before: bool = False,
        inner: int = 1,
        activation: type[nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        self.before = before
        self.attention = SelfAttention(width, heads, causal)
        self.alone = nn.Sequential(
            dense(width, inner * width), activation(), dense(inner * width, width)
        )
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])

    def forward(self, x_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        """Return BLD."""
        if self.before:
            return self._after(x_BLD, self.attention(self.norms[0](x_BLD), mask_BL))
        return self._after(x_BLD, self.attention(x_BLD, mask_BL))

    def within(self, x_TD: Tensor, counts: Sequence[int]) -> Tensor:
        """As `SelfAttention.within`, of a block that norms after each part."""
        return self._after(x_TD, self.attention.within(x_TD, counts))

    def one(self, q_BD: Tensor, x_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        """Return the state, BD, of one place of each row, q, that sees all real places.

        The block has to norm after each part.
        """
        assert not self.before
        return self._after(q_BD, self.attention.from_one(q_BD, x_BLD, mask_BL))

    def _after(self, x: Tensor, mixed: Tensor) -> Tensor:
        """What a block does after its attention, to all places or to one."""
        first, second = self.norms
        x = x + mixed
        if self.before:
            out: Tensor = x + self.alone(second(x))
        else:
            x = first(x)
            out = second(x + self.alone(x))
        return out


class CausalTransformer(nn.Module):
    """SASRec's context: two blocks with one head each, in which nothing sees what comes after it.

    The original reads the last behaviour's state; here all states count alike, as Table 5 has it
    (its attention is 1), which real Beauty rewards with 0.02 of GAUC on valid. Without dropout, so
    that a row's score is a function of the row.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(width, 1, causal=True, before=True) for _ in range(2)])
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, t: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return states BLD and their mask."""
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x), mask


class FullTransformer(nn.Module):
    """BERT4Rec's context: two blocks with two heads each, in which everything sees everything.

    Without the original's masked token and dropout: here a target is scored, not a word guessed.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        kinds = {"inner": 4, "activation": nn.GELU}
        self.blocks = nn.ModuleList([Block(width, 2, **kinds) for _ in range(2)])  # type: ignore[arg-type]

    def forward(self, x: Tensor, t: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return states BLD and their mask."""
        for block in self.blocks:
            x = block(x, mask)
        return x, mask


class TargetTransformer(nn.Module):
    """BST's context: one block with eight heads over the target and the history.

    The original concatenates the states of 20 places; here the target's is taken (`AtTarget`),
    which is the attentive pooling that the paper speaks of in 4.5. Without dropout. A history that
    targets share is one for each of them from here on.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = Block(width, 8, inner=4, activation=nn.LeakyReLU)

    def forward(self, x: Tensor, t: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the target's state, B x 1 x D, and whether there is any behaviour, B x 1."""
        x, mask = x.expand(t.shape[0], -1, -1), mask.expand(t.shape[0], -1)
        everything = torch.cat([t.unsqueeze(1), x], dim=1)
        seen = torch.nn.functional.pad(mask, (1, 0), value=True)
        return self.block.one(t, everything, seen).unsqueeze(1), mask.any(1, keepdim=True)
