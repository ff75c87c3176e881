"""Which classes are hard by themselves, and which are entangled; and how rankings agree."""

from typing import NamedTuple

import numpy as np
from sklearn.metrics import pairwise_distances_chunked
from sklearn.utils import check_array

from .._gram import checked_labels
from ._labels import label_interaction_matrix


class ClassEntanglement(NamedTuple):
    """What `class_entanglement` returns.

    Attributes
    ----------
    intra : ndarray of shape (n_classes,)
        Z_kk / n_k: large where the samples of a class have little in common.
    inter : ndarray of shape (n_classes, n_classes)
        -Z_kd / (n_k n_d), as in the block-diagonalisation error: large where two classes are
        entangled; the diagonal is nan.
    intra_ranking : ndarray of shape (n_classes,)
        Classes, the hardest first.
    inter_rankings : ndarray of shape (n_classes, n_classes - 1)
        For each class the others, the most entangled first.
    classes : ndarray of shape (n_classes,)
        The class of each row.
    """

    intra: np.ndarray
    inter: np.ndarray
    intra_ranking: np.ndarray
    inter_rankings: np.ndarray
    classes: np.ndarray


def class_entanglement(H, y, *, ridge=0.1):
    """Rank classes by how hard they are, and by how entangled with each other, before training.

    Parameters
    ----------
    H : array-like of shape (n_samples, n_samples)
        Gram matrix of any kernel that knows no labels.
    y : array-like of shape (n_samples,)
        Their labels.
    ridge : float, default=0.1
        In units of the mean of the diagonal of H.

    Returns
    -------
    entanglement : ClassEntanglement
        With ``intra, inter, intra_ranking, inter_rankings, classes``.

    Raises
    ------
    ValueError
        As :func:`label_interaction_matrix`.

    See Also
    --------
    label_interaction_matrix : Z, of which these are parts.
    rank_biased_overlap : Compares such rankings with those of a trained network.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_lpntk.infinite import class_entanglement, infinite_ntk_kernel
    >>> X, y = load_iris(return_X_y=True)
    >>> class_entanglement(infinite_ntk_kernel(X - X.mean(0)), y).inter_rankings[:, 0]
    array([1, 2, 1])
    """
    Z, classes = label_interaction_matrix(H, y, ridge=ridge)
    counts = np.bincount(checked_labels(y, len(y))[1])
    intra, inter = np.diag(Z) / counts, -Z / np.outer(counts, counts)
    intra_ranking = classes[np.argsort(-intra, kind="stable")]
    order = [[d for d in np.argsort(-row, kind="stable") if d != k] for k, row in enumerate(inter)]
    np.fill_diagonal(inter, np.nan)
    return ClassEntanglement(intra, inter, intra_ranking, classes[np.array(order)], classes)


def rank_biased_overlap(a, b, *, p=0.9):
    """How much two rankings agree, the top counting most: 1 if equal, 0 if disjoint.

    Parameters
    ----------
    a, b : array-like of shape (n_items,)
        Rankings of unique items, the first is the top. Items need not be the same.
    p : float, default=0.9
        In (0, 1]: how far down it looks; 1 is the average overlap, all depths alike.

    Returns
    -------
    overlap : float
        In [0, 1], extrapolated beyond the end of the rankings (RBO_ext).

    Raises
    ------
    ValueError
        If a ranking is empty or has an item twice, if lengths differ, or for p outside (0, 1].

    Notes
    -----
    ``RBO_ext = A_n p^n + (1 - p) / p sum_d A_d p^d``, with A_d the share of common items among
    the first d of both, and n their length [1]_. Random rankings of the same ten items score about
    .65 at p = .9, of nine .68: compare with that.

    References
    ----------
    .. [1] Webber, Moffat and Zobel, "A Similarity Measure for Indefinite Rankings", ACM
       Transactions on Information Systems 28, 2010.

    Examples
    --------
    >>> from sklearn_lpntk.infinite import rank_biased_overlap
    >>> round(rank_biased_overlap("abcdefg", "zcavwxy", p=1), 3)
    0.312
    """
    a, b = list(a), list(b)
    if not (isinstance(p, int | float | np.number) and 0 < p <= 1):
        raise ValueError(f"p must be in (0, 1]; got {p!r}.")
    if not a or len(a) != len(b):
        raise ValueError(
            f"Rankings must have the same length, at least 1; got {len(a)} and {len(b)}."
        )
    for name, ranking in (("a", a), ("b", b)):
        if len(set(ranking)) < len(ranking):
            raise ValueError(f"The ranking {name} has an item twice: {ranking!r:.80}.")
    depths = np.arange(1, len(a) + 1)
    agreement = np.array([len(set(a[:d]) & set(b[:d])) / d for d in depths])
    if p == 1:
        return float(agreement.mean())
    return float(agreement[-1] * p ** len(a) + (1 - p) / p * (agreement * p**depths).sum())


def class_distance_ratio(P, y):
    """Mean distance between samples of different classes over that within classes.

    Parameters
    ----------
    P : array-like of shape (n_samples, n_components)
        Samples, for example projected by a kernel PCA.
    y : array-like of shape (n_samples,)
        Their labels.

    Returns
    -------
    ratio : float
        1 where classes are not separated at all.

    Raises
    ------
    ValueError
        If y does not fit to P, has one class, or no class has two samples.

    See Also
    --------
    ArchitectureSelector : Chooses a kernel by this ratio.

    Examples
    --------
    >>> from sklearn_lpntk.infinite import class_distance_ratio
    >>> class_distance_ratio([[0.0], [1.0], [4.0], [5.0]], [0, 0, 1, 1])
    4.0
    """
    P = check_array(P, dtype=np.float64, input_name="P", ensure_min_samples=2)
    _, columns = checked_labels(y, len(P))
    totals, counts = np.zeros(2), np.zeros(2)
    start = 0
    for block in pairwise_distances_chunked(P, metric="minkowski"):  # without cancellation
        is_same = columns[start : start + len(block), None] == columns
        totals += block[~is_same].sum(), block[is_same].sum()
        counts += (~is_same).sum(), is_same.sum() - len(block)
        start += len(block)
    if counts[1] == 0:
        raise ValueError("No class of y has two samples, so there is no distance within classes.")
    if totals[1] / counts[1] <= 1e-10 * totals[0] / counts[0]:  # equal but for rounding
        raise ValueError("All samples of each class are equal: the ratio is undefined.")
    return float(totals[0] / counts[0] / (totals[1] / counts[1]))
