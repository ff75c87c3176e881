"""The kernel as a lazy matrix over features: tiles, products and parts of it."""

import numpy as np
import torch

from .._runtime.progress import report
from .products import padded, scaled, slices, sum_columns
from .sources import subset

# rows a side of a tile, measured: on a processor larger tiles leave the cache, smaller ones
# starve the product; a multiple of what both precisions need for bit-stability
TILE_ROWS = {"cpu": 528}
OTHER_TILE_ROWS = 4224  # on a GPU


class Kernel:
    """Inner products of the rows of two sources of features.

    Row ``i * R + r`` belongs to sample i and scalar r.

    Parameters
    ----------
    left, right : Features or Source
        The same object where the kernel is symmetric.
    memory : int
        Bytes that tiles and what they are made of may take.

    Attributes
    ----------
    panel, tile : int
        Samples in a panel of rows, which is kept, and in a tile of columns, which passes by.
    """

    def __init__(self, left, right=None, *, memory=2**30, schedule=None):
        self.left, self.right = left, left if right is None else right
        self.memory = memory
        self._automatic = None if schedule else schedule_of(self.left, self.right, memory)
        self.panel, self.tile = schedule or self._automatic

    @property
    def symmetric(self):
        """Whether rows and columns are the same."""
        return self.right is self.left

    @property
    def shape(self):
        """Rows and columns."""
        left, right = self.left, self.right
        return left.n_samples * left.n_cotangents, right.n_samples * right.n_cotangents

    @property
    def in_threads(self):
        """Whether threads may take rows at the same time."""
        return not any(f.uses_network for f in (self.left, self.right))

    def restricted(self, samples):
        """The kernel of some samples of a symmetric one."""
        part = subset(self.left, torch.as_tensor(samples))
        return Kernel(part, memory=self.memory, schedule=(self.panel, self.tile))

    def transposed(self):
        """The kernel with rows for columns."""
        return Kernel(self.right, self.left, memory=self.memory)

    def tiles(self):
        """(rows, cols, tile) over slices of rows; the upper triangle of a symmetric kernel.

        Tiles on its diagonal are symmetric to the bit.
        """
        if not self.symmetric:
            yield from self.product(self.left, self.right)
            return
        n, R = self.left.n_samples, self.left.n_cotangents
        panel, tile = self._steps(self.left, self.left)
        for rows in slices(n, panel):
            left = self.left.take(rows)
            own = left.gram(left)
            yield scaled(rows, R), scaled(rows, R), own.triu() + own.triu(1).T
            for start in range(rows.stop, n, tile):
                cols = slice(start, min(start + tile, n))
                yield scaled(rows, R), scaled(cols, R), left.gram(self.left.take(cols))
            report(rows.stop, n, "rows of the kernel")

    def product(self, left, right):
        """(rows, cols, tile) of the whole rectangle of two sources."""
        step, tile = self._steps(left, right)
        for rows in slices(left.n_samples, step):
            panel = left.take(rows)
            for cols in slices(right.n_samples, tile):
                part = panel.gram(right.take(cols))
                yield scaled(rows, left.n_cotangents), scaled(cols, right.n_cotangents), part
            report(rows.stop, left.n_samples, "rows of the kernel")

    def _steps(self, left, right):
        """Samples in a panel and in a tile of consecutive ones.

        As many as a tile holds where they are no copies: what is written out on the way to a tile
        (some columns of its rows, at a time) is written once for each tile. A schedule that was
        given is kept.
        """
        free = left.hands_out_views and right.hands_out_views and left.is_like(right)
        if not free or self._automatic != (self.panel, self.tile):
            return self.panel, self.tile
        R, size = max(left.n_cotangents, right.n_cotangents), left.dtype.itemsize
        rows = self.memory // (4 * R * size * sum_columns(left.dtype))
        rows = _in_units(min(_side(left, R, self.memory), rows), R, left.dtype)
        return max(rows, self.panel), max(rows, self.tile)

    def rows(self, samples):
        """The rows of some samples, an ndarray, whatever memory holds."""
        part = subset(self.left, samples)
        tiles = [(r, c, tile.cpu().numpy()) for r, c, tile in self.product(part, self.right)]
        out = np.empty((len(samples) * self.left.n_cotangents, self.shape[1]), tiles[0][2].dtype)
        for r, c, tile in tiles:
            out[r, c] = tile
        return out

    def diagonal(self):
        """The diagonal of a square kernel, bit for bit that of its tiles."""
        if self.symmetric:
            steps = slices(self.left.n_samples, self.panel)
            parts = [self.left.take(rows).diagonal() for rows in steps]
        else:
            unit = padded(1, self.left.n_cotangents, self.left.dtype)
            steps = slices(self.left.n_samples, unit)
            parts = [self.left.take(r).gram(self.right.take(r)).diagonal() for r in steps]
        return torch.cat(parts) if parts else torch.empty(0, dtype=self.left.dtype)

    def matmul(self, V):
        """The product with V of shape (n_cols, p): one flat gradient a column, no kernel."""
        return self.images(self.combined(V), V.shape[1])

    def combined(self, V):
        """Sums of the columns' features with the weights V (n_cols, p): dict of key -> (p, P)."""
        S, sums = self.right.n_cotangents, {}
        for cols in slices(self.right.n_samples, self._step(self.right)):
            part = self.right.take(cols).weighted_sums(V[scaled(cols, S)])
            for key, value in part.items():
                sums[key] = sums[key] + value if key in sums else value
        return sums

    def images(self, sums, n_columns):
        """The products of the rows' features with such sums, of shape (n_rows, n_columns)."""
        return torch.cat(
            [
                self.left.take(rows).dots(sums, n_columns)
                for rows in slices(self.left.n_samples, self._step(self.left))
            ]
        )

    def _step(self, source):
        """Samples that may be taken at once, one after the other."""
        return source.n_samples if source.in_memory else self.panel


def _side(source, R, memory):
    """Samples a side of a tile of which a few fit into memory."""
    most = TILE_ROWS.get(source.device.type, OTHER_TILE_ROWS)
    return max(1, min(most, int((memory / (4 * source.dtype.itemsize)) ** 0.5)) // R)


def _in_units(rows, R, dtype):
    """A number of samples whose products are bit-stable."""
    unit = padded(1, R, dtype)
    return max(unit, rows // unit * unit)


def schedule_of(left, right, memory):
    """Samples in a panel of rows, which is kept, and in a tile of columns, which passes by.

    Features in memory are square tiles of a few arrays within ``memory`` bytes. Others are
    taken once for a panel and, for each panel, once for all columns: n^2 / (2 panel) in all
    for a symmetric kernel. So the panel takes all the memory that a thin tile leaves.
    """
    R = max(left.n_cotangents, right.n_cotangents)
    size, side = left.dtype.itemsize, _side(left, R, memory)
    if left.in_memory:
        rows = min(side, memory // (4 * left.sample_bytes))  # copies of rows that are picked
        rows = _in_units(rows, R, left.dtype)
        return rows, rows
    fits = memory // (2 * left.sample_bytes)  # the other half is for the products
    tile = max(1, min(side, fits // 8))
    return max(1, min(fits - tile, memory // (4 * size * R * R * tile))), tile


def pick(source, index):
    """A source of the samples that some rows belong to, and which of its rows (None: all)."""
    R, n = source.n_cotangents, source.n_samples
    index = np.arange(n * R)[index]
    if index.ndim != 1:
        raise ValueError(
            f"rows and cols must be slices or one-dimensional arrays; one index selects "
            f"an array of shape {index.shape}. Use [i] for a single row."
        )
    index = np.ascontiguousarray(index)
    if R == 1:
        return subset(source, torch.from_numpy(index)), None
    samples, position = np.unique(index // R, return_inverse=True)
    return subset(source, torch.from_numpy(samples)), position * R + index % R
