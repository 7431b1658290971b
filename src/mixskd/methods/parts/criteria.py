"""What a method minimises on the labels: softmax or binary cross-entropy, with weights of classes and their priors."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixskd.methods.parts.losses import cross_entropy, full_precision, kl_divergence, log_likelihood
from mixskd.methods.parts.mixing import Mix


class CrossEntropy(nn.Module):
    """Softmax cross-entropy of one label an image: the mean over a batch of -sum_n w_n y_n log softmax(z + a)_n.

    Args:
        weights: w, one positive number a class (``N``); a mixed or smoothed label weighs each of its parts. 1 if None.
        adjustment: a, tau times the logarithm of each class's share of the training images (``N``; logit adjustment,
            Menon et al., ICLR 2021). The deployed classifier is z alone. 0 if None.
    """

    weights: Tensor | None
    adjustment: Tensor | None
    several = False  # labels of an image

    def __init__(self, weights: Tensor | None = None, adjustment: Tensor | None = None) -> None:
        super().__init__()
        # They follow from the training labels, so that no checkpoint needs them.
        self.register_buffer("weights", weights, persistent=False)
        self.register_buffer("adjustment", adjustment, persistent=False)

    def adjusted(self, logits: Tensor) -> Tensor:
        """z + a in at least fp32."""
        z = full_precision(logits)
        return z if self.adjustment is None else z + self.adjustment.to(z.dtype)

    def weighted(self, log_p: Tensor) -> Tensor:
        """w_n times each column of ``log_p`` (``B x N``)."""
        return log_p if self.weights is None else log_p * self.weights.to(log_p.dtype)

    def log_p(self, logits: Tensor) -> Tensor:
        """w_n log softmax(z + a)_n (``B x N``), whose products with labels of any kind are to be maximised."""
        return self.weighted(F.log_softmax(self.adjusted(logits), dim=1))

    def weight_of(self, labels: Tensor) -> Tensor | float:
        """The weights of class indices (``B``)."""
        return 1.0 if self.weights is None else self.weights[labels]

    def forward(self, logits: Tensor, labels: Tensor, smoothing: float = 0.0, mix: Mix | None = None) -> Tensor:
        """The loss of ``logits`` (``B x N``) with class indices (``B``) or probabilities (``B x N``).

        ``smoothing`` spreads that share of each label over all N classes (Szegedy et al., 2016). With ``mix`` the
        labels are its lam y + (1 - lam) y[pi].
        """
        if mix is None and self.weights is None and smoothing <= 1:
            return cross_entropy(self.adjusted(logits), labels, smoothing)
        log_p = self.log_p(logits)
        own = log_likelihood(log_p, labels)
        if mix is not None:
            own = torch.lerp(log_likelihood(log_p, labels[mix.permutation]), own, mix.lam.to(log_p.dtype))
        return -own.mean() if smoothing == 0 else -(1 - smoothing) * own.mean() - smoothing * log_p.mean()

    def outcomes(self, logits: Tensor) -> int:
        """The number of outcomes of which one is predicted: N."""
        return logits.shape[1]

    def divergence(self, student: Tensor, teacher: Tensor, temperature: float, *, scale: bool = True) -> Tensor:
        """:func:`mixskd.methods.parts.losses.kl_divergence`; weights and adjustment take no part."""
        return kl_divergence(student, teacher, temperature, scale=scale)


class BinaryCrossEntropy(CrossEntropy):
    """Binary cross-entropy of several labels an image, summed over the classes: -log p of all its labels together.

    -sum_n w_n y_n (1 - p_n)^g+ log p_n + (1 - y_n) q_n^g- log(1 - q_n), with p = sigmoid(z + a) and q = max(p - m, 0),
    mean over the batch. This is the asymmetric loss (Ridnik et al., ICCV 2021); g+, g- and m are 0 by default.

    Args:
        weights: w, the weight of each class's positive part (``N``). 1 if None.
        adjustment: a, tau times the logit of each class's share of the training images (``N``). 0 if None.
        asymmetric: (g-, g+, m), or empty.
    """

    several = True

    def __init__(
        self, weights: Tensor | None = None, adjustment: Tensor | None = None, asymmetric: Sequence[float] = ()
    ) -> None:
        super().__init__(weights, adjustment)
        self.asymmetric = tuple(asymmetric)

    def forward(self, logits: Tensor, labels: Tensor, smoothing: float = 0.0, mix: Mix | None = None) -> Tensor:
        """The loss of ``logits`` with labels from 0 to 1 (``B x N`` each).

        ``smoothing`` moves each label that far towards 1/2. With ``mix`` the labels are its lam y + (1 - lam) y[pi].
        """
        z = self.adjusted(logits)
        y = labels.to(z.dtype) if mix is None else mix.apply(labels.to(z.dtype))
        y = (1 - smoothing) * y + smoothing / 2
        present, absent = F.logsigmoid(z), F.logsigmoid(-z)
        if self.asymmetric:
            down, up, margin = self.asymmetric
            tiny = torch.finfo(z.dtype).tiny  # the slope of a root is infinite at 0
            present = z.sigmoid().neg().add(1).clamp(min=tiny) ** up * present
            if margin > 0:
                absent = (z.neg().sigmoid() + margin).clamp(max=1).log()
            absent = (z.sigmoid() - margin).clamp(min=tiny) ** down * absent
        return -(y * self.weighted(present) + (1 - y) * absent).sum(1).mean()

    def outcomes(self, logits: Tensor) -> int:
        """Each class is there or not: 2."""
        return 2

    def divergence(self, student: Tensor, teacher: Tensor, temperature: float, *, scale: bool = True) -> Tensor:
        """T^2 sum_n KL(sigmoid(t_n / T) || sigmoid(s_n / T)) of two Bernoulli variables a class, mean over the batch.

        The teacher is a constant: no gradient reaches it. ``scale=False`` leaves out the factor T^2.
        """
        s, t = full_precision(student) / temperature, full_precision(teacher.detach()) / temperature
        present = t.sigmoid() * (F.logsigmoid(t) - F.logsigmoid(s))
        absent = t.neg().sigmoid() * (F.logsigmoid(-t) - F.logsigmoid(-s))
        divergence = (present + absent).sum(1).mean()
        return divergence * temperature**2 if scale else divergence


PLAIN = CrossEntropy()
"""Cross-entropy without weights."""
