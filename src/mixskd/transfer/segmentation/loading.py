"""From an image and its mask to tensors: scale, crop, flip, normalise."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from mixskd.data.batch import Batch
from mixskd.data.images import decode_image
from mixskd.runtime.random_numbers import seeded
from mixskd.transfer.segmentation.data import IGNORE, SegmentationSet

CAFFE_MEAN_BGR = (104.00698793, 116.66876762, 122.67891434)  # of images in 0 .. 255


class RandomScale(v2.Transform):
    """Resize image and mask by one of ``scales``, drawn evenly; the mask by its nearest pixel."""

    def __init__(self, scales: Sequence[float]) -> None:
        super().__init__()
        self.scales = tuple(scales)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        scale = self.scales[int(torch.randint(len(self.scales), ()))]
        height, width = v2.query_size(flat_inputs)
        return {"size": [max(round(height * scale), 1), max(round(width * scale), 1)]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return F.resize(inpt, params["size"], antialias=True)


class CaffeColours(v2.Transform):
    """RGB in [0, 1] to BGR in 0 .. 255 minus the mean, as in the paper's released code."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if not isinstance(inpt, tv_tensors.Image):
            return inpt
        mean = torch.tensor(CAFFE_MEAN_BGR)[:, None, None]
        return tv_tensors.wrap(255 * inpt.flip(-3) - mean, like=inpt)


def normalisation(mean: Sequence[float], std: Sequence[float], *, colours: str = "rgb") -> v2.Transform:
    """To fp32, then (x / 255 - mean) / std; with ``colours`` ``bgr`` as :class:`CaffeColours`, without std."""
    to_float = v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True)
    return v2.Compose([to_float, CaffeColours() if colours == "bgr" else v2.Normalize(list(mean), list(std))])


def augmentation(
    crop: int, mean: Sequence[float], std: Sequence[float], scales: Sequence[float], *,
    flip: bool = True, colours: str = "rgb",
) -> v2.Transform:  # fmt: skip
    """Scale, crop of ``crop`` pixels (padded with the mean colour and ignored pixels), flip."""
    steps: list[v2.Transform] = [RandomScale(scales), normalisation(mean, std, colours=colours)]
    steps.append(v2.RandomCrop(crop, pad_if_needed=True, fill={tv_tensors.Image: 0.0, tv_tensors.Mask: IGNORE}))
    if flip:
        steps.append(v2.RandomHorizontalFlip())
    return v2.Compose(steps)


class Sample(NamedTuple):
    """``image`` ``3 x H x W`` (normalised), ``mask`` ``H x W`` (int64; 255 is ignored), and its index in the split."""

    image: Tensor
    mask: Tensor
    position: int


class SegmentationImages(Dataset[Sample]):
    """Samples by ``(index, seed)``; all draws depend on the seed."""

    def __init__(self, split: SegmentationSet, transform: v2.Transform) -> None:
        self.split, self.transform = split, transform

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, item: tuple[int, int]) -> Sample:
        index, seed = item
        image = F.to_image(decode_image(self.split.images[index], max_pixels=self.split.max_pixels))
        mask = tv_tensors.Mask(F.pil_to_tensor(self.split.read_mask(index)))
        with seeded(seed):
            image, mask = self.transform(image, mask)
        return Sample(image.as_subclass(Tensor), mask.as_subclass(Tensor)[0].long(), index)


def train_batch(samples: Sequence[Sample]) -> Batch:
    """``images`` ``B x 3 x H x W`` and ``labels`` ``B x H x W`` of samples of one size."""
    return Batch(torch.stack([s.image for s in samples]), torch.stack([s.mask for s in samples]), {})


def score_batch(samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
    """``images`` and ``labels`` as :func:`train_batch` makes them."""
    return train_batch(samples)[:2]
