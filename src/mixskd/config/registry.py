"""What ``method.name`` can be: the training objectives, and the networks of detection and segmentation.

A new method is one file in ``methods/`` and one line here. Nothing is imported before it is used.
"""

from collections.abc import Iterable
from typing import Any

from mixskd.config.conversion import LONGEST_NAME
from mixskd.config.lazy_table import LazyTable
from mixskd.config.plugins import has_plugins, load_plugins
from mixskd.errors import unknown

METHODS = LazyTable(
    {
        "baseline": "mixskd.methods.baseline:Baseline",
        "kd": "mixskd.methods.kd:KD",
        "mixskd": "mixskd.methods.mixskd:MixSKD",
        "deep_supervision": "mixskd.methods.deep_supervision:DeepSupervision",
        # self-knowledge distillation
        "ddgsd": "mixskd.methods.ddgsd:DDGSD",
        "dks": "mixskd.methods.dks:DKS",
        "byot": "mixskd.methods.byot:BYOT",
        "sad": "mixskd.methods.sad:SAD",
        "tfkd_reg": "mixskd.methods.tfkd_reg:TfKDReg",
        "tfkd_self": "mixskd.methods.tfkd_self:TfKDSelf",
        "cskd": "mixskd.methods.cskd:CSKD",
        "frskd": "mixskd.methods.frskd:FRSKD",
        "pskd": "mixskd.methods.pskd:PSKD",
        "bake": "mixskd.methods.bake:BAKE",
        "dlb": "mixskd.methods.dlb:DLB",
        "uskd": "mixskd.methods.uskd:USKD",
        "zipf_ls": "mixskd.methods.zipf_ls:ZipfLS",
        "ict": "mixskd.methods.ict:ICT",
        # mixing
        "mixup": "mixskd.methods.mixup:Mixup",
        "regmixup": "mixskd.methods.regmixup:RegMixup",
        "manifold_mixup": "mixskd.methods.manifold_mixup:ManifoldMixup",
        "cutmix": "mixskd.methods.cutmix:CutMix",
        "mixup_cutmix": "mixskd.methods.mixup_cutmix:MixupCutMix",
        "cskd_mixup": "mixskd.methods.cskd_mixup:CSKDMixup",
        "frskd_mixup": "mixskd.methods.frskd_mixup:FRSKDMixup",
        "augmix_jsd": "mixskd.methods.augmix_jsd:AugMixJSD",
        # losses on the labels
        "label_smoothing": "mixskd.methods.label_smoothing:LabelSmoothing",
        "ols": "mixskd.methods.ols:OLS",
        "virtual_softmax": "mixskd.methods.virtual_softmax:VirtualSoftmax",
        "focal": "mixskd.methods.focal:Focal",
        "confidence_penalty": "mixskd.methods.confidence_penalty:ConfidencePenalty",
    }
)
NETWORKS = LazyTable(
    {
        "cascade_rcnn": "mixskd.transfer.detection.model:CascadeRCNN",
        "faster_rcnn": "mixskd.transfer.detection.model:FasterRCNN",
        "deeplabv3": "mixskd.transfer.segmentation.model:SegmentationMethod",
    }
)


def method_class(name: str) -> type[Any]:
    """The method called ``name``, a plugin's or another task's network included.

    Raises UserError for an unknown name, with the nearest one.
    """
    load_plugins()
    if name in METHODS:
        found: type[Any] = METHODS[name]
        return found
    if name in NETWORKS:
        network: type[Any] = NETWORKS[name]
        return network
    raise unknown("method", name, METHODS)


def check_method(name: Any, names: Iterable[str] | None = None) -> None:
    """Raises UserError for a ``name`` that no method has, with the nearest of ``names``, without importing torch.

    A name that a plugin might add passes, since :func:`method_class` knows them all; so does one that is too long to be
    a name, which the conversion of the settings refuses.
    """
    known = not isinstance(name, str) or name in METHODS or name in NETWORKS
    if not known and len(name) <= LONGEST_NAME and not has_plugins():
        raise unknown("method", name, METHODS if names is None else names)
