"""Where a network looks: Grad-CAM, and the share of a map's energy in a region."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from critical_periods.core.errors import UserError


def grad_cam(
    network: nn.Module, layer: str | nn.Module, inputs: Sequence[Tensor], classes: Tensor
) -> Tensor:
    """Grad-CAM of each sample's class, by torchcam (extra ``maps``), scaled to the pictures.

        M = ReLU(Σ_k a_k A_k),   a_k = mean over places of d logit / d A_k

    Selvaraju et al., *Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization* (ICCV 2017).

    Args:
        network: in the mode that it is in; takes one tensor [B, C, H, W] a view.
        layer: whose channels A are [B, K, h, w], or its name as ``named_modules`` has it.
        inputs: the views.
        classes: whose logits, [B].

    Returns:
        M, not negative and not normalised, bilinear, [B, H, W].

    Raises:
        UserError: torchcam is not installed, or the layer's output is no map.
    """
    try:
        from torchcam.methods import GradCAM
    except ImportError:
        raise UserError(
            "Grad-CAM needs the package torchcam; pip install 'critical-periods[maps]'."
        ) from None
    with torch.enable_grad(), GradCAM(network, layer) as cam:
        logits = network(*(view.detach().requires_grad_() for view in inputs))
        (maps,) = cam(classes.tolist(), logits, normalized=False)
    if maps.ndim != 3:
        name = repr(layer) if isinstance(layer, str) else f"a {type(layer).__name__}"
        raise UserError(f"layer={name} gives no maps [B, K, h, w]; choose a convolutional one.")
    return enlarged(maps, inputs[0])


def enlarged(maps: Tensor, pictures: Tensor) -> Tensor:
    """Maps [B, h, w] in the size of pictures [B, C, H, W], bilinear: [B, H, W]."""
    size = pictures.shape[-2:]
    return F.interpolate(maps[:, None].float(), size, mode="bilinear", align_corners=False)[:, 0]


def energy_share(maps: Tensor, masks: Tensor) -> Tensor:
    """The share of each map's sum that lies in a region, over the region's share of the area.

    1 where the network looks no more there than anywhere else. The sum is the energy of the
    pointing game of Wang et al., *Score-CAM* (CVPR workshops 2020).

    Args:
        maps: not negative, [B, H, W].
        masks: the region of each, bool [B, H, W].

    Returns:
        [B]; nan where a map is zero or a region empty.

    Example:
        >>> maps = torch.tensor([[[1.0, 0.0], [0.0, 3.0]]])
        >>> energy_share(maps, torch.tensor([[[False, False], [False, True]]]))
        tensor([3.])
    """
    inside = (maps * masks).sum((1, 2)) / maps.sum((1, 2))
    return inside / masks.float().mean((1, 2))
