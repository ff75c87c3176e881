"""Strategies that rank training sequences: each gives scores, the highest first to be kept."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from sklearn.utils import gen_batches

from .._engine.reductions import row_extremes
from .._features import operator_of, workers_of
from .._skorch.nets import unwrapped
from ..pruning._orders import coverage_order, herding_order
from ..pruning._similarity import CosineRows, OperatorRows
from ._batches import IGNORED, are_rows, as_batch, as_rows
from ._causal import Causal
from ._kernel import sequence_kernel
from ._sides import Scalars, Side

BUCKET = 64  # sequences of similar length, which are padded together


@dataclass
class Candidates:
    """Sequences to select from, and what they are compared with.

    Attributes
    ----------
    train, validation : list of dict
        Sequences without padding; ``validation`` is None where there are none.
    options : dict
        The selector's parameters.
    """

    model: torch.nn.Module
    objective: object
    train: list
    validation: list | None
    options: dict
    rng: np.random.RandomState

    @cached_property
    def causal(self):
        """The model, to be tried on the sequences."""
        given = {"train_batches": as_batch(self.train)}
        if self.validation is not None:
            given["validation_batches"] = as_batch(self.validation)
        return Causal(self.model, given)

    @cached_property
    def scalars(self):
        """The loss of each token."""
        return Scalars(self.causal, self.objective, self.options["parameters"])

    @property
    def lengths(self):
        """Labelled tokens of each training sequence."""
        return n_tokens(self.train)

    def buckets(self, rows):
        """(indices, batch) of sequences of similar length."""
        order = np.argsort([len(row["labels"]) for row in rows], kind="stable")
        for part in gen_batches(len(rows), BUCKET):
            yield order[part], as_batch([rows[i] for i in order[part]])

    def kernel(self, *batches):
        """The kernel of sequences, of one batch or of two."""
        keys = "parameters", "n_components"
        options = {key: self.options[key] for key in keys}
        if self.options["n_components"] is not None:
            options["random_state"] = self.rng.randint(2**31 - 1)
        return sequence_kernel(self.model, *batches, objective=self.objective, **options)


def n_tokens(rows):
    """Labelled tokens of sequences."""
    return np.array([int((row["labels"] != IGNORED).sum()) for row in rows])


def gradient_similarity(candidates):
    """How far a step on a sequence's mean loss lowers the validation set's, to first order."""
    validation = candidates.validation
    if validation is None:
        raise ValueError(
            "strategy='gradient_similarity' compares with a validation set: pass "
            "validation_batches."
        )
    cosine = candidates.options["similarity"] == "cosine"
    if cosine or candidates.options["n_components"] is not None:
        return _by_kernel(candidates, cosine)
    out = np.empty(len(candidates.train))
    with candidates.causal:
        direction = _direction(candidates)
        for rows, batch in candidates.buckets(candidates.train):
            side = Side(candidates.scalars, batch)
            owners = side.mask.nonzero()[:, 0].numpy()
            out[rows] = np.bincount(owners, side.along(direction), len(rows))
    return out / candidates.lengths


def _direction(candidates):
    """The gradient of the validation set's mean loss, as the optimizer scales it."""
    direction, validation = {}, candidates.validation
    for _, batch in candidates.buckets(validation):
        for name, g in Side(candidates.scalars, batch).gradient().items():
            direction[name] = direction[name].add_(g) if name in direction else g
    for name, g in direction.items():
        g.div_(n_tokens(validation).sum())
        if candidates.options["optimizer"] is not None:
            g.div_(_adam_scale(candidates, name))
    return direction


def _by_kernel(candidates, cosine):
    """The same from features of all sequences: their norms are known, and they may be sketches."""
    train, validation = (as_batch(rows) for rows in (candidates.train, candidates.validation))
    operator = candidates.kernel(train, validation)
    weights = np.full(operator.shape[1], 1 / n_tokens(candidates.validation).sum())
    changes = operator.matmul(weights) / candidates.lengths
    if not cosine:
        return changes
    own, theirs = (operator_of(side) for side in (operator.kernel.left, operator.kernel.right))
    norms = np.sqrt(own.diag()) / candidates.lengths * np.sqrt(weights @ theirs.matmul(weights))
    return np.divide(changes, norms, out=np.zeros_like(changes), where=norms > 0)


def _adam_scale(candidates, name):
    """What Adam divides a parameter's direction by, as it is now."""
    optimizer = candidates.options["optimizer"]
    p = dict(unwrapped(candidates.model).named_parameters())[name]
    all_groups = getattr(optimizer, "param_groups", [])
    groups = [group for group in all_groups if any(q is p for q in group["params"])]
    state = optimizer.state.get(p, {}) if groups else {}
    if not groups or "exp_avg_sq" not in state:
        raise ValueError(
            f"optimizer has no second moment of the parameter {name!r}: pass the Adam or AdamW "
            "that took steps on this model."
        )
    (group,) = groups
    corrected = state["exp_avg_sq"] / (1 - group["betas"][1] ** float(state["step"]))
    return corrected.sqrt().add_(group["eps"])


def herding(candidates):
    """Those whose mean feature follows that of all."""
    return _by_rank(herding_order(OperatorRows(candidates.kernel(as_batch(candidates.train)))))


def coverage(candidates):
    """Those that are farthest from each other, by the cosine kernel."""
    return _by_rank(coverage_order(CosineRows(candidates.kernel(as_batch(candidates.train)))))


def redundant(candidates):
    """Those for which another stands in least: ``-max_{j != i} kappa_ij / kappa_ii``."""
    operator = candidates.kernel(as_batch(candidates.train))
    if operator.shape[0] == 1:
        return np.zeros(1)
    largest = row_extremes(operator.kernel, **workers_of(operator)).values[:, 0].cpu().numpy()
    own = operator.diag()
    return -np.divide(largest, own, out=np.full(len(own), np.inf), where=own > 0)


def loss(candidates):
    """Those of the highest mean loss."""
    out = np.empty(len(candidates.train))
    with candidates.causal:
        for rows, batch in candidates.buckets(candidates.train):
            losses = candidates.causal.evaluated(candidates.objective, batch)
            out[rows] = losses.sum(1).cpu().numpy()
    return out / candidates.lengths


def length(candidates):
    """Those with the most labelled tokens."""
    return candidates.lengths.astype(np.float64)


def random(candidates):
    """Any."""
    return _by_rank(candidates.rng.permutation(len(candidates.train)))


def _by_rank(order):
    scores = np.empty(len(order))
    scores[order] = -np.arange(len(order), dtype=np.float64)
    return scores


STRATEGIES = {
    function.__name__: function
    for function in (gradient_similarity, herding, coverage, redundant, loss, length, random)
}


def rows_of(batches, name):
    """The sequences of a batch, or of an iterable of batches, without padding."""
    if hasattr(batches, "keys") or _is_list_of_rows(batches):
        return _labelled_rows(as_rows(as_batch(batches, name)), name)
    try:
        batches = iter(batches)
    except TypeError:
        raise TypeError(
            f"{name} must be a batch or an iterable of batches; got {type(batches).__name__}."
        ) from None
    found = [as_rows(as_batch(batch, f"{name}[{i}]")) for i, batch in enumerate(batches)]
    if not found:
        raise ValueError(f"{name} has no batch.")
    return _labelled_rows([row for part in found for row in part], name)


def _labelled_rows(rows, name):
    empty = np.flatnonzero(n_tokens(rows) == 0)
    if len(empty):
        raise ValueError(
            f"{name} has sequences without a labelled token, as number {empty[0]}: a step on them "
            "changes nothing. Leave them out."
        )
    return rows


def _is_list_of_rows(batches):
    """Whether a list or a data set is one batch: of mappings with one sequence each."""
    if not are_rows(batches) or not len(batches) or not hasattr(batches[0], "keys"):
        return False
    ids = batches[0].get("input_ids")
    return ids is not None and np.ndim(ids) == 1
