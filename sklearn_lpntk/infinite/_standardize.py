"""Whether columns are standardised in front of a kernel: what predicts the given labels better."""

import numpy as np

from .._gram import Factor, gram_of
from .._margins import margins_of
from ._flips import Labelling

TRIED = 2000  # rows by which it is decided


def standardized(X):
    """Columns with mean 0 and variance 1; constant ones 0."""
    X = np.asarray(X, dtype=np.float64)
    mean, deviation = X.mean(axis=0), X.std(axis=0)
    constant = deviation <= 1e-10 * np.abs(mean)  # but for rounding
    return (X - mean) / np.where(constant | (deviation == 0), 1.0, deviation)


def chosen(kernel, X, columns, n_classes, ridge, standardize):
    """X, standardised if that is asked for, or if it helps leave-one-out prediction; and which."""
    if standardize != "auto":
        return (standardized(X) if standardize else X), bool(standardize)
    rows = np.random.default_rng(0).permutation(len(X))[:TRIED]
    scaled = standardized(X)
    margins = [_margin(kernel, Z[rows], columns[rows], n_classes, ridge) for Z in (X, scaled)]
    better = bool(margins[1] > margins[0])
    return (scaled if better else X), better


def _margin(kernel, X, columns, n_classes, ridge):
    """Mean margin of the given labels, from -1 to 1; finer than the accuracy, which noise blurs."""
    M = Factor(gram_of(kernel, X), ridge).inverse()
    margins = margins_of(Labelling(M, columns, n_classes).leave_one_out, columns)
    return np.clip(margins, -1, 1).mean()
