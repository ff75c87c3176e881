"""The strategies: each turns scored samples into an order, the first to go first."""

from dataclasses import dataclass, field
from numbers import Integral

import numpy as np
import torch
from joblib import Parallel, delayed

from .._engine.cotangents import require_columns
from .._engine.evaluate import logits_and_embeddings
from .._engine.reductions import off_diagonal_maxima
from .._nets import logits_module
from ..cluster._farthest_point import resolve_n_clusters
from ..cluster._traversal import farthest_point_clustering, farthest_point_order
from ..kernels import extract, make_extractor, operator_of
from ._selection import interleave
from ._similarity import CosineRows, CosineVectorRows, EuclideanRows, OperatorRows

REDUNDANT_BY = 1e-5  # a sample is redundant where kappa_ij > kappa_ii (1 + REDUNDANT_BY)


@dataclass
class Samples:
    """What a strategy may look at.

    Attributes
    ----------
    net : fitted skorch net or None
    X : ndarray of shape (n_samples, ...), as the net takes it
    raw : the same as the caller gave it
    columns : ndarray of shape (n_samples,)
        Labels as logit columns.
    options : dict
        ``kernel, scope, n_clusters, n_jobs, decide_only``.
    rng : numpy Generator
    """

    net: object
    X: np.ndarray
    raw: np.ndarray
    columns: np.ndarray
    options: dict
    rng: np.random.Generator
    _operators: dict = field(default_factory=dict)

    def __len__(self):
        return len(self.columns)

    @property
    def classes(self):
        """Sample indices of each class, ascending."""
        return [np.flatnonzero(self.columns == c) for c in np.unique(self.columns)]

    @property
    def groups(self):
        """Sample indices that are compared with each other."""
        whole = [np.arange(len(self))]
        return self.classes if self.options["scope"] == "class" else whole

    def operator(self, kernel=None):
        """The lazy kernel of all samples."""
        kernel = self.options["kernel"] if kernel is None else kernel
        if id(kernel) not in self._operators:
            extractor = make_extractor(self.net, kernel=kernel)
            features = extract(extractor, self.X, self.columns)
            if features.n_cotangents != 1:
                raise ValueError(
                    f"kernel={kernel!r} gives {features.n_cotangents} cotangents a sample; "
                    "pruning needs one: return an array of shape (n, K)."
                )
            self._operators[id(kernel)] = operator_of(features)
        return self._operators[id(kernel)]

    def per_class(self, function):
        """``function(class indices)`` for every class, in parallel threads."""
        jobs = Parallel(n_jobs=self.options["n_jobs"], prefer="threads")
        return jobs(delayed(function)(members) for members in self.classes)


@dataclass
class Ordering:
    """What a strategy found; fields that it did not compute are None."""

    prune_order: np.ndarray
    redundancy: np.ndarray | None = None
    dominators: np.ndarray | None = None
    n_redundant: int | None = None
    scores: np.ndarray | None = None  # what the order was made by, where it is a number
    labels: np.ndarray | None = None
    centers: np.ndarray | None = None
    head_size: int | None = None  # samples in the largest cluster

    def n_recipe(self, head_fraction):
        """How many the paper's recipe drops: the redundant, and part of the head."""
        return (self.n_redundant or 0) + round(head_fraction * (self.head_size or 0))


# -- keep what is visited first -----------------------------------------------------------


def _visit_within_classes(samples, visit):
    visits = samples.per_class(lambda members: members[visit(members)])
    return _kept_by(visits, samples)


def _kept_by(visits, samples):
    return Ordering(interleave(visits, len(samples))[::-1].copy())


def herding(samples):
    """Kernel herding: the mean feature of the samples kept so far follows the class's."""
    operator = samples.operator()
    return _visit_within_classes(
        samples, lambda members: herding_order(OperatorRows(operator._restricted(members)))
    )


def herding_order(rows):
    """``argmax_j mu_j - s_j / (t + 1)`` among those not chosen; ties to the lowest index."""
    mean, total = rows.mean(), np.zeros(len(rows))
    order = np.empty(len(rows), dtype=np.int64)
    chosen = np.zeros(len(rows), dtype=bool)
    for t in range(len(rows)):
        gain = np.where(chosen, -np.inf, mean - total / (t + 1))
        order[t] = np.argmax(gain)
        chosen[order[t]] = True
        total += rows.row(order[t])
    return order


def _cover(rows):
    return farthest_point_order(int(np.argmax(rows.mean())), rows.row, len(rows))


def coverage(samples):
    """Farthest point traversal of the cosine kernel in each class, from its most central."""
    operator = samples.operator()
    return _visit_within_classes(
        samples, lambda members: _cover(CosineRows(operator._restricted(members)))
    )


def k_center(samples):
    """The same on the last layer's inputs, Euclidean."""
    _, embeddings = logits_and_embeddings(logits_module(samples.net), samples.X)
    Z = embeddings.cpu().numpy()
    return _visit_within_classes(samples, lambda members: _cover(EuclideanRows(Z[members])))


def k_center_input(samples):
    """The same on flattened X, by cosine; trains no net."""
    X = samples.X
    return _visit_within_classes(samples, lambda members: _cover(CosineVectorRows(X[members])))


def random(samples):
    """Stratified: a random order within each class."""
    return _kept_by([samples.rng.permutation(members) for members in samples.classes], samples)


# -- keep the hardest ---------------------------------------------------------------------


def el2n(samples):
    """Norm of the error vector: the easiest samples go first."""
    logits, _ = logits_and_embeddings(logits_module(samples.net), samples.X)
    y = torch.as_tensor(samples.columns, device=logits.device)
    require_columns(y, logits.shape[1])
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], 1)
    error = torch.softmax(logits, 1) - torch.nn.functional.one_hot(y, logits.shape[1])
    return _rising(error.norm(dim=1).cpu().numpy())


def grand(samples):
    """Norm of the loss gradient: the smallest go first."""
    return _rising(np.sqrt(samples.operator("loss_gradient").diag()))


def _rising(scores):
    return Ordering(np.argsort(scores, kind="stable"), scores=scores)


# -- the paper's rules --------------------------------------------------------------------


def redundant(samples):
    """Section 4.2: samples that another one dominates, by falling redundancy."""
    scores = redundancy_scores(samples)
    if samples.options["decide_only"]:
        first = scores.diagonal  # the smallest norms are the likeliest to be stood in for
        order = np.lexsort((first, ~scores.is_redundant))
        return Ordering(order, n_redundant=scores.n_redundant)
    return _with_scores(Ordering(scores.order), scores)


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
    for group in samples.groups:
        best, argmax = off_diagonal_maxima(samples.operator()._restricted(group))
        maxima[group] = best.double().cpu().numpy()
        argmax = argmax.cpu().numpy()
        dominators[group] = np.where(argmax >= 0, group[argmax], -1)
    diagonal = samples.operator().diag().astype(np.float64)
    twins = first_twins(samples.raw, samples.columns)
    dominated = maxima > diagonal * (1 + REDUNDANT_BY)
    is_redundant = dominated | (twins >= 0)
    dominators = np.where(dominated, dominators, twins)
    redundancy = np.full(n, np.inf)
    np.divide(maxima, diagonal, out=redundancy, where=diagonal > 0)
    return RedundancyScores(redundancy, dominators, is_redundant, diagonal)


def first_twins(X, columns):
    """For a later one of rows equal in X and y, the first of them; else -1."""
    first, twins = {}, np.full(len(X), -1)
    for i, row in enumerate(np.ascontiguousarray(X + 0)):  # + 0 makes -0 the same as 0
        j = first.setdefault((row.tobytes(), columns[i]), i)
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
            operator = samples.operator()._restricted(members)
            found, own = farthest_point_clustering(
                operator.diag(),
                lambda i, operator=operator: operator.block([i], slice(None))[0],
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


@dataclass(frozen=True)
class Strategy:
    """A strategy's function and what it needs."""

    order: callable
    needs_net: bool = True
    has_auto: bool = False
    clusters: bool = False


STRATEGIES = {
    "herding": Strategy(herding),
    "coverage": Strategy(coverage),
    "redundant": Strategy(redundant, has_auto=True),
    "head": Strategy(head, has_auto=True, clusters=True),
    "redundant+head": Strategy(redundant_head, has_auto=True, clusters=True),
    "keep_head": Strategy(keep_head, clusters=True),
    "random": Strategy(random, needs_net=False),
    "el2n": Strategy(el2n),
    "grand": Strategy(grand),
    "k_center": Strategy(k_center),
    "k_center_input": Strategy(k_center_input, needs_net=False),
}
