"""Forward passes for scores that need no gradient: logits, and the last layer's inputs."""

import torch

from .check import require_independent_rows
from .inputs import checked_forward, n_rows, to_batch
from .parameters import require_finite_state
from .session import borrowed


def logits_and_embeddings(module, X, *, batch_size=256):
    """Logits (n, K) and the inputs of the last layer with parameters, flat: (n, D).

    The last layer is the one called last in the forward pass.
    """
    first = next(p for p in module.parameters() if p.is_floating_point())
    n, outputs = n_rows(X), []
    with borrowed(module), torch.no_grad(), _LastInput(module) as last:
        require_finite_state(module)
        head = to_batch(X, slice(0, batch_size), first.dtype, first.device)
        require_independent_rows(module, head, first.dtype)
        for start in range(0, n, batch_size):
            rows = slice(start, min(start + batch_size, n))
            logits = checked_forward(module, to_batch(X, rows, first.dtype, first.device))
            outputs.append((logits, last.value(len(logits))))
    logits, embeddings = zip(*outputs)
    return torch.cat(logits), torch.cat(embeddings)


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
