"""Image classifiers of transformers, from a folder or given: ``hf/FOLDER``. Nothing is downloaded or executed."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mixskd.backbones.cutting import STAGES
from mixskd.backbones.library import Library, LibraryBackbone, Parts, assemble
from mixskd.backbones.token_stages import Embedding, PoolTokens, class_token, token_stages
from mixskd.errors import UserError, first_line

HF = "hf/"


def transformers_backbone(name: str, num_classes: int, image_size: int | None = None) -> LibraryBackbone:
    """Build ``hf/FOLDER``, untrained, from the ``config.json`` in the folder that ``save_pretrained`` wrote.

    ResNets, ConvNeXts, ViTs and networks built like them have stages; others become one stage. ``image_size`` matters
    only for a ViT; None is its usual one. Raises UserError if transformers or the folder is missing, or it holds no
    image classifier.
    """
    return _assembled(name, read_config(name), num_classes, image_size)


def from_given(model: Any) -> LibraryBackbone:
    """A ``model`` of transformers with its weights as a backbone; fresh branches have its weights too."""
    name = HF + str(getattr(model.config, "name_or_path", "") or type(model).__name__)
    backbone = _assembled(name, model.config, model.config.num_labels, None)
    backbone.load_export_state_dict(model.state_dict())
    backbone.pretrained = True
    return backbone


def folder_of(name: str) -> Path:
    """The folder that ``hf/FOLDER`` names. Raises UserError if it has no ``config.json``."""
    folder = Path(name.removeprefix(HF)).expanduser()
    if not (folder / "config.json").is_file():
        raise UserError(f"the backbone {name} needs a folder with config.json: download the model to a folder, or save "
                        "it with save_pretrained, and give hf/FOLDER")  # fmt: skip
    return folder


def read_config(name: str) -> Any:
    """transformers' configuration in the folder of ``name``. Code in the folder is not executed."""
    folder = folder_of(name)
    try:
        return _transformers(name).AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"transformers cannot read {folder}/config.json: {first_line(error)}") from None


def published(name: str) -> dict[str, Tensor]:
    """The weights in the folder of ``name``, with transformers' own keys."""
    auto = _transformers(name).AutoModelForImageClassification
    return auto.from_pretrained(folder_of(name), local_files_only=True, trust_remote_code=False).state_dict()


def normalisation(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation in ``preprocessor_config.json``; 0.5 if there is none, as for the usual ViTs."""
    folder = folder_of(name)
    if not (folder / "preprocessor_config.json").is_file():
        return (0.5,) * 3, (0.5,) * 3
    processor = _transformers(name).AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    return tuple(processor.image_mean), tuple(processor.image_std)


def _transformers(name: str) -> Any:
    try:
        import transformers
    except ImportError:
        raise UserError(f"the backbone {name} needs transformers: pip install 'mixskd[transformers]'") from None
    return transformers


def _assembled(name: str, config: Any, classes: int, image_size: int | None) -> LibraryBackbone:
    plain = hasattr(config, "num_attention_heads") and isinstance(getattr(config, "image_size", None), int)
    size = (image_size or config.image_size) if plain else 224
    make = partial(_create, config=config, name=name, size=size if plain else None)
    return assemble(name, classes, Library(make, cut, size, fixed=plain))


def _create(classes: int, *, config: Any, name: str, size: int | None) -> nn.Module:
    config = copy.deepcopy(config)
    config.num_labels = classes
    if size is not None:
        config.image_size = size
    try:
        model: nn.Module = _transformers(name).AutoModelForImageClassification.from_config(config)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"transformers cannot make {name}: {first_line(error)}") from None
    model.forward = partial(_logits, model.forward)  # type: ignore[method-assign]
    return model


def _logits(forward: Any, images: Tensor) -> Tensor:
    return forward(pixel_values=images).logits


def cut(model: Any) -> Parts:
    """Stages, pooling and head of ``model``. Raises one of ``MISFITS`` if it is not a chain of them."""
    base, classifier = getattr(model, model.base_model_prefix), model.classifier
    encoder = getattr(base, "encoder", base)
    norm: Any = getattr(base, "layernorm", None)
    if (stages := getattr(encoder, "stages", None)) is not None:  # maps, pooled by their mean
        early = len(stages) - min(STAGES, len(stages))
        first = nn.Sequential(base.embedder if norm is None else base.embeddings, *stages[: early + 1])
        linear = classifier[-1] if isinstance(classifier, nn.Sequential) else classifier
        return Parts([first, *stages[early + 1 :]], linear if norm is None else nn.Sequential(norm, linear))
    layers = list(encoder.layer if hasattr(encoder, "layer") else base.layers)
    side = model.config.image_size // model.config.patch_size
    embedding = Embedding(base.embeddings, _embed, (side, side), 1)
    return Parts(token_stages(layers, 1, embedding, norm), classifier, PoolTokens(nn.Identity(), class_token))


def _embed(embeddings: Any, images: Tensor) -> Tensor:
    return embeddings(images)
