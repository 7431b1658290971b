"""Temperature scaling of logits (Guo et al., ICML 2017)."""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F


def best_temperature(
    logits: Tensor, labels: Tensor, loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
) -> float:
    """The T in 0.01 to 100 that minimises ``loss(logits / T, labels)`` (``N x C``), by default the mean cross-entropy.

    The loss must be convex in 1/T, so that there is one minimum; a cross-entropy is, with a softmax or binary.
    """
    from scipy.optimize import minimize_scalar

    scores = logits.double()
    found = minimize_scalar(
        lambda inverse: float(loss(scores * inverse, labels)), bounds=(0.01, 100.0), method="bounded",
        options={"xatol": 1e-9},
    )  # fmt: skip
    return 1 / float(found.x)
