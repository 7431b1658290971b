"""The settings of the data. It imports no torch."""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from mixskd.config.types import BelowOne, Count, NotNegative, Positive, Settings, Share, WholeNumber
from mixskd.errors import UserError

PixelSize = Annotated[int, Meta(ge=1, le=4096)]
Pair = Annotated[tuple[Positive, ...], Meta(min_length=2, max_length=2)]

MOST_CHANNELS = 256
MAX_PIXELS = 100_000_000  # width times height
SMALL = 64  # px: up to here an image is shown whole, above it is a photograph


@dataclass(frozen=True)
class DataConfig(Settings, prefix="data."):
    """What is trained on.

    Args:
        source: a data set by name, an image folder, a manifest (``.csv`` or ``.parquet``), an ``.npz`` file,
            WebDataset shards (``train-{000..015}.tar``), or ``hf:FOLDER`` (a data set of datasets on this disk).
            With a column ``labels``, or ``N x C`` labels in an ``.npz``, an image may have several labels.
        root: the folder of a named data set, or the folder to download it to; ``~/.cache/mixskd`` if not given.
        image_size: height and width in pixels; those of the data set if not given.
        eval_size: height and width for scoring and for the stored model; ``image_size`` if not given.
        scale_schedule: sizes of the training images in pixels, one for each equal part of the epochs, the last one
            ``image_size``, such as ``128,160,192,224``; always ``image_size`` if empty.
        channels: of the images: 1 (grey), 3 (RGB), or as many as the files or arrays have.
        range: the two values of the images that become 0 and 1, such as ``0,4095``. They are then read with all their
            bits, and values beyond are kept. Without it they are read as 8-bit values, 0 to 255.
        normalise: mean and std of the channels: ``auto`` (those of the weights that the run starts from; else the usual
            ones for RGB images of 8 bits; else as ``train``), or ``train`` (of up to 512 training images).
        resize: how an image that is not square is brought to the network's size, in training and in scoring: ``crop``
            (its short side is resized, the ends of the long one are cut off), ``pad`` (the whole image, with a border
            of the mean colour), ``squash`` (height and width are resized), or ``auto``: ``squash`` up to 64 px,
            ``crop`` above.
        crop: how training images are cropped: ``pad`` (a random crop of the padded image), ``resized`` (a random part,
            resized), or ``auto``: ``pad`` up to 64 px, ``resized`` above, as the paper does.
        crop_scale: the smallest and the largest part of the area that ``resized`` crops.
        crop_ratio: the smallest and the largest ratio of width to height of that part.
        color_jitter: strengths of random brightness, contrast, saturation and hue (torchvision's ColorJitter); none if
            empty.
        augment: a policy on top of crop and flip: ``none``, ``cutout``, ``random_erasing``, ``autoaugment`` (by the
            image size, or ``autoaugment_cifar10``, ``_imagenet``, ``_svhn``), ``randaugment``, ``augmix`` or
            ``trivialaugment``.
        holdout: the share of each class that is held out as ``test`` if there is neither ``val`` nor ``test``.
        val_holdout: the share of each class of the training images that becomes ``val`` if there is none; 0 for none.
        folds: divide the training images into this many parts of equal size, by class and by ``group``, for a
            cross-validation; each run holds out one of them. It is ``val`` if ``val_holdout`` is above 0, else
            ``test``, in place of the share that ``val_holdout`` or ``holdout`` names.
        fold: the part that is held out, counted from 0.
        train_on_val: train on the images of ``val`` too, once the settings have been chosen; the data need ``test``.
        split_seed: decides which images are held out; ``run.seed`` has no influence on it.
        columns: the columns of a manifest that hold path, label and perhaps split, such as ``photo,species``; if empty,
            those of these names, or of usual ones such as ``filename`` and ``class``. For ``hf:FOLDER``, those that
            hold image and label.
        split_names: for ``hf:FOLDER``, the splits that become train, val and test, or, if two, train and test; those of
            usual names if empty.
        group: keeps all images of one patient, camera or burst on one side of a split. It is a column of the manifest,
            or a regular expression on the path; the name of the group is its first bracket, or the whole match.
        duplicates: what to do with training images whose file is also in ``val`` or ``test``: ``warn``, ``error`` or
            ``drop`` them.
        balance: how often each class is drawn, from 0 (each image equally often) to 1 (each class equally often).
        per_class: train only on this many images of each class, the first ones; all if not given.
        flip: mirror half of the training images; if not given, this is done for all data but the digits.
        verify: which image files are read before the run, to find unreadable ones: ``cached`` (once; later starts look
            only at names, sizes and times of change), ``full`` (at each start), ``headers`` (only the first bytes of
            each file, so that truncated and duplicate files are not found), or ``off``.
        max_pixels: the largest width times height of an image that is decoded; a larger one counts as unreadable.
        skip_bad_images: leave unreadable images out and count them, instead of stopping.
        workers: processes that decode images; as many as the cores allow if not given. Arrays need none.
    """

    source: str = "digits"
    root: str | None = None
    image_size: PixelSize | None = None
    eval_size: PixelSize | None = None
    scale_schedule: Annotated[tuple[PixelSize, ...], Meta(max_length=8)] = ()
    channels: Annotated[int, Meta(ge=1, le=MOST_CHANNELS)] = 3
    range: Annotated[tuple[float, ...], Meta(min_length=2, max_length=2)] | None = None
    normalise: Literal["auto", "train"] = "auto"
    resize: Literal["auto", "crop", "pad", "squash"] = "auto"
    crop: Literal["auto", "pad", "resized"] = "auto"
    crop_scale: Pair = (0.08, 1.0)
    crop_ratio: Pair = (3 / 4, 4 / 3)
    color_jitter: Annotated[tuple[NotNegative, ...], Meta(max_length=4)] = ()
    augment: str = "none"
    holdout: Annotated[float, Meta(gt=0, lt=1)] = 0.2
    val_holdout: BelowOne = 0.0
    folds: Annotated[int, Meta(ge=2, le=1000)] | None = None
    fold: WholeNumber = 0
    train_on_val: bool = False
    split_seed: WholeNumber = 0
    columns: Annotated[tuple[str, ...], Meta(max_length=3)] = ()
    split_names: Annotated[tuple[str, ...], Meta(max_length=3)] = ()
    group: str | None = None
    duplicates: Literal["warn", "error", "drop"] = "warn"
    balance: Share = 0.0
    per_class: Count | None = None
    flip: bool | None = None
    verify: Literal["cached", "full", "headers", "off"] = "cached"
    max_pixels: Annotated[int, Meta(ge=1, le=178_956_970)] = MAX_PIXELS
    skip_bad_images: bool = False
    workers: Annotated[int, Meta(ge=0, le=1024)] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("crop_scale", "crop_ratio"):
            pair = getattr(self, name)
            if pair[0] > pair[1]:
                raise UserError(f"data.{name} must be two numbers above 0, the smaller first, not {list(pair)}")
        if self.crop_scale[1] > 1:
            raise UserError(f"data.crop_scale must not be above 1, the whole image, not {self.crop_scale[1]}")
        if self.range is not None and self.range[0] >= self.range[1]:
            raise UserError(f"data.range must be two numbers, the smaller first, not {list(self.range)}")
        if self.fold >= (self.folds or 1):
            has = "which is not set" if self.folds is None else f"which has the parts 0 to {self.folds - 1}"
            raise UserError(f"data.fold {self.fold} is no part of data.folds, {has}")
        if self.train_on_val and self.val_holdout > 0:
            raise UserError("data.train_on_val leaves no val; set data.val_holdout to 0")
        if len(self.color_jitter) == 4 and self.color_jitter[3] > 0.5:
            raise UserError(f"data.color_jitter: the hue must be 0.5 or less, not {self.color_jitter[3]}")

    def crop_for(self, image_size: int) -> str:
        """``pad`` or ``resized`` for images of ``image_size`` pixels."""
        if self.crop != "auto":
            return self.crop
        return "pad" if image_size <= SMALL else "resized"

    def size_in(self, epoch: int, epochs: int, image_size: int) -> int:
        """Height and width of the training images in ``epoch`` (from 0) of ``epochs``, in pixels."""
        stage = min(epoch, epochs - 1) * len(self.scale_schedule) // epochs
        return self.scale_schedule[stage] if self.scale_schedule else image_size
