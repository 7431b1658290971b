"""What the methods share that train a classifier on every stage."""

from torch import Tensor

from mixskd.methods.base import Method
from mixskd.methods.cards import About
from mixskd.methods.parts.branches import AuxiliaryBranches, HeadOutputs

# The cost of the branches; each method adds its summary.
BRANCHED = About(
    "", compute=2, maps=1.63, keeps="branches", other_compute=(2.36, 2.56, 2.87), other_maps=(1.45, 1.82, 1.91)
)


class BranchedMethod(Method):
    """A method on the auxiliary branches of MixSKD (Tables 6 to 11), so that all of them have the same capacity."""

    def build(self) -> None:
        self.branches = AuxiliaryBranches(self.backbone)

    def heads(self, images: Tensor) -> dict[str, Tensor]:
        return self.branches.logits(self.backbone, images)

    def outputs(self, images: Tensor) -> HeadOutputs:
        """Maps, pooled features and logits of the K heads, the backbone's last."""
        return self.branches.classify(self.backbone, self.branches(self.backbone.feature_maps(images)))
