"""One step of training and what it does to other samples, to first order."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import expit, softmax

from .._engine.cotangents import find_cotangent
from .._engine.directional import DirectionalDerivative, as_direction, mean_gradient
from .._engine.evaluate import all_logits, batches_of, require_sane
from .._engine.parameters import accepted, select_parameters
from .._engine.session import borrowed
from .._samples.columns import columns_of
from .._skorch.networks import Network
from ..kernels import entk_kernel
from ._validation import blamed, require_learning_rate, require_same_samples

LOSS_GRADIENT = find_cotangent("loss_gradient")


@dataclass(frozen=True)
class UpdatePrediction:
    """What a step changes at the probes, to first order.

    A network with one logit has K = 1; its probability is that of label 1.

    Attributes
    ----------
    delta_proba, delta_log_proba, delta_logits : ndarray of shape (n_probe, K)
        Changes of the probabilities, of their natural logarithms, and of the logits.
    logits : ndarray of shape (n_probe, K)
        Before the step.
    A : ndarray of shape (n_probe, K, K) or None
        Derivative of the probabilities by the logits; this and the next two with
        ``method="ntk"``.
    K : ndarray of shape (n_probe, n_update, K, K) or None
        Empirical tangent kernel of every pair.
    G : ndarray of shape (n_update, K) or None
        Error vectors ``e_y - q`` of the update samples.
    """

    delta_proba: np.ndarray
    delta_log_proba: np.ndarray
    delta_logits: np.ndarray
    logits: np.ndarray
    A: np.ndarray | None = None
    K: np.ndarray | None = None
    G: np.ndarray | None = None


def predict_update(
    net,
    X_update,
    y_update,
    X_probe,
    *,
    learning_rate=None,
    method="jvp",
    parameter_change=None,
):
    """Predict what one training step changes at other samples (equation 1 of [1]_).

    A step of gradient descent on the mean cross-entropy of the update samples changes the
    probabilities of a probe, to first order in the learning rate, by
    ``eta A(x_o) mean_u K(x_o, x_u) (e_{y_u} - q_u)``. What is left out is of the order of
    ``learning_rate ** 2``.

    Parameters
    ----------
    net : nn.Module or fitted skorch net
        The network; it must return logits. It is used in evaluation mode (no dropout, running
        statistics of BatchNorm) and comes back exactly as it was.
    X_update : array or tensor of shape (n_update, ...), dict of them, data set, or None
        The samples of the step, in any form that
        :func:`~sklearn_lpntk.kernels.empirical_ntk` takes.
    y_update : array of shape (n_update,) or None
        Their labels, logit columns 0..K-1 (0 and 1 for a network with one logit). None takes those
        of a data set's items.
    X_probe : array or tensor of shape (n_probe, ...), dict of them, or data set
        The samples whose predictions are watched.
    learning_rate : float
        Of plain gradient descent, above 0.
    method : {"jvp", "ntk"}, default="jvp"
        ``"jvp"``: the gradient of the step, then one Jacobian-vector product at the probes, for
        the price of a few training steps. ``"ntk"``: by the factors A, K and G, which are
        returned too; K has n_probe * n_update * K**2 numbers.
    parameter_change : dict of str to tensor or array, default=None
        The change of each named parameter, in place of ``-learning_rate`` times the gradient:
        what an optimiser with momentum, or Adam, really did. Parameters that are not named
        stay. Then X_update, y_update and learning_rate are None.

    Returns
    -------
    prediction : UpdatePrediction
        With ``delta_proba, delta_log_proba, delta_logits``, ndarrays of shape (n_probe, K).

    Raises
    ------
    TypeError
        If ``net`` is neither a module nor a skorch net.
    NotFittedError
        If the skorch net is not fitted.
    ValueError
        If the learning rate is not above 0, labels are no logit columns, the probes do not fit
        the network, or a parameter change names no parameter or has another shape.

    See Also
    --------
    predict_forgetting : Which right predictions the next step flips.
    sklearn_lpntk.kernels.entk_kernel : The kernel K of all pairs.

    Notes
    -----
    The Jacobian is the one that autograd knows: what a network computes under
    ``torch.no_grad`` or detaches is taken for a constant (straight-through estimators), though a
    real step changes it, too.

    Where a layer has no forward-mode derivative, the Jacobian-vector product takes two reverse
    passes; where it has no second derivative either, one reverse pass a logit and sample. The
    first batch, and every sixty-fourth later, is checked against the gradient.

    References
    ----------
    .. [1] "lpNTK: Better Generalisation with Less Data via Sample Interaction During
       Learning", section 2.1. arXiv:2401.08808

    Examples
    --------
    >>> import torch
    >>> from sklearn_lpntk.dynamics import predict_update
    >>> _ = torch.manual_seed(0)
    >>> net, X = torch.nn.Linear(2, 3), torch.eye(2)
    >>> step = predict_update(net, X[:1], [2], X, learning_rate=0.1)
    >>> step.delta_proba[0, 2] > 0  # learning a sample makes its label likelier
    np.True_
    """
    network = Network(net)
    module = accepted(network.module)
    X_probe = network.inputs(X_probe, "X_probe")
    if method not in ("jvp", "ntk"):
        raise ValueError(f"method must be 'jvp' or 'ntk'; got {method!r}.")
    if parameter_change is not None:
        _require_change_only(X_update, y_update, learning_rate, method)
        return _along(module, as_direction(module, parameter_change), X_probe)
    require_learning_rate(learning_rate)
    if X_update is None:
        raise ValueError("X_update is needed, or parameter_change= in place of it; got None.")
    X_update = network.inputs(X_update, "X_update")
    require_same_samples(X_update=X_update, X_probe=X_probe)
    y_update = columns_of(X_update, y_update, ("X_update", "y_update"))
    if method == "ntk":
        return _by_factors(module, X_update, y_update, X_probe, learning_rate)
    gradient = _loss_gradient(module, X_update, y_update)
    return _along(module, {name: -learning_rate * g for name, g in gradient.items()}, X_probe)


def _loss_gradient(module, X, y):
    names = select_parameters(module, None)
    with borrowed(module), blamed("X_update, y_update"):
        require_sane(module, X)
        parameters = dict(module.named_parameters())
        parameters = {name: parameters[name] for name in names}
        return mean_gradient(module, parameters, X, torch.as_tensor(y), LOSS_GRADIENT)


def _along(module, direction, X_probe):
    """The prediction for a change of the parameters."""
    derivative = DirectionalDerivative(module)
    with borrowed(module), blamed("X_probe"):
        require_sane(module, X_probe)
        parts = [derivative(x, direction) for _, x in batches_of(module, X_probe, 256)]
    logits, delta_logits = (torch.cat(part).cpu().numpy() for part in zip(*parts))
    return update_prediction(logits, delta_logits)


def _by_factors(module, X_update, y_update, X_probe, learning_rate):
    with blamed("X_update, y_update"):
        z = all_logits(module, X_update)
        G = -LOSS_GRADIENT(z, torch.as_tensor(y_update, device=z.device))[:, 0].cpu().numpy()
    with blamed("X_probe"):
        logits = all_logits(module, X_probe).cpu().numpy()
    K = entk_kernel(module, X_probe, X_update)
    delta_logits = learning_rate / len(G) * np.einsum("ouab,ub->oa", K, G)
    return update_prediction(logits, delta_logits, A=softmax_derivative(logits), K=K, G=G)


def update_prediction(logits, delta_logits, **factors):
    """The changes of probabilities that a change of logits makes, to first order."""
    if logits.shape[1] == 1:
        q = expit(logits)
        delta_log_proba = (1 - q) * delta_logits
    else:
        q = softmax(logits, axis=1)
        delta_log_proba = delta_logits - (q * delta_logits).sum(axis=1, keepdims=True)
    return UpdatePrediction(q * delta_log_proba, delta_log_proba, delta_logits, logits, **factors)


def softmax_derivative(logits):
    """``diag(q) - q q^T`` of each sample: (n, K, K); of one logit, ``q (1 - q)``."""
    if logits.shape[1] == 1:
        q = expit(logits)
        return (q * (1 - q))[:, :, None]
    q = softmax(logits, axis=1)
    return q[:, :, None] * (np.eye(q.shape[1], dtype=q.dtype) - q[:, None, :])


# -- a given change of the parameters -------------------------------------------------------


def _require_change_only(X_update, y_update, learning_rate, method):
    given = {"X_update": X_update, "y_update": y_update, "learning_rate": learning_rate}
    surplus = [name for name, value in given.items() if value is not None]
    if surplus or method != "jvp":
        raise ValueError(
            "parameter_change= takes the place of the step: pass None for X_update, y_update and "
            f"learning_rate, and method='jvp'; got {surplus or f'method={method!r}'}."
        )
