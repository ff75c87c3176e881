"""Negative-token hidden rewards: tokens of wrong answers that hold up the right ones."""

import torch
from sklearn.utils import Bunch

VOCABULARIES = "full", "group"


def nthr_scores(
    hidden, logits, completion_ids, completion_mask, rewards, *, beta=1.0, vocabulary="full"
):
    """Hidden rewards of the tokens of a group's wrong answers (section 5 of [1]_).

    A token of a wrong answer scores by how far learning it would make the right answers' tokens
    likelier, as the last layer alone tells: ``s = sum_{i,k} <g_ik, g><h_ik, h>`` over the tokens of
    the right answers, with the error ``g = e_y - pi`` and the last hidden state h. Pushing down a
    token with a high score pushes down the right answers, too.

    Parameters
    ----------
    hidden : tensor of shape (G, T, D)
        Last hidden states; ``hidden[g, t]`` predicts ``completion_ids[g, t]``.
    logits : tensor of shape (G, T, V)
        Logits of the same positions, at the temperature of sampling.
    completion_ids : int tensor of shape (G, T)
        G answers to one prompt.
    completion_mask : tensor of shape (G, T)
        1 for an answer's tokens, 0 for padding.
    rewards : tensor of shape (G,)
        An answer is right where its reward is above the group's mean.
    beta : float, default=1.0
        Of the threshold: the smallest mean score of a right answer's own tokens, times beta.
    vocabulary : {"full", "group"}, default="full"
        Entries of the errors that count: all, or those of tokens that occur in the group, which
        takes less memory.

    Returns
    -------
    found : Bunch
        ``scores`` : tensor of shape (G, T)
            NaN outside of wrong answers' tokens.
        ``threshold`` : float
            NaN where all answers are right or all are wrong.
        ``selected`` : bool tensor of shape (G, T)
            Tokens whose score is above the threshold.

    Raises
    ------
    ValueError
        If shapes don't fit, or ``vocabulary`` is not known.

    See Also
    --------
    nthr_advantages : The advantages that follow.

    References
    ----------
    .. [1] Deng et al., "On the Effect of Negative Gradient in Group Relative Deep Reinforcement
       Optimization". arXiv:2505.18830

    Examples
    --------
    >>> import torch
    >>> from sklearn_lpntk.language import nthr_scores
    >>> hidden, logits = torch.randn(4, 5, 8), torch.randn(4, 5, 20)
    >>> ids, mask = torch.randint(20, (4, 5)), torch.ones(4, 5)
    >>> found = nthr_scores(hidden, logits, ids, mask, torch.tensor([1.0, 0.0, 0.0, 1.0]))
    >>> found.scores.isnan().all(1)
    tensor([ True, False, False,  True])
    """
    mask, rewards = _checked(hidden, logits, completion_ids, completion_mask, rewards, vocabulary)
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits, rewards = logits.float(), rewards.float()
    hidden = hidden.to(logits.dtype)
    right = rewards > rewards.mean()
    scores = torch.full(mask.shape, torch.nan, dtype=logits.dtype, device=logits.device)
    mixed = right.any() and not right.all()
    if not (mixed and mask[right].any()):
        nothing = torch.zeros_like(mask)
        return Bunch(scores=scores, threshold=float("nan"), selected=nothing)
    columns = torch.arange(logits.shape[2], device=logits.device)
    if vocabulary == "group":
        columns = completion_ids[mask].unique()
    total = 0
    for row in right.nonzero()[:, 0].tolist():
        g, h = _errors(logits, completion_ids, mask, row, columns), hidden[row][mask[row]]
        total = total + g.T @ h  # M, (V, D)
    own = []
    for row in mask.any(1).nonzero()[:, 0].tolist():
        g, h = _errors(logits, completion_ids, mask, row, columns), hidden[row][mask[row]]
        s = ((g @ total) * h).sum(1)
        if right[row]:
            own.append(s.mean())
        else:
            scores[row, mask[row]] = s
    threshold = beta * float(torch.stack(own).min())
    return Bunch(scores=scores, threshold=threshold, selected=scores > threshold)


def nthr_advantages(
    advantages,
    hidden,
    logits,
    completion_ids,
    completion_mask,
    rewards,
    *,
    beta=1.0,
    vocabulary="full",
    eta="balanced",
):
    """Advantages of a group's tokens, those with a high hidden reward punished less.

    Parameters
    ----------
    advantages : tensor of shape (G,) or (G, T)
        Those of the answers, or of their tokens.
    hidden, logits, completion_ids, completion_mask, rewards, beta, vocabulary
        As in :func:`nthr_scores`.
    eta : float or "balanced", default="balanced"
        What the advantages of selected tokens are multiplied by; ``"balanced"`` is
        ``2 |1/2 - p|``, p the share of right answers.

    Returns
    -------
    advantages : tensor of shape (G, T)
        Those of groups that are all right or all wrong are unchanged.

    Raises
    ------
    ValueError
        As :func:`nthr_scores`; and if ``eta`` is negative, or the advantages have another shape.

    Examples
    --------
    >>> import torch
    >>> from sklearn_lpntk.language import nthr_advantages
    >>> hidden, logits = torch.randn(4, 5, 8), torch.randn(4, 5, 20)
    >>> ids, mask, rewards = torch.randint(20, (4, 5)), torch.ones(4, 5), torch.ones(4)
    >>> nthr_advantages(torch.zeros(4), hidden, logits, ids, mask, rewards).shape
    torch.Size([4, 5])
    """
    found = nthr_scores(
        hidden, logits, completion_ids, completion_mask, rewards, beta=beta, vocabulary=vocabulary
    )
    return spared(advantages, found.selected, rewards, eta)


def spared(advantages, selected, rewards, eta):
    """Advantages of tokens, those selected times eta."""
    shape = selected.shape
    if advantages.shape not in (shape, shape[:1]):
        raise ValueError(
            f"advantages must have shape ({shape[0]},) or {tuple(shape)}; got "
            f"{tuple(advantages.shape)}."
        )
    spread = advantages.unsqueeze(1).expand(shape) if advantages.ndim == 1 else advantages
    if eta == "balanced":
        rewards = torch.as_tensor(rewards).float()
        eta = 2 * abs(0.5 - float((rewards > rewards.mean()).float().mean()))
    elif isinstance(eta, str) or not eta >= 0:
        raise ValueError(f"eta must be 'balanced' or a number of at least 0; got {eta!r}.")
    return torch.where(selected.to(spread.device), spread * eta, spread)


def _errors(logits, ids, mask, row, columns):
    """``e_y - pi`` of an answer's tokens, (length, V) or some of its columns."""
    own = mask[row]
    g = -torch.softmax(logits[row][own], 1)[:, columns]
    at = torch.searchsorted(columns, ids[row][own])
    g[torch.arange(len(g), device=g.device), at] += 1
    return g


def _checked(hidden, logits, ids, mask, rewards, vocabulary):
    """The mask as booleans and the rewards as numbers, both on the device of the logits."""
    if vocabulary not in VOCABULARIES:
        raise ValueError(f"vocabulary must be one of {VOCABULARIES}; got {vocabulary!r}.")
    mask = torch.as_tensor(mask, device=logits.device).bool()
    rewards = torch.as_tensor(rewards, device=logits.device)
    if logits.ndim != 3 or hidden.ndim != 3 or hidden.shape[:2] != logits.shape[:2]:
        raise ValueError(
            "hidden must have shape (G, T, D) and logits (G, T, V); got "
            f"{tuple(hidden.shape)} and {tuple(logits.shape)}."
        )
    for name, value, shape in (
        ("completion_ids", ids, logits.shape[:2]),
        ("completion_mask", mask, logits.shape[:2]),
        ("rewards", rewards, logits.shape[:1]),
    ):
        if value.shape != shape:
            raise ValueError(f"{name} must have shape {tuple(shape)}; got {tuple(value.shape)}.")
    own = ids[mask]
    if len(own) and (own.min() < 0 or own.max() >= logits.shape[2]):
        raise ValueError(
            f"completion_ids has tokens from {int(own.min())} to {int(own.max())}, and logits "
            f"{logits.shape[2]} columns."
        )
    if not torch.isfinite(rewards.double()).all():
        raise ValueError("rewards must be finite.")
    return mask, rewards.to(logits.dtype)
