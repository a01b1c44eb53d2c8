"""Masked reconstruction: hidden patches of all views are predicted from a few visible ones."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from einops import rearrange
from PIL.Image import Image
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection

from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.core.randomness import Stream, global_seed, uniform
from critical_periods.core.trainer import log_media, results_folder
from critical_periods.models.multi_view.masking import hidden_patches, random_visible, visible_total
from critical_periods.models.multi_view.patches import patch_grid, to_image, to_patches
from critical_periods.models.multi_view.transformer import MultiViewTransformer
from critical_periods.models.multi_view.weights import HEADS
from critical_periods.tasks.masked_error import masked_error, normalised
from critical_periods.tasks.reconstruction_pictures import reconstruction_picture, save_picture
from critical_periods.tasks.task import Task
from critical_periods.tasks.transformer_recipe import TransformerRecipe


class Reconstruction(NamedTuple):
    """What a :class:`MaskedReconstructionTask` predicts of a batch.

    Attributes:
        prediction: pixels of all patches, [B, V, C, H, W]; what it says of the visible ones, on
            which it was not trained, means little.
        hidden: which patches it did not see, bool [B, V, rows, columns].
    """

    prediction: Tensor
    hidden: Tensor


class MaskedReconstructionTask(Task):
    """Pre-training of a multi-view encoder by reconstructing hidden patches.

    Of all views' patches a random quarter is seen, split among the views by a flat Dirichlet
    distribution. Each view has two decoders, one for its pixels and one for the same normalised
    patch by patch; the loss is the sum over decoders of the mean squared error on the hidden
    patches, averaged over each sample's hidden patches, then over the samples with any, of all
    processes together. MultiMAE (Bachmann et al. 2022) with RGB views, as in Kleinman, Achille &
    Soatto, CVPR 2023, A.7.

    Masks in training are drawn from (seed, epoch, index of the sample), so that they depend
    neither on the batch nor on the process that a sample falls in, and a resumed run draws the
    same; in validation from the index alone, so that all epochs and runs are compared on the same
    masks. All else (drop path) is seeded anew at each batch from (seed, epoch, batch, rank).

    Logs ``train/loss``, ``val/loss`` and ``val/loss/view_<v>`` (its two decoders), ``test/…``
    alike, and pictures of reconstructions in validation, to
    ``<log_dir>/reconstructions/epoch_<epoch>.png`` and W&B. Predicts a :class:`Reconstruction` of
    every batch, on the same masks as in validation. A network starts from the encoder that this
    leaves behind by its setting ``weights``.

    Args:
        network: the encoder; its classifier is not trained.
        recipe: of the optimiser and the rate.
        mask_ratio: the share of all patches that is hidden: 0.75 shows 98 of 392.
        decoder_width: of the decoders' tokens.
        decoder_depth: blocks of a decoder after its cross-attention; 0 for none.
        decoder_heads: of the decoders' attentions.
        pictures: how many samples of the first validation batch are shown; 0 for none.
        pictures_every_n_epochs: how often; the last epoch's are always shown.

    Attributes:
        output_adapters: the decoders, ``view_0``, …, and ``norm_view_0``, … for normalised pixels.

    Example:
        >>> network = MultiViewTransformer(width=24, depth=1, heads=3, patch=8, image_size=32)
        >>> task = MaskedReconstructionTask(
        ...     network, TransformerRecipe(epochs=800), decoder_width=16, decoder_heads=2
        ... )
        >>> views = torch.randn(2, 5, 3, 32, 32).unbind()
        >>> visible = torch.arange(16, 32).expand(5, -1)  # all of view 1, nothing of view 0
        >>> left, right = task.reconstruct(views, visible)
        >>> left.shape
        torch.Size([5, 3, 32, 32])
    """

    def __init__(
        self,
        network: MultiViewTransformer,
        recipe: TransformerRecipe,
        mask_ratio: float = 0.75,
        decoder_width: int = 256,
        decoder_depth: int = 2,
        decoder_heads: int = 8,
        pictures: int = 4,
        pictures_every_n_epochs: int = 10,
    ) -> None:
        super().__init__()
        if pictures < 0:
            raise UserError(
                f"pictures={pictures} of MaskedReconstructionTask must not be negative; 0 is none."
            )
        if pictures_every_n_epochs < 1:
            raise UserError(
                f"pictures_every_n_epochs={pictures_every_n_epochs} of MaskedReconstructionTask "
                "must be at least 1; set pictures to 0 for none."
            )
        visible_total(mask_ratio, network.num_views, math.prod(network.grid))
        # Distributed training waits for the gradients of all that asks for one.
        network.classifier.requires_grad_(False)
        self.network = network
        self.recipe = recipe
        self.mask_ratio = mask_ratio
        self.pictures = pictures
        self.pictures_every_n_epochs = pictures_every_n_epochs
        self.output_adapters = nn.ModuleDict(
            {
                name: network.make_decoder(view, decoder_width, decoder_depth, decoder_heads)
                for view in range(network.num_views)
                for name in _decoders_of(view)
            }
        )
        # Not in groups, which would share one metric's sums.
        self.val_errors, self.test_errors = (
            MetricCollection(
                {name: MeanMetric() for name in self.output_adapters}, compute_groups=False
            )
            for _ in range(2)
        )

    def reconstruct(self, views: Sequence[Tensor], visible: Tensor) -> list[Tensor]:
        """All views' pixels, from the patches that are visible.

        Args:
            views: one tensor [B, C, H, W] a view; a UserError if not those of the network.
            visible: places of the visible patches in the sequence of all, [B, n].

        Returns:
            One tensor [B, C, H, W] a view, of all patches; on visible ones it was not trained.
        """
        grid = patch_grid(views[0], self.network.patch)
        tokens = self.network.encode(views, visible)
        return [
            to_image(decoder(tokens, visible, grid), grid, self.network.patch)
            for name, decoder in self.output_adapters.items()
            if not name.startswith("norm_")
        ]

    def picture(self, batch: Batch, visible: Tensor, samples: int) -> Image:
        """A picture of a batch's first samples as the patches ``visible`` [B, n] show them."""
        views, visible = batch.views[:samples].unbind(1), visible[:samples]
        predictions = self.reconstruct(views, visible)
        hidden = self._hidden(views, visible)
        return reconstruction_picture(views, hidden, predictions, self.network.patch)

    def _hidden(self, views: Sequence[Tensor], visible: Tensor) -> Tensor:
        """Which patches are not among the visible ones, bool [B, V, N]."""
        patches = math.prod(patch_grid(views[0], self.network.patch))
        return hidden_patches(visible, len(views), patches)

    def forward(self, *views: Tensor) -> list[Tensor]:
        """Reconstructions of views that are fully visible."""
        patches = len(views) * math.prod(patch_grid(views[0], self.network.patch))
        visible = torch.arange(patches, device=views[0].device)
        return self.reconstruct(views, visible.expand(len(views[0]), -1))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss on random masks of this epoch."""
        visible = self._visible(batch, batch_idx, global_seed(), self.current_epoch)
        _, errors, counted = zip(*self._errors(batch, visible), strict=True)
        sums = torch.stack([error.sum() for error in errors])
        counts = torch.stack([each.sum() for each in counted]).to(sums.dtype)
        # Processes have different numbers of samples that count, and the mean of their gradients
        # is taken: with the mean of these numbers it is that of all samples in one process.
        counts = self.trainer.strategy.reduce(counts, reduce_op="mean")
        loss = (sums / counts.clamp(min=1 / self.trainer.world_size)).sum()
        self.log_mean("train/loss", loss.detach(), len(batch.views), sync_dist=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The errors on masks that are the same in every epoch."""
        visible = self._evaluate(self.val_errors, batch, batch_idx)
        if batch_idx == 0:
            self._show(batch, visible)

    def on_validation_epoch_end(self) -> None:
        """Logs the mean errors of the views."""
        self._log_errors("val", self.val_errors)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """The errors on the test split, on masks that are always the same."""
        self._evaluate(self.test_errors, batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Logs the mean errors of the views."""
        self._log_errors("test", self.test_errors)

    def predict_step(self, batch: Batch, batch_idx: int) -> Reconstruction:
        """All views' pixels, and which patches of them were hidden."""
        visible = self._visible(batch, batch_idx)
        views = batch.views.unbind(1)
        rows, _ = patch_grid(views[0], self.network.patch)
        prediction = torch.stack(self.reconstruct(views, visible), dim=1)
        hidden = rearrange(self._hidden(views, visible), "b v (h w) -> b v h w", h=rows)
        return Reconstruction(prediction, hidden)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the encoder's number of heads, which its weights do not show."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[HEADS] = self.network.attention_heads

    def _evaluate(self, errors: MetricCollection, batch: Batch, batch_idx: int) -> Tensor:
        visible = self._visible(batch, batch_idx)
        for name, error, counted in self._errors(batch, visible):
            errors[name].update(error, counted)
        return visible

    def _log_errors(self, stage: str, metrics: MetricCollection) -> None:
        errors = metrics.compute()
        metrics.reset()
        for view in range(self.network.num_views):
            both = torch.stack([errors[name] for name in _decoders_of(view)])
            self.log(f"{stage}/loss/view_{view}", both.sum(), sync_dist=True)
        total = torch.stack(list(errors.values())).sum()
        self.log(f"{stage}/loss", total, sync_dist=True, prog_bar=True)

    def configure_optimizers(self) -> Any:
        """AdamW, and its rate at every step (:meth:`TransformerRecipe.configure`)."""
        return self.recipe.configure(self)

    def _visible(self, batch: Batch, batch_idx: int, *words: int) -> Tensor:
        """Each sample's random visible patches."""
        size, views = batch.views.shape[:2]
        patches = math.prod(patch_grid(batch.views, self.network.patch))
        # Where the data does not say which sample it is, its place in the epoch does.
        first = (batch_idx * self.trainer.world_size + self.global_rank) * size
        place = -1 - first - torch.arange(size, device=batch.index.device)
        index = torch.where(batch.index < 0, place, batch.index)
        draws = uniform(index, views + views * patches, Stream.HIDDEN_PATCHES, *words)
        return random_visible(draws, views, visible_total(self.mask_ratio, views, patches))

    def _errors(self, batch: Batch, visible: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
        """For each decoder the errors of the samples, and which of them count."""
        views = batch.views.unbind(1)
        patch = self.network.patch
        grid = patch_grid(views[0], patch)
        tokens = self.network.encode(views, visible)
        hidden = self._hidden(views, visible)
        for view, image in enumerate(views):
            pixels = to_patches(image, patch)
            for name, target in zip(_decoders_of(view), (pixels, normalised(pixels)), strict=True):
                prediction = self.output_adapters[name](tokens, visible, grid)
                yield name, *masked_error(prediction, target, hidden[:, view])

    def _show(self, batch: Batch, visible: Tensor) -> None:
        done = self.current_epoch + 1
        is_due = done % self.pictures_every_n_epochs == 0 or done == self.trainer.max_epochs
        if not self.pictures or self.trainer.sanity_checking or not is_due:
            return
        folder = results_folder(self.trainer, "reconstructions")
        if self.trainer.is_global_zero:
            picture = self.picture(batch, visible, self.pictures)
            save_picture(picture, folder / f"epoch_{self.current_epoch:04d}.png")
            log_media(self.trainer, pictures={"reconstructions": picture})


def _decoders_of(view: int) -> tuple[str, str]:
    """The names of a view's decoders: for pixels, and for normalised ones."""
    return f"view_{view}", f"norm_view_{view}"
