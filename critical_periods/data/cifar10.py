"""CIFAR-10, or any folder of small pictures laid out like it, in one view and in two."""

from pathlib import Path
from typing import Any

from critical_periods.core.errors import UserError
from critical_periods.data.batch_stage import Images
from critical_periods.data.images import StoredImageDataModule
from critical_periods.data.pictures import folder_classes, read_archive, read_folder
from critical_periods.data.stereo import Stereo

_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


class CIFAR10DataModule(StoredImageDataModule):
    """CIFAR-10 in one view: 50,000 training and 10,000 test images, 32x32 pixels, colour.

    Augmentation shifts by up to 4 pixels (over the mean colour) and flips. Reads torchvision's
    archive or any folder of pictures of one size laid out ``train/<class>/*``, ``test/<class>/*``
    with any number of classes; the folder's class names sort into class numbers. ``root`` holds
    ``cifar-10-batches-py``, or ``train`` and ``test``.

    Of a folder, every format that Pillow reads is taken, by the endings that it knows; other files
    are left out, and a warning says how many. Hidden files and folders are ignored. Pictures are
    turned upright as their EXIF data say; transparency is dropped, and of several frames the first
    is taken. How a level of grey or of a colour becomes one of 0 to 255 depends on its type:

    - 1 to 8 bits: as it is, 0 is black and the highest number white;
    - 16 bits of grey: v / 257, rounded (of 12 bits in a TIFF that says so, by BitsPerSample or
      MaxSampleValue, 255 v / 4095; a warning says where all pictures are dark); of 16 bits of each
      colour, or of grey beside transparency, Pillow reads the higher 8 (of a PPM, as of grey);
    - floating-point numbers: 255 v, rounded, for v in [0, 1]; others are refused, and so are
      floating-point colours, which Pillow does not read;
    - whole numbers with a sign or of 32 bits: refused, as they do not say what white is.

    Raises:
        UserError: (by ``setup``) the data is missing, half unpacked or unreadable.
    """

    mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    padding, flip = 4, True

    def prepare_data(self) -> None:
        """Downloads the archive where that is allowed and nothing is there yet."""
        if self.download and not self._is_folder():
            read_archive(self.root.resolve(), self.download)

    def load(self) -> tuple[Images, Images]:
        """The pictures of the folder or of the archive."""
        if self._is_folder():
            self.class_names = folder_classes(self.root)
            return read_folder(self.root)
        self.class_names = _CLASSES
        return read_archive(self.root.resolve(), self.download)

    def _is_folder(self) -> bool:
        try:
            return (self.root / "train").is_dir() or (self.root / "test").is_dir()
        except OSError as error:
            raise UserError(f"root={str(self.root)!r} cannot be read: {error.strerror}.") from error


class StereoCIFAR10DataModule(Stereo, CIFAR10DataModule):
    """CIFAR-10 in two views: the left and the right ``width`` columns of each image.

    (Kleinman et al. 2023, section 4.1 and A.5.)

    Args:
        root: the folder that holds ``cifar-10-batches-py``, or ``train`` and ``test``.
        width: columns that each view keeps, of 32.
        settings: those of :class:`.Stereo` and :class:`CIFAR10DataModule`.
    """

    def __init__(self, root: str | Path = "data", width: int = 16, **settings: Any) -> None:
        super().__init__(root=root, width=width, **settings)
