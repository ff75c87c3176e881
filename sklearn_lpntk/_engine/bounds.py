"""Bounds on the kernel's entries that cost far less than the entries.

With an orthogonal projection P of the features, Cauchy-Schwarz on what is left over gives

    | k_ij - (P phi_i) . (P phi_j) |  <=  |phi_i - P phi_i| |phi_j - P phi_j|,

never weaker than ``|phi_i| |phi_j|``. P projects onto the span of a few landmark samples, so
that it needs the kernel with them and nothing else (the Nystroem approximation). A tile of
bounds is one thin matrix product.
"""

from copy import copy

import torch

from .products import slices
from .session import full_precision

MAX_LANDMARKS = 128
GROUP_SIZE = 2000
MAX_GROUPS = 16
# entries, norms and bounds are rounded: this much, in units of the norms, is left for it
SLACK = 2e-5
SMALLEST = 1e-15  # of the largest norm: below, bounds are those of this norm
FAINTEST = 1e-30  # largest squared norm in single precision that leaves room for rounding


class Bounds:
    """Lower and upper bounds on the kernel among some samples.

    They are in units of ``scale``, the largest squared norm, and in single precision; every
    entry of the kernel, as it is computed, lies within.

    Attributes
    ----------
    diagonal : tensor of shape (n,)
        Of the kernel, as it is computed.
    magnitudes : tensor of shape (n,)
        In units of which entries are rounded: the norm, or more where a sum over positions
        cancels.
    order : tensor of shape (n,)
        Samples with similar features next to each other, and of these the largest first:
        what is left open by bounds lies close together in this order.
    n_evaluated : int
        Entries of the kernel that went into the bounds.
    """

    def __init__(self, kernel, *, n_landmarks=None, seed=0):
        source = kernel.left
        rng = torch.Generator().manual_seed(seed)
        if n_landmarks is None:
            n_landmarks = default_landmarks(source, kernel.memory)
        picked = torch.randperm(source.n_samples, generator=rng)[:n_landmarks].sort()[0]
        picked = picked.to(source.device)
        self.diagonal, self.magnitudes, products = _pass_over(kernel, picked)
        _require_range(self.diagonal, source.dtype)
        self.n_evaluated = n_landmarks * source.n_samples
        largest = float(self.diagonal.max())
        self.scale = largest if largest > 0 else 1.0
        norms = (self.diagonal.double().clamp(min=0) / self.scale).sqrt().clamp(min=SMALLEST)
        projected = _projected(products, picked, norms, self.scale)
        self.order = _order(projected, norms, rng)
        self._right = _factors(projected, norms, self.magnitudes.double() / self.scale**0.5)
        self._left = self._right

    def __sizeof__(self):
        tensors = self.diagonal, self.order, self._left, self._right
        return object.__sizeof__(self) + sum(t.numel() * t.element_size() for t in tensors)

    def upper(self, rows, cols):
        """Upper bounds of the entries of some rows and columns, in units of ``scale``."""
        with full_precision(self._left.device):
            return self._left[rows] @ self._right[cols].T

    def between(self, rows, cols):
        """Lower and upper bounds."""
        with full_precision(self._left.device):
            center = self._left[rows, :-2] @ self._right[cols, :-2].T
            spread = self._left[rows, -2:] @ self._right[cols, -2:].T
        return center - spread, center + spread

    def negated(self):
        """The bounds of the negative kernel."""
        other = copy(self)
        other._left = torch.cat([-self._left[:, :-2], self._left[:, -2:]], 1)
        return other


def rows_and_columns(open_):
    """Rows and columns of a mask that hold anything: what is computed of a tile."""
    return open_.any(1).nonzero()[:, 0], open_.any(0).nonzero()[:, 0]


def default_landmarks(source, memory):
    """Landmarks that pay: each costs one of the numbers a pair's entry takes."""
    numbers = source.sample_bytes // torch.empty(0, dtype=source.dtype).element_size()
    fits = memory // (32 * numbers)
    count = min(MAX_LANDMARKS, numbers // 32, source.n_samples // 64, fits)
    return count if count >= 4 else 0


def _pass_over(kernel, picked):
    """The kernel's diagonal, the magnitudes, and the columns of landmarks, from one pass."""
    source = kernel.left
    if source.n_cotangents != 1:
        raise ValueError(
            f"The kernel has {source.n_cotangents} cotangents a sample; reductions compare "
            "samples, with one each: take kernel='lpntk' or 'pntk', or a callable that "
            "returns an array of shape (n, K)."
        )
    landmarks = source.take(picked).to(torch.float64) if len(picked) else None
    parts = []
    for rows in slices(source.n_samples, kernel.panel):
        features = source.take(rows)
        squares = sum(factor.magnitudes() ** 2 for factor in features.factors.values())
        magnitudes = (features.spec.zeros() + squares).sqrt()
        if landmarks is None:
            products = features.spec.zeros(0, dtype=torch.float64)
        else:
            products = features.to(torch.float64).gram(landmarks)
        parts.append((features.diagonal(), magnitudes, products))
    return [torch.cat(part) for part in zip(*parts)]


def _require_range(diagonal, dtype):
    """Refuse a kernel whose entries leave the range of its precision."""
    largest = float(diagonal.max())
    finite = bool(torch.isfinite(diagonal).all())
    faint = dtype == torch.float32 and 0 < largest < FAINTEST
    if not finite or faint:
        raise ValueError(
            f"The kernel {'underflows' if finite else 'overflows'} {dtype}: the largest squared "
            f"norm of a feature is {largest}. Scale the inputs or the network, or use float64."
        )


def _factors(projected, norms, magnitudes):
    """What bounds are products of: the projection, the norm of the rest, and what is rounded."""
    rounded = SLACK**0.5 * torch.maximum(norms, magnitudes)
    rest = (norms**2 * (1 - (projected**2).sum(1)).clamp(min=0) + rounded**2).sqrt()
    return torch.cat([projected * norms[:, None], rest[:, None], rounded[:, None]], 1).float()


def _projected(products, picked, norms, scale):
    """Features of norm 1, projected onto the span of the landmarks, in an orthonormal basis."""
    cosines = products / (scale * norms[:, None] * norms[picked])
    values, vectors = torch.linalg.eigh(cosines[picked])
    kept = values > 1e-6 * max(1, len(picked))
    return cosines @ (vectors[:, kept] / values[kept].sqrt())


def _order(projected, norms, rng):
    """Group the samples by direction, a few rounds of k-means, and sort each group by norm."""
    n, count = len(norms), max(1, min(MAX_GROUPS, len(norms) // GROUP_SIZE))
    group = torch.zeros(n, dtype=torch.int64, device=norms.device)
    if projected.shape[1] and count > 1:
        lengths = projected.norm(dim=1, keepdim=True).clamp(min=1e-12)
        directions = (projected / lengths).float()
        centers = directions[torch.randperm(n, generator=rng)[:count].to(norms.device)]
        for _ in range(5):
            group = (directions @ centers.T).argmax(1)
            sums = torch.zeros_like(centers).index_add_(0, group, directions)
            centers = sums / sums.norm(dim=1, keepdim=True).clamp(min=1e-12)
    falling = torch.argsort(norms, descending=True, stable=True)
    return falling[torch.argsort(group[falling], stable=True)]
