"""Objectives: the scalars of a sample whose gradients the kernel compares.

An objective maps logits and a batch's labels to differentiable scalars of shape (n, R), R of
them a sample; the feature of sample i and scalar r is the gradient of ``scalars[i, r]``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from .cotangents import ALL_LOGITS, find_cotangent


@dataclass(frozen=True)
class Objective:
    """Scalars of the logits.

    Attributes
    ----------
    name : str
    function : callable
        ``(logits, y)`` -> scalars of shape (n, R), or a pair of these and a boolean mask of the
        same shape: where it is False there is no scalar, and the feature is zero.
    needs_y : bool
    any_shape : bool
        Whether logits may have other shapes than (n, K).
    source : callable
        The code that it stands for, as far as fingerprints are concerned.
    traced : bool
        Whether the R scalars of a sample count as one, by the mean of the products of equal ones.
    """

    name: str
    function: Callable
    needs_y: bool = False
    any_shape: bool = False
    source: Callable | None = None
    traced: bool = False

    def __call__(self, logits, y):
        scalars = self.function(logits, y)
        if isinstance(scalars, tuple):
            scalars, mask = scalars
            scalars = torch.where(mask, scalars, 0)
        if not isinstance(scalars, torch.Tensor) or scalars.ndim != 2 or len(scalars) != len(y):
            raise ValueError(
                f"The objective {self.name!r} must return a tensor of shape ({len(y)}, R), R "
                f"scalars a sample; got {getattr(scalars, 'shape', type(scalars).__name__)}."
            )
        return scalars


def of_cotangent(cotangent):
    """The objective ``sum_k v_k z_k`` of a cotangent v, which is held constant."""

    def scalars(logits, y):
        if cotangent.function is ALL_LOGITS:
            return logits
        v = cotangent(logits.detach(), y)
        return (v * logits.unsqueeze(1)).sum(2)

    return Objective(
        cotangent.name,
        scalars,
        cotangent.needs_y,
        source=cotangent.function,
        traced=cotangent.traced,
    )


def find_objective(kernel):
    """The objective of a kernel name, of a callable cotangent, or of an `Objective`."""
    return kernel if isinstance(kernel, Objective) else of_cotangent(find_cotangent(kernel))
