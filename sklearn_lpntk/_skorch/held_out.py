"""Rows that are held out of a training, and one that ends when their loss no longer falls."""

import numpy as np
from sklearn.base import clone
from skorch.callbacks import EarlyStopping
from torch.utils.data import Subset

SHARE = 0.2
PATIENCE = 2  # epochs without a lower loss


def held_out_mask(y, rng):
    """A fifth of each class, and at least one row of a class of two or more."""
    held = np.zeros(len(y), dtype=bool)
    for label in np.unique(y):
        rows = np.flatnonzero(y == label)
        n = max(1, round(SHARE * len(rows))) if len(rows) > 1 else 0
        held[rng.choice(rows, n, replace=False)] = True
    return held


def held_out_split(dataset, y=None, groups=None):
    """A ``train_split`` of skorch, drawn from numpy's global generator."""
    held = held_out_mask(np.asarray(y).ravel(), np.random)
    return Subset(dataset, np.flatnonzero(~held)), Subset(dataset, np.flatnonzero(held))


def stopping_early(net):
    """A clone that ends at the least loss of held-out rows; its own, where it holds some out."""
    net = clone(net)
    if net.callbacks == "disable":
        return net
    stop = EarlyStopping(patience=PATIENCE, load_best=True)
    net.callbacks = [*(net.callbacks or []), ("stop_early", stop)]
    if net.train_split is None:
        net.train_split = held_out_split
    return net
