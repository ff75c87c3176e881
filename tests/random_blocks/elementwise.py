"""Arithmetic with broadcasting."""

import torch
from torch import nn
from torch.nn import functional as F

from .draw import block, made, weight


@block(1, 2, 3)
def activation(draw, *shape):
    kind = draw.of(nn.Tanh, nn.GELU, nn.SiLU, nn.ELU, nn.Softplus)
    return kind(), shape


@block(1, 2, 3)
def rectifier_in_place(draw, *shape):
    leaky = draw.yes()
    after = nn.LeakyReLU(0.2, inplace=True) if leaky else nn.ReLU(inplace=True)
    return nn.Sequential(nn.Linear(shape[-1], shape[-1]), after), shape


@block(1, 2, 3)
def scale(draw, *shape):
    """A layer scale, a position embedding, a shift: parameters of any broadcast shape."""
    kept = draw.random.randint(0, len(shape))
    sizes = tuple(s if draw.yes() else 1 for s in shape[kept:])
    sizes = (1, *shape) if draw.of(0, 0, 1) else sizes
    how = draw.of(
        lambda x, w: x * w,
        lambda x, w: w * x,
        lambda x, w: x + w,
        lambda x, w: w - x,
        lambda x, w: x / (2 + w.tanh()),
        lambda x, w: torch.where(x > 0, x, w),
        lambda x, w: torch.maximum(x, w),
        lambda x, w: (1 + w) * x,
        lambda x, w: x.mul(w).add_(w),
    )
    return made(shape, lambda self, x: how(x, self.w), w=weight(*sizes))


@block(1, 2)
def in_place_with_a_parameter(draw, *shape):
    def forward(self, x):
        h = self.a(x)
        h += x
        h *= self.w
        return h

    return made(shape, forward, a=nn.Linear(shape[-1], shape[-1]), w=weight(shape[-1]))


@block(1, 2, 3)
def prelu(draw, *shape):
    channels = shape[-1] if len(shape) == 1 else shape[0]
    return nn.PReLU(draw.of(1, channels)), shape


@block(1, 2)
def gates(draw, *shape):
    how = draw.of(
        lambda x, a, b: torch.max(x * a, x * b),
        lambda x, a, b: torch.where(x > 0, x * a, b.expand_as(x)),
        lambda x, a, b: torch.sigmoid(x * a) * x + b,
        lambda x, a, b: torch.stack([x * a, x + b]).amax(0),
        lambda x, a, b: F.glu(torch.cat([x * a, x * b], -1)),
    )
    D = shape[-1]
    return made(shape, lambda self, x: how(x, self.a, self.b), a=weight(D), b=weight(D))
