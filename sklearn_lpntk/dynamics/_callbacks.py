"""skorch callbacks that record curves of single samples during an ordinary fit."""

import numpy as np
import torch

from . import _curves
from ._recording import SampleCallback


class LearningDifficulty(SampleCallback):
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
    ``in_order=True`` where there are workers). A ``collate_fn`` must keep their order. Training is
    the same with and without the callback (with an evaluation pass: unless the data set draws from
    a generator of its own). List callbacks that pickle the net (``Checkpoint(f_pickle=...)``), and
    with an evaluation pass those that load the best weights, after this one.

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


class ForgettingEvents(SampleCallback):
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
        1 where the sample was right at its last visit of the epoch (its class has the largest
        logit), 0 where wrong, -1 without one.

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


class EL2N(SampleCallback):
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


class AreaUnderMargin(SampleCallback):
    """Margin of each sample's label over the epochs, and its mean [1]_.

    A low one tells of a wrong label: its logit never leads, since other samples speak for another
    class.

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
    margins_ : ndarray of shape (n_epochs, n_tracked)
        Logit of the label minus the largest other logit, the mean over the visits of the epoch; nan
        without one. A single logit counts as one of class 1 beside a 0 of class 0.
    aum_ : ndarray of shape (n_tracked,)
        Mean over the epochs with a visit.

    See Also
    --------
    TrainingDynamics : All curves at once.

    Notes
    -----
    Warm restarts (``partial_fit``, ``warm_start=True``) go on recording, ``initialize`` begins
    anew. Once a network has learned wrong labels by heart their margins are large, too: the mean
    is meant for the epochs before.

    References
    ----------
    .. [1] Pleiss et al., "Identifying Mislabeled Data using the Area Under the Margin Ranking",
       2020. arXiv:2001.10528

    Examples
    --------
    >>> import torch
    >>> from skorch import NeuralNetClassifier
    >>> from sklearn_lpntk.datasets import load_digit_images
    >>> from sklearn_lpntk.dynamics import AreaUnderMargin
    >>> X, y = load_digit_images()
    >>> net = NeuralNetClassifier(
    ...     torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)),
    ...     criterion=torch.nn.CrossEntropyLoss, max_epochs=3, iterator_train__shuffle=True,
    ...     train_split=None, verbose=0, callbacks=[AreaUnderMargin()],
    ... ).fit(X, y)
    >>> dict(net.callbacks_)["AreaUnderMargin"].aum_.shape
    (1797,)
    """

    def _make_curves(self, n_samples):
        own = {"margins": _curves.MeanCurve(_curves.margins, n_samples)}
        return super()._make_curves(n_samples) | own

    @property
    def margins_(self):
        return _stacked(self._curve("margins"))

    @property
    def aum_(self):
        return _visited_mean(self.margins_)


class TrainingDynamics(LearningDifficulty, ForgettingEvents, EL2N, AreaUnderMargin):
    """All curves of single samples at once: losses, forgetting, EL2N, and margins.

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
    margins_, aum_
        As in :class:`AreaUnderMargin`.

    See Also
    --------
    LearningDifficulty, ForgettingEvents, EL2N, AreaUnderMargin : One of them alone, with
        references.

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
