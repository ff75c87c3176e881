"""What one more labelled sample changes everywhere, for all candidates at once.

A sample has R rows of a kernel: 1 where it serves all outputs alike. With L the labelled samples
and shift the ridge, ``S = k_UU - k_UL (k_LL + shift)^-1 k_LU`` is what is left of the kernel when L
is known. A label y' of the candidate x' moves the outputs at x from those of the labelled samples
alone by ``S[x, x'] (S[x', x'] + shift)^-1 (y' - f(x'))``: the bordered inverse.
"""

import numpy as np
from scipy.linalg import LinAlgError, cholesky, solve_triangular

from .._gram import Factor, is_sound

LEAST = 1e-10  # ridge, in units of the mean of the kernel's diagonal


def _factor(A):
    """A Cholesky factor, or None where there is none that is more than rounding."""
    try:
        L = cholesky(A, lower=True)
    except LinAlgError:
        return None
    return L if is_sound(L, A.diagonal().max()) else None


class Labelled:
    """The labelled samples: the Cholesky factor of their kernel, and what is left of their labels.

    Parameters
    ----------
    K : ndarray of shape (L R, L R)
    residuals : ndarray of shape (L R, C)
        Labels less the network's outputs.
    alpha : float
        Ridge in units of the mean of K's diagonal; it stays when samples are added.
    """

    def __init__(self, K, residuals, alpha):
        scale = float(np.trace(K) / len(K))
        if not scale > 0:
            raise ValueError(
                f"The mean of the kernel's diagonal is {scale:.3g}; it must be positive: no "
                "parameter changes an output of any labelled sample."
            )
        # candidates that are labelled already have S = 0: it must be divided by something
        found = Factor(K, max(alpha, LEAST), scale=scale, option="alpha")
        self.shift, self.factor = found.ridge * scale, found.lower
        self.whitened = self.whiten(residuals)

    def whiten(self, B):
        """The factor's inverse times B."""
        return solve_triangular(self.factor, B, lower=True, check_finite=False)

    def added(self, cross, K, residuals):
        """With more samples: a bordered factor.

        Parameters
        ----------
        cross : ndarray of shape (L R, k R)
        K : ndarray of shape (k R, k R)
        residuals : ndarray of shape (k R, C)
        """
        B, n = self.whiten(cross), len(self.factor)
        corner = K + self.shift * np.eye(len(K)) - B.T @ B
        jitter = 0.0
        while (found := _factor(corner + jitter * np.eye(len(K)))) is None:
            jitter = max(2 * jitter, self.shift)  # of samples that are there already
        corner = found
        more = object.__new__(Labelled)
        more.shift = self.shift
        more.factor = np.zeros((n + len(K), n + len(K)))
        more.factor[:n, :n], more.factor[n:, :n], more.factor[n:, n:] = self.factor, B.T, corner
        rest = residuals - B.T @ self.whitened
        corner = solve_triangular(corner, rest, lower=True, check_finite=False)
        more.whitened = np.vstack([self.whitened, corner])
        return more


class Candidates:
    """What is left of the kernel among candidates, and at the samples that are looked at.

    Parameters
    ----------
    labelled : Labelled
    cross : ndarray of shape (U R, L R)
        Kernel of the candidates with the labelled samples.
    own : ndarray of shape (U R, U R)
        Kernel among candidates; it is used up.
    seen : pair of ndarrays (E R, L R) and (E R, U R), or None
        Kernels of the samples that are looked at; None means the candidates themselves.
    outputs : ndarray of shape (U, n_outputs)
        Of the network.
    seen_outputs : ndarray of shape (E, n_outputs)
    """

    def __init__(self, labelled, cross, own, outputs, seen=None, seen_outputs=None):
        self.shift, self.n, self.n_outputs = labelled.shift, len(outputs), outputs.shape[1]
        self.R = len(own) // self.n
        W = labelled.whiten(cross.T)
        self.own = _less(own, W, W)
        self.linear = outputs + self._outputs(W.T @ labelled.whitened)
        if seen is None:
            self.seen, self.seen_linear, self.seen_outputs = self.own, self.linear, outputs
            return
        V = labelled.whiten(seen[0].T)
        self.seen = _less(seen[1], V, W)
        self.seen_outputs = seen_outputs
        self.seen_linear = seen_outputs + self._outputs(V.T @ labelled.whitened)

    def _outputs(self, rows):
        return rows.reshape(-1, self.n_outputs)

    def _rows_of(self, j):
        return slice(j.start * self.R, j.stop * self.R)

    def gains(self, targets, j):
        """What labels of candidates put on top: (n, R, C) for a slice j of them."""
        R = self.R
        blocks = self.own[self._rows_of(j), self._rows_of(j)]
        n = j.stop - j.start
        blocks = blocks.reshape(n, R, n, R)[np.arange(n), :, np.arange(n)]
        missing = (targets - self.linear[j]).reshape(n, R, -1)
        return np.linalg.solve(blocks + self.shift * np.eye(R), missing)

    def updated(self, targets, j):
        """Outputs where it is looked, after each candidate of a slice has got its label.

        Returns
        -------
        outputs : ndarray of shape (E, n, n_outputs)
        """
        d, n = self.gains(targets, j), j.stop - j.start
        S = self.seen[:, self._rows_of(j)]
        if self.R == 1:
            change = S[:, :, None] * d[:, 0]
        else:
            S = S.reshape(-1, self.R, n, self.R)
            change = np.einsum("xrjs,js->xjr", S, d[:, :, 0], optimize=True)
        change += self.seen_linear[:, None]
        return change

    def learn(self, j, target):
        """Take a candidate with its label among the labelled samples."""
        one = slice(j, j + 1)
        rows, R = self._rows_of(one), self.R
        d = self.gains(target, one)[0]
        corner = self.own[rows, rows] + self.shift * np.eye(R)
        seen, own = self.seen[:, rows].copy(), self.own[rows].copy()
        before = self.linear is self.seen_linear
        self.linear = self.linear + self._outputs(own.T @ d)
        self.seen_linear = self.linear if before else self.seen_linear + self._outputs(seen @ d)
        passed = np.linalg.solve(corner, own)
        if self.seen is not self.own:
            self.seen -= seen @ passed
        self.own -= own.T @ passed


def _less(K, left, right, step=1024):
    """``K - left' right``, in place."""
    for start in range(0, len(K), step):
        rows = slice(start, start + step)
        K[rows] -= left[:, rows].T @ right
    return K
