"""What all networks of this package are."""

from __future__ import annotations

from torch import nn


class Network(nn.Module):
    """A module of one tensor [B, C, H, W] a view that gives logits [B, num_classes].

    It adds nothing to ``nn.Module``, which serves as well everywhere; a common base lets configs
    name this package's networks by their short names, even where torchvision has the same one.
    """
