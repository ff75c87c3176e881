"""The loop that flips labels, one exact rank-one update at a time."""

import numpy as np

from ._gram import one_hot
from ._labels import gradient_of, interactions


class Labelling:
    """Labels under a fixed inverse M, with R = M Y and Z = Y' R kept up to date.

    Parameters
    ----------
    M : ndarray of shape (n_samples, n_samples)
        Inverse of the regularised Gram matrix.
    columns : ndarray of shape (n_samples,)
        Labels as columns.
    n_classes : int
    """

    def __init__(self, M, columns, n_classes):
        self.M, self.diagonal = M, np.diag(M).copy()
        self.columns = columns.copy()
        self.Y = one_hot(columns, n_classes)
        self.R = M @ self.Y
        self.counts = np.bincount(columns, minlength=n_classes)
        self.Z = interactions(self.R, columns, self.counts)

    def flip(self, i, q):
        """Give sample i the class q. With u = e_q - e_p: Z + u r' + r u' + M_ii u u'."""
        p, r = self.columns[i], self.R[i].copy()
        for k, sign in ((q, 1.0), (p, -1.0)):
            self.Z[k] += sign * r
            self.Z[:, k] += sign * r
        self.Z[q, q] += self.diagonal[i]
        self.Z[p, p] += self.diagonal[i]
        self.Z[p, q] -= self.diagonal[i]
        self.Z[q, p] -= self.diagonal[i]
        self.R[:, q] += self.M[i]
        self.R[:, p] -= self.M[i]
        self.Y[i, p], self.Y[i, q] = 0.0, 1.0
        self.columns[i] = q
        self.counts[p] -= 1
        self.counts[q] += 1

    def leave_one_out(self, i=slice(None)):
        """Predictions, for one sample or for all, of kernel regression on all others."""
        return self.Y[i] - self.R[i] / self.diagonal[i, None]


def best_other(scores, columns):
    """For each sample the best class but its own, and by how much it is better."""
    rows = np.arange(len(columns))
    own = scores[rows, columns]
    others = scores.copy()
    others[rows, columns] = -np.inf
    best = others.argmax(1)
    return best, others[rows, best] - own


def flips_of(labelling, *, method, beta, min_margin, max_flips, batch_size):
    """Flip labels until none is left that should be; each sample at most once.

    Yields
    ------
    change : tuple of (index, new column, margin)
        After it was made.
    """
    is_open = np.ones(len(labelling.columns), dtype=bool)
    n_flips = 0
    while n_flips < max_flips:
        candidates = _candidates(labelling, is_open, method, beta, min_margin, batch_size)
        if not candidates:
            return
        for i, q, margin in candidates[: max_flips - n_flips]:
            if labelling.counts[labelling.columns[i]] > 2:  # else its company went in this batch
                labelling.flip(i, q)
                is_open[i] = False
                n_flips += 1
                yield i, q, margin


def revisions_of(labelling, flipped, *, max_rounds=3):
    """Decide flipped labels again, now that the others are repaired, until nothing changes.

    The first flips are made while most wrong labels still stand. Yields as `flips_of`.
    """
    for _ in range(max_rounds):
        n_changes = 0
        for i in flipped:
            p, f = labelling.columns[i], labelling.leave_one_out(i)
            q = f.argmax()
            if q != p and labelling.counts[p] > 2:
                labelling.flip(i, q)
                n_changes += 1
                yield i, q, f[q] - f[p]
        if not n_changes:
            return


def _candidates(labelling, is_open, method, beta, min_margin, n):
    """The best flips that are worth making, as (index, new column, margin)."""
    columns = labelling.columns
    scores = labelling.leave_one_out()
    if method == "loo":
        new, margins = best_other(scores, columns)
        gains = margins
    else:
        G = gradient_of(labelling.R, labelling.Z, labelling.counts, beta, count_gradient=True)
        new, gains = best_other(-G, columns)
        rows = np.arange(len(columns))
        margins = scores[rows, new] - scores[rows, columns]
    is_open = is_open & (gains > 0) & (margins > min_margin) & (labelling.counts[columns] > 2)
    rows = np.flatnonzero(is_open)
    rows = rows[np.argsort(-gains[rows], kind="stable")[:n]]
    return [(i, new[i], margins[i]) for i in rows]
