"""The kernel as a picture: a block of cosines, and their histogram."""

import numpy as np
from sklearn.utils import check_random_state

from .._samples.datasets import loaded
from .._samples.given import rows_of
from .._skorch.scoring import as_scored
from ..kernels import empirical_ntk
from ._drawing import BLUE, GREY, VERMILION, class_ticks, grid_for, legend_below, vector


class RelationsDisplay:
    """Cosines of labelled samples, ordered by class and cluster, and their histogram.

    Acute angles are interchangeable samples, right ones unrelated, obtuse ones contradictory.

    Parameters
    ----------
    cosines : ndarray of shape (n_samples, n_samples)
        In the order in which they are drawn.
    y : ndarray of shape (n_samples,)
        Classes, in that order.

    Attributes
    ----------
    axes_ : ndarray of shape (2,) of matplotlib Axes
        The block and the histogram.
    figure_ : matplotlib Figure

    See Also
    --------
    sklearn_lpntk.kernels.sample_relations : Counts the partners of each kind exactly.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> import torch
    >>> from sklearn_lpntk.inspection import RelationsDisplay
    >>> _ = torch.manual_seed(0)
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> X, y = torch.randn(60, 4), torch.arange(60) % 3
    >>> display = RelationsDisplay.from_estimator(net, X, y)
    >>> display.cosines.shape
    (60, 60)
    """

    def __init__(self, *, cosines, y):
        self.cosines, self.y = cosines, y

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y,
        *,
        kernel="lpntk",
        labels=None,
        max_samples=500,
        random_state=None,
        memory=None,
        verbose=0,
        ax=None,
        **imshow_kw,
    ):
        """Compute the kernel of a network, of some samples at most.

        Parameters
        ----------
        estimator : nn.Module, fitted skorch net, or fitted estimator with ``net_``
            Whose results are drawn.
        X, y, kernel
            As in :func:`~sklearn_lpntk.kernels.empirical_ntk`.
        labels : array-like of shape (n_samples,), default=None
            Clusters, by which the samples of a class are ordered; None orders them by their
            mean cosine.
        max_samples : int, default=500
            Of more samples so many are drawn at random.
        random_state : int, RandomState instance or None, default=None
            Draws what is random.
        memory : str or joblib.Memory, default=None
            Caches the features behind the kernel, as in
            :func:`~sklearn_lpntk.kernels.empirical_ntk`.
        verbose : int, default=0
            Print how far that has come.
        ax : matplotlib Axes or two of them, default=None
            Where it is drawn; None means new ones.
        **imshow_kw
            As for `plot`.

        Returns
        -------
        display : RelationsDisplay
        """
        y = vector(y, "y")
        rows = np.arange(len(y))
        if len(rows) > max_samples:
            chosen = check_random_state(random_state).choice(rows, max_samples, replace=False)
            rows = np.sort(chosen)
        labels = None if labels is None else vector(labels, "labels", len(y))[rows]
        X = as_scored(estimator, loaded(X, rows_of(X, rows)))
        net = getattr(estimator, "net_", estimator)
        own = {"kernel": kernel, "memory": memory, "verbose": verbose}
        K = empirical_ntk(net, X, y[rows], **own).toarray()
        return cls.from_predictions(K, y[rows], labels=labels, ax=ax, **imshow_kw)

    @classmethod
    def from_predictions(cls, K, y, *, labels=None, ax=None, **imshow_kw):
        """Draw a given kernel.

        Parameters
        ----------
        K : array-like of shape (n_samples, n_samples)
            The kernel; it is scaled to cosines.
        y : array-like of shape (n_samples,)
            Classes.
        labels : array-like of shape (n_samples,), default=None
            Clusters.
        ax : matplotlib Axes or two of them, default=None
            Where it is drawn; None means new ones.
        **imshow_kw
            As for `plot`.

        Returns
        -------
        display : RelationsDisplay
        """
        K = np.asarray(K, dtype=float)
        if K.ndim != 2 or K.shape[0] != K.shape[1] or len(K) < 2:
            raise ValueError(f"K must be a square matrix of two samples or more; got {K.shape}.")
        y = vector(y, "y", len(K))
        norms = np.sqrt(np.maximum(K.diagonal(), 0))
        inverse = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
        cosines = K * np.outer(inverse, inverse)
        within = -cosines.mean(axis=1) if labels is None else vector(labels, "labels", len(K))
        order = np.lexsort((within, y))
        return cls(cosines=cosines[np.ix_(order, order)], y=y[order]).plot(ax, **imshow_kw)

    def plot(self, ax=None, **imshow_kw):
        """Draw the block and the histogram.

        Parameters
        ----------
        ax : matplotlib Axes or two of them, default=None
            New ones if None; a single one is divided.
        **imshow_kw
            For matplotlib's ``imshow``.

        Returns
        -------
        display : RelationsDisplay
        """
        axes = grid_for(ax, type(self).__name__, (1, 2), figsize=(10, 4.2))
        self.axes_ = block, histogram = axes[0]
        # blue and orange, white between: also apart without red and green
        style = {"cmap": "PuOr_r", "vmin": -1, "vmax": 1, "interpolation": "nearest"} | imshow_kw
        image = block.imshow(self.cosines, **style)
        classes, starts, counts = np.unique(self.y, return_index=True, return_counts=True)
        class_ticks(block, starts + (counts - 1) / 2, classes)
        for start in starts[1:]:
            block.axhline(start - 0.5, color=GREY, lw=0.3)
            block.axvline(start - 0.5, color=GREY, lw=0.3)
        block.set(title="Who helps whom", xlabel="class", ylabel="class")
        self.figure_ = block.figure
        self.figure_.colorbar(image, ax=block, label="cosine")
        self._draw_histogram(histogram)
        return self

    def _draw_histogram(self, ax):
        pairs = np.triu_indices(len(self.cosines), 1)
        same = (self.y[:, None] == self.y)[pairs]
        bins = np.linspace(-1, 1, 81)
        for kind, color, label in (
            (same, BLUE, "same class"),
            (~same, VERMILION, "different classes"),
        ):
            ax.hist(self.cosines[pairs][kind], bins, color=color, alpha=0.6, label=label)
        ax.axvline(0, color=GREY, lw=1)
        obtuse = (self.cosines[pairs] < 0).mean()
        ax.set(
            title=f"{obtuse:.1%} of the pairs contradict each other",
            xlabel="cosine: below 0 a step on one hurts the other",
            ylabel="pairs of samples",
            xlim=(-1, 1),
        )
        legend_below(ax, ncols=2)
