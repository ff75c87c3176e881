"""How many repairs are likely wrong: labels of which it is known are made wrong and repaired.

The margins of flips of labels that are wrong follow from planting some. Those of right labels that
are flipped all the same are smaller. What is observed is a mixture of both.
"""

import numpy as np

from .._gram import warn
from ._flips import Labelling

PLANTED_AT_LEAST = 0.05  # of the labels
# by how much a flip of a right label exceeds min_margin, in units of what a planted one does: .22
# to .60 on the clean data of eight sets (see the user guide)
EXCESS_OF_WRONG = 0.4
HARMFUL = 0.5  # share of wrong flips
LOW_AGREEMENT = 0.6  # of given labels with predictions, and of labels that stay
FEWEST = 10  # of which a share can be estimated
NO_MATTER = 0.01  # share of all labels that may be changed wrongly without a warning


def wrong_flip_share(labelling, margins, repair, min_margin):
    """The share of flips that make a label wrong, or another wrong one; nan without flips.

    Parameters
    ----------
    labelling : Labelling
        With the repaired labels.
    margins : ndarray of shape (n_flips,)
        Of the first decision on each label that was changed.
    repair : callable
        ``repair(labelling)`` returns `Repairs`.
    min_margin : float
    """
    if not len(margins):
        return np.nan
    repaired, n_classes = labelling.columns.copy(), len(labelling.counts)
    planted, columns = _planted(repaired, labelling.counts, len(margins))
    again = Labelling(labelling.M, columns, n_classes)
    found = repair(again)
    known = planted[found.rows]
    if not known.any():
        return 1.0
    restored = (again.columns == repaired)[found.rows[known]].mean()
    least = min_margin if np.isfinite(min_margin) else 0.0
    excess = (margins.mean() - least) / max(found.first[known].mean() - least, 1e-12)
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


def tell_of_harm(n_flips, n_samples, share, loo_accuracy, lost=None):
    """One line on the changes; a warning where they likely do harm, or no number can tell."""
    told = f"{n_flips:,} of {n_samples:,} labels were changed, about {share:.0%} of these wrongly"
    if n_flips >= FEWEST and share > HARMFUL and share * n_flips > NO_MATTER * n_samples:
        warn(
            f"{told}, by the margins of labels that were made wrong on purpose (leave-one-out "
            f"agrees with {loo_accuracy:.0%} of the given labels): repairing does more harm than "
            "good here. Look at review(X) instead of using labels_, raise min_margin, or take a "
            "kernel that can learn the task."
        )
    elif min(loo_accuracy, 1 - n_flips / n_samples) < LOW_AGREEMENT:
        warn(
            f"Leave-one-out prediction by this kernel agrees with {loo_accuracy:.0%} of the given "
            f"labels, and {n_flips:,} of {n_samples:,} labels were changed. Either most labels are "
            "wrong, or the kernel can't learn the task and repairing does harm: no number tells "
            "which. Look at review(X) before using labels_."
        )
    elif lost is not None:
        label, before, after = lost
        warn(
            f"Of {before:,} labels {label} {after:,} are left. Where classes overlap, kernel "
            "regression prefers the larger one, and no estimate tells that from wrong labels: look "
            "at review(X) before using labels_."
        )
    return told if n_flips else "no label was changed"


def lost_class(given, repaired, classes):
    """(label, labels before, labels after) of a class that loses most of its labels, or None."""
    before, after = (np.bincount(columns, minlength=len(classes)) for columns in (given, repaired))
    lost = before - after
    most = int(np.argmax(lost / np.maximum(before, 1)))
    if lost[most] < FEWEST or lost[most] <= before[most] / 2:
        return None
    return classes[most], int(before[most]), int(after[most])
