"""skorch callbacks that record curves of single samples during an ordinary fit."""

import numpy as np
import torch
from sklearn.exceptions import NotFittedError
from skorch.callbacks import Callback
from skorch.dataset import unpack_data
from torch import nn
from torch.utils.data import Subset

from .._batches import FollowedBatches, follow_batches
from .._engine.cotangents import require_columns
from .._engine.session import random_state_kept
from .._nets import require_logits
from . import _curves


class _SampleCallback(Callback):
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
        require_logits(net)
        self.batches_ = follow_batches(net, X)

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

    def on_batch_end(self, net, batch=None, training=None, *, y_pred=None, **kwargs):
        if not training:
            return
        rows = self.batches_.next()
        if not self.evaluation_pass:
            self._add(rows, batch, y_pred)

    def on_epoch_end(self, net, **kwargs):
        if self.evaluation_pass:
            self._evaluate(net)
        self.curves_.end_epoch()

    def on_train_end(self, net, **kwargs):
        if hasattr(self, "curves_") and self.curves_.is_open and _is_complete(net):
            self.on_epoch_end(net)  # another callback stopped the training before our turn
        self.batches_.end()
        del self.batches_  # it holds the data

    # -- the samples of a batch -----------------------------------------------------------

    def _add(self, rows, batch, y_pred):
        logits, y = _logits_and_columns(y_pred, unpack_data(batch)[1], len(rows))
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
        own = [value for value in vars(net).values() if isinstance(value, nn.Module)]
        modes = [(module, module.training) for part in own for module in part.modules()]
        with random_state_kept(devices):  # a loader draws a seed, and data sets may draw more
            loader, followed = net.get_iterator(subset, training=False), FollowedBatches(subset)
            state = None if loader.generator is None else loader.generator.get_state()
            followed.attach(loader)
            for batch in loader:
                y_pred = net.evaluation_step(batch, training=False)
                self._add(self.tracked_[followed.next()], batch, y_pred)
            followed.end()
            if state is not None:
                loader.generator.set_state(state)
        for module, training in modes:
            module.training = training

    def _curve(self, name):
        curves = self.curves_.by_name if hasattr(self, "curves_") else {}
        if name not in curves or not curves[name].epochs:
            raise NotFittedError(
                f"This {type(self).__name__} has recorded no epoch yet; put it into the net's "
                "callbacks= and fit the net. (The recorded one is in net.callbacks_.)"
            )
        return curves[name]


class LearningDifficulty(_SampleCallback):
    """Loss of each sample over the epochs, and the area under it: its difficulty.

    The learning difficulty of a sample is the integral of its loss over training [1]_, [2]_: large
    where it is learned late, or never.

    Parameters
    ----------
    sample_indices : array of int or bool, default=None
        The rows of X to be tracked, unique; the arrays below are in this order. None means all.
    evaluation_pass : bool, default=False
        False records the forward passes of the training itself: in training mode, each sample
        under the weights that it met; a row of the validation split is never visited. True
        evaluates all tracked rows in evaluation mode after each epoch, for one more forward pass.

    Attributes
    ----------
    losses_ : ndarray of shape (n_epochs, n_tracked)
        Cross-entropy in nats, the mean over the visits of the epoch; nan without one. Class
        weights and label smoothing of the criterion do not enter.
    difficulty_ : ndarray of shape (n_tracked,)
        Sum of the losses over the epochs; an epoch without a visit counts as the mean of the
        others. nan for a sample that was never visited.

    See Also
    --------
    TrainingDynamics : All curves at once.
    difficulty_correlation : Difficulty in subsets of different size.

    Notes
    -----
    Warm restarts (``partial_fit``, ``warm_start=True``) go on recording, ``initialize`` begins
    anew. The samples may be shuffled, drawn with replacement, or loaded by workers: they are
    followed through the batch sampler of the training loader, over a data set with indices (with
    ``in_order=True`` where there are workers). Training is the same with and without the callback.
    List a callback that pickles the net (``Checkpoint(f_pickle=...)``) after this one.

    References
    ----------
    .. [1] Jiang et al., "Characterizing Structural Regularities of Labeled Data in
       Overparameterized Models", 2021. arXiv:2002.03206
    .. [2] "lpNTK: Better Generalisation with Less Data via Sample Interaction During
       Learning", section 3.2. arXiv:2401.08808

    Examples
    --------
    >>> import torch
    >>> from skorch import NeuralNetClassifier
    >>> from sklearn_lpntk.datasets import load_digit_images
    >>> from sklearn_lpntk.dynamics import LearningDifficulty
    >>> X, y = load_digit_images()
    >>> net = NeuralNetClassifier(
    ...     torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)),
    ...     criterion=torch.nn.CrossEntropyLoss, max_epochs=3, iterator_train__shuffle=True,
    ...     train_split=None, verbose=0, callbacks=[LearningDifficulty()],
    ... ).fit(X, y)
    >>> recorded = dict(net.callbacks_)["LearningDifficulty"]
    >>> recorded.losses_.shape
    (3, 1797)
    """

    def _make_curves(self, n_samples):
        own = {"losses": _curves.MeanCurve(_curves.losses, n_samples)}
        return super()._make_curves(n_samples) | own

    @property
    def losses_(self):
        return _stacked(self._curve("losses"))

    @property
    def difficulty_(self):
        return _visited_mean(self.losses_) * len(self.losses_)


class ForgettingEvents(_SampleCallback):
    """How often each sample was forgotten: right at one visit, wrong at the next [1]_.

    Parameters
    ----------
    sample_indices : array of int or bool, default=None
        The rows of X to be tracked, unique; the arrays below are in this order. None means all.
    evaluation_pass : bool, default=False
        False records the forward passes of the training itself: in training mode, each sample
        under the weights that it met; a row of the validation split is never visited. True
        evaluates all tracked rows in evaluation mode after each epoch, for one more forward pass.

    Attributes
    ----------
    forgetting_counts_ : ndarray of shape (n_tracked,), int
        Number of events; 0 for a sample that was never right, see ``never_learned_``.
    first_learned_ : ndarray of shape (n_tracked,), int
        The first epoch, from 0, that ended with the sample right at its last visit; -1 if none.
    never_learned_ : ndarray of shape (n_tracked,), bool
        Samples that were visited, and right at the last visit of no epoch.
    correct_ : ndarray of shape (n_epochs, n_tracked), int8
        1 where the sample was right at its last visit of the epoch, 0 where wrong, -1 without one.

    See Also
    --------
    TrainingDynamics : All curves at once.
    predict_forgetting : Predicts the events before they happen.

    Notes
    -----
    Warm restarts (``partial_fit``, ``warm_start=True``) go on recording, ``initialize`` begins
    anew.

    References
    ----------
    .. [1] Toneva et al., "An Empirical Study of Example Forgetting during Deep Neural Network
       Learning", 2018. arXiv:1812.05159

    Examples
    --------
    >>> import torch
    >>> from skorch import NeuralNetClassifier
    >>> from sklearn_lpntk.datasets import load_digit_images
    >>> from sklearn_lpntk.dynamics import ForgettingEvents
    >>> X, y = load_digit_images()
    >>> net = NeuralNetClassifier(
    ...     torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)),
    ...     criterion=torch.nn.CrossEntropyLoss, max_epochs=3, iterator_train__shuffle=True,
    ...     train_split=None, verbose=0, callbacks=[ForgettingEvents()],
    ... ).fit(X, y)
    >>> dict(net.callbacks_)["ForgettingEvents"].forgetting_counts_.shape
    (1797,)
    """

    def _make_curves(self, n_samples):
        own = {"learned": _curves.LearnedCurve(n_samples)}
        return super()._make_curves(n_samples) | own

    @property
    def correct_(self):
        return _stacked(self._curve("learned"))

    @property
    def forgetting_counts_(self):
        return self._curve("learned").counts.cpu().numpy()

    @property
    def first_learned_(self):
        right = self.correct_ == 1
        return np.where(right.any(axis=0), right.argmax(axis=0), -1)

    @property
    def never_learned_(self):
        visited = (self.correct_ >= 0).any(axis=0)
        return visited & (self.first_learned_ < 0)


class EL2N(_SampleCallback):
    """Norm of the error vector of each sample over the epochs [1]_.

    Parameters
    ----------
    sample_indices : array of int or bool, default=None
        The rows of X to be tracked, unique; the arrays below are in this order. None means all.
    evaluation_pass : bool, default=False
        False records the forward passes of the training itself: in training mode, each sample
        under the weights that it met; a row of the validation split is never visited. True
        evaluates all tracked rows in evaluation mode after each epoch, for one more forward pass.

    Attributes
    ----------
    error_norms_ : ndarray of shape (n_epochs, n_tracked)
        ``|softmax(z) - e_y|``, from 0 to sqrt(2), the mean over the visits of the epoch; nan
        without one.
    el2n_ : ndarray of shape (n_tracked,)
        Mean over the epochs with a visit. The score is meant for the first epochs: train for a
        few, or average the first rows of ``error_norms_``.

    See Also
    --------
    TrainingDynamics : All curves at once.

    Notes
    -----
    Warm restarts (``partial_fit``, ``warm_start=True``) go on recording, ``initialize`` begins
    anew.

    References
    ----------
    .. [1] Paul, Ganguli and Dziugaite, "Deep Learning on a Data Diet: Finding Important Examples
       Early in Training", 2021. arXiv:2107.07075

    Examples
    --------
    >>> import torch
    >>> from skorch import NeuralNetClassifier
    >>> from sklearn_lpntk.datasets import load_digit_images
    >>> from sklearn_lpntk.dynamics import EL2N
    >>> X, y = load_digit_images()
    >>> net = NeuralNetClassifier(
    ...     torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)),
    ...     criterion=torch.nn.CrossEntropyLoss, max_epochs=3, iterator_train__shuffle=True,
    ...     train_split=None, verbose=0, callbacks=[EL2N()],
    ... ).fit(X, y)
    >>> dict(net.callbacks_)["EL2N"].el2n_.shape
    (1797,)
    """

    def _make_curves(self, n_samples):
        own = {"error_norms": _curves.MeanCurve(_curves.error_norms, n_samples)}
        return super()._make_curves(n_samples) | own

    @property
    def error_norms_(self):
        return _stacked(self._curve("error_norms"))

    @property
    def el2n_(self):
        return _visited_mean(self.error_norms_)


class TrainingDynamics(LearningDifficulty, ForgettingEvents, EL2N):
    """All curves of single samples at once: losses, forgetting, and EL2N.

    Parameters
    ----------
    sample_indices : array of int or bool, default=None
        The rows of X to be tracked, unique; the arrays below are in this order. None means all.
    evaluation_pass : bool, default=False
        False records the forward passes of the training itself: in training mode, each sample
        under the weights that it met; a row of the validation split is never visited. True
        evaluates all tracked rows in evaluation mode after each epoch, for one more forward pass.

    Attributes
    ----------
    losses_, difficulty_
        As in :class:`LearningDifficulty`.
    correct_, forgetting_counts_, first_learned_, never_learned_
        As in :class:`ForgettingEvents`.
    error_norms_, el2n_
        As in :class:`EL2N`.

    See Also
    --------
    LearningDifficulty, ForgettingEvents, EL2N : One of them alone, with references.

    Notes
    -----
    Warm restarts (``partial_fit``, ``warm_start=True``) go on recording, ``initialize`` begins
    anew.

    Examples
    --------
    >>> import torch
    >>> from skorch import NeuralNetClassifier
    >>> from sklearn_lpntk.datasets import load_digit_images
    >>> from sklearn_lpntk.dynamics import TrainingDynamics
    >>> X, y = load_digit_images()
    >>> net = NeuralNetClassifier(
    ...     torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)),
    ...     criterion=torch.nn.CrossEntropyLoss, max_epochs=3, iterator_train__shuffle=True,
    ...     train_split=None, verbose=0, callbacks=[TrainingDynamics(sample_indices=[3, 5, 8])],
    ... ).fit(X, y)
    >>> recorded = dict(net.callbacks_)["TrainingDynamics"]
    >>> recorded.losses_.shape, recorded.forgetting_counts_.shape
    ((3, 3), (3,))
    """


def _is_complete(net):
    """Whether all training batches of the last epoch were seen."""
    return len(net.history) > 0 and "train_batch_count" in net.history[-1]


def _tracked_rows(sample_indices, n_samples):
    if sample_indices is None:
        return np.arange(n_samples)
    rows = np.asarray(sample_indices)
    if rows.dtype == bool and rows.shape == (n_samples,):
        rows = np.flatnonzero(rows)
    integers = rows.ndim == 1 and len(rows) and rows.dtype.kind in "iu"
    if not integers or rows.min() < 0 or rows.max() >= n_samples or len(set(rows)) < len(rows):
        raise ValueError(
            f"sample_indices must be unique rows of the training data, from 0 to {n_samples - 1}, "
            f"or a boolean mask of {n_samples} rows with one True or more; got {rows!r:.80}."
        )
    return rows


def _logits_and_columns(y_pred, y, n):
    """Logits (n, K), K at least 2, and labels as columns."""
    logits = y_pred[0] if isinstance(y_pred, tuple) else y_pred
    logits = logits.detach().clone()  # who comes later may write into it
    logits = logits[:, None] if logits.ndim == 1 else logits
    if logits.ndim != 2 or len(logits) != n:
        raise ValueError(
            f"The module must return logits of shape (n_samples, n_logits) or (n_samples,); for a "
            f"batch of {n} samples it returned shape {tuple(logits.shape)}."
        )
    y = torch.as_tensor(y, device=logits.device)
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.shape != (n,):
        raise ValueError(
            f"The curves of samples need one class label each; y has shape {tuple(y.shape)} for a "
            f"batch of {n} samples."
        )
    y = y.long()
    require_columns(y, logits.shape[1])
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], 1)
    return logits, y


def _stacked(curve):
    return torch.stack(curve.epochs).numpy()


def _visited_mean(values):
    """Mean over the epochs with a visit; nan where there is none."""
    visits = (~np.isnan(values)).sum(axis=0)
    return np.divide(
        np.nansum(values, axis=0),
        visits,
        out=np.full(values.shape[1], np.nan, dtype=values.dtype),
        where=visits > 0,
    )
