"""Products with a matrix: every position adds an outer product."""

from dataclasses import dataclass

import torch

from ..samples import by_sample
from .elementwise import batched_product
from .terms import Entries, Positions, Use, arguments, gathered


@dataclass
class LinearUse(Use):
    """A product with inputs x, by a matrix (O, D), or (D, O) where ``transposed``."""

    x: torch.Tensor
    transposed: bool = False

    def term(self, call, role, n, with_bias=False):
        """What the call adds to the gradient of its weight or bias."""
        g = gathered(call, n, 1)
        if role == "bias":
            return Entries(g.sum(2))
        a = by_sample(self.x, call.where, n, 1).to(g.dtype)
        return Positions(_with_ones(a) if with_bias else a, g, self.transposed)


def _with_ones(a):
    out = a.new_empty(*a.shape[:2], a.shape[2] + 1)
    out[..., :-1], out[..., -1] = a, 1
    return out


class Linear:
    """`F.linear`."""

    names = "linear"

    @staticmethod
    def apply(recorder, name, function, args, kwargs):
        given = arguments("input weight bias", args, kwargs)
        x, weight, bias = given.values()
        if recorder.weight(x) or weight.ndim != 2:
            return NotImplemented
        if recorder.weight(bias) and bias.shape != weight.shape[:1]:
            with recorder:
                return torch.nn.functional.linear(x, weight) + bias
        out = recorder.run(name, function, args, kwargs)
        return recorder.record(LinearUse(x.detach()), {"weight": weight, "bias": bias}, out)


class MatMul:
    """`torch.matmul` and its like with a weight on the right or on the left."""

    names = "matmul mm bmm"

    @staticmethod
    def apply(recorder, name, function, args, kwargs):
        a, b = arguments("input other", args, kwargs).values() if not kwargs else (None, None)
        if a is None or (recorder.weight(a) and recorder.weight(b)):
            return NotImplemented
        if recorder.weight(a):
            if a.ndim < 2 or b.ndim < 2:
                return NotImplemented
            with recorder:
                return torch.matmul(b.mT, a.mT).mT
        if b.ndim != 2:
            return batched_product(recorder, a, b)
        out = recorder.run(name, function, args, kwargs)
        return recorder.record(LinearUse(a.detach(), transposed=True), {"weight": b}, out)


class AddMM:
    """`torch.addmm`: a product and a bias, as in GPT-2's ``Conv1D``."""

    names = "addmm"

    @staticmethod
    def apply(recorder, name, function, args, kwargs):
        if kwargs or len(args) != 3 or recorder.weight(args[1]):
            return NotImplemented
        bias, x, weight = args
        if recorder.weight(bias) and bias.shape != weight.shape[1:]:
            with recorder:
                return torch.mm(x, weight) + bias
        out = recorder.run(name, function, args, kwargs)
        use = LinearUse(x.detach(), transposed=True)
        return recorder.record(use, {"weight": weight, "bias": bias}, out)
