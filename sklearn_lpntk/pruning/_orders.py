"""The strategies: each turns scored samples into an order, the first to go first."""

from dataclasses import dataclass
from numbers import Integral

import numpy as np
import torch
from scipy.special import softmax
from sklearn.utils import gen_batches

from .._engine.bounds import Bounds
from .._engine.inputs import parts_of
from .._engine.reductions import dominated, refined, row_extremes
from .._engine.rows import SpeculativeRows
from .._gram import one_hot
from .._runtime.progress import report
from .._samples.datasets import as_array
from ..cluster._farthest_point import resolve_n_clusters
from ..cluster._traversal import farthest_point_clustering, farthest_point_order
from ._clean import doubt_of, left_out_margins, medoids_then_farthest
from ._samples import Ordering
from ._selection import interleave
from ._similarity import CosineRows, CosineVectorRows, EuclideanRows, OperatorRows

REDUNDANT_BY = 1e-5  # a sample is redundant where kappa_ij > kappa_ii (1 + REDUNDANT_BY)
CANDIDATES = 10  # dominators by a sketch that refine=True verifies, for each sample


# -- keep what is visited first -----------------------------------------------------------


def _visit_within_classes(samples, visit, *args):
    return _kept_by(samples.per_class(visit, *args), samples)


def _kept_by(visits, samples):
    return Ordering(interleave(visits, len(samples))[::-1].copy())


def herding(samples):
    """Kernel herding: the mean feature of the samples kept so far follows the class's."""
    return _visit_within_classes(samples, _herd, samples.operator())


def _herd(operator, members):
    return members[herding_order(OperatorRows(operator.restricted(members)))]


def herding_order(rows):
    """``argmax_j mu_j - s_j / (t + 1)`` among those not chosen; ties to the lowest index."""
    mean, total = rows.mean(), np.zeros(len(rows))
    order = np.empty(len(rows), dtype=np.int64)
    chosen = np.zeros(len(rows), dtype=bool)
    for t in range(len(rows)):
        gain = np.where(chosen, -np.inf, mean - total / (t + 1))
        order[t] = np.argmax(gain)
        chosen[order[t]] = True
        total += rows.row(order[t], np.where(chosen, np.inf, -gain))
        report(t + 1, len(rows))
    return order


def coverage_order(rows):
    """Farthest point traversal from the most central one."""
    return farthest_point_order([int(np.argmax(rows.mean()))], rows.row, len(rows))


def coverage(samples):
    """Farthest point traversal of the cosine kernel in each class, from its most central."""
    return _visit_within_classes(samples, _cover_cosine, samples.operator())


def _cover_cosine(operator, members):
    return members[coverage_order(CosineRows(operator.restricted(members)))]


def clean_herding(samples):
    """Herding of the samples whose labels the others, by the label-free kernel, do not deny."""
    return _clean(samples, _herd)


def clean_coverage(samples):
    """Coverage of the same samples, from a few medoids of each class on."""
    return _clean(samples, _cover_from_medoids)


def _clean(samples, visit):
    margins, wrong = left_out_margins(samples.columns, **samples.label_free())
    visits = samples.per_class(visit, samples.operator(), among=margins >= 0)
    return after_contradicted(samples, margins, visits, wrong)


def after_contradicted(samples, margins, visits, wrong=None):
    """Samples of negative margin go first, by rising margin; then the others, last those visited
    first: with ``scope="class"`` in each class, which then loses its share."""
    contradicted = margins < 0
    first = np.flatnonzero(contradicted)
    first = first[np.argsort(margins[first], kind="stable")]
    keep_order = np.concatenate([interleave(visits, len(margins)), first[::-1]])
    if samples.options["scope"] == "class":
        of_class = samples.columns[keep_order]
        by_class = [keep_order[of_class == samples.columns[rows[0]]] for rows in samples.classes]
        keep_order = interleave(by_class, len(margins))
    doubt = doubt_of(samples, contradicted, wrong)
    return Ordering(keep_order[::-1].copy(), scores=margins, contradicted=contradicted, doubt=doubt)


def _cover_from_medoids(operator, members):
    return members[medoids_then_farthest(CosineRows(operator.restricted(members)))]


def k_center(samples):
    """Coverage on the last layer's inputs, Euclidean."""
    return _visit_within_classes(samples, _cover_vectors, EuclideanRows, samples.embeddings)


def _cover_vectors(similarity, Z, members):
    return members[coverage_order(similarity(Z[members]))]


def k_center_input(samples):
    """Coverage on flattened X, by cosine; trains no net."""
    return _visit_within_classes(samples, _cover_vectors, CosineVectorRows, samples.vectors())


def random(samples):
    """Stratified: a random order within each class."""
    return _kept_by([samples.rng.permutation(members) for members in samples.classes], samples)


# -- keep the hardest ---------------------------------------------------------------------


def el2n(samples):
    """Norm of the error vector: the easiest samples go first."""
    logits = samples.logits
    error = softmax(logits, axis=1) - one_hot(samples.columns, logits.shape[1])
    return rising(np.linalg.norm(error, axis=1))


def grand(samples):
    """Norm of the loss gradient: the smallest go first."""
    return rising(np.sqrt(samples.exact_operator("loss_gradient").diag()))


def rising(scores):
    """The smallest score goes first."""
    return Ordering(np.argsort(scores, kind="stable"), scores=scores)


# -- the paper's rules --------------------------------------------------------------------


def redundant(samples):
    """Section 4.2: samples that another one dominates, by falling redundancy."""
    if samples.options["decide_only"]:
        is_redundant, diagonal = redundancy_decisions(samples)
        # the smallest norms are the likeliest to be stood in for
        order = np.lexsort((diagonal, ~is_redundant))
        return Ordering(order, n_redundant=int(is_redundant.sum()))
    scores = redundancy_scores(samples)
    return _with_scores(Ordering(scores.order, scores=scores.redundancy), scores)


def redundancy_decisions(samples):
    """Which samples are redundant, and the kernel's diagonal: no scores, far fewer entries."""
    is_redundant = first_twins(samples.X, samples.columns) >= 0
    diagonal = np.empty(len(samples))
    for group in samples.groups:
        operator = samples.operator().restricted(group)
        bounds = Bounds(operator.kernel)
        found = samples.reduce(dominated, operator, REDUNDANT_BY, bounds=bounds)
        is_redundant[group] |= found.mask.cpu().numpy()
        diagonal[group] = bounds.diagonal.cpu().numpy()
    return is_redundant, diagonal


@dataclass
class RedundancyScores:
    """Redundancy of every sample, who dominates it, and the decision."""

    redundancy: np.ndarray
    dominators: np.ndarray
    is_redundant: np.ndarray
    diagonal: np.ndarray

    @property
    def n_redundant(self):
        return int(self.is_redundant.sum())

    @property
    def order(self):
        """The redundant ones first, each part by falling redundancy."""
        return np.lexsort((-self.redundancy, ~self.is_redundant))


def _with_scores(ordering, scores):
    ordering.redundancy, ordering.dominators = scores.redundancy, scores.dominators
    ordering.n_redundant = scores.n_redundant
    return ordering


def redundancy_scores(samples):
    """``rho_i = max_{j != i} kappa_ij / kappa_ii`` within each group, and its argmax."""
    n = len(samples)
    maxima, dominators = np.full(n, -np.inf), np.full(n, -1)
    diagonal = np.empty(n)
    for group in samples.groups:
        found, own = _extremes(samples, group)
        maxima[group] = found.values[:, 0].double().cpu().numpy()
        argmax = found.indices[:, 0].cpu().numpy()
        dominators[group] = np.where(argmax >= 0, group[argmax], -1)
        diagonal[group] = own.double().cpu().numpy()
    twins = first_twins(samples.X, samples.columns)
    dominated = maxima > diagonal * (1 + REDUNDANT_BY)
    is_redundant = dominated | (twins >= 0)
    dominators = np.where(dominated, dominators, twins)
    redundancy = np.full(n, np.inf)
    np.divide(maxima, diagonal, out=redundancy, where=diagonal > 0)
    return RedundancyScores(redundancy, dominators, is_redundant, diagonal)


def _extremes(samples, group):
    """The largest entry of each row within a group, and the diagonal."""
    operator = samples.operator().restricted(group)
    if not samples.options["refine"]:
        bounds = Bounds(operator.kernel)
        return samples.reduce(row_extremes, operator, bounds=bounds), bounds.diagonal
    candidates = samples.reduce(row_extremes, operator, CANDIDATES).indices
    exact = samples.exact_operator().restricted(group)
    return refined(exact.kernel, candidates), torch.from_numpy(exact.diag())


def first_twins(X, columns):
    """For a later one of rows equal in X and y, the first of them; else -1."""
    first, twins = {}, np.full(len(columns), -1)
    for rows in gen_batches(len(columns), 4096):
        parts = [as_array(part[rows]) + 0 for part in parts_of(X).values()]  # -0 as 0
        for i in range(rows.start, rows.stop):
            values = b"".join(part[i - rows.start].tobytes() for part in parts)
            j = first.setdefault((values, columns[i]), i)
            if j != i:
                twins[i] = j
    return twins


def head(samples):
    """Section 4.3, step 3: random samples of the largest cluster, then of the next."""
    return _head_of(samples, np.arange(len(samples)))


def keep_head(samples):
    """Appendix E.2: the smallest clusters go first, the largest last."""
    return _head_of(samples, np.arange(len(samples)), largest_first=False)


def redundant_head(samples):
    """Section 4.3, the whole recipe: redundant samples first, then the head of the rest."""
    scores = redundancy_scores(samples)
    first = scores.order[: scores.n_redundant]
    rest = np.flatnonzero(~scores.is_redundant)
    ordering = _head_of(samples, rest)
    ordering.prune_order = np.concatenate([first, ordering.prune_order])
    return _with_scores(ordering, scores)


def _head_of(samples, rows, *, largest_first=True):
    """Cluster some rows (within classes under that scope) and order them by cluster size."""
    labels, centers = np.full(len(samples), -1), []
    for group in samples.groups:
        members = np.intersect1d(group, rows)
        if len(members):
            operator = samples.operator().restricted(members)
            bounds = Bounds(operator.kernel)
            found, own = farthest_point_clustering(
                bounds.diagonal.cpu().numpy(),
                SpeculativeRows(operator.kernel, bounds=bounds),
                _n_clusters(samples.options["n_clusters"], len(members)),
            )
            labels[members] = own + len(centers)
            centers.extend(members[found])
    sizes = np.bincount(labels[rows], minlength=len(centers))
    clusters = np.argsort(-sizes, kind="stable")
    clusters = clusters if largest_first else clusters[::-1]
    order = [samples.rng.permutation(np.flatnonzero(labels == c)) for c in clusters]
    return Ordering(
        np.concatenate(order) if order else np.empty(0, dtype=np.int64),
        labels=labels,
        centers=np.array(centers, dtype=np.int64),
        head_size=int(sizes.max(initial=0)),
    )


def _n_clusters(n_clusters, n_samples):
    """Clusters of a part of the samples: never more than it has."""
    whole = isinstance(n_clusters, Integral)
    return resolve_n_clusters(min(n_clusters, n_samples) if whole else n_clusters, n_samples)
