"""Self-attention over a history: the contexts of SASRec, BERT4Rec and BST, and DSIN's sessions.

Shape legend: B rows, L places, D width, H heads. `mask_BL` is true where a behaviour is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from schemas.errors import UsageError
from trainer.parts import dense


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

    def forward(self, x_BLD: Tensor, mask_BL: Tensor) -> Tensor:  # noqa: N803
        """Return BLD; what stands in the padding's places means nothing."""
        rows, places, width = x_BLD.shape
        parts = self.inward(x_BLD).view(rows, places, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        # Each place sees itself at least, or padding would give the softmax nothing.
        diagonal = torch.eye(places, dtype=torch.bool, device=x_BLD.device)
        seen = mask_BL.view(rows, 1, 1, places) | diagonal
        if self.causal:
            seen = seen & diagonal.new_ones(places, places).tril()
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=seen)
        out: Tensor = self.outward(mixed.transpose(1, 2).reshape(rows, places, width))
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

    def forward(self, x_BLD: Tensor, mask_BL: Tensor) -> Tensor:  # noqa: N803
        """Return BLD."""
        first, second = self.norms
        if self.before:
            x_BLD = x_BLD + self.attention(first(x_BLD), mask_BL)  # noqa: N806
            out: Tensor = x_BLD + self.alone(second(x_BLD))
        else:
            x_BLD = first(x_BLD + self.attention(x_BLD, mask_BL))  # noqa: N806
            out = second(x_BLD + self.alone(x_BLD))
        return out


class CausalTransformer(nn.Module):
    """SASRec's context: two blocks with one head each, in which nothing sees what comes after it.

    Without the original's dropout, so that a row's score is a function of the row.
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
    which is the attentive pooling that the paper speaks of in 4.5. Without dropout.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = Block(width, 8, inner=4, activation=nn.LeakyReLU)

    def forward(self, x: Tensor, t: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return states of the target, then the behaviours, B x (1 + L) x D, and their mask."""
        x = torch.cat([t.unsqueeze(1), x], dim=1)
        mask = torch.nn.functional.pad(mask, (1, 0), value=True)
        return self.block(x, mask), mask
