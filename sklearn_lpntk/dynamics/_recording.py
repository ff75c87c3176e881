"""The base of callbacks that follow single samples through an ordinary skorch fit."""

import warnings
from contextlib import contextmanager

import numpy as np
import torch
from sklearn.exceptions import NotFittedError
from skorch.callbacks import Callback
from skorch.dataset import unpack_data
from torch import nn
from torch.utils.data import Subset

from .._engine.cotangents import require_columns
from .._runtime.turns import random_state_kept
from .._skorch.batches import FollowedBatches, follow_batches
from .._skorch.networks import require_classifier
from . import _curves


class SampleCallback(Callback):
    """Follows the samples of a fit, and hands their logits to the curves of `_make_curves`."""

    def __init__(self, *, sample_indices=None, evaluation_pass=False):
        self.sample_indices = sample_indices
        self.evaluation_pass = evaluation_pass

    def _make_curves(self, n_samples):
        return {}

    # -- skorch's hooks -------------------------------------------------------------------

    def initialize(self):
        for name in [n for n in vars(self) if n.endswith("_")]:
            delattr(self, name)
        return self

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        require_classifier(net)
        self.batches_, self.max_epochs_ = follow_batches(net, X), net.max_epochs

    def on_epoch_begin(self, net, **kwargs):
        self.batches_.settle(net)
        n_samples = self.batches_.n_samples
        if not hasattr(self, "curves_"):
            self.tracked_ = _tracked_rows(self.sample_indices, n_samples)
            self.n_samples_ = n_samples
            self.position_ = torch.full((n_samples,), -1)
            self.position_[self.tracked_] = torch.arange(len(self.tracked_))
            self.curves_ = _curves.Curves(self._make_curves(len(self.tracked_)))
        if n_samples != self.n_samples_:
            raise ValueError(
                f"{type(self).__name__} tracks {self.n_samples_} samples, and training goes on "
                f"with {n_samples}. Continue with the data that it began with, or call "
                "net.initialize() to begin anew."
            )
        self.curves_.begin_epoch()
        self.batches_.begin_epoch()

    def on_batch_end(self, net, batch=None, training=None, *, y_pred=None, **kwargs):
        if not training:
            return
        rows = self.batches_.next()
        if self.evaluation_pass:
            self.trained_ = _versions(net)
        else:
            y = _labels(batch)
            self.batches_.check(rows, y)
            self._add(rows, y, y_pred)

    def on_epoch_end(self, net, **kwargs):
        if self.evaluation_pass:
            self.curves_.is_open = False  # a pass that is interrupted is not begun again
            self._evaluate(net)
        self.curves_.end_epoch()

    def on_train_end(self, net, **kwargs):
        if hasattr(self, "curves_") and self.curves_.is_open and _is_complete(net):
            self._catch_up(net)
        self.batches_.leave(net)
        self.batches_.end()
        del self.batches_  # it holds the data

    def _catch_up(self, net):
        """The end of an epoch in which another callback stopped the training before our turn."""
        if self.evaluation_pass and self.trained_ != _versions(net):
            warnings.warn(
                f"The weights were changed after the last epoch, before {type(self).__name__} "
                "could evaluate it; its row is left without values. List callbacks that load the "
                "best weights (EarlyStopping, Checkpoint) after this one.",
                stacklevel=2,
            )
            self.curves_.end_epoch()
        else:
            self.on_epoch_end(net)

    # -- the samples of a batch -----------------------------------------------------------

    def _add(self, rows, y, y_pred):
        logits, y = _logits_and_columns(y_pred, y, len(rows))
        positions = self.position_[torch.from_numpy(rows)]
        if len(self.tracked_) < self.n_samples_:
            hit = torch.nonzero(positions >= 0)[:, 0]
            if not len(hit):
                return
            positions, hit = positions[hit], hit.to(logits.device)
            logits, y = logits[hit], y[hit]
        self.curves_.add(positions, logits, y)

    def _evaluate(self, net):
        subset = Subset(self.batches_.dataset, self.tracked_.tolist())
        devices = [torch.device(net.device)] if str(net.device).startswith("cuda") else []
        # a loader draws a seed, and data sets may draw more
        with random_state_kept(devices), _modes_kept(net):
            loader, followed = net.get_iterator(subset, training=False), FollowedBatches(subset)
            followed.attach(loader)
            if followed.dataset is not subset:
                raise ValueError(
                    "The evaluation pass needs a loader over the data set that iterator_valid is "
                    f"given; it is over a {type(followed.dataset).__name__} of its own."
                )
            with _generator_kept(loader):
                for batch in loader:
                    y_pred = net.evaluation_step(batch, training=False)
                    self._add(self.tracked_[followed.next()], _labels(batch), y_pred)
            followed.end()

    def _curve(self, name):
        curves = self.curves_.by_name if hasattr(self, "curves_") else {}
        if name not in curves or not curves[name].epochs:
            raise NotFittedError(
                f"This {type(self).__name__} has recorded no epoch yet; put it into the net's "
                "callbacks= and fit the net. (The recorded one is in net.callbacks_.)"
            )
        return curves[name]


def _is_complete(net):
    """Whether all training batches of the last epoch were seen."""
    return len(net.history) > 0 and "train_batch_count" in net.history[-1]


def _tracked_rows(sample_indices, n_samples):
    if sample_indices is None:
        return np.arange(n_samples)
    rows = np.array(sample_indices)
    if rows.dtype == bool and rows.shape == (n_samples,):
        rows = np.flatnonzero(rows)
    integers = rows.ndim == 1 and len(rows) and rows.dtype.kind in "iu"
    if not integers or rows.min() < 0 or rows.max() >= n_samples or len(set(rows)) < len(rows):
        raise ValueError(
            f"sample_indices must be unique rows of the training data, from 0 to {n_samples - 1}, "
            f"or a boolean mask of {n_samples} rows with one True or more; got {rows!r:.80}."
        )
    return rows.astype(np.int64)


def _labels(batch):
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise ValueError(
            "The curves of samples need batches of (X, y); the loader hands out a "
            f"{type(batch).__name__} of {len(batch)}."
        )
    return torch.as_tensor(unpack_data(batch)[1])


def _logits_and_columns(y_pred, y, n):
    """Logits (n, K), K at least 2, and labels as columns."""
    logits = y_pred[0] if isinstance(y_pred, tuple | list) else y_pred
    shape = tuple(getattr(logits, "shape", ()))
    if not isinstance(logits, torch.Tensor) or len(shape) not in (1, 2) or shape[0] != n:
        raise ValueError(
            f"The module must return logits of shape (n_samples, n_logits) or (n_samples,); for a "
            f"batch of {n} samples it returned a {type(logits).__name__} of shape {shape}."
        )
    logits = logits.detach().clone()  # who comes later may write into it
    logits = logits[:, None] if logits.ndim == 1 else logits
    y = _columns(y.to(logits.device), n, logits.shape[1])
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], 1)
    return logits, y


def _columns(y, n, n_logits):
    """Labels (n,) as columns of the logits."""
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.shape != (n,):
        raise ValueError(
            f"The curves of samples need one class label each; y has shape {tuple(y.shape)} for a "
            f"batch of {n} samples."
        )
    if y.is_floating_point() and (y != y.round()).any():
        raise ValueError(
            "The curves of samples need one class label each; y holds fractions, as "
            f"{y[y != y.round()][0].item():.3g}."
        )
    y = y.long()
    require_columns(y, n_logits)
    return y


def _versions(net):
    """Changes whenever a parameter or a buffer of the module was written or replaced."""
    tensors = [*net.module_.parameters(), *net.module_.buffers()]
    return [(id(t), t._version) for t in tensors]


@contextmanager
def _modes_kept(net):
    """All modules of the net come back in the modes that they were in."""
    own = [value for value in vars(net).values() if isinstance(value, nn.Module)]
    modes = [(module, module.training) for part in own for module in part.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _generator_kept(loader):
    """The loader's own generator, if any, comes back."""
    state = None if loader.generator is None else loader.generator.get_state()
    try:
        yield
    finally:
        if state is not None:
            loader.generator.set_state(state)
