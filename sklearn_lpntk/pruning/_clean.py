"""Labels that the kernel contradicts, and the medoids that coverage begins with."""

import numpy as np

from .._gram import margins_of
from ..cluster._traversal import farthest_point_order
from ..linearized._leave_one_out import left_out_predictions

TIED = 1e-6  # gains a sample that differ by less are equal but for rounding
MEDOIDS = 0.5  # times the square root of the class's size


def left_out_margins(columns, **kernel):
    """By how much a regression on all other samples prefers each label to the best other one.

    Ridge regression of one-hot labels on features that know no labels, centred, with the ridge of
    the least leave-one-out error: negative where it prefers another class. Inf for the only sample
    of a class, of which the others know nothing.

    Parameters
    ----------
    columns : ndarray of shape (n_samples,)
        Labels.
    **kernel
        ``phi`` or ``K``, as for `left_out_predictions`.
    """
    _, codes, counts = np.unique(columns, return_inverse=True, return_counts=True)
    margins = margins_of(left_out_predictions(codes, **kernel), codes)
    return np.where(counts[codes] > 1, margins, np.inf)


def medoids_then_farthest(rows):
    """All samples of a class: some medoids, then always the least similar to those before.

    The first few stand in for as many as they can, the others for what is not covered yet.
    """
    n = len(rows)
    first = greedy_medoids(rows, min(n, max(1, round(MEDOIDS * n**0.5))))
    return farthest_point_order(first, rows.row, n)


def greedy_medoids(rows, n_medoids):
    """Samples that raise the mean similarity of all to their nearest medoid most, one by one.

    Facility location, greedily; gains only fall, so that most need not be computed again. Ties go
    to the lowest index.
    """
    n = len(rows)
    nearest, medoids = np.full(n, -1.0), []
    gains = n * (rows.mean() + 1)  # of the first medoid: exact, for similarities from -1 on
    exact = np.ones(n, dtype=bool)
    while len(medoids) < n_medoids:
        best = int(np.argmax(gains >= gains.max() - TIED * n))  # the first of those
        if exact[best]:
            np.maximum(nearest, rows.row(best, -gains), out=nearest)
            medoids.append(best)
            gains[best], exact[:] = -np.inf, False
        else:
            row = rows.row(best, -gains)
            gains[best], exact[best] = np.maximum(row - nearest, 0).sum(), True
    return medoids
