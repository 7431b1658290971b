"""Any classifier of torchvision, cut into stages where the size of its maps changes."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mixskd.backbones.cutting import ends_by_size, grouped, nested, units
from mixskd.backbones.library import ChannelsLast, Library, LibraryBackbone, OnPooled, Parts, assemble, shell
from mixskd.backbones.staged import widened
from mixskd.backbones.token_stages import Embedding, PoolTokens, class_token, token_stages
from mixskd.errors import UserError, first_line, unknown

TORCHVISION = "torchvision/"
# Children after the last map, and children that hold parts of the chain.
STOPS = ("avgpool", "permute", "flatten", "classifier", "head", "fc")
OPENED = ("features", "trunk_output", "layers", "blocks")
# Models with a fixed image size, and the option that sets it.
FIXED = {"maxvit": "input_size", "vit": "image_size"}
# Auxiliary classifiers that these models have only for their own training.
OPTIONS = {"googlenet": {"aux_logits": False}, "inception_v3": {"aux_logits": False}}


def torchvision_backbone(
    name: str, num_classes: int, image_size: int | None = None, channels: int = 3
) -> LibraryBackbone:
    """Build ``torchvision/NAME``, untrained; its stages end where the size of its maps changes, at most four.

    ``image_size`` matters only for a model with a fixed size; None is its usual one. A model that is not a chain of
    stages, average pooling and head becomes one stage. Raises UserError if torchvision has no such classifier, or the
    classifier cannot take images of that size.
    """
    from torchvision import models

    short = name.removeprefix(TORCHVISION)
    if short not in models.list_models(module=models):
        raise unknown("classifier of torchvision", short, models.list_models(module=models))
    usual = models.get_model_weights(short)["DEFAULT"].transforms().crop_size[0]  # px, of the published weights
    option = FIXED.get(short.split("_")[0])
    size = (image_size or usual) if option else usual
    options = {option: size} if option and size != usual else {}
    options |= {} if channels == 3 else {"channels": channels}
    make = partial(create, short, **options, **OPTIONS.get(short, {}))
    parts = partial(cut, size=size, channels=channels)
    return assemble(name, num_classes, Library(make, parts, size, fixed=bool(option), channels=channels))


def create(short: str, num_classes: int, channels: int = 3, **options: Any) -> Any:
    """torchvision's own model, with a new first convolution for other ``channels``.

    Raises UserError if ``options`` do not fit it.
    """
    from torchvision.models import get_model

    if short in OPTIONS:
        options["init_weights"] = True  # their own default, which they warn about
    try:
        model = get_model(short, num_classes=num_classes, **options)
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        size = next((f" for images of {options[key]} px" for key in FIXED.values() if key in options), "")
        raise UserError(f"torchvision cannot make {short}{size}: {first_line(error)}") from None
    if channels != 3:
        widened(model, channels)
    return model


def cut(model: Any, size: int, channels: int = 3) -> Parts:
    """Stages, pooling and head of ``model``. Raises one of ``MISFITS`` if it is not a chain of them."""
    if hasattr(model, "class_token"):
        return cut_transformer(model)
    opened = [f"{name}.0" for name in OPENED if hasattr(model, name)]
    chain: list[tuple[str, nn.Module]] = list(units(model, opened, STOPS))
    last = hasattr(model, "permute")  # Swin: channels in the last place
    if type(model).__name__ == "DenseNet":
        chain.append(("relu", nn.ReLU()))
    ends = ends_by_size(chain, size, 1 if last else 2, channels)
    stages: list[nn.Module] = [nested(stage) for stage in grouped(chain, ends)]
    if last:
        stages = [ChannelsLast(stage, first=k == 0) for k, stage in enumerate(stages)]
    classifier = next(getattr(model, name) for name in ("classifier", "head", "fc") if hasattr(model, name))
    return Parts(stages, head_of(classifier))


def head_of(classifier: nn.Module) -> nn.Module:
    """``classifier`` as a head on pooled features: its only linear layer, itself, or itself on maps of one position."""
    layers = [m for m in classifier.modules() if isinstance(m, nn.Linear)]
    first = next(m for m in classifier.modules() if next(m.parameters(recurse=False), None) is not None)
    if len(layers) == 1 and {*classifier.parameters()} == {*layers[0].parameters()}:
        dropout = [m for m in classifier.modules() if isinstance(m, nn.Dropout) and m.p > 0]
        return classifier if dropout else layers[0]
    return classifier if first in layers else OnPooled(classifier, "forward", (2, 3))


def cut_transformer(model: Any) -> Parts:
    """torchvision's ViT as embedding and blocks in four groups, class token and classifier."""
    encoder = model.encoder
    part = shell(model, ("conv_proj",), ("class_token",))
    part.encoder = shell(encoder, ("dropout",), ("pos_embedding",))
    grid = (model.image_size // model.patch_size,) * 2
    stages = token_stages(list(encoder.layers), 1, Embedding(part, embed, grid, 1), encoder.ln)
    heads = model.heads
    return Parts(stages, heads.head if len(heads) == 1 else heads, PoolTokens(nn.Identity(), class_token))


def embed(model: Any, images: Tensor) -> Tensor:
    """Patches with positions and class token, as the model itself makes them."""
    patches = model._process_input(images)
    tokens = torch.cat([model.class_token.expand(len(images), -1, -1), patches], dim=1)
    return model.encoder.dropout(tokens + model.encoder.pos_embedding)
