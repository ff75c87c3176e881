"""FarthestPointClustering: the shell; the loop is in ``_traversal``."""

from numbers import Integral

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClusterMixin, _fit_context
from sklearn.utils._param_validation import HasMethods, Interval, RealNotInt, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from .._runtime.cache import cached
from .._runtime.fitting import unfitted_on_error
from .._runtime.progress import shown
from .._samples.datasets import is_dataset
from .._samples.inputs import as_one_array, has_parts
from ._affinity import AFFINITIES, ArrayAffinity, callable_block, check_similarity
from ._traversal import farthest_point_clustering


def _array_of(X):
    """What scikit-learn knows as it is; data sets and the like as one array."""
    return as_one_array(X) if is_dataset(X) or (has_parts(X) and not issparse(X)) else X


def resolve_n_clusters(n_clusters, n_samples):
    """An int as it is, a float as a fraction of the samples, at least 1."""
    if isinstance(n_clusters, Integral):
        if n_clusters > n_samples:
            raise ValueError(
                f"n_clusters={n_clusters} is more than n_samples={n_samples}; use at most one "
                "cluster a sample, or a float fraction."
            )
        return int(n_clusters)
    return max(1, round(n_clusters * n_samples))


class FarthestPointClustering(ClusterMixin, BaseEstimator):
    """Farthest point clustering (Gonzalez's traversal) of samples under any similarity.

    The first centroid is the sample most similar to itself; each next one is the sample
    least similar to its own centroid, and takes over every sample that is strictly more
    similar to it.

    Parameters
    ----------
    n_clusters : int or float, default=8
        Number of clusters; a float is a fraction of the samples, at least one cluster.
    affinity : {"euclidean", "linear", "cosine", "precomputed"} or callable, \
            default="euclidean"
        The similarity: negative squared distance, inner product, cosine; or X is the
        similarity matrix itself; or ``affinity(X, Y)`` returns one of shape
        (n_samples_X, n_samples_Y).

    memory : str or joblib.Memory, default=None
        Caches the centroids and labels, by the values of X. The folder holds pickles: open only
        those that you trust.
    verbose : int, default=0
        Print how many centroids are chosen, and the remaining time.

    Attributes
    ----------
    labels_ : ndarray of shape (n_samples,)
        Cluster of each sample, numbered in the order in which the centroids were chosen.
    cluster_centers_indices_ : ndarray of shape (n_clusters,)
        The centroids, as indices of samples, in order of choice.
    cluster_sizes_ : ndarray of shape (n_clusters,)
        Number of samples in each cluster.
    cluster_centers_ : ndarray of shape (n_clusters, n_features)
        The centroids themselves; not with ``affinity="precomputed"``.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of features seen in `fit`, where X has string names.

    See Also
    --------
    LpNTKTransformer : Makes the features or the kernel of labelled samples.
    RedundancyPruner : Prunes training samples, also by these clusters.

    Notes
    -----
    This is Algorithm 3 of [1]_ with one correction: the new centroid leaves its list and
    never moves (as printed it would be picked again). Ties go to the oldest cluster and the
    lowest index.

    With ``affinity="euclidean"`` the largest distance of a sample to its centroid is at most
    twice the optimum over all choices of centroids [2]_. Under a raw similarity such as
    ``"linear"`` there is no such guarantee, the centroids tend to be outliers, and most
    samples fall into one large cluster, on data without any structure too.

    References
    ----------
    .. [1] "lpNTK: Better Generalisation with Less Data via Sample Interaction During
       Learning", appendix D.4. arXiv:2401.08808
    .. [2] T. F. Gonzalez, "Clustering to minimize the maximum intercluster distance",
       Theoretical Computer Science 38, 1985.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_lpntk import FarthestPointClustering
    >>> X = np.array([[0.0, 0.0], [0.1, 0.0], [4.0, 0.0], [4.1, 0.0], [0.0, 9.0]])
    >>> clustering = FarthestPointClustering(n_clusters=3).fit(X)
    >>> clustering.labels_
    array([0, 0, 2, 2, 1])
    >>> clustering.cluster_centers_indices_
    array([0, 4, 3])
    >>> clustering.predict([[3.0, 1.0]])
    array([2])
    """

    _parameter_constraints = {
        "n_clusters": [
            Interval(Integral, 1, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="right"),
        ],
        "affinity": [StrOptions({*AFFINITIES, "precomputed"}), callable],
        "memory": [str, HasMethods(["cache"]), None],
        "verbose": ["verbose"],
    }

    def __init__(self, n_clusters=8, *, affinity="euclidean", memory=None, verbose=0):
        self.n_clusters = n_clusters
        self.affinity = affinity
        self.memory = memory
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Choose the centroids and assign every sample to one.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_samples)
            Features, or similarities with ``affinity="precomputed"``.
        y : Ignored
            Present for API consistency.

        Returns
        -------
        self : FarthestPointClustering

        Raises
        ------
        ValueError
            If there are fewer samples than clusters, or if a precomputed similarity is not
            square or not symmetric.
        """
        with unfitted_on_error(self):
            options = {"dtype": [np.float64, np.float32], "ensure_min_samples": 2}
            X = validate_data(self, _array_of(X), **options)
            n_clusters = resolve_n_clusters(self.n_clusters, len(X))
            key = {"X": X, "n_clusters": n_clusters, "affinity": self.affinity}
            with shown("[FarthestPointClustering] choose centroids", verbose=self.verbose):
                centers, labels = cached(
                    self.memory, "clustering", self._cluster, key, X, n_clusters
                )
            self.labels_ = labels
            self.cluster_centers_indices_ = centers
            self.cluster_sizes_ = np.bincount(labels, minlength=n_clusters)
            if self.affinity != "precomputed":
                self.cluster_centers_ = X[centers]
        return self

    def _cluster(self, X, n_clusters):
        affinity = self._affinity_of(X)
        return farthest_point_clustering(affinity.diagonal, affinity.row, n_clusters)

    def _affinity_of(self, X):
        if self.affinity == "precomputed":
            return ArrayAffinity(check_similarity(X, "X"))
        if callable(self.affinity):
            K = callable_block(self.affinity, X, X)
            return ArrayAffinity(check_similarity(K, "affinity(X, X)"))
        return AFFINITIES[self.affinity](X)

    def predict(self, X):
        """The most similar centroid of each sample; ties go to the oldest.

        A sample seen in `fit` can be predicted into another cluster than its own only if
        it is a centroid, and only under an affinity for which a sample may be more similar
        to another one than to itself.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_samples_fit)
            Features, or with ``affinity="precomputed"`` the similarities to the samples
            seen in `fit`.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
        """
        check_is_fitted(self)
        X = validate_data(self, _array_of(X), dtype=[np.float64, np.float32], reset=False)
        if self.affinity == "precomputed":
            similarity = X[:, self.cluster_centers_indices_]
        elif callable(self.affinity):
            similarity = callable_block(self.affinity, X, self.cluster_centers_)
        else:
            similarity = AFFINITIES[self.affinity].block(X, self.cluster_centers_)
        return np.argmax(similarity, axis=1)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "labels_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = self.affinity == "precomputed"
        return tags
