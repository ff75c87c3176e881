"""What makes a candidate worth a label, from the outputs after it has got one."""

import numpy as np
from scipy.special import softmax

from .._runtime.progress import report

BLOCK = 2**23  # numbers in the outputs of a block of candidates


def two_columns(outputs):
    """Outputs of two classes for the only one of a network; others as they are."""
    if outputs.shape[-1] > 1:
        return outputs
    return np.concatenate([-outputs, outputs], -1) / 2


def as_given(logits, outputs):
    """What the regression continues: logits, or probabilities (of one logit between -1 and 1)."""
    if outputs == "logits":
        return logits
    return softmax(logits, 1) if logits.shape[1] > 1 else np.tanh(logits / 2)


def probabilities(values, outputs):
    """Of all classes, for values that are logits or probabilities: (n, n_classes)."""
    if outputs == "logits":
        return softmax(two_columns(values), 1)
    return values if values.shape[1] > 1 else np.hstack([1 - values, 1 + values]) / 2


def largest_probability(values, outputs):
    """The largest of each last axis; values are used up."""
    if outputs == "probabilities":
        one = values.shape[-1] == 1
        return np.clip((1 + np.abs(values[..., 0])) / 2 if one else values.max(-1), 0, 1)
    values = two_columns(values)
    values -= values.max(-1, keepdims=True)
    np.exp(values, out=values)
    return 1 / values.sum(-1)


def labels_as_outputs(classes, n_outputs):
    """Labels as the outputs that they should have: one-hot, or -1 and 1 for the only one."""
    if n_outputs == 1:
        return 2.0 * np.asarray(classes)[:, None] - 1
    return np.eye(n_outputs)[classes]


def pseudo_labels(candidates, outputs, how):
    """Labels of candidates by the network, or by its linearisation on the labelled samples."""
    by = outputs if how == "net" else candidates.linear
    return two_columns(by).argmax(1)


def scores(candidates, outputs, objective, how, form):
    """A score of every candidate: the highest is the first to be labelled.

    Parameters
    ----------
    candidates : Candidates
    outputs : ndarray of shape (U, n_outputs)
        Of the network.
    objective : {"change", "agreement", "expected_risk"}
    how : {"net", "linearized"}
    form : {"logits", "probabilities"}
        What the outputs are.
    """
    E, n, K = len(candidates.seen_outputs), candidates.n, candidates.n_outputs
    step = max(1, min(n, BLOCK // (E * max(K, 2))))
    found = np.empty(n)
    labels = labels_as_outputs(pseudo_labels(candidates, outputs, how), K)
    for start in range(0, n, step):
        j = slice(start, min(start + step, n))
        if objective == "expected_risk":
            found[j] = -_expected_risk(candidates, outputs[j], j, form)
        else:
            after = candidates.updated(labels[j], j)
            found[j] = OBJECTIVES[objective](after, candidates.seen_outputs)
        report(j.stop, n, "candidates")
    return found


def _change(after, before):
    """Sum over samples of how far their outputs move."""
    after -= before[:, None]
    return np.sqrt(np.einsum("xjk,xjk->xj", after, after)).sum(0)


def _disagreement(after, before):
    """Share of samples whose predicted class is another one."""
    return (two_columns(after).argmax(2) != two_columns(before).argmax(1)[:, None]).mean(0)


def _expected_risk(candidates, outputs, j, form):
    """Mean over samples of 1 - the largest probability, averaged over the candidate's labels."""
    proba = probabilities(outputs, form)
    risk = np.zeros(len(outputs))
    for k in range(proba.shape[1]):
        labels = labels_as_outputs(np.full(len(outputs), k), candidates.n_outputs)
        after = candidates.updated(labels, j)
        risk += proba[:, k] * (1 - largest_probability(after, form)).mean(0)
    return risk


OBJECTIVES = {"change": _change, "agreement": _disagreement, "expected_risk": None}
