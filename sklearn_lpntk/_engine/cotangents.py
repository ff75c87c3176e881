"""Cotangents: the scalar functions of the logits whose gradients the kernel compares.

A cotangent maps logits of shape (n, K) and label columns of shape (n,) to an array of
shape (n, R, K); the feature of sample i and cotangent r is ``J(x_i)^T v[i, r]``.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..exceptions import ProbabilityOutputWarning
from .parameters import is_finite

ALLOWED = "return finite numbers of shape (n, K) or (n, R, K)"


@dataclass(frozen=True)
class Cotangent:
    """A named cotangent; ``function`` returns (n, K) or (n, R, K)."""

    name: str
    function: Callable
    needs_y: bool
    traced: bool = False  # see `Objective`

    def __call__(self, logits, y):
        n, n_logits = logits.shape
        require_columns(y, n_logits)
        v = self.function(logits.clone(), y)
        if v is None:
            raise ValueError(f"The cotangent {self.name!r} returned None; {ALLOWED}.")
        v = torch.as_tensor(v, dtype=logits.dtype, device=logits.device).detach()
        shape = tuple(v.shape)
        if v.ndim == 2:
            v = v.unsqueeze(1)
        if v.ndim != 3 or v.shape[0] != n or v.shape[2] != n_logits or v.shape[1] < 1:
            raise ValueError(
                f"The cotangent {self.name!r} returned shape {shape} for logits of shape "
                f"{(n, n_logits)}; {ALLOWED}."
            )
        if not is_finite(v):
            raise ValueError(f"The cotangent {self.name!r} returned NaN or infinity; {ALLOWED}.")
        return v


def require_columns(y, n_logits):
    """Refuse labels that are no columns of the logits."""
    if y.device.type == "meta":
        return
    n_classes = max(n_logits, 2)
    if y.min() < 0 or y.max() >= n_classes:
        outside = sorted(set(y[(y < 0) | (y >= n_classes)].tolist()))
        raise ValueError(
            f"y contains {outside[:5]}, but the network has {n_logits} logit(s): labels must be "
            f"logit columns from 0 to {n_classes - 1}."
        )


def _one_hot(y, n_logits, dtype):
    return torch.nn.functional.one_hot(y, n_logits).to(dtype)


def _lpntk(logits, y):
    # Eq. 3, second line: s(y) / sqrt(K), s = -1 everywhere and +1 at y
    n_logits = logits.shape[1]
    if n_logits == 1:
        return (2 * y - 1).to(logits.dtype).unsqueeze(1)
    return (2 * _one_hot(y, n_logits, logits.dtype) - 1) / n_logits**0.5


def _pntk(logits, y):
    return torch.full_like(logits, logits.shape[1] ** -0.5)


def _pntk_first(logits, y):
    v = torch.zeros_like(logits)
    v[:, 0] = 1
    return v


def _loss_gradient(logits, y):
    # a softmax over one logit is constant: there the loss is the logistic one
    if logits.shape[1] == 1:
        return torch.sigmoid(logits) - y.to(logits.dtype).unsqueeze(1)
    return torch.softmax(logits, 1) - _one_hot(y, logits.shape[1], logits.dtype)


def _entk(logits, y):
    n, n_logits = logits.shape
    eye = torch.eye(n_logits, dtype=logits.dtype, device=logits.device)
    return eye.expand(n, -1, -1)


ALL_LOGITS = _entk

COTANGENTS = {
    c.name: c
    for c in (
        Cotangent("lpntk", _lpntk, needs_y=True),
        Cotangent("pntk", _pntk, needs_y=False),
        Cotangent("pntk_first", _pntk_first, needs_y=False),
        Cotangent("loss_gradient", _loss_gradient, needs_y=True),
        Cotangent("entk", _entk, needs_y=False),
        Cotangent("entk_trace", _entk, needs_y=False, traced=True),
    )
}


def find_cotangent(kernel):
    """The cotangent of a kernel name, or a callable ``(logits, y) -> (n, K) or (n, R, K)``."""
    if callable(kernel):
        name = getattr(kernel, "__name__", type(kernel).__name__)
        return Cotangent(name, kernel, needs_y=False)
    if not isinstance(kernel, str) or kernel not in COTANGENTS:
        raise ValueError(
            f"Unknown kernel {kernel!r}; use one of {sorted(COTANGENTS)} or a callable "
            "(logits, y) -> (n, K) or (n, R, K)."
        )
    return COTANGENTS[kernel]


def look_like_probabilities(logits):
    """Whether all rows are probabilities, or logarithms of some."""
    if logits.device.type == "meta" or logits.ndim != 2 or logits.shape[1] == 1:
        return False
    signs = (logits >= 0).all(), (logits <= 0).all()
    sums = logits if signs[0] else logits.exp()
    return bool(any(signs) and ((sums.sum(1) - 1).abs() < 1e-4).all())


def warn_of_probabilities(stacklevel):
    """Say that a network seems to emit them."""
    warnings.warn(
        "Every row of the network's output looks like probabilities, or like their logarithms: the "
        "kernel is defined on logits. Remove the last softmax or log-softmax and train with "
        "CrossEntropyLoss.",
        ProbabilityOutputWarning,
        stacklevel=stacklevel + 1,
    )
