"""The oracle that can't be wrong: one sample, one backward pass at a time."""

import numpy as np
import torch

from sklearn_lpntk._engine.inputs import forward, n_rows, take


def literal_cotangent(kernel, logits, y):
    """The table of cotangents, entry by entry, for one sample: (1, R, K)."""
    (z,), (label,), K = logits, y, logits.shape[1]
    if callable(kernel):
        v = kernel(logits, y)
        return v if v.ndim == 3 else v[:, None]
    if kernel in ("entk", "entk_trace"):
        return torch.eye(K, dtype=z.dtype)[None]
    v = torch.zeros(1, 1, K, dtype=z.dtype)
    for k in range(K):
        hit = float(label == 1) if K == 1 else float(k == label)
        probability = z[k].exp() / z.exp().sum() if K > 1 else 1 / (1 + (-z[k]).exp())
        v[0, 0, k] = {
            "lpntk": (1.0 if hit else -1.0) / K**0.5,
            "pntk": 1 / K**0.5,
            "pntk_first": 1.0 if k == 0 else 0.0,
            "loss_gradient": probability - hit,
        }[kernel]
    return v


def oracle_features(module, X, y, kernel, names=None):
    """phi, sample-major, for the parameters named (all trainable ones by default)."""
    module.eval()
    parameters = [
        p
        for name, p in module.named_parameters()
        if p.requires_grad and (names is None or name in names)
    ]
    rows = []
    for i in range(n_rows(X)):
        logits = forward(module, take(X, slice(i, i + 1)))
        v = literal_cotangent(kernel, logits.detach(), y[i : i + 1])
        for r in range(v.shape[1]):
            gradients = torch.autograd.grad(
                logits, parameters, v[:, r], retain_graph=True, allow_unused=True
            )
            parts = [
                (torch.zeros_like(p) if g is None else g.to_dense() if g.is_sparse else g).flatten()
                for p, g in zip(parameters, gradients, strict=True)
            ]
            rows.append(torch.cat(parts))
    phi = torch.stack(rows).detach()
    if kernel == "entk_trace":  # the gradients of all logits one after the other, their mean
        phi = phi.reshape(n_rows(X), -1) * (len(phi) / n_rows(X)) ** -0.5
    return phi


def oracle_kernel(module, X, y, kernel, names=None):
    phi = oracle_features(module, X, y, kernel, names)
    return (phi @ phi.T).numpy()


def assert_same_kernel(found, expected, rtol=1e-10):
    """Equal to ``rtol`` of the largest entry (entries themselves may cancel to zero)."""
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * np.abs(expected).max())
