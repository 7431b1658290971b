"""Any classifier of timm, cut into stages where timm takes its feature maps, a plain transformer between its blocks."""

import re
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mixskd.backbones.cutting import STAGES, grouped, nested, units
from mixskd.backbones.library import ChannelsLast, Library, LibraryBackbone, OnPooled, Parts, PoolMap, assemble, shell
from mixskd.backbones.token_stages import Embedding, PoolTokens, token_stages, two_tokens
from mixskd.config.trusted_backbones import announce, is_elsewhere
from mixskd.errors import UserError, first_line

PREFIX = "timm/"
EMBEDDING = ("patch_embed", "pos_drop", "patch_drop", "norm_pre")
TOKENS = ("cls_token", "reg_token", "pos_embed", "dist_token")


def timm_backbone(name: str, num_classes: int, image_size: int | None = None, channels: int = 3) -> LibraryBackbone:
    """Build ``timm/NAME``, untrained; the deepest four of timm's feature maps are the stage maps.

    ``image_size`` matters only for a model with a fixed size; None is its usual one. A model that is not a chain of
    stages, pooling and head becomes one stage. Raises UserError if timm or the model is missing, or the model cannot
    take images of that size.
    """
    announce(name)
    config = pretrained_config(name)
    usual = config.input_size[-1] if config else 224
    fixed = bool(config and config.fixed_input_size)
    size = (image_size or usual) if fixed else usual
    options = ({} if channels == 3 else {"in_chans": channels}) | ({} if size == usual else {"img_size": size})
    backbone = assemble(name, num_classes, Library(partial(create, name, **options), cut, size, fixed, channels))
    backbone.name = local_name(name)
    return backbone


def local_name(name: str) -> str:
    """The name for a model file: for a model that timm fetches from elsewhere, that of its architecture."""
    if not is_elsewhere(name):
        return name
    with torch.device("meta"):
        architecture = create(name, 1).pretrained_cfg.get("architecture")
    return f"{PREFIX}{architecture}" if architecture else name


def pretrained_config(name: str) -> Any:
    """timm's description of the model, with image size and normalisation; None if timm has none."""
    return timm_of(name).get_pretrained_cfg(name.removeprefix(PREFIX))


def timm_of(name: str) -> Any:
    """The module ``timm``. Raises UserError if it is not installed."""
    try:
        import timm
    except ImportError:
        raise UserError(f"the backbone {name} needs timm: pip install 'mixskd[timm]'") from None
    return timm


def create(name: str, num_classes: int, **options: Any) -> Any:
    """timm's own model. Raises UserError if timm or the model is missing, or ``options`` do not fit it."""
    try:
        return timm_of(name).create_model(name.removeprefix(PREFIX), num_classes=num_classes, **options)
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        size = f" for images of {options['img_size']} px" if "img_size" in options else ""
        size += f" of {options['in_chans']} channels" if "in_chans" in options else ""
        hint = "" if options else "; see timm.list_models()"
        raise UserError(f"timm cannot make {name}{size}: {first_line(error)}{hint}") from None


def check_timm_architecture(name: str) -> None:
    """Raise UserError unless ``timm/NAME`` is an architecture of the installed timm. Nothing is fetched."""
    try:
        from timm.models import is_model
    except ImportError:
        raise UserError(f"the backbone {name} needs timm: pip install 'mixskd[timm]'") from None
    if not re.fullmatch(r"[\w.-]+", name.removeprefix(PREFIX)) or not is_model(name.removeprefix(PREFIX)):
        raise UserError(f"the file names the backbone {name!r}, which the installed timm does not have")


def cut(model: Any) -> Parts:
    """Stages, pooling and head of ``model``. Raises one of ``MISFITS`` if it is not a chain of them."""
    return cut_transformer(model) if hasattr(model, "_pos_embed") else cut_chain(model)


def cut_chain(model: Any) -> Parts:
    """``model`` cut after its deepest feature maps; modules after the last map belong to the last stage."""
    classifier = model.default_cfg["classifier"]
    first_classifier = classifier if isinstance(classifier, str) else classifier[0]
    ends = [info["module"] for info in model.feature_info][-STAGES:]
    in_conv = isinstance(getattr(getattr(model, "head", None), "in_conv", None), nn.Module)
    chain = list(units(model, ends, stops=("global_pool", "head_drop", first_classifier.split(".")[0])))
    if in_conv:  # a convolution before the pooling
        chain.append(("head.in_conv", model.head.in_conv))
        model.head.in_conv = nn.Identity()
    stages = [nested(stage) for stage in grouped(chain, ends)]
    layout = getattr(model, "output_fmt", "NCHW")
    if layout not in ("NCHW", "NHWC"):
        raise ValueError(f"its maps are {layout}")
    if layout == "NHWC":
        stages = [ChannelsLast(stage, first=k == 0) for k, stage in enumerate(stages)]  # type: ignore[misc]
    return Parts(list(stages), head_of(model, {path.split(".")[0] for path, _ in chain}, layout), pooling_of(model))


def head_of(model: Any, trunk: set[str], layout: str) -> nn.Module:
    """The classifier on pooled features: timm's linear layer, or all its layers after the pooling."""
    rest = [name for name, _ in model.named_children() if name not in trunk - {"head"}]
    linear = model.get_classifier()
    behind = [p for name in rest for p in getattr(model, name).parameters()]
    if isinstance(linear, nn.Linear) and {id(p) for p in behind} == {id(p) for p in linear.parameters()}:
        return linear
    return OnPooled(shell(model, rest), "forward_head", (2, 3) if layout == "NCHW" else (1, 1))


def pooling_of(model: Any) -> nn.Module | None:
    """timm's pooling module; None if it is the average."""
    module = getattr(model, "global_pool", None)
    if not isinstance(module, nn.Module):
        module = getattr(getattr(model, "head", None), "global_pool", None)
    kind = getattr(module, "pool_type", "avg")
    return None if not isinstance(module, nn.Module) or kind in ("avg", "fast", "fastavg") else PoolMap(module)


def cut_transformer(model: Any) -> Parts:
    """A plain transformer as embedding and blocks in four groups, its own pooling, and norm and classifier as head."""
    prefix = model.num_prefix_tokens
    embedding = Embedding(shell(model, EMBEDDING, TOKENS), embed, model.patch_embed.grid_size, prefix)
    stages = token_stages(list(model.blocks), prefix, embedding, model.norm)
    if hasattr(model, "head_dist"):  # two tokens are pooled, each with its classifier
        both = OnPooled(shell(model, ("head", "head_dist", "head_drop")), "forward_head", ())
        return Parts(stages, nn.Sequential(nn.Unflatten(1, (2, -1)), both), PoolTokens(nn.Identity(), two_tokens))
    head = nn.Sequential(model.fc_norm, model.head_drop, model.head)
    alone = isinstance(model.fc_norm, nn.Identity)
    return Parts(stages, model.head if alone else head, PoolTokens(shell(model, ("attn_pool",)), own_pooling))


def own_pooling(model: Any, tokens: Tensor) -> Tensor:
    """Pool by class token, average or attention, as the model itself does."""
    return model.pool(tokens)


def embed(model: Any, images: Tensor) -> Tensor:
    """Patches with positions and class token, as the model itself makes them."""
    return model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(images))))
