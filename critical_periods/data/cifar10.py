"""CIFAR-10, or any folder of small pictures laid out like it."""

from __future__ import annotations

from pathlib import Path

from critical_periods.data.images import Augment, ImageDataModule, Images
from critical_periods.data.pictures import read_archive, read_folder
from critical_periods.data.stereo import Stereo


class CIFAR10DataModule(ImageDataModule):
    """One eye on CIFAR-10: 50,000 training and 10,000 test images, 32x32 pixels, colour.

    Augmentation shifts by up to 4 pixels (over the mean colour) and flips. Reads torchvision's
    archive or any folder of pictures of one size laid out ``train/<class>/*``, ``test/<class>/*``
    with any number of classes; the folder's class names sort into class numbers.

    Args:
        root: where the data is: it holds ``cifar-10-batches-py`` or ``train`` and ``test``.
        download: whether torchvision may download its archive to ``root`` if nothing is there.
        batch_size: samples in a batch of one process.
        limit_train: size of a fixed, class-balanced subset of the training images.
        val_split: how many (or what share) of the training images to hold back for validation; by
            default the test split validates.
        augment: ``shared`` (the views of a sample shift together), ``per_view`` or ``none``.
        device_resident: whether the images live on the accelerator; by default if they fit.

    Raises:
        UserError: (by ``setup``) the data is missing, half unpacked or unreadable.
    """

    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2023, 0.1994, 0.2010)
    padding = 4
    flip = True

    def __init__(
        self,
        root: str | Path = "data",
        download: bool = False,
        batch_size: int = 128,
        limit_train: int | None = None,
        val_split: float = 0,
        augment: Augment = "shared",
        device_resident: bool | None = None,
    ) -> None:
        super().__init__(batch_size, limit_train, val_split, augment, device_resident)
        self.root = Path(root).expanduser()
        self.download = download

    def prepare_data(self) -> None:
        """Downloads the archive where that is allowed and nothing is there yet."""
        if self.download and not self._is_folder():
            read_archive(self.root, download=True)

    def load(self) -> tuple[Images, Images]:
        """The pictures of the folder or of the archive."""
        if self._is_folder():
            return read_folder(self.root)
        return read_archive(self.root, self.download)

    def _is_folder(self) -> bool:
        return (self.root / "train").is_dir() or (self.root / "test").is_dir()


class StereoCIFAR10DataModule(Stereo, CIFAR10DataModule):
    """Two eyes on CIFAR-10: the left and the right ``width`` columns of each image.

    (Kleinman et al. 2023, section 4.1 and A.5.)

    Args:
        root: where the data is: it holds ``cifar-10-batches-py`` or ``train`` and ``test``.
        width: columns that each view keeps, of 32.
        mask_probability: in training, how often a sample loses its left view, and how often its
            right one; never both (A.5: 0.1, to measure usable information).
        download: whether torchvision may download its archive to ``root`` if nothing is there.
        batch_size: samples in a batch of one process.
        limit_train: size of a fixed, class-balanced subset of the training images.
        val_split: how many (or what share) of the training images to hold back for validation.
        augment: ``shared`` (the views of a sample shift together), ``per_view`` or ``none``.
        device_resident: whether the images live on the accelerator; by default if they fit.

    Raises:
        UserError: (by ``setup``) the data is missing, half unpacked or unreadable, or the crops
            are wider than the images.
    """

    def __init__(
        self,
        root: str | Path = "data",
        width: int = 16,
        mask_probability: float = 0.0,
        download: bool = False,
        batch_size: int = 128,
        limit_train: int | None = None,
        val_split: float = 0,
        augment: Augment = "shared",
        device_resident: bool | None = None,
    ) -> None:
        super().__init__(
            root, download, batch_size, limit_train, val_split, augment, device_resident
        )
        self.width = width
        self.mask_probability = mask_probability
