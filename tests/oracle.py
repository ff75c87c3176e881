"""The oracle that can't be wrong: one sample, one backward pass at a time."""

import numpy as np
import torch

from sklearn_lpntk._engine.cotangents import find_cotangent
from sklearn_lpntk._engine.inputs import forward, n_rows, take


def oracle_features(module, X, y, kernel, names=None):
    """phi, sample-major, for the parameters named (all trainable ones by default)."""
    module.eval()
    cotangent = find_cotangent(kernel)
    parameters = [
        p
        for name, p in module.named_parameters()
        if p.requires_grad and (names is None or name in names)
    ]
    rows = []
    for i in range(n_rows(X)):
        logits = forward(module, take(X, slice(i, i + 1)))
        v = cotangent(logits.detach(), y[i : i + 1])
        for r in range(v.shape[1]):
            gradients = torch.autograd.grad(
                logits, parameters, v[:, r], retain_graph=True, allow_unused=True
            )
            parts = [
                (torch.zeros_like(p) if g is None else g.to_dense() if g.is_sparse else g).flatten()
                for p, g in zip(parameters, gradients, strict=True)
            ]
            rows.append(torch.cat(parts))
    return torch.stack(rows).detach()


def oracle_kernel(module, X, y, kernel, names=None):
    phi = oracle_features(module, X, y, kernel, names)
    return (phi @ phi.T).numpy()


def assert_same_kernel(found, expected, rtol=1e-10):
    """Equal to ``rtol`` of the largest entry (entries themselves may cancel to zero)."""
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * np.abs(expected).max())
