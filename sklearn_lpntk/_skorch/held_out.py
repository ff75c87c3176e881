"""Rows that are held out of a training, and one that ends when their loss no longer falls."""

import numpy as np
from sklearn.base import clone
from skorch.callbacks import EarlyStopping
from torch.utils.data import Subset

SHARE = 0.2
PATIENCE = 2  # epochs without a lower loss
NAME = "sklearn_lpntk_stop_early"


def held_out_mask(y, rng):
    """A fifth of each class, and at least one row of a class of two or more."""
    held = np.zeros(len(y), dtype=bool)
    for label in np.unique(y):
        rows = np.flatnonzero(y == label)
        n = max(1, round(SHARE * len(rows))) if len(rows) > 1 else 0
        held[rng.choice(rows, n, replace=False)] = True
    return held


class HeldOut:
    """A ``train_split`` of skorch, drawn from numpy's global generator.

    It leaves no batch of a single row, of which batch normalisation has no variance.
    """

    def __init__(self, batch_size):
        self.batch_size = batch_size

    def __call__(self, dataset, y=None, groups=None):
        held = held_out_mask(np.asarray(y).ravel(), np.random)
        if (~held).sum() % max(self.batch_size, 1) == 1:
            held[np.flatnonzero(held)[0]] = False
        return Subset(dataset, np.flatnonzero(~held)), Subset(dataset, np.flatnonzero(held))


class AllRows:
    """A ``train_split`` that holds nothing out of the training.

    What ``split`` would hold out is still validated, for callbacks that watch it.
    """

    def __init__(self, split):
        self.split = split

    def __call__(self, dataset, y=None, **params):
        _, validated = self.split(dataset, y, **params)
        return dataset, validated


class StopEarly(EarlyStopping):
    """Early stopping, where there is a loss of held-out rows."""

    def on_epoch_end(self, net, **kwargs):
        if "valid_loss" in net.history[-1]:
            super().on_epoch_end(net, **kwargs)

    def on_train_end(self, net, **kwargs):
        if len(net.history):
            super().on_train_end(net, **kwargs)


def stopping_early(net, y):
    """A clone that ends at the least loss of held-out rows; its own, where it holds some out.

    Where none can be, since every class has one row or since the net's loader is made for a fixed
    number of rows, it is trained as it is.
    """
    own = {k: v for k, v in net.get_params(deep=False).items() if k.startswith("iterator_train__")}
    fixed = any(k.endswith("sampler") and v is not None for k, v in own.items())
    if net.train_split is None and (fixed or not held_out_mask(y, np.random.default_rng(0)).any()):
        return net
    net = clone(net)
    callbacks = net.callbacks if isinstance(net.callbacks, list | tuple) else []
    net.callbacks = [*callbacks, (NAME, StopEarly(patience=PATIENCE, load_best=True))]
    if net.train_split is None:
        whole = net.batch_size if net.batch_size > 0 else len(y)
        net.train_split = HeldOut(whole)
    return net


def as_given(fitted, like):
    """A net that was trained in our way, with the split and the callbacks of the given one."""
    fitted.train_split, fitted.callbacks = like.train_split, like.callbacks
    fitted.callbacks_ = [(name, c) for name, c in fitted.callbacks_ if name != NAME]
    return fitted
