"""Temperature scaling of logits (Guo et al., ICML 2017)."""

from torch import Tensor


def best_temperature(logits: Tensor, labels: Tensor) -> float:
    """The T in 0.01 to 100 that minimises the mean cross-entropy of ``logits / T`` (``N x C``) with ``labels``.

    The loss is convex in 1/T, so that there is one minimum.
    """
    from scipy.optimize import minimize_scalar

    scores, targets = logits.double(), labels[:, None]

    def loss(inverse: float) -> float:
        scaled = scores * inverse
        return float((scaled.logsumexp(1) - scaled.gather(1, targets)[:, 0]).mean())

    found = minimize_scalar(loss, bounds=(0.01, 100.0), method="bounded", options={"xatol": 1e-9})
    return 1 / float(found.x)
