"""What a negative step does to the other tokens of a context."""

import torch


def squeeze(logits, negative, step):
    """Logits after a step that makes one token of a context unlikelier.

    ``z + step (pi - e_neg)``: gradient descent on the log-probability of the token ``negative``,
    exact for one context whose logits are free. All other logits rise, each by its probability, so
    that the mass goes where most is already: the negative token's probability falls, that of the
    likeliest other rises, and most of the rest falls the more, the more peaked the distribution.

    Parameters
    ----------
    logits : tensor of shape (V,) or (n, V)
        Before the step; V is at least 2.
    negative : int or tensor of shape (n,)
        The token that is made unlikelier, in each context.
    step : float or tensor of shape (n,)
        Learning rate times the weight of the negative loss; at least 0.

    Returns
    -------
    logits : tensor
        Of the same shape and dtype.

    Raises
    ------
    TypeError
        If ``logits`` is no floating tensor.
    ValueError
        If shapes don't fit, a token is not in the vocabulary, or a step is negative.

    References
    ----------
    .. [1] Ren and Sutherland, "Learning Dynamics of LLM Finetuning", section 3.3.
       arXiv:2407.10490

    Examples
    --------
    >>> import torch
    >>> from sklearn_lpntk.language import squeeze
    >>> before = torch.tensor([3.0, 1.0, 0.0, -4.0])
    >>> after = squeeze(before, 3, step=1.0)
    >>> torch.softmax(after, 0) > torch.softmax(before, 0)
    tensor([ True, False, False, False])
    """
    if not isinstance(logits, torch.Tensor) or not logits.is_floating_point():
        raise TypeError(
            "logits must be a floating tensor of shape (V,) or (n, V); got "
            f"{getattr(logits, 'dtype', type(logits).__name__)}."
        )
    if logits.ndim not in (1, 2) or logits.shape[-1] < 2:
        raise ValueError(
            f"logits must have shape (V,) or (n, V), V > 1; got {tuple(logits.shape)}."
        )
    negative = torch.as_tensor(negative, device=logits.device)
    step = torch.as_tensor(step, device=logits.device, dtype=logits.dtype)
    for name, value in (("negative", negative), ("step", step)):
        if value.shape not in (torch.Size([]), logits.shape[:-1]):
            raise ValueError(
                f"{name} must be one number or have the shape {tuple(logits.shape[:-1])} of the "
                f"contexts; got {tuple(value.shape)}."
            )
    out_of_range = bool(((negative < 0) | (negative >= logits.shape[-1])).any())
    if negative.is_floating_point() or negative.dtype == torch.bool or out_of_range:
        raise ValueError(
            f"negative must hold tokens from 0 to {logits.shape[-1] - 1}; got {negative}."
        )
    negative = negative.long()
    if not bool(((step >= 0) & (step < torch.inf)).all()):
        raise ValueError(f"step must be a number of at least 0; got {step}.")
    one_hot = torch.zeros_like(logits)
    one_hot.scatter_(-1, negative.expand(logits.shape[:-1]).unsqueeze(-1), 1)
    return logits + step.unsqueeze(-1) * (torch.softmax(logits, -1) - one_hot)
