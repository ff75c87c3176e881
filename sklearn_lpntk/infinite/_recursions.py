"""Layer recursions of the infinite-width kernels, for one tile of sample pairs: torch only.

K is the covariance of the preactivations (the NNGP kernel), T the tangent kernel. A layer of
weights makes ``K = w2 E + b2`` and ``T = K + w2 T_before D`` of the expectations E, D of
`_activations`; a convolution averages both over its window first. Variances of single samples
have the same recursion with exact expectations.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from ._activations import ACTIVATIONS


@dataclass(frozen=True)
class Dense:
    """Fully connected layers; X of shape (n, d)."""

    depth: int
    activation: str
    w2: float
    b2: float
    with_tangent: bool

    def variances(self, X):
        """Variance of each sample at each nonlinearity."""
        return self._own(X)[0]

    def diagonal(self, X):
        """Kernel of each sample with itself."""
        return self._own(X)[1]

    def _own(self, X):
        rule = ACTIVATIONS[self.activation]
        K = self.w2 * X.square().mean(1) + self.b2
        T, variances = K, []
        for _ in range(self.depth):
            variances.append(K)
            E, D = rule.own_moments(K)
            K = self.w2 * E + self.b2
            T = K + self.w2 * T * D
        return variances, T if self.with_tangent else K

    def tile(self, X1, X2, variances1, variances2):
        """Kernel of two blocks of samples."""
        rule = ACTIVATIONS[self.activation]
        K = torch.addmm(X1.new_full((), self.b2), X1, X2.T, alpha=self.w2 / X1.shape[1])
        T = K
        for q1, q2 in zip(variances1, variances2, strict=True):
            E, D = rule.moments(K, q1[:, None], q2)
            K = E.mul_(self.w2).add_(self.b2)
            if self.with_tangent:
                T = torch.addcmul(K, D, T, value=self.w2)
        return T if self.with_tangent else K

    def positions_of_pair(self, X):
        """Covariances that are followed for each pair of samples."""
        return 1

    def size_of_pair(self, X):
        """Numbers that are alive at once for each pair of samples of a tile (measured)."""
        return 11


@dataclass(frozen=True)
class Convolutional(Dense):
    """Convolutions with zero padding that keeps the size ("same"); X of shape (n, C, H, W).

    Attributes
    ----------
    pooled : bool
        Whether the readout averages over positions: then it needs the covariance of all pairs of
        positions. Else it is flattened, and needs equal positions only.
    """

    kernel_size: int
    stride: int
    pooled: bool

    def diagonal(self, X):
        if not self.pooled:
            return super().diagonal(X)
        # all pairs of positions are needed; one sample at a time
        tiles = [self.tile(x, x, q, q, is_same=True) for x, q in self._one_by_one(X)]
        return torch.cat(tiles)[:, 0]

    def _one_by_one(self, X):
        variances = self.variances(X)
        return ((X[i : i + 1], [q[i : i + 1] for q in variances]) for i in range(len(X)))

    def _own(self, X):
        rule, axes = ACTIVATIONS[self.activation], ((1,), (2,))
        K = self._weighted(X.square().mean(1), axes).add_(self.b2)
        T, variances = K, []
        for layer in range(self.depth):
            variances.append(K)
            E, D = rule.own_moments(K)
            K, T = self._next(E, T * D, axes, is_last=layer == self.depth - 1)
        return variances, T if self.with_tangent else K

    def tile(self, X1, X2, variances1, variances2, *, is_same=False):
        """Kernel of two blocks; ``is_same`` if they are one and the same sample, pooled."""
        rule = ACTIVATIONS[self.activation]
        axes = ((2, 3), (4, 5)) if self.pooled else ((2,), (3,))
        K = self._weighted(self._input_covariance(X1, X2), axes).add_(self.b2)
        T = K
        for layer, (q1, q2) in enumerate(zip(variances1, variances2, strict=True)):
            E, D = rule.moments(K, *self._paired(q1, q2))
            if is_same:
                for moment, exact in zip((E, D), rule.own_moments(q1[0]), strict=True):
                    _equal_positions(moment).copy_(exact)
            K, T = self._next(E, D.mul_(T), axes, is_last=layer == self.depth - 1)
        return T if self.with_tangent else K

    def _paired(self, q1, q2):
        if self.pooled:
            return q1[:, None, :, None, :, None], q2[None, :, None, :, None, :]
        return q1[:, None], q2[None]

    def _next(self, E, TD, axes, *, is_last):
        """K and T after the next layer of weights: a convolution, or the readout at the end."""
        if is_last:
            positions = tuple(a for pair in axes for a in pair)
            K = self.w2 * E.mean(positions) + self.b2
            return K, K + self.w2 * TD.mean(positions)
        K = self._weighted(E, axes).add_(self.b2)
        return K, K + self._weighted(TD, axes)

    def _input_covariance(self, X1, X2):
        (n1, channels, height, width), n2 = X1.shape, len(X2)
        if not self.pooled:
            by_position = X1.permute(2, 3, 0, 1) @ X2.permute(2, 3, 1, 0)
            return by_position.permute(2, 3, 0, 1) / channels
        rows = X1.permute(0, 2, 3, 1).reshape(-1, channels)
        cols = X2.permute(0, 2, 3, 1).reshape(-1, channels)
        K = (rows @ cols.T).reshape(n1, height, width, n2, height, width) / channels
        return K.permute(0, 3, 1, 4, 2, 5)

    def _weighted(self, K, axes):
        """w2 times the mean over the window, the same shift for both positions of a pair."""
        for pair in axes:
            K = self._sum_along(K, pair)
        return K.mul_(self.w2 / self.kernel_size**2)

    def _sum_along(self, K, pair):
        """Windowed sum along one direction of the image; ``pair`` are its one or two axes."""
        size, k, stride = K.shape[pair[0]], self.kernel_size, self.stride
        n_out = -(-size // stride)
        padding = max((n_out - 1) * stride + k - size, 0)
        before = padding // 2
        widths = [0] * (2 * K.ndim)
        for axis in pair:
            at = 2 * (K.ndim - 1 - axis)
            widths[at : at + 2] = before, padding - before
        K = F.pad(K, widths)
        total = None
        for shift in range(k):
            index = [slice(None)] * K.ndim
            for axis in pair:
                index[axis] = slice(shift, shift + (n_out - 1) * stride + 1, stride)
            part = K[tuple(index)]
            total = part.clone() if total is None else total.add_(part)
        return total

    def positions_of_pair(self, X):
        return (X.shape[2] * X.shape[3]) ** (2 if self.pooled else 1)

    def size_of_pair(self, X):
        # one direction at a time has the zeros around it
        growth = 1 + (self.kernel_size - 1) / min(X.shape[2:])
        growth = growth**2 if self.pooled else growth
        return int(self.positions_of_pair(X) * max(12, 6 + 2 * growth))


def _equal_positions(moment):
    """The entries of one sample's pairs of positions (1, 1, H, H, W, W) that are equal."""
    return moment[0, 0].diagonal(0, 0, 1).diagonal(0, 0, 1)


def gram(rule, X1, X2, block_size, out):
    """Fill ``out`` with the kernel, tile by tile; X2 None means X1 with itself, at half the work.

    Parameters
    ----------
    rule : Dense or Convolutional
    X1, X2 : Tensor
    block_size : int
        Samples on a side of a tile.
    out : Tensor of shape (len(X1), len(X2)), on the CPU
    """
    variances1 = rule.variances(X1)
    variances2 = variances1 if X2 is None else rule.variances(X2)
    cols = X1 if X2 is None else X2
    for r in _blocks(len(X1), block_size):
        own = [q[r] for q in variances1]
        for c in _blocks(len(cols), block_size):
            if X2 is None and c.start < r.start:
                continue
            tile = rule.tile(X1[r], cols[c], own, [q[c] for q in variances2]).to(out.device)
            out[r, c] = tile
            if X2 is None:  # also on the diagonal: what is rounded last must be the same
                out[c, r] = tile.T if c.start > r.start else (tile + tile.T) / 2
    if X2 is None:
        out.diagonal().copy_(rule.diagonal(X1))


def _blocks(n, size):
    return [slice(s, min(s + size, n)) for s in range(0, n, size)]
