"""RandAugment, the same for all frames of a sample."""

import random
from collections.abc import Sequence

import numpy as np
from PIL import Image
from pytorch_lightning.utilities.seed import isolate_rng
from timm.data.auto_augment import rand_augment_transform

# ImageNet's mean colour fills what a rotation or a shear lets in.
_FILL = (124, 116, 104)
# At 10 posterisation would leave no bit, a black picture, which Pillow 13 refuses to draw.
_STRONGEST = 9.99


def rand_augment(images: Sequence[Image.Image], magnitude: int, seed: int) -> list[Image.Image]:
    """Two operations, drawn once and done to every frame of a sample.

    Each is one of timm's 15 (contrast, rotation, posterisation, ...), skipped half of the time,
    with a strength from a normal distribution around the magnitude whose standard deviation is
    0.5, and more severe where that is larger: timm's ``rand-m{magnitude}-mstd0.5-inc1``, with
    which MAE and MultiMAE are fine-tuned at magnitude 9. (Cubuk et al. 2020; Bachmann et al. 2022;
    Kleinman et al. 2023, A.7, follows the latter.)

    Args:
        images: the frames, RGB, of one size.
        magnitude: m, a whole number of at most 10.
        seed: names the draws; the global generators are left as they were.

    Returns:
        As many frames of that size.

    Example:
        >>> frame = Image.effect_mandelbrot((32, 32), (-2, -1.5, 1, 1.5), 100).convert("RGB")
        >>> one, other = rand_augment([frame, frame], 9, seed=4)
        >>> one == other, one == frame
        (True, False)
    """
    settings = {
        "translate_const": int(min(images[0].size) * 0.45),
        "img_mean": _FILL,
        "interpolation": Image.Resampling.BICUBIC,
        "magnitude_max": _STRONGEST,
    }
    operations = rand_augment_transform(f"rand-m{magnitude}-mstd0.5-inc1", settings)
    changed = []
    # timm draws from the generators of Python and NumPy that all share.
    with isolate_rng(include_cuda=False):
        for image in images:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            changed.append(operations(image))
    return changed
