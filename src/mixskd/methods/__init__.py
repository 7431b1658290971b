"""The training objectives, by name. A new one is a file beside these and a line here."""

import dataclasses
from typing import cast

from mixskd.config import Experiment, MethodChoice
from mixskd.errors import unknown
from mixskd.methods.augmix_jsd import AugMixJSD
from mixskd.methods.bake import BAKE
from mixskd.methods.base import Method
from mixskd.methods.base import make_config as make_config
from mixskd.methods.baseline import Baseline
from mixskd.methods.byot import BYOT
from mixskd.methods.confidence_penalty import ConfidencePenalty
from mixskd.methods.cskd import CSKD, CSKDMixup
from mixskd.methods.cutmix import CutMix
from mixskd.methods.ddgsd import DDGSD
from mixskd.methods.deep_supervision import DeepSupervision
from mixskd.methods.dks import DKS
from mixskd.methods.dlb import DLB
from mixskd.methods.focal import Focal
from mixskd.methods.frskd import FRSKD, FRSKDMixup
from mixskd.methods.ict import ICT
from mixskd.methods.kd import KD
from mixskd.methods.label_smoothing import LabelSmoothing
from mixskd.methods.manifold_mixup import ManifoldMixup
from mixskd.methods.mixskd import MixSKD
from mixskd.methods.mixskd import MixSKDConfig as MixSKDConfig
from mixskd.methods.mixup import Mixup
from mixskd.methods.mixup_cutmix import MixupCutMix
from mixskd.methods.ols import OLS
from mixskd.methods.pskd import PSKD
from mixskd.methods.regmixup import RegMixup
from mixskd.methods.sad import SAD
from mixskd.methods.tfkd_reg import TfKDReg
from mixskd.methods.tfkd_self import TfKDSelf
from mixskd.methods.uskd import USKD
from mixskd.methods.virtual_softmax import VirtualSoftmax
from mixskd.methods.zipf_ls import ZipfLS
from mixskd.plugins import load_plugins

METHODS: dict[str, type[Method]] = {
    "baseline": Baseline,
    "kd": KD,
    "mixskd": MixSKD,
    "deep_supervision": DeepSupervision,
    # self-knowledge distillation
    "ddgsd": DDGSD,
    "dks": DKS,
    "byot": BYOT,
    "sad": SAD,
    "tfkd_reg": TfKDReg,
    "tfkd_self": TfKDSelf,
    "cskd": CSKD,
    "frskd": FRSKD,
    "pskd": PSKD,
    "bake": BAKE,
    "dlb": DLB,
    "uskd": USKD,
    "zipf_ls": ZipfLS,
    "ict": ICT,
    # mixing
    "mixup": Mixup,
    "regmixup": RegMixup,
    "manifold_mixup": ManifoldMixup,
    "cutmix": CutMix,
    "mixup_cutmix": MixupCutMix,
    "cskd_mixup": CSKDMixup,
    "frskd_mixup": FRSKDMixup,
    "augmix_jsd": AugMixJSD,
    # losses on the labels
    "label_smoothing": LabelSmoothing,
    "ols": OLS,
    "virtual_softmax": VirtualSoftmax,
    "focal": Focal,
    "confidence_penalty": ConfidencePenalty,
}


def method_class(name: str) -> type[Method]:
    """The method called ``name``, a plugin's or another task's included.

    Raises UserError for an unknown name, with the nearest one.
    """
    load_plugins()
    if name in METHODS:
        return METHODS[name]
    from mixskd.tasks.networks import NETWORKS  # what trains other tasks; a classifier's run does not load it

    if name in NETWORKS:
        return cast(type[Method], NETWORKS[name])
    raise unknown("method", name, METHODS)


def with_all_options(experiment: Experiment) -> Experiment:
    """``experiment`` with every option of its method; those that it lacks, as an older run may, have their defaults.

    Raises UserError for an unknown method or option, or a value that cannot work.
    """
    name = experiment.method.name
    options = dataclasses.asdict(make_config(method_class(name).Config, experiment.method.options))
    return dataclasses.replace(experiment, method=MethodChoice(name, options))
