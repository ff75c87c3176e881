"""Outer products with vectors that are mostly zero, and are never formed."""

import torch

from .factors import Dense, Outer, take_samples
from .products import lengths, position_gram


class Unit(Outer):
    """Products of activations with unit vectors, one a scalar: a last layer's, for its logits."""

    def __init__(self, a, n_cotangents):
        self.a, self.n_cotangents = a, n_cotangents

    @property
    def g(self):
        """The unit vectors, (1, n * R, R)."""
        eye = torch.eye(self.n_cotangents, dtype=self.a.dtype, device=self.a.device)
        return eye.repeat(1, self.n_samples, 1)

    @property
    def outer(self):
        return self.n_cotangents, self.a.shape[2]

    @property
    def n_columns(self):
        return self.n_cotangents * self.a.shape[2]

    @property
    def tensors(self):
        return [self.a]

    @property
    def layout(self):
        return type(self), self.settings, self.a.shape[2], self.a.dtype

    def _like(self, a, g=None):
        return Unit(a, self.n_cotangents)

    def take(self, rows):
        return self._like(take_samples(self.a, rows, 1, 1))

    def to(self, target):
        return self._like(self.a.to(target))

    def zeros(self, n_samples):
        return self._like(self.a.new_zeros(1, n_samples, self.a.shape[2]))

    def empty(self, n_samples):
        return self._like(self.a.new_empty(1, n_samples, self.a.shape[2]))

    @staticmethod
    def cat(factors):
        return factors[0]._like(torch.cat([f.a for f in factors], 1))

    def plain(self):
        """The same with its unit vectors."""
        return Outer(self.a, self.g, self.n_cotangents)

    def magnitudes(self):
        return lengths(self.a[0]).repeat_interleave(self.n_cotangents)

    def weighted_sum(self, weights):
        return (weights.T @ self.a[0]).reshape(-1)

    def dot(self, flat):
        return self._images(flat)[0]

    def _images(self, flat):
        return self.a @ flat.view(self.n_cotangents, -1).T

    def gram(self, other):
        n, m, R = self.n_samples, other.n_samples, self.n_cotangents
        out = self.a.new_zeros(n, R, m, R)
        out.diagonal(dim1=1, dim2=3).copy_(position_gram(self.a, other.a).unsqueeze(2))
        return out.view(n * R, m * R)


class Lookup(Outer):
    """The rows of an embedding table: one-hot activations kept as indices, a: (T, n)."""

    def __init__(self, a, g, n_cotangents, n_rows):
        super().__init__(a, g, n_cotangents)
        self.n_rows = n_rows

    @property
    def settings(self):
        return self.n_cotangents, self.n_rows

    @property
    def n_columns(self):
        return self.n_rows * self.g.shape[2]

    def _like(self, a, g):
        return Lookup(a, g, self.n_cotangents, self.n_rows)

    def _with_one(self, g):
        return Lookup(self.a, g, 1, self.n_rows)

    def materialise(self):
        n_positions, rows, width = self.g.shape
        sample = torch.arange(rows, device=self.g.device) // self.n_cotangents
        target = torch.arange(rows, device=self.g.device) * self.n_rows + self.a[:, sample]
        phi = self.g.new_zeros(rows * self.n_rows, width)
        phi.index_add_(0, target.reshape(-1), self.g.reshape(n_positions * rows, width))
        return Dense(phi.reshape(rows, -1), self.n_cotangents)

    def weighted_sum(self, weights):
        g = self._weighted_g(weights).flatten(0, 1)
        total = g.new_zeros(self.n_rows, g.shape[1])
        return total.index_add_(0, self.a.reshape(-1), g).reshape(-1)

    def _images(self, flat):
        return flat.view(self.n_rows, -1)[self.a]

    def _a_norms(self):
        return torch.ones_like(self.a, dtype=self.g.dtype)

    def _is_written_faster(self, other):
        return False  # it is mostly zeros

    def _activation_gram(self, other, rows, cols):
        left, right = self.a[:, rows].reshape(-1), other.a[:, cols].reshape(-1)
        return (left[:, None] == right[None, :]).to(self.g.dtype)
