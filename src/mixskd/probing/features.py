"""The features of a frozen backbone, the inputs of the last linear layer of its classifier, and their cache."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mixskd.backbones import StagedBackbone
from mixskd.backbones.heads import split_head
from mixskd.data import DataBundle, ImageSet, make_test_loader
from mixskd.errors import UserError
from mixskd.runtime.digest import digest_of
from mixskd.runtime.files import in_user_cache, replacing
from mixskd.runtime.precision import device_name
from mixskd.tasks.scoring import evaluation_mode

FORMAT = "features-1"
MOST_BYTES = 2 * 2**30  # of all kept features together


def cached_features(key: str | None, images: int, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """The cached features of ``key`` (``images x D``, fp32), computed and stored if they are not there.

    Without a ``key``, or where the cache cannot be read or written, they are computed each time.
    """
    if key is None:
        return compute()
    path = in_user_cache("features", "MIXSKD_FEATURES") / f"{key}.npy"
    try:
        found: np.ndarray = np.load(path, allow_pickle=False)
        if found.ndim == 2 and len(found) == images and found.dtype == np.float32:
            path.touch()
            return found
    except (OSError, ValueError, EOFError):
        pass
    made = compute()
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, made)
        remove_oldest(path.parent)
    except (OSError, UserError):
        pass
    return made


def remove_oldest(folder: Path, most: int = MOST_BYTES) -> None:
    """Remove the least recently used files in ``folder`` until it holds at most ``most`` bytes."""
    files = sorted(((p.stat(), p) for p in folder.glob("*.npy")), key=lambda pair: -pair[0].st_mtime)
    total = 0
    for about, path in files:
        total += about.st_size
        if total > most:
            path.unlink(missing_ok=True)


def last_layer(backbone: StagedBackbone) -> nn.Linear:
    """The linear layer that gives the logits. Raises UserError without such a layer, or if it has no trained bias."""
    _, linear = split_head(backbone.head, f"a probe of {backbone.name}")
    if linear.bias is None or not linear.bias.requires_grad:
        raise UserError("a probe needs a classifier with a bias, which this one lacks; take another backbone or method")
    return linear


def pooled_features(
    backbone: StagedBackbone,
    data: DataBundle,
    split: str,
    device: torch.device,
    *,
    workers: int | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> np.ndarray:
    """The features of each image of ``split`` in order, ``N x D`` in fp32, from the cache if they are there.

    ``backbone`` is on ``device``. The images are preprocessed as in evaluation; the network is in evaluation mode and
    computes in fp32.
    """

    def compute() -> np.ndarray:
        return _computed(backbone, data, split, device, workers, progress)

    return cached_features(key_of(backbone, data, split, device), len(data.splits[split]), compute)


@torch.inference_mode()
def _computed(
    backbone: StagedBackbone, data: DataBundle, split: str, device: torch.device, workers: int | None,
    progress: Callable[[float], None],
) -> np.ndarray:  # fmt: skip
    seen: list[Tensor] = []
    hook = last_layer(backbone).register_forward_pre_hook(lambda _, given: seen.append(given[0].float().cpu()))
    batch_size = 64 if device.type == "cpu" else 256  # a processor's caches hold no more
    # A DataLoader draws a seed for its workers; the numbers that a run draws later must not depend on that.
    with hook, torch.random.fork_rng(devices=[]), evaluation_mode(backbone):
        loader = make_test_loader(data, device, split=split, workers=workers, batch_size=batch_size)
        for number, (images, _) in enumerate(loader, start=1):
            backbone(images)
            progress(number / len(loader))
    return torch.cat(seen).flatten(1).numpy()


def key_of(backbone: StagedBackbone, data: DataBundle, split: str, device: torch.device) -> str | None:
    """A digest of what the features depend on: weights, preprocessing, images, and the arithmetic of this machine.

    None where the images' content is not known.
    """
    content = content_of(data.splits[split])
    if content is None:
        return None
    last = {id(parameter) for parameter in last_layer(backbone).parameters()}
    weights = {key: x for key, x in backbone.state_dict(keep_vars=True).items() if id(x) not in last}
    arithmetic = [device_name(device), torch.get_num_threads(), torch.__version__]
    preprocess = list(dataclasses.astuple(data.preprocess))
    return digest_of([FORMAT, backbone.name, weights, preprocess, content, arithmetic])


def content_of(images: ImageSet) -> Tensor | str | None:
    """The pixels of arrays, or the digests of files in order; None where no file was read."""
    if images.in_memory:
        return torch.from_numpy(np.ascontiguousarray(images.images))
    return None if images.digests is None else images.digests.tobytes().hex()
