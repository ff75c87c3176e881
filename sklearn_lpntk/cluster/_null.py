"""Data without clusters that looks like a kernel from afar: the control of a long tail."""

import numpy as np
from sklearn.utils import check_random_state

MOST_ROWS = 1000  # of a kernel, to learn its cosines from
MOST_DIMENSIONS = 10_000


def null_features(kernel, *, random_state=None):
    """Features without clusters, with the norms and the spread of cosines of a kernel.

    Every sample keeps its norm and gets a random direction around a direction common to all, such
    that the mean and the variance of the cosines of pairs are those of the kernel. What a
    clustering finds in them is owed to the norms and to the common direction alone: the control
    beside which a long tail of cluster sizes must be seen.

    Parameters
    ----------
    kernel : KernelOperator or ndarray of shape (n_samples, n_samples)
        Inner products of features, symmetric. A thousand of its rows at most are looked at.
    random_state : int, RandomState instance or None, default=None
        Draws the rows and the directions.

    Returns
    -------
    Z : ndarray of shape (n_samples, n_dimensions)
        Their inner products, ``affinity="linear"``, are the null kernel.

    Raises
    ------
    ValueError
        If the kernel is not square, or has fewer than three samples with a gradient.

    See Also
    --------
    FarthestPointClustering : The clustering whose sizes are compared.
    sklearn_lpntk.inspection.ClusterSizeDisplay : Draws both.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_lpntk.cluster import FarthestPointClustering, null_features
    >>> X = np.random.default_rng(0).normal(size=(50, 3)) + 2
    >>> Z = null_features(X @ X.T, random_state=0)
    >>> np.allclose((Z ** 2).sum(axis=1), (X ** 2).sum(axis=1))
    True
    >>> sizes = FarthestPointClustering(10, affinity="linear").fit(Z).cluster_sizes_
    >>> sizes.sum()
    np.int64(50)
    """
    if not hasattr(kernel, "block"):
        kernel = np.asarray(kernel, dtype=np.float64)
    n_samples = kernel.shape[0]
    if len(kernel.shape) != 2 or n_samples != kernel.shape[1]:
        raise ValueError(f"kernel must be a square matrix; got shape {kernel.shape}.")
    rng = check_random_state(random_state)
    squares = kernel.diagonal() if isinstance(kernel, np.ndarray) else kernel.diag()
    norms = np.sqrt(np.maximum(squares.astype(np.float64), 0))
    rows = np.flatnonzero(norms > 0)
    if len(rows) < 3:
        raise ValueError(
            f"Only {len(rows)} samples of the kernel have a gradient; three are needed."
        )
    if len(rows) > MOST_ROWS:
        rows = np.sort(rng.choice(rows, MOST_ROWS, replace=False))
    block = (
        kernel[np.ix_(rows, rows)] if isinstance(kernel, np.ndarray) else kernel.block(rows, rows)
    )
    cosines = (block / np.outer(norms[rows], norms[rows]))[np.triu_indices(len(rows), 1)]
    mean = np.clip(cosines.mean(), 0, 1)
    # of random unit vectors in p dimensions the inner products have variance 1 / p
    n_dimensions = (1 - mean) ** 2 / max(cosines.var(), 1e-12)
    noise = rng.normal(size=(n_samples, int(np.clip(round(n_dimensions), 1, MOST_DIMENSIONS))))
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    common = np.full((n_samples, 1), np.sqrt(mean))
    return norms[:, None] * np.hstack([common, np.sqrt(1 - mean) * noise])
