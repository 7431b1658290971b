"""Mean and standard deviation of the channels of training images."""

import dataclasses

import numpy as np
import torch

from mixskd.data.bundle import DataBundle
from mixskd.data.preprocess import image_tensor
from mixskd.data.worker_loader import Images

MOST = 512  # images


def channel_statistics(data: DataBundle) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation by channel, in [0, 1], of up to 512 training images that are spread evenly.

    Each image is resized to the network's size, so that all weigh the same. The deviation is 1 for a constant channel.
    """
    wanted = dataclasses.replace(data.training, resize="squash")
    images, crop = Images(data.train, {}, wanted, max_pixels=data.max_pixels), wanted.crop()
    chosen = np.unique(np.linspace(0, len(data.train) - 1, MOST).round().astype(int))
    moments = torch.zeros(2, wanted.channels, dtype=torch.float64)
    for index in chosen.tolist():
        x = image_tensor(crop(images.open(index))).double() / (1 if wanted.range else 255)
        moments += torch.stack([x.mean((1, 2)), x.square().mean((1, 2))]) / len(chosen)
    mean, square = moments
    std = (square - mean**2).clamp(min=0).sqrt()
    return tuple(mean.tolist()), tuple(std.where(std > 1e-6, 1.0).tolist())
