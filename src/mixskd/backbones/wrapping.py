"""A staged backbone of any classifier that is a chain of modules."""

from collections.abc import Sequence

from torch import nn

from mixskd.backbones.cutting import grouped, nested, units
from mixskd.backbones.from_transformers import from_given
from mixskd.backbones.library import MISFITS, logits, same
from mixskd.backbones.staged import StagedBackbone
from mixskd.errors import UserError, first_line


def wrap(
    model: nn.Module,
    stages: Sequence[str] | None = None,
    head: str | None = None,
    *,
    pool: nn.Module | None = None,
    name: str = "",
    image_size: int = 224,
    min_size: int = 1,
    pretrained: bool = False,
) -> StagedBackbone:
    """A staged backbone that shares the modules of ``model``, with the same logits and keys of its weights.

    ``stages`` are the names of the modules at whose outputs the stages end, in order (``["layer1", "layer2"]``); what
    lies between the last one and ``head`` belongs to the last stage, up to a pooling. ``head`` is the name of the
    classifier, which takes pooled features ``B x C``. ``pool`` turns the last map into them; None is the mean over its
    positions. A classifier of transformers needs neither. ``image_size`` and ``min_size`` are the usual and the
    smallest height and width. ``pretrained``: branches start from the model's weights too; otherwise their layers are
    initialised by ``reset_parameters``. Raises UserError if the stages are not a chain that gives the model's logits.
    """
    if hasattr(model, "base_model_prefix"):
        return from_given(model)
    if not stages or head is None:
        raise UserError("wrap() needs stages, the names of the modules at which they end, and head, that of the "
                        "classifier; model.named_modules() has the names")  # fmt: skip
    kind, names = type(model).__name__, dict(model.named_modules())
    for path in (*stages, head):
        if path not in names:
            raise UserError(f"wrap() finds no module {path!r} in {kind}; see model.named_modules()")
    expected = logits(model, image_size)
    try:
        chain = list(units(model, [*stages, f"{head}."], stops=(head,)))
        if [path for path, _ in chain if path in stages] != list(stages):
            raise ValueError("these are not modules of its chain, in order")
        last = max(i for i, (path, _) in enumerate(chain) if path in stages)
        behind = next((i for i, (_, m) in enumerate(chain) if i > last and _pools(m)), len(chain))
        backbone = StagedBackbone(
            [nested(stage) for stage in grouped(chain[:behind], stages)], names[head], pool=pool, head_name=head,
            name=name or kind, default_size=image_size, min_size=min_size,
        )  # fmt: skip
        found = logits(backbone, image_size)
    except MISFITS as error:
        raise UserError(f"wrap() cannot cut {kind} at {', '.join(stages)}: {first_line(error)}") from None
    if not same(expected, found):
        raise UserError(
            f"wrap() gets other logits from the stages of {kind} than from the whole: it is no chain of stages, "
            "pooling and head; give pool, or write a StagedBackbone"
        )
    backbone.pretrained = pretrained
    return backbone


def _pools(module: nn.Module) -> bool:
    kind = type(module).__name__
    return isinstance(module, nn.Flatten) or ("Pool" in kind and ("Adaptive" in kind or "Global" in kind))
