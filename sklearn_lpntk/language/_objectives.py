"""Objectives of language models: one loss a labelled token, from logits and a batch.

Logits at position t predict token t + 1; what is returned is aligned with the labels, (n, T), and
zero where there is none.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ._batches import labelled


def log_proba(logits, batch):
    """Log-probabilities of the labels, (n, T), zero where there is none."""
    labels = batch["labels"][:, 1:].clamp(min=0)
    every = torch.log_softmax(logits[:, :-1], 2)
    return _where_labelled(every.gather(2, labels.unsqueeze(2)).squeeze(2), batch)


def largest_log_proba(logits, batch):
    """Log-probabilities of the likeliest tokens in place of the labels."""
    return _where_labelled(torch.log_softmax(logits[:, :-1], 2).amax(2), batch)


def _where_labelled(values, batch):
    return F.pad(torch.where(labelled(batch)[:, 1:], values, 0), (1, 0))


@dataclass(frozen=True)
class SFT:
    """Supervised fine-tuning: the negative log-probability of each labelled token."""

    def prepared(self, model, batch, reference=None):
        """The batch, with what the losses need besides the logits of their own sequence."""
        _require_no_reference(reference, "sft")
        return batch

    def __call__(self, logits, batch):
        return -log_proba(logits, batch)

    def size(self, batch):
        """Number of losses whose mean a step is made on."""
        return int(labelled(batch).sum())


@dataclass(frozen=True)
class DPO:
    """Direct preference optimisation: ``L = -log sigmoid(beta margin)``, as shares of its tokens.

    A batch has the chosen answers in its first half and the rejected ones, in the same order, in
    its second, as `trl` has them. The loss of a token is what it adds to the gradient of its
    pair's loss: the margin inside of the sigmoid is that of the model as it is.

    Parameters
    ----------
    beta : float, default=0.1
        Above 0.
    """

    beta: float = 0.1

    def __post_init__(self):
        if not 0 < self.beta < float("inf"):
            raise ValueError(f"beta must be a number above 0; got {self.beta!r}.")

    def prepared(self, model, batch, reference=None):
        """The batch, with the derivative of the loss by each token's log-probability.

        Parameters
        ----------
        model : Causal
            What computes log-probabilities.
        batch : dict of tensors
            Chosen answers, then rejected ones.
        reference : nn.Module or tensor of shape (n, T), default=None
            The reference model, or its log-probabilities.
        """
        n = len(batch["labels"])
        if n % 2:
            raise ValueError(
                "objective='dpo' needs the chosen answers in the first half of the batch and the "
                f"rejected ones in the second; got {n} sequences, which is odd."
            )
        own = model.log_proba(batch).sum(1)
        ratios = own - _reference_sums(model, batch, reference).to(own)
        chosen, rejected = (self.beta * ratios).chunk(2)
        slope = self.beta * torch.sigmoid(rejected - chosen)
        weights = torch.cat([-slope, slope])[:, None].expand(batch["labels"].shape)
        return batch | {"weights": weights.clone()}

    def __call__(self, logits, batch):
        return batch["weights"] * log_proba(logits, batch)

    def size(self, batch):
        """Number of pairs, on whose mean loss a step is made.

        Parameters
        ----------
        batch : dict of tensors
            Chosen answers, then rejected ones.
        """
        return len(batch["labels"]) // 2


@dataclass(frozen=True)
class Custom:
    """A callable ``(logits, batch) -> losses`` of shape (n, T), aligned with the labels."""

    function: object

    def prepared(self, model, batch, reference=None):
        """The batch as it is."""
        _require_no_reference(reference, self.function)
        return batch

    def __call__(self, logits, batch):
        losses = self.function(logits, batch)
        shape = batch["labels"].shape
        if not isinstance(losses, torch.Tensor) or losses.shape != shape:
            raise ValueError(
                f"The objective {self.function!r} must return a tensor of shape {tuple(shape)}, a "
                "loss for each token, aligned with the labels (logits at t predict token t + 1); "
                f"got {getattr(losses, 'shape', type(losses).__name__)}."
            )
        return torch.where(labelled(batch), losses, 0)

    def size(self, batch):
        """Number of losses whose mean a step is made on."""
        return int(labelled(batch).sum())


REFERENCE = "ref_chosen_logps", "ref_rejected_logps"  # as trl calls them
NAMED = {"sft": SFT(), "dpo": DPO()}


def find_objective(objective):
    """An objective by its name, of a callable, or as it is."""
    if isinstance(objective, (SFT, DPO, Custom)):
        return objective
    if callable(objective):
        return Custom(objective)
    if not isinstance(objective, str) or objective not in NAMED:
        raise ValueError(
            f"objective must be one of {sorted(NAMED)}, DPO(beta=...), or a callable (logits, "
            f"batch) -> losses of shape (n, T); got {objective!r}."
        )
    return NAMED[objective]


def _require_no_reference(reference, objective):
    if reference is not None:
        raise ValueError(
            f"reference= belongs to objective='dpo'; objective={objective!r} has no use for it."
        )


def _half(batch, name):
    """What a batch says of one half of its answers."""
    values, n = batch[name], len(batch["labels"]) // 2
    if values.shape != (n,) or not torch.isfinite(values).all():
        raise ValueError(
            f"{name} must be finite and of shape ({n},), one number a pair; got shape "
            f"{tuple(values.shape)}."
        )
    return values


def _reference_sums(model, batch, reference):
    """Log-probabilities of the answers under the reference model, (n,)."""
    mask = labelled(batch)
    if isinstance(reference, torch.nn.Module):
        return model.reference_log_proba(reference, batch).sum(1)
    if reference is None and set(REFERENCE) <= batch.keys():
        return torch.cat([_half(batch, name) for name in REFERENCE])
    if reference is None:
        return model.base_log_proba(batch).sum(1)
    reference = torch.as_tensor(reference)
    if reference.shape != mask.shape or reference.is_complex():
        raise ValueError(
            "reference must be the reference model, or its log-probabilities of the labels, of "
            f"shape {tuple(mask.shape)}; got shape {tuple(reference.shape)}."
        )
    known = torch.where(mask.to(reference.device), reference, 0)
    if not torch.isfinite(known).all():
        raise ValueError("reference has NaN or infinity where tokens have labels.")
    return known.sum(1)
