"""The features of a set of samples: their factors, layer by layer."""

import zlib

import numpy as np
import torch

from .factors import MIN_ROWS, Dense, pad_samples
from .session import full_precision

SKETCH_NUMBERS = 2**24  # entries of phi that a sketch writes out at once


class Features:
    """Per-sample gradients of n samples and R cotangents each, as a dict of factors.

    ``v`` are the cotangents, of shape (n, R, K), in the dtype and on the device of the
    factors: a layer may be missing from the dict, they never are.
    """

    def __init__(self, factors, v):
        self.factors, self.v = factors, v
        self.n_samples, self.n_cotangents, self.n_logits = v.shape
        self.dtype, self.device = v.dtype, v.device

    @property
    def columns(self):
        """How many columns of phi each factor has, in order: dict of key -> int."""
        return {key: factor.n_columns for key, factor in self.factors.items()}

    @property
    def nbytes(self):
        """Memory that the factors take."""
        tensors = [t for f in self.factors.values() for t in f.tensors]
        return sum(t.numel() * t.element_size() for t in tensors)

    @classmethod
    def cat(cls, batches):
        """Stack batches; a layer that some batch never called contributes zeros there."""
        factors = {}
        for key in dict.fromkeys(key for batch in batches for key in batch.factors):
            some = next(b.factors[key] for b in batches if key in b.factors)
            # popped: the parts of one layer are freed before the next one is stacked
            parts = [b.factors.pop(key, None) or some.zeros(b.n_samples) for b in batches]
            factors[key] = some.cat(parts)
        return cls(factors, torch.cat([b.v for b in batches]))

    def take(self, rows):
        """The samples of a slice or an index tensor, in its order."""
        factors = {key: factor.take(rows) for key, factor in self.factors.items()}
        return Features(factors, self.v[rows])

    def gram(self, other):
        """The (n R, m R) kernel block with other features.

        Bit-stable: an entry is the same whichever rows are computed beside it, for tiles
        are padded to `MIN_ROWS` samples.
        """
        n, m, R = self.n_samples, other.n_samples, self.n_cotangents
        rows, cols = max(n, MIN_ROWS), max(m, MIN_ROWS)
        out = self.v.new_zeros(rows * R, cols * R)
        with full_precision(self.device):
            for key, factor in self.factors.items():
                if key in other.factors:
                    mate = other.factors[key]
                    pad_samples(factor, rows).add_gram(pad_samples(mate, cols), out)
        return out[: n * R, : m * R]

    def materialise(self, columns=None):
        """phi of shape (n R, d), layer by layer.

        ``columns`` is the layout of other features to follow, as their `columns` tell it.
        """
        phi = []
        for key, width in (self.columns if columns is None else columns).items():
            if key in self.factors:
                with full_precision(self.device):
                    phi.append(self.factors[key].materialise().phi)
            else:
                phi.append(self.v.new_zeros(self.n_samples * self.n_cotangents, width))
        return torch.cat([self.v.new_zeros(self.n_samples * self.n_cotangents, 0), *phi], 1)

    def times(self, other, V):
        """``K V`` for the kernel with ``other`` and V of shape (m R, p), without the kernel.

        One flat gradient a column of V: O(n d) multiplications instead of O(n m).
        """
        out = self.v.new_zeros(self.n_samples, self.n_cotangents, V.shape[1])
        with full_precision(self.device):
            for key, factor in self.factors.items():
                if key not in other.factors:
                    continue
                for p in range(V.shape[1]):
                    weights = V[:, p].unflatten(0, (-1, self.n_cotangents))
                    out[:, :, p] += factor.dot(other.factors[key].weighted_sum(weights))
        return out.flatten(0, 1)

    def sketch(self, n_components, seed):
        """Count sketch to ``n_components`` columns: inner products stay unbiased.

        Every column of phi goes to a random component with a random sign, drawn anew for
        each layer; the variance of an inner product is at most that of a dense random
        projection of the same size, ``(|phi|^2 |phi'|^2 + (phi . phi')^2) / n_components``.
        """
        out = self.v.new_zeros(self.n_samples * self.n_cotangents, n_components)
        for key, factor in self.factors.items():
            # a child of the seed by the layer's name: independent of which layers a batch has
            child = np.random.SeedSequence(seed, spawn_key=(zlib.crc32(key.encode()),))
            rng = np.random.default_rng(child)
            target = rng.integers(n_components, size=factor.n_columns)
            sign = rng.integers(2, size=factor.n_columns, dtype=np.int8) * 2 - 1
            draws = (torch.from_numpy(draw).to(self.device) for draw in (target, sign))
            self._add_sketch(factor, *draws, out)
        return Features({"sketch": Dense(out, self.n_cotangents)}, self.v)

    def _add_sketch(self, factor, target, sign, out):
        """Rows are written out a few at a time: a large layer's would not fit at once."""
        R = self.n_cotangents
        step = max(1, SKETCH_NUMBERS // (factor.n_columns * R))
        for start in range(0, self.n_samples, step):
            rows = slice(start, min(start + step, self.n_samples))
            with full_precision(self.device):
                phi = factor.take(rows).materialise().phi
            out[rows.start * R : rows.stop * R].index_add_(1, target, phi * sign)
