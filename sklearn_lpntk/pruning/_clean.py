"""Labels that the kernel contradicts, and the medoids that coverage begins with."""

import numpy as np

from .._margins import WrongLabels
from ..cluster._traversal import farthest_point_order
from ..linearized._leave_one_out import left_out_predictions

TIED = 1e-6  # gains a sample that differ by less are equal but for rounding
FEWEST = 10  # of which a share can be estimated
FEWEST_OF_CLASS = 3  # contradicted ones, before a class is lost to more than chance
CONSTANT = 1e-10  # spread of features, in units of their size, that is rounding
NO_MATTER = 0.05  # share of right labels among the contradicted ones, without a warning
MEDOIDS = 0.5  # times the square root of the class's size


def left_out_margins(columns, **kernel):
    """By how much a regression on all other samples prefers each label to the best other one.

    Ridge regression of one-hot labels on features that know no labels, centred, with the ridge of
    the least leave-one-out error: negative where it prefers another class. Inf for the only sample
    of a class, of which the others know nothing; 0 where all features are the same.

    Parameters
    ----------
    columns : ndarray of shape (n_samples,)
        Labels.
    **kernel
        ``phi`` or ``K``, as for `left_out_predictions`.

    Returns
    -------
    margins : ndarray of shape (n_samples,)
    wrong : WrongLabels or None
        How many are estimated to be wrong; None where the features tell nothing.
    """
    _, codes, counts = np.unique(columns, return_inverse=True, return_counts=True)
    if _is_constant(**kernel):
        return np.zeros(len(codes)), None
    wrong = WrongLabels.among(left_out_predictions(codes, **kernel), codes)
    return np.where(counts[codes] > 1, wrong.margins, np.inf), wrong


def _is_constant(phi=None, K=None):
    """Whether features do not differ but for rounding."""
    if K is None:
        spread, size = phi.var(axis=0, dtype=np.float64).sum(), (phi**2).sum(1).mean()
    else:
        spread, size = np.trace(K) / len(K) - K.mean(), np.trace(K) / len(K)
    return not spread > CONSTANT * abs(size)


def doubt_of(samples, contradicted, wrong=None):
    """Words where most contradicted labels are right by an estimate, or most of a class are."""
    n, n_contradicted = len(contradicted), int(contradicted.sum())
    told = [] if wrong is None else _of_right_labels(n, n_contradicted, wrong)
    if samples.options["scope"] == "all":
        told += _of_classes(samples.names, contradicted)
    if not told:
        return None
    return (
        f"The other samples contradict {n_contradicted:,} of {n:,} labels "
        f"({n_contradicted / n:.0%}), which go first. {' '.join(told)} Compare with "
        "strategy='herding'."
    )


def _of_right_labels(n, n_contradicted, wrong):
    precision = wrong.precision(n_contradicted)
    n_right = n_contradicted - precision * n_contradicted
    if not (precision < 0.5 and n_right > max(FEWEST, NO_MATTER * n)):
        return []
    return [
        f"About {wrong.share:.1%} of all labels are estimated to be wrong: some {n_right:,.0f} "
        "contradicted ones are right, of samples that are hard to tell."
    ]


def _of_classes(names, contradicted):
    """Of which little is left, since most of their labels are contradicted."""
    classes, codes, counts = np.unique(names, return_inverse=True, return_counts=True)
    of_class = np.bincount(codes[contradicted], minlength=len(counts))
    lost = np.flatnonzero(of_class > np.maximum(counts / 2, FEWEST_OF_CLASS - 1))
    if not len(lost):
        return []
    lost = lost[np.argsort(-of_class[lost] / counts[lost], kind="stable")]
    shown = ", ".join(f"{of_class[k]:,} of {counts[k]:,} of class {classes[k]}" for k in lost[:3])
    more = f" and most of {len(lost) - 3} other classes" if len(lost) > 3 else ""
    return [
        f"Among them are {shown}{more}: where classes overlap, a regression prefers the larger "
        "one, and little is left of the smaller. With scope='class' each class loses its share "
        "only."
    ]


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
