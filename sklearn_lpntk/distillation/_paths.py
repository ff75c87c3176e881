"""The path of each sample's predicted distribution during training."""

from numbers import Integral

import numpy as np
import torch

from ..dynamics._recording import SampleCallback
from ._growing import InFile, InMemory

DTYPES = {"float16": torch.float16, "float32": torch.float32}


class LearningPaths(SampleCallback):
    """Predicted distribution of each training sample over the epochs: its learning path [1]_.

    Samples that are hard, since their label is unlikely, move first towards what their neighbours
    say, and only then to their own label: a zig-zag, whose first part knows better than the label.

    Parameters
    ----------
    every : "epoch" or int, default="epoch"
        Record every k-th epoch, from the first.
    dtype : {"float32", "float16"}, default="float32"
        In which probabilities are kept: ``n_epochs * n_tracked * n_classes`` of them.
    store : str or Path, default=None
        An ``.npy`` file that they are kept in, in place of memory. It must not exist.
    sample_indices : array of int or bool, default=None
        The rows of X to be tracked, unique; the arrays below are in this order. None means all.
    evaluation_pass : bool, default=False
        False records the forward passes of the training itself: in training mode, each sample
        under the weights that it met; a row of the validation split is never visited. True
        evaluates all tracked rows in evaluation mode after each epoch, for one more forward pass.

    Attributes
    ----------
    proba_ : ndarray of shape (n_epochs, n_tracked, n_classes)
        Softmax of the logits, the mean over the visits of the epoch; nan without one. Read-only.
    epochs_ : ndarray of shape (n_epochs,), int
        The epochs that were recorded, from 0.
    labels_ : ndarray of shape (n_tracked,), int
        Columns of the labels; -1 for a sample that was never visited.

    See Also
    --------
    sklearn_lpntk.dynamics.TrainingDynamics : Losses, forgetting and margins alone.

    Notes
    -----
    Warm restarts (``partial_fit``, ``warm_start=True``) go on recording, ``initialize`` begins
    anew. A single logit counts as one of class 1 beside a 0 of class 0.

    References
    ----------
    .. [1] Ren, Guo and Sutherland, "Better Supervisory Signals by Observing Learning Paths", 2022.
       arXiv:2203.02485

    Examples
    --------
    >>> import torch
    >>> from skorch import NeuralNetClassifier
    >>> from sklearn_lpntk.datasets import load_digit_images
    >>> from sklearn_lpntk.distillation import LearningPaths
    >>> X, y = load_digit_images()
    >>> net = NeuralNetClassifier(
    ...     torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)),
    ...     criterion=torch.nn.CrossEntropyLoss, max_epochs=3, iterator_train__shuffle=True,
    ...     train_split=None, verbose=0, callbacks=[LearningPaths()],
    ... ).fit(X, y)
    >>> paths = dict(net.callbacks_)["LearningPaths"]
    >>> paths.proba_.shape, paths.zigzag().shape
    ((3, 1797, 10), (1797,))
    """

    def __init__(
        self,
        every="epoch",
        dtype="float32",
        *,
        store=None,
        sample_indices=None,
        evaluation_pass=False,
    ):
        super().__init__(sample_indices=sample_indices, evaluation_pass=evaluation_pass)
        self.every = every
        self.dtype = dtype
        self.store = store

    def _make_curves(self, n_samples):
        whole = isinstance(self.every, Integral) and not isinstance(self.every, bool)
        if self.every != "epoch" and not (whole and self.every >= 1):
            raise ValueError(
                f"every must be 'epoch' or a number of epochs of at least 1; got {self.every!r}."
            )
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {list(DTYPES)}; got {self.dtype!r}.")
        every = 1 if self.every == "epoch" else self.every
        expected = -(-self.max_epochs_ // every)
        rows = InMemory(expected) if self.store is None else InFile(self.store)
        own = {"proba": _PathCurve(n_samples, every, DTYPES[self.dtype], rows)}
        return super()._make_curves(n_samples) | own

    @property
    def proba_(self):
        return self._curve("proba").rows.array

    @property
    def epochs_(self):
        return np.array(self._curve("proba").epochs)

    @property
    def labels_(self):
        return self._curve("proba").labels.numpy()

    def base_difficulty(self, p_true):
        """How far each label is from the true distribution.

        Parameters
        ----------
        p_true : array-like of shape (n_tracked, n_classes)
            The true probabilities of the classes.

        Returns
        -------
        difficulty : ndarray of shape (n_tracked,)
            ``|e_y - p|``, from 0 to sqrt(2); nan for a sample that was never visited.
        """
        labels, p_true = self.labels_, self._as_distributions(p_true)
        difference = -p_true
        difference[np.arange(len(labels)), labels] += 1
        return np.where(labels >= 0, np.linalg.norm(difference, axis=1), np.nan)

    def distance(self, p):
        """How far the paths are from a distribution of each sample, as the true one.

        Parameters
        ----------
        p : array-like of shape (n_tracked, n_classes)
            Probabilities of the classes.

        Returns
        -------
        distance : ndarray of shape (n_epochs, n_tracked)
            ``|q - p|``; nan in epochs without a visit.
        """
        p = self._as_distributions(p)
        return np.stack([np.linalg.norm(q - p, axis=1) for q in self.proba_])

    def integral_difficulty(self):
        """How unlikely each label was, in the mean over training.

        Returns
        -------
        difficulty : ndarray of shape (n_tracked,)
            ``1 - mean_t q_t(y)``, over the epochs with a visit; nan for a sample without one.
        """
        own = np.maximum(self.labels_, 0)[:, None]
        values = np.stack([np.take_along_axis(q, own, 1)[:, 0] for q in self.proba_])
        visits = (~np.isnan(values)).sum(0)
        total = np.nansum(values, 0, dtype=np.float64)
        return 1 - np.divide(total, visits, out=np.full(len(own), np.nan), where=visits > 0)

    def zigzag(self):
        """How much longer each path is than the way from its start to its end.

        Returns
        -------
        excess : ndarray of shape (n_tracked,)
            Euclidean; 0 for a straight path, nan for a sample that was never visited.
        """
        first, last, length = None, None, 0.0
        for q, visited in self._visits():
            if first is None:
                first, last, length = q.copy(), q.copy(), np.zeros(len(q))
                continue
            step = np.linalg.norm(q - last, axis=1)
            length += np.where(np.isnan(step), 0, step)
            first = np.where(np.isnan(first), q, first)
            last = np.where(visited[:, None], q, last)
        return length - np.linalg.norm(last - first, axis=1)

    def filtered(self, smoothing="auto", *, bias_correction=True):
        """Moving averages of the paths: soft labels that forget the end of the zig-zag slowly.

        Parameters
        ----------
        smoothing : float in (0, 1] or "auto", default="auto"
            Weight of a new prediction, ``q <- (1 - a) q + a p``; "auto" is 4 divided by the number
            of epochs, at most 1.
        bias_correction : bool, default=True
            Divide by ``1 - (1 - a)^n`` after n visits, since averages begin at 0.

        Returns
        -------
        soft_labels : ndarray of shape (n_tracked, n_classes)
            nan for a sample that was never visited.
        """
        a = min(1.0, 4 / len(self.epochs_)) if smoothing == "auto" else smoothing
        if isinstance(a, str) or not 0 < a <= 1:
            raise ValueError(f"smoothing must be 'auto', or above 0 and at most 1; got {a!r}.")
        mean, weight = np.zeros(self.proba_.shape[1:]), np.zeros(self.proba_.shape[1])
        for q, visited in self._visits():
            mean[visited] += a * (q[visited] - mean[visited])
            weight[visited] += a * (1 - weight[visited])
        if not bias_correction:
            weight = np.where(weight > 0, 1.0, 0.0)
        return np.divide(
            mean, weight[:, None], out=np.full(mean.shape, np.nan), where=weight[:, None] > 0
        )

    def _visits(self):
        """(probabilities, which samples were visited) of each epoch, in double precision."""
        for q in self.proba_:
            yield q.astype(np.float64), ~np.isnan(q[:, 0])

    def _as_distributions(self, p):
        p, shape = np.array(p, dtype=np.float64), self.proba_.shape[1:]
        sums = p.shape == shape and np.isfinite(p).all() and (p >= 0).all()
        if not sums or not np.allclose(p.sum(1), 1, atol=1e-3):
            raise ValueError(
                f"Distributions of the samples must have shape {shape}, no negative entry, and "
                f"rows that sum to 1; got shape {p.shape}."
            )
        return p


class _PathCurve:
    """Mean probabilities over the visits of each k-th epoch; nan in epochs without one."""

    def __init__(self, n_samples, every, dtype, rows):
        self.n_samples, self.every, self.dtype, self.rows = n_samples, every, dtype, rows
        self.epochs, self._count, self._n_classes = [], 0, None
        self.labels = torch.full((n_samples,), -1)

    @property
    def _is_recorded(self):
        return self._count % self.every == 0

    def begin_epoch(self, device):
        self._sum, self._visits = None, torch.zeros(self.n_samples, device=device)

    def update(self, positions, log_proba, y, is_right):
        if not self._is_recorded:
            return
        proba = log_proba.exp()
        if self._sum is None:
            self._n_classes = proba.shape[1]
            self._sum = proba.new_zeros(self.n_samples, self._n_classes)
        self._sum.index_add_(0, positions, proba)
        self._visits.index_add_(0, positions, torch.ones_like(proba[:, 0]))
        self.labels[positions.cpu()] = y.cpu()

    def end_epoch(self):
        if self._is_recorded:
            self.rows.append(self._mean().to(self.dtype).cpu().numpy())
            self.epochs.append(self._count)
        self._count += 1
        del self._sum, self._visits

    def _mean(self):
        if self._n_classes is None:
            raise ValueError(
                "None of the tracked samples was visited in the first epoch, so that they have no "
                "paths: choose sample_indices among the rows that the net trains on."
            )
        if self._sum is None:
            return torch.full((self.n_samples, self._n_classes), torch.nan)
        return self._sum / self._visits[:, None]
