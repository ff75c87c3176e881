"""What a step on some tokens does to others, to first order."""

import numpy as np
import torch
from sklearn.utils import Bunch

from .._engine.directional import as_direction
from ._batches import as_batch, labelled
from ._causal import Causal
from ._objectives import find_objective, log_proba
from ._sides import Scalars, Side

KEPT_BYTES = 2**28  # of gradients that are kept side by side


def token_influence(model, observed, update, *, objective="sft", reference=None, parameters=None):
    """What a step on the loss of one token changes at every other token, to first order.

    Parameters
    ----------
    model : nn.Module
        A causal language model, as in :func:`sequence_kernel`.
    observed : batch
        Sequences whose M labelled tokens are watched, as in :func:`sequence_kernel`.
    update : batch
        Sequences of whose L labelled tokens one is learnt.
    objective : {"sft", "dpo"}, DPO or callable, default="sft"
        The loss of a token of ``update``, as in :func:`sequence_kernel`.
    reference : nn.Module or array of shape (n, T), default=None
        For ``"dpo"``, as in :func:`sequence_kernel`.
    parameters : str, sequence of str or callable, default=None
        Which trainable parameters the step changes. None means all.

    Returns
    -------
    influence : Bunch
        ``matrix`` : ndarray of shape (M, L)
            ``matrix[m, l]`` is the change of log pi(y_m) (nats) by a step of rate 1 on the loss
            of token l.
        ``log_proba`` : ndarray of shape (M,)
            log pi(y_m) before the step.
        ``tokens`` : Bunch
            ``observed`` and ``update``: ids of the tokens, of shape (M,) and (L,);
            ``observed_positions`` and ``update_positions``: (sequence, position) of each, of shape
            (M, 2) and (L, 2). Tokens are sequence-major.

    Raises
    ------
    TypeError, ValueError
        As :func:`sequence_kernel`.

    See Also
    --------
    predict_log_proba : What one step on all tokens does.
    sklearn_lpntk.inspection.TokenInfluenceDisplay : The matrix as a heat map.

    Notes
    -----
    One backward pass and one Jacobian-vector product for each token on one side, with memory for
    two gradients. Of a small model, one backward pass for each token on both sides.

    References
    ----------
    .. [1] Ren and Sutherland, "Learning Dynamics of LLM Finetuning". arXiv:2407.10490

    Examples
    --------
    >>> import torch
    >>> from sklearn_lpntk.language import token_influence
    >>> class Bigram(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.embed, self.head = torch.nn.Embedding(9, 4), torch.nn.Linear(4, 9)
    ...     def forward(self, input_ids):
    ...         return self.head(self.embed(input_ids))
    >>> influence = token_influence(Bigram(), {"input_ids": [[1, 2, 3]]}, {"input_ids": [[1, 2]]})
    >>> influence.matrix.shape
    (2, 1)
    >>> bool(influence.matrix[0, 0] > 0)  # what is learnt becomes likelier
    True
    """
    observed, update = as_batch(observed, "observed"), as_batch(update, "update")
    objective = find_objective(objective)
    with Causal(model, {"observed": observed, "update": update}, reference) as causal:
        update = objective.prepared(causal, update, reference)
        watched = Side(Scalars(causal, log_proba, parameters), observed)
        learnt = Side(Scalars(causal, objective, parameters), update)
        return Bunch(
            matrix=-_products(watched, learnt),
            log_proba=causal.log_proba(observed)[watched.mask].cpu().numpy(),
            tokens=_tokens(observed=observed, update=update),
        )


def predict_log_proba(
    model,
    probes,
    update=None,
    *,
    objective="sft",
    learning_rate=None,
    parameter_change=None,
    reference=None,
    parameters=None,
):
    """Change of the log-probability of answers by a step, before it is taken.

    Parameters
    ----------
    model : nn.Module
        A causal language model, as in :func:`sequence_kernel`.
    probes : batch
        The answers that are watched: their labelled tokens.
    update : batch, default=None
        The step's batch: it is on the mean loss of its labelled tokens, as transformers computes
        it; with ``"dpo"``, on that of its pairs.
    objective : {"sft", "dpo"}, DPO or callable, default="sft"
        As in :func:`sequence_kernel`.
    learning_rate : float, default=None
        Of plain gradient descent, above 0.
    parameter_change : dict of str to tensor, default=None
        The change of each named parameter, in place of ``update`` and ``learning_rate``: what an
        optimiser with momentum, or Adam, really did.
    reference : nn.Module or array of shape (n, T), default=None
        For ``"dpo"``, as in :func:`sequence_kernel`.
    parameters : str, sequence of str or callable, default=None
        Which trainable parameters the step changes. None means all.

    Returns
    -------
    prediction : Bunch
        ``delta_log_proba`` : ndarray of shape (n, T)
            Change of each token's log-probability (nats), to first order; aligned with the labels,
            NaN where there is none.
        ``log_proba`` : ndarray of shape (n, T)
            Before the step.
        ``delta_response`` : ndarray of shape (n,)
            The sum over an answer's tokens.

    Raises
    ------
    TypeError, ValueError
        As :func:`sequence_kernel`; and if the learning rate is not above 0, or a parameter change
        names no parameter or has another shape.

    See Also
    --------
    token_influence : What each token of the step contributes.
    sklearn_lpntk.dynamics.predict_update : The same for classifiers.

    Notes
    -----
    One backward pass and one Jacobian-vector product. What is left out is of the order of
    ``learning_rate ** 2``.

    References
    ----------
    .. [1] Ren and Sutherland, "Learning Dynamics of LLM Finetuning", Proposition 1.
       arXiv:2407.10490

    Examples
    --------
    >>> import torch
    >>> from sklearn_lpntk.language import predict_log_proba
    >>> class Bigram(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.embed, self.head = torch.nn.Embedding(9, 4), torch.nn.Linear(4, 9)
    ...     def forward(self, input_ids):
    ...         return self.head(self.embed(input_ids))
    >>> step = {"input_ids": [[1, 2, 3]]}
    >>> prediction = predict_log_proba(Bigram(), step, step, learning_rate=0.1)
    >>> bool(prediction.delta_response[0] > 0)
    True
    """
    _require_one_step(update, learning_rate, parameter_change, parameters)
    objective, probes = find_objective(objective), as_batch(probes, "probes")
    if update is None:
        return predicted_along(model, probes, parameter_change)
    update = as_batch(update, "update")
    with Causal(model, {"probes": probes, "update": update}, reference) as causal:
        update = objective.prepared(causal, update, reference)
        gradient = Side(Scalars(causal, objective, parameters), update).gradient()
        rate = learning_rate / objective.size(update)
        direction = {name: g.mul_(-rate) for name, g in gradient.items()}
        return _predicted(Side(Scalars(causal, log_proba), probes), direction)


def predicted_along(model, probes, parameter_change, derivative=None):
    """The same of a change of the parameters; ``derivative`` is that of an earlier call."""
    with Causal(model, {"probes": probes}) as causal:
        scalars = Scalars(causal, log_proba, derivative=derivative)
        try:
            direction = as_direction(causal.module, parameter_change)
            return _predicted(Side(scalars, probes), direction)
        finally:
            scalars.derivative.module = None  # it may be kept, and the model must not be


def _predicted(watched, direction):
    values = watched.values_and_derivatives(direction)
    before, delta = (_laid_out(part, watched.mask) for part in values)
    return Bunch(delta_log_proba=delta, log_proba=before, delta_response=np.nansum(delta, axis=1))


def _products(left, right):
    """Inner products of the gradients of all tokens of two sides, (n_left, n_right).

    Those of the side with fewer tokens are kept where they are small; else each is a direction in
    which the other side is differentiated, at the price of a gradient for each of its sequences.
    """
    one, other = sorted([left, right], key=lambda side: side.n_tokens)
    if one.n_tokens * one.scalars.n_parameters * 8 <= KEPT_BYTES:
        kept = torch.stack([_flat(g) for g in one.gradients()])
        found = np.stack([(kept @ _flat(g)).cpu().numpy() for g in other.gradients()], 1)
    else:
        if other.n_tokens * (1 + one.n) < one.n_tokens * (1 + other.n):
            one, other = other, one
        found = np.stack([other.along(g) for g in one.gradients()])
    return found if one is left else found.T


def _flat(gradient):
    return torch.cat([g.flatten().double() for g in gradient.values()])


def _tokens(**batches):
    found = Bunch()
    for name, batch in batches.items():
        mask = labelled(batch)
        found[name] = batch["labels"][mask].cpu().numpy()
        found[f"{name}_positions"] = mask.nonzero().cpu().numpy()
    return found


def _laid_out(values, mask):
    out = np.full(tuple(mask.shape), np.nan, dtype=values.dtype)
    out[mask.cpu().numpy()] = values
    return out


def _require_one_step(update, learning_rate, parameter_change, parameters):
    given = {"update": update, "learning_rate": learning_rate, "parameters": parameters}
    if parameter_change is not None:
        surplus = [name for name, value in given.items() if value is not None]
        if surplus:
            raise ValueError(
                "parameter_change= takes the place of the step, and names what it changes: pass "
                f"None for {surplus}."
            )
        return
    if update is None:
        raise ValueError("update is needed, or parameter_change= in place of it; got None.")
    if learning_rate is None or not 0 < learning_rate < np.inf:
        raise ValueError(f"learning_rate must be a number above 0; got {learning_rate!r}.")
