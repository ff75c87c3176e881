"""Farthest point traversals over any similarity given by its rows.

``row(i, similarity)`` is the similarity of sample i to all, an ndarray of shape (n_samples,).
Its second argument tells how similar each sample is to its centroid by now (inf for the
centroids): where that is low are the next centroids, and an entry of the row that is not above
it makes no difference, so it may be anything that is not above it.
"""

import numpy as np

from .._runtime.progress import report


def farthest_point_clustering(diagonal, row, n_clusters):
    """Algorithm 3 of the lpNTK paper, with the new centroid taken off its list.

    Parameters
    ----------
    diagonal : ndarray of shape (n_samples,)
        Similarity of every sample with itself: the largest is the first centroid.
    row : callable
    n_clusters : int

    Returns
    -------
    centers : ndarray of shape (n_clusters,)
        Sample indices in order of choice.
    labels : ndarray of shape (n_samples,)
        Which of them each sample belongs to.
    """
    n_samples = len(diagonal)
    labels = np.zeros(n_samples, dtype=np.int64)
    centers = [int(np.argmax(diagonal))]  # line 2
    similarity = np.full(n_samples, -np.inf, dtype=np.result_type(diagonal, np.float32))
    similarity[:] = row(centers[0], similarity)
    similarity[centers[0]] = np.inf
    while len(centers) < n_clusters:
        farthest = np.flatnonzero(similarity == similarity.min())  # lines 5 to 8
        center = int(farthest[np.argmin(labels[farthest])])  # ties: oldest cluster, lowest index
        to_center = row(center, similarity)
        closer = similarity < to_center  # lines 11 to 15: strictly
        closer &= similarity != np.inf  # no centroid moves
        closer[center] = True
        labels[closer] = len(centers)
        similarity[closer] = to_center[closer]
        similarity[center] = np.inf
        centers.append(center)
        report(len(centers), n_clusters, "centroids")
    return np.array(centers), labels


def farthest_point_order(first, row, n_samples):
    """All samples after some first ones, each the farthest from those before it.

    Ties go to the lowest index.
    """
    order = np.empty(n_samples, dtype=np.int64)
    order[: len(first)] = first
    similarity = np.full(n_samples, -np.inf)
    for k in range(n_samples):
        if k >= len(first):
            order[k] = np.argmin(similarity)
        np.maximum(similarity, row(order[k], similarity), out=similarity)
        similarity[order[k]] = np.inf
        report(k + 1, n_samples)
    return order
