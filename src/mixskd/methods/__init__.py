"""The training objectives, by name."""

from mixskd.methods.base import Method, make_config
from mixskd.methods.baseline import Baseline, BaselineConfig
from mixskd.methods.deep_supervision import DeepSupervision, DeepSupervisionConfig
from mixskd.methods.mixskd import MixSKD, MixSKDConfig
from mixskd.methods.mixup import Mixup, MixupConfig

METHODS: dict[str, type[Method]] = {
    "baseline": Baseline,
    "deep_supervision": DeepSupervision,
    "mixup": Mixup,
    "mixskd": MixSKD,
}

__all__ = [
    "METHODS",
    "Baseline",
    "BaselineConfig",
    "DeepSupervision",
    "DeepSupervisionConfig",
    "Method",
    "MixSKD",
    "MixSKDConfig",
    "Mixup",
    "MixupConfig",
    "make_config",
]
