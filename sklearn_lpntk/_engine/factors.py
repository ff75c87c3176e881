"""How per-sample gradients are stored and multiplied.

A factor holds, for one layer (or one parameter), the gradients of n samples and R
cotangents each; rows are sample-major, so row ``i * R + r`` is cotangent r of sample i.
Every factor can compute its part of a tile of the kernel (`gram`), sum its rows with
weights into one flat gradient (`weighted_sum`), multiply its rows with such a gradient
(`dot`), and write its rows out (`materialise`).
"""

import torch

from .products import (
    even_slices,
    lengths,
    padded,
    paired_gram,
    position_gram,
    product,
    scaled,
    slices,
    sum_columns,
)

# scalars a sample from which the products of two samples are taken by themselves
PAIRED = 64
# columns of matrices whose products are bit-stable wherever these begin, in double precision
ALIGNED = 8


def is_written_faster(n_products, width, depth):
    """Whether a sum of outer products takes fewer multiplications a pair when written out.

    ``n_products`` are those of the positions of one sample with those of the other.
    """
    return depth * width <= n_products * (depth + width)


def pair_slices(one, other):
    """(rows, cols) of the samples of two factors, few enough that their products stay in cache.

    Of a factor with itself, those of the upper triangle.
    """
    longest = max(len(f.a) * f.n_cotangents for f in (one, other))
    step = padded(1024 // longest, 1, one.g.dtype)
    for rows in even_slices(one.n_samples, step, one.g.dtype):
        for cols in even_slices(other.n_samples, step, one.g.dtype):
            if other is not one or rows.start <= cols.start:
                yield rows, cols


class Dense:
    """Materialised gradients, an array of shape (n * R, P).

    ``outer`` is (O, D) where each is the matrix of a sum of outer products, else None.
    """

    def __init__(self, phi, n_cotangents, outer=None):
        self.phi, self.n_cotangents = phi, n_cotangents
        self.outer = None if outer is None else tuple(outer)

    @property
    def n_samples(self):
        return self.phi.shape[0] // self.n_cotangents

    @property
    def n_columns(self):
        return self.phi.shape[1]

    @property
    def tensors(self):
        return [self.phi]

    @property
    def settings(self):
        """What makes the factor from its tensors, besides these."""
        return self.n_cotangents, self.outer

    def take(self, rows):
        return self._like(take_samples(self.phi, rows, self.n_cotangents, 0))

    def _like(self, phi):
        return Dense(phi, self.n_cotangents, self.outer)

    def to(self, target):
        """In another dtype, or on another device."""
        return self._like(self.phi.to(target))

    def magnitudes(self):
        """Norms of the rows, of shape (n * R,); for sums of products, at least these."""
        return lengths(self.phi)

    def zeros(self, n_samples):
        return self._like(self.phi.new_zeros(n_samples * self.n_cotangents, self.n_columns))

    def empty(self, n_samples):
        """Room for the gradients of other samples."""
        return self._like(self.phi.new_empty(n_samples * self.n_cotangents, self.n_columns))

    @property
    def layout(self):
        """What factors share that can be written into each other's room."""
        return type(self), self.settings, self.n_columns, self.phi.dtype

    @staticmethod
    def cat(factors):
        if len(factors) == 1:
            return factors[0]
        return factors[0]._like(torch.cat([f.phi for f in factors]))

    def materialise(self):
        return self

    def traced(self):
        """All scalars of a sample as one, whose products are the sums over equal scalars."""
        R = self.n_cotangents
        outer = None if self.outer is None else (R * self.outer[0], self.outer[1])
        return Dense(self.phi.reshape(-1, R * self.n_columns), 1, outer)

    def weighted_sum(self, weights):
        return weights.reshape(-1) @ self.phi

    def dot(self, flat):
        return (self.phi @ flat).unflatten(0, (-1, self.n_cotangents))

    def gram(self, other):
        """The (n R, m R') products with the rows of another factor."""
        return product(self.phi, other.phi)


class Outer:
    """Sums of outer products ``sum_t g_t a_t^T``, kept as the two lists of vectors.

    ``a`` has shape (T, n, D) and ``g`` (T, n * R, O): position-major, so that the rows of
    one position are one matrix. The activations do not depend on the cotangent.
    """

    def __init__(self, a, g, n_cotangents):
        self.a, self.g, self.n_cotangents = a, g, n_cotangents

    @property
    def n_samples(self):
        return self.a.shape[1]

    @property
    def n_columns(self):
        return self.g.shape[2] * self.a.shape[2]

    @property
    def tensors(self):
        return [self.a, self.g]

    @property
    def settings(self):
        return (self.n_cotangents,)

    def take(self, rows):
        a = take_samples(self.a, rows, 1, 1)
        g = take_samples(self.g, rows, self.n_cotangents, 1)
        return type(self)._like(self, a, g)

    def to(self, target):
        indices = isinstance(target, torch.dtype) and not self.a.is_floating_point()
        return self._like(self.a if indices else self.a.to(target), self.g.to(target))

    def magnitudes(self):
        return (lengths(self._g_by_sample()) * self._a_norms().unsqueeze(2)).sum(0).flatten()

    def _a_norms(self):
        return lengths(self.a)

    def _like(self, a, g):
        return Outer(a, g, self.n_cotangents)

    def zeros(self, n_samples):
        return self._like(
            self.a.new_zeros(1, n_samples, *self.a.shape[2:]),
            self.g.new_zeros(1, n_samples * self.n_cotangents, self.g.shape[2]),
        )

    def empty(self, n_samples):
        n_positions = len(self.a)
        return self._like(
            self.a.new_empty(n_positions, n_samples, *self.a.shape[2:]),
            self.g.new_empty(n_positions, n_samples * self.n_cotangents, self.g.shape[2]),
        )

    @property
    def layout(self):
        sizes = len(self.a), self.a.shape[2:], self.g.shape[2]
        return type(self), self.settings, sizes, self.a.dtype, self.g.dtype

    @staticmethod
    def cat(factors):
        if len(factors) == 1:
            return factors[0]
        # a network that branches gives fewer positions to some batches: g = 0 there
        n_positions = max(len(f.a) for f in factors)
        a = torch.cat([_pad_positions(f.a, n_positions) for f in factors], 1)
        g = torch.cat([_pad_positions(f.g, n_positions) for f in factors], 1)
        return factors[0]._like(a, g)

    def materialise(self):
        phi = torch.einsum("tnro,tnd->nrod", self._g_by_sample(), self.a)
        return Dense(phi.reshape(self.g.shape[1], -1), self.n_cotangents, self.outer)

    def traced(self):
        """All scalars of a sample as one, whose products are the sums over equal scalars."""
        g = self._g_by_sample().flatten(2)
        return type(self)._with_one(self, g)

    def _with_one(self, g):
        return Outer(self.a, g, 1)

    @property
    def outer(self):
        return self.g.shape[2], self.a.shape[2]

    def weighted_sum(self, weights):
        g = self._weighted_g(weights)
        return (g.flatten(0, 1).T @ self.a.flatten(0, 1)).reshape(-1)

    def _weighted_g(self, weights):
        return (self._g_by_sample() * weights.unsqueeze(2)).sum(2)

    def _g_by_sample(self):
        return self.g.unflatten(1, (self.n_samples, self.n_cotangents))

    def dot(self, flat):
        images = self._images(flat)
        return (self._g_by_sample() * images.unsqueeze(2)).sum((0, 3))

    def _images(self, flat):
        """The flat gradient, as a matrix, applied to every activation: (T, n, O)."""
        return self.a @ flat.view(self.g.shape[2], -1).T

    def gram(self, other):
        """The (n R, m R') products with the rows of another factor."""
        if self._is_written_faster(other):
            return self._written_gram(other)
        out = self.g.new_zeros(self.g.shape[1], other.g.shape[1])
        for rows, cols in pair_slices(self, other):
            left, right = (scaled(s, f.n_cotangents) for s, f in ((rows, self), (cols, other)))
            self._add_tile(other, rows, cols, out[left, right])
            if other is self and rows != cols:
                out[right, left] = out[left, right].T
        return out

    def _is_written_faster(self, other):
        """Whether a sum of outer products takes fewer multiplications a pair when written out."""
        return is_written_faster(len(self.a) * len(other.a), *self.outer)

    def _written_gram(self, other):
        """The same, with the rows written out, some columns at a time."""
        width, depth = self.outer
        out = self.g.new_zeros(len(self.g[0]), len(other.g[0]), dtype=torch.float64)
        for part in slices(width, max(1, sum_columns(self.g.dtype) // depth)):
            left = self._written(part)
            out += product(left, left if other is self else other._written(part))
        return out.to(self.g.dtype)

    def _written(self, part):
        """The columns of the rows that belong to a slice of the outputs."""
        g = self._g_by_sample()[..., part].permute(1, 2, 3, 0).flatten(1, 2)  # (n, R O', T)
        a = self.a.transpose(0, 1)
        if a.shape[2] % ALIGNED and a.dtype == torch.float64:
            a = torch.nn.functional.pad(a, (0, -a.shape[2] % ALIGNED))
        return torch.bmm(g, a).view(self.g.shape[1], -1)

    def _add_tile(self, other, rows, cols, out):
        n, m, R, S = (rows.stop - rows.start, cols.stop - cols.start, self.n_cotangents,
                      other.n_cotangents)  # fmt: skip
        left = self._activation_gram(other, rows, cols)
        g, h = self.g[:, scaled(rows, R)], other.g[:, scaled(cols, S)]
        paired = len(g) == len(h) == 1 and min(R, S) >= PAIRED
        right = paired_gram(g[0], h[0], R, S) if paired else position_gram(g, h)
        out = out.unflatten(0, (n, R)).unflatten(2, (m, S))

        def product(t, u):
            a = left[t * n : (t + 1) * n, u * m : (u + 1) * m]
            g = right[t * n * R : (t + 1) * n * R, u * m * S : (u + 1) * m * S]
            return a[:, None, :, None] * g.unflatten(0, (n, R)).unflatten(2, (m, S))

        # (t, u) and (u, t) are added to each other first: so the transposed tile has the
        # same bits
        shared = min(len(self.a), len(other.a))
        for t in range(len(self.a)):
            for u in range(len(other.a)):
                if t < u < shared:
                    out += product(t, u).add_(product(u, t))
                elif t == u or max(t, u) >= shared:
                    out += product(t, u)

    def _activation_gram(self, other, rows, cols):
        return position_gram(self.a[:, rows], other.a[:, cols])


def take_samples(x, rows, n_cotangents, axis):
    x = x.unflatten(axis, (-1, n_cotangents))
    if isinstance(rows, slice):
        x = x.narrow(axis, rows.start, rows.stop - rows.start)
    else:
        x = x.index_select(axis, rows)
    return x.flatten(axis, axis + 1)


def _pad_positions(x, n_positions):
    if len(x) == n_positions:
        return x
    return torch.cat([x, x.new_zeros(n_positions - len(x), *x.shape[1:])])
