"""The settings that detectors and segmentation networks share."""

from dataclasses import dataclass

from mixskd.config.types import Count, Settings
from mixskd.errors import UserError

# Settings of classification that a detector or a segmentation network does not have.
UNSUPPORTED = (
    "data.root", "data.image_size", "data.eval_size", "data.scale_schedule", "data.resize", "data.channels",
    "data.range", "data.normalise", "data.crop",
    "data.crop_scale", "data.crop_ratio", "data.color_jitter",
    "data.augment", "data.holdout", "data.val_holdout", "data.split_seed", "data.group", "data.duplicates",
    "data.balance", "data.per_class", "optim.layer_decay", "optim.fresh_lr_scale", "optim.freeze", "optim.head_start",
    "optim.norms", "optim.class_weights", "optim.logit_adjustment", "optim.asymmetric", "run.all_heads",
)  # fmt: skip
# Settings that change nothing here: steps whose shapes change from batch to batch are neither compiled nor recorded.
NOT_USED = ("run.compile", "run.cuda_graphs")


@dataclass(frozen=True)
class TransferConfig(Settings, prefix="method."):
    """Settings of every detector and segmentation network.

    Args:
        skip_bad_annotations: leave bad annotations out and count them, instead of stopping.
        check: decode every image and mask once before training, so that a damaged one is found then.
        iterations: optimizer steps of the whole run, divided evenly into ``run.epochs`` parts. The network is scored
            after each part. If not given, an epoch is a pass over the images.
        lr_batch: the batch size for which ``optim.lr`` is meant; for another batch size the rate is scaled in
            proportion.
        lr_literal: use ``optim.lr`` as it is, whatever the batch size.
    """

    skip_bad_annotations: bool = False
    check: bool = True
    iterations: Count | None = None
    lr_batch: Count = 16
    lr_literal: bool = False

    def length(self, epochs: int) -> int | None:
        """Steps in an epoch, None for one pass. Raises UserError if ``epochs`` does not divide ``iterations``."""
        if self.iterations is None:
            return None
        if self.iterations % epochs:
            raise UserError(
                f"method.iterations {self.iterations} cannot be divided into run.epochs {epochs} equal parts; "
                "give a multiple of it"
            )
        return self.iterations // epochs
