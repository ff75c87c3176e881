"""What is regressed on what: targets, offsets, weights, and what deleting a sample does to them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Problem:
    """Targets of N samples for a kernel with R rows a sample.

    With R = 1 one kernel serves all outputs; otherwise every output has a row of its own. Rows are
    sample-major. *Scaled* rows are multiplied by the root of their sample's weight, which turns a
    weighted problem into a plain one.

    Attributes
    ----------
    Y : ndarray of shape (N, n_outputs)
        Targets, less what the network gives already.
    n_rows : int
        R, 1 or n_outputs.
    offset : {"net", "mean", "zero", "centred"}
    weights : ndarray of shape (N,), positive, or None
    """

    Y: np.ndarray
    n_rows: int = 1
    offset: str = "mean"
    weights: np.ndarray | None = None

    @cached_property
    def w(self):
        return np.ones(len(self.Y)) if self.weights is None else self.weights

    @property
    def total(self):
        """Number of samples, each as often as its weight says."""
        return self.w.sum()

    @cached_property
    def root(self):
        """What rows are scaled by, of shape (N R, 1)."""
        return np.repeat(np.sqrt(self.w), self.n_rows)[:, None]

    @property
    def centred(self):
        """Whether there is an intercept that nothing shrinks."""
        return self.offset == "centred"

    @cached_property
    def mean(self):
        """What is added to the regression, of shape (n_outputs,), before an intercept is fitted."""
        if self.offset in ("net", "zero"):
            return np.zeros(self.Y.shape[1])
        return self.w @ self.Y / self.total

    @cached_property
    def scaled(self):
        """What the kernel has to explain, scaled: (N R, C)."""
        return self.root * self.rows_of(self.Y - self.mean)

    @cached_property
    def ones(self):
        """The constant function of each row of a sample, scaled: (N R, R)."""
        return self.root * np.tile(np.eye(self.n_rows), (len(self.Y), 1))

    @cached_property
    def units(self):
        """The same of length one."""
        return self.ones / np.sqrt(self.total)

    def rows_of(self, outputs):
        """Outputs (N, n_outputs) as rows of the kernel have them: (N R, C)."""
        return outputs.reshape(len(outputs) * self.n_rows, -1)

    def outputs_of(self, rows):
        """Rows (n R, C) as outputs (n, n_outputs)."""
        return rows.reshape(len(rows) // self.n_rows, -1)

    def centre(self, K):
        """Take the means of the features out of a kernel matrix, in place, and scale its rows.

        Returns
        -------
        means : ndarray of shape (R, N R)
            The kernel of the mean of the features with every sample's.
        """
        N, R = len(self.Y), self.n_rows
        blocks = K.reshape(N, R, N, R)
        means = np.tensordot(self.w / self.total, blocks, 1)
        if self.centred:
            blocks -= means
            blocks -= np.tensordot(blocks, self.w / self.total, (2, 0))[:, :, None]
        if self.weights is not None:
            K *= self.root
            K *= self.root.T
        return means.reshape(R, N * R)

    def left_out(self, residuals, constants, blocks):
        """Predictions for each sample by the regression on all others: (N, n_outputs).

        For a smoother f = S y with G a multiple of I - S, leaving sample i out leaves the
        residual ``G_ii^-1 (G y)_i``. Where the mean of the others is subtracted, ``y`` is
        another one for each i: its constant part is taken off afterwards.

        Parameters
        ----------
        residuals : ndarray of shape (N R, C)
            G times the scaled targets.
        constants : ndarray of shape (N R, R)
            G times the scaled constants.
        blocks : ndarray of shape (N, R, R)
            Blocks of G on its diagonal.

        A sample without others has nan.
        """
        N, R = len(self.Y), self.n_rows
        rows = residuals.reshape(N, R, -1)
        if self.offset == "mean":
            others = self.total - self.w
            others = np.where(others > 1e-12 * self.total, others, np.nan)  # there are none
            shift = (self.w / others)[:, None] * (self.mean - self.Y)  # mean of the others - mean
            rows = rows - constants.reshape(N, R, R) @ shift.reshape(N, R, -1)
        left = np.linalg.solve(blocks, rows).reshape(N, -1)
        return self.Y - left / np.sqrt(self.w)[:, None]
