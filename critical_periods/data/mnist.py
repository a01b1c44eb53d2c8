"""MNIST and Fashion-MNIST, padded to the size of CIFAR-10's images."""

from pathlib import Path

from torch.nn.functional import pad
from torchvision.datasets import MNIST, FashionMNIST

from critical_periods.core.errors import UserError
from critical_periods.data.batch_stage import Images
from critical_periods.data.idx import FILES, find_file, read_idx
from critical_periods.data.images import StoredImageDataModule


class MNISTDataModule(StoredImageDataModule):
    """MNIST in one view: 60,000 training and 10,000 test images, 28x28 grey pixels made 32x32.

    The border of 2 black pixels makes room for the deficits of 32x32 images, as in Achille, Rovere
    & Soatto (ICLR 2019); mean and standard deviation are those of the padded images. Augmentation
    shifts by up to 2 pixels, so that no pixel of the original is ever lost, and never flips: a
    mirrored digit is another character. Reads torchvision's files (``root/MNIST/raw/*``) or the
    four idx files in ``root`` itself, gzipped or not.

    Raises:
        UserError: (by ``setup``) a file is missing, damaged or of another kind; (by
            ``prepare_data``) the files cannot be downloaded.

    Example:
        >>> MNISTDataModule(root="nowhere").setup()
        Traceback (most recent call last):
        ...
        critical_periods.core.errors.UserError: MNIST is not there under root='nowhere': it must \
hold MNIST/raw/ or the files train-images-idx3-ubyte, train-labels-idx1-ubyte, \
t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, gzipped or not; set data.init_args.root, or \
download: true.
    """

    mean, std = (0.1000,), (0.2752,)
    padding, flip = 2, False
    archive: type[MNIST] = MNIST

    def prepare_data(self) -> None:
        """Downloads the files where that is allowed and one is not there yet."""
        if not self.download or _count(self._folder()) == len(FILES):
            return
        try:
            self.archive(self.root, download=True)
        except (RuntimeError, OSError) as error:
            raise UserError(
                f"{self.archive.__name__} could not be downloaded to root={str(self.root)!r} "
                f"({' '.join(str(error).split())}); put it there."
            ) from error

    def load(self) -> tuple[Images, Images]:
        """The images, padded with black to 32x32."""
        folder, name = self._folder(), self.archive.__name__
        if not _count(folder):
            raise UserError(
                f"{name} is not there under root={str(self.root)!r}: it must hold {name}/raw/ or "
                f"the files {', '.join(FILES[:-1])} and {FILES[-1]}, gzipped or not; set "
                "data.init_args.root, or download: true."
            )
        train, test = (each._replace(pixels=pad(each.pixels, [2] * 4)) for each in read_idx(folder))
        return train, test

    def _folder(self) -> Path:
        """The folder that holds the most of the files."""
        return max(self.root, self.root / self.archive.__name__ / "raw", key=_count)


def _count(folder: Path) -> int:
    return sum(find_file(folder, name) is not None for name in FILES)


class FashionMNISTDataModule(MNISTDataModule):
    """Fashion-MNIST in one view: MNIST's sizes and files, pictures of ten kinds of clothing.

    As :class:`MNISTDataModule`, but a mirrored garment is a garment: augmentation shifts by up to 2
    pixels and flips. Reads torchvision's files (``root/FashionMNIST/raw/*``) or the four idx files
    in ``root`` itself, gzipped or not, such as ``/usr/share/datasets/fashion-mnist`` of Debian's
    package ``dataset-fashion-mnist``. (Xiao, Rasul & Vollgraf 2017, arXiv 1708.07747.)
    """

    mean, std = (0.2190,), (0.3318,)
    flip = True
    class_names = FashionMNIST.classes
    archive = FashionMNIST
