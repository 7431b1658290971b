"""Load weights into a backbone: of a run, a state dict, or as torchvision and timm publish them."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mixskd.backbones.from_timm import PREFIX, pretrained_config, timm_of
from mixskd.backbones.from_torchvision import TORCHVISION
from mixskd.backbones.from_transformers import HF, normalisation, published
from mixskd.backbones.resnet import LAYOUTS
from mixskd.backbones.staged import StagedBackbone
from mixskd.errors import UserError, first_line
from mixskd.runtime.files import check_readable, load_tensors

PUBLISHED = "pretrained"
LIBRARIES = (PREFIX, TORCHVISION, HF)  # how the names of their networks begin


def start_from(backbone: StagedBackbone, source: str) -> list[str]:
    """Load the weights at ``source`` into ``backbone`` and mark it as pretrained. Returns notes for the user.

    ``source`` is a run folder, a ``.safetensors`` file, a state dict that ``torch.save`` wrote with the architecture's
    usual keys, or ``pretrained`` for the weights that torchvision or timm publish. The classifier stays as initialised
    if its number of classes differs, and a first convolution for three channels is adapted to others; notes say so.
    Nothing in a file is executed. Raises UserError if the file is missing or corrupt, or does not fit.
    """
    state = published_weights(backbone.name) if source == PUBLISHED else read(Path(source))
    own, notes = backbone.export_state_dict(), []
    head = backbone.head_keys()
    if any(key not in state or state[key].shape != own[key].shape for key in head):
        state = {key: value for key, value in state.items() if key not in head} | {key: own[key] for key in head}
        notes.append(f"the classifier is new: {source} has none for {backbone.num_classes} classes")
    channels = backbone.in_channels
    if channels != 3:
        for key, x in own.items():
            if x.ndim == 4 and x.shape[1] == channels and key in state and state[key].shape[1:2] == (3,):
                state = {**state, key: adapted(state[key], channels)}
                notes.append(f"the first layer of {source} is for 3 channels; it is adapted to {channels}")
    # Files from before PyTorch 0.4.1 lack these counters. Only a cumulative average would use them.
    state = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")} | dict(state)
    for key in [*own, *state]:
        if key not in state or key not in own or state[key].shape != own[key].shape:
            raise UserError(
                f"the weights in {source} are not those of a {backbone.name}: {mismatch(key, state, own)}; "
                "name the network that they belong to with --backbone"
            )
    backbone.load_export_state_dict(state)
    backbone.pretrained = True
    return notes


def adapted(weight: Tensor, channels: int) -> Tensor:
    """A convolution of RGB images (``O x 3 x H x W``) for ``channels`` channels, as timm's ``adapt_input_conv``.

    For grey images it is the sum over the channels. Else they are repeated in turn, times 3 / ``channels``, so that the
    output keeps its size.
    """
    if channels == 1:
        return weight.float().sum(1, keepdim=True).to(weight.dtype)
    repeated = weight.float()[:, [i % 3 for i in range(channels)]]
    return (repeated * (3 / channels)).to(weight.dtype)


def mismatch(key: str, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """The difference between ``state`` and ``own`` at ``key``, in words."""
    if key not in state:
        return f"they lack {key}"
    if key not in own:
        return f"it has no {key}"
    return f"{key} is {tuple(state[key].shape)}, not {tuple(own[key].shape)}"


def read(path: Path) -> dict[str, Tensor]:
    """The state dict in a run folder or a file. Raises UserError for a missing or corrupt file."""
    path = path / "model.safetensors" if path.is_dir() else path
    check_readable(path, f"no weights at {path}; give a finished run's folder, a file, or {PUBLISHED!r}")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else load_tensors(path)
    except (SafetensorError, OSError, ValueError):
        raise UserError(f"{path} is corrupt, or it is not a file of weights; only tensors are read from it") from None
    if isinstance(state, Mapping):
        state = next((state[key] for key in ("state_dict", "model") if isinstance(state.get(key), Mapping)), state)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} holds no state dict; save model.state_dict() by itself")
    return dict(state)


def normalisation_of(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the channels of images in [0, 1] with which a library's weights were trained.

    ``name`` is ``timm/NAME``, ``torchvision/NAME`` or a ResNet of torchvision by its own name. Nothing is downloaded.
    Raises UserError for a backbone of which no library publishes weights.
    """
    if name.startswith(PREFIX):
        config: Any = pretrained_config(name)
        if config is None:  # timm publishes no weights of it, but describes its images
            with torch.device("meta"):
                settings = timm_of(name).create_model(name.removeprefix(PREFIX)).default_cfg
            return tuple(settings["mean"]), tuple(settings["std"])
        return tuple(config.mean), tuple(config.std)
    if name.startswith(HF):
        return normalisation(name)
    if name in LAYOUTS or name.startswith(TORCHVISION):
        from torchvision.models import get_model_weights

        preprocessing = get_model_weights(name.removeprefix(TORCHVISION))["DEFAULT"].transforms()
        return tuple(preprocessing.mean), tuple(preprocessing.std)
    raise UserError(f"no library publishes weights of {name}, so they have no mean and std; set them with the data")


@contextmanager
def cache_alone_if_unreachable() -> Iterator[None]:
    """Context in which weights of the Hugging Face Hub come from its cache alone if its host does not answer.

    The hub's client would try again for a minute. Raises UserError for weights that are not in the cache then.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    host = urlsplit(constants.ENDPOINT).hostname or ""
    reachable = bool(getproxies()) or answers(host)
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE or not reachable
    try:
        yield
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        if reachable:
            raise
        raise UserError(f"there is no network ({host} does not answer), and they are not in the cache") from None
    finally:
        constants.HF_HUB_OFFLINE = before


def answers(host: str) -> bool:
    """Whether ``host`` takes a connection for https within five seconds."""
    try:
        socket.create_connection((host, 443), timeout=5).close()
    except OSError:
        return False
    return True


def published_weights(name: str) -> dict[str, Tensor]:
    """The weights that timm or torchvision publish for ``name``. Raises UserError without such weights or a network."""
    try:
        if name.startswith(PREFIX):
            import timm

            with cache_alone_if_unreachable():
                return timm.create_model(name.removeprefix(PREFIX), pretrained=True).state_dict()
        if name.startswith(HF):
            return published(name)
        if name.startswith(TORCHVISION):
            from torchvision.models import get_model

            return get_model(name.removeprefix(TORCHVISION), weights="DEFAULT").state_dict()
        if name in LAYOUTS:
            from torchvision.models import get_model_weights

            return dict(get_model_weights(name)["DEFAULT"].get_state_dict())
    except Exception as error:  # each library and its download raise different types
        raise UserError(
            f"cannot get the published weights of {name}: {first_line(error)}; give a file of weights"
        ) from None
    raise UserError(f"there are no published weights of {name}; give a run's folder or a file of weights")
