"""Random sketches: features in a few thousand numbers whose inner products are unbiased.

Two ways, chosen layer by layer by what costs less:

* *Rotated count sketch* of the written-out gradient: cut it into pieces of ``n_components``
  columns, give every column a random sign and every piece a random rotation, and add the
  pieces up. Two columns meet with probability at most ``1 / n_components``, as under a
  count sketch, so its variance holds; but the additions run along memory.
* *TensorSketch* of ``sum_t g_t a_t^T``: count sketches of g_t and of a_t, convolved by a fast
  Fourier transform, so that the outer product is never written out.
"""

import math
import zlib

import numpy as np
import torch

from .factors import Dense, Lookup, Outer
from .features import Features
from .session import full_precision

WRITTEN_OUT = 2**24  # entries of a gradient that are written out at once
# nanoseconds on one core, measured: an entry of a gradient, what each position adds to that,
# and one number in a transform, which costs this times its logarithm
ENTRY, POSITION, TRANSFORM = 1.5, 0.02, 0.13


class Sketch:
    """A linear map of features to ``n_components`` columns, drawn from a seed.

    The standard error of an inner product is at most ``sqrt(2 / m)`` times the product of
    the norms for layers that are written out, as for a dense random projection of m
    components, and at most ``sqrt(11 / m)`` for those under TensorSketch [1]_.

    Draws depend on the seed and the layer's name alone: every batch is sketched alike.

    References
    ----------
    .. [1] Avron, Nguyen and Woodruff, "Subspace Embeddings for the Polynomial Kernel", NeurIPS
       2014, Lemma 14; Pham and Pagh, "Fast and Scalable Polynomial Kernels via Explicit Feature
       Maps", KDD 2013.
    """

    def __init__(self, n_components, seed):
        self.n_components, self.seed = n_components, seed
        self._draws = {}  # (key, what) -> tensors

    def __getstate__(self):
        return vars(self) | {"_draws": {}}

    def __call__(self, features):
        """The features with one dense factor in place of all."""
        rows = features.n_samples * features.n_cotangents
        out = features.v.new_zeros(rows, self.n_components)
        with full_precision(features.device):
            for key, factor in features.factors.items():
                if isinstance(factor, Lookup):
                    self._add_lookup(key, factor, out)
                elif isinstance(factor, Outer) and self._is_large(factor):
                    self._add_transformed(key, factor, out)
                else:
                    self._add_written_out(key, factor, out)
        return Features({"sketch": Dense(out, features.n_cotangents)}, features.v)

    def _is_large(self, factor):
        n_positions, m = len(factor.a), self.n_components
        transform = (2 * n_positions + 1) * m * math.log2(m + 1) * TRANSFORM
        return 2 * transform < factor.n_columns * (ENTRY + POSITION * n_positions)

    # -- rotated count sketch -------------------------------------------------------------

    def _add_written_out(self, key, factor, out):
        R, m = factor.n_cotangents, self.n_components
        signs, shifts = self._columns(key, factor.n_columns, out)
        step = max(1, WRITTEN_OUT // (factor.n_columns * R))
        for first in range(0, factor.n_samples, step):
            rows = slice(first, min(first + step, factor.n_samples))
            phi = factor.take(rows).materialise().phi
            part = out[rows.start * R : rows.stop * R]
            for start, shift in zip(range(0, factor.n_columns, m), shifts):
                _add_rotated(phi[:, start : start + m], signs[start : start + m], shift, part)

    def _columns(self, key, n_columns, like):
        def draw(rng):
            shifts = rng.integers(self.n_components, size=-(-n_columns // self.n_components))
            return _signs(rng, n_columns, like), shifts.tolist()

        return self._drawn(key, "columns", draw)

    def _add_lookup(self, key, factor, out):
        """An embedding's gradient has T rows that are not zero: only these are added."""
        R, m, width = factor.n_cotangents, self.n_components, factor.g.shape[2]
        signs, shifts = self._columns(key, factor.n_columns, out)
        shifts = torch.tensor(shifts, device=out.device)
        for index, g in zip(factor.a.repeat_interleave(R, 1), factor.g):
            column = index[:, None] * width + torch.arange(width, device=out.device)
            target = (column + shifts[column // m]) % m
            out.scatter_add_(1, target, g * signs[column])

    # -- TensorSketch ---------------------------------------------------------------------

    def _add_transformed(self, key, factor, out):
        R, m = factor.n_cotangents, self.n_components
        total = 0
        for a, g in zip(factor.a, factor.g):
            spectrum = torch.fft.rfft(self._count(key, "a", a)).repeat_interleave(R, 0)
            total = total + spectrum * torch.fft.rfft(self._count(key, "g", g))
        out += torch.fft.irfft(total, n=m)

    def _count(self, key, what, x):
        """Count sketch of the rows of a matrix."""

        def draw(rng):
            target = rng.integers(self.n_components, size=x.shape[1])
            return _signs(rng, x.shape[1], x), torch.from_numpy(target).to(x.device)

        signs, target = self._drawn(key, what, draw)
        out = x.new_zeros(len(x), self.n_components)
        return out.index_add_(1, target, x * signs)

    def _drawn(self, key, what, draw):
        if (key, what) not in self._draws:
            # a child of the seed by the layer's name: independent of which layers a batch has
            child = zlib.crc32(key.encode()), zlib.crc32(what.encode())
            sequence = np.random.SeedSequence(self.seed, spawn_key=child)
            self._draws[key, what] = draw(np.random.default_rng(sequence))
        return self._draws[key, what]


def _signs(rng, n, like):
    signs = rng.integers(2, size=n, dtype=np.int8) * 2 - 1
    return torch.from_numpy(signs).to(like)


def _add_rotated(part, signs, shift, out):
    """Add ``part * signs``, rotated to begin in column ``shift``, to out."""
    fits = min(part.shape[1], out.shape[1] - shift)
    out[:, shift : shift + fits].addcmul_(part[:, :fits], signs[:fits])
    if fits < part.shape[1]:
        out[:, : part.shape[1] - fits].addcmul_(part[:, fits:], signs[fits:])
