"""The base class of the networks of this package."""

from __future__ import annotations

from torch import nn


class Network(nn.Module):
    """A module of one tensor [B, C, H, W] a view that gives logits [B, num_classes].

    It adds nothing to ``nn.Module``, any of which may be used in its place, but lets configs name
    this package's networks by short names, even where torchvision has the same one.
    """
