"""How many repairs are likely wrong: labels of which it is known are made wrong and repaired.

The margins of flips of labels that are wrong follow from planting some. Those of right labels that
are flipped all the same are smaller. What is observed is a mixture of both.
"""

import numpy as np

from ._flips import Labelling

PLANTED_AT_LEAST = 0.05  # of the labels
# by how much a flip of a right label exceeds min_margin, in units of what a planted one does: .22
# to .60 on the clean data of eight sets (see the user guide)
EXCESS_OF_WRONG = 0.4


def wrong_flip_share(labelling, margins, run, min_margin):
    """The share of flips that make a label wrong, or another wrong one; nan without flips.

    Parameters
    ----------
    labelling : Labelling
        With the repaired labels.
    margins : ndarray of shape (n_flips,)
        Of the first decision on each label that was changed.
    run : callable
        ``run(labelling)`` repairs, and returns rows that were changed and their first margins.
    min_margin : float
    """
    if not len(margins):
        return np.nan
    repaired, n_classes = labelling.columns.copy(), len(labelling.counts)
    planted, columns = _planted(repaired, labelling.counts, len(margins))
    again = Labelling(labelling.M, columns, n_classes)
    rows, found = run(again)
    known = planted[rows]
    if not known.any():
        return 1.0
    restored = (again.columns[rows] == repaired[rows])[known].mean()
    least = min_margin if np.isfinite(min_margin) else 0.0
    excess = (margins.mean() - least) / max(found[known].mean() - least, 1e-12)
    of_wrong_labels = np.clip((excess - EXCESS_OF_WRONG) / (1 - EXCESS_OF_WRONG), 0, 1)
    return float(1 - restored * of_wrong_labels)


def _planted(columns, counts, n_flips):
    """As many wrong labels as were repaired, of classes that can spare them."""
    n, n_classes = len(columns), len(counts)
    rng = np.random.default_rng(0)
    size = max(round(PLANTED_AT_LEAST * n), n_flips)
    planted = np.zeros(n, dtype=bool)
    planted[rng.permutation(n)[:size]] = True
    wrong = columns.copy()
    wrong[planted] += rng.integers(1, n_classes, planted.sum())
    wrong %= n_classes
    return planted, wrong
