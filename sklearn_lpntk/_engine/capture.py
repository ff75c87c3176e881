"""Capture of layer calls: the input, and the gradient of the output by its edge.

Two sentences carry it. A repeated call is one more position. Record the edge, not the
tensor: an in-place activation rewrites the tensor (and its history) after the call.
"""

from dataclasses import dataclass, field

import torch
from torch.autograd.graph import GradientEdge, get_gradient_edge


@dataclass
class Call:
    """One call of a layer: its key, its input, and the gradients of its output."""

    key: str
    input: torch.Tensor
    edge: GradientEdge
    gradients: list = field(default_factory=list)  # one tensor or None per cotangent


class Recorder:
    """Context manager that records the calls of ``modules``, a dict of key -> module."""

    def __init__(self, modules):
        self.modules = modules
        self.calls = []

    def __enter__(self):
        self._handles = [
            module.register_forward_hook(self._hook(key), prepend=True, with_kwargs=True)
            for key, module in self.modules.items()
        ]
        return self

    def __exit__(self, *exc_info):
        for handle in self._handles:
            handle.remove()

    def _hook(self, key):
        def record(module, args, kwargs, output):
            if not torch.is_grad_enabled():
                return None  # the network cut the graph here: no gradient flows
            rooted = output
            if not output.requires_grad:
                rooted = output.detach().requires_grad_()
            if output._is_view() or rooted is not output:
                # an in-place operation on a view (Linear's output for 3-D input), or on
                # a leaf, would rewrite the history that the edge points to
                rooted = rooted.clone()
            value = args[0] if args else next(iter(kwargs.values()))
            self.calls.append(Call(key, value.detach(), get_gradient_edge(rooted)))
            return rooted if rooted is not output else None

        return record


def backward(logits, v, calls, others):
    """Fill the calls' gradients; return which of ``others`` (parameters) received one.

    ``v`` has shape (n, R, K). No weight gradient is formed for a recorded layer.
    """
    inputs = [call.edge for call in calls] + others
    reached = [False] * len(others)
    if not inputs or not logits.requires_grad:
        return reached
    n_cotangents = v.shape[1]
    for r in range(n_cotangents):
        gradients = torch.autograd.grad(
            logits, inputs, v[:, r], retain_graph=r < n_cotangents - 1, allow_unused=True
        )
        for call, gradient in zip(calls, gradients, strict=False):
            call.gradients.append(gradient)
        for k, gradient in enumerate(gradients[len(calls) :]):
            reached[k] = reached[k] or gradient is not None
    return reached
