"""Cluster sizes by rank, beside those of data without clusters."""

import numpy as np
from sklearn.base import clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from .._runtime.progress import counted, shown
from ..cluster import FarthestPointClustering, null_features
from ..dynamics._validation import require_integer
from ._drawing import BLUE, ORANGE, axes_for, legend_below, vector


class ClusterSizeDisplay:
    """Sizes of clusters by rank on logarithmic axes, with a null model.

    Under a raw similarity most samples fall into one cluster on data without clusters, too: the
    long tail is a finding where it differs from the null model's.

    Parameters
    ----------
    sizes : ndarray of shape (n_clusters,)
        Samples in each cluster.
    null_sizes : ndarray of shape (n_repeats, n_null_clusters), default=None
        The same of draws of the null model.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    See Also
    --------
    sklearn_lpntk.cluster.null_features : The null model.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_lpntk import FarthestPointClustering
    >>> from sklearn_lpntk.inspection import ClusterSizeDisplay
    >>> X, _ = load_digits(return_X_y=True)
    >>> clustering = FarthestPointClustering(100, affinity="linear")
    >>> display = ClusterSizeDisplay.from_estimator(clustering, X, random_state=0)
    >>> display.sizes.sum()
    np.int64(1797)
    """

    def __init__(self, *, sizes, null_sizes=None):
        self.sizes, self.null_sizes = sizes, null_sizes

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        *,
        n_repeats=5,
        random_state=None,
        verbose=0,
        ax=None,
        name=None,
        **line_kw,
    ):
        """Cluster X, and its null model.

        Forms the kernel of features (n_samples squared numbers) and clusters ``n_repeats`` times
        more.

        Parameters
        ----------
        estimator : FarthestPointClustering
            Fitted on X or not; with ``affinity`` ``"linear"``, ``"cosine"`` or ``"precomputed"``.
        X : array-like of shape (n_samples, n_features) or (n_samples, n_samples)
            Features, or the kernel.
        n_repeats : int, default=5
            Draws of the null model.
        random_state : int, RandomState instance or None, default=None
            Draws what is random.
        verbose : int, default=0
            Print how many draws are done, and the remaining time.
        ax : matplotlib Axes, default=None
            Where it is drawn; None means new ones.
        name : str, default=None
            In the legend; None says "clusters".
        **line_kw
            As for `plot`.

        Returns
        -------
        display : ClusterSizeDisplay
        """
        if not isinstance(estimator, FarthestPointClustering):
            raise TypeError(
                "estimator must be a FarthestPointClustering; got "
                f"{type(estimator).__name__}. Pass its labels to from_predictions."
            )
        if estimator.affinity not in ("linear", "cosine", "precomputed"):
            raise ValueError(
                "The null model is one of inner products: affinity must be 'linear', 'cosine' or "
                f"'precomputed'; got {estimator.affinity!r}."
            )
        X = np.asarray(X)
        fitted = estimator if hasattr(estimator, "labels_") else clone(estimator).fit(X)
        check_is_fitted(fitted)
        labels = vector(fitted.labels_, "estimator.labels_", len(X))
        K = X if estimator.affinity == "precomputed" else X @ X.T
        affinity = "linear" if estimator.affinity == "precomputed" else estimator.affinity
        require_integer("n_repeats", n_repeats)
        rng, n_clusters = check_random_state(random_state), len(fitted.cluster_sizes_)
        draws = (
            FarthestPointClustering(n_clusters, affinity=affinity)
            .fit(null_features(K, random_state=rng))
            .labels_
            for _ in range(n_repeats)
        )
        with shown("[ClusterSizeDisplay] draw the null model", verbose=verbose):
            null = list(counted(draws, n_repeats, "draws"))
        return cls.from_predictions(labels, null_labels=null, ax=ax, name=name, **line_kw)

    @classmethod
    def from_predictions(cls, labels, *, null_labels=None, ax=None, name=None, **line_kw):
        """Sizes of given clusters.

        Parameters
        ----------
        labels : array-like of shape (n_samples,)
            Cluster of each sample; negative for none.
        null_labels : array-like of shape (n_repeats, n_samples), default=None
            Clusters of draws of a null model.
        ax : matplotlib Axes, default=None
            Where it is drawn; None means new ones.
        name : str, default=None
            In the legend; None says "clusters".
        **line_kw
            As for `plot`.

        Returns
        -------
        display : ClusterSizeDisplay
        """
        sizes = _sizes(vector(labels, "labels"))
        null = None
        if null_labels is not None and len(null_labels):
            draws = [_sizes(vector(one, "each of null_labels")) for one in null_labels]
            null = np.zeros((len(draws), max(map(len, draws))), dtype=np.int64)
            for row, draw in zip(null, draws):
                row[: len(draw)] = draw
        return cls(sizes=sizes, null_sizes=null).plot(ax, name=name, **line_kw)

    def plot(self, ax=None, *, name=None, **line_kw):
        """Draw sizes against ranks.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            New ones if None.
        name : str, default=None
            In the legend; None says "clusters".
        **line_kw
            For the line of the sizes, as in matplotlib's ``plot``.

        Returns
        -------
        display : ClusterSizeDisplay
        """
        ax = axes_for(ax, type(self).__name__)
        style = {"color": BLUE, "marker": "o", "ms": 3} | line_kw
        ranked = np.sort(self.sizes)[::-1]
        head = f"largest: {ranked[0] / ranked.sum():.0%} of the samples"
        ax.plot(
            np.arange(1, len(ranked) + 1), ranked, label=f"{name or 'clusters'} ({head})", **style
        )
        if self.null_sizes is not None:
            null = -np.sort(-self.null_sizes, axis=1)
            ranks = np.arange(1, null.shape[1] + 1)
            share = (null[:, 0] / null.sum(axis=1)).mean()
            label = f"no clusters, same norms (largest: {share:.0%})"
            low, high = np.maximum(null.min(axis=0), 0.5), np.maximum(null.max(axis=0), 0.5)
            ax.plot(ranks, np.maximum(null.mean(axis=0), 0.5), "--", color=ORANGE, label=label)
            ax.fill_between(ranks, low, high, color=ORANGE, alpha=0.25, lw=0)
        ax.set(
            xscale="log",
            yscale="log",
            xlabel="rank of the cluster",
            ylabel="samples in the cluster",
            title="Cluster sizes",
        )
        legend_below(ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _sizes(labels):
    if labels.dtype.kind not in "iu" or not (labels >= 0).any():
        raise ValueError(
            "labels must be integers, the cluster of each sample, one or more of them not "
            f"negative; got {labels!r:.80}."
        )
    return np.bincount(labels[labels >= 0])
