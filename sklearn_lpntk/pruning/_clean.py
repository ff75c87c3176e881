"""Coverage of the samples whose labels the kernel does not contradict, begun at medoids."""

import numpy as np

from ..cluster._traversal import farthest_point_order

CONTRADICTED_BY = 0.25  # of the median margin, see `is_contradicted`
TIED = 1e-6  # gains a sample that differ by less are equal but for rounding
MEDOIDS = 0.5  # times the square root of the class's size


def label_margins(operator, columns):
    """Mean cosine of each sample to its own class, minus the largest one to another class.

    Under a label-free kernel a sample with a wrong label is nearer to the class that it is of.
    The sample itself does not count; inf for the only one of its class.
    """
    classes, codes = np.unique(columns, return_inverse=True)
    own = codes[:, None] == np.arange(len(classes))
    squares = np.maximum(operator.diag().astype(np.float64), 0)
    scale = np.divide(1, np.sqrt(squares), out=np.zeros_like(squares), where=squares > 0)
    sums = scale[:, None] * operator.matmul(scale[:, None] * own)
    sums = sums - own * (squares > 0)[:, None]
    means = sums / np.maximum(own.sum(axis=0) - own, 1)
    to_own, to_others = means[own], np.where(own, -np.inf, means).max(axis=1)
    return np.where(own.sum(axis=0)[codes] > 1, to_own - to_others, np.inf)


def is_contradicted(margins):
    """Samples whose margin is negative, by more than a quarter of what is usual.

    By a quarter, since the hardest of the right labels have small negative margins.
    """
    known = margins[np.isfinite(margins)]
    usual = np.median(known) if len(known) else 0
    return margins < -CONTRADICTED_BY * max(usual, 0)


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
