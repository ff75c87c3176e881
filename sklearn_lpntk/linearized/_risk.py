"""How ridge parameters are compared: generalised cross-validation, leave-one-out, finite time."""

from dataclasses import dataclass

import numpy as np

ALPHAS = np.logspace(-7, 3, 41)  # in units of the mean of the kernel's diagonal


@dataclass(frozen=True)
class Filter:
    """What a ridge and a training time make of an eigenvalue w of the kernel.

    Attributes
    ----------
    shift : float
        lambda.
    time : float or None
        Learning rate times steps; None is the limit.
    total : float
        Number of samples.
    """

    shift: float
    time: float | None = None
    total: float = 1.0

    def dual(self, w):
        """Coefficients for a target of 1: ``(1 - exp(-t (w + lambda) / N)) / (w + lambda)``."""
        rate = w + self.shift
        if self.time is None:
            return 1 / rate
        t = self.time / self.total
        return np.divide(-np.expm1(-t * rate), rate, out=np.full_like(rate, t), where=rate != 0)

    def residual(self, w):
        """What is left of a target of 1: ``1 - w dual(w)``."""
        return self.shift / (w + self.shift) if self.time is None else 1 - w * self.dual(w)


def gcv(residual_squares, residual_trace, total, n_rows=1):
    """``[1/n sum (y - f)^2] / [tr(I - S) / n]^2`` for targets of any number of columns."""
    return residual_squares / total / (residual_trace / (total * n_rows)) ** 2


def mean_square(errors, weights):
    """Weighted mean over samples of the squared errors, outputs summed."""
    return float(weights @ (errors**2).sum(1) / weights.sum())
