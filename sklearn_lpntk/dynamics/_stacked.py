"""Many copies of a small network trained at once, each on data of its own: torch only."""

import warnings

import torch
from torch.func import grad, vmap
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from .._engine.autograd import Substituted
from .._engine.inputs import checked_forward, forward

# parameters of the copies in one stack: about as much as caches hold, or all that a GPU likes
STACK_NUMBERS = {"cpu": 2**22}
STACK_NUMBERS_ELSEWHERE = 2**28


def summed_losses(module, names, X, y, *, n_epochs, learning_rate):
    """Full-batch gradient descent on each of many data sets, from the module's weights.

    Parameters
    ----------
    module : nn.Module
        Borrowed.
    names : list of str
        The parameters that are trained.
    X : tensor of shape (n_sets, n, ...)
    y : int64 tensor of shape (n_sets, n)

    Returns
    -------
    losses : tensor of shape (n_sets, n)
        Sum over the epochs of each sample's cross-entropy before the step.
    """
    values = {name: p.detach() for name, p in module.named_parameters() if name in names}
    checked_forward(module, X[0])
    train = _Training(module, n_epochs, learning_rate)
    numbers = STACK_NUMBERS.get(X.device.type, STACK_NUMBERS_ELSEWHERE)
    size = max(1, numbers // sum(v.numel() for v in values.values()))
    parts = []
    for start in range(0, len(X), size):
        parts.append(train(values, X[start : start + size], y[start : start + size]))
    return torch.cat(parts)


class _Training:
    """Trains stacks of copies; one copy at a time where vmap does not know the network."""

    def __init__(self, module, n_epochs, learning_rate):
        self.module, self.n_epochs, self.learning_rate = module, n_epochs, learning_rate
        self.batched = True

    def __call__(self, values, X, y):
        if self.batched and len(X) > 1:
            try:
                stack = {k: v.expand(len(X), *v.shape).clone() for k, v in values.items()}
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of operators that run in a loop
                    return self._descend(vmap(grad(self._loss, has_aux=True)), stack, X, y)
            except torch.OutOfMemoryError:
                raise
            except Exception:  # vmap's failures have no common type
                self.batched = False
        step = grad(self._loss, has_aux=True)
        copies = (({k: v.clone() for k, v in values.items()}, *one) for one in zip(X, y))
        return torch.stack([self._descend(step, *copy) for copy in copies])

    def _descend(self, step, parameters, X, y):
        total = torch.zeros(y.shape, dtype=next(iter(parameters.values())).dtype, device=y.device)
        for _ in range(self.n_epochs):
            gradients, losses = step(parameters, X, y)
            total += losses
            for name, p in parameters.items():
                p.sub_(gradients[name], alpha=self.learning_rate)
        return total

    def _loss(self, parameters, X, y):
        logits = forward(Substituted(self.module, parameters), X)
        if logits.shape[1] == 1:
            target = y.to(logits.dtype)
            losses = binary_cross_entropy_with_logits(logits[:, 0], target, reduction="none")
        else:
            losses = cross_entropy(logits, y, reduction="none")
        return losses.mean(), losses.detach()
