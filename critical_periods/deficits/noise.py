"""Noise: images replaced by Gaussian noise, the model of sensory deprivation."""

import torch
from torch import Tensor

from critical_periods.core.errors import UserError
from critical_periods.core.whole_batch import WholeBatch
from critical_periods.deficits.deficit import Deficit


class GaussianNoise(Deficit):
    """Every pixel replaced by independent noise N(0, 1), drawn anew at each call.

    Mean and variance are those of normalised images, so a DataModule applies it after normalising.

    Source: Achille, Rovere & Soatto (ICLR 2019), sensory deprivation.

    Raises:
        UserError: (by ``check``) the images are whole numbers, not normalised ones.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> noise = GaussianNoise().degrade(torch.ones(64, 3, 32, 32), generator)
        >>> abs(noise.mean().item()) < 0.01, abs(noise.var().item() - 1) < 0.01
        (True, True)
    """

    needs_images = False

    def degrade(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Noise of the shape and type of the images, [N, C, H, W]."""
        if not images.is_floating_point():
            raise UserError(
                f"GaussianNoise replaces normalised images, but these are {images.dtype}; "
                "normalise them before the deficit."
            )
        whole = WholeBatch(len(images), generator)
        drawn = torch.randn(
            whole.rows, *images.shape[1:],
            generator=whole.generator, device=images.device, dtype=images.dtype,
        )  # fmt: skip
        return whole.part(drawn)
