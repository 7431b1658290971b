"""What the methods share that train a classifier on every stage."""

from __future__ import annotations

from torch import Tensor

from mixskd.methods.base import About, Method
from mixskd.methods.parts.branches import AuxiliaryBranches

# What the branches cost; each method adds its summary.
BRANCHED = About(
    "", compute=2, maps=1.63, keeps="branches", other_compute=(2.36, 2.56, 2.87), other_maps=(1.45, 1.82, 1.91)
)


class BranchedMethod(Method):
    """A method on the auxiliary branches of MixSKD (Tables 6 to 11), so that all of them have the same capacity."""

    def build(self) -> None:
        self.branches = AuxiliaryBranches(self.backbone)

    def heads(self, images: Tensor) -> dict[str, Tensor]:
        return self.branches.logits(self.backbone, images)

    def pooled(self, images: Tensor) -> list[Tensor]:
        """The K pooled maps ``B x C`` of the branches, the backbone's last."""
        return [self.backbone.pooled(f) for f in self.branches(self.backbone.feature_maps(images))]

    def logits(self, pooled: list[Tensor]) -> list[Tensor]:
        """The K logits ``B x N`` from pooled maps, the backbone's last."""
        heads = [*self.branches.heads, self.backbone.head]
        return [head(x) for head, x in zip(heads, pooled, strict=True)]
