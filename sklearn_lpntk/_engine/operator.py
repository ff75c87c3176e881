"""The kernel as a lazy matrix over factors."""

import numpy as np
import torch

from .factors import padded
from .features import slices
from .sources import subset

# samples a side of a tile, measured: on a processor larger tiles leave the cache, smaller ones
# starve the product; a multiple of what both precisions need for bit-stability
TILE_ROWS = {"cpu": 528}
OTHER_TILE_ROWS = 4224  # on a GPU


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
        self._memory = int(working_memory * 2**20)
        self._panel, self._tile = _schedule(features, self._memory)

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
        R = self._features.n_cotangents
        out = np.empty((left.n_samples * R, right.n_samples * R), self.dtype)
        for r, c, tile in self._product(left, right):
            out[_scaled(r, R), _scaled(c, R)] = tile.cpu().numpy()
        out = out if pick_rows is None else out[pick_rows]
        return out if pick_cols is None else out[:, pick_cols]

    def _pick(self, features, index):
        """A source of the samples concerned, and which of their rows (None: all)."""
        R, n = features.n_cotangents, features.n_samples
        index = np.arange(n * R)[index]
        if index.ndim != 1:
            raise ValueError(
                f"rows and cols must be slices or one-dimensional arrays; one index selects "
                f"an array of shape {index.shape}. Use [i] for a single row."
            )
        index = np.ascontiguousarray(index)
        if R == 1:
            return subset(features, torch.from_numpy(index)), None
        samples, position = np.unique(index // R, return_inverse=True)
        return subset(features, torch.from_numpy(samples)), position * R + index % R

    def diag(self):
        """The diagonal, an ndarray of shape (n_rows,).

        It equals that of `block` bit for bit where all features are kept.
        """
        if self.shape[0] != self.shape[1]:
            raise ValueError(f"A kernel of shape {self.shape} has no diagonal.")
        R, unit = self._features.n_cotangents, padded(1, self._features.dtype)
        if self._symmetric:
            parts = [
                self._features.take(rows).diagonal()
                for rows in slices(self._features.n_samples, self._panel)
            ]
        else:
            parts = [
                self._features.take(rows).gram(self._other.take(rows)).diagonal()
                for rows in slices(self._features.n_samples, unit)
            ]
        return torch.cat(parts).cpu().numpy() if parts else np.empty(0 * R, self.dtype)

    def matmul(self, V):
        """The product with V, an array of shape (n_cols,) or (n_cols, p).

        One flat gradient a column of V: O(n d) multiplications instead of O(n m), and no
        kernel.
        """
        V = np.asarray(V)
        if V.ndim not in (1, 2) or V.shape[0] != self.shape[1]:
            raise ValueError(
                f"V must have shape ({self.shape[1]},) or ({self.shape[1]}, p); got {V.shape}."
            )
        columns = torch.tensor(
            V.reshape(len(V), -1), dtype=self._features.dtype, device=self._features.device
        )
        R, sums = self._features.n_cotangents, {}
        for cols in slices(self._other.n_samples, self._step(self._other)):
            part = self._other.take(cols).weighted_sums(columns[_scaled(cols, R)])
            for key, value in part.items():
                sums[key] = sums[key] + value if key in sums else value
        out = [
            self._features.take(rows).dots(sums, columns.shape[1])
            for rows in slices(self._features.n_samples, self._step(self._features))
        ]
        return torch.cat(out).cpu().numpy().reshape(self.shape[0], *V.shape[1:])

    def toarray(self):
        """The whole matrix; a symmetric one costs half, and is exactly symmetric."""
        out = np.empty(self.shape, self.dtype)
        R = self._features.n_cotangents
        for rows, cols, tile in self._tiles():
            r, c = _scaled(rows, R), _scaled(cols, R)
            tile = tile.cpu().numpy()
            out[r, c] = tile
            if self._symmetric:
                out[c, r] = tile.T
        return out

    def __repr__(self):
        return f"KernelOperator(shape={self.shape}, dtype={self.dtype})"

    # -- for the reductions and the estimators ---------------------------------------------

    def _restricted(self, samples):
        """The operator of some samples of a symmetric one."""
        part = KernelOperator(subset(self._features, torch.as_tensor(samples)))
        part._memory, part._panel, part._tile = self._memory, self._panel, self._tile
        return part

    @property
    def _in_threads(self):
        """Whether threads may take rows at the same time."""
        return not any(f.uses_network for f in (self._features, self._other))

    def _tiles(self):
        """(rows, cols, tile) over sample slices; the upper triangle of a symmetric kernel.

        Tiles on its diagonal are symmetric to the bit.
        """
        if not self._symmetric:
            yield from self._product(self._features, self._other)
            return
        n = self._features.n_samples
        for rows in slices(n, self._panel):
            left = self._features.take(rows)
            tile = left.gram(left)
            yield rows, rows, tile.triu() + tile.triu(1).T
            for start in range(rows.stop, n, self._tile):
                cols = slice(start, min(start + self._tile, n))
                yield rows, cols, left.gram(self._features.take(cols))

    def _product(self, left, right):
        """(rows, cols, tile) of the whole rectangle of two sources."""
        for rows in slices(left.n_samples, self._panel):
            panel = left.take(rows)
            for cols in slices(right.n_samples, self._tile):
                yield rows, cols, panel.gram(right.take(cols))

    def _step(self, source):
        """Samples that may be taken at once, one after the other."""
        return source.n_samples if source.in_memory else self._panel


def _scaled(rows, R):
    return slice(rows.start * R, rows.stop * R)


def _schedule(features, memory):
    """Samples in a panel of rows, which is kept, and in a tile of columns, which passes by.

    Features in memory are square tiles of a few arrays within ``memory`` bytes. Others are
    taken once for a panel and, for each panel, once for all columns: n^2 / (2 panel) in all
    for a symmetric kernel. So the panel takes all the memory that a thin tile leaves.
    """
    R, size = features.n_cotangents, torch.empty(0, dtype=features.dtype).element_size()
    most = TILE_ROWS.get(features.device.type, OTHER_TILE_ROWS)
    side = min(most, int((memory / (4 * size)) ** 0.5)) // R
    if features.in_memory:
        unit = padded(1, features.dtype)
        rows = min(side, memory // (4 * features.sample_bytes))  # copies of rows that are picked
        rows = max(unit, rows // unit * unit)
        return rows, rows
    fits = memory // (2 * features.sample_bytes)  # the other half is for the products
    tile = max(1, min(side, fits // 8))
    return max(1, min(fits - tile, memory // (4 * size * R * R * tile))), tile
