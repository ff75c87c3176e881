"""What makes a candidate worth a label, from the outputs after it has got one."""

import numpy as np
from scipy.special import softmax

from .._runtime.progress import report

BLOCK = 2**23  # numbers in the outputs of a block of candidates


def two_columns(outputs):
    """Logits of two classes for the only logit of a network; others as they are."""
    if outputs.shape[-1] > 1:
        return outputs
    return np.concatenate([-outputs, outputs], -1) / 2


def labels_as_outputs(classes, n_outputs):
    """Labels as the outputs that they should have: one-hot, or -1 and 1 for the only one."""
    if n_outputs == 1:
        return 2.0 * np.asarray(classes)[:, None] - 1
    return np.eye(n_outputs)[classes]


def pseudo_labels(candidates, outputs, how):
    """Labels of candidates by the network, or by its linearisation on the labelled samples."""
    by = outputs if how == "net" else candidates.linear
    return two_columns(by).argmax(1)


def scores(candidates, outputs, objective, how):
    """A score of every candidate: the highest is the first to be labelled.

    Parameters
    ----------
    candidates : Candidates
    outputs : ndarray of shape (U, n_outputs)
        Of the network.
    objective : {"change", "agreement", "expected_risk"}
    how : {"net", "linearized"}
    """
    E, n, K = len(candidates.seen_outputs), candidates.n, candidates.n_outputs
    step = max(1, min(n, BLOCK // (E * max(K, 2))))
    found = np.empty(n)
    labels = labels_as_outputs(pseudo_labels(candidates, outputs, how), K)
    for start in range(0, n, step):
        j = slice(start, min(start + step, n))
        if objective == "expected_risk":
            found[j] = -_expected_risk(candidates, outputs[j], j)
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


def _expected_risk(candidates, outputs, j):
    """Mean over samples of 1 - max softmax, averaged over the candidate's labels."""
    proba = softmax(two_columns(outputs), 1)
    risk = np.zeros(len(outputs))
    for k in range(proba.shape[1]):
        labels = labels_as_outputs(np.full(len(outputs), k), candidates.n_outputs)
        after = two_columns(candidates.updated(labels, j))
        after -= after.max(2, keepdims=True)
        np.exp(after, out=after)
        risk += proba[:, k] * (1 - 1 / after.sum(2)).mean(0)
    return risk


OBJECTIVES = {"change": _change, "agreement": _disagreement, "expected_risk": None}
