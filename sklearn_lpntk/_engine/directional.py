"""Derivatives of the logits along one direction in the space of the parameters.

Called inside of ``borrowed``: a loop over training steps borrows its module once. The Jacobian is
the one that autograd knows: where a network cuts its graph, the derivative is cut, too.
"""

import warnings
from collections.abc import Mapping
from contextlib import contextmanager
from functools import cache

import torch
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from .autograd import Substituted, densified, explained, looped_gradients
from .evaluate import batches_of
from .inputs import checked_forward, forward, take
from .parameters import TOLERANCE, is_finite


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


def weighted_gradient(module, parameters, x, v, *, checked=True):
    """``sum_i J(x_i)^T v(z_i)`` over one batch, and its logits.

    Parameters
    ----------
    parameters : dict of str -> Parameter
    v : callable
        From logits without history to cotangents of the same shape.
    checked : bool
        Whether logits that are not finite are refused.

    Returns
    -------
    gradient : dict of str -> tensor
    logits : tensor of shape (n, K)
    """
    with _requiring_grad(parameters):
        logits = checked_forward(module, x) if checked else forward(module, x)
        gradient = _pull_back(logits, parameters, v(logits.detach()))
    return gradient, logits.detach()


def _pull_back(logits, parameters, v, **options):
    gradients = (None,) * len(parameters)
    if logits.requires_grad:
        with explained():
            gradients = torch.autograd.grad(
                logits, list(parameters.values()), v, allow_unused=True, **options
            )
    return {
        key: torch.zeros_like(p) if g is None else densified(g)
        for (key, p), g in zip(parameters.items(), gradients, strict=True)
    }


class DirectionalDerivative:
    """``J(x) t`` for a direction t, by the first way that is right for the network.

    In forward mode; by two reverse passes; by one reverse pass a logit and sample, which every
    network knows. A way that fails is given up, and so is one that some rows of the first batch,
    or of every sixty-fourth later, show to be wrong: ``v . (J t) = (J^T v) . t`` must hold for a
    random v.
    Attention runs in its plain form: the fused one has only first derivatives.
    """

    CHECKED, ROWS = 64, 4

    def __init__(self, module=None):
        self.module, self._calls = module, 0
        self._ways = [self._forward, self._two_reverse_passes, self._one_by_one]
        self._generator = torch.Generator().manual_seed(0)

    def __call__(self, x, direction):
        """Logits and their derivative, of shape (n, K); ``direction`` maps names to tensors."""
        parameters = dict(self.module.named_parameters())
        parameters = {key: parameters[key] for key in direction}
        checked = self._calls % self.CHECKED == 0
        self._calls += 1
        with sdpa_kernel(SDPBackend.MATH):
            while len(self._ways) > 1:
                try:
                    found = self._ways[0](x, parameters, direction)
                except torch.OutOfMemoryError:
                    raise
                except Exception:  # what a layer raises that does not know the way has no type
                    self._ways.pop(0)
                    continue
                if not checked or self._holds(found[1], x, parameters, direction):
                    return found
                self._ways.pop(0)
            return self._ways[0](x, parameters, direction)

    def _holds(self, tangent, x, parameters, direction):
        if tangent.device.type == "meta":
            return True
        if len(tangent) > self.ROWS:
            rows = torch.randperm(len(tangent), generator=self._generator)[: self.ROWS]
            x, tangent = take(x, rows.to(tangent.device)), tangent[rows.to(tangent.device)]
        v = torch.randn(tangent.shape, generator=self._generator).to(tangent)
        gradient, _ = weighted_gradient(self.module, parameters, x, lambda logits: v)
        products = torch.zeros(3, dtype=torch.float64, device=v.device)
        for key, t in direction.items():
            g = gradient.pop(key)
            pairs = (g, t), (g, g), (t, t)
            products += torch.stack([(a * b).sum(dtype=torch.float64) for a, b in pairs])
        found, expected = (v.double() * tangent).sum(), products[0]
        rounding = 10 * torch.finfo(tangent.dtype).eps * products[1:].prod().sqrt()
        allowed = TOLERANCE[tangent.dtype] * v.norm() * tangent.norm() + rounding
        return bool((found - expected).abs() <= allowed)

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
        with _requiring_grad(parameters), explained():
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
    """Autograd sees the parameters."""
    for p in parameters.values():
        p.requires_grad_(True)
    try:
        yield
    finally:
        for p in parameters.values():
            p.requires_grad_(False)


def as_direction(module, parameter_change):
    """A change of parameters, as tensors like those that it names."""
    if not isinstance(parameter_change, Mapping) or not parameter_change:
        raise ValueError(
            "parameter_change must be a dict of parameter name to change; got "
            f"{type(parameter_change).__name__} {parameter_change!r:.60}."
        )
    parameters, direction = dict(module.named_parameters(remove_duplicate=False)), {}
    prefixes = "_orig_mod.", "module."  # of torch.compile and DataParallel
    for prefix in prefixes:
        if not any(name in parameters for name in parameter_change):
            parameter_change = {k.removeprefix(prefix): v for k, v in parameter_change.items()}
    unknown = [name for name in parameter_change if name not in parameters]
    if unknown:
        raise ValueError(
            f"parameter_change names {unknown[:5]}, which are no parameters of the network; it has "
            f"{list(parameters)}."
        )
    canonical = {id(p): name for name, p in module.named_parameters()}
    for name, change in parameter_change.items():
        direction[canonical[id(parameters[name])]] = _as_change(name, change, parameters[name])
    return direction


def _as_change(name, change, parameter):
    try:
        change = torch.as_tensor(change).detach().to(parameter)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"parameter_change[{name!r}] must be a tensor or a numeric array; got {change!r:.60}."
        ) from error
    if change.shape != parameter.shape or not is_finite(change):
        raise ValueError(
            f"parameter_change[{name!r}] must be finite and of shape {tuple(parameter.shape)}; got "
            f"shape {tuple(change.shape)}."
        )
    return change
