"""The decoder that predicts the patches of one view from the encoder's tokens of all views."""

import torch
from einops import rearrange
from timm.layers.mlp import Mlp
from torch import Tensor, nn
from torch.nn import functional as F

from critical_periods.core.errors import UserError
from critical_periods.models.checks import check_sizes
from critical_periods.models.multi_view import blocks
from critical_periods.models.multi_view.blocks import LayerNorm
from critical_periods.models.multi_view.patches import fit_positions, sincos_positions


class ViewDecoder(nn.Module):
    """Predicts every patch of one view from the encoder's tokens of all views.

    Tokens are projected to the decoder's width, and e_n, the position of patch n plus the learned
    embedding of its view, is added. Queries are the tokens of the view, with a learned mask token m
    for hidden patches; the context is all visible tokens and the global ones:

        q_n = (token_n or m) + e_n,                 context = [visible tokens + e, global tokens],
        y = Attention(LN(q), LN(context)),          without a residual on the queries,
        y = y + MLP(LN(y)),  then blocks of self-attention over the view's patches,  then pixels.

    Source: MultiMAE (Bachmann et al. 2022), section 3.3. Modules have the names of its published
    checkpoints.

    Args:
        view: the view that is predicted.
        num_views: V.
        grid: rows and columns of patches, of which there are N.
        encoder_width: of the encoder's tokens.
        outputs: numbers predicted for a patch: C·p·p pixels.
        width: of the decoder's tokens.
        depth: blocks after the cross-attention; 0 is cross-attention only.
        heads: of every attention.
        mlp_ratio: width of the MLPs' hidden layers, in widths.

    Raises:
        UserError: a size is no whole number of at least one (zero for the depth), or the width is
            no multiple of the heads and of 4.

    Example:
        >>> decoder = ViewDecoder(1, 2, (2, 2), encoder_width=8, outputs=12, width=16, heads=2)
        >>> tokens = torch.randn(5, 3 + 1, 8)  # three patches and the global token
        >>> decoder(tokens, visible=torch.tensor([[0, 2, 7]]).expand(5, -1), grid=(2, 2)).shape
        torch.Size([5, 4, 12])
    """

    pos_emb: Tensor

    def __init__(
        self,
        view: int,
        num_views: int,
        grid: tuple[int, int],
        encoder_width: int,
        outputs: int,
        width: int = 256,
        depth: int = 2,
        heads: int = 8,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        check_sizes(encoder_width=encoder_width, outputs=outputs, width=width)
        if not isinstance(depth, int) or depth < 0:
            raise UserError(
                f"the depth of a decoder must be a whole number of at least 0, not {depth!r}."
            )
        self.view = view
        self.proj_context = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        self.task_embeddings = nn.ParameterDict(
            {f"view_{v}": nn.Parameter(torch.empty(1, 1, width)) for v in range(num_views)}
        )
        self.register_buffer("pos_emb", sincos_positions(width, *grid))
        self.query_norm, self.context_norm = LayerNorm(width), LayerNorm(width)
        self.decoder, self.out_norm = CrossAttention(width, heads), LayerNorm(width)
        self.mlp = Mlp(width, blocks.hidden_width(width, mlp_ratio))
        self.decoder_transformer = blocks.transformer_blocks(width, heads, mlp_ratio, [0.0] * depth)
        self.out_proj = nn.Linear(width, outputs)
        blocks.initialise(self)
        for parameter in (self.mask_token, *self.task_embeddings.values()):
            nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens: Tensor, visible: Tensor, grid: tuple[int, int]) -> Tensor:
        """Predicts all patches of the view, visible and hidden.

        Args:
            tokens: of the visible patches, in the order of ``visible``, then the global ones:
                [B, n + G, encoder_width].
            visible: places of the visible patches in the sequence of all, [B, n].
            grid: rows and columns of patches.

        Returns:
            [B, N, outputs].
        """
        context = self.proj_context(tokens)
        seen, shared = context[:, : visible.shape[1]], context[:, visible.shape[1] :]
        positions = fit_positions(self.pos_emb, *grid, mode="bilinear").flatten(2).mT
        embedding = torch.cat([positions + each for each in self.task_embeddings.values()], dim=1)
        place = visible[:, :, None].expand(-1, -1, context.shape[2])
        everything = self.mask_token.to(seen.dtype).expand(len(seen), embedding.shape[1], -1)
        everything = everything.scatter(1, place, seen) + embedding
        patches = positions.shape[1]
        queries = everything[:, self.view * patches : (self.view + 1) * patches]
        context = torch.cat([everything.gather(1, place), shared], dim=1)
        y: Tensor = self.decoder(self.query_norm(queries), self.context_norm(context))
        y = y + self.mlp(self.out_norm(y))
        return self.out_proj(self.decoder_transformer(y))


class CrossAttention(nn.Module):
    """Queries of one sequence attend to keys and values of another.

        softmax(Q K^T / √(width / heads)) V,  Q = queries W_q,  [K, V] = context W_kv,

    for each head, and a linear map of all heads together.

    Example:
        >>> CrossAttention(8, heads=2)(torch.randn(3, 5, 8), torch.randn(3, 2, 8)).shape
        torch.Size([3, 5, 8])
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, queries: Tensor, context: Tensor) -> Tensor:
        """Tokens [B, N, width] from queries [B, N, width] and context [B, M, width]."""
        q = rearrange(self.q(queries), "b n (h d) -> b h n d", h=self.heads)
        k, v = rearrange(self.kv(context), "b m (two h d) -> two b h m d", two=2, h=self.heads)
        attended = F.scaled_dot_product_attention(q, k, v)
        return self.proj(rearrange(attended, "b h n d -> b n (h d)"))
