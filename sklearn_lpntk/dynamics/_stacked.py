"""Many copies of a small network trained at once, each on data of its own: torch only."""

import warnings

import torch
from torch.func import grad, vmap
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from .._engine.autograd import Substituted
from .._engine.directional import weighted_gradient
from .._engine.inputs import checked_forward, forward
from .._engine.parameters import TOLERANCE
from .._runtime.progress import counted

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
        Samples of each set.
    y : int64 tensor of shape (n_sets, n)
        Their labels.

    Returns
    -------
    losses : tensor of shape (n_sets, n)
        Sum over the epochs of each sample's cross-entropy before the step.
    """
    parameters = dict(module.named_parameters())
    parameters = {name: parameters[name] for name in names}
    checked_forward(module, X[0])
    train = _Training(module, parameters, n_epochs, learning_rate)
    numbers = STACK_NUMBERS.get(X.device.type, STACK_NUMBERS_ELSEWHERE)
    size = max(1, numbers // sum(p.numel() for p in parameters.values()))
    starts = range(0, len(X), size)
    parts = (train(X[start : start + size], y[start : start + size]) for start in starts)
    return torch.cat(list(counted(parts, len(starts), "stacks of networks")))


class _Training:
    """Trains stacks of copies; one copy at a time where a stack does not do what autograd does.

    That is where vmap does not know the network, and where a weight is not found in its module: a
    stack gives every copy its own weights by putting them there.
    """

    def __init__(self, module, parameters, n_epochs, learning_rate):
        self.module, self.parameters = module, parameters
        self.n_epochs, self.learning_rate = n_epochs, learning_rate
        self.values = {name: p.detach().clone() for name, p in parameters.items()}
        self.stacked = None  # not known yet

    def __call__(self, X, y):
        if self.stacked is not False and len(X) > 1:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of operators that run in a loop
                    return self._together(X, y)
            except torch.OutOfMemoryError:
                raise
            except Exception:  # vmap's failures have no common type
                self.stacked = False
        return torch.stack([self._alone(*one) for one in zip(X, y)])

    def _together(self, X, y):
        step = vmap(grad(self._stacked_loss, has_aux=True))
        stack = {k: v.expand(len(X), *v.shape).clone() for k, v in self.values.items()}
        total = torch.zeros(y.shape, dtype=next(iter(stack.values())).dtype, device=y.device)
        for _ in range(self.n_epochs):
            gradients, losses = step(stack, X, y)
            if self.stacked is None and y.device.type != "meta":
                self._require_same({k: g[0] for k, g in gradients.items()}, X[0], y[0])
                self.stacked = True
            total += losses
            for name, p in stack.items():
                p.sub_(gradients[name], alpha=self.learning_rate)
        return total

    def _stacked_loss(self, parameters, X, y):
        losses = _losses(forward(Substituted(self.module, parameters), X), y)
        return losses.mean(), losses.detach()

    def _require_same(self, gradients, X, y):
        expected, _ = self._gradients(X, y)
        scale = torch.stack([g.norm() for g in expected.values()]).norm()
        for name, g in expected.items():
            if not (g - gradients[name]).norm() <= TOLERANCE[g.dtype] * scale:
                raise RuntimeError(f"The gradient of {name} in a stack is not that of autograd.")

    def _gradients(self, X, y):
        """Gradients of the mean loss, and the losses, of the module as it is."""
        kept = {}

        def v(logits):
            logits = logits.requires_grad_()
            with torch.enable_grad():
                kept["losses"] = _losses(logits, y)
                return torch.autograd.grad(kept["losses"].mean(), logits)[0]

        gradients, _ = weighted_gradient(self.module, self.parameters, X, v, checked=False)
        return gradients, kept["losses"].detach()

    def _alone(self, X, y):
        """One copy, in the module itself."""
        total = 0
        try:
            for _ in range(self.n_epochs):
                gradients, losses = self._gradients(X, y)
                total = total + losses
                if not all(g.isfinite().all() for g in gradients.values()):
                    return total * torch.nan
                with torch.no_grad():
                    for name, p in self.parameters.items():
                        p.sub_(gradients[name], alpha=self.learning_rate)
        finally:
            with torch.no_grad():
                for name, p in self.parameters.items():
                    p.copy_(self.values[name])
        return total


def _losses(logits, y):
    if logits.shape[1] == 1:
        target = y.to(logits.dtype)
        return binary_cross_entropy_with_logits(logits[:, 0], target, reduction="none")
    return cross_entropy(logits, y, reduction="none")
