"""The transformer for several views: MultiMAE's encoder for images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import torch
from einops import rearrange
from torch import Tensor, nn

from critical_periods.core.errors import UserError, near
from critical_periods.models.checks import check_sizes, check_views
from critical_periods.models.multi_view.blocks import LayerNorm, initialise, transformer_blocks
from critical_periods.models.multi_view.decoder import ViewDecoder
from critical_periods.models.multi_view.patches import fit_positions, patch_grid, sincos_positions
from critical_periods.models.multi_view.weights import encoder_weights
from critical_periods.models.network import Network

Size = Literal["tiny", "small", "base", "large"]

# Width, blocks and heads: the sizes of the ViT (Dosovitskiy et al. 2021; Touvron et al. 2021).
_SIZES: dict[str, tuple[int, int, int]] = {
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
}


class MultiViewTransformer(Network):
    """A vision transformer over the patches of all views and a few global tokens.

    Each view has a patch projection of its own; positions are fixed sines and cosines, the same in
    every view. With P_v the projected patches of view v and g the global tokens,

        tokens = Encoder([P_0 + positions, …, P_(V-1) + positions, g])

    and, for classification, logits = Linear(LN(mean of all tokens)); there is no norm between. The
    encoder may be given a part of the patches alone (``visible``), as by
    :class:`~critical_periods.tasks.MaskedReconstructionTask`. With the defaults there are
    86,245,642 parameters, 85,054,464 of them in the encoder.

    Source: MultiMAE (Bachmann et al. 2022) with RGB views, as used in Kleinman, Achille & Soatto
    (CVPR 2023), A.7: ViT-B, patch 16, one global token. Modules have the names of its published
    checkpoints (``input_adapters``, ``encoder``, ``global_tokens``); blocks are timm's.

    Args:
        size: "tiny", "small", "base" or "large".
        width: of a token, in place of that of ``size``.
        depth: blocks, in place of those of ``size``.
        heads: of each attention, in place of those of ``size``.
        patch: side of a patch in pixels.
        image_size: side of the images, or (height, width). Others are taken too, with positions
            interpolated.
        num_views: V.
        num_classes: how many logits.
        in_channels: channels of a view.
        global_tokens: G.
        drop_path: probability that a sample skips the attention, or the MLP, of the last block,
            rising linearly from 0 in the first (0.1 when fine-tuning).
        mlp_ratio: width of the MLPs' hidden layers, in widths.
        weights: a checkpoint of a ``MaskedReconstructionTask``, or a published one of MultiMAE
            (whose weights are CC BY-NC 4.0: not for commercial use), that the encoder starts from;
            the classifier starts anew. See
            :func:`~critical_periods.models.multi_view.weights.encoder_weights`. To build the
            decoders of a state dict too, see
            :func:`~critical_periods.models.multi_view.published.from_state_dict`.
        weights_views: the views whose patch projection starts from ``weights``; all by default.

    Raises:
        UserError: there is no such size, a number does not suit, or the weights do not.

    Attributes:
        classifier: the norm and the linear map on top, which pre-training leaves alone.
        grid: rows and columns of patches of an image of ``image_size``.
        attention_heads: of each attention.

    Example:
        >>> network = MultiViewTransformer(width=24, depth=2, heads=3, patch=8, image_size=32)
        >>> views = torch.randn(2, 5, 3, 32, 32)
        >>> network(*views).shape
        torch.Size([5, 10])
        >>> network.encode(views).shape  # 2 views of 16 patches, and the global token
        torch.Size([5, 33, 24])
        >>> network.encode(views, visible=torch.tensor([[0, 3, 20]]).expand(5, -1)).shape
        torch.Size([5, 4, 24])
    """

    def __init__(
        self,
        size: Size = "base",
        width: int | None = None,
        depth: int | None = None,
        heads: int | None = None,
        patch: int = 16,
        image_size: int | tuple[int, int] = 224,
        num_views: int = 2,
        num_classes: int = 10,
        in_channels: int = 3,
        global_tokens: int = 1,
        drop_path: float = 0.0,
        mlp_ratio: float = 4.0,
        weights: str | Path | None = None,
        weights_views: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if size not in _SIZES:
            raise UserError(
                f"size={size!r} of MultiViewTransformer is unknown; {near(size, get_args(Size))}"
            )
        if not 0 <= drop_path < 1:
            raise UserError(f"drop_path={drop_path} of MultiViewTransformer must lie in [0, 1).")
        given, usual = (width, depth, heads), _SIZES[size]
        width, depth, heads = (u if g is None else g for g, u in zip(given, usual, strict=True))
        check_sizes(width=width, depth=depth, heads=heads, patch=patch, global_tokens=global_tokens)
        check_sizes(num_views=num_views, num_classes=num_classes, in_channels=in_channels)
        sides = (image_size, image_size) if isinstance(image_size, int) else image_size
        for side in sides:
            check_sizes(image_size=side)
        self.width, self.patch = width, patch
        self.in_channels, self.num_views = in_channels, num_views
        self.grid = patch_grid(torch.empty(*sides, device="meta"), patch)
        self.input_adapters = nn.ModuleDict()
        for view in range(num_views):
            adapter = PatchEmbedding(width, patch, in_channels, self.grid)
            self.input_adapters[f"view_{view}"] = adapter
        self.global_tokens = nn.Parameter(torch.empty(1, global_tokens, width))
        rates = [drop_path * block / max(1, depth - 1) for block in range(depth)]
        # Not "heads", which would mean several heads of logits.
        self.attention_heads = heads
        self.encoder = transformer_blocks(width, heads, mlp_ratio, rates)
        self.classifier = nn.Sequential(LayerNorm(width), nn.Linear(width, num_classes))
        initialise(self)
        for parameter in (self.global_tokens, self.classifier[1].weight):
            nn.init.normal_(parameter, std=0.02)  # type: ignore[arg-type]
        if weights is not None:
            state = self.state_dict()
            loaded = encoder_weights(weights, state, num_views, heads, weights_views)
            self.load_state_dict(loaded, strict=False)

    def encode(self, views: Sequence[Tensor] | Tensor, visible: Tensor | None = None) -> Tensor:
        """Tokens of the visible patches and the global tokens.

        Args:
            views: one tensor [B, C, H, W] a view.
            visible: places of the patches to encode in the sequence of all, [B, n]: patch i of
                view v is at v·N + i. All by default. Their order is that of the tokens, and
                changes nothing else.

        Returns:
            [B, n + G, width], the global tokens last.

        Raises:
            UserError: there are not as many views as the network takes, or patches do not fill
                them.
        """
        check_views(type(self).__name__, len(views), self.num_views)
        pairs = zip(self.input_adapters.values(), views, strict=True)
        tokens = torch.cat([adapter(view) for adapter, view in pairs], dim=1)
        if visible is not None:
            tokens = tokens.gather(1, visible[:, :, None].expand(-1, -1, tokens.shape[2]))
        shared = self.global_tokens.to(tokens.dtype).expand(len(tokens), -1, -1)
        encoded: Tensor = self.encoder(torch.cat([tokens, shared], dim=1))
        return encoded

    def forward(self, *views: Tensor) -> Tensor:
        """Logits [B, num_classes] of one tensor [B, C, H, W] a view; raises as :meth:`encode`."""
        logits: Tensor = self.classifier(self.encode(views).mean(1))
        return logits

    def make_decoder(
        self, view: int, width: int = 256, depth: int = 2, heads: int = 8, mlp_ratio: float = 4.0
    ) -> ViewDecoder:
        """A new decoder of this network's tokens, with the arguments of :class:`.ViewDecoder`."""
        outputs = self.in_channels * self.patch**2
        sizes = (self.width, outputs, width, depth, heads, mlp_ratio)
        return ViewDecoder(view, self.num_views, self.grid, *sizes)

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """The layers from bottom to top, in timm's form: the input, each block, the classifier."""
        return {"stem": r"^global_tokens|^input_adapters", "blocks": r"^encoder\.(\d+)"}


class PatchEmbedding(nn.Module):
    """A linear map of each patch of a view, plus the patch's position.

    Args:
        width: of a token.
        patch: side of a patch in pixels, which must fill the view.
        in_channels: channels of the view.
        grid: rows and columns of patches of the usual image.

    Example:
        >>> PatchEmbedding(8, patch=4, in_channels=3, grid=(2, 2))(torch.zeros(5, 3, 8, 8)).shape
        torch.Size([5, 4, 8])
    """

    pos_emb: Tensor

    def __init__(self, width: int, patch: int, in_channels: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(in_channels, width, patch, stride=patch)
        self.register_buffer("pos_emb", sincos_positions(width, *grid))

    def forward(self, view: Tensor) -> Tensor:
        """Tokens [B, N, width] of a view [B, C, H, W], row by row."""
        tokens = self.proj(view) + fit_positions(self.pos_emb, *patch_grid(view, self.patch))
        return rearrange(tokens, "b d h w -> b (h w) d")
