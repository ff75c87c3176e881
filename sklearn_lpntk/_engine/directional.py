"""Derivatives of the logits along one direction in the space of the parameters.

Called inside of ``borrowed``: a loop over training steps borrows its module once.
"""

import warnings
from contextlib import contextmanager
from functools import cache

import torch
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from .autograd import Substituted, densified, looped_gradients
from .evaluate import batches_of
from .inputs import checked_forward, forward, take


def mean_gradient(module, parameters, X, y, cotangent, *, batch_size=256):
    """``mean_i J(x_i)^T v(z_i, y_i)``, by name of the parameter; y is a tensor of columns."""
    total = {}
    for rows, x in batches_of(module, X, batch_size):
        columns = y[rows].to(next(iter(parameters.values())).device)
        gradient, _ = weighted_gradient(
            module, parameters, x, lambda logits, c=columns: cotangent(logits, c)[:, 0]
        )
        total = {name: total.get(name, 0) + g for name, g in gradient.items()}
    return {name: g / len(y) for name, g in total.items()}


def weighted_gradient(module, parameters, x, v):
    """``sum_i J(x_i)^T v(z_i)`` over one batch, and its logits.

    Parameters
    ----------
    parameters : dict of str -> Parameter
    v : callable
        From logits without history to cotangents of the same shape.

    Returns
    -------
    gradient : dict of str -> tensor
    logits : tensor of shape (n, K)
    """
    with _requiring_grad(parameters):
        logits = checked_forward(module, x)
        gradient = _pull_back(logits, parameters, v(logits.detach()))
    return gradient, logits.detach()


def _pull_back(logits, parameters, v, **options):
    gradients = (None,) * len(parameters)
    if logits.requires_grad:
        gradients = torch.autograd.grad(
            logits, list(parameters.values()), v, allow_unused=True, **options
        )
    return {
        key: torch.zeros_like(p) if g is None else densified(g)
        for (key, p), g in zip(parameters.items(), gradients, strict=True)
    }


class DirectionalDerivative:
    """``J(x) t`` for a direction t, by the first way that the network's layers know.

    In forward mode; by two reverse passes; by one reverse pass a logit and sample, which every
    network knows. Attention runs in its plain form: the fused one has only first derivatives.
    """

    def __init__(self, module):
        self.module = module
        self._ways = [self._forward, self._two_reverse_passes, self._one_by_one]

    def __call__(self, x, direction):
        """Logits and their derivative, of shape (n, K); ``direction`` maps names to tensors."""
        parameters = dict(self.module.named_parameters())
        parameters = {key: parameters[key] for key in direction}
        with sdpa_kernel(SDPBackend.MATH):
            while len(self._ways) > 1:
                try:
                    return self._ways[0](x, parameters, direction)
                except torch.OutOfMemoryError:
                    raise
                except (RuntimeError, ValueError):
                    self._ways.pop(0)
            return self._ways[0](x, parameters, direction)

    def _forward(self, x, parameters, direction):
        _load_forward_mode()
        with torch.no_grad(), forward_ad.dual_level():
            duals = {
                key: forward_ad.make_dual(p.detach(), direction[key])
                for key, p in parameters.items()
            }
            logits = forward(Substituted(self.module, duals), x)
            primal, tangent = forward_ad.unpack_dual(logits)
        return primal, torch.zeros_like(primal) if tangent is None else tangent

    def _two_reverse_passes(self, x, parameters, direction):
        # v -> J^T v is linear, so its derivative along t is J t, whatever v is
        with _requiring_grad(parameters):
            logits = checked_forward(self.module, x)
            v = torch.zeros_like(logits, requires_grad=True)
            gradient = _pull_back(logits, parameters, v, create_graph=True)
            along = sum((gradient[key] * direction[key]).sum() for key in direction)
            if not along.requires_grad:
                return logits.detach(), torch.zeros_like(logits)
            (tangent,) = torch.autograd.grad(along, v)
        return logits.detach(), tangent

    def _one_by_one(self, x, parameters, direction):
        with torch.no_grad():
            logits = checked_forward(self.module, x)
        with _requiring_grad(parameters):
            tangents = []
            for i in range(len(logits)):
                row = take(x, slice(i, i + 1))
                eye = torch.eye(logits.shape[1], dtype=logits.dtype, device=logits.device)[None]
                gradients = looped_gradients(self.module, set(parameters), row, eye)
                tangents.append(sum(gradients[k][0] @ direction[k].flatten() for k in parameters))
        return logits, torch.stack(tangents)


@cache
def _load_forward_mode():
    """The first use of forward mode scripts functions, of which torch warns by itself."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore", DeprecationWarning)
        forward_ad.make_dual(torch.zeros(1), torch.zeros(1))


@contextmanager
def _requiring_grad(parameters):
    for p in parameters.values():
        p.requires_grad_(True)
    try:
        yield
    finally:
        for p in parameters.values():
            p.requires_grad_(False)
