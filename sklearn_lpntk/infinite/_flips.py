"""The loop that flips labels, one exact rank-one update at a time."""

from dataclasses import dataclass

import numpy as np

from .._gram import one_hot
from ._labels import error_of, gradient_of, interactions


class Labelling:
    """Labels under a fixed inverse M, with what follows from them kept up to date.

    Parameters
    ----------
    M : ndarray of shape (n_samples, n_samples)
        Inverse of the regularised Gram matrix.
    columns : ndarray of shape (n_samples,)
        Labels as columns.
    n_classes : int

    Attributes
    ----------
    R, Z : ndarray of shape (n_samples, n_classes) and (n_classes, n_classes)
        M Y and Y' M Y.
    leave_one_out : ndarray of shape (n_samples, n_classes)
        Predictions by kernel regression on all other samples.
    """

    def __init__(self, M, columns, n_classes):
        self.M, self.diagonal = M, np.diag(M).copy()
        self.columns = columns.copy()
        # a flip touches two columns of each: they are contiguous
        self.Y = np.asfortranarray(one_hot(columns, n_classes))
        self.R = np.asfortranarray(M @ self.Y)
        self.leave_one_out = self.Y - self.R / self.diagonal[:, None]
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
        self.R[:, q] += self.M[:, i]  # its rows are not contiguous
        self.R[:, p] -= self.M[:, i]
        self.Y[i, p], self.Y[i, q] = 0.0, 1.0
        for k in (p, q):
            self.leave_one_out[:, k] = self.Y[:, k] - self.R[:, k] / self.diagonal
        self.columns[i] = q
        self.counts[p] -= 1
        self.counts[q] += 1


def gains_of_others(scores, columns):
    """Scores without each sample's own class, and by how much the best of them exceeds it."""
    rows = np.arange(len(columns))
    own = scores[rows, columns]
    others = scores.copy(order="K")
    others[rows, columns] = -np.inf
    return others, others.max(axis=1) - own


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
            p, f = labelling.columns[i], labelling.leave_one_out[i]
            q = f.argmax()
            if q != p and labelling.counts[p] > 2:
                labelling.flip(i, q)
                n_changes += 1
                yield i, q, f[q] - f[p]
        if not n_changes:
            return


def _candidates(labelling, is_open, method, beta, min_margin, n):
    """The best flips that are worth making, as (index, new column, margin)."""
    columns, scores = labelling.columns, labelling.leave_one_out
    others, gains = gains_of_others(scores, columns)
    margins = gains
    if method == "gradient":
        G = gradient_of(labelling.R, labelling.Z, labelling.counts, beta, count_gradient=True)
        others, gains = gains_of_others(-G, columns)
        rows = np.arange(len(columns))
        margins = scores[rows, others.argmax(axis=1)] - scores[rows, columns]
    is_open = is_open & (gains > 0) & (margins > min_margin) & (labelling.counts[columns] > 2)
    rows = np.flatnonzero(is_open)
    rows = rows[np.argsort(-gains[rows], kind="stable")[:n]]
    return [(i, others[i].argmax(), margins[i]) for i in rows]


@dataclass(frozen=True)
class Repairs:
    """What became of the labels.

    Attributes
    ----------
    rows : ndarray of shape (n_flips,)
        Those whose label is another one in the end, in the order of the first decision.
    first, last : ndarray of shape (n_flips,)
        Margins of their first and of their last decision.
    error_path : ndarray of shape (n_changes + 1,)
    """

    rows: np.ndarray
    first: np.ndarray
    last: np.ndarray
    error_path: np.ndarray


def repaired(labelling, *, method, beta, max_iter, **options):
    """Repair a labelling in place, and tell what was done."""
    given, first, last = labelling.columns.copy(), {}, {}
    path = [error_of(labelling.Z, labelling.counts, beta)]
    n = len(given) if max_iter is None else max_iter
    changes = flips_of(labelling, method=method, beta=beta, max_flips=n, **options)
    for again in (False, True):
        for i, _, margin in changes:
            first.setdefault(i, margin)
            last[i] = margin
            path.append(error_of(labelling.Z, labelling.counts, beta))
        changes = revisions_of(labelling, list(first)) if method == "loo" and not again else ()
    rows = np.array([i for i in first if labelling.columns[i] != given[i]], dtype=np.int64)
    margins = (np.array([of[i] for i in rows], dtype=np.float64) for of in (first, last))
    return Repairs(rows, *margins, np.array(path))
