"""Criteria that others have published: controls for any claim of ours.

All are read from one training run, by what `TrainingDynamics` recorded of it and by the trained
net's outputs. Each takes the samples and returns the order in which they go.
"""

import numpy as np
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import NearestNeighbors

from .._margins import margins_of
from ..infinite import InfiniteWidthNTK
from ._clean import left_out_margins
from ._orders import after_contradicted, herding_order, rising
from ._samples import Ordering
from ._similarity import ArrayRows, FeatureRows

CCS_CUTOFF, CCS_STRATA = 0.3, 50  # of [2], for CIFAR-10 where a tenth is kept
D2_NEIGHBOURS, D2_FORWARD, D2_REVERSE = 10, 1.0, 1.0


def aum(samples):
    """Pleiss et al. 2020: those with the smallest area under the margin go first."""
    return rising(samples.recorded("aum_"))


def small_loss(samples):
    """Han et al. 2018, Jiang et al. 2018: those with the largest loss go first.

    Of the mean over training, since a net that has learned all labels by heart tells none apart.
    """
    ordering = rising(-samples.recorded("difficulty_"))
    ordering.scores = -ordering.scores
    return ordering


def forgetting(samples):
    """Toneva et al. 2018: those forgotten least often go first; never learned is the most."""
    samples.recorded("difficulty_")  # which a sample has that was ever visited
    counts = samples.recorded("forgetting_counts_").astype(np.float64)
    counts[samples.recorded("never_learned_")] = np.inf
    ties = samples.rng.permutation(len(samples))
    return Ordering(np.lexsort((ties, counts)), scores=counts)


def ccs(samples):
    """Zheng et al. 2023: the hardest go first, the others evenly by strata of their margin.

    Every stratum gives the same number of samples, as far as it has them: one each by turns, so
    that all sizes are served by one order.
    """
    scores, n = samples.recorded("aum_"), len(samples)
    hardest_first = np.argsort(scores, kind="stable")
    cut, rest = np.split(hardest_first, [round(CCS_CUTOFF * n)])
    low, high = scores[rest].min(), scores[rest].max()
    width = (high - low) / CCS_STRATA or 1.0
    strata = np.minimum((scores[rest] - low) // width, CCS_STRATA - 1)
    shuffled = samples.rng.permutation(len(rest))
    turns = np.empty(len(rest))
    for stratum in np.unique(strata):
        members = shuffled[strata[shuffled] == stratum]
        turns[members] = np.arange(len(members))
    ties = samples.rng.permutation(len(rest))
    kept_first = rest[np.lexsort((ties, turns))]
    return Ordering(np.concatenate([cut, kept_first[::-1]]), scores=scores)


def moderate(samples):
    """Xia et al. 2023: kept are those whose distance to their class's mean is the median one."""
    Z, distances = samples.embeddings, np.empty(len(samples))
    for members in samples.classes:
        distances[members] = np.linalg.norm(Z[members] - Z[members].mean(axis=0), axis=1)
    rank = np.empty(len(samples))
    rank[np.argsort(distances, kind="stable")] = np.arange(len(samples))
    from_the_middle = np.abs(rank - (len(samples) - 1) / 2)
    return Ordering(np.argsort(-from_the_middle, kind="stable"), scores=distances)


def d2(samples):
    """Maharana et al. 2023: the hardest, each of which speaks for its neighbours.

    Difficulty, here the mean EL2N of the training, is passed on along the nearest neighbours of
    the last layer's inputs; then the largest one is kept and taken from its neighbours, again and
    again.
    """
    Z = samples.embeddings
    norms = np.linalg.norm(Z, axis=1, keepdims=True)
    Z = np.divide(Z, norms, out=np.zeros_like(Z), where=norms > 0)
    k = min(D2_NEIGHBOURS, len(samples) - 1)
    distances, neighbours = NearestNeighbors(n_neighbors=k).fit(Z).kneighbors()
    difficulty = samples.recorded("el2n_").astype(np.float64)
    values = difficulty + (np.exp(-D2_FORWARD * distances) * difficulty[neighbours]).sum(1)
    scores, kept = values.copy(), np.empty(len(samples), dtype=np.int64)
    weights = np.exp(-D2_REVERSE * distances)
    for t in range(len(samples)):
        i = kept[t] = np.argmax(values)
        values[neighbours[i]] -= weights[i] * values[i]
        values[i] = -np.inf
    return Ordering(kept[::-1].copy(), scores=scores)


def net_clean_random(samples):
    """What the trained net misclassifies goes first, the clearest case first; then random rows."""
    margins = margins_of(samples.logits, samples.columns)
    visits = [
        samples.rng.permutation(members[margins[members] >= 0]) for members in samples.classes
    ]
    return after_contradicted(samples, margins, [visited for visited in visits if len(visited)])


def loo_infinite(samples):
    """``clean_herding`` by the infinite-width NTK of the inputs, without any net."""
    return _clean_by(InfiniteWidthNTK(), samples)


def loo_rbf(samples):
    """``clean_herding`` by an RBF kernel of the inputs, its width that of ``SVC``'s default."""
    vectors = samples.vectors().reshape(len(samples), -1).astype(np.float64)
    mean, variance = vectors.mean(axis=0), vectors.var() or 1.0
    gamma = 1 / (vectors.shape[1] * variance)
    # squared distances far from the origin are rounding
    return _clean_by(lambda X, Y: rbf_kernel(X - mean, Y - mean, gamma), samples)


def _clean_by(kernel, samples):
    found = samples.label_free_by(kernel)
    rows = FeatureRows(found["phi"]) if "phi" in found else ArrayRows(found["K"].copy())
    try:
        margins, wrong = left_out_margins(samples.columns, **found)
    except ValueError as error:
        raise ValueError(
            "This strategy compares the rows of X as they are, and their kernel is not positive "
            "semidefinite in double precision, as where columns lie far from 0: centre or "
            "standardise X first, for instance by a StandardScaler in front."
        ) from error
    visits = samples.per_class(_herd, rows, among=margins >= 0)
    return after_contradicted(samples, margins, visits, wrong)


def _herd(rows, members):
    return members[herding_order(rows.restricted(members))]
