"""The mix of a batch with a permutation of itself: one linear operator for images, feature maps, logits and labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, overload

import torch
from torch import Tensor

from mixskd.backbones.tokens import FeatureMap, each, has_channels_last
from mixskd.methods.parts.losses import as_probabilities, full_precision

MixName = Literal["mixup", "cutmix"]


class Mix(NamedTuple):
    """x, x[pi] -> lam x + (1 - lam) x[pi] (MixSKD, Eq. 4, 6 and 9), sampled once a step by :func:`sample_mix`.

    ``lam``: the weight of the unpermuted operand, a scalar or one value an image (``B``).
    ``permutation``: ``B`` indices. ``box``: for CutMix ``(top, bottom, left, right)`` in pixels of the ``size``
    (height, width) for which it was drawn, else None. With a box the maps and images are pasted and ``lam`` is the area
    that is left of the first operand, so that labels and logits mix by the same ratio. ``inverse``: the indices that
    undo the permutation; None to sort them from it at each use.
    """

    lam: Tensor
    permutation: Tensor
    box: Tensor | None = None
    size: tuple[int, int] = (0, 0)
    inverse: Tensor | None = None

    @overload
    def apply(self, x: Tensor) -> Tensor: ...
    @overload
    def apply(self, x: FeatureMap) -> FeatureMap: ...
    def apply(self, x: FeatureMap) -> FeatureMap:
        """Mix ``x`` (``B x C x H x W`` images or maps, or ``B x N`` vectors) with ``x[permutation]``.

        Computed in at least fp32; the result has the type of ``x``. A class token has no position, so a box mixes it
        like a vector, by ``lam``.
        """
        return each(self._mixed, x)

    def __call__(self, x: Tensor) -> Tensor:
        """The same as :meth:`apply`, which methods call by name: torch 2.8 cannot compile the call of a tuple."""
        return self.apply(x)

    def _mixed(self, x: Tensor) -> Tensor:
        if x.ndim == 4 and self.box is not None:
            weight = 1 - self.coverage(x.shape[-2], x.shape[-1])
        else:
            weight = self.lam.reshape(-1, *[1] * (x.ndim - 1)) if self.lam.ndim else self.lam
        wide = full_precision(x)
        return torch.lerp(self._permuted(wide), wide, weight.to(wide.dtype)).to(x.dtype)

    def _permuted(self, x: Tensor) -> Tensor:
        """``x[permutation]`` with a gradient in the memory layout of ``x``; that of plain indexing is contiguous."""
        inverse = self.permutation.argsort() if self.inverse is None else self.inverse
        if x.ndim == 4 and has_channels_last(x):
            return _Permuted.apply(x.permute(0, 2, 3, 1), self.permutation, inverse).permute(0, 3, 1, 2)
        return _Permuted.apply(x, self.permutation, inverse)

    def first(self, count: int) -> Mix:
        """The same mix of the first ``count`` images alone; their pairs must be among them (``sample_mix``)."""
        lam = self.lam[:count] if self.lam.ndim else self.lam
        inverse = None if self.inverse is None else self.inverse[:count]
        return self._replace(lam=lam, permutation=self.permutation[:count], inverse=inverse)

    def rest(self, count: int) -> Mix:
        """The same mix of all images but the first ``count``."""
        lam = self.lam[count:] if self.lam.ndim else self.lam
        inverse = None if self.inverse is None else self.inverse[count:] - count
        return self._replace(lam=lam, permutation=self.permutation[count:] - count, inverse=inverse)

    def names(self, names: Sequence[str]) -> list[str]:
        """For each mixed image the names of its two with their shares, a line each; ``names`` are the images'."""
        weights, others = self.lam.expand(len(names)).tolist(), [names[i] for i in self.permutation.tolist()]
        return [f"{w:.2f} {a}\n{1 - w:.2f} {b}" for w, a, b in zip(weights, names, others, strict=True)]

    def coverage(self, height: int, width: int) -> Tensor:
        """The share of each cell of a ``height x width`` grid that the box covers (area resampling; mean = 1 - lam)."""
        assert self.box is not None
        top, bottom, left, right = self.box.unbind()
        rows = _overlap(top, bottom, height, self.size[0])
        columns = _overlap(left, right, width, self.size[1])
        return rows[:, None] * columns[None, :]

    def labels(self, labels: Tensor, classes: int) -> Tensor:
        """lam y + (1 - lam) y[pi], the mixed labels of Eq. 4 as probabilities ``B x N``."""
        like = torch.empty(
            len(labels), classes, dtype=torch.promote_types(self.lam.dtype, labels.dtype), device=labels.device
        )
        return self.apply(as_probabilities(labels, like))


def part_of(images: int, share: float) -> int:
    """How many of ``images`` a ``share`` of them is, at least one."""
    return max(1, round(share * images))


def mixes_in(draws: Any) -> Iterator[Mix]:
    """The mixes among the random numbers of a step, at any depth of its tuples."""
    if isinstance(draws, Mix):
        yield draws
    elif isinstance(draws, list | tuple):
        for part in draws:
            yield from mixes_in(part)


class _Permuted(torch.autograd.Function):
    """``x[permutation]``, whose gradient is read through the inverse permutation.

    That of plain indexing, which allows repeated indices, is added to zeros: on a GPU it sorts the indices first.
    """

    generate_vmap_rule = True  # for torch.func

    @staticmethod
    def forward(x: Tensor, permutation: Tensor, inverse: Tensor) -> Tensor:
        return x[permutation]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        permutation, inverse = ctx.saved_tensors
        return _Permuted.apply(gradient, inverse, permutation), None, None


def sample_mix(
    images: Tensor,
    alpha: float,
    kind: str = "mixup",
    *,
    per_sample: bool = False,
    derangement: bool = False,
    within: int | None = None,
    generator: torch.Generator | None = None,
) -> Mix:
    """Draw lam ~ Beta(alpha, alpha) and a permutation for ``images`` (``B x C x H x W``), without a host sync.

    ``kind`` is ``mixup`` (ICLR 2018) or ``cutmix`` (ICCV 2019: side ratio sqrt(1 - lam), uniform centre, clipped box,
    lam recomputed from its area). ``per_sample`` draws one lam an image (mixup only); ``derangement`` a permutation
    without fixed points. ``within`` is the number of first images that are paired among themselves; so are the others.
    """
    batch, device = images.shape[0], images.device
    lam = sample_beta(alpha, (batch,) if per_sample else (), device, generator)
    first = batch if within is None else within
    permutation = _pairs(first, derangement, device, generator)
    if first < batch:
        permutation = torch.cat([permutation, first + _pairs(batch - first, derangement, device, generator)])
    if kind == "mixup":
        return Mix(lam, permutation, inverse=permutation.argsort())
    height, width = images.shape[-2:]
    extent = torch.stack([torch.full((), side, device=device) for side in (height, width)])
    half = (extent * (1 - lam).sqrt()).floor() / 2
    centre = (torch.rand(2, generator=generator, device=device) * extent).floor()
    low = (centre - half).floor().clamp(min=0)
    high = torch.minimum((centre + half).floor(), extent)
    top, left, bottom, right = *low.unbind(), *high.unbind()
    area = (bottom - top) * (right - left) / (height * width)
    box = torch.stack([top, bottom, left, right])
    return Mix(1 - area, permutation, box, (height, width), permutation.argsort())


def _pairs(count: int, derangement: bool, device: torch.device, generator: torch.Generator | None) -> Tensor:
    permutation = torch.randperm(count, generator=generator, device=device)
    if derangement:  # one random cycle through all images
        permutation = torch.empty_like(permutation).scatter_(0, permutation, permutation.roll(1))
    return permutation


def sample_beta(
    alpha: float, shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """Samples of Beta(alpha, alpha), float32, from two Gamma draws of ``generator`` on ``device``."""
    concentration = torch.full((2, *shape), alpha, dtype=torch.float64, device=device)
    gammas = torch._standard_gamma(concentration, generator=generator)  # ty: ignore
    total = gammas.sum(0)
    fair_coin = torch.rand(shape, generator=generator, device=device, dtype=torch.float64).round()
    # For a tiny alpha both draws can underflow, which torch rounds up to about 1e-308: then it is a fair coin.
    return torch.where(total > 1e-300, gammas[0] / total, fair_coin).float()


def _overlap(low: Tensor, high: Tensor, cells: int, extent: int) -> Tensor:
    """How much of each of ``cells`` equal parts of [0, extent] is in [low, high]; values in [0, 1]."""
    width = extent / cells
    edges = torch.arange(cells + 1, device=low.device) * width
    return (torch.minimum(high, edges[1:]) - torch.maximum(low, edges[:-1])).clamp(min=0) / width
