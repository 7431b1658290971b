"""The names of the methods, so that a wrong one is refused before torch is imported, which takes seconds."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mixskd.errors import unknown
from mixskd.tasks.kinds import kind_of

NAMES = (
    "baseline", "kd", "mixskd", "deep_supervision", "ddgsd", "dks", "byot", "sad", "tfkd_reg", "tfkd_self", "cskd",
    "frskd", "pskd", "bake", "dlb", "uskd", "zipf_ls", "ict", "mixup", "regmixup", "manifold_mixup", "cutmix",
    "mixup_cutmix", "cskd_mixup", "frskd_mixup", "augmix_jsd", "label_smoothing", "ols", "virtual_softmax", "focal",
    "confidence_penalty",
)  # fmt: skip
"""Those of :data:`mixskd.methods.METHODS`."""


def check_method(name: object, names: Sequence[str] = NAMES) -> None:
    """Raises UserError for a ``name`` that no method has, with the nearest of ``names``.

    Where there may be more methods than ours, those of plugins or of a program, a later check knows them all.
    """
    if not isinstance(name, str) or name in NAMES or kind_of(name) is not None:
        return
    from mixskd.plugins import has_plugins  # it reads what packages say of themselves, which help can do without

    if "mixskd.methods" not in sys.modules and not has_plugins():
        raise unknown("method", name, names)
