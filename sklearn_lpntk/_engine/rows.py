"""Rows of the kernel on demand, computed in blocks with those that are likely to be next.

Greedy algorithms ask for one row after the other, and a row alone is a matrix-vector
product, ten times slower than its share of a matrix product. So a row is computed together with
the rows of the samples that are next by now; most of them are asked for soon.
"""

import numpy as np
import torch

from .bounds import rows_and_columns
from .products import slices

AHEAD = 64


class SpeculativeRows:
    """``rows(i, priority)`` of a symmetric kernel.

    Parameters
    ----------
    kernel : Kernel
    bounds : Bounds, optional
        Then the priorities are similarities that never fall, and an entry that can't exceed
        the priority of its column is -inf instead.

    Attributes
    ----------
    n_evaluated : int
        Entries of the kernel that were computed.
    """

    def __init__(self, kernel, *, bounds=None, n_ahead=AHEAD):
        self._kernel, self._source, self._bounds = kernel, kernel.left, bounds
        self._ahead = min(n_ahead, self._source.n_samples)
        row_bytes = kernel.left.dtype.itemsize * self._source.n_samples
        self._most = max(self._ahead, kernel.memory // (4 * row_bytes))
        self._rows = {}
        self.n_evaluated = 0 if bounds is None else bounds.n_evaluated

    def __call__(self, i, priority):
        """Row i, an ndarray of shape (n,); rows of low priority are likely to be next.

        ``priority`` has shape (n,) and is inf for samples that are done with.
        """
        if i not in self._rows:
            self._compute(self._next(i, priority), priority)
        return self._rows.pop(i)

    def _next(self, i, priority):
        likely = np.argpartition(priority, self._ahead - 1)[: self._ahead]
        likely = [j for j in likely.tolist() if j not in self._rows and np.isfinite(priority[j])]
        return np.array(sorted({i, *likely}))

    def _compute(self, samples, priority):
        while len(self._rows) + len(samples) > self._most and self._rows:
            self._rows.pop(next(iter(self._rows)))  # the oldest
        rows = torch.from_numpy(samples).to(self._source.device)
        if self._bounds is None:
            block = self._kernel.rows(rows)
            self.n_evaluated += block.size
        else:
            block = self._bounded(rows, priority)
        self._rows.update(zip(samples.tolist(), block))

    def _bounded(self, rows, priority):
        order, scale = self._bounds.order, self._bounds.scale
        least = torch.from_numpy(np.asarray(priority / scale, dtype=np.float32)).to(order.device)
        out = torch.full((len(rows), len(order)), -torch.inf, dtype=self._source.dtype)
        out = out.to(order.device)
        features = self._source.take(rows)
        for tile in slices(len(order), self._kernel.tile):
            cols = order[tile]
            r, c = rows_and_columns(self._bounds.upper(rows, cols) >= least[cols])
            if len(r):
                block = features.take(r).gram(self._source.take(cols[c]))
                out[r[:, None], cols[c]] = block
                self.n_evaluated += block.numel()
        return out.cpu().numpy()
