"""The kernel matrix as users see it: numpy in, numpy out, nothing computed before it is asked."""

from numbers import Integral

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator

from ._engine.kernel import Kernel, pick


class KernelOperator(LinearOperator):
    """A kernel matrix that is computed when it is asked for, tile by tile.

    It is a scipy ``LinearOperator``, for solvers and eigensolvers: products by ``@`` need no entry
    of the kernel. ``K[i]``, ``K[i, j]`` and slices give entries, ``numpy.asarray(K)`` gives all.

    Row ``i * R + r`` belongs to sample i and cotangent r; all kernels but the full eNTK
    (R = K) have R = 1, so that rows are samples.

    Parameters
    ----------
    features : Features or Source
        Of the rows. Users get operators from :func:`empirical_ntk`.
    other : Features or Source, default=None
        Of the columns; None means those of the rows.
    working_memory : int, default=1024
        MiB that tiles may take.

    Attributes
    ----------
    shape : tuple of int
        ``(n_samples * R, n_samples_2 * R)``.
    dtype : numpy dtype
        That of the network's parameters.
    """

    def __init__(self, features, other=None, *, working_memory=1024):
        self._take_over(Kernel(features, other, memory=int(working_memory * 2**20)))

    def _take_over(self, kernel):
        self.kernel = kernel
        dtype = str(kernel.left.dtype).removeprefix("torch.")
        LinearOperator.__init__(self, np.dtype(dtype), kernel.shape)

    @staticmethod
    def _of(kernel):
        operator = LinearOperator.__new__(KernelOperator)
        operator._take_over(kernel)
        return operator

    def restricted(self, samples):
        """The operator of some samples of a symmetric one.

        Parameters
        ----------
        samples : array-like of int
            Which of them.
        """
        return self._of(self.kernel.restricted(samples))

    def _transpose(self):
        return self if self.kernel.symmetric else self._of(self.kernel.transposed())

    _adjoint = _transpose  # it is real

    def _matmat(self, V):
        return self.matmul(V)

    def _matvec(self, v):
        return self.matmul(v.reshape(-1))

    def __len__(self):
        return self.shape[0]

    def __array__(self, dtype=None, copy=None):
        if copy is False:
            raise ValueError("A lazy kernel has no array to share; its entries are computed anew.")
        return self.toarray().astype(self.dtype if dtype is None else dtype, copy=False)

    def __getitem__(self, index):
        rows, cols = index if isinstance(index, tuple) else (index, slice(None))
        single = tuple(0 if isinstance(i, Integral) else slice(None) for i in (rows, cols))
        if not any(isinstance(i, (Integral, slice)) for i in (rows, cols)):
            raise IndexError(
                "K[i, j] takes an int or a slice for rows or for columns; of two arrays, "
                "K.block(rows, cols) gives all rows and columns, as numpy.ix_ would."
            )
        rows, cols = ([i] if isinstance(i, Integral) else i for i in (rows, cols))
        return self.block(rows, cols)[single]

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
        left, pick_rows = pick(self.kernel.left, rows)
        right, pick_cols = pick(self.kernel.right, cols)
        out = np.empty(Kernel(left, right, schedule=(1, 1)).shape, self.dtype)
        for r, c, tile in self.kernel.product(left, right):
            out[r, c] = tile.cpu().numpy()
        out = out if pick_rows is None else out[pick_rows]
        out = out if pick_cols is None else out[:, pick_cols]
        return self._finite(out)

    def diag(self):
        """The diagonal, an ndarray of shape (n_rows,).

        It equals that of `block` bit for bit where all features are kept.
        """
        if self.shape[0] != self.shape[1]:
            raise ValueError(f"A kernel of shape {self.shape} has no diagonal.")
        return self._finite(self.kernel.diagonal().cpu().numpy())

    def matmul(self, V):
        """The product with V.

        One flat gradient a column of V: O(n d) multiplications instead of O(n m), and no
        kernel.

        Parameters
        ----------
        V : array-like of shape (n_cols,) or (n_cols, p)
            Real numbers.

        Returns
        -------
        product : ndarray of shape (n_rows,) or (n_rows, p)
        """
        V = np.asarray(V)
        if V.ndim not in (1, 2) or V.shape[0] != self.shape[1]:
            raise ValueError(
                f"V must have shape ({self.shape[1]},) or ({self.shape[1]}, p); got {V.shape}."
            )
        if V.dtype.kind not in "fiub":
            raise ValueError(
                f"V must hold real numbers; got {V.dtype}. The kernel is real: multiply the real "
                "and the imaginary part one after the other."
            )
        columns = V.reshape(len(V), -1).astype(self.dtype)
        left = self.kernel.left
        out = self.kernel.matmul(torch.tensor(columns, dtype=left.dtype, device=left.device))
        return self._finite(out.cpu().numpy().reshape(self.shape[0], *V.shape[1:]))

    def toarray(self):
        """The whole matrix; a symmetric one costs half, and is exactly symmetric."""
        n, R, m, S = self._sizes
        out = np.empty((n, R, m, S), self.dtype)
        self._fill(out)
        return self._finite(out.reshape(self.shape))

    def blocks(self):
        """The same as one R x R block a pair: an array of shape (n_samples, n_samples_2, R, R)."""
        n, R, m, S = self._sizes
        out = np.empty((n, m, R, S), self.dtype)
        self._fill(out.transpose(0, 2, 1, 3))
        return self._finite(out)

    @property
    def _sizes(self):
        left, right = self.kernel.left, self.kernel.right
        return left.n_samples, left.n_cotangents, right.n_samples, right.n_cotangents

    def _fill(self, out):
        """Write all entries into an array of shape (n, R, m, S)."""
        _, R, _, S = out.shape
        for rows, cols, tile in self.kernel.tiles():
            tile = tile.unflatten(0, (-1, R)).unflatten(2, (-1, S)).cpu().numpy()
            i, j = (slice(r.start // k, r.stop // k) for r, k in ((rows, R), (cols, S)))
            out[i, :, j] = tile
            if self.kernel.symmetric:
                out[j, :, i] = tile.transpose(2, 3, 0, 1)

    def __repr__(self):
        return f"KernelOperator(shape={self.shape}, dtype={self.dtype})"

    def _finite(self, entries):
        # one pass, no temporary: NaN and infinity survive in the extremes
        if entries.size and not (np.isfinite(entries.max()) and np.isfinite(entries.min())):
            raise ValueError(
                f"Entries of the kernel overflow {self.dtype}, although the features are finite. "
                "Scale the inputs or the network, or convert it with .double()."
            )
        return entries
