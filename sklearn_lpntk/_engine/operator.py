"""The kernel as a lazy matrix over factors."""

import numpy as np
import torch

from .factors import MIN_ROWS

TILE_ROWS = 512  # measured: larger tiles leave the cache, smaller ones starve the product


class KernelOperator:
    """A kernel matrix that is computed when it is asked for, tile by tile.

    Row ``i * R + r`` belongs to sample i and cotangent r; all kernels but the full eNTK
    (R = K) have R = 1, so that rows are samples.

    Attributes
    ----------
    shape : tuple of int
        ``(n_samples * R, n_samples_2 * R)``.
    dtype : numpy dtype
        That of the network's parameters.
    """

    def __init__(self, features, other=None, *, working_memory=1024):
        self._features = features
        self._other = features if other is None else other
        self._tile_rows = _tile_rows(features, working_memory)

    @property
    def _symmetric(self):
        return self._other is self._features

    @property
    def shape(self):
        R = self._features.n_cotangents
        return self._features.n_samples * R, self._other.n_samples * R

    @property
    def dtype(self):
        return np.dtype(str(self._features.dtype).removeprefix("torch."))

    def block(self, rows, cols):
        """The entries of some rows and columns.

        Parameters
        ----------
        rows, cols : slice, int array or boolean mask
            Which rows and columns, as in numpy.

        Returns
        -------
        block : ndarray of shape (n_rows, n_cols)
        """
        left, pick_rows = self._pick(self._features, rows)
        right, pick_cols = self._pick(self._other, cols)
        out = left.gram(right).cpu().numpy()
        out = out if pick_rows is None else out[pick_rows]
        return out if pick_cols is None else out[:, pick_cols]

    def _pick(self, features, index):
        """Features of the samples concerned, and which of their rows (None: all)."""
        R, n = features.n_cotangents, features.n_samples
        index = np.arange(n * R)[index]
        if index.ndim != 1:
            raise ValueError(
                f"rows and cols must be slices or one-dimensional arrays; one index selects "
                f"an array of shape {index.shape}. Use [i] for a single row."
            )
        index = np.ascontiguousarray(index)
        if R == 1:
            if len(index) and np.array_equal(index, np.arange(index[0], index[-1] + 1)):
                return features.take(slice(int(index[0]), int(index[-1]) + 1)), None
            return features.take(torch.tensor(index, device=features.device)), None
        samples, position = np.unique(index // R, return_inverse=True)
        taken = features.take(torch.as_tensor(samples, device=features.device))
        return taken, position * R + index % R

    def diag(self):
        """The diagonal, an ndarray of shape (n_rows,).

        It equals that of `block` bit for bit in single precision, and to rounding in double
        precision, where matrix products are not reproducible to the bit.
        """
        if self.shape[0] != self.shape[1]:
            raise ValueError(f"A kernel of shape {self.shape} has no diagonal.")
        out, R = np.empty(self.shape[0], self.dtype), self._features.n_cotangents
        for rows in slices(self._features.n_samples, MIN_ROWS):
            tile = self._features.take(rows).gram(self._other.take(rows))
            out[rows.start * R : rows.stop * R] = tile.diagonal().cpu().numpy()
        return out

    def matmul(self, V):
        """The product with V, an array of shape (n_cols,) or (n_cols, p)."""
        V = np.asarray(V)
        if V.ndim not in (1, 2) or V.shape[0] != self.shape[1]:
            raise ValueError(
                f"V must have shape ({self.shape[1]},) or ({self.shape[1]}, p); got {V.shape}."
            )
        columns = torch.tensor(
            V.reshape(len(V), -1), dtype=self._features.dtype, device=self._features.device
        )
        out = self._features.times(self._other, columns).cpu().numpy()
        return out.reshape(self.shape[0], *V.shape[1:])

    def toarray(self):
        """The whole matrix; a symmetric one costs half, and is exactly symmetric."""
        out = np.empty(self.shape, self.dtype)
        R = self._features.n_cotangents
        for rows, cols, tile in self._tiles():
            r, c = (slice(s.start * R, s.stop * R) for s in (rows, cols))
            tile = tile.cpu().numpy()
            out[r, c] = tile
            if self._symmetric:
                out[c, r] = tile.T
        return out

    def __repr__(self):
        return f"KernelOperator(shape={self.shape}, dtype={self.dtype})"

    def _restricted(self, samples):
        """The operator of some samples of a symmetric one."""
        part = KernelOperator(self._features.take(torch.tensor(samples, device=self._device)))
        part._tile_rows = self._tile_rows
        return part

    @property
    def _device(self):
        return self._features.device

    def _tiles(self):
        """(rows, cols, tile) over sample slices; the upper triangle of a symmetric kernel.

        Tiles on its diagonal are symmetric to the bit.
        """
        for rows in slices(self._features.n_samples, self._tile_rows):
            left = self._features.take(rows)
            for cols in slices(self._other.n_samples, self._tile_rows):
                if self._symmetric and cols.start < rows.start:
                    continue
                tile = left.gram(self._other.take(cols))
                if self._symmetric and rows == cols:
                    tile = tile.triu() + tile.triu(1).T
                yield rows, cols, tile


def slices(n, step):
    """Consecutive slices of ``step`` that cover range(n)."""
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


def _tile_rows(features, working_memory):
    """Samples a side of a tile: its few arrays fit in ``working_memory`` MiB."""
    numbers = working_memory * 2**20 / (4 * features.v.element_size())
    return max(MIN_ROWS, min(TILE_ROWS, int(numbers**0.5)) // features.n_cotangents)
