"""Weights taken apart and put together."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from .draw import block, made, weight


@block(1)
def pieces(draw, D):
    """One parameter in pieces: a chunk, a split, rows, a slice."""
    how = draw.of("chunk", "split", "unbind", "iterate", "slice", "columns", "overlap")

    def forward(self, x):
        if how in ("unbind", "iterate"):
            rows = self.w.unbind(0) if how == "unbind" else list(self.w)
            return torch.stack([(x * row).sum(1) for row in rows], 1)
        if how == "columns":
            return x @ self.w[:, :D] + x.tanh() @ self.w[:, D:]
        first, second = {
            "chunk": lambda: self.w.chunk(2),
            "split": lambda: self.w.split([D, D]),
            "slice": lambda: (self.w[:D], self.w[D:]),
            "overlap": lambda: (self.w[: D + 1], self.w[D - 1 :]),
        }[how]()
        return F.linear(x, first).tanh()[:, :D] + F.linear(x, second)[:, :D]

    w = weight(D, 2 * D) if how == "columns" else weight(2 * D, D)
    return made((2 * D if how in ("unbind", "iterate") else D,), forward, w=w)


@block(1)
def reshaped(draw, D):
    out = draw.size()
    return made((out,), lambda self, x: F.linear(x, self.w.view(out, D)), w=weight(out * D))


@block(1)
def transposed_parameter(draw, D):
    """A parameter that is not contiguous."""
    out = draw.size()
    w = nn.Parameter(torch.randn(D, out).T)
    return made((out,), lambda self, x: F.linear(x, self.w), w=w)


@block(1)
def derived(draw, D):
    """A weight computed from a parameter."""
    how = draw.of(
        lambda w: w.cumsum(0),
        lambda w: w.softmax(1),
        lambda w: w / w.norm(),
        lambda w: w.tril(),
        lambda w: w @ w.T,
        lambda w: torch.matrix_exp(0.1 * w),
        lambda w: torch.linalg.inv(w + 4 * torch.eye(D, dtype=w.dtype)),
        lambda w: torch.kron(w[:1, :1], w),
        lambda w: torch.max(w, 1).values.diag(),
        lambda w: torch._foreach_mul([w], 2.0)[0],
        lambda w: torch.stack(list(w))[:, :D],
        lambda w: w.roll(1, 0).flip(1),
        lambda w: w.masked_fill(torch.eye(D, dtype=torch.bool), 0.0),
    )
    return made((D,), lambda self, x: x @ how(self.w), w=weight(D, D))


@block(1)
def built_by_assignment(draw, D):
    """A matrix of zeros that parameters are written into."""

    def forward(self, x):
        w = torch.eye(D, dtype=x.dtype)
        w[0] = self.row
        if mixed:
            w = w + self.a.weight
        return F.linear(x, w)

    mixed = draw.yes()
    return made((D,), forward, row=weight(D), a=nn.Linear(D, D))


class Symmetric(nn.Module):
    """A parametrisation."""

    def forward(self, w):
        return w + w.T


@block(1)
def parametrised(draw, D):
    how = draw.of("weight_norm", "spectral_norm", "orthogonal", "symmetric")
    layer = nn.Linear(D, D if how == "symmetric" else draw.size())
    if how == "symmetric":
        parametrize.register_parametrization(layer, "weight", Symmetric())
    else:
        getattr(parametrizations, how)(layer)
    return layer, (layer.out_features,)


@block(1)
def tied(draw, D):
    """One layer at two places, or its weight transposed."""
    turned = draw.yes()

    def forward(self, x):
        h = self.a(x).tanh()
        return h @ self.a.weight if turned else self.a(h)

    return made((D,), forward, a=nn.Linear(D, D, bias=draw.yes()))


@block(1)
def used_by_several_operations(draw, D):
    def forward(self, x):
        return F.linear(x * self.w[0], self.w) + self.w.sum(0) + x @ self.w.tanh()

    return made((D,), forward, w=weight(D, D))


@block(1)
def by_foreign_means(draw, D):
    """Operations with weights that no rule may know."""
    how = draw.of(
        lambda x, w: F.cosine_similarity(x[:, None], w, dim=2),
        lambda x, w: torch.cdist(x, w),
        lambda x, w: torch.lerp(x, w[0], 0.3),
        lambda x, w: torch.addcmul(x, x, w[0]),
        lambda x, w: torch.baddbmm(w[:1, None], x[:, None], w.expand(len(x), D, D)).squeeze(1),
        lambda x, w: torch.logaddexp(x, w[0]),
        lambda x, w: F.softplus(x) ** w[0].sigmoid(),
        lambda x, w: (x[:, :, None] * w).sum(1),
        lambda x, w: torch.outer(x[:, 0], w[0]),
        lambda x, w: torch.vmap(lambda row: w @ row)(x),
        lambda x, w: torch.linalg.solve(w + 4 * torch.eye(D, dtype=w.dtype), x.T).T,
        lambda x, w: F.embedding(x[:, 0].long() % D, w),
        lambda x, w: w[x[:, 0].long() % D] * x,
        lambda x, w: w.index_select(0, x[:, 0].long() % D) + x,
        lambda x, w: F.conv1d(x[:, None], w[:1, None, :1]).squeeze(1),
        lambda x, w: F.one_hot(x[:, 0].long() % D, D).to(x) @ w,
    )
    return made((D,), lambda self, x: how(x, self.w), w=weight(D, D))


class HiddenProduct(torch.autograd.Function):
    """A product by a custom function."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x @ w.T

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return g @ w, g.T @ x


class StraightThrough(torch.autograd.Function):
    """A weight rounded, its gradient passed on."""

    @staticmethod
    def forward(ctx, w):
        return (8 * w).round() / 8

    @staticmethod
    def backward(ctx, g):
        return g


@block(1)
def custom_function(draw, D):
    out = draw.size()
    return made((out,), lambda self, x: HiddenProduct.apply(x, self.w), w=weight(out, D))


@block(1)
def quantised(draw, D):
    """A rounded weight, times a learned scale."""
    out = draw.size()

    def forward(self, x):
        return F.linear(x, StraightThrough.apply(self.w) * self.scale)

    return made((out,), forward, w=weight(out, D), scale=weight(draw.of(1, out), 1))
