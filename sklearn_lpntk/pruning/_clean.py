"""Labels that the kernel contradicts, and the medoids that coverage begins with."""

import warnings

import numpy as np

from .._margins import WrongLabels
from ..cluster._traversal import farthest_point_order
from ..linearized._leave_one_out import left_out_predictions

TIED = 1e-6  # gains a sample that differ by less are equal but for rounding
FEWEST = 10  # of which a share can be estimated
NO_MATTER = 0.05  # share of right labels among the contradicted ones, without a warning
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
    wrong = WrongLabels.among(left_out_predictions(codes, **kernel), codes)
    margins = np.where(counts[codes] > 1, wrong.margins, np.inf)
    _warn_of_right_ones(wrong, int((margins < 0).sum()))
    return margins


def _warn_of_right_ones(wrong, n_contradicted):
    """Warn where most contradicted labels are right by the estimate, and they are many."""
    n, precision = len(wrong.margins), wrong.precision(n_contradicted)
    n_right = n_contradicted - precision * n_contradicted
    if precision < 0.5 and n_right > max(FEWEST, NO_MATTER * n):
        warnings.warn(
            f"The other samples contradict {n_contradicted:,} of {n:,} labels "
            f"({n_contradicted / n:.0%}), and about {wrong.share:.1%} of all labels are estimated "
            f"to be wrong: some {n_right:,.0f} contradicted ones are right, of samples that are "
            "hard to tell, and go first all the same. Compare with strategy='herding', or "
            "strategy='auto', which tries both.",
            UserWarning,
            stacklevel=2,
        )


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
