"""The settings of a run: how long, how large, on what. It imports no torch."""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from mixskd.config.types import Count, Settings, WholeNumber
from mixskd.errors import UserError

# The largest value that any machine could serve, so that a typing error is refused at once.
Million = Annotated[int, Meta(ge=1, le=1_000_000)]


@dataclass(frozen=True)
class RunConfig(Settings, prefix="run."):
    """How long, how large, on what.

    Args:
        epochs: passes over the training images.
        batch_size: original images per update; MixSKD forwards as many mixes in addition. ``auto`` is 64, halved until
            two steps fit the memory; config.yaml then holds the number. The learning rate is not changed.
        seed: the seed of weights, order, augmentation and mixing.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``. ``auto`` is bf16 on GPUs with bf16 arithmetic. On CPUs with
            bf16 arithmetic it is bf16 or fp32, whichever is faster for the network (see ``measure``). Elsewhere it is
            fp32. The scores of each epoch have this precision too; those of the deployed weights are in fp32.
        measure: on a CPU with bf16 arithmetic, time once which precision is faster. The times are kept in
            ``~/.cache/mixskd`` for later runs, and a resumed run keeps its choice.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        accumulate: parts into which each batch is split to save memory; batch norm then uses the statistics of each
            part.
        checkpoint_activations: save memory. The forward pass stores only the input of each block of the network, and
            the backward pass computes the block again. A step takes about 1.3 times as long; the loss does not change.
        checkpoint_every_steps: steps between two checkpoints within an epoch; 0 to save only at the end of epochs.
        checkpoint_every_epochs: epochs between two checkpoints; the last epoch is always saved.
        evaluate_every: epochs between two evaluations on ``val``, or on ``test`` where there is no ``val``; the last
            epoch is always evaluated.
        keep: which weights are deployed: ``best`` (the epoch with the best score on ``val``; needs ``val``), ``last``,
            or ``auto``: ``best`` if there is ``val``, else ``last``, as in the paper's protocol.
        score_test: score the deployed weights on ``test`` at the end. If it is off, nothing is computed on ``test``,
            and the data need ``val``; ``mixskd tune`` trains so.
        patience: stop after this many evaluations on ``val`` without a better score; 0 for never.
        log_every: steps between two readings of the losses; they are then shown, and a run that has diverged is
            stopped.
        progress: show the progress bar and one line per epoch.
        curve: show the loss and the score of this many last epochs as curves on the screen; 0 for none.
        tensorboard: also write losses, scores and a few mixes with their predictions for TensorBoard.
        wandb: also send losses and scores to Weights & Biases (``WANDB_MODE=offline`` keeps them on this machine).
        mlflow: also send losses and scores to MLflow (``MLFLOW_TRACKING_URI`` says where).
        sync_bn: compute the statistics of batch norm over the images of all processes (GPUs only).
        compile: compile forward and backward with ``torch.compile``: ``auto`` (on GPUs, if the compiler works there),
            ``always`` or ``never``.
        cuda_graphs: replay the whole step as one CUDA graph: ``auto`` (on GPUs), ``always`` or ``never``.
        deterministic: on GPUs, use convolutions and sums that give the same bits in every run; they are slower.
        probe: whether a run that starts from weights first fits simple classifiers on the frozen features, to compare
            with: ``auto`` (up to 5,000 images in all splits) or ``never``.
        all_heads: also score the classifiers that are used only in training; the released code reports the maximum over
            them and over epochs, chosen on the test set.
    """

    epochs: Million = 205
    batch_size: Million | Literal["auto"] = 64
    seed: WholeNumber = 0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    measure: bool = True
    device: str = "auto"
    accumulate: Million = 1
    checkpoint_activations: bool = False
    checkpoint_every_steps: WholeNumber = 0
    checkpoint_every_epochs: Count = 1
    evaluate_every: Count = 1
    keep: Literal["auto", "best", "last"] = "auto"
    score_test: bool = True
    patience: WholeNumber = 0
    log_every: Count = 20
    progress: bool = True
    curve: WholeNumber = 0
    tensorboard: bool = False
    wandb: bool = False
    mlflow: bool = False
    sync_bn: bool = False
    compile: Literal["auto", "always", "never"] = "auto"
    cuda_graphs: Literal["auto", "always", "never"] = "auto"
    deterministic: bool = False
    probe: Literal["auto", "never"] = "auto"
    all_heads: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size != "auto" and self.batch_size % self.accumulate:
            raise UserError(f"run.accumulate {self.accumulate} does not divide the batch size {self.batch_size}")

    @property
    def batch(self) -> int:
        """The images per update. Raises UserError for ``auto``, in whose place a run has a number."""
        if self.batch_size == "auto":
            raise UserError("run.batch_size auto is for one run; give a number of images here")
        return self.batch_size
