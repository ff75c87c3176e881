"""Margins of labels under predictions that do not know them, and how many labels are wrong."""

from dataclasses import dataclass

import numpy as np


def margins_of(scores, columns):
    """Score of each sample's own class, minus the largest one of another class."""
    rows = np.arange(len(columns))
    others = scores.copy()
    others[rows, columns] = -np.inf
    return scores[rows, columns] - others.max(axis=1)


@dataclass(frozen=True)
class WrongLabels:
    """An estimate of how many labels are wrong, from predictions of each sample by all others.

    What margin a wrong label has is told by all labels that were *not* given: nearly all of them
    are wrong. Half of the wrong labels have a margin below the median of these, and few right ones:
    twice the share of given labels below it is the share of wrong ones. It takes wrong labels to be
    any other class, and counts right ones of samples that lie among another class as wrong.

    Attributes
    ----------
    share : float
        Of wrong labels.
    margins : ndarray of shape (n_samples,)
        Of the given labels.
    others : ndarray of shape (n_samples * (n_classes - 1),)
        Of those that were not given, sorted.
    """

    share: float
    margins: np.ndarray
    others: np.ndarray

    @classmethod
    def among(cls, scores, columns):
        """The estimate for labels as columns, by leave-one-out scores (n_samples, n_classes)."""
        n_classes = scores.shape[1]
        margins = margins_of(scores, columns)
        top = np.sort(scores, axis=1)[:, -2:]
        best = np.where(scores == top[:, 1:], top[:, :1], top[:, 1:])  # of the other classes
        given = np.eye(n_classes, dtype=bool)[columns]
        others = np.sort((scores - best)[~given])
        ratio = 2 * (margins <= np.median(others)).mean()
        # of the labels not given to a sample with a wrong one, one is right
        share = min(1.0, float(ratio / (1 + ratio / (n_classes - 1))))
        return cls(share, margins, others)

    @property
    def count(self):
        """The number of labels that are estimated to be wrong."""
        return int(self.share * len(self.margins))

    def least_margin(self):
        """By how much another class must be preferred, so that no more labels are than wrong ones.

        At least 0; the next label in order has just this margin.
        """
        return max(0.0, -float(np.sort(self.margins)[min(self.count, len(self.margins) - 1)]))

    def precision(self, n):
        """Estimated share of wrong labels among the n with the least margins; nan for none."""
        if not n:
            return np.nan
        at = np.sort(self.margins)[n - 1]
        below = np.searchsorted(self.others, at, side="right") / len(self.others)
        return float(min(1.0, self.share * below * len(self.margins) / n))
