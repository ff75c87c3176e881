"""From an order of samples to the rows that are kept: plain functions over arrays."""

import numpy as np


def interleave(visits, n_samples):
    """One keep order from a visit order per class: by rank / number visited, then by index.

    Parameters
    ----------
    visits : list of ndarray
        For each class its samples, the ones to keep longest first.
    n_samples : int

    Returns
    -------
    keep_order : ndarray of shape (n_visited,)
    """
    position = np.full(n_samples, np.inf)
    for visited in visits:
        position[visited] = np.arange(len(visited)) / len(visited)
    return np.lexsort((np.arange(n_samples), position))[: sum(map(len, visits))]


def dropped_rows(prune_order, y, n_drop):
    """The first ``n_drop`` of the order, passing over a row that would empty its class."""
    codes = np.unique(y, return_inverse=True)[1]
    left = np.bincount(codes)
    dropped = []
    for row in prune_order:
        if len(dropped) == n_drop:
            break
        if left[codes[row]] > 1:
            left[codes[row]] -= 1
            dropped.append(row)
    return np.array(dropped, dtype=np.int64)


def kept_mask(prune_order, y, n_drop):
    """Boolean mask of the rows that stay."""
    mask = np.ones(len(y), dtype=bool)
    mask[dropped_rows(prune_order, y, n_drop)] = False
    return mask
