"""Forward passes without gradients: logits, and the last layer's inputs."""

import torch

from .check import LOOKED_AT, require_independent_rows
from .cotangents import look_like_probabilities, warn_of_probabilities
from .inputs import checked_forward, n_rows, to_batch
from .parameters import require_finite_state
from .session import borrowed


def all_logits(module, X, *, batch_size=256):
    """Logits of all samples: (n, K)."""
    with borrowed(module), torch.no_grad():
        require_sane(module, X)
        return torch.cat([checked_forward(module, x) for _, x in batches_of(module, X, batch_size)])


def logits_and_embeddings(module, X, *, batch_size=256):
    """Logits (n, K) and the inputs of the last layer with parameters, flat: (n, D).

    The last layer is the one called last in the forward pass.
    """
    outputs = []
    with borrowed(module), torch.no_grad(), _LastInput(module) as last:
        require_sane(module, X)
        for _, x in batches_of(module, X, batch_size):
            logits = checked_forward(module, x)
            outputs.append((logits, last.value(len(logits))))
    logits, embeddings = zip(*outputs)
    return torch.cat(logits), torch.cat(embeddings)


def require_sane(module, X):
    """Refuse a network with NaN in it, or whose logits of a row depend on the others."""
    require_finite_state(module)
    _, x = next(batches_of(module, X, LOOKED_AT))
    logits = require_independent_rows(module, x, _first_parameter(module).dtype)
    if logits is not None and look_like_probabilities(logits):
        warn_of_probabilities(stacklevel=4)


def batches_of(module, X, batch_size):
    """(rows, tensors as the module takes them) of consecutive batches."""
    first, n = _first_parameter(module), n_rows(X)
    for start in range(0, n, batch_size):
        rows = slice(start, min(start + batch_size, n))
        yield rows, to_batch(X, rows, first.dtype, first.device)


def _first_parameter(module):
    return next(p for p in module.parameters() if p.is_floating_point())


class _LastInput:
    """Context manager that keeps the input of the leaf layer called last."""

    def __init__(self, module):
        self._layers = [m for m in module.modules() if m._parameters]

    def __enter__(self):
        self._handles = [m.register_forward_pre_hook(self._record) for m in self._layers]
        return self

    def __exit__(self, *exc_info):
        for handle in self._handles:
            handle.remove()

    def _record(self, module, args):
        if args:
            self._input = args[0]

    def value(self, n):
        if not hasattr(self, "_input") or len(self._input) != n:
            raise ValueError(
                "strategy='k_center' compares the inputs of the network's last layer, and this "
                "network calls no layer with parameters on one row a sample; use "
                "'k_center_input' or 'coverage'."
            )
        return self._input.flatten(1).detach()
