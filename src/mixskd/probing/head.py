"""Put a fitted linear classifier into a network, as its last layer or as the start of a method's classifiers."""

import numpy as np
import torch
from torch import nn

from mixskd.backbones import StagedBackbone
from mixskd.backbones.heads import Head, split_head
from mixskd.methods.base import Method
from mixskd.methods.parts.branches import AuxiliaryBranches, SelfTeacher
from mixskd.probing.classifiers import Linear
from mixskd.probing.features import last_layer


def set_head(backbone: StagedBackbone, linear: Linear) -> None:
    """Make ``linear`` the last layer of ``backbone``; what comes before it stays."""
    set_layer(last_layer(backbone), linear)


@torch.no_grad()
def set_layer(layer: nn.Linear, linear: Linear) -> None:
    """Give ``layer`` the weights of ``linear``, rounded to the layer's type."""
    layer.weight.copy_(torch.from_numpy(linear.weight))
    layer.bias.copy_(torch.from_numpy(np.ascontiguousarray(linear.bias)))


def start_heads(method: Method, linear: Linear) -> None:
    """Initialise the classifiers of ``method`` with ``linear``: the backbone's, and those on maps like its last one.

    The branches of a network that starts from weights begin as copies of its own stages, so that their features are
    the backbone's and the same classifier fits them. The self-teacher h of MixSKD begins as the mean of its features
    under that classifier. Other classifiers stay random, because nothing is known of their features. Raises UserError
    if the backbone's classifier does not end in a linear layer with a bias.
    """
    set_head(method.backbone, linear)
    for part in method.modules():
        if isinstance(part, AuxiliaryBranches):
            for head in part.heads:
                set_layer(split_head(head, "a probe")[1], linear)
        if isinstance(part, SelfTeacher) and part.norm is None and isinstance(method.backbone.head, Head):
            channels, number = part.projection.out_features, len(part.stages)
            with torch.no_grad():
                part.projection.weight.copy_(torch.eye(channels).repeat(1, number) / number)
            set_layer(part.classifier, linear)
