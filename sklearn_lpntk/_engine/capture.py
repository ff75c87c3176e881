"""Capture of layer calls: the input, and the gradient of the output by its edge.

Two sentences carry it. A repeated call is one more position. Record the edge, not the
tensor: an in-place activation rewrites the tensor (and its history) after the call.
"""

from dataclasses import dataclass, field

import torch
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode


@dataclass
class Call:
    """One call of a layer: its key, its input, and the gradients of its output."""

    key: str
    input: torch.Tensor
    edge: GradientEdge
    gradients: list = field(default_factory=list)  # one tensor or None per cotangent


class Recorder(TorchFunctionMode):
    """Records the calls of ``modules`` (key -> module), and uses of their weights outside.

    A weight that is used without its layer being called (``F.linear(x, layer.weight)``,
    attention's output projection) lands in ``used_outside``, as the id of the parameter.

    Enter it for the forward pass, set ``recording`` to False, and leave it after the
    backward pass: activation checkpointing calls the layers again there.
    """

    def __init__(self, modules, parameters):
        super().__init__()
        self.modules = modules
        self.parameters = {id(p) for p in parameters}
        self.calls, self.used_outside, self.recording = [], set(), True
        self._depth = 0  # calls of recorded layers under way

    def __enter__(self):
        self._handles = []
        for key, module in self.modules.items():
            self._handles += [
                module.register_forward_pre_hook(self._enter_layer, prepend=True),
                module.register_forward_hook(self._hook(key), prepend=True, with_kwargs=True),
            ]
        return super().__enter__()

    def __exit__(self, *exc_info):
        for handle in self._handles:
            handle.remove()
        return super().__exit__(*exc_info)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if self.recording and not self._depth and isinstance(out, torch.Tensor):
            for value in (*args, *(kwargs or {}).values()):
                many = value if isinstance(value, (list, tuple)) else (value,)
                self.used_outside |= self.parameters & {id(one) for one in many}
        return out

    def _enter_layer(self, module, args):
        self._depth += 1

    def _hook(self, key):
        def record(module, args, kwargs, output):
            self._depth -= 1
            if not torch.is_grad_enabled():
                return None  # the network cut the graph here: no gradient flows
            rooted = output
            if not output.requires_grad:
                rooted = output.detach().requires_grad_()
            if output._is_view() or rooted is not output:
                # an in-place operation on a view (Linear's output for 3-d input), or on
                # a leaf, would rewrite the history that the edge points to
                rooted = rooted.clone()
            if self.recording:
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
