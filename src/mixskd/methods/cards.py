"""What a method's card shows: its summary and what it costs beside the baseline."""

from dataclasses import dataclass

# The networks on which costs are counted: 100 classes for the first and third, 17 for the others.
NETWORKS = ("WRN-16-2 at 32 px", "ResNet-18 at 128 px", "ResNet-50 at 224 px", "EfficientNet-Lite0 at 128 px")


@dataclass(frozen=True)
class About:
    """Summary and cost of a method, for ``mixskd list methods`` and for its page.

    Args:
        summary: one sentence.
        compute: operations of an update divided by the baseline's, on the first of ``NETWORKS``.
        images: images that go through the network for each original.
        maps: bytes that the forward pass keeps for the backward pass, divided by the baseline's, on the first of
            ``NETWORKS``.
        keeps: what else is in memory during training.
        other_compute: ``compute`` on the other ``NETWORKS``; empty if it is the same on all.
        other_maps: ``maps`` on the other ``NETWORKS``; empty if it is the same on all.
    """

    summary: str
    compute: float = 1
    images: int = 1
    maps: float = 1
    keeps: str = ""
    other_compute: tuple[float, ...] = ()
    other_maps: tuple[float, ...] = ()

    @property
    def cost(self) -> str:
        """Operations, images and memory in words."""
        images = "1 image goes" if self.images == 1 else f"{self.images} images go"
        return (
            f"operations: {self.operations}; {images} through the network for each original; "
            f"feature maps in memory: {_times(self.maps, self.other_maps)}"
            + (f"; also in memory: {self.keeps}" if self.keeps else "")
        )

    @property
    def operations(self) -> str:
        """The operations of an update in words."""
        return _times(self.compute, self.other_compute)


def _times(first: float, others: tuple[float, ...]) -> str:
    """A multiple of the baseline in words: on the first network, and the smallest and largest of all networks."""
    if not others:
        return "the same as the baseline" if first == 1 else f"{first:g} times the baseline"
    low, high = (round(end(first, *others), 1) for end in (min, max))
    network = NETWORKS[0].partition(" ")[0]
    return f"{round(first, 1):g} times the baseline on {network} ({low:g} to {high:g} times by network)"
