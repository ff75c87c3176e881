"""Per-sample gradients of any parameter by autograd: slow, and obviously right."""

import time
import warnings
from contextlib import contextmanager

import torch
from torch.func import vjp, vmap

from .inputs import forward, mapped, n_rows, take

CHUNK_NUMBERS = 2**25  # per-sample gradient entries that one vmap chunk may hold
TRIED = 16  # samples on which the two ways are timed


def per_sample_gradients(module, names, x, v, *, loop):
    """Gradients of the named parameters: dict of (n, R, P) tensors; None where vmap fails.

    ``v`` are the gradients of the scalars with respect to the logits, (n, R, *logits).
    """
    if loop:
        return looped_gradients(module, names, x, v)
    try:
        return batched_gradients(module, names, x, v)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # vmap's failures have no common type
        return None


def is_looped_faster(module, names, x, v):
    """Whether one sample at a time is faster than ``vmap``, or the only way."""
    x, v, seconds = take(x, slice(0, TRIED)), v[:TRIED], {}
    if v.device.type == "meta":
        return per_sample_gradients(module, names, x, v, loop=False) is None
    for loop in (False, True):
        begin = time.perf_counter()
        if per_sample_gradients(module, names, x, v, loop=loop) is None:
            return True
        seconds[loop] = time.perf_counter() - begin
    return seconds[True] < seconds[False]


def batched_gradients(module, names, x, v):
    """Gradients of the named parameters by ``vmap``: dict of (n, R, P) tensors.

    Raises whatever ``vmap`` raises where it doesn't work.
    """
    parameters = {name: p.detach() for name, p in module.named_parameters() if name in names}

    def one_sample(x_i, v_i):
        row = mapped(lambda t: t[None], x_i)

        def logits(parameters):
            return forward(Substituted(module, parameters), row)[0]

        _, pullback = vjp(logits, parameters)
        pulled = [pullback(v_ir)[0] for v_ir in v_i]
        return {name: torch.stack([p[name].flatten() for p in pulled]) for name in parameters}

    numbers = v.shape[1] * sum(p.numel() for p in parameters.values())
    chunk = max(1, CHUNK_NUMBERS // max(1, numbers))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # vmap warns of operators that it runs in a loop
        return vmap(one_sample, chunk_size=min(chunk, len(v)))(x, v)


class Substituted:
    """The module called with other parameter values, in either calling convention.

    A parameter is replaced wherever it is, also in a module that is found under two names
    (``torch.func.functional_call`` leaves such a module with the wrong tensors).
    """

    def __init__(self, module, values):
        self.module = module
        self.values = {id(p): values[key] for key, p in module.named_parameters() if key in values}

    def __call__(self, *args, **kwargs):
        places = [
            (child._parameters, key, p)
            for child in self.module.modules()
            for key, p in child._parameters.items()
            if id(p) in self.values
        ]
        try:
            for owner, key, p in places:
                owner[key] = self.values[id(p)]
            return self.module(*args, **kwargs)
        finally:
            for owner, key, p in places:
                owner[key] = p


def looped_gradients(module, names, x, v):
    """The same as `batched_gradients`, one sample and one backward pass at a time."""
    parameters = {name: p for name, p in module.named_parameters() if name in names}
    n, n_cotangents = v.shape[:2]
    out = {name: v.new_zeros(n, n_cotangents, p.numel()) for name, p in parameters.items()}
    for i in range(n_rows(x)):
        logits = forward(module, take(x, slice(i, i + 1)))
        if not logits.requires_grad:
            continue
        for r in range(n_cotangents):
            gradients = torch.autograd.grad(
                logits,
                list(parameters.values()),
                v[i : i + 1, r],
                retain_graph=True,  # what the network keeps for later is part of it
                allow_unused=True,
            )
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    out[name][i, r] = densified(gradient).flatten()
    return out


@contextmanager
def explained():
    """Say of a failing backward pass what it says about the network."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ValueError(
            "The network can't be differentiated in evaluation mode (reentrant activation "
            "checkpointing? an in-place operation that autograd forbids?). "
            f"Original error: {error}"
        ) from error


def densified(gradient):
    """Embeddings with ``sparse=True`` give sparse gradients."""
    return gradient.to_dense() if gradient.layout != torch.strided else gradient
